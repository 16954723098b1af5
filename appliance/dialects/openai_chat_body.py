"""How is a request written for a cloud of OpenAI's chat completions?

Rules of this file:

1. A cloud gets the bytes of a client of its own dialect. If only the model goes by another name there, only the bytes
   of its value change, and so if a whole answer is asked for as a stream. A body is written anew only when something
   else has to change.
2. A request of another dialect is written from the vocabulary alone, in words that every cloud of this dialect knows.
3. What the client's model thought is not said again: OpenAI takes no reasoning back, and a strict cloud refuses it.
   `Quirks.reasoning_back` names the models that refuse the opposite.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

from appliance.core.chat import (
    ChatRequest,
    Image,
    JsonFormat,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from appliance.core.seams import PLAIN, Quirks
from appliance.dialects import fields
from appliance.dialects.ids import Taste, fitting_id
from appliance.dialects.openai_errors import NAME
from appliance.dialects.rewrite import with_members, with_model

STOPS = 4
LONGEST_TOOL_NAME = 64
LONGEST_USER = 64

# What every model that can be told takes; the words around these are known to few.
EFFORTS = {
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
# The vocabulary has a field for it, and the clients that fill it have names of their own.
STOP_FIELDS = {"anthropic": "stop_sequences"}
STREAMED = frozenset(("stream", "stream_options"))
WRITTEN = {"effort": ("thinking", "output_config"), "user": ("metadata",)}


def objection(request: ChatRequest) -> str | None:
    """What of a request of another dialect cannot be said in this one, and matters."""
    if len(request.stop) > STOPS:
        return STOP_FIELDS.get(request.dialect, "stop")
    for index, tool in enumerate(request.tools):
        if len(tool.name) > LONGEST_TOOL_NAME:
            return f"tools[{index}].name"
    return None


def losses(request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> tuple[str, ...]:
    """What `render` leaves out because this model, or this cloud, would refuse it."""
    if request.dialect == NAME:
        return ()
    lost: list[str] = []
    drawn = _drawing(request, model, quirks)
    for key, value in (("temperature", request.sampling.temperature), ("top_p", request.sampling.top_p)):
        if value is not None and value != 1 and key not in drawn:  # 1 is what they do by themselves
            lost.append(key)
    told = _effort(request, model, quirks)
    if request.effort is not None and (told is None or (told == "none" and request.effort != "none")):
        lost.append(_field(request, "effort"))
    if request.user and quirks.short_ids:
        lost.append(_field(request, "user"))
    return tuple(lost)


def _field(request: ChatRequest, word: str) -> str:
    """What the client calls it."""
    return next((key for key in WRITTEN[word] if request.fields.get(key) is not None), word)


def render(request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> bytes:
    """The body that asks a cloud of this dialect for `request`, under the name the cloud has for the model."""
    if request.dialect != NAME or not request.raw:
        return fields.compact(_built(request, model, quirks))
    changes = _changes(request, quirks)
    committed = request.committed if request.committed is not None and _says(request.committed) else None
    if committed is None and None not in changes.values() and changes.keys() <= STREAMED:
        raw = with_members(request.raw, changes) if changes else request.raw
        return raw if request.fields.get("model") == model else with_model(raw, model)
    body = {**request.fields, **changes, "model": model}
    if body.get("stream_options") is None:
        body.pop("stream_options", None)
    if committed is not None:
        body["messages"] = [*body["messages"], _written(committed, _taste(quirks))]
    return fields.compact(body)


def _changes(request: ChatRequest, quirks: Quirks) -> dict[str, Any]:
    """The top-level fields in which `request` has moved away from what the client wrote, or the cloud is peculiar."""
    changes: dict[str, Any] = {}
    given = request.fields
    if request.stream != bool(given.get("stream")):
        changes["stream"] = request.stream
        if not request.stream:
            changes["stream_options"] = None
        elif quirks.stream_usage:  # token counts are a part of every answer, but for streamed ones
            changes["stream_options"] = {**(given.get("stream_options") or {}), "include_usage": True}
    limit = given.get("max_completion_tokens") or given.get("max_tokens")
    if request.max_tokens is not None and request.max_tokens != limit:
        key = "max_tokens" if given.get("max_completion_tokens") is None else "max_completion_tokens"
        changes[key] = request.max_tokens
    if quirks.short_ids and any(fitting_id(id, "short") != id for id in _ids(request.messages)):
        changes["messages"] = [_shortened(message) for message in given["messages"]]
    return changes


def _ids(messages: Iterable[Message]) -> Iterable[str]:
    return (part.id for turn in messages for part in turn.parts if isinstance(part, ToolCall | ToolResult))


def _shortened(message: dict[str, Any]) -> dict[str, Any]:
    """A client's message with tool-call ids of the short kind, and nothing else changed."""
    changed = dict(message)
    if isinstance(message.get("tool_call_id"), str):
        changed["tool_call_id"] = fitting_id(message["tool_call_id"], "short")
    if message.get("tool_calls"):
        changed["tool_calls"] = [
            {**call, "id": fitting_id(call.get("id") or "", "short")} for call in message["tool_calls"]
        ]
    return changed


# ------------------------------------------------------------------------------------------ from the vocabulary


def _taste(quirks: Quirks) -> Taste:
    return "short" if quirks.short_ids else "openai"


