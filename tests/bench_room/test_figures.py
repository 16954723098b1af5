"""The arithmetic of a benchmark."""

from __future__ import annotations

import math

import pytest

from appliance.bench.figures import Row, Spread, lower_bound, reading, spread, together, writing
from tests.bench_room.made_up import answer


def test_of_nothing_there_is_no_figure() -> None:
    assert math.isnan(spread([]).mean)
    assert math.isnan(lower_bound([]))


def test_spread_is_the_mean_and_the_sample_deviation() -> None:
    assert spread([2, 4, 4, 4, 5, 5, 7, 9]) == Spread(mean=5.0, deviation=pytest.approx(2.138089935), count=8)
    assert spread([3]) == Spread(mean=3.0, deviation=0.0, count=1)


def test_a_mean_is_as_sure_as_its_rounds_are_many() -> None:
    assert spread([9, 10, 11]).error == pytest.approx(4.30 / math.sqrt(3))
    assert spread([9, 10, 11] * 5).error == pytest.approx(1.96 * spread([9, 10, 11] * 5).deviation / math.sqrt(15))
    assert math.isnan(spread([10]).error)


def test_the_lower_bound_of_a_median_is_below_it_and_repeats() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert 1.0 <= lower_bound(values) < 4.0
    assert lower_bound(values) == lower_bound(values)


def test_an_answer_has_a_speed_only_after_its_first_token() -> None:
    assert answer(0, 1.0, 1.5, 3.0, generated=5).speed == 2.0
    assert answer(0, 1.0, 2.0, generated=1).speed is None
    assert answer(0, 1.0, generated=5).per_token is None
    assert answer(0, 1.0, 1.5, 3.0).gaps == (0.5, 1.5)


def test_the_first_token_of_an_answer_without_text_is_at_its_end() -> None:
    silent = answer(1, 3.5)
    assert silent.first == 2.5
    assert type(silent)(**{name: getattr(silent, name) for name in silent.__slots__} | {"pieces": ()}).first == 2.5


def test_reading_is_over_when_the_answer_of_one_token_is() -> None:
    row = reading([answer(0, 0.5, 0.5), answer(10, 11.0)], n_prompt=100, n_depth=0)
    assert row == Row(n_prompt=100, n_gen=0, speeds=(200.0, 100.0), firsts=(0.5, 1.0))
    assert row.test == "pp100"


def test_writing_is_told_without_the_prompt_and_without_what_says_nothing() -> None:
    row = writing([answer(0, 1.0, 3.0), answer(0, 5.0, generated=1)], n_gen=5, n_depth=4096)
    assert row == Row(n_prompt=0, n_gen=5, n_depth=4096, speeds=(2.0,), gaps=(2.0,), per_token=(0.5,))
    assert row.test == "tg5 @ d4096"


def test_a_crowd_is_counted_from_the_first_question_to_the_last_end() -> None:
    rounds = [[answer(0, 1.0, 3.0), answer(0, 2.0, 4.0)], [answer(10, 11.0, 13.0), answer(10, 14.0, 18.0)]]
    row = together(rounds, n_prompt=100, n_gen=5)
    assert row == Row(
        n_prompt=100,
        n_gen=5,
        n_parallel=2,
        speeds=(210 / 4, 210 / 8),
        firsts=(1.0, 2.0, 1.0, 4.0),
        gaps=(2.0, 2.0, 2.0, 4.0),
        per_token=(0.5, 0.5, 0.5, 1.0),
        written=(10 / 4, 10 / 8),
        each=(2.0, 2.0, 2.0, 1.0),
    )
    assert (row.test, row.tokens) == ("pp100+tg5 x 2", 210)
