"""Does a second answer begin with what the client already has of the first?

A cloud that cannot go on from half an answer can only be asked again from the start. What it says then counts only if
it repeats, to the character, what the client has; that part is kept back, and the client hears the rest.

Rules:

1. Text and reasoning are compared each with its own kind, in their order, wherever the pieces are cut. The first
   character that differs, a call, content we have no word for, another choice, or an end before everything was
   repeated make it another answer.
2. What is not content and says something of the answer as a whole (`Started`, `Usage`, `Opened`) goes through at once.
3. Of the blocks only the one in which the repeated part ends is told, so that its stop closes the client's block;
   the others the client has. What stands in that block without being content is the first answer's business: a
   signature holds for words of one author.
4. A piece that is cut in two has no wire, for half of what its bytes say is known. The relay must have sent a
   `Takeover` before, also if it is the same cloud again: ids and block numbers are those of another answer now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from appliance.core.chat import Message, Reasoning, Text
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    Opaque,
    Opened,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    Usage,
)
from appliance.core.fault import BackendError, Fault

_Words = type[TextDelta] | type[ReasoningDelta]


class Echo:
    """A second answer, held against the `committed` part of the first. `name` is the cloud's."""

    __slots__ = ("_at", "_block", "_inside", "_name", "_parts")

    def __init__(self, committed: Message, *, name: str = "The cloud") -> None:
        self._name = name
        self._parts: list[tuple[_Words, str]] = []  # still to be repeated
        for part in committed.parts:
            assert isinstance(part, Text | Reasoning), "only words can be held against words"
            kind: _Words = TextDelta if isinstance(part, Text) else ReasoningDelta
            if self._parts and self._parts[-1][0] is kind:
                self._parts[-1] = (kind, self._parts[-1][1] + part.text)
            elif part.text:
                self._parts.append((kind, part.text))
        self._at = 0  # in the first of them
        self._block: BlockStart | None = None  # the second answer's open one
        self._inside = bool(self._parts)  # in the block in which the repeated part ended, or before its end

    @property
    def repeated(self) -> bool:
        """Was everything repeated, so that what comes now is new?"""
        return not self._parts

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """Of these, what the client is to hear.

        Raises:
            BackendError: BROKEN, if it is another answer.
        """
        heard: list[Event] = []
        for event in events:
            if self._parts:
                self._compare(event, heard)
            elif self._inside:
                self._pass(event, heard)
            else:
                heard.append(event)
        return heard

    def _compare(self, event: Event, heard: list[Event]) -> None:
        match event:
            case TextDelta() | ReasoningDelta():
                if event.text:
                    self._words(event, heard)
            case Started() | Usage() | Opened() | Degraded() | Takeover():
                heard.append(event)
            case BlockStart(kind="text" | "reasoning"):
                self._block = event
            case BlockStop():
                self._block = None
            case Opaque(content=False):
                pass
            case _:  # a call, an end, something we have no word for
                raise self._another()

    def _words(self, event: TextDelta | ReasoningDelta, heard: list[Event]) -> None:
        (kind, text), piece = self._parts[0], event.text
        count = min(len(text) - self._at, len(piece))
        if type(event) is not kind or event.choice or not text.startswith(piece[:count], self._at):
            raise self._another()
        self._at += count
        if self._at < len(text):
            return
        del self._parts[0]
        self._at = 0
        if self._parts:
            if count < len(piece):
                raise self._another()
            return
        if self._block is not None:
            heard.append(replace(self._block, wire=None))
        if count < len(piece):
            heard.append(replace(event, text=piece[count:], wire=None))

    def _pass(self, event: Event, heard: list[Event]) -> None:
        if isinstance(event, BlockStart | Finish):
            self._inside = False
        if not (isinstance(event, Opaque) and not event.content):
            heard.append(event)

    def _another(self) -> BackendError:
        return BackendError(Fault.BROKEN, f"{self._name} gave another answer the second time.")
