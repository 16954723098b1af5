"""Should there be an engine process now, and how much may be asked of it?

The keeper is told what happened to the engine (`started`, `ready`, `answered`, `dismissed`, `exited`), with the time,
and answers what to do next. It has no clock and starts nothing. Whether a living process is at work is asked
in `core/watch.py`; one that is not is ended and is then a death like any other.

Rules:

1. Exit code 64 says that the model or its configuration is wrong. Starting again cannot help: give up, with the
   reason the engine gave.
2. Any other death of an engine that was asked to live is a crash. The first one is followed by a start at once,
   since somebody's answer is waiting to be continued; the next ones wait 0.5, 1, 2, 4 ... 30 seconds.
3. An engine that was ready for 10 seconds is forgiven its past: it loads and it answers, and what waits for it now
   are people. One that was ready at all waits a second at most; the long waits are for one that cannot even load.
4. Three deaths within a minute make it *careful*: one request at a time, so that the one that kills it kills nobody
   else's answer. After a minute without a death all is as before.
5. Three more deaths within a minute, and no answer brought to its end between them, make it *failing*: nothing is
   asked of it, so that nobody waits for nothing. It is started again after 30, 60, 120, 240, 300 seconds, and an
   engine that stays ready for 10 seconds has healed: careful again. An engine that dies often and still answers is
   not failing: it is of more use than an error.
6. A minute is a minute of readiness. Loading and being asleep prove nothing, neither health nor sickness: an engine
   that needs a minute to load and dies of every request is as sick as one that loads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WRONG = 64
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LONGEST_WAIT_IF_READY = 1.0
HEALTHY_AFTER = 10.0
FAILING_WAIT = 30.0
LONGEST_FAILING_WAIT = 300.0

Mode = Literal["normal", "careful", "failing"]


@dataclass(frozen=True, slots=True)
class StartNow:
    pass


@dataclass(frozen=True, slots=True)
class WaitUntil:
    time: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Advice = StartNow | WaitUntil | GiveUp


class Keeper:
    """Told what happens to the engine, it answers whether to start one now, later, or never again.

    `deaths` within `minute` seconds of readiness are too many.
    """

    def __init__(self, *, deaths: int = 3, minute: float = 60.0) -> None:
        self._too_many = deaths
        self._minute = minute
        self._crashes = 0
        self._ready_since: float | None = None
        self._mode: Mode = "normal"
        self._lived = 0.0  # seconds of readiness of all processes that are gone; the times below are in these
        self._deaths: list[float] = []
        self._careful_since = 0.0
        self._attempts = 0

    @property
    def crashes(self) -> int:
        """Crashes in a row, without a healthy time in between."""
        return self._crashes

    def mode(self, now: float) -> Mode:
        """How much may be asked of the engine?"""
        self._settle(now)
        return self._mode

    def changes_at(self) -> float | None:
        """When the mode becomes better, if nothing happens until then."""
        if self._ready_since is None or self._mode == "normal":
            return None
        if self._mode == "failing":
            return self._ready_since + HEALTHY_AFTER
        return self._ready_since + self._careful_since + self._minute - self._lived

    def started(self) -> None:
        """A process was started; it is not ready."""
        self._ready_since = None

    def ready(self, now: float) -> None:
        """The process has given its first real answer."""
        self._ready_since = now

    def answered(self) -> None:
        """An answer was brought to its end."""
        if self._mode == "careful":
            self._deaths.clear()

    def dismissed(self, now: float) -> None:
        """The process was sent away, since nobody needs it."""
        self._settle(now)
        self._stop_living(now)

    def exited(self, code: int | None, now: float, *, reason: str | None = None) -> Advice:
        """The process is gone without being asked to go. `reason` is what it said itself, if it said anything."""
        self._settle(now)
        was_ready, healthy = self._ready_since is not None, self._stop_living(now) >= HEALTHY_AFTER
        if code == WRONG:
            return GiveUp(reason or "The engine refused its model or its configuration (exit code 64).")
        self._crashes = 1 if healthy else self._crashes + 1
        self._count_death()
        if self._mode == "failing":
            self._attempts += 1
            wait = _doubled(FAILING_WAIT, self._attempts - 1, LONGEST_FAILING_WAIT)
            return WaitUntil(now + wait)
        if self._crashes == 1:
            return StartNow()
        longest = LONGEST_WAIT_IF_READY if was_ready else LONGEST_WAIT
        return WaitUntil(now + _doubled(FIRST_WAIT, self._crashes - 2, longest))

    def _count_death(self) -> None:
        self._careful_since = self._lived
        if self._mode == "failing":
            return
        recent = [death for death in self._deaths if self._lived - death < self._minute]
        self._deaths = [*recent, self._lived]
        if len(self._deaths) >= self._too_many:
            self._mode = "careful" if self._mode == "normal" else "failing"
            self._deaths.clear()

    def _settle(self, now: float) -> None:
        """What time alone has made better by now."""
        due = self.changes_at()
        if due is None or now < due:
            return
        if self._mode == "failing":
            self._mode, self._attempts = "careful", 0
            self._careful_since = self._lived  # of this process's own readiness, all counts
            self._settle(now)
        else:
            self._mode = "normal"
            self._deaths.clear()

    def _stop_living(self, now: float) -> float:
        """The process is no longer ready, if it was; for how long it had been."""
        since, self._ready_since = self._ready_since, None
        lived = 0.0 if since is None else now - since
        self._lived += lived
        return lived


def _doubled(first: float, times: int, longest: float) -> float:
    # The exponent is held down so that a box that crashes for weeks does not overflow a float.
    return min(longest, first * 2.0 ** min(times, 16))
