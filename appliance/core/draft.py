"""What there is of an answer: what the client has of it, and what still waits to be sent.

As long as nothing has gone out, a draft is thrown away with the leg that wrote it. After that the next leg goes on
with the same one.
"""

from __future__ import annotations

from dataclasses import replace

from appliance.core.chat import Message
from appliance.core.events import (
    Degraded,
    Event,
    Finish,
    Opaque,
    Opened,
    Progress,
    Started,
    Takeover,
    Wire,
    carries_content,
)
from appliance.core.given import Given


class Draft:
    """One answer of `choices` choices, as far as it has come, to a client of this dialect."""

    __slots__ = ("_orphaned", "content", "ended", "given", "held", "left_out", "over", "seen", "started")

    def __init__(self, choices: int = 1, dialect: str = "") -> None:
        self.given = Given(choices, dialect)
        self.held: list[Event] = []
        """What waits: for the first content, or for the end of a whole answer."""
        self.content = False
        """Is there something that a next leg has to go on from?"""
        self.started = False
        self._orphaned: Wire | None = None
        """Bytes of a second `Started`, which the client does not get; the next event that came out of them has them."""
        self.over = False
        """Did the stream say that it is complete?"""
        self.seen: set[int] = set()
        """The choices that have content, by number,"""
        self.ended: set[int] = set()
        """and those that have their end."""
        self.left_out: set[str] = set()
        """What was asked for and whoever answers cannot do."""

    @property
    def continuable(self) -> bool:
        """Could somebody else go on with what there is?"""
        return self.given.continuable

    @property
    def message(self) -> Message:
        """The half-written assistant turn a next leg goes on from."""
        return self.given.message()

    def add(self, event: Event) -> int:
        """The client will have this too. Returns how many characters it is."""
        if self._orphaned is not None:
            event = self._adopting(event, self._orphaned)
        if carries_content(event):
            self.content = True
            self.seen.add(getattr(event, "choice", 0))
        elif isinstance(event, Started):
            if self.started:
                self._orphaned = event.wire
                return 0
            self.started = True
        elif isinstance(event, Finish):
            self.ended.add(event.choice)
        elif isinstance(event, Opaque) and event.over:
            self.over = True
        self.held.append(event)
        return self.given.note(event)

    def _adopting(self, event: Event, orphaned: Wire) -> Event:
        """`event` with the bytes that it came out of, if it was left out what carried them."""
        self._orphaned = None
        if isinstance(event, Opened | Takeover | Degraded | Progress) or event.wire != Wire(orphaned.dialect, b""):
            return event
        return replace(event, wire=orphaned)

    def release(self) -> tuple[Event, ...]:
        """What waited goes out."""
        events = tuple(self.held)
        self.held.clear()
        return events
