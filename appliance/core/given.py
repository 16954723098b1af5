"""What does the client have of this answer by now, and could somebody else go on from it?

Rules of this file:

1. A call is whole when something else begins behind it. If its JSON is not, as with a cloud that tells of several calls
   in turns, nobody else can go on: who does can only finish what is last.
2. Characters are those of text, of reasoning and of the arguments of calls. The name and the id of a call are none.
3. Where the client was told that a call's block is complete, nobody can add to it.
4. A call of whose name nothing has come, or that is not counted as the next one, is only its author's to go on with;
   and so is what is made of neither words nor calls.
5. A cloud's name may not be whole before the call's first argument has come. In dialects that number their blocks it is
   whole where the block begins, and ours always is.
"""

from __future__ import annotations

import json
from dataclasses import replace

from appliance.core.chat import Message, Part, Reasoning, Text, ToolCall
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Event,
    Opaque,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Wire,
)


class _Piece:
    """One part, as far as it has come; a call if it has a `start`."""

    __slots__ = ("_complete", "_kind", "_named", "_pieces", "start")

    def __init__(
        self, kind: type[Text] | type[Reasoning] | None, start: ToolCallStart | None = None, *, named: bool = True
    ) -> None:
        self._kind = kind
        self._named = named  # is its name surely whole?
        self.start = start
        self._pieces: list[str] = []
        self._complete: bool | None = None

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._complete = None

    def of(self, kind: type[Text] | type[Reasoning]) -> bool:
        return self._kind is kind

    @property
    def complete(self) -> bool:
        """Does nothing of it have to come, if nothing does?"""
        if self._complete is None:
            self._complete = self.start is None or _whole("".join(self._pieces))
        return self._complete

    def part(self) -> Part:
        said = "".join(self._pieces)
        if self.start is not None:
            half = not self._named and not said
            return ToolCall(id=self.start.id, name=self.start.name, arguments=said, half=half)
        assert self._kind is not None
        return self._kind(said)


def _whole(arguments: str) -> bool:
    """Are they a document, or left out because there are none?"""
    if not arguments or arguments.isspace():
        return True
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


class Given:
    """The words and calls of one answer, in their order. ``choices`` is how many answers were asked for, and
    ``dialect`` in whose words the client hears of it."""

    __slots__ = ("_calls", "_dialect", "_numbered", "_parts", "_stuck", "characters")

    def __init__(self, choices: int = 1, dialect: str = "") -> None:
        self._dialect = dialect
        self._parts: list[_Piece] = []
        self._calls: list[_Piece] = []  # those of the parts that are
        self._stuck = choices != 1
        self._numbered = False  # has a call's block begun, and not yet the call?
        self.characters = 0

    @property
    def continuable(self) -> bool:
        """Could anybody but its author go on with it?"""
        return not self._stuck and all(part.complete for part in self._parts[:-1])

    @property
    def spoken(self) -> bool:
        """Is it text and nothing else?"""
        return bool(self._parts) and all(part.of(Text) for part in self._parts)

    @property
    def called(self) -> bool:
        """Is a call among it?"""
        return bool(self._calls)

    def note(self, event: Event) -> int:
        """The client gets this too. Returns how many characters it is."""
        match event:
            case TextDelta():
                return self._say(Text, event)
            case ReasoningDelta():
                return self._say(Reasoning, event)
            case ToolCallDelta():
                return self._argue(event)
            case ToolCallStart():
                self._begin(event)
            case BlockStart():
                self._numbered = event.kind == "tool_call"
            case Opaque(content=True, closed=False):
                self._stuck = True
            case BlockStop(wire=Wire(dialect=dialect)) if dialect == self._dialect:
                self._stuck = self._stuck or not all(part.complete for part in self._parts)
            case _:
                pass
        return 0

    def _say(self, kind: type[Text] | type[Reasoning], event: TextDelta | ReasoningDelta) -> int:
        if not event.text:
            return 0
        if event.choice:
            self._stuck = True
        if not self._parts or not self._parts[-1].of(kind):
            self._parts.append(_Piece(kind))
        return self._add(self._parts[-1], event.text)

    def _begin(self, event: ToolCallStart) -> None:
        if event.choice or not event.name or event.index != len(self._calls):
            self._stuck = True
        call = _Piece(None, event, named=self._numbered or event.wire is None)
        self._numbered = False
        self._parts.append(call)
        self._calls.append(call)

    def _argue(self, event: ToolCallDelta) -> int:
        if event.choice or not 0 <= event.index < len(self._calls):
            self._stuck = True
            return 0
        call = self._calls[event.index]
        if event.name and call.start is not None:
            call.start = replace(call.start, name=call.start.name + event.name)
        return self._add(call, event.arguments)

    def _add(self, part: _Piece, text: str) -> int:
        part.add(text)
        self.characters += len(text)
        return len(text)

    def message(self) -> Message:
        """The half-written assistant turn a next leg goes on from."""
        return Message(role="assistant", parts=tuple(part.part() for part in self._parts))
