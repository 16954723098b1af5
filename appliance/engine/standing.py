"""The standbys at work: they take sequences nobody needs, and compute in small steps when nobody else computes.

Rules:

1. A standby never disturbs: it is computed only when no request has anything to compute, and loses its sequence to any
   request. Then it waits for another.
2. When it cannot be computed it ends without a word.
3. What it leaves is kept from the other standbys for a moment: its takeover's prompt is being written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from appliance.core.standby import Mode
from appliance.engine.following import Following, Standby, shares
from appliance.engine.prompt import Prompt
from appliance.engine.scheduler import small_pace
from appliance.engine.sequences import Sequences, Task
from appliance.engine.vocabulary import Ids

RESERVED = 1.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The prompt of a standby as it is now; `mode` is given when it begins. No prompt: it can be followed no more."""

    id: int
    prompt: Prompt | None
    mode: Mode | None = None
    suspicion: float = 0.0


class StandingBy:
    def __init__(self, sequences: Sequences, clock: Callable[[], float]) -> None:
        self._sequences = sequences
        self._prefixes = sequences.prefixes
        self._clock = clock
        self._following = Following()
        self._reserved: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._following)

    @property
    def ready(self) -> int:
        """How many have caught up."""
        return sum(one.slot >= 0 and self._length(one) == len(one.tokens) for one in self._following)

    @property
    def wait(self) -> float | None:
        """Look again after so many seconds, even if nothing is said. None: there is no need to."""
        return RESERVED if self._reserved else None

    def follow(self, followed: Followed) -> None:
        """A standby begins, or its answer has grown."""
        prompt = followed.prompt
        if prompt is None:
            self.end(followed.id)
            return
        tokens: Ids = np.array([*prompt.tokens, *prompt.cut.kept], np.int32)
        boundary = self._sequences.boundary(prompt)
        one = self._following.get(followed.id)
        if one is not None:
            one.tokens, one.boundary = tokens, boundary
            if one.slot >= 0:
                self._sequences.rewind(one.slot, self._prefixes.reach(one.slot, tokens))
        elif followed.mode is not None:
            mode, suspicion = followed.mode, followed.suspicion
            self._following.add(
                Standby(id=followed.id, mode=mode, tokens=tokens, boundary=boundary, suspicion=suspicion)
            )

    def suspect(self, id: int, level: float) -> None:
        one = self._following.get(id)
        if one is not None:
            one.suspicion = level
            if one.slot >= 0:
                self._prefixes.take(one.slot, one.holder)

    def end(self, id: int) -> None:
        """It is over, if it was here. What it computed stays."""
        one = self._following.end(id)
        if one is not None and one.slot >= 0:
            self._prefixes.leave(one.slot)
            self._reserved[one.slot] = self._clock() + RESERVED

    def push_out(self, slot: int) -> None:
        """Somebody else takes the sequence."""
        self._reserved.pop(slot, None)
        one = self._following.of(slot)
        if one is not None:
            one.slot = -1

    def step(self, *, idle: bool) -> bool:
        """A small step for those that are worth it. False: there is none. No request has anything to compute now."""
        now = self._clock()
        self._reserved = {slot: until for slot, until in self._reserved.items() if until > now}
        if not len(self._following):
            return False
        speed = self._sequences.meter.prefill_speed
        worthy = self._following.worthy(self._length, prefill_speed=speed, idle=idle)
        for one in worthy:
            if one.slot < 0:
                self._seat(one)
        seated = [(one, len(one.tokens) - self._length(one)) for one in worthy if one.slot >= 0]
        plan = shares(seated, small_pace(speed))
        if not plan:
            return False
        tasks = []
        for share in plan:
            standby = self._following.get(share.id)
            assert standby is not None
            end = share.start + share.count
            wanted = end - (end == len(standby.tokens))  # what follows the last one is what a takeover begins with
            tasks.append(Task(share, standby.tokens[share.start : end].tolist(), wanted, standby.boundary))
        if self._sequences.compute(tasks, standby=True) is None:
            for share in plan:
                self.end(share.id)
        return True

    def _seat(self, one: Standby) -> None:
        seat = self._prefixes.seat(one.tokens, most=len(one.tokens), holder=one.holder, reserved=self._reserved)
        if seat is None:
            return
        self.push_out(seat.slot)
        self._sequences.sit(seat, one.holder)
        one.slot = seat.slot

    def _length(self, one: Standby) -> int:
        """So much of it is computed: in its own sequence, or somewhere."""
        return self._prefixes.length(one.slot) if one.slot >= 0 else self._prefixes.best(one.tokens)
