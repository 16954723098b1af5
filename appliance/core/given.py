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

    __slots__ = ("_choices", "_parts", "characters", "continuable")

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self.clear()

    def clear(self) -> None:
        """Nothing of it was sent after all."""
        self._parts: list[tuple[type[Text] | type[Reasoning], list[str]]] = []
        self.characters = 0
        self.continuable = self._choices == 1
        """What was not made of words, like half a tool call, only its author can go on with."""

    @property
    def spoken(self) -> bool:
        """Is it text and nothing else?"""
        return bool(self._parts) and all(kind is Text for kind, _ in self._parts)

    def note(self, event: Event) -> int:
        """The client gets this too. Returns how many characters it is."""
        match event:
            case TextDelta(text=text):
                kind: type[Text] | type[Reasoning] = Text
            case ReasoningDelta(text=text):
                kind = Reasoning
            case ToolCallStart() | ToolCallDelta() | Opaque(content=True, closed=False):
                self.continuable = False
                return 0
            case _:
                return 0
        if not text:
            return 0
        if event.choice:
            self.continuable = False
        if not self._parts or self._parts[-1][0] is not kind:
            self._parts.append((kind, []))
        self._parts[-1][1].append(text)
        self.characters += len(text)
        return len(text)

    def message(self) -> Message:
        """The half-written assistant turn a next leg goes on from."""
        return Message(role="assistant", parts=tuple(kind("".join(pieces)) for kind, pieces in self._parts))
