"""Prompts of a wanted length, and answers of the engine with the time at which each piece came.

Each conversation begins with a system prompt of its own, so that nothing of it is known already; many templates write
one otherwise. A later one may begin like it, and goes on behind what is there.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from appliance.bench.figures import Lived

_WORDS = (
    "the house water light table garden river mountain winter summer morning evening letter story music window door "
    "street city village school teacher student doctor farmer horse bird fish tree flower stone metal paper glass "
    "bread milk sugar salt apple orange green blue red white black small large long short early late warm cold new "
    "old young good great little high low open close left right north south east west one two three four five six"
).split()
_TASK = "Ignore the words above. Write the numbers from one to one thousand as words, separated by commas."
_ATTEMPTS = 6


class Failed(Exception):
    """The engine did not let itself be measured; `str()` says why."""


class Generator(Protocol):
    """What is needed of the engine."""

    def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]: ...

    async def count(self, job: Mapping[str, Any]) -> int: ...


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt, and the words of one question."""

    system: str
    words: tuple[str, ...]
    task: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        said = " ".join([*self.words, *([self.task] if self.task else [])])
        return [{"role": "system", "content": self.system}, {"role": "user", "content": said}]


class Asking:
    """Asks one engine. `temperature` above 0 for a model of random weights, that would say the same word for ever."""

    def __init__(self, engine: Generator, *, temperature: float = 0.0) -> None:
        self._engine = engine
        self._temperature = temperature
        self._random = random.Random(8484)
        self._per_word = 1.0

    async def calibrate(self) -> None:
        """How many tokens is a word with this model's tokenizer?"""
        words = 100
        bare = await self._count(Conversation("", ()))
        self._per_word = max(0.1, (await self._count(Conversation("", self._words(words))) - bare) / words)

    async def fresh(self, tokens: int, *, after: Conversation | None = None, task: bool = False) -> Conversation:
        """A conversation of so many tokens; begun anew, or going on `after` one that is known already. With a `task` at
        its end its answer is a long one."""
        begun = after or Conversation(f"{self._random.random()}"[2:], (), _TASK if task else "")
        target = tokens + (await self._count(begun) if after else 0)
        found = begun
        for _ in range(_ATTEMPTS):
            missing = target - await self._count(found)
            if not missing:
                break
            if missing > 0:
                # Where a word is many tokens, letters fill what is left.
                more = self._words(int(missing / self._per_word)) or ("a",) * missing
                found = replace(found, words=(*found.words, *more))
            else:
                fewer = len(found.words) - math.ceil(-missing / self._per_word)
                found = replace(found, words=found.words[: max(len(begun.words), fewer)])
        return found

    def task(self, after: Conversation | None = None) -> Conversation:
        """Something to write a long answer to."""
        if after is None:
            return Conversation(f"{self._random.random()}"[2:], (), _TASK)
        return Conversation(after.system, after.words, _TASK)

    async def ask(self, conversation: Conversation, generated: int) -> Lived:
        """One answer of at most so many tokens. Raises `Failed`, and `BackendError` if the engine is gone."""
        job = {
            "messages": conversation.messages,
            "committed": None,
            "max_tokens": generated,
            "stop": [],
            "trim": False,
            "sampling": {"temperature": self._temperature, "seed": 1},
        }
        asked, pieces = time.perf_counter(), []
        ended: dict[str, Any] = {}
        async with aclosing(self._engine.generate(job)) as batches:  # type: ignore[type-var]
            async for frames in batches:
                now = time.perf_counter()
                for frame in frames:
                    if frame["op"] in ("text", "reasoning"):
                        pieces.append(now)
                    elif frame["op"] == "finish":
                        ended = frame
                    elif frame["op"] == "error":
                        raise Failed(f"the engine refused to be measured: {frame['message']}")
        if not ended:
            raise Failed("the engine ended an answer without a word about it.")
        return Lived(
            asked=asked,
            pieces=tuple(pieces),
            ended=now,
            computed=ended["prompt_tokens"] - ended["cached_tokens"],
            cached=ended["cached_tokens"],
            generated=ended["completion_tokens"],
            writing=ended["timings"]["predicted_ms"] / 1000,
        )

    async def _count(self, conversation: Conversation) -> int:
        return await self._engine.count({"messages": conversation.messages, "committed": None})

    def _words(self, count: int) -> tuple[str, ...]:
        return tuple(self._random.choices(_WORDS, k=count))
