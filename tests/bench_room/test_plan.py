"""How much is measured, and how long it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.bench.plan import (
    PHASES,
    QUICK,
    USUAL,
    Speeds,
    crowd_rounds,
    depths,
    seconds_left,
    takeover_tokens,
)

SMALL = Speeds(load=1.0, reading=350.0, writing=120.0)  # the starter on two cores
SLOW = Speeds(load=20.0, reading=10.0, writing=2.0)  # 7 billion parameters on the same


def test_the_usual_run_of_a_small_model_takes_three_minutes_at_most() -> None:
    assert 30 < seconds_left(PHASES, USUAL, SMALL, 8192, 8192) <= 180
    assert seconds_left(PHASES, QUICK, SMALL, 8192, 8192) <= 40


@pytest.mark.parametrize(
    ("wished", "speeds", "context", "expected"),
    [
        (None, SMALL, 8192, (4096,)),
        (None, SMALL, 4096, (2048,)),
        (None, SMALL, 1024, ()),
        (None, SLOW, 8192, ()),
        ((0, 1000, 2000), SLOW, 8192, (1000, 2000)),
        ((0, 1000, 9000), SMALL, 8192, (1000,)),
    ],
)
def test_a_depth_nobody_asked_for_must_fit_and_be_quick_and_others_must_fit(
    wished: tuple[int, ...] | None, speeds: Speeds, context: int, expected: tuple[int, ...]
) -> None:
    assert depths(replace(USUAL, depths=wished), speeds, context) == expected


def test_a_slow_box_is_asked_by_several_less_often_but_once() -> None:
    assert crowd_rounds(USUAL, SMALL) == 3
    assert crowd_rounds(USUAL, SLOW) == 1


@pytest.mark.parametrize(
    ("speeds", "longest", "expected"), [(SMALL, 8192, 2000), (SMALL, 1000, 600), (SLOW, 8192, 600), (SLOW, 256, 128)]
)
def test_the_conversation_taken_over_fits_and_is_read_within_a_minute(
    speeds: Speeds, longest: int, expected: int
) -> None:
    assert takeover_tokens(USUAL, speeds, longest) == expected


def test_the_context_has_room_for_the_deepest_test_and_its_template() -> None:
    assert USUAL.context == 4096 + 512 + 192
    assert QUICK.context == 512 + 192
    assert replace(USUAL, depths=(0, 100), prompts=(0,), gens=(256,)).context == 100 + 256 + 192


def test_less_is_left_with_each_phase() -> None:
    left = [seconds_left(PHASES[at:], USUAL, SMALL, 8192, 8192) for at in range(len(PHASES) + 1)]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
