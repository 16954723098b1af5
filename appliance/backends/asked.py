"""A chat request in the engine's words: the frame with which it is asked to answer, to follow or to count.

Rules of this file:

1. What a model was taught a form for is told in parts (calls, their results, the tools); the rest is text.
2. Whatever the box cannot see or read leaves a line in its place. Earlier thinking is told to nobody who did not think
   it, and neither is what was thought before the half answer that is to be gone on with.
3. A tool's result is told with the name of the call it answers, which some templates need and no client repeats.
4. The committed answer is text, or a list of its parts once it holds a call. Only the last of them may be half written,
   and the client's own beginning of the answer stands before all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

from appliance.core.chat import (
    ChatRequest,
    Foreign,
    Image,
    Message,
    Part,
    Reasoning,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

UNSEEN_IMAGE = "[An image was here; this box cannot see images.]"
UNREAD_DOCUMENT = "[A document was here; this box cannot read it.]"
FAILED = "[The tool failed.]"
NO_ARGUMENTS = "{}"
REDACTED_THINKING = "redacted_thinking"
"""The type of thinking that a cloud of Anthropic's dialect has encrypted."""

Committed = str | list[dict[str, Any]] | None
READ = ("messages", "committed", "prefill", "tools", "choice", "parallel", "format", "effort")
"""What in a frame decides what the model reads. Whoever only counts or follows refuses nothing of it."""


def job(request: ChatRequest, choice: int = 0) -> dict[str, Any]:
    """The request for one answer of several, as a generate frame, but for its id."""
    messages, prefill = opening(request)
    return {
        "messages": conversation(messages),
        "committed": committed(request.committed, prefill),
        "prefill": len(prefill),
        "first": request.committed is not None,
        "tools": [declared(tool) for tool in request.tools],
        "choice": wish(request),
        "parallel": request.parallel_tools is not False,
        "format": form(request),
        "lenient": request.lenient,
        "effort": request.effort,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "trim": request.trim,
        "sampling": sampling(request.sampling, choice),
        "logprobs": request.logprobs,
    }


def counting(request: ChatRequest) -> dict[str, Any]:
    """The request as a count frame, but for its id."""
    said = job(request)
    return {name: said[name] for name in READ} | {"lenient": True}


def following(request: ChatRequest) -> dict[str, Any]:
    """The request as a follow frame, but for its id. Only words are followed: of a half answer those before its first
    call."""
    said = job(request)
    told = {name: said[name] for name in (*READ, "trim")} | {"lenient": True}
    if isinstance(told["committed"], list):
        first = told["committed"][0]
        told["committed"] = first.get("text", "")
    return told


def opening(request: ChatRequest) -> tuple[Sequence[Message], str]:
    """The conversation, and the beginning of the answer that the client wrote itself: in Anthropic's dialect, text of
    the assistant at the end of a conversation is gone on with and not answered."""
    if request.dialect == "anthropic" and request.messages:
        last = request.messages[-1]
        if last.role == "assistant" and all(isinstance(part, Text) for part in spoken(last)):
            return request.messages[:-1], last.text
    return request.messages, ""


def committed(begun: Message | None, prefill: str) -> Committed:
    """What the answer is to go on from."""
    if begun is None:
        return prefill or None
    parts: list[dict[str, Any]] = [{"text": prefill}] if prefill else []
    for part in begun.parts:
        match part:
            case ToolCall(name=name, arguments=arguments):
                if arguments.isspace():
                    arguments = ""
                half: dict[str, Any] = {"half": True} if part.half and part is begun.parts[-1] else {}
                parts.append({"call": {"name": name, "arguments": arguments} | half})
            case Text(text=text) if parts and "text" in parts[-1]:
                parts[-1]["text"] += text
            case Text(text=text):
                parts.append({"text": text})
            case _:
                pass
    for said in parts[:-1]:
        if "call" in said:  # whole, as something stands behind it
            said["call"]["arguments"] = said["call"]["arguments"] or NO_ARGUMENTS
    return parts if any("call" in said for said in parts) else "".join(said["text"] for said in parts)


def wish(request: ChatRequest) -> str | dict[str, str]:
    """Whether a tool may, must or must not be called."""
    said = request.tool_choice
    if said is None:
        return "auto"
    return {"name": said.name} if said.kind == "named" else said.kind


def form(request: ChatRequest) -> dict[str, Any] | None:
    """What the whole answer has to be, if it has to be something."""
    if request.grammar is not None:
        return {"grammar": request.grammar}
    if request.format is None:
        return None
    schema = request.format.schema
    return {"schema": None if schema is None else dict(schema), "strict": request.format.strict is True}


def declared(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": tool.strict is True,
    }


def sampling(given: Sampling, choice: int = 0) -> dict[str, Any]:
    """What was said about it; what was not is the engine's default. Several answers with one seed have one each."""
    said = {field.name: getattr(given, field.name) for field in fields(given) if field.name != "logit_bias"}
    said = {name: value for name, value in said.items() if value is not None}
    if given.seed is not None:
        said["seed"] = given.seed + choice
    if given.logit_bias:
        said["logit_bias"] = [list(pair) for pair in given.logit_bias]
    return said


# --------------------------------------------------------------------------------------------------- messages


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # of the calls so far, by their ids
    told: list[dict[str, Any]] = []
    for message in messages:
        names.update((part.id, part.name) for part in message.parts if isinstance(part, ToolCall))
        told += _turns(message, names)
    return told


def _turns(message: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A message as the engine is told of it: each tool's result is a turn of its own, with the images it gave."""
    parts = spoken(message)
    starts = [at for at, part in enumerate(parts) if isinstance(part, ToolResult)]
    before = parts[: starts[0]] if starts else parts
    turns = [] if starts and not before else [_turn(message.role, before)]
    for at, end in zip(starts, [*starts[1:], len(parts)], strict=False):
        result = parts[at]
        assert isinstance(result, ToolResult)
        turn = {"role": "tool", "content": content("tool", parts[at:end]), "tool_call_id": result.id}
        turns.append(turn | ({"name": names[result.id]} if result.id in names else {}))
    return turns


def _turn(role: str, parts: Sequence[Part]) -> dict[str, Any]:
    calls = [
        {"id": part.id, "name": part.name, "arguments": part.arguments} for part in parts if isinstance(part, ToolCall)
    ]
    turn: dict[str, Any] = {"role": role, "content": content(role, parts)}
    return turn | {"tool_calls": calls} if calls else turn


def spoken(message: Message) -> Sequence[Part]:
    """The message without earlier thinking, which is repeated to nobody who did not think it."""
    return [
        part for part in message.parts if not isinstance(part, Reasoning) and part != Foreign(what=REDACTED_THINKING)
    ]


def content(role: str, parts: Sequence[Part]) -> str:
    """Everything of a message that the model may read as text. What a user or a system says in several parts stands on
    lines of their own, and so does what stands for something else; an assistant's texts are one, cut by a stream."""
    lines: list[str] = []
    for of_text, run in groupby(parts, key=lambda part: isinstance(part, Text)):
        texts = [text for text in map(_readable, run) if text]
        lines += ["".join(texts)] if of_text and role == "assistant" and texts else texts
    return "\n".join(lines)


def _readable(part: Part) -> str:
    match part:
        case Text(text=text):
            return text
        case Image():
            return UNSEEN_IMAGE
        case Foreign():
            return UNREAD_DOCUMENT
        case ToolResult(text=text, failed=failed):
            return f"{FAILED}\n{text}".rstrip() if failed else text
        case _:
            return ""
