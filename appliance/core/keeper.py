"""Should there be an engine process now?

The keeper is told what happened to the engine (`started`, `ready`, `exited`), with the time, and answers what to do
next. It has no clock and starts nothing.

Rules:

1. Exit code 64 says that the model or its configuration is wrong. Starting again cannot help: give up, with the
   reason the engine gave.
2. Any other death of an engine that was asked to live is a crash. The first one is followed by a start at once,
   since somebody's answer is waiting to be continued; the next ones wait 0.5, 1, 2, 4 ... 30 seconds.
3. An engine that was ready for 10 seconds is forgiven its past: it loads and it answers, and what waits for it now
   are people. One that was ready at all waits a second at most; the long waits are for one that cannot even load.
"""

from __future__ import annotations

from dataclasses import dataclass

WRONG = 64
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LONGEST_WAIT_IF_READY = 1.0
HEALTHY_AFTER = 10.0


@dataclass(frozen=True, slots=True)
class StartNow:
    pass


@dataclass(frozen=True, slots=True)
class WaitUntil:
    time: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Answer = StartNow | WaitUntil | GiveUp


class Keeper:
    """Told what happens to the engine, it answers whether to start one now, later, or never again."""

    def __init__(self) -> None:
        self._crashes = 0
        self._ready_since: float | None = None

    @property
    def crashes(self) -> int:
        """Crashes in a row, without a healthy time in between."""
        return self._crashes

    def started(self) -> None:
        """A process was started; it is not ready."""
        self._ready_since = None

    def ready(self, now: float) -> None:
        """The process has given its first real answer."""
        self._ready_since = now

    def exited(self, code: int | None, now: float, *, reason: str | None = None) -> Answer:
        """The process is gone without being asked to go. `reason` is what it said itself, if it said anything."""
        ready_since, self._ready_since = self._ready_since, None
        if code == WRONG:
            return GiveUp(reason or "The engine refused its model or its configuration (exit code 64).")
        if ready_since is not None and now - ready_since >= HEALTHY_AFTER:
            self._crashes = 0
        self._crashes += 1
        if self._crashes == 1:
            return StartNow()
        # The exponent is held down so that a box that crashes for weeks does not overflow a float.
        longest = LONGEST_WAIT if ready_since is None else LONGEST_WAIT_IF_READY
        wait = min(longest, FIRST_WAIT * 2.0 ** min(self._crashes - 2, 16))
        return WaitUntil(now + wait)
