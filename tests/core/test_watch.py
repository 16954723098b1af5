"""A process that is there: at work, slow, or wedged. Seconds pass as fast as they are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.core.watch import Look, LookAgain, Probe, Watch, Wedged


def pass_time(watch: Watch, start: float, seconds: float, *, asked: bool = False) -> tuple[float, Look]:
    """Look whenever asked to, until something is to be done or the time is over."""
    now, end = start, start + seconds
    while True:
        look = watch.look(now, asked=asked)
        if not isinstance(look, LookAgain) or now >= end:
            return now, look
        assert look.time > now
        now = min(look.time, end)


def a_ready_one(**said: float) -> Watch:
    watch = Watch(0.0)
    watch.ready(0.0, **said)
    return watch


def test_an_idle_one_is_probed_every_thirty_seconds() -> None:
    watch = a_ready_one()
    assert pass_time(watch, 0, 1000) == (30, Probe())
    watch.alive(30.1)
    at, look = pass_time(watch, 30.1, 1000)
    assert (round(at, 6), look) == (60.1, Probe())


def test_one_that_owes_answers_is_probed_after_ten_seconds_of_silence() -> None:
    watch = a_ready_one()
    assert pass_time(watch, 0, 100, asked=True) == (10, Probe())


def test_words_make_a_probe_needless() -> None:
    watch = a_ready_one()
    for second in range(1, 1000):
        assert isinstance(watch.look(float(second), asked=True), LookAgain)
        watch.heard(float(second))


def test_an_idle_one_that_is_asked_is_probed_at_once_if_it_was_silent_for_ten_seconds() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 15)
    assert watch.look(15.0, asked=True) == Probe()


def test_a_probe_that_is_not_answered_for_twenty_seconds_means_wedged() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 100, asked=True)
    assert pass_time(watch, 10, 19.9, asked=True)[1] != Wedged("it computed nothing for 20 s")
    assert pass_time(watch, 29.9, 100, asked=True) == (30, Wedged("it computed nothing for 20 s"))


def test_a_word_after_the_probe_is_as_good_as_its_answer() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 100, asked=True)
    pass_time(watch, 10, 15, asked=True)
    watch.heard(25.0)
    assert pass_time(watch, 25, 100, asked=True) == (35, Probe())


def test_a_slow_one_that_took_its_time_before_may_take_it_again() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 100, asked=True)
    pass_time(watch, 10, 15, asked=True)
    watch.alive(25.0)  # a probe of 15 s: a minute is allowed now
    assert watch.patience == 60
    pass_time(watch, 25, 100, asked=True)
    assert pass_time(watch, 35, 200, asked=True) == (95, Wedged("it computed nothing for 60 s"))


def test_a_long_load_and_a_low_speed_are_reasons_for_patience_and_all_patience_ends() -> None:
    assert a_ready_one(load_s=80.0, tok_s=130.0).patience == 80
    assert a_ready_one(load_s=1.0, tok_s=1.0).patience == 64
    assert a_ready_one(load_s=1.0, tok_s=130.0).patience == 20
    assert a_ready_one(load_s=5000.0).patience == 300


def test_a_load_is_not_probed_and_may_take_hours_while_it_comes_on() -> None:
    watch = Watch(0.0)
    for minute in range(1, 200):
        assert isinstance(pass_time(watch, (minute - 1) * 60, 60, asked=True)[1], LookAgain)
        watch.progress(minute * 60.0)


def test_a_load_without_progress_for_five_minutes_is_wedged() -> None:
    watch = Watch(0.0)
    pass_time(watch, 0, 100)
    watch.progress(100.0)
    assert pass_time(watch, 100, 1000) == (400, Wedged("it loaded nothing for 300 s"))


def test_a_jump_of_the_clock_kills_nobody_who_answers_after_it() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 100, asked=True)  # the lid is closed right after the probe at 10
    assert isinstance(watch.look(36_000.0, asked=True), LookAgain)
    watch.alive(36_000.5)
    assert isinstance(watch.look(36_001.0, asked=True), LookAgain)
    assert watch.patience < 30  # and the night was not a slow step


def test_one_that_is_wedged_before_and_after_a_jump_is_still_found() -> None:
    watch = a_ready_one()
    pass_time(watch, 0, 100, asked=True)
    at, look = pass_time(watch, 36_000, 100, asked=True)
    assert (at, look) == (36_018, Wedged("it computed nothing for 20 s"))


def test_a_load_survives_a_jump() -> None:
    watch = Watch(0.0)
    pass_time(watch, 0, 200)
    assert isinstance(watch.look(90_000.0, asked=False), LookAgain)


def test_a_clock_that_goes_back_counts_nothing() -> None:
    watch = a_ready_one()
    watch.look(1000.0, asked=True)
    assert isinstance(watch.look(0.0, asked=True), LookAgain)


@given(st.lists(st.floats(0.0, 10_000.0), min_size=1, max_size=60), st.booleans())
def test_nobody_is_wedged_before_ten_looks_have_seen_a_probe_without_an_answer(
    pauses: list[float], asked: bool
) -> None:
    watch, now, since_probe = a_ready_one(), 0.0, 0
    for pause in pauses:
        now += pause
        match watch.look(now, asked=asked):
            case Probe():
                since_probe = 0
            case Wedged():
                assert since_probe >= 9
                return
            case LookAgain(time):
                since_probe += 1
                assert now < time <= now + 2.000001
