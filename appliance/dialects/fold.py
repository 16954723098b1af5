"""How does a streamed answer become a whole one?

Rules of this file:

1. What a stream means is the decoder's to say: what it refuses is refused here in the same words, and what it counts as
   content is progress here. A dialect adds only how its pieces are put together.
2. Nothing that a cloud said is lost, fields that we have never heard of included. What nobody here can put together is
   `Unfoldable`: a field that is missing would be missed only by the application.
3. A stream is complete as a streamed answer is: when every choice that was asked for has ended, or when it says that it
   is complete and every choice in it has ended. After that, whatever goes wrong no longer matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, Protocol

from appliance.core.events import (
    BlockStart,
    Event,
    Finish,
    Opaque,
    Progress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import StreamDecoder
from appliance.core.sse import SseParser
from appliance.dialects import fields

Kind = Literal["text", "thinking", "tools"]


class Pieces(Protocol):
    """What of a whole answer is there by now."""

    def add(self, said: dict[str, Any], name: str | None) -> None:
        """What one event of this `name` says. Raises `Unfoldable`."""
        ...

    def whole(self) -> dict[str, Any]:
        """All of it, once nothing more comes."""
        ...


class StreamFold:
    """A stream of either dialect, read to its end; see `Fold`."""

    __slots__ = ("_choices", "_decoder", "_finished", "_pieces", "_seen", "over")

    def __init__(self, decoder: StreamDecoder, pieces: Pieces, choices: int) -> None:
        self._decoder = decoder
        self._pieces = pieces
        self._choices = choices
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self.over = False

    @property
    def ended(self) -> bool:
        return len(self._finished) >= self._choices or (
            self.over and bool(self._finished) and self._seen <= self._finished
        )

    def feed(self, data: bytes) -> list[Progress]:
        return self._grown(self._decoder.feed(data))

    def close(self) -> bytes:
        try:
            self._grown(self._decoder.close())
        except BackendError:
            if not self.ended:
                raise
        if not self.ended:
            raise BackendError(Fault.BROKEN, "The cloud closed the answer before its end.")
        return fields.compact(self._pieces.whole())

    def _grown(self, events: Iterable[Event]) -> list[Progress]:
        grown: list[Progress] = []
        for event in events:
            if event.wire is not None and event.wire.data:
                self._add(event.wire.data)
            if isinstance(event, Finish):
                self._finished.add(event.choice)
            elif isinstance(event, Opaque) and event.over:
                self.over = True
            progress = _progress(event)
            if progress is None:
                continue
            self._seen.add(getattr(event, "choice", 0))
            kind, characters = progress
            if grown and grown[-1].kind == kind:
                characters += grown.pop().characters
            grown.append(Progress(kind=kind, characters=characters))
        return grown

    def _add(self, data: bytes) -> None:
        """All the bytes of one event, which the decoder has read without complaint."""
        parser = SseParser()
        for found in (*parser.feed(data), *parser.close()):
            if found.data is not None and found.data[:1] == b"{":
                self._pieces.add(json.loads(found.data), found.event)


def _progress(event: Event) -> tuple[Kind, int] | None:
    """What an event adds to the answer, if it does. A cloud may keep the letters of its thoughts to itself."""
    match event:
        case TextDelta():
            return "text", len(event.text)
        case ReasoningDelta():
            return "thinking", len(event.text)
        case ToolCallStart():
            return "tools", len(event.name)
        case ToolCallDelta():
            return "tools", len(event.arguments)
        case BlockStart(kind="reasoning"):
            return "thinking", 0
        case BlockStart(kind="other") | Opaque(content=True):
            return "text", len(event.text) if isinstance(event, Opaque) else 0
        case _:
            return None
