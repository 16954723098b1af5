"""A breaker's life as conversations: what it was told, whom it lets through, and when."""

import pytest

from appliance.core.breaker import Breaker
from appliance.core.fault import BackendError, Fault, Reply

UNCOUNTED = [Fault.REQUEST, Fault.TOO_LONG, Fault.CRASHED, Fault.GONE, Fault.STOPPED]
COUNTED = [fault for fault in Fault if fault not in (*UNCOUNTED, Fault.CONFIG)]
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


def told(error):
    """An error as a breaker remembers it."""
    return (error.fault, error.message, error.status, error.code)


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
    assert (breaker.reopens_in(2.0), breaker.failures, told(breaker.last)) == (10.0, 3, told(error))
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
    assert (breaker.state(0.0), told(breaker.last)) == ("open", told(error))


@pytest.mark.parametrize("fault", UNCOUNTED)
def test_this_counts_against_nobody(fault):
    breaker = Breaker(failures=1)
    fails(breaker, 0.0, fault)
    assert (breaker.failures, breaker.state(0.0), breaker.last, breaker.alarm) == (0, "closed", None, None)


def test_what_counts_is_known_of_the_faults_there_are():
    assert {Fault.UNREACHABLE, Fault.SERVER, Fault.BROKEN, Fault.SILENT, Fault.BUSY} <= set(COUNTED)


def test_what_is_remembered_keeps_no_clients_request_alive():
    breaker = Breaker()
    try:
        try:
            raise ValueError("the prompt")
        except ValueError as cause:
            raise BackendError(Fault.SERVER, "500", words="theirs", reply=Reply(status=500, body=b"x")) from cause
    except BackendError as error:
        breaker.fail(breaker.begin(0.0), 0.0, error, jitter=MIDDLE)
    kept = breaker.last
    assert (kept.__traceback__, kept.__cause__, kept.__context__, kept.reply, kept.words) == (None,) * 5


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


@pytest.mark.parametrize("status", [401, 403, 402, 404, 429, None])
def test_a_wrong_key_opens_it_for_a_quarter_of_an_hour_and_raises_the_alarm(status):
    breaker = Breaker(failures=3)
    error = fails(breaker, 0.0, Fault.CONFIG, status=status)
    assert (breaker.state(0.0), breaker.reopens_in(0.0)) == ("open", 900.0)
    assert (told(breaker.last), breaker.alarm) == (told(error), "claude: config")


def test_what_is_certain_for_another_reason_opens_it_for_as_long_as_it_is_told():
    breaker = Breaker(failures=3)
    breaker.trip(100.0, BackendError(Fault.BROKEN, "It repeats itself."), 60.0)
    assert (breaker.reopens_in(100.0), told(breaker.last)[1], breaker.alarm) == (60.0, "It repeats itself.", None)
    assert breaker.state(160.0) == "half-open"


def test_a_certain_failure_of_the_configuration_raises_the_alarm():
    breaker = Breaker()
    breaker.trip(0.0, BackendError(Fault.CONFIG, "No credit."), 900.0)
    assert breaker.alarm == "No credit."


def test_a_refusal_between_one_caller_and_the_cloud_counts_for_nobody():
    breaker = Breaker(failures=1)
    fails(breaker, 0.0, Fault.CONFIG, status=401)
    breaker.reset()
    error = BackendError(Fault.CONFIG, "His key.", status=401)
    error.private = True
    breaker.fail(breaker.begin(0.0), 0.0, error, jitter=MIDDLE)
    assert (breaker.state(0.0), breaker.last, breaker.alarm) == ("closed", None, None)


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


# ------------------------------------------------------------------------------------------------- probes


def waits_of(breaker, trials, *, probe):
    """How long it waits after each of so many failed trials, with a probe before each."""
    waits = []
    now = 10.0
    for _ in range(trials):
        breaker.probed(probe, now - 1.0)
        fails(breaker, now)
        waits.append(breaker.reopens_in(now))
        now += waits[-1]
    return waits


def test_the_wait_doubles_while_the_probe_fails_too():
    assert waits_of(opened(), 6, probe=False) == [20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_the_wait_stays_short_while_the_probe_succeeds():
    assert waits_of(opened(), 4, probe=True) == [10.0] * 4


def test_the_last_probe_is_the_one_that_counts():
    breaker = opened()
    breaker.probed(True, 1.0)
    breaker.probed(False, 2.0)
    fails(breaker, 10.0)
    assert breaker.reopens_in(10.0) == 20.0


def test_a_probe_that_succeeded_once_makes_the_wait_start_anew():
    breaker = opened()
    waits_of(breaker, 4, probe=False)
    breaker.probed(True, 200.0)
    breaker.probed(False, 201.0)
    fails(breaker, 202.0)
    assert breaker.reopens_in(202.0) == 20.0


def test_a_probe_that_is_well_again_brings_the_trial_forward_and_the_wait_back():
    breaker = opened()
    waits_of(breaker, 4, probe=False)  # open until 310
    breaker.probed(True, 200.0)
    assert (breaker.state(200.0), breaker.admits(200.0)) == ("half-open", True)
    fails(breaker, 200.0)
    assert breaker.reopens_in(200.0) == 10.0


def test_a_probe_that_was_well_all_the_time_brings_nothing_forward():
    breaker = opened()
    for now in (1.0, 2.0):
        breaker.probed(True, now)
    assert breaker.reopens_in(2.0) == 8.0


def test_no_number_of_good_probes_closes_it():
    breaker = opened()
    for now in range(100):
        breaker.probed(now % 2 == 1, float(now))
    assert breaker.state(100.0) == "half-open"
    assert breaker.begin(100.0).trial


def test_a_probe_does_not_shorten_what_the_cloud_asked_for():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.BUSY, retry_after=30.0)
    breaker.probed(False, 1.0)
    breaker.probed(True, 2.0)
    assert (breaker.reopens_in(2.0), breaker.wants_probe(2.0)) == (28.0, False)


