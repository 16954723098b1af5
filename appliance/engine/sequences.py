"""The model's sequences and what is known about them, kept in agreement.

Rules:

1. `prefixes` is told the truth: after each step, copy, way back and failure.
2. A step that fails clears the sequences it was for: nobody knows what they hold.
3. Where a share ends at a boundary, the state is saved.
4. What a standby's last token is followed by is kept: its takeover draws from that at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.engine.job import Settings
from appliance.engine.meter import Meter
from appliance.engine.model import DecodeError, Row
from appliance.engine.prefixes import Holder, Prefixes, Seat
from appliance.engine.prompt import Prompt
from appliance.engine.sampling import Chain, Logits
from appliance.engine.scheduler import Share
from appliance.engine.vocabulary import Vocabulary


class Computer(Protocol):
    """What is needed of a model."""

    vocabulary: Vocabulary
    context: int
    slots: int
    rewinds: bool

    def decode(self, rows: Sequence[Row]) -> Logits: ...

    def forget(self, slot: int) -> None: ...

    def rewind(self, slot: int, position: int) -> int: ...

    def copy(self, source: int, target: int) -> None: ...

    def save(self, slot: int) -> None: ...

    def chain(self, settings: Settings) -> Chain: ...


@dataclass(frozen=True, slots=True)
class Task:
    """A share with its tokens; logits are wanted from position `wanted` on; at `boundary` the state is saved."""

    share: Share
    tokens: Sequence[int]
    wanted: int
    boundary: int


class Sequences:
    def __init__(self, model: Computer, clock: Callable[[], float]) -> None:
        self.model = model
        self.prefixes = Prefixes(slots=model.slots, context=model.context, rewinds=model.rewinds)
        self.meter = Meter()
        self._clock = clock
        self._copied = False
        self._tails: dict[int, Logits] = {}  # of the sequences that have one, see `Prefixes.tail`

    def boundary(self, prompt: Prompt) -> int:
        """Where the state of this prompt's sequence is to be saved. A model that rewinds needs no saving."""
        return 0 if self.model.rewinds else prompt.boundary

    def sit(self, seat: Seat, holder: Holder) -> int:
        """Somebody takes the seat: how many tokens need not be computed there."""
        self.prefixes.take(seat.slot, holder)
        if seat.copy_from is not None:
            try:
                self.model.copy(seat.copy_from, seat.slot)
            except DecodeError as error:
                print(f"A copy failed: {error}.", file=sys.stderr)
                self.clear(seat.slot)
                return 0
            self.prefixes.copied(seat.copy_from, seat.slot)
            if seat.copy_from in self._tails:
                self._tails[seat.slot] = self._tails[seat.copy_from]
            self._copied = True
        return self.rewind(seat.slot, seat.reuse)

    def what_follows(self, slot: int) -> Logits:
        """What follows the last token of this sequence: one row. Only where `prefixes` counts on a tail."""
        return self._tails[slot]

    def rewind(self, slot: int, position: int) -> int:
        """The sequence goes back to `position`, or as far back as it must: where it is now."""
        reached = self.model.rewind(slot, position)
        self.prefixes.cut(slot, reached)
        return reached

    def clear(self, slot: int) -> None:
        self.model.forget(slot)
        self.prefixes.cut(slot, 0)

    def compute(self, tasks: Sequence[Task], *, prompt: int = 0, standby: bool = False) -> Logits | None:
        """One step, of which `prompt` tokens are prompts of requests; None if it failed."""
        before = self._clock()
        count = sum(task.share.count for task in tasks)
        try:
            logits = self.model.decode(
                [Row(task.share.slot, task.share.start, task.tokens, task.wanted) for task in tasks]
            )
        except DecodeError as error:
            print(f"A step of {count} tokens failed: {error}.", file=sys.stderr)
            for task in tasks:
                self.clear(task.share.slot)
            return None
        # A step that also copied says nothing about the speed of prefill.
        self.meter.step(
            count, self._clock() - before, slots=len(tasks), prompt=prompt, standby=standby, telling=not self._copied
        )
        self._copied = False
        at = 0
        for task in tasks:
            slot, end = task.share.slot, task.share.start + task.share.count
            self.prefixes.computed(slot, task.tokens)
            at += max(0, end - max(task.wanted, task.share.start))
            if standby and task.wanted < end:
                self._tails[slot] = logits[at - 1 : at].copy()
                self.prefixes.tail(slot)
            if end == task.boundary:
                self.model.save(slot)
                self.prefixes.mark(slot)
        return logits

    def probe(self) -> bool:
        """Compute one token where it harms least, and take it back: can this engine still do that?"""
        slot = self.prefixes.victim()
        if slot is None:
            return False
        held = self.rewind(slot, min(self.prefixes.length(slot), self.model.context - 1))
        if held and not self.model.rewinds:
            self.model.save(slot)
            self.prefixes.mark(slot)
        try:
            self.model.decode([Row(slot, held, [self.model.vocabulary.bos or 0], held + 1)])
            self.prefixes.cut(slot, self.model.rewind(slot, held))
        except DecodeError as error:
            print(f"A probe failed: {error}.", file=sys.stderr)
            self.clear(slot)
            return False
        return True
