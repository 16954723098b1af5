"""A breaker's life as conversations: what it was told, whom it lets through, and when."""

import pytest

from appliance.core.breaker import Breaker
from appliance.core.chat import BackendError, Fault

COUNTED = [Fault.UNREACHABLE, Fault.SERVER, Fault.BROKEN, Fault.SILENT, Fault.BUSY]
UNCOUNTED = [Fault.REQUEST, Fault.TOO_LONG, Fault.CRASHED, Fault.GONE]
MIDDLE = 0.5  # the jitter that changes nothing


def fails(breaker, now, fault=Fault.SERVER, *, jitter=MIDDLE, **more):
    """One call that is let through and fails; the error it failed with."""
    error = BackendError(fault, f"claude: {fault.value}", **more)
    leave = breaker.begin(now)
    assert leave is not None
    breaker.fail(leave, now, error, jitter=jitter)
    return error


def succeeds(breaker, now):
    leave = breaker.begin(now)
    assert leave is not None
    breaker.succeed(leave, now)


def opened(now=0.0, **settings):
    """A breaker that opened at `now` and waits its plain cooldown."""
    breaker = Breaker(failures=1, **settings)
    fails(breaker, now)
    return breaker


# ------------------------------------------------------------------------------------------------- closed


def test_a_new_breaker_lets_everybody_through_at_once():
    breaker = Breaker()
    passes = [breaker.begin(0.0) for _ in range(5)]
    assert None not in passes
    assert (breaker.state(0.0), breaker.admits(0.0), breaker.reopens_in(0.0), breaker.failures) == (
        "closed",
        True,
        None,
        0,
    )
    assert (breaker.last, breaker.alarm) == (None, None)


def test_three_failures_in_a_row_open_it_for_the_cooldown():
    breaker = Breaker()
    states = []
    for now in (0.0, 1.0, 2.0):
        error = fails(breaker, now)
        states.append(breaker.state(now))
    assert states == ["closed", "closed", "open"]
    assert (breaker.reopens_in(2.0), breaker.failures, breaker.last) == (10.0, 3, error)
    assert breaker.begin(11.9) is None
    assert (breaker.state(12.0), breaker.admits(12.0), breaker.reopens_in(12.0)) == ("half-open", True, None)


def test_a_success_between_them_starts_the_count_again():
    breaker = Breaker(failures=3)
    fails(breaker, 0.0)
    fails(breaker, 0.0)
    succeeds(breaker, 0.0)
    fails(breaker, 0.0)
    assert (breaker.failures, breaker.state(0.0)) == (1, "closed")


def test_calls_that_began_together_count_by_how_they_end():
    breaker = Breaker(failures=2)
    first, second, third = (breaker.begin(0.0) for _ in range(3))
    breaker.fail(first, 1.0, BackendError(Fault.BROKEN, "cut"), jitter=MIDDLE)
    assert breaker.state(1.0) == "closed"
    breaker.fail(second, 2.0, BackendError(Fault.BROKEN, "cut"), jitter=MIDDLE)
    assert breaker.state(2.0) == "open"
    breaker.succeed(third, 3.0)  # given out before it opened: proves nothing now
    assert (breaker.state(3.0), breaker.failures) == ("open", 2)


def test_half_of_the_last_twenty_open_it_when_five_fell_within_a_minute():
    breaker = Breaker(failures=3)
    for now in range(4):
        fails(breaker, float(now))
        succeeds(breaker, float(now))
    assert breaker.state(4.0) == "closed"
    fails(breaker, 60.0)  # the fifth, and the first is just a minute old
    assert breaker.state(60.0) == "open"


def test_five_failures_spread_over_more_than_a_minute_do_not_open_it():
    breaker = Breaker(failures=3)
    for now in range(4):
        fails(breaker, float(now))
        succeeds(breaker, float(now))
    fails(breaker, 60.5)
    assert breaker.state(60.5) == "closed"


def test_five_failures_among_six_successes_are_less_than_half():
    breaker = Breaker(failures=3)
    for end in (succeeds, succeeds, fails, succeeds, fails, succeeds, fails, succeeds, fails, succeeds, fails):
        end(breaker, 0.0)
    assert breaker.state(0.0) == "closed"


def test_only_the_last_twenty_ends_are_remembered():
    breaker = Breaker(failures=3)
    for _ in range(40):
        succeeds(breaker, 0.0)
    for _ in range(9):
        fails(breaker, 0.0)
        succeeds(breaker, 0.0)
    assert breaker.state(0.0) == "closed"
    fails(breaker, 0.0)  # ten of twenty
    assert breaker.state(0.0) == "open"


@pytest.mark.parametrize("fault", COUNTED)
def test_this_counts_against_the_cloud(fault):
    breaker = Breaker(failures=2)
    fails(breaker, 0.0, fault)
    assert (breaker.failures, breaker.state(0.0)) == (1, "closed")
    error = fails(breaker, 0.0, fault)
    assert (breaker.state(0.0), breaker.last) == ("open", error)


