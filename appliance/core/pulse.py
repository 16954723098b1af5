"""The rhythm of one answer: when its content came, how long it may be silent, and when that silence becomes odd.

Rules:

1. Only content counts. A cloud is held to `first_content` before it, to `stall` between its pieces; ``None`` for one of
   these means whatever this upstream usually needs (`suspicion`). A whole answer is nothing to see until its end.
2. The box is held to `total` only: its silence is work.
3. What comes after the last `Finish` (usage, ``[DONE]``) gets `LINGER` and no more.
4. `warning` is when a standby should begin in earnest: at once for an upstream on trial or one that has just failed.
5. Told times and events, it answers times (seconds, monotonic); it has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from appliance.core.chat import ChatRequest, Event, ReasoningDelta, ToolCallDelta, ToolCallStart, carries_content
from appliance.core.suspicion import Kind, Suspicion

LINGER = 2.0
NEVER = float("inf")
PATIENT_FIRST = 60.0
"""Seconds until the first content of what takes long to begin: thinking, or a prompt of 50,000 tokens."""
WHOLE_WARNING = 8.0
LONG_READ = 200_000  # bytes, some 50,000 tokens
THINKING = ("reasoning_effort", "reasoning", "thinking")

Heard = Callable[[str, Kind, float], None]
"""Somebody who wants to know: (leg, kind of wait, seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Deadlines in seconds for one leg of an answer; ``None``: learned, per upstream."""

    first_content: float | None = None
    stall: float | None = None
    whole: float = 60.0
    total: float = 600.0


def takes_long(request: ChatRequest) -> bool:
    """Will a cloud think before its first word, or read for long?"""
    thinks = request.effort != "none" and any(name in request.fields for name in THINKING)
    return thinks or len(request.raw) > LONG_READ


def nobody(leg: str, kind: Kind, seconds: float) -> None:
    pass


class Pulse:
    def __init__(self, limits: Limits, suspicions: Mapping[str, Suspicion], heard: Heard = nobody) -> None:
        self._limits = limits
        self._suspicions = suspicions
        self._heard = heard
        self._unknown = Suspicion()
        self._leg = ""
        self._box = False
        self._stream = False
        self._last = 0.0  # when content last came from the running leg, or when it was called
        self._waiting_for: Kind = "first"
        self._left_off: float | None = None  # when content last came from the leg before
        self.called_at = 0.0
        self.deadline = NEVER
        self.warning = NEVER
        self.first_content: float | None = None
        """Seconds from the running leg's call to its first content, once there is some."""
        self.silence: float | None = None
        """Seconds without content at the seam, once the running leg has gone on from another one's words."""

    def begin(
        self,
        leg: str,
        now: float,
        *,
        box: bool,
        stream: bool,
        goes_on: bool,
        wary: bool,
        patient: bool = False,
        fresh: bool = False,
    ) -> None:
        """A leg is called. `goes_on`: from another leg's words; `wary`: it is on trial, or has failed just now;
        `patient`: it will think, or has a lot to read; `fresh`: it has just come back, and is given half the time."""
        self._left_off = self._last if goes_on and leg != self._leg else None
        self._leg, self._box, self._stream = leg, box, stream
        self.called_at = self._last = now
        self._waiting_for = "first"
        self.first_content = self.silence = None
        suspicion = self._suspicions.get(leg, self._unknown)
        if box:
            self.deadline, self.warning = now + self._limits.total, NEVER
        elif stream:
            given = self._limits.first_content
            learned = max(suspicion.limit("first"), PATIENT_FIRST if patient else 0.0)
            learned /= 2 if fresh and not patient else 1
            self._until(now + (learned if given is None else given))
            self.warning = now + suspicion.warning("first")
        else:
            self._until(now + self._limits.whole)
            self.warning = now + WHOLE_WARNING
        if wary and not box:
            self.warning = now

    def content(self, events: Sequence[Event], now: float) -> None:
        """These came, and some of them are content."""
        kind = _kind(events)
        wait = now - self._last
        if self.first_content is None:
            self.first_content = now - self.called_at
            self.silence = None if self._left_off is None else now - self._left_off
            # A whole answer's first content is its end: it says nothing about a streamed one.
            if self._stream:
                self._tell("first", self.first_content)
        elif self._waiting_for == kind:
            self._tell(kind, wait)
        self._last, self._waiting_for = now, kind
        if not self._box:
            suspicion = self._suspicions.get(self._leg, self._unknown)
            given = self._limits.stall
            self._until(now + (suspicion.limit(kind) if given is None else given))
            self.warning = now + suspicion.warning(kind) if self._stream else NEVER

    def thinks(self, now: float) -> None:
        """The leg says that it thinks; the thoughts themselves it may keep to itself."""
        if self._box or not self._stream:
            return
        if self.first_content is None:
            if self._limits.first_content is None:
                self._until(max(self.deadline, now + PATIENT_FIRST))
        elif self._limits.stall is None:
            suspicion = self._suspicions.get(self._leg, self._unknown)
            self._waiting_for = "thinking"
            self._until(now + suspicion.limit("thinking"))
            self.warning = now + suspicion.warning("thinking")

    def ended(self, now: float) -> None:
        """The last `Finish` came."""
        self.warning = NEVER
        self._until(now + LINGER)

    def held_up(self, seconds: float) -> None:
        """The client was slow to take what it was given; that time is not the leg's."""
        self.called_at += seconds
        self._last += seconds
        self.deadline += seconds
        self.warning += seconds

    def phi(self, now: float) -> float | None:
        """How odd the silence is by now; ``None`` while too little is known of this upstream."""
        suspicion = self._suspicions.get(self._leg)
        return suspicion.phi(self._waiting_for, now - self._last) if suspicion is not None else None

    def overdue(self, now: float) -> str:
        """The deadline passed: what the leg did wrong, as the end of a sentence."""
        waited = now - self.called_at
        if waited >= self._limits.total:
            return f"was not done after {waited:.0f} s"
        return "stopped in mid-answer" if self.first_content is not None else f"said nothing for {waited:.0f} s"

    def _tell(self, kind: Kind, seconds: float) -> None:
        suspicion = self._suspicions.get(self._leg)
        if suspicion is not None:
            suspicion.heard(kind, seconds)
        self._heard(self._leg, kind, seconds)

    def _until(self, wish: float) -> None:
        self.deadline = min(wish, self.called_at + self._limits.total)


def _kind(events: Sequence[Event]) -> Kind:
    """What is being written when these events are over."""
    for event in reversed(events):
        if isinstance(event, ToolCallStart | ToolCallDelta):
            return "tools"
        if isinstance(event, ReasoningDelta) and event.text:
            return "thinking"
        if carries_content(event):
            break
    return "text"
