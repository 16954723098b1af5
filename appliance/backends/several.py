"""Several answers to one request, written at the same time.

Rules of this file:

1. The first one goes ahead until it has said something: by then the prompt is computed, and the others begin with a
   copy of it.
2. One that fails ends them all, and so does whoever stops listening. If the engine died, those that only waited for
   a slot leave the word to those that were at work.
3. The prompt is counted once, as the first one read it, and what they say is counted together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace

from appliance.core.events import Degraded, Event, Usage
from appliance.core.fault import BackendError
from appliance.core.frames import Frame

Frames = AsyncIterator[list[Frame]]


async def beside(answers: Sequence[Frames]) -> AsyncGenerator[tuple[int, list[Frame]], None]:
    """The frames of all of them as they come, each batch with the number of its answer."""
    if len(answers) == 1:
        async with contextlib.aclosing(answers[0]):  # type: ignore[type-var]
            async for frames in answers[0]:
                yield 0, frames
        return
    said: asyncio.Queue[tuple[int, list[Frame] | Exception | None]] = asyncio.Queue(len(answers))
    running = {asyncio.ensure_future(_tell(0, answers[0], said))}
    try:
        left, spared = 1, None
        while left:
            number, batch = await said.get()
            if isinstance(batch, BackendError) and batch.innocent:
                left, spared = left - 1, batch
                continue
            if isinstance(batch, Exception):
                raise batch
            if len(running) == 1 and (batch is None or any(frame["op"] != "begun" for frame in batch)):
                running |= {asyncio.ensure_future(_tell(at, answers[at], said)) for at in range(1, len(answers))}
                left = len(answers)
            if batch is None:
                left -= 1
            else:
                yield number, batch
        if spared is not None:
            raise spared
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _tell(number: int, answer: Frames, said: asyncio.Queue[tuple[int, list[Frame] | Exception | None]]) -> None:
    try:
        async with contextlib.aclosing(answer):  # type: ignore[type-var]
            async for batch in answer:
                await said.put((number, batch))
    except Exception as error:
        await said.put((number, error))
    else:
        await said.put((number, None))


class Bill:
    """What several answers cost together."""

    def __init__(self) -> None:
        self._first: Usage | None = None
        self._completions: dict[int, int] = {}

    def of(self, choice: int, events: Sequence[Event]) -> list[Event]:
        """The same events; what was read, and what is said of the reading, only once."""
        kept: list[Event] = []
        for event in events:
            if isinstance(event, Usage):
                begins = self._first is None
                self._first = self._first or event
                self._completions[choice] = event.completion_tokens
                if begins or event.completion_tokens:
                    kept.append(replace(self._first, completion_tokens=sum(self._completions.values())))
            elif not (isinstance(event, Degraded) and choice):
                kept.append(event)
        return kept