@pytest.mark.parametrize("fault", UNCOUNTED)
def test_this_counts_against_nobody(fault):
    breaker = Breaker(failures=1)
    fails(breaker, 0.0, fault)
    assert (breaker.failures, breaker.state(0.0), breaker.last, breaker.alarm) == (0, "closed", None, None)


def test_every_fault_is_counted_or_not_or_somebodys_configuration():
    assert {*COUNTED, *UNCOUNTED, Fault.CONFIG} == set(Fault)


# ------------------------------------------------------------------------------------------- one is enough


def test_come_back_in_thirty_seconds_opens_it_for_thirty_seconds():
    breaker = Breaker(failures=3, cooldown=10.0)
    fails(breaker, 100.0, Fault.BUSY, retry_after=30.0, jitter=0.9)
    assert (breaker.state(100.0), breaker.reopens_in(100.0)) == ("open", 30.0)
    assert breaker.state(130.0) == "half-open"


def test_no_cloud_can_send_us_away_for_longer_than_ten_minutes():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.BUSY, retry_after=86_400.0)
    assert breaker.reopens_in(0.0) == 600.0


def test_retry_after_counts_for_a_busy_cloud_only():
    breaker = Breaker(failures=3)
    fails(breaker, 0.0, Fault.SERVER, retry_after=30.0)
    assert breaker.state(0.0) == "closed"


@pytest.mark.parametrize("status", [401, 403, 402, 429, None])
def test_a_wrong_key_opens_it_for_a_quarter_of_an_hour_and_raises_the_alarm(status):
    breaker = Breaker(failures=3)
    error = fails(breaker, 0.0, Fault.CONFIG, status=status)
    assert (breaker.state(0.0), breaker.reopens_in(0.0)) == ("open", 900.0)
    assert (breaker.last, breaker.alarm) == (error, "claude: config")


def test_one_unknown_model_raises_the_alarm_but_says_nothing_about_the_others():
    breaker = Breaker(failures=1)
    error = fails(breaker, 0.0, Fault.CONFIG, status=404)
    assert (breaker.state(0.0), breaker.failures) == ("closed", 0)
    assert (breaker.last, breaker.alarm) == (error, "claude: config")
    succeeds(breaker, 1.0)
    assert breaker.alarm is None


# ----------------------------------------------------------------------------------------------- half-open


def test_half_open_lets_one_single_trial_through_at_a_time():
    breaker = opened()
    trial = breaker.begin(10.0)
    assert trial is not None
    assert (breaker.admits(10.0), breaker.begin(10.0), breaker.begin(1000.0)) == (False, None, None)
    breaker.succeed(trial, 11.0)
    assert (breaker.state(11.0), breaker.admits(11.0)) == ("half-open", True)


def test_two_trials_that_reached_their_end_close_it_and_clear_the_past():
    breaker = opened()
    succeeds(breaker, 10.0)
    assert (breaker.state(10.0), breaker.failures) == ("half-open", 0)
    succeeds(breaker, 11.0)
    assert (breaker.state(11.0), breaker.failures, breaker.last) == ("closed", 0, None)
    assert None not in [breaker.begin(11.0) for _ in range(5)]


def test_a_failed_trial_opens_it_for_twice_as_long():
    breaker = opened()
    fails(breaker, 10.0)
    assert (breaker.state(10.0), breaker.reopens_in(10.0)) == ("open", 20.0)


def test_a_failed_trial_takes_back_the_one_that_passed():
    breaker = opened()
    succeeds(breaker, 10.0)
    fails(breaker, 10.0)
    succeeds(breaker, 30.0)
    assert breaker.state(30.0) == "half-open"


def test_one_failed_trial_is_enough_however_many_failures_it_takes_to_open():
    breaker = Breaker(failures=3)
    fails(breaker, 0.0, Fault.BUSY, retry_after=30.0)
    succeeds(breaker, 30.0)
    fails(breaker, 30.0)
    assert (breaker.state(30.0), breaker.failures) == ("open", 1)


def test_the_wait_doubles_to_five_minutes_and_no_further():
    breaker, now, waits = opened(), 10.0, []
    for _ in range(7):
        fails(breaker, now)
        waits.append(breaker.reopens_in(now))
        now += waits[-1]
    assert waits == [20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_the_wait_is_short_again_after_it_was_closed():
    breaker = opened()
    fails(breaker, 10.0)
    succeeds(breaker, 30.0)
    succeeds(breaker, 30.0)
    fails(breaker, 30.0)
    assert breaker.reopens_in(30.0) == 10.0


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 8.0), (0.5, 10.0), (0.75, 11.0)])
def test_jitter_moves_the_wait_by_up_to_a_fifth(jitter, wait):
    breaker = Breaker(failures=1, cooldown=10.0)
    fails(breaker, 0.0, jitter=jitter)
    assert breaker.reopens_in(0.0) == pytest.approx(wait)


