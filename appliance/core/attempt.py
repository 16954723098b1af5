"""One leg is asked: what came of it so far, in what time, and how good it is.

Several attempts may make one answer. Those that go on from what the client has share its draft, the others begin one
of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.core.chat import ChatRequest
from appliance.core.draft import Draft
from appliance.core.echo import Echo
from appliance.core.events import Event, Finish, Takeover, TextDelta, Usage, carries_content
from appliance.core.fault import NOBODYS, BackendError, Fault
from appliance.core.pulse import Pulse
from appliance.core.quality import Complaint, Taste
from appliance.core.route import Leg
from appliance.core.scopes import Leave

LETTERS_PER_TOKEN = 4
"""By which the words of one cloud are counted for another, whose vocabulary nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One leg's part in this answer is over. ``error`` is ``None`` if it reached its end; ``flaw`` says what was wrong
    with it all the same. ``first_content`` and ``silence`` (at the seam, if it went on from another's words) are in
    seconds, ``None`` without content."""

    leg: str
    error: BackendError | None
    characters: int
    seconds: float
    continued: bool
    first_content: float | None = None
    silence: float | None = None
    model: str = ""
    flaw: BackendError | None = None
    patient: bool = False
    """Was it expected to take long to begin (thinking, a long prompt)? Then its time says nothing of the leg's."""
    blameless: bool = False
    """Did its end prove nothing about the leg?"""


class Attempt:
    """`leg` was asked for `request`, with `leave` if there are breakers that gave it.

    `begun` is how many characters it goes on from. A `seam` is a leg's that was asked for the whole answer anew, though
    the client has some of it: the rest counts only if it repeats that.
    """

    __slots__ = (
        "_characters",
        "_cut_short",
        "_echo",
        "_flaw",
        "_goes_on",
        "_kept",
        "_seam",
        "_taste",
        "begun",
        "continuing",
        "draft",
        "leave",
        "leg",
        "pulse",
        "request",
        "running",
        "spoke",
    )

    def __init__(
        self,
        leg: Leg,
        leave: Leave | None,
        request: ChatRequest,
        draft: Draft,
        pulse: Pulse,
        *,
        seam: Takeover | None = None,
    ) -> None:
        self.leg, self.leave, self.request, self.draft, self.pulse = leg, leave, request, draft, pulse
        self.running = True
        """Is its call out, and its end not told yet?"""
        self.continuing = draft.content
        self.begun = draft.given.characters
        self.spoke = False
        """Is any of the answer's content its own?"""
        self._characters = 0
        self._seam = seam
        self._echo = Echo(draft.message, name=leg.name) if seam is not None else None
        self._kept: list[Event] = []  # what it said while it repeated
        self._taste = None if leg.local else Taste()
        self._flaw: Complaint | None = None
        self._goes_on = self.continuing or request.messages[-1].role == "assistant"
        self._cut_short = False  # did a choice end by anything but its own wish?

    @property
    def finished(self) -> bool:
        """Is every choice at its end?"""
        return len(self.draft.ended) >= self.request.n

    @property
    def complete(self) -> bool:
        """May its events be over? A cloud may give fewer choices than it was asked for; that a stream of them is
        complete it has to say."""
        draft = self.draft
        said = draft.over or not self.request.stream
        return self.finished or (said and bool(draft.ended) and draft.ended >= draft.seen)

    @property
    def repeating(self) -> bool:
        """Is it still at what the client has?"""
        return self._echo is not None and not self._echo.repeated

    def hear(self, events: Sequence[Event]) -> Sequence[Event]:
        """Of these, what belongs to the answer. Raises `BackendError` (BROKEN) if it is another answer."""
        if self._echo is None:
            return events
        heard = self._echo.feed(events)
        if self.repeating:
            self._kept += heard
            return ()
        if self._seam is not None:
            heard = [self._seam, *self._kept, *heard]
            self._seam = None
        return heard

    def add(self, event: Event) -> None:
        """This becomes part of the answer."""
        if isinstance(event, Usage):
            event = self._counted(event)
        elif isinstance(event, TextDelta) and event.choice == 0 and self._taste is not None:
            self._flaw = self._taste.tell(event.text) or self._flaw
        elif isinstance(event, Finish):
            self._cut_short = self._cut_short or event.reason != "stop" or event.stop is not None
        self._characters += self.draft.add(event)
        self.spoke = self.spoke or carries_content(event)

    @property
    def empty(self) -> bool:
        """Is there nothing in it, now that it is at its end? An empty 200 is a failure of a cloud's. The box may stop
        at once, and so may whoever goes on from another's words or from the caller's own, or runs into a limit."""
        return not (self.leg.local or self.draft.content or self._cut_short or self._goes_on)

    def flaw(self) -> BackendError | None:
        """What is wrong with an answer that reached its end. The client has it; it counts against the cloud's model."""
        if self._taste is None or not self.draft.continuable:
            return None
        found = self._flaw or self._taste.finish()
        wordless = self._cut_short or self._goes_on or bool(self.request.stop) or self.draft.given.called
        if found is not None and found.flaw == "empty" and wordless:
            return None  # half an answer may need nothing more, and a stop string may be the first thing it runs into
        return None if found is None else BackendError(Fault.QUALITY, f"{self.leg.name} {found.says}.", status=502)

    def tried(self, error: BackendError | None, now: float, *, blameless: bool = False) -> Tried:
        """It is over."""
        self.running = False
        return Tried(
            leg=self.leg.name,
            error=error,
            characters=self._characters,
            seconds=now - self.pulse.called_at,
            continued=self.continuing,
            first_content=self.pulse.first_content,
            silence=self.pulse.silence,
            model=self.leg.model,
            flaw=self.flaw() if error is None else None,
            patient=self.pulse.patient,
            blameless=blameless or (error is not None and error.fault in NOBODYS),
        )

    def _counted(self, usage: Usage) -> Usage:
        """A cloud that goes on from half an answer counts that as part of its prompt: here it is output, and estimated,
        because the two clouds count by different vocabularies. The box tells the two apart by itself, and who repeats
        the half has counted it."""
        if not self.continuing or self.leg.local or self._echo is not None:
            return usage
        given = self.begun // LETTERS_PER_TOKEN
        return replace(
            usage,
            prompt_tokens=max(0, usage.prompt_tokens - given),
            completion_tokens=usage.completion_tokens + given,
            wire=None,
        )
