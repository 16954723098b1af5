"""How is a whole answer written for a client of OpenAI's chat completions?

And what a chunk and a whole answer have in common: why it ended, how a call is written, where words of others stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.core.chat import ChatRequest
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    Odds,
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
from appliance.dialects import fields, openai_chat_functions
from appliance.dialects.ids import fitting_id
from appliance.dialects.openai_chat_figures import logprobs, usage
from appliance.dialects.openai_errors import NAME
from appliance.dialects.stream import Counts, whole_body

NO_ARGUMENTS = "{}"


def reason_of(finish: Finish, *, calls: bool) -> str:
    """OpenAI has no word for "other", and says "tool_calls" whenever calls were made."""
    if calls and finish.reason in ("stop", "other"):
        return "tool_calls"
    return "stop" if finish.reason == "other" else finish.reason


def identity(theirs: str, answer: str, choice: int, index: int) -> str:
    """The id of a call. What has a space in it fits nowhere, so ours becomes a hash, another one for each call of each
    answer."""
    return fitting_id(theirs or f"{answer} {choice} {index}", "openai")


def called(event: ToolCallStart, answer: str) -> dict[str, Any]:
    named = identity(event.id, answer, event.choice, event.index)
    return {"id": named, "type": "function", "function": {"name": event.name, "arguments": ""}}


def place(event: Opaque) -> str:
    """Where the words of something that we do not know stand: what this dialect has words for, we take apart, but for
    a refusal."""
    return "refusal" if event.wire is not None and event.wire.dialect == NAME else "content"


@dataclass(slots=True, kw_only=True)
class _Choice:
    """One answer, as far as its events were read."""

    text: list[str] = field(default_factory=list)
    odds: list[Odds] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish: Finish | None = None

    def written(self, index: int, *, old: bool) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text), "refusal": None}
        if self.refusal:
            message["content"] = message["content"] or None
            message["refusal"] = "".join(self.refusal)
        reason = reason_of(self.finish, calls=bool(self.calls)) if self.finish else None
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = [self.calls[at] for at in sorted(self.calls)]
            if reason == "tool_calls":
                for call in self.calls.values():
                    call["function"]["arguments"] = call["function"]["arguments"] or NO_ARGUMENTS
        if self.calls and old:
            message[openai_chat_functions.CALLED] = message.pop("tool_calls")[0]["function"]
            reason = openai_chat_functions.CALLED if reason == "tool_calls" else reason
        return {"index": index, "message": message, "logprobs": logprobs(self.odds), "finish_reason": reason}


def encode_whole(request: ChatRequest, events: Sequence[Event], *, id: str, created: int) -> bytes:
    """All events of one answer as one body."""
    body = whole_body(events, NAME)
    if body is not None:
        return body
    named = next((event for event in events if isinstance(event, Started)), None)
    answer_id = (named and named.id) or id
    old = openai_chat_functions.old(request.fields)
    counts = Counts()
    choices = {0: _Choice()}
    for event in events:
        match event:
            case Usage():
                counts.note(event)
            case Takeover():
                counts.taken_over()
            case Started() | Opened() | Degraded() | Progress() | BlockStart() | BlockStop():
                pass
            case Opaque():
                _add(choices[0], event, answer_id)
            case _:
                _add(choices.setdefault(event.choice, _Choice()), event, answer_id)
    answer: dict[str, Any] = {
        "id": answer_id,
        "object": "chat.completion",
        "created": (named and named.created) or created,
        "model": (named and named.model) or request.model,
        "choices": [choices[index].written(index, old=old) for index in sorted(choices)],
    }
    if counts.total is not None:
        answer["usage"] = usage(counts.total)
    return fields.compact(answer)


def _add(
    choice: _Choice, event: TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | Opaque | Finish, answer: str
) -> None:
    match event:
        case TextDelta():
            choice.text.append(event.text)
            choice.odds += event.odds
        case ReasoningDelta():
            choice.reasoning.append(event.text)
        case ToolCallStart():
            choice.calls[event.index] = called(event, answer)
        case ToolCallDelta():
            choice.calls[event.index]["function"]["name"] += event.name
            choice.calls[event.index]["function"]["arguments"] += event.arguments
        case Opaque():
            if event.text:
                (choice.refusal if place(event) == "refusal" else choice.text).append(event.text)
        case Finish():
            choice.finish = choice.finish or event
