"""How does an answer look as one Anthropic message, and in what words does it end?

Rules of this file:

1. A cloud's own body goes back byte for byte; anything else is written anew from its events.
2. Blocks stand in the order in which they began. What several legs said of one kind, without an end between, is one.
3. A call's input is an object. Arguments that are none (cut by `max_tokens`, or written badly) become `{}`: half a
   path or half a command must not be run, and a tool that is given nothing says what it misses.
4. Blocks that only another leg of this dialect understood are left out of a message written anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from appliance.core.chat import ChatRequest
from appliance.core.events import (
    BlockKind,
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    FinishReason,
    Opaque,
    Opened,
    Progress,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.dialects import fields
from appliance.dialects.anthropic_body import UNSIGNED
from appliance.dialects.anthropic_errors import NAME
from appliance.dialects.ids import fitting_id
from appliance.dialects.stream import Counts, whole_body

Spoken = Literal["text", "reasoning"]

_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "other": "end_turn",
}


def stopped(finish: Finish | None, *, called: bool) -> dict[str, str | None]:
    """Why the answer ended. Some clouds say "stop" after calls; here it would mean that nobody has to make them."""
    if finish is not None and finish.reason == "stop" and finish.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
    reason = "end_turn" if finish is None else _REASONS[finish.reason]
    return {"stop_reason": "tool_use" if called and reason == "end_turn" else reason, "stop_sequence": None}


def counted(total: Usage | None) -> dict[str, Any]:
    """What is known by now; nothing of it is left out, since clients add it up."""
    total = total or Usage(prompt_tokens=0, completion_tokens=0)
    count: dict[str, Any] = {
        "input_tokens": max(0, total.prompt_tokens - total.cached_tokens - total.cache_written_tokens),
        "cache_creation_input_tokens": total.cache_written_tokens,
        "cache_read_input_tokens": total.cached_tokens,
        "output_tokens": total.completion_tokens,
    }
    if total.reasoning_tokens:
        count["output_tokens_details"] = {"thinking_tokens": total.reasoning_tokens}
    return count


def message(started: Started | None, request: ChatRequest, *, id: str, usage: Usage | None) -> dict[str, Any]:
    """A message that nothing was said in yet."""
    return {
        "id": (started and started.id) or id,
        "type": "message",
        "role": "assistant",
        "model": (started and started.model) or request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counted(usage),
    }


def encode_whole(request: ChatRequest, events: Sequence[Event], *, id: str) -> bytes:
    """All events of one answer as one body."""
    body = whole_body(events, NAME)
    if body is not None:
        return body
    started: Started | None = None
    finish: Finish | None = None
    counts, content = Counts(), _Content()
    for event in events:
        match event:
            case Started():
                started = started or event
            case Finish():
                finish = finish or event
            case Usage():
                counts.note(event)
            case Takeover():
                counts.taken_over()
            case Opened() | Degraded() | Progress():
                pass
            case _:
                content.add(event)
    answer = message(started, request, id=id, usage=counts.total)
    answer["content"] = content.written(answer["id"])
    return fields.compact({**answer, **stopped(finish, called=content.called)})


class _Content:
    """The blocks of a message, as far as their events were read."""

    def __init__(self) -> None:
        self._blocks: list[_Spoken | _Call] = []
        self._calls: dict[int, _Call] = {}
        self._open: _Spoken | None = None
        self._said: BlockKind | None = None  # in what kind of block the running leg says it is

    @property
    def called(self) -> bool:
        return bool(self._calls)

    def add(
        self, event: BlockStart | BlockStop | TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | Opaque
    ) -> None:
        match event:
            case TextDelta(text=text, choice=0) if text:
                self._speak("text", text)
            case ReasoningDelta(text=text, choice=0) if text:
                self._speak("reasoning", text)
            case Opaque(text=text) if text:
                self._speak("text", text)
            case ToolCallStart(choice=0):
                self._open = None
                self._calls[event.index] = call = _Call(event)
                self._blocks.append(call)
            case ToolCallDelta(choice=0) if event.index in self._calls:
                self._calls[event.index].name += event.name
                self._calls[event.index].arguments.append(event.arguments)
            case BlockStart():
                self._said = event.kind
            case BlockStop():
                if self._open is not None and self._said == self._open.kind:
                    self._open = None
            case _:
                pass

    def _speak(self, kind: Spoken, text: str) -> None:
        if self._open is None or self._open.kind != kind:
            self._open = _Spoken(kind)
            self._blocks.append(self._open)
        self._open.text.append(text)

    def written(self, answer: str) -> list[dict[str, Any]]:
        used: set[str] = set()
        return [block.written(answer, used) for block in self._blocks]


class _Spoken:
    def __init__(self, kind: Spoken) -> None:
        self.kind = kind
        self.text: list[str] = []

    def written(self, answer: str, used: set[str]) -> dict[str, Any]:
        text = "".join(self.text)
        if self.kind == "text":
            return {"type": "text", "text": text}
        return {"type": "thinking", "thinking": text, "signature": UNSIGNED}


class _Call:
    def __init__(self, start: ToolCallStart) -> None:
        self._start = start
        self.name = start.name
        self.arguments: list[str] = []

    def written(self, answer: str, used: set[str]) -> dict[str, Any]:
        identity = unused_id(self._start.id, answer, used)
        return {"type": "tool_use", "id": identity, "name": self.name, "input": self._input()}

    def _input(self) -> dict[str, Any]:
        try:
            found = json.loads("".join(self.arguments))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def unused_id(identity: str, answer: str, used: set[str]) -> str:
    """A valid id that no other call of this answer has; made of the answer's id where none came."""
    fitting = fitting_id(identity, "anthropic") if identity else ""
    if not fitting or fitting in used:
        fitting = fitting_id(f"{answer}/{identity}/{len(used)}", "anthropic")
    used.add(fitting)
    return fitting
