"""Slow is dead, bursts are not: conversations with the judge of an answer's speed."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.drip import ENOUGH, NEVER, PAUSE, READING, SPAN, WINDOW, Drip, Usual

USUAL = 200.0  # characters per second; a tenth of it for the whole of `SPAN` is 300 characters


def dies(rhythm, usual=USUAL):
    """When is an answer of this rhythm, pairs of (seconds, characters), given up? ``None``: not before its end."""
    drip = Drip(usual)
    for now, characters in rhythm:
        due = drip.deadline(now)
        if due <= now:
            return due
        drip.heard("text", characters, now)
    return None


def steady(rate, every, until=60.0, start=0.0):
    """So many characters per second, a piece `every` so many seconds."""
    count = int((until - start) / every)
    total = [round(rate * every * index) for index in range(count + 1)]
    return [(start + every * index, now - before) for index, (before, now) in enumerate(itertools.pairwise(total))]


def bursts(characters, every, until=120.0, piece=4, within=0.001):
    """Paragraphs, each let out in small pieces right after one another."""
    rhythm, start = [], 0.0
    while start < until:
        rhythm += [(start + within * index, piece) for index in range(characters // piece)]
        start += every
    return rhythm


def tokens(rng, rate=50.0, count=1500):
    """What models are seen to do: token for token, now and then several in one read after a short hiccup."""
    rhythm, now = [], 0.0
    for _ in range(count):
        now += rng.lognormvariate(math.log(1.0 / rate), 0.5)
        if rng.random() < 0.01:
            now += rng.uniform(0.2, 4.0)
        rhythm.append((now, rng.choice((1, 3, 4, 5, 8))))
    return rhythm


# ----------------------------------------------------------------------------------------------------- what is usual


def test_what_is_usual_is_known_after_some_answers():
    usual = Usual()
    for _ in range(ENOUGH - 1):
        usual.learn(100.0)
    assert usual.rate is None
    usual.learn(100.0)
    assert usual.rate == 100.0


def test_it_is_the_median_so_that_answers_from_a_cache_do_not_matter():
    usual = Usual()
    for rate in (90.0, 95.0, 100.0, 105.0, 110.0, 9000.0, 9000.0, 1.0, 2.0):
        usual.learn(rate)
    assert usual.rate == 100.0


def test_what_is_long_ago_is_forgotten():
    usual = Usual()
    for rate in [500.0] * WINDOW + [50.0] * WINDOW:
        usual.learn(rate)
    assert usual.rate == 50.0


def spoken(*rhythm):
    drip = Drip(None)
    for now, characters in rhythm:
        drip.heard("text", characters, now)
    return drip.rate


def test_the_rate_is_of_what_came_after_the_first_piece():
    assert spoken((3.0, 1000), (4.0, 60), (5.0, 140)) == 100.0


@pytest.mark.parametrize("rhythm", [[], [(0.0, 5000)], [(0.0, 5), (0.2, 5000)], [(0.0, 5000), (9.0, 20)]])
def test_too_little_tells_no_rate(rhythm):
    assert spoken(*rhythm) is None


def test_thinking_and_calls_are_no_part_of_the_rate():
    drip = Drip(None)
    for kind, characters, now in [
        ("text", 10, 0.0),
        ("text", 150, 1.0),
        ("thinking", 9000, 2.0),
        ("tools", 9000, 30.0),
        ("text", 10, 60.0),
        ("text", 150, 61.0),
    ]:
        drip.heard(kind, characters, now)
    assert drip.rate == 150.0


# ---------------------------------------------------------------------------------------------------- what is too slow


def test_nobody_is_judged_before_it_is_known_what_is_usual():
    assert dies(steady(0.5, 2.0), usual=None) is None


def test_an_answer_that_drips_from_the_start_is_given_up_after_the_span():
    assert dies(steady(2.0, 0.5)) == pytest.approx(SPAN, abs=0.01)


def test_an_answer_that_begins_to_drip_is_given_up_as_soon_as_a_whole_span_was_slow():
    died = dies(steady(USUAL, 0.02, until=30.0) + steady(2.0, 0.5, start=30.0, until=90.0))
    assert 30.0 + SPAN - 2.0 < died <= 30.0 + SPAN


def test_a_burst_counts_for_the_span_behind_it():
    assert dies([(0.0, 4), (2.0, 400), *steady(3.0, 1.0, start=2.0, until=30.0)]) == 2.0 + SPAN


def test_half_of_a_tenth_is_as_dead_as_nearly_nothing():
    assert dies(steady(0.05 * USUAL, 0.5)) == pytest.approx(SPAN, abs=0.01)


def test_a_fifth_of_the_usual_speed_is_slow_and_alive():
    assert dies(steady(0.2 * USUAL, 0.5, until=600.0)) is None


def test_the_end_of_a_drip_is_due_between_two_pieces():
    drip = Drip(USUAL)
    for now in range(13):
        drip.heard("text", 3, float(now))
    assert drip.deadline(12.0) == SPAN
    drip.heard("text", 400, 12.5)  # it has recovered
    assert drip.deadline(12.5) == NEVER


def test_a_deadline_that_was_missed_is_now():
    drip = Drip(USUAL)
    for now in range(18):
        drip.heard("text", 3, float(now))
    assert drip.deadline(17.5) == 17.5


def test_silence_is_not_ours_to_judge():
    drip = Drip(USUAL)
    drip.heard("text", 50, 0.0)
    assert drip.deadline(0.0) == NEVER
    drip.heard("text", 50, 1.0)
    assert drip.deadline(1000.0) == NEVER


def test_silence_behind_a_drip_gets_what_is_left_of_the_span():
    drip = Drip(USUAL)
    for now in (0.0, 4.0, 8.0, 11.0):
        drip.heard("text", 3, now)
    assert drip.deadline(11.0) == SPAN
    assert Drip(USUAL).deadline(11.0) == NEVER


def test_long_waits_between_single_tokens_are_a_drip_in_the_end():
    assert dies([(19.0 * index, 4) for index in range(20)]) is not None


def test_an_answer_faster_than_people_read_is_not_dead_however_fast_its_model_is():
    assert dies(steady(1.1 * READING, 0.1, until=120.0), usual=8000.0) is None
    assert dies(steady(0.5 * READING, 0.1, until=120.0), usual=8000.0) == pytest.approx(SPAN, abs=0.2)


# -------------------------------------------------------------------------------------------------------- what is not


@pytest.mark.parametrize("kind", ["thinking", "tools"])
def test_the_clock_stands_while_something_else_is_written_and_starts_anew(kind):
    drip = Drip(USUAL)
    for now in range(13):
        drip.heard("text", 3, float(now))
    drip.heard(kind, 1, 13.0)
    assert drip.deadline(13.0) == NEVER
    drip.heard("text", 3, 100.0)
    drip.heard("text", 3, 104.0)
    drip.heard("text", 3, 108.0)
    assert drip.deadline(108.0) == NEVER
    drip.heard("text", 3, 112.0)
    assert drip.deadline(112.0) == 100.0 + SPAN


def test_a_leg_that_says_it_thinks_is_not_judged_meanwhile():
    drip = Drip(USUAL)
    for now in range(13):
        drip.heard("text", 3, float(now))
    drip.pause()
    assert drip.deadline(13.0) == NEVER


def test_the_clients_slowness_is_not_the_legs():
    drip = Drip(USUAL)
    for now in range(13):
        drip.heard("text", 3, float(now))
    drip.held_up(4.0)
    assert drip.deadline(12.0) == SPAN + 4.0
    drip.heard("text", 3, 17.0)  # only a second of it was the leg's
    assert drip.deadline(17.0) == 19.0


@pytest.mark.parametrize("every", [2.0, 6.0, 12.0, 18.0, 19.9])
@pytest.mark.parametrize("characters", [200, 600, 2000])
def test_paragraphs_in_bursts_are_alive(characters, every):
    usual = characters / every  # as it learns of a cloud that always does so
    assert dies(bursts(characters, every), usual) is None


@pytest.mark.parametrize("every", [2.0, 6.0, 12.0, 18.0, 19.9])
def test_bursts_of_a_cloud_that_usually_streams_are_alive(every):
    """Some proxy began to hold text back, and the speed is a fifth of the usual."""
    assert dies(bursts(round(0.2 * USUAL * every), every)) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_stream_with_hiccups_is_alive(seed):
    assert dies(tokens(random.Random(seed))) is None


def test_one_paragraph_and_then_a_long_wait_is_alive():
    assert dies([(0.0, 4), (0.01, 900), (18.0, 4), (18.01, 4), (18.2, 4), (30.0, 700)]) is None


GAPS = st.floats(min_value=0.001, max_value=19.9)


@pytest.mark.long
@given(st.lists(st.tuples(GAPS, st.integers(200, 3000)), min_size=1, max_size=60))
def test_whoever_says_enough_each_time_may_take_any_time(bursts_of):
    now, rhythm = 0.0, []
    for gap, characters in bursts_of:
        now += gap
        rhythm += [(now, 1), (now, characters)]
    assert dies(rhythm) is None


@pytest.mark.long
@given(st.floats(min_value=0.1, max_value=PAUSE - 0.5), st.floats(min_value=0.0, max_value=0.9), st.integers(0, 200))
def test_less_than_a_tenth_is_dead_whatever_the_rhythm(every, share, before):
    """Any steady drip that pauses less than a pause, behind any healthy beginning."""
    healthy = [(0.1 * index, 20) for index in range(before)]
    start = 0.1 * before
    count = math.ceil(2 * SPAN / every)
    drip = [(start + every * index, math.floor(share * 0.1 * USUAL * every)) for index in range(1, count + 1)]
    died = dies(healthy + drip)
    assert died is not None
    assert died <= start + SPAN + 2 * every


@pytest.mark.long
@given(st.lists(st.tuples(st.floats(min_value=0.0, max_value=30.0), st.integers(0, 500)), max_size=60))
def test_nothing_is_given_up_before_a_whole_span_and_only_for_too_little(steps):
    now, rhythm = 0.0, []
    for gap, characters in steps:
        now += gap
        rhythm.append((now, characters))
    died = dies(rhythm)
    if died is not None:
        assert died >= rhythm[0][0] + SPAN
        recent = sum(characters for at, characters in rhythm if died - SPAN < at < died)
        assert recent < SPAN * 0.1 * USUAL


def test_memory_is_bounded_by_what_has_to_be_said():
    drip = Drip(USUAL)
    for index in range(100_000):
        drip.heard("text", 1, 0.0005 * index)
    assert len(drip._pieces) <= SPAN * 0.1 * USUAL
