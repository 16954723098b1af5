"""Is it sensible to call this backend now?

Rules of this file:

1. A breaker counts how answers *end*, never how they begin.
2. Closed, it lets everybody through. It opens on `failures` in a row, on half of the last twenty when at least
   five fell within a minute, or on one certain failure (a wrong key, an exhausted quota, "come back in 30 s").
3. Open, it lets nobody through until the wait is over. A failed trial doubles the wait, up to 300 s, but not while a
   free probe says that somebody is there: a trial costs nobody anything, a long wait does.
4. Then it is half-open: one single trial at a time. Two trials that reached their end close it; one that
   failed opens it again.
5. A probe never closes it. One that succeeds where the last one failed brings the trial forward, but never before the
   time that a certain failure stands for.
6. After it has closed the first three calls are *fresh*: let through, and watched more closely.
7. What belongs to an earlier state does not count: every call carries the pass it was admitted with, and a
   pass from before the last change of state is ignored.
8. No clock and no randomness: `now` (seconds, monotonic) and `jitter` (in [0, 1)) are arguments.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from appliance.core.fault import NOBODYS, BackendError, Fault

State = Literal["closed", "open", "half-open", "offline"]
"""A breaker by itself is never offline; an upstream's breakers are (`scopes`)."""

UNCOUNTED = frozenset({Fault.REQUEST, Fault.TOO_LONG, Fault.CRASHED}) | NOBODYS
"""What tells nothing about a cloud. CONFIG is certain after one, and all others count."""
LONGEST_COOLDOWN = 300.0
LONGEST_RETRY_AFTER = 600.0
SHORT_RETRY_AFTER = 2.0  # no longer than this is worth waiting for on the spot, and no reason to stay away
CONFIG_COOLDOWN = 900.0  # a wrong key heals by a change of configuration; look again after this long all the same
WINDOW = 20
WINDOW_FAILURES_WITHIN = 60.0
WINDOW_FAILURES_AT_LEAST = 5
TRIALS_TO_CLOSE = 2
FRESH = 3


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to call, given in one state of the breaker and void in the next. `fresh`: one of the first since it
    closed."""

    era: int
    trial: bool
    fresh: bool = False

    @property
    def wary(self) -> bool:
        """Should the call be watched more closely than others?"""
        return self.trial or self.fresh


class Breaker:
    """One backend's health, as a machine that is told how answers ended."""

    def __init__(self, *, failures: int = 3, cooldown: float = 10.0) -> None:
        self._limit = failures
        self._cooldown = cooldown
        self._era = 0
        self._open = False
        self._reopens_at = 0.0
        self._not_before = 0.0  # until then not even a probe brings a trial forward
        self._wait = cooldown
        self._lives: bool | None = None  # what the last probe said since it opened
        self._in_a_row = 0
        self._ends: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._trial_running = False
        self._trials_passed = 0
        self._fresh = 0  # how many of the next calls are
        self.last: BackendError | None = None
        self.alarm: str | None = None

    # ------------------------------------------------------------------------------------------- questions

    def state(self, now: float) -> State:
        if not self._open:
            return "closed"
        return "open" if now < self._reopens_at else "half-open"

    def admits(self, now: float) -> bool:
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._trial_running)

    def reopens_in(self, now: float) -> float | None:
        """Seconds until a trial may go; ``None`` unless open."""
        return self._reopens_at - now if self.state(now) == "open" else None

    @property
    def failures(self) -> int:
        """Counted failures in a row."""
        return self._in_a_row

    def fresh(self, now: float) -> bool:
        """Has it closed so lately that the next call is to be watched more closely?"""
        return self.state(now) == "closed" and self._fresh > 0

    def wants_probe(self, now: float) -> bool:
        """Would a free probe tell anything? Not where the wait is certain, and not where a trial may go anyway."""
        return self.state(now) == "open" and now >= self._not_before

    # -------------------------------------------------------------------------------------------- what came

    def begin(self, now: float) -> Pass | None:
        """Leave to call now, or ``None``. Whoever gets a pass must give it back by `succeed`, `fail` or `abandon`."""
        if not self.admits(now):
            return None
        if self._open:
            self._trial_running = True
            return Pass(self._era, trial=True)
        fresh = self._fresh > 0
        self._fresh -= fresh
        return Pass(self._era, trial=False, fresh=fresh)

    def succeed(self, leave: Pass, now: float) -> None:
        """The answer reached its terminal event."""
        if leave.era != self._era:
            return
        self._ends.append((now, True))
        self._in_a_row = 0
        if leave.trial:
            self._trial_running = False
            self._trials_passed += 1
            if self._trials_passed >= TRIALS_TO_CLOSE:
                self.reset()

    def fail(self, leave: Pass, now: float, error: BackendError, *, jitter: float) -> None:
        """The answer ended by `error`."""
        if leave.era != self._era:
            return
        if error.private:
            self.abandon(leave)
            return
        if error.fault is Fault.CONFIG:
            self.trip(now, error, CONFIG_COOLDOWN)
            return
        if error.fault in UNCOUNTED:
            self.abandon(leave)
            return
        self._remember(error)
        self._in_a_row += 1
        self._ends.append((now, False))
        asked = min(error.retry_after or 0.0, LONGEST_RETRY_AFTER) if error.fault is Fault.BUSY else 0.0
        if leave.trial:
            self._wait = self._cooldown if self._lives else min(self._wait * 2, LONGEST_COOLDOWN)
        if leave.trial or asked > SHORT_RETRY_AFTER or self._in_a_row >= self._limit or self._mostly_failing(now):
            self._open_for(max(asked, self._jittered(jitter)), now, certain=asked)

    def trip(self, now: float, error: BackendError, wait: float) -> None:
        """Open at once and for `wait` seconds, because `error` is certain: no count, and no probe shortens it."""
        self._remember(error)
        if error.fault is Fault.CONFIG:
            self.alarm = error.message
        self._open_for(wait, now, certain=wait)

    def probed(self, well: bool, now: float) -> None:
        """A free probe says whether somebody is there."""
        if not self._open:
            return
        if well:
            self._wait = self._cooldown
            if self._lives is False:
                self._bring_forward(now)
        self._lives = well

    def recover(self, now: float) -> None:
        """What was in the way is gone: half-open at once, unless a certain failure still stands."""
        if self._open:
            self._wait = self._cooldown
            self._bring_forward(now)
        else:
            self._open_for(0.0, now)
        self._lives = None

    def abandon(self, leave: Pass) -> None:
        """The call proved nothing: the client left, or the mistake was the caller's own."""
        if leave.era == self._era and leave.trial:
            self._trial_running = False

    def reset(self) -> None:
        """Closed, by hand or after passed trials; whatever runs under an older pass no longer counts."""
        self._fresh = FRESH if self._open else self._fresh
        self._era += 1
        self._open = False
        self._wait = self._cooldown
        self._lives = None
        self._in_a_row = 0
        self._ends.clear()
        self._trial_running = False
        self._trials_passed = 0
        self.last = None
        self.alarm = None

    # --------------------------------------------------------------------------------------------- decisions

    def _remember(self, error: BackendError) -> None:
        # Told anew: the frames of its traceback, and those of its cause, would keep one client's request alive.
        self.last = BackendError(error.fault, error.message, status=error.status, code=error.code)

    def _mostly_failing(self, now: float) -> bool:
        recent = sum(1 for at, fine in self._ends if not fine and now - at <= WINDOW_FAILURES_WITHIN)
        bad = sum(1 for _, fine in self._ends if not fine)
        return recent >= WINDOW_FAILURES_AT_LEAST and bad * 2 >= len(self._ends)

    def _jittered(self, jitter: float) -> float:
        """The wait, give or take 20 %, so that boxes behind one cloud do not come back in step."""
        return self._wait * (0.8 + 0.4 * jitter)

    def _open_for(self, wait: float, now: float, *, certain: float = 0.0) -> None:
        self._era += 1
        self._open = True
        self._reopens_at = now + wait
        self._not_before = now + certain
        self._trial_running = False
        self._trials_passed = 0

    def _bring_forward(self, now: float) -> None:
        self._reopens_at = min(self._reopens_at, max(now, self._not_before))
