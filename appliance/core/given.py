"""What does the client have of this answer by now, and could somebody else go on from it?"""

from __future__ import annotations

from appliance.core.chat import (
    Event,
    Message,
    Opaque,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)


class Given:
    """The words of one answer, in their order. ``choices`` is how many answers were asked for."""

    __slots__ = ("_parts", "characters", "continuable")

    def __init__(self, choices: int = 1) -> None:
        self._parts: list[tuple[type[Text] | type[Reasoning], list[str]]] = []
        self.characters = 0
        self.continuable = choices == 1
        """What was not made of words, like half a tool call, only its author can go on with."""

    @property
    def spoken(self) -> bool:
        """Is it text and nothing else?"""
        return bool(self._parts) and all(kind is Text for kind, _ in self._parts)

    def note(self, event: Event) -> int:
        """The client gets this too. Returns how many characters it is."""
        if isinstance(event, TextDelta):
            kind: type[Text] | type[Reasoning] = Text
        elif isinstance(event, ReasoningDelta):
            kind = Reasoning
        else:
            call = isinstance(event, ToolCallStart | ToolCallDelta)
            if call or (isinstance(event, Opaque) and event.content and not event.closed):
                self.continuable = False
            return 0
        count = len(event.text)
        if not count:
            return 0
        if event.choice:
            self.continuable = False
        parts = self._parts
        if not parts or parts[-1][0] is not kind:
            parts.append((kind, []))
        parts[-1][1].append(event.text)
        self.characters += count
        return count

    def message(self) -> Message:
        """The half-written assistant turn a next leg goes on from."""
        return Message(role="assistant", parts=tuple(kind("".join(pieces)) for kind, pieces in self._parts))
