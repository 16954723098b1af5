"""Tokens are drawn as the request asked, and the cheap way gives what the whole way would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.job import Refusal, Settings
from appliance.engine.sampling import Logits, Sampler
from appliance.engine.vocabulary import Ids


class Shown:
    """A chain that keeps what it was shown and takes the first."""

    def __init__(self) -> None:
        self.ids: Ids = np.array([], dtype=np.int32)
        self.logits: Logits = np.array([], dtype=np.float32)

    def draw(self, ids: Ids, logits: Logits) -> int:
        self.ids, self.logits = ids, logits
        return int(ids[0])


def sampler(answered: list[int] | None = None, **said: Any) -> tuple[Sampler, Shown]:
    shown = Shown()
    return Sampler(Settings(**said), lambda _: shown, answered or []), shown


def logits(*values: float) -> Logits:
    return np.array(values, dtype=np.float32)


def test_at_temperature_zero_the_best_is_taken() -> None:
    assert sampler(temperature=0.0)[0].draw(logits(1, 5, 3)) == 1


def test_only_allowed_tokens_are_drawn() -> None:
    allowed = np.array([2, 0], dtype=np.int32)
    assert sampler(temperature=0.0)[0].draw(logits(1, 5, 3), allowed) == 2
    one, shown = sampler()
    one.draw(logits(1, 5, 3), allowed)
    assert (shown.ids.tolist(), shown.logits.tolist()) == ([2, 0], [3.0, 1.0])


def test_biases_are_added() -> None:
    given_away = sampler(temperature=0.0, logit_bias=((1, -100.0), (0, 1.5), (0, 1.0)))[0]
    assert given_away.draw(logits(1, 5, 3)) == 0


def test_penalties_count_the_answers_tokens_the_committed_ones_included() -> None:
    one = sampler([1], temperature=0.0, frequency_penalty=1.0, presence_penalty=0.5)[0]
    # 5 - 1 - 0.5 = 3.5, then 5 - 2 - 0.5 = 2.5
    assert [one.draw(logits(1, 5, 3)) for _ in range(2)] == [1, 2]


def test_the_repeat_penalty_makes_good_tokens_worse_and_bad_ones_worse_too() -> None:
    one, shown = sampler([0, 1], repeat_penalty=2.0, top_k=0)
    one.draw(logits(4, -4, 1))
    assert shown.logits.tolist() == [2.0, -8.0, 1.0]


def test_the_models_own_numbers_are_not_changed() -> None:
    numbers = logits(1, 5, 3)
    sampler([1], presence_penalty=9.0)[0].draw(numbers)
    assert numbers.tolist() == [1.0, 5.0, 3.0]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=400), st.integers(2, 60))
def test_what_the_chain_is_shown_holds_the_best_top_k(values: list[float], top: int) -> None:
    one, shown = sampler(top_k=top)
    one.draw(logits(*values))
    best = sorted(values, reverse=True)[:top]
    assert sorted(shown.logits.tolist(), reverse=True)[: len(best)] == best
    assert [values[token] for token in shown.ids] == shown.logits.tolist()


def test_without_top_k_everything_is_shown() -> None:
    one, shown = sampler(top_k=0)
    one.draw(np.zeros(1000, dtype=np.float32))
    assert len(shown.ids) == 1000


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_numbers_that_are_none_end_the_request(temperature: float) -> None:
    with pytest.raises(Refusal) as caught:
        sampler(temperature=temperature)[0].draw(logits(1, float("nan"), 3))
    assert caught.value.fault == "server"
