"""How odd is this silence?

A phi-accrual failure detector (Hayashibara et al., 2004): phi(t) = -log10 P(a wait longer than t), with the waits of
this upstream as its history. Times until the first content, and between pieces of content, vary by factors and not by
sums, so their logarithms are taken as normally distributed.

Rules:

1. One history per upstream and kind of wait: until the first content, and between pieces of text, of thinking, of tool
   arguments. Only content counts: lifecycle events and pings are life, not progress.
2. Before `ENOUGH` waits are known the starting values hold. After that the history speaks, within bounds: none is given
   more than the ceiling, and no limit is below its starting value. An upstream has fast and slow models and
   questions, and a healthy slow answer among fast ones must not fail because of them; a standby may begin early.
   Between pieces the limit's floor is its ceiling, and no history changes it.
3. `warning` is when a standby should begin, `limit` is when the upstream is given up. Of the wait until the first
   content there is `late` besides, never before the one and never after the other: when nineteen of twenty answers
   would have begun, it is worth asking somebody else as well (Dean and Barroso, The Tail at Scale, 2013).
4. Told durations in seconds, it answers durations in seconds: it has no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Literal

Kind = Literal["first", "text", "thinking", "tools"]

ENOUGH = 20
WINDOW = 500
SHORTEST = 1e-4  # seconds; pieces that came in one read have no time between them worth counting
LEAST_SPREAD = 0.25  # of the logarithm: a history of equal waits must not make a slightly longer one an alarm
LEAST_VARIANCE = LEAST_SPREAD**2

_NORMAL = NormalDist()


@cache
def _deviations(phi: float) -> float:
    """How many standard deviations above the mean phi has this value."""
    return -_NORMAL.inv_cdf(10.0**-phi)


class Waits:
    """The last `WINDOW` waits of one kind, as a distribution."""

    __slots__ = ("_logs", "_squares", "_sum")

    def __init__(self) -> None:
        self._logs: deque[float] = deque()
        self._sum = 0.0
        self._squares = 0.0

    def __len__(self) -> int:
        return len(self._logs)

    def add(self, seconds: float) -> None:
        log = math.log(max(seconds, SHORTEST))
        if len(self._logs) == WINDOW:
            old = self._logs.popleft()
            self._sum -= old
            self._squares -= old * old
        self._logs.append(log)
        self._sum += log
        self._squares += log * log

    def reaches(self, phi: float) -> float:
        """The wait at which phi has this value: only one in 10^phi is longer. Needs at least one wait."""
        mean, spread = self._shape()
        return math.exp(mean + spread * _deviations(phi))

    def phi(self, seconds: float) -> float:
        """How odd a wait of this length is; 0 is usual, 3 is one in a thousand. Needs at least one wait."""
        mean, spread = self._shape()
        longer = 0.5 * math.erfc((math.log(max(seconds, SHORTEST)) - mean) / spread / math.sqrt(2.0))
        return -math.log10(longer) if longer > 0.0 else math.inf

    def _shape(self) -> tuple[float, float]:
        count = len(self._logs)
        mean = self._sum / count
        variance = self._squares / count - mean * mean
        return mean, math.sqrt(variance) if variance > LEAST_VARIANCE else LEAST_SPREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How long is too long, in seconds: `start` until there is history; then `factor` times the wait at which phi
    reaches `phi`, within `floor` and `ceiling`."""

    start: float
    phi: float
    factor: float = 1.0
    floor: float
    ceiling: float

    def given(self, waits: Waits) -> float:
        """What it is with these in mind."""
        if self.floor == self.ceiling or len(waits) < ENOUGH:
            return self.start
        return min(max(self.factor * waits.reaches(self.phi), self.floor), self.ceiling)


P75, P95 = -math.log10(0.25), -math.log10(0.05)

# Clouds think, and write long arguments, in silence: half a minute has been seen of healthy ones.
_SILENT_WORK_WARNING = Bound(start=20.0, phi=4.0, floor=2.0, ceiling=20.0)
_SILENT_WORK_LIMIT = Bound(start=60.0, phi=8.0, floor=60.0, ceiling=60.0)

WARNINGS: Mapping[Kind, Bound] = {
    "first": Bound(start=4.0, phi=P75, floor=0.5, ceiling=8.0),
    "text": Bound(start=8.0, phi=4.0, floor=1.0, ceiling=8.0),
    "thinking": _SILENT_WORK_WARNING,
    "tools": _SILENT_WORK_WARNING,
}
LIMITS: Mapping[Kind, Bound] = {
    "first": Bound(start=12.0, phi=P95, factor=2.0, floor=12.0, ceiling=20.0),
    "text": Bound(start=20.0, phi=8.0, floor=20.0, ceiling=20.0),
    "thinking": _SILENT_WORK_LIMIT,
    "tools": _SILENT_WORK_LIMIT,
}
LATE = Bound(start=4.0, phi=P95, floor=0.5, ceiling=10.0)


class Suspicion:
    """What one upstream usually does, and so what is odd."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: dict[Kind, Waits] = {kind: Waits() for kind in LIMITS}

    def heard(self, kind: Kind, seconds: float) -> None:
        """Content came after a wait of this length."""
        self._waits[kind].add(seconds)

    def phi(self, kind: Kind, seconds: float) -> float | None:
        """How odd a silence of this length is by now; ``None`` while there is too little history."""
        waits = self._waits[kind]
        return waits.phi(seconds) if len(waits) >= ENOUGH else None

    def warning(self, kind: Kind) -> float:
        """After so many seconds of silence a standby should begin."""
        return WARNINGS[kind].given(self._waits[kind])

    def limit(self, kind: Kind) -> float:
        """After so many seconds of silence the upstream is given up."""
        return LIMITS[kind].given(self._waits[kind])

    def late(self) -> float:
        """After so many seconds without a first word it is worth asking somebody else as well."""
        return LATE.given(self._waits["first"])
