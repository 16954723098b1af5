"""Does an upstream take so long to begin that somebody should know? That often comes before an outage.

Rules:

1. What counts is the median of the last `LAST` streamed answers, of those that are not older than `LATELY`, if there
   are `FEWEST` of them.
2. The warning begins above `SLOW` and ends at `BRISK`, so that it does not come and go with every answer. It begins
   with an answer only; it ends with one, or fades when there are too few left to tell.
3. It is nobody's verdict: who is slow is still asked.
4. Told times (any clock) and durations, both in seconds; it has no clock.
"""

from __future__ import annotations

from collections import deque
from statistics import median

LATELY = 600.0
LAST = 20
FEWEST = 5
SLOW = 5.0
BRISK = 4.0
NAME = "slow"
"""By which the warning goes everywhere."""


class FirstWords:
    """How long one upstream's answers lately took to begin."""

    __slots__ = ("_heard", "_slow")

    def __init__(self) -> None:
        self._heard: deque[tuple[float, float]] = deque(maxlen=LAST)  # (when, after how long)
        self._slow = False

    def began(self, seconds: float, now: float) -> None:
        """The first content of an answer came after so long."""
        was_slow = self.slow(now) is not None
        self._heard.append((now, seconds))
        usual = self.usual(now)
        self._slow = usual is not None and usual > (BRISK if was_slow else SLOW)

    def usual(self, now: float) -> float | None:
        """The median; ``None`` while there is too little to tell."""
        lately = [seconds for at, seconds in self._heard if now - at <= LATELY]
        return median(lately) if len(lately) >= FEWEST else None

    def slow(self, now: float) -> float | None:
        """The same, if it is worth a warning."""
        usual = self.usual(now) if self._slow else None
        return usual if usual is not None and usual > BRISK else None

    @property
    def fades_at(self) -> float:
        """After this time there is too little to tell, if nothing else comes."""
        return self._heard[-FEWEST][0] + LATELY if len(self._heard) >= FEWEST else float("-inf")


def sentence(seconds: float) -> str:
    """The warning in words; "slow: the first word takes 6.2 s in the median"."""
    return f"{NAME}: the first word takes {seconds:.1f} s in the median"
