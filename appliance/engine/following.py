"""The conversations that clouds are answering, and which of them is computed next, so that the box could go on.

A standby's tokens are the conversation and as much of the cloud's answer as is certain. They change as the answer
grows; what is computed of them is in a sequence of the model, if the standby has one.

Rules:

1. What is worth computing is decided in `core/standby.py`, anew each time: a delta grows, a box becomes idle.
2. Urgent ones come first, the more suspicious the cloud the earlier; then the others, in the order they began.
3. A step for standbys is small, and stops at a boundary like any other.
4. A standby that has caught up costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from appliance.core.standby import SUSPICIOUS, Facts, Mode, worthwhile
from appliance.engine.prefixes import Holder
from appliance.engine.scheduler import Share
from appliance.engine.vocabulary import Ids


@dataclass(slots=True, kw_only=True)
class Standby:
    """`slot` is negative as long as it has none; then nothing of it is computed."""

    id: int
    mode: Mode
    tokens: Ids = field(repr=False)
    boundary: int
    suspicion: float = 0.0
    slot: int = -1

    @property
    def holder(self) -> Holder:
        return Holder.URGENT if self.suspicion >= SUSPICIOUS else Holder.STANDBY


class Following:
    """Told about standbys, it answers which to compute."""

    def __init__(self) -> None:
        self._standbys: dict[int, Standby] = {}

    def __contains__(self, id: int) -> bool:
        return id in self._standbys

    def __len__(self) -> int:
        return len(self._standbys)

    def __iter__(self) -> Iterator[Standby]:
        """In the order in which they are computed."""
        return iter(sorted(self._standbys.values(), key=_order))

    def get(self, id: int) -> Standby | None:
        return self._standbys.get(id)

    def of(self, slot: int) -> Standby | None:
        """Whose slot is this?"""
        return next((one for one in self._standbys.values() if one.slot == slot), None)

    def add(self, standby: Standby) -> None:
        self._standbys[standby.id] = standby

    def end(self, id: int) -> Standby | None:
        return self._standbys.pop(id, None)

    def worthy(self, length: Callable[[Standby], int], *, prefill_speed: float | None, idle: bool) -> list[Standby]:
        """Those that should be computed now; `length` says how many of a standby's tokens are computed."""
        chosen = []
        for one in self:
            delta = len(one.tokens) - length(one)
            facts = Facts(delta=delta, prefill_speed=prefill_speed, idle=idle, suspicion=one.suspicion)
            if delta > 0 and worthwhile(one.mode, facts):
                chosen.append(one)
        return chosen


def _order(one: Standby) -> tuple[bool, bool, float]:
    return (one.holder is not Holder.URGENT, one.mode != "hot", -one.suspicion)


def shares(standbys: Sequence[tuple[Standby, int]], budget: int) -> list[Share]:
    """A step of at most `budget` tokens for these standbys, each with its delta; the first ones have precedence."""
    step = []
    for one, delta in standbys:
        start = len(one.tokens) - delta
        count = min(delta, budget)
        if start < one.boundary:
            count = min(count, one.boundary - start)
        if count:
            step.append(Share(id=one.id, slot=one.slot, start=start, count=count))
            budget -= count
    return sorted(step, key=lambda share: share.slot)