def test_jitter_moves_a_doubled_wait_too():
    breaker = opened()
    fails(breaker, 10.0, jitter=0.0)
    assert breaker.reopens_in(10.0) == pytest.approx(16.0)


@pytest.mark.parametrize("fault", UNCOUNTED)
def test_a_trial_that_proved_nothing_lets_the_next_one_go(fault):
    breaker = opened()
    fails(breaker, 10.0, fault)
    assert (breaker.state(10.0), breaker.admits(10.0)) == ("half-open", True)


def test_a_trial_for_an_unknown_model_lets_the_next_one_go():
    breaker = opened()
    fails(breaker, 10.0, Fault.CONFIG, status=404)
    assert (breaker.state(10.0), breaker.admits(10.0)) == ("half-open", True)


def test_a_trial_whose_client_left_lets_the_next_one_go_and_counts_for_nothing():
    breaker = opened()
    breaker.abandon(breaker.begin(10.0))
    succeeds(breaker, 10.0)
    assert breaker.state(10.0) == "half-open"
    succeeds(breaker, 10.0)
    assert breaker.state(10.0) == "closed"


def test_the_alarm_stays_until_it_is_closed_again():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.CONFIG, status=401)
    succeeds(breaker, 900.0)
    assert breaker.alarm == "claude: config"
    succeeds(breaker, 900.0)
    assert (breaker.state(900.0), breaker.alarm) == ("closed", None)


# ------------------------------------------------------------------------------------------------ old passes


def test_what_was_let_through_before_it_opened_cannot_fail_it_again():
    breaker = Breaker(failures=1)
    late = breaker.begin(0.0)
    fails(breaker, 0.0)
    breaker.fail(late, 5.0, BackendError(Fault.CONFIG, "late", status=401), jitter=MIDDLE)
    assert (breaker.reopens_in(5.0), breaker.failures, breaker.alarm) == (5.0, 1, None)


def test_what_was_let_through_before_it_opened_does_not_end_a_trial():
    breaker = Breaker(failures=1)
    late = breaker.begin(0.0)
    fails(breaker, 0.0)
    trial = breaker.begin(10.0)
    assert trial is not None
    breaker.succeed(late, 11.0)
    breaker.abandon(late)
    assert not breaker.admits(11.0)


def test_the_trial_of_an_earlier_opening_does_not_count_in_this_one():
    breaker = opened()
    stale = breaker.begin(10.0)
    breaker.reset()
    fails(breaker, 10.0)
    running = breaker.begin(20.0)
    assert running is not None
    breaker.abandon(stale)
    breaker.succeed(stale, 20.0)
    breaker.fail(stale, 20.0, BackendError(Fault.SERVER, "late"), jitter=MIDDLE)
    assert (breaker.state(20.0), breaker.admits(20.0)) == ("half-open", False)


def test_reset_closes_it_by_hand():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.CONFIG, status=401)
    breaker.reset()
    assert (breaker.state(0.0), breaker.failures, breaker.last, breaker.alarm) == ("closed", 0, None, None)


def test_reset_voids_what_runs():
    breaker = Breaker(failures=1)
    late = breaker.begin(0.0)
    breaker.reset()
    breaker.fail(late, 1.0, BackendError(Fault.SERVER, "late"), jitter=MIDDLE)
    assert (breaker.state(1.0), breaker.failures) == ("closed", 0)


def test_reset_forgets_how_the_last_answers_ended():
    breaker = Breaker(failures=3)
    for _ in range(4):
        succeeds(breaker, 0.0)
        fails(breaker, 0.0)
    fails(breaker, 0.0, Fault.REQUEST)
    assert breaker.failures == 1
    breaker.reset()
    assert breaker.failures == 0
    fails(breaker, 0.0)
    assert (breaker.state(0.0), breaker.failures) == ("closed", 1)


def test_reset_forgets_the_doubled_wait():
    breaker = Breaker(failures=1)
    for _ in range(6):
        fails(breaker, breaker.reopens_in(0.0) or 0.0)
    breaker.reset()
    fails(breaker, 0.0)
    assert breaker.reopens_in(0.0) == 10.0


# ------------------------------------------------------------------------------------- once found wrong


def test_a_short_retry_after_does_not_shorten_the_cooldown():
    breaker = Breaker(cooldown=10.0)
    fails(breaker, 0.0, Fault.BUSY, retry_after=0.5)
    assert breaker.reopens_in(0.0) == 10.0  # max(cooldown, Retry-After)


def test_come_back_at_once_is_no_more_than_a_failure():
    breaker = Breaker(failures=3)
    fails(breaker, 0.0, Fault.BUSY, retry_after=0.0)
    assert (breaker.state(0.0), breaker.failures) == ("closed", 1)


def test_a_trial_refused_as_busy_doubles_the_wait_like_any_other():
    breaker = opened()
    fails(breaker, 10.0, Fault.BUSY, retry_after=1.0)
    assert breaker.reopens_in(10.0) == 20.0
