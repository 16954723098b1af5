"""The box as whoever answers. What the engine is asked is written in `asked`, what it says is read in `heard`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from appliance.backends.asked import counting, following, job, spoken
from appliance.backends.heard import translate
from appliance.backends.several import Bill, beside
from appliance.core.chat import ChatRequest, Foreign, Image, Part
from appliance.core.events import Degraded, Event, Started, Usage
from appliance.core.frames import Frame
from appliance.core.standby import Following, Mode

UNSEEN: tuple[tuple[type[Part], str], ...] = ((Image, "images"), (Foreign, "documents"))

PATIENCE = 0.25
"""Seconds of a cloud's answer before the box is told of it: what ends sooner is not worth the reading."""


class Generator(Protocol):
    """What is needed of the engine."""

    def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]: ...

    async def count(self, job: Mapping[str, Any]) -> int: ...

    def follow(self, job: Mapping[str, Any], *, mode: Literal["auto", "hot"], suspicion: float) -> Following: ...


class LocalBackend:
    """Answers on the box, and stands by while others answer. `model` is the name it gives itself in answers."""

    name = "local"

    def __init__(self, engine: Generator, model: str, *, standby: Mode = "cold") -> None:
        self._engine = engine
        self._model = model
        self._mode: Literal["auto", "hot"]
        self.patience: float
        self.adopt(standby)

    def exchange(self, engine: Generator, model: str) -> None:
        """From now on this one is asked. An answer that is under way ends with the engine it began with."""
        self._engine, self._model = engine, model

    def adopt(self, standby: Mode) -> None:
        """Stand by like this from now on."""
        self._mode = "hot" if standby == "hot" else "auto"
        self.patience = PATIENCE if standby == "auto" else 0.0

    def follow(self, request: ChatRequest, *, suspicion: float) -> Following:
        """Tell the engine of a conversation it may have to go on with. Never waits, never fails."""
        return self._engine.follow(following(request), mode=self._mode, suspicion=suspicion)

    async def count(self, request: ChatRequest) -> int:
        """The tokens of everything in `request`, as the box's model reads it, whether it fits or not. Raises
        `BackendError`, and at once if the engine is not ready."""
        return await self._engine.count(counting(request))

    async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[Sequence[Event]]:
        """Answer `request`. Closing the iterator stops the work at once. Raises `BackendError`."""
        # The caller asked for a cloud's model; the answer says who really gave it.
        parts = [part for message in request.messages for part in spoken(message)]
        unseen = [Degraded(what=what) for kind, what in UNSEEN if any(isinstance(part, kind) for part in parts)]
        started = False
        bill = Bill() if request.n > 1 else None
        frames = beside([self._engine.generate(job(request, choice)) for choice in range(request.n)])
        async with contextlib.aclosing(frames):
            async for choice, batch in frames:
                events, error = translate(batch, choice)
                if bill is not None:
                    events = bill.of(choice, events)
                if not started and events:
                    started = True
                    usage = [event for event in events[:1] if isinstance(event, Usage)]
                    first = Started(id="", model=self._model, created=0)
                    events = [first, *usage, *unseen, *events[len(usage) :]]
                if events:
                    yield events
                if error is not None:
                    raise error
