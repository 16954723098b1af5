"""A day in the life of an engine, without a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.core.keeper import Answer, GiveUp, Keeper, StartNow, WaitUntil


def crash(keeper: Keeper, now: float) -> Answer:
    keeper.started()
    return keeper.exited(-9, now)


def test_the_first_crash_is_followed_by_a_start_at_once() -> None:
    assert crash(Keeper(), 5.0) == StartNow()


def test_each_further_crash_waits_twice_as_long_up_to_thirty_seconds() -> None:
    keeper = Keeper()
    crash(keeper, 0.0)
    waits = [crash(keeper, 100.0) for _ in range(9)]
    assert waits == [WaitUntil(100.0 + wait) for wait in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_ten_seconds_of_health_are_forgiveness() -> None:
    keeper = Keeper()
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
    keeper = Keeper()
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


@given(st.integers(1, 5000))
def test_no_wait_is_ever_longer_than_thirty_seconds(crashes: int) -> None:
    keeper = Keeper()
    answer: Answer = StartNow()
    for _ in range(crashes):
        answer = crash(keeper, 0.0)
    assert answer == StartNow() if crashes == 1 else isinstance(answer, WaitUntil) and 0.5 <= answer.time <= 30.0
