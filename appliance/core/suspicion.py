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
3. `warning` is when a standby should begin, `limit` is when the upstream is given up; `late` lies between them, when
   nineteen of twenty answers would have begun (Dean and Barroso, The Tail at Scale, 2013).
4. Told durations in seconds, it answers durations in seconds: it has no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

Kind = Literal["first", "text", "thinking", "tools"]

ENOUGH = 20
WINDOW = 500
SHORTEST = 1e-4  # seconds; pieces that came in one read have no time between them worth counting
LEAST_SPREAD = 0.25  # of the logarithm: a history of equal waits must not make a slightly longer one an alarm

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """For one kind of wait, in seconds. The first two hold until there is history; then the time at which phi reaches
    `warning_phi` (`limit_phi`), times `limit_factor` for the limit, within the pairs of floor and ceiling."""

    warning: float
    limit: float
    warning_phi: float
    limit_phi: float
    limit_factor: float = 1.0
    warning_within: tuple[float, float]
    limit_within: tuple[float, float]


P75, P95 = -math.log10(0.25), -math.log10(0.05)
LATE_WITHIN = (0.5, 10.0)

BOUNDS: Mapping[Kind, Bounds] = {
    "first": Bounds(
        warning=4.0,
        limit=12.0,
        warning_phi=P75,
        limit_phi=P95,
        limit_factor=2.0,
        warning_within=(0.5, 8.0),
        limit_within=(12.0, 20.0),
    ),
    "text": Bounds(
        warning=8.0, limit=20.0, warning_phi=4.0, limit_phi=8.0, warning_within=(1.0, 8.0), limit_within=(20.0, 20.0)
    ),
    # Clouds think, and write long arguments, in silence: half a minute has been seen of healthy ones.
    "thinking": Bounds(
        warning=20.0, limit=60.0, warning_phi=4.0, limit_phi=8.0, warning_within=(2.0, 20.0), limit_within=(60.0, 60.0)
    ),
    "tools": Bounds(
        warning=20.0, limit=60.0, warning_phi=4.0, limit_phi=8.0, warning_within=(2.0, 20.0), limit_within=(60.0, 60.0)
    ),
}


class Waits:
    """The last `WINDOW` waits of one kind, as a distribution."""

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
        return math.exp(mean + spread * -_NORMAL.inv_cdf(10.0**-phi))

    def phi(self, seconds: float) -> float:
        """How odd a wait of this length is; 0 is usual, 3 is one in a thousand. Needs at least one wait."""
        mean, spread = self._shape()
        longer = 0.5 * math.erfc((math.log(max(seconds, SHORTEST)) - mean) / spread / math.sqrt(2.0))
        return -math.log10(longer) if longer > 0.0 else math.inf

    def _shape(self) -> tuple[float, float]:
        count = len(self._logs)
        mean = self._sum / count
        return mean, max(LEAST_SPREAD, math.sqrt(max(0.0, self._squares / count - mean * mean)))


class Suspicion:
    """What one upstream usually does, and so what is odd."""

    def __init__(self) -> None:
        self._waits: dict[Kind, Waits] = {kind: Waits() for kind in BOUNDS}

    def heard(self, kind: Kind, seconds: float) -> None:
        """Content came after a wait of this length."""
        self._waits[kind].add(seconds)

    def phi(self, kind: Kind, seconds: float) -> float | None:
        """How odd a silence of this length is by now; ``None`` while there is too little history."""
        waits = self._waits[kind]
        return waits.phi(seconds) if len(waits) >= ENOUGH else None

    def warning(self, kind: Kind) -> float:
        """After so many seconds of silence a standby should begin."""
        waits, bounds = self._waits[kind], BOUNDS[kind]
        if len(waits) < ENOUGH:
            return bounds.warning
        return _within(waits.reaches(bounds.warning_phi), bounds.warning_within)

    def limit(self, kind: Kind) -> float:
        """After so many seconds of silence the upstream is given up."""
        waits, bounds = self._waits[kind], BOUNDS[kind]
        if len(waits) < ENOUGH:
            return bounds.limit
        return _within(bounds.limit_factor * waits.reaches(bounds.limit_phi), bounds.limit_within)

    def late(self) -> float:
        """After so many seconds without a first word it is worth asking somebody else as well."""
        waits = self._waits["first"]
        if len(waits) < ENOUGH:
            return BOUNDS["first"].warning
        return _within(waits.reaches(P95), LATE_WITHIN)


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
