"""Prompts of a wanted length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from appliance.bench.asking import Asking, Failed


class FakeEngine:
    """A template of 20 tokens, so many to each word (0: more to a longer one); it gives the tokens asked for, and says
    what it knew already."""

    def __init__(self, *, per_word: int = 1, refuse: str | None = None, die: bool = False) -> None:
        self.jobs: list[Mapping[str, Any]] = []
        self.per_word = per_word
        self.refuse = refuse
        self.die = die

    def tokens(self, job: Mapping[str, Any]) -> int:
        words = [word for message in job["messages"] for word in message["content"].split()]
        return 20 + sum(1 if len(word) == 1 else self.per_word or len(word) ** 2 // 8 for word in words)

    async def count(self, job: Mapping[str, Any]) -> int:
        return self.tokens(job)

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        self.jobs.append(job)
        if self.refuse:
            yield [{"op": "error", "id": 1, "fault": "too_long", "message": self.refuse}]
            return
        yield [{"op": "begun", "id": 1}]
        for at in range(job["max_tokens"]):
            yield [{"op": "reasoning" if at % 2 else "text", "id": 1, "text": "a"}]
        if self.die:
            return
        counts = {"prompt_tokens": self.tokens(job), "completion_tokens": job["max_tokens"], "cached_tokens": 5}
        yield [{"op": "finish", "id": 1, "reason": "length", "timings": {"predicted_ms": 500.0}, **counts}]


@pytest.mark.parametrize("per_word", [1, 2, 6, 0])
def test_prompts_are_exactly_as_long_as_asked_for(per_word: int) -> None:
    async def measure() -> list[int]:
        engine = FakeEngine(per_word=per_word)
        asking = Asking(engine)
        await asking.calibrate()
        begun = await asking.fresh(300)
        told = [
            begun,
            await asking.fresh(512),
            await asking.fresh(100, after=begun),
            await asking.fresh(128, task=True),
        ]
        return [engine.tokens({"messages": one.messages}) for one in told]

    assert asyncio.run(measure()) == [300, 512, 400, 128]


def test_what_goes_on_begins_alike_and_what_is_new_does_not() -> None:
    async def measure() -> tuple[str, str, str, str]:
        asking = Asking(FakeEngine())
        await asking.calibrate()
        begun = await asking.fresh(200)
        later, task, other = await asking.fresh(50, after=begun), asking.task(begun), await asking.fresh(200)
        first, second, third, fourth = (
            " ".join(message["content"] for message in one.messages) for one in (begun, later, task, other)
        )
        return first, second, third, fourth

    begun, later, task, other = asyncio.run(measure())
    assert later.startswith(begun)
    assert task.startswith(begun)
    assert task.endswith("separated by commas.")
    assert other[:10] != begun[:10]


def test_an_answer_is_told_with_what_was_computed_and_what_was_known() -> None:
    async def measure() -> Any:
        asking = Asking(FakeEngine(), temperature=0.5)
        return await asking.ask(await asking.fresh(100), 8)

    answer = asyncio.run(measure())
    assert (answer.computed, answer.cached, answer.generated, len(answer.pieces)) == (95, 5, 8, 8)
    assert answer.speed == 14.0
    assert answer.asked <= answer.pieces[0] <= answer.pieces[-1] <= answer.ended


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (FakeEngine(refuse="It does not fit."), "the engine refused to be measured: It does not fit"),
        (FakeEngine(die=True), "ended an answer without a word"),
    ],
)
def test_a_refusal_ends_the_measurement_with_its_sentence(engine: FakeEngine, sentence: str) -> None:
    asking = Asking(engine)
    with pytest.raises(Failed, match=sentence):
        asyncio.run(asking.ask(asking.task(), 4))
