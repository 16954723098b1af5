"""The rhythm of one leg's answer: when its content came, how long it may be silent, and when that becomes odd.

Rules:

1. Only content counts. A cloud is held to `first_content` before it, to `stall` between its pieces; ``None`` for one of
   these means whatever this upstream usually needs (`habits`). Text that keeps coming and is far slower than usual
   has stopped as well (`drip`).
2. A whole answer is nothing to see until its end, and is held to what answers of its kind usually take; one that is
   watched is held to what a streamed one is.
3. The box is held to `total` only: its silence is work.
4. What comes after the last `Finish` (usage, ``[DONE]``) gets `LINGER` and no more.
5. `warning` is when a standby should begin in earnest: at once for an upstream on trial or one that has just failed.
   `late` is when another cloud may be asked beside this one.
6. Told times and events, it answers times (seconds, monotonic); it has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.chat import ChatRequest
from appliance.core.drip import Drip
from appliance.core.events import (
    BlockStart,
    Event,
    Progress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    carries_content,
)
from appliance.core.habits import Habits
from appliance.core.route import Leg
from appliance.core.suspicion import Kind

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
class Timeouts:
    """Deadlines in seconds for one leg of an answer; ``None``: learned, per upstream."""

    first_content: float | None = None
    stall: float | None = None
    whole: float | None = None
    total: float = 600.0


def takes_long(request: ChatRequest) -> bool:
    """Will a cloud think before its first word, or read for long?"""
    thinks = request.effort != "none" and any(name in request.fields for name in THINKING)
    return thinks or len(request.raw) > LONG_READ


def nobody(leg: str, kind: Kind, seconds: float) -> None:
    pass


class Pulse:
    """One leg was called at `now`.

    `left_off` is when content last came from the leg whose words it goes on from; `wary`: it is on trial, or has failed
    just now; `hurried`: it is on trial, or has just come back, and is given half the time.
    """

    def __init__(
        self,
        leg: Leg,
        request: ChatRequest,
        now: float,
        *,
        limits: Timeouts,
        habits: Habits | None = None,
        heard: Heard = nobody,
        left_off: float | None = None,
        wary: bool = False,
        hurried: bool = False,
    ) -> None:
        self._name, self._model, self._box = leg.name, leg.model, leg.local
        self._limits = limits
        self._known = habits is not None and not leg.local
        self._habits = habits or Habits()
        self._suspicion = self._habits.suspicion
        self._heard = heard
        self._seen = request.stream or leg.watched
        self._max_tokens = request.max_tokens
        self._left_off = left_off
        self._waiting_for: Kind = "first"
        self._drip = Drip(self._habits.pace(leg.model).rate if self._known else None)
        self._dried_up = NEVER  # when the drip will have been too slow
        self._stalled = NEVER  # when the silence will have been too long
        self.called_at = now
        self.last = now
        """When content last came, or when it was called."""
        self.warning = NEVER
        self.first_content: float | None = None
        """Seconds from the call to the first content, once there is some."""
        self.silence: float | None = None
        """Seconds without content at the seam, once it has gone on from another one's words."""
        self.patient = patient = takes_long(request)
        """Does it take long to begin by its nature? Then that says nothing of the upstream's."""
        self.late = NEVER if self._box or patient or not request.stream else now + self._suspicion.late()
        if self._box:
            self._stalled = now + limits.total
        elif self._seen:
            learned = max(self._suspicion.limit("first"), PATIENT_FIRST if patient else 0.0)
            learned /= 2 if hurried and not patient else 1
            self._until(now + (learned if limits.first_content is None else limits.first_content))
            self.warning = now + self._suspicion.warning("first")
        else:
            usual = self._habits.whole(leg.model, request.max_tokens) / (2 if hurried and not patient else 1)
            self._until(now + (usual if limits.whole is None else limits.whole))
            self.warning = now + WHOLE_WARNING
        if wary and not self._box:
            self.warning = now

    @property
    def deadline(self) -> float:
        """When it is given up, if nothing else has happened by then."""
        return min(self._stalled, self._dried_up)

    def content(self, events: Sequence[Event], now: float) -> None:
        """These came, and some of them are content, or say that some is on its way."""
        kind, characters = _said(events)
        wait = now - self.last
        if self.first_content is None:
            self.first_content = now - self.called_at
            self.late = NEVER
            # A whole answer's first content is its end: it says nothing about a streamed one.
            if self._seen:
                self._tell("first", self.first_content)
                if not self.patient:
                    self._habits.began(self.first_content, now)
        elif self._waiting_for == kind:
            self._tell(kind, wait)
        self.last, self._waiting_for = now, kind
        if self._box:
            return
        given = self._limits.stall
        self._until(now + (self._suspicion.limit(kind) if given is None else given))
        self.warning = now + self._suspicion.warning(kind) if self._seen else NEVER
        if self._seen:
            self._drip.heard(kind, characters, now)
            self._dried_up = self._drip.deadline(now)

    def went_on(self, now: float) -> None:
        """The first content of its own came."""
        self.silence = None if self._left_off is None else now - self._left_off

    def outrun(self, now: float) -> bool:
        """Another one was quicker. Was this one silent, and not thinking? Then it takes so long to begin at least."""
        if self.first_content is not None or self.patient:
            return False
        self._suspicion.heard("first", now - self.called_at)
        self._habits.began(now - self.called_at, now)
        return True

    def thinks(self, now: float) -> None:
        """The leg says that it thinks; the thoughts themselves it may keep to itself."""
        if self._box or not self._seen:
            return
        self._drip.pause()
        self._dried_up = NEVER
        if self.first_content is None:
            self.patient = True
            if self._limits.first_content is None:
                self._until(max(self._stalled, now + PATIENT_FIRST))
                self.late = max(self.late, now + PATIENT_FIRST)
        elif self._limits.stall is None:
            self._waiting_for = "thinking"
            self._until(now + self._suspicion.limit("thinking"))
            self.warning = now + self._suspicion.warning("thinking")

    def ended(self, now: float) -> None:
        """The last `Finish` came."""
        self.warning = self._dried_up = NEVER
        self._until(now + LINGER)

    def learn(self, now: float) -> None:
        """It was an answer to its end: what it tells about the next ones."""
        if not self._known:
            return
        self._habits.took(self._model, self._max_tokens, now - self.called_at)
        if (rate := self._drip.rate) is not None:
            self._habits.pace(self._model).learn(rate)

    def gave_up(self, now: float) -> None:
        """It was not waited for any longer: perhaps it is only slow."""
        learned = not self._seen and self._limits.whole is None and now - self.called_at < self._limits.total
        if self._known and learned:
            self._habits.gave_up(self._model, self._max_tokens, now - self.called_at)

    def held_up(self, seconds: float) -> None:
        """The client was slow to take what it was given; that time is not the leg's."""
        self.called_at += seconds
        self.last += seconds
        self._stalled += seconds
        self._dried_up += seconds
        self.warning += seconds
        self.late += seconds
        self._drip.held_up(seconds)

    def phi(self, now: float) -> float | None:
        """How odd the silence is by now; ``None`` while too little is known of this upstream."""
        return self._suspicion.phi(self._waiting_for, now - self.last) if self._known else None

    def overdue(self, now: float) -> str:
        """The deadline passed: what the leg did wrong, as the end of a sentence."""
        waited = now - self.called_at
        if waited >= self._limits.total:
            return f"was not done after {waited:.0f} s"
        if self.first_content is None:
            return f"said nothing for {waited:.0f} s"
        return "stopped in mid-answer" if now >= self._stalled else "wrote less than a tenth as fast as usual"

    def _tell(self, kind: Kind, seconds: float) -> None:
        if self._known:
            self._suspicion.heard(kind, seconds)
        self._heard(self._name, kind, seconds)

    def _until(self, wish: float) -> None:
        self._stalled = min(wish, self.called_at + self._limits.total)


def moves_on(event: Event) -> bool:
    """Is it content, or does it say that some is on its way?"""
    return event.characters > 0 if isinstance(event, Progress) else carries_content(event)


def thinks(event: Event) -> bool:
    """Does it say that somebody is at work who does not show it?"""
    if isinstance(event, Progress):
        return not event.characters
    return isinstance(event, BlockStart) and event.kind == "reasoning"


def _said(events: Sequence[Event]) -> tuple[Kind, int]:
    """What is being written when these events are over, and how much text is in them."""
    kind: Kind = "text"
    characters = 0
    for event in events:
        if isinstance(event, TextDelta):
            if event.text:
                kind = "text"
                characters += len(event.text)
        elif isinstance(event, ReasoningDelta):
            kind = "thinking" if event.text else kind
        elif isinstance(event, ToolCallStart | ToolCallDelta):
            kind = "tools"
        elif isinstance(event, Progress):
            kind = event.kind
            characters += event.characters if kind == "text" else 0
        elif carries_content(event):
            kind = "text"
    return kind, characters
