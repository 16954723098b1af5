"""A day in the life of an engine, without a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.core.keeper import Advice, GiveUp, Keeper, StartNow, WaitUntil


def crash(keeper: Keeper, now: float) -> Advice:
    keeper.started()
    return keeper.exited(-9, now)


def test_the_first_crash_is_followed_by_a_start_at_once() -> None:
    assert crash(Keeper(), 5.0) == StartNow()


def live(keeper: Keeper, start: float, seconds: float) -> Advice:
    """A process that is ready at once, and dies."""
    keeper.started()
    keeper.ready(start)
    return keeper.exited(-9, start + seconds)


def test_each_further_crash_waits_twice_as_long_up_to_thirty_seconds() -> None:
    keeper = Keeper(deaths=100)
    crash(keeper, 0.0)
    waits = [crash(keeper, 100.0) for _ in range(9)]
    assert waits == [WaitUntil(100.0 + wait) for wait in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_ten_seconds_of_health_are_forgiveness() -> None:
    keeper = Keeper(deaths=100)
    for _ in range(5):
        crash(keeper, 0.0)
    keeper.started()
    keeper.ready(10.0)
    assert keeper.exited(1, 20.0) == StartNow()
    assert keeper.crashes == 1


def test_less_than_ten_seconds_are_not() -> None:
    keeper = Keeper()
    crash(keeper, 0.0)
    keeper.started()
    keeper.ready(10.0)
    assert keeper.exited(1, 19.5) == WaitUntil(20.0)


def test_an_engine_that_was_ready_is_back_within_a_second() -> None:
    keeper = Keeper(deaths=100)
    for _ in range(9):
        crash(keeper, 0.0)
    keeper.started()
    keeper.ready(10.0)
    assert keeper.exited(-9, 11.0) == WaitUntil(12.0)


def test_time_that_was_spent_loading_is_not_health() -> None:
    keeper = Keeper()
    crash(keeper, 0.0)
    assert crash(keeper, 1000.0) == WaitUntil(1000.5)


def test_the_health_of_an_earlier_process_is_not_that_of_the_next() -> None:
    keeper = Keeper()
    keeper.started()
    keeper.ready(0.0)
    keeper.exited(1, 1.0)
    assert crash(keeper, 1000.0) == WaitUntil(1000.5)


def test_a_wrong_model_is_never_started_again_and_the_reason_is_the_engines_own() -> None:
    keeper = Keeper()
    keeper.started()
    assert keeper.exited(64, 0.0, reason="x.gguf is truncated.") == GiveUp("x.gguf is truncated.")
    assert "64" in GiveUp(Keeper().exited(64, 0.0).reason).reason  # type: ignore[union-attr]


def test_three_deaths_within_a_minute_make_it_careful() -> None:
    keeper = Keeper()
    modes = []
    for start in (0.0, 20.0, 40.0):
        live(keeper, start, 15.0)
        modes.append(keeper.mode(start + 15.0))
    assert modes == ["normal", "normal", "careful"]


def test_three_deaths_in_more_than_a_minute_do_not() -> None:
    keeper = Keeper()
    for start in (0.0, 31.0, 62.0, 93.0, 124.0):
        live(keeper, start, 31.0)
        assert keeper.mode(start + 31.0) == "normal"


def test_time_spent_loading_or_asleep_does_not_spread_deaths() -> None:
    keeper = Keeper()
    live(keeper, 0.0, 1.0)
    live(keeper, 1000.0, 1.0)
    keeper.started()
    keeper.ready(2000.0)
    keeper.dismissed(2001.0)
    live(keeper, 90_000.0, 1.0)
    assert keeper.mode(90_001.0) == "careful"


def test_a_minute_of_readiness_without_a_death_ends_the_care() -> None:
    keeper = Keeper()
    for start in (0.0, 1.0, 2.0):
        live(keeper, start, 0.5)
    keeper.started()
    keeper.ready(500.0)  # it took long to load: that was no minute of life
    assert (keeper.mode(559.9), keeper.changes_at()) == ("careful", 560.0)
    assert (keeper.mode(560.0), keeper.changes_at()) == ("normal", None)


def test_a_nap_interrupts_the_minute_and_does_not_begin_it_again() -> None:
    keeper = Keeper()
    for start in (0.0, 1.0, 2.0):
        live(keeper, start, 0.5)
    keeper.started()
    keeper.ready(10.0)
    keeper.dismissed(50.0)
    assert keeper.changes_at() is None
    keeper.started()
    keeper.ready(1000.0)
    assert keeper.changes_at() == 1020.0


def test_three_more_deaths_make_it_failing_and_the_pauses_grow_from_thirty_seconds_to_five_minutes() -> None:
    keeper = Keeper()
    for _ in range(5):
        crash(keeper, 0.0)
    assert keeper.mode(0.0) == "careful"
    waits = [crash(keeper, 0.0) for _ in range(7)]
    assert keeper.mode(0.0) == "failing"
    assert waits == [WaitUntil(float(wait)) for wait in (30, 60, 120, 240, 300, 300, 300)]


def failing() -> Keeper:
    keeper = Keeper()
    for _ in range(6):
        crash(keeper, 0.0)
    assert keeper.mode(0.0) == "failing"
    return keeper


def test_a_failing_one_that_is_ready_for_ten_seconds_is_healed_and_treated_with_care_for_the_rest_of_a_minute() -> None:
    keeper = failing()
    keeper.started()
    keeper.ready(30.0)
    assert (keeper.mode(39.9), keeper.changes_at()) == ("failing", 40.0)
    assert (keeper.mode(40.0), keeper.changes_at()) == ("careful", 90.0)
    assert keeper.mode(90.0) == "normal"


def test_a_failing_one_that_dies_before_waits_longer() -> None:
    keeper = failing()
    assert live(keeper, 30.0, 9.0) == WaitUntil(39.0 + 60.0)
    assert keeper.mode(39.0) == "failing"


def test_one_that_healed_begins_again_with_short_waits() -> None:
    keeper = failing()
    assert live(keeper, 30.0, 11.0) == StartNow()
    assert keeper.mode(41.0) == "careful"
    crash(keeper, 50.0)
    assert crash(keeper, 50.0) == WaitUntil(80.0)


def test_one_that_dies_often_and_still_answers_is_not_failing() -> None:
    keeper = Keeper()
    for number in range(200):
        keeper.started()
        keeper.ready(float(number))
        keeper.answered()
        keeper.exited(-9, number + 0.5)
    assert keeper.mode(200.0) == "careful"


def test_answers_do_not_hide_the_first_three_deaths() -> None:
    keeper = Keeper()
    for number in range(3):
        keeper.started()
        keeper.ready(float(number))
        keeper.answered()
        keeper.exited(-9, number + 0.5)
    assert keeper.mode(3.0) == "careful"


@given(st.integers(1, 5000))
def test_no_wait_is_ever_longer_than_five_minutes(crashes: int) -> None:
    keeper = Keeper()
    answer: Advice = StartNow()
    for _ in range(crashes):
        answer = crash(keeper, 0.0)
    assert answer == StartNow() if crashes == 1 else isinstance(answer, WaitUntil) and 0.5 <= answer.time <= 300.0