def test_a_probe_does_not_shorten_a_refused_key():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.CONFIG, status=401)
    breaker.probed(False, 1.0)
    breaker.probed(True, 2.0)
    assert (breaker.reopens_in(2.0), breaker.wants_probe(2.0)) == (898.0, False)


def test_a_short_retry_after_can_be_brought_forward_to_no_earlier_than_it_says():
    breaker = Breaker(cooldown=100.0)
    fails(breaker, 0.0, Fault.BUSY, retry_after=30.0)
    breaker.probed(False, 1.0)
    breaker.probed(True, 2.0)
    assert (breaker.reopens_in(2.0), breaker.wants_probe(2.0)) == (28.0, False)


def test_only_an_open_one_wants_to_be_probed():
    breaker = opened()
    assert [breaker.wants_probe(now) for now in (0.0, 9.9, 10.0)] == [True, True, False]
    assert not Breaker().wants_probe(0.0)


def test_a_probe_of_an_earlier_outage_says_nothing_about_this_one():
    breaker = opened()
    breaker.probed(True, 1.0)
    succeeds(breaker, 10.0)
    succeeds(breaker, 10.0)
    breaker.probed(True, 11.0)
    fails(breaker, 20.0)
    fails(breaker, 30.0)
    assert breaker.reopens_in(30.0) == 20.0


# ----------------------------------------------------------------------------------- when the way is back


def test_once_the_way_is_back_a_trial_may_go_at_once():
    breaker = opened()
    waits_of(breaker, 4, probe=False)
    breaker.recover(200.0)
    assert (breaker.state(200.0), breaker.begin(200.0).trial) == ("half-open", True)


def test_a_closed_one_asks_for_trials_too_when_the_way_is_back():
    breaker = Breaker()
    early = breaker.begin(0.0)
    breaker.recover(5.0)
    assert breaker.state(5.0) == "half-open"
    breaker.succeed(early, 5.0)
    for _ in range(2):
        assert breaker.state(5.0) == "half-open"
        succeeds(breaker, 5.0)
    assert breaker.state(5.0) == "closed"


def test_what_is_certain_stands_though_the_way_is_back():
    breaker = Breaker()
    fails(breaker, 0.0, Fault.CONFIG, status=401)
    breaker.recover(5.0)
    assert breaker.reopens_in(5.0) == 895.0


# ---------------------------------------------------------------------------------------------- slow start


def test_the_first_three_calls_after_it_closed_are_watched_more_closely():
    breaker = opened()
    trials = []
    for _ in range(2):
        trials.append(breaker.begin(10.0))
        breaker.succeed(trials[-1], 10.0)
    assert breaker.fresh(10.0)
    passes = [breaker.begin(11.0) for _ in range(5)]
    assert [leave.wary for leave in trials] == [True, True]
    assert [leave.wary for leave in passes] == [True, True, True, False, False]
    assert [leave.trial for leave in passes] == [False] * 5
    assert not breaker.fresh(11.0)


def test_so_they_are_when_it_was_closed_by_hand():
    breaker = opened()
    breaker.reset()
    assert [breaker.begin(0.0).fresh for _ in range(4)] == [True, True, True, False]


def test_a_new_one_starts_at_full_speed_also_after_a_needless_reset():
    breaker = Breaker()
    breaker.reset()
    assert (breaker.fresh(0.0), breaker.begin(0.0).wary) == (False, False)


def test_an_open_one_is_not_fresh():
    breaker = opened()
    breaker.reset()
    fails(breaker, 0.0)
    assert not breaker.fresh(0.0)


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
    breaker = Breaker(failures=1, cooldown=10.0)
    fails(breaker, 0.0, Fault.BUSY, retry_after=0.5)
    assert breaker.reopens_in(0.0) == 10.0  # max(cooldown, Retry-After)


@pytest.mark.parametrize(("retry_after", "state"), [(0.5, "closed"), (2.0, "closed"), (2.1, "open")])
def test_up_to_two_seconds_are_worth_waiting_for_and_no_reason_to_stay_away(retry_after, state):
    breaker = Breaker(failures=3, cooldown=10.0)
    fails(breaker, 0.0, Fault.BUSY, retry_after=retry_after)
    assert (breaker.state(0.0), breaker.failures) == (state, 1)


def test_come_back_at_once_is_no_more_than_a_failure():
    breaker = Breaker(failures=3)
    fails(breaker, 0.0, Fault.BUSY, retry_after=0.0)
    assert (breaker.state(0.0), breaker.failures) == ("closed", 1)


def test_a_trial_refused_as_busy_doubles_the_wait_like_any_other():
    breaker = opened()
    fails(breaker, 10.0, Fault.BUSY, retry_after=1.0)
    assert breaker.reopens_in(10.0) == 20.0