def _matches(model: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _built(request: ChatRequest, model: str, quirks: Quirks) -> dict[str, Any]:
    """A body from the vocabulary alone."""
    turns = request.messages if request.committed is None else (*request.messages, request.committed)
    back = _matches(model, quirks.reasoning_back)
    body: dict[str, Any] = {"model": model, "messages": _conversation(turns, _taste(quirks), quirks, back)}
    if request.stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}  # a client of another dialect always wants the numbers
    if request.max_tokens is not None:
        new = _matches(model, quirks.new_limit)
        body["max_completion_tokens" if new else "max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.n > 1:
        body["n"] = request.n
    body |= _drawing(request, model, quirks)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _choice(request.tool_choice)
        if request.parallel_tools is not None:
            body["parallel_tool_calls"] = request.parallel_tools
    if request.format is not None:
        body["response_format"] = _format(request.format)
    effort = _effort(request, model, quirks)
    if effort is not None:
        body["reasoning_effort"] = effort
    if request.user and not quirks.short_ids:  # Mistral has no such field, and refuses what it does not know
        body["user"] = _user(request.user)
    return body


def _drawing(request: ChatRequest, model: str, quirks: Quirks) -> dict[str, Any]:
    """How the next word is drawn, as far as OpenAI itself knows words for it: a strict cloud refuses the others, and a
    lenient one does without them. The models with the new limit reason, and refuse to be told."""
    said: dict[str, Any] = {}
    sampling, new = request.sampling, _matches(model, quirks.new_limit)
    for key in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"):
        value = getattr(sampling, key)
        if value is not None and not (new and key in ("temperature", "top_p")):
            said[key] = value
    if sampling.logit_bias:
        said["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return said


def _effort(request: ChatRequest, model: str, quirks: Quirks) -> str | None:
    """How much to think, in a word that the model takes beside the rest."""
    if request.tools and _matches(model, quirks.unthinking_tools):
        return "none"
    return EFFORTS.get(request.effort or "") if _matches(model, quirks.effort) else None


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters) or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.kind == "named" else choice.kind


def _format(form: JsonFormat) -> dict[str, Any]:
    if form.schema is None:
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": form.name or "answer", "schema": form.schema}  # a name is demanded
    if form.strict is not None:
        described["strict"] = form.strict
    return {"type": "json_schema", "json_schema": described}


def _user(user: str) -> str:
    """Who asks, in no more characters than OpenAI takes: a hash names one as well."""
    return user if len(user) <= LONGEST_USER else hashlib.sha256(user.encode(errors="surrogatepass")).hexdigest()


def _conversation(turns: Sequence[Message], taste: Taste, quirks: Quirks, reasoning_back: bool) -> list[dict[str, Any]]:
    """Our messages as OpenAI's. Each tool result is a message of its own there, and all results must directly follow
    the calls; what stands before, between and beside them is said by the user behind the last one."""
    written: list[dict[str, Any]] = []
    for assistant, run in groupby(turns, key=lambda turn: turn.role == "assistant"):
        if not assistant:
            written += _answered([*run], taste, quirks)
            continue
        for turn in run:
            if _says(turn):
                written.append(_written(turn, taste))
            if reasoning_back and any(isinstance(part, ToolCall) for part in turn.parts):
                # Even where there was none: it is the field that is missed.
                thought = "".join(part.text for part in turn.parts if isinstance(part, Reasoning))
                written[-1]["reasoning_content"] = thought
    return written


def _answered(run: Sequence[Message], taste: Taste, quirks: Quirks) -> list[dict[str, Any]]:
    """What was said to the assistant until it spoke again."""
    last = max((at for at, turn in enumerate(run) if _results(turn)), default=-1)
    results = [part for turn in run for part in _results(turn)]
    behind = run[last + 1 :]
    beside = [turn for turn in run[: last + 1] if turn.role == "system"]
    said = tuple(part for turn in run[: last + 1] if turn.role != "system" for part in _others(turn))
    if said and behind and behind[0].role == "user":  # in one breath
        said, behind = said + behind[0].parts, behind[1:]
    if said:
        beside.append(Message(role="user", parts=said))
    others = [*beside, *behind]
    answers: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": fitting_id(part.id, taste), "content": part.text} for part in results
    ]
    if answers and others and not quirks.user_after_tool:
        answers[-1]["content"] = _behind(results[-1].text, [part for turn in others for part in turn.parts])
        others = []
    return [*answers, *(_written(turn, taste) for turn in others)]


def _behind(result: str, said: Sequence[Part]) -> str | list[dict[str, Any]]:
    """A tool's result with what the user says behind it, where nobody but the assistant may speak next."""
    texts = [result, *(part.text for part in said if isinstance(part, Text))]
    text = "\n\n".join(text for text in texts if text)
    images = (part for part in said if isinstance(part, Image))
    return _content(Message(role="tool", parts=(*((Text(text),) if text else ()), *images)))


def _results(turn: Message) -> list[ToolResult]:
    return [part for part in turn.parts if isinstance(part, ToolResult)]


def _others(turn: Message) -> tuple[Part, ...]:
    return tuple(part for part in turn.parts if not isinstance(part, ToolResult))


def _says(message: Message) -> bool:
    """Of what the assistant only thought nothing is left to say."""
    return any(isinstance(part, Text | ToolCall) for part in message.parts)


def _written(message: Message, taste: Taste) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": _content(message)}
    calls = [
        {
            "id": fitting_id(part.id, taste),
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments or "{}"},
        }
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    if calls:
        written["tool_calls"] = calls
        written["content"] = written["content"] or None
    return written


def _content(message: Message) -> str | list[dict[str, Any]]:
    parts: tuple[Part, ...] = message.parts
    if not any(isinstance(part, Image) for part in parts):
        # One string: not every cloud takes a list of texts. What the assistant said is joined as the client saw it,
        # the blocks of others by a line's end, as vLLM and llama-server do it.
        seam = "" if message.role == "assistant" else "\n"
        return seam.join(part.text for part in parts if isinstance(part, Text))
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            content.append({"type": "image_url", "image_url": {"url": part.url}})
    return content
