"""Is the engine's process, which is there, also at work?

A process can live and do nothing: a driver that hangs, a lock that nobody gives back, a SIGSTOP. The watch is told what
came from the process (`progress`, `ready`, `heard`, `alive`) and is looked at now and then; it answers to ask for a
real computed token (`Probe`), to end the process (`Wedged`), or when to look again. It has no clock and sends nothing.

Rules:

1. Only computing is a sign of life: a word, a begin, an end of an answer, the token of a probe. That the process
   answers a question about itself proves nothing.
2. An idle process is probed every 30 s. The probe is a real token through the whole model, so it also keeps the
   weights in memory: the next answer does not wait for a disk. While answers are out, words are the sign of life;
   without any for 10 s, it is probed.
3. A probe that nothing follows for `patience` means wedged. Patience is 20 s, more where this very process was seen to
   need more: its load, its measured speed, its slowest probe so far. A big model on a slow CPU is not wedged.
4. While it loads it is not probed. A load without any progress for 300 s is wedged.
5. Time in which nobody looked is not the process's silence: this process may have slept itself (a laptop's lid, a
   stopped container). Between two events at most `look` seconds are counted, so that after any jump of the clock
   a probe is still unanswered over several looks before somebody is killed.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW = 4.0
"""How many times longer than its slowest probe so far a process may take."""
TOKENS_OF_A_STEP = 64.0
"""A step of prompts is computed faster than so many tokens one after the other (`engine/scheduler.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """In seconds, how long silence is nothing."""

    idle: float = 30.0
    silence: float = 10.0
    probe: float = 20.0
    longest_probe: float = 300.0
    load: float = 300.0
    look: float = 2.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask for a computed token now, and look again."""


@dataclass(frozen=True, slots=True)
class Wedged:
    """It lives and does nothing: end it. `reason` says what was waited for."""

    reason: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing is to be done before `time`."""

    time: float


Look = Probe | Wedged | LookAgain


class Watch:
    """Over one process, from its start to its end."""

    def __init__(self, now: float, patience: Patience = Patience()) -> None:
        self._patience = patience
        self._told_at = now
        self._awake = 0.0  # seconds as rule 5 counts them; all times below are in these
        self._heard_at = 0.0
        self._probed_at: float | None = None
        self._ready = False
        self._longest = patience.probe

    @property
    def patience(self) -> float:
        """How long a probe of this process may take."""
        return self._longest

    def progress(self, now: float) -> None:
        """It has loaded some more."""
        self._count(now)
        self._heard_at = self._awake

    def ready(self, now: float, *, load_s: float = 0.0, tok_s: float | None = None) -> None:
        """It gave its first real answer, `load_s` after its start, at `tok_s` tokens per second."""
        self._count(now)
        self._ready = True
        self._heard_at = self._awake
        # A load is one reading of all weights, as is a step after they were pushed out of memory.
        self._allow(load_s)
        if tok_s:
            self._allow(TOKENS_OF_A_STEP / tok_s)

    def heard(self, now: float) -> None:
        """Something came that had to be computed."""
        self._count(now)
        self._heard_at = self._awake
        self._probed_at = None

    def alive(self, now: float) -> None:
        """The token of a probe came."""
        self._count(now)
        if self._probed_at is not None:
            self._allow(SLOW * (self._awake - self._probed_at))
        self._heard_at = self._awake
        self._probed_at = None

    def look(self, now: float, *, asked: bool) -> Look:
        """What is to be done now? `asked` says that answers are out."""
        self._count(now)
        patience = self._patience
        if not self._ready:
            if self._awake - self._heard_at >= patience.load:
                return Wedged(f"it loaded nothing for {patience.load:.0f} s")
            return self._again(now, self._heard_at + patience.load)
        if self._probed_at is not None:
            if self._awake - self._probed_at >= self._longest:
                return Wedged(f"it computed nothing for {self._longest:.0f} s")
            return self._again(now, self._probed_at + self._longest)
        due = self._heard_at + (patience.silence if asked else patience.idle)
        if self._awake >= due:
            self._probed_at = self._awake
            return Probe()
        return self._again(now, due)

    def _count(self, now: float) -> None:
        self._awake += min(max(now - self._told_at, 0.0), self._patience.look)
        self._told_at = now

    def _allow(self, seconds: float) -> None:
        self._longest = min(max(self._longest, seconds), max(self._patience.longest_probe, self._patience.probe))

    def _again(self, now: float, due: float) -> LookAgain:
        return LookAgain(now + min(due - self._awake, self._patience.look))
