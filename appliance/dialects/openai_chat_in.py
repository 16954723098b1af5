"""What does a body of OpenAI's chat completions ask for, and how is it written for a cloud?

Rules of this file:

1. Reading is strict about what we act on and blind to the rest: an unknown field travels on in `raw` and `fields`.
2. An explicit null is an absent field.
3. A cloud of this dialect gets the client's own bytes. If only the model goes by another name there, only the bytes
   of its value change. A body is written anew only when something else has to change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from appliance.core.chat import (
    ChatRequest,
    Headers,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolResult,
)
from appliance.dialects import fields
from appliance.dialects.fields import at, refusal, wrong

NAME = "openai"

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# What a part of a type needs of the answerer. An unknown type needs itself, which nobody but the cloud offers.
PART_NEEDS = {"image_url": "images", "input_audio": "audio", "audio": "audio", "file": "file"}
SEEDS = 2**63


# --------------------------------------------------------------------------------------------------- reading


def parse(body: bytes, headers: Headers = ()) -> ChatRequest:
    """The request in `body`. Raises `BackendError` (REQUEST) with one sentence and the path of the field at fault."""
    found = fields.document(body)
    model = fields.string(found, "model")
    if not model:
        raise refusal("model", "model is missing; name the model that should answer.")
    needs: set[str] = set()
    messages = _messages(found, needs)
    choices = fields.integer(found, "n", low=1, high=128) or 1
    if choices > 1:
        needs.add("n")
    _tools(found, needs)
    _format(found, needs)
    stream_options = fields.mapping(found, "stream_options") or {}
    longest = fields.integer(found, "max_tokens", low=1)
    return ChatRequest(
        dialect=NAME,
        model=model,
        messages=messages,
        stream=fields.flag(found, "stream") or False,
        include_usage=fields.flag(stream_options, "include_usage", "stream_options") or False,
        max_tokens=fields.integer(found, "max_completion_tokens", low=1) or longest,
        stop=_stop(found),
        sampling=_sampling(found),
        n=choices,
        needs=frozenset(needs),
        raw=body,
        fields=found,
        headers=headers,
    )


def _messages(found: fields.Object, needs: set[str]) -> tuple[Message, ...]:
    given = fields.objects(found, "messages")
    if not given:
        raise refusal("messages", "messages is missing or empty; send at least one message.")
    return tuple(_message(item, at("messages", index), needs) for index, item in enumerate(given))


def _message(item: fields.Object, path: str, needs: set[str]) -> Message:
    named = fields.string(item, "role", path)
    role = ROLES.get(named or "")
    if role is None:
        what = "is missing" if named is None else "is unknown"
        raise refusal(at(path, "role"), f"{at(path, 'role')} {what}; it must be one of {', '.join(ROLES)}.")
    parts = _content(item, path, needs)
    if role == "tool":
        # The old functions were answered by name, not by id.
        key = "name" if named == "function" else "tool_call_id"
        identity = fields.string(item, key, path)
        if identity is None:
            raise refusal(at(path, key), f"{at(path, key)} is missing; it says which call this is the result of.")
        text = "".join(part.text for part in parts if isinstance(part, Text))
        others = tuple(part for part in parts if not isinstance(part, Text))
        return Message(role=role, parts=(ToolResult(id=identity, text=text), *others))
    if role == "assistant":
        thought = fields.string(item, "reasoning_content", path)
        calls = _calls(item, path)
        parts = ((Reasoning(thought),) if thought else ()) + parts + calls
    elif item.get("content") is None:
        raise refusal(at(path, "content"), f"{at(path, 'content')} is missing; send a string or a list of parts.")
    return Message(role=role, parts=parts)


def _content(item: fields.Object, path: str, needs: set[str]) -> tuple[Part, ...]:
    content, path = item.get("content"), at(path, "content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),) if content else ()
    if not isinstance(content, list):
        raise wrong(path, "a string or a list of parts", content)
    parts: list[Part] = []
    for index, part in enumerate(content):
        where = at(path, index)
        if not isinstance(part, dict):
            raise wrong(where, "an object", part)
        named = fields.string(part, "type", where)
        if named is None:
            raise refusal(at(where, "type"), f"{at(where, 'type')} is missing; it says what kind of part this is.")
        if named in ("text", "refusal"):
            text = fields.string(part, named, where)
            if text is None:
                raise refusal(
                    at(where, named), f"{at(where, named)} is missing; a part of type {named} holds a string."
                )
            parts.append(Text(text))
            continue
        needs.add(PART_NEEDS.get(named, named))
        if named == "image_url":
            parts.append(_image(part, where))
    return tuple(parts)


def _image(part: fields.Object, path: str) -> Image:
    if isinstance(part.get("image_url"), str):  # not OpenAI's shape, but many send it and many accept it
        return Image(part["image_url"])
    url = fields.string(fields.mapping(part, "image_url", path) or {}, "url", at(path, "image_url"))
    if url is None:
        where = at(path, "image_url.url")
        raise refusal(where, f"{where} is missing; give the image's address or a data URL.")
    return Image(url)


def _calls(item: fields.Object, path: str) -> tuple[ToolCall, ...]:
    calls = []
    for index, call in enumerate(fields.objects(item, "tool_calls", path)):
        where = at(at(path, "tool_calls"), index)
        if (custom := fields.mapping(call, "custom", where)) is not None:
            body, text, where_body = custom, "input", at(where, "custom")
        else:
            body, text, where_body = fields.mapping(call, "function", where) or {}, "arguments", at(where, "function")
        calls.append(_call(fields.string(call, "id", where) or "", body, text, where_body))
    if (old := fields.mapping(item, "function_call", path)) is not None:
        calls.append(_call("", old, "arguments", at(path, "function_call")))
    return tuple(calls)


def _call(identity: str, body: fields.Object, text: str, path: str) -> ToolCall:
    name = fields.string(body, "name", path)
    if not name:
        raise refusal(at(path, "name"), f"{at(path, 'name')} is missing; it says which tool was called.")
    return ToolCall(id=identity, name=name, arguments=fields.string(body, text, path) or "")


def _stop(found: fields.Object) -> tuple[str, ...]:
    given = found.get("stop")
    if given is None:
        return ()
    listed = given if isinstance(given, list) else [given]
    for index, text in enumerate(listed):
        path = at("stop", index) if isinstance(given, list) else "stop"
        if not isinstance(text, str):
            raise wrong(path, "a string" if isinstance(given, list) else "a string or a list of strings", text)
        if not text:
            raise refusal(path, f"{path} is an empty string; leave it out or give the text to stop at.")
    return tuple(listed)


def _sampling(found: fields.Object) -> Sampling:
    repeat = fields.number(found, "repeat_penalty", low=0)
    return Sampling(
        temperature=fields.number(found, "temperature", low=0, high=2),
        top_k=fields.integer(found, "top_k", low=-1),
        top_p=fields.number(found, "top_p", low=0, high=1),
        min_p=fields.number(found, "min_p", low=0, high=1),
        frequency_penalty=fields.number(found, "frequency_penalty", low=-2, high=2),
        presence_penalty=fields.number(found, "presence_penalty", low=-2, high=2),
        # OpenRouter and vLLM write it out.
        repeat_penalty=fields.number(found, "repetition_penalty", low=0) if repeat is None else repeat,
        seed=fields.integer(found, "seed", low=-SEEDS, high=SEEDS - 1),
        logit_bias=_biases(found),
    )


def _biases(found: fields.Object) -> tuple[tuple[int, float], ...]:
    given = fields.mapping(found, "logit_bias") or {}
    biases = []
    for token in given:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise refusal("logit_bias", 'logit_bias has a key that is not a token id; keys are ids such as "1234".')
        bias = fields.number(given, token, "logit_bias", low=-100, high=100)
        if bias is not None:
            biases.append((int(token), bias))
    return tuple(biases)


def _tools(found: fields.Object, needs: set[str]) -> None:
    for index, tool in enumerate(fields.objects(found, "tools")):
        path = at("tools", index)
        needs.add("tools")
        if fields.string(tool, "type", path) in (None, "function"):
            function = fields.mapping(tool, "function", path)
            if function is None or not fields.string(function, "name", at(path, "function")):
                where = at(path, "function.name")
                raise refusal(where, f"{where} is missing; a tool needs a name.")
    if fields.objects(found, "functions"):
        needs.add("tools")
    choice = found.get("tool_choice")
    if choice is not None and not isinstance(choice, str | dict):
        raise wrong("tool_choice", "a string or an object", choice)


def _format(found: fields.Object, needs: set[str]) -> None:
    wanted = fields.mapping(found, "response_format") or {}
    if fields.string(wanted, "type", "response_format") not in (None, "text"):
        needs.add("json")
    logprobs = found.get("logprobs")
    if logprobs is not None and not isinstance(logprobs, bool):
        raise wrong("logprobs", "true or false", logprobs)
    if logprobs or fields.integer(found, "top_logprobs", low=0):
        needs.add("logprobs")
    if "audio" in (fields.sequence(found, "modalities") or []):
        needs.add("audio")


# --------------------------------------------------------------------------------------------------- writing


def render(request: ChatRequest, model: str) -> bytes:
    """The body that asks a cloud of this dialect for `request`, under the name the cloud has for the model."""
    if request.dialect != NAME or not request.raw:
        return fields.compact(_built(request, model))
    changes = _changes(request)
    if request.committed is None and not changes:
        return request.raw if request.fields.get("model") == model else with_model(request.raw, model)
    body = {**request.fields, **changes, "model": model}
    if body.get("stream_options") is None:
        body.pop("stream_options", None)
    if request.committed is not None:
        body["messages"] = [*request.fields["messages"], _written(request.committed)]
    return fields.compact(body)


def with_model(raw: bytes, model: str) -> bytes:
    """`raw` with another value for the top-level key "model", and every other byte as it was."""
    text = raw.decode()
    spans = _values(text, "model")
    value = json.dumps(model)
    pieces = []
    done = 0
    for start, end in spans:
        pieces += [text[done:start], value]
        done = end
    return "".join([*pieces, text[done:]]).encode()


_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"


def _values(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where the values of a top-level key stand, all of them: readers disagree on which of two equal keys counts."""

    def skip(index: int) -> int:
        while text[index] in _SPACE:
            index += 1
        return index

    spans = []
    index = skip(skip(0) + 1)
    while text[index] != "}":
        key, index = _DECODER.raw_decode(text, index)
        start = skip(skip(index) + 1)
        _, end = _DECODER.raw_decode(text, start)
        if key == wanted:
            spans.append((start, end))
        index = skip(end)
        if text[index] == ",":
            index = skip(index + 1)
    return spans


def _changes(request: ChatRequest) -> dict[str, Any]:
    """The top-level fields in which `request` has moved away from what the client wrote."""
    changes: dict[str, Any] = {}
    given = request.fields
    if request.stream != bool(given.get("stream")):
        changes["stream"] = request.stream
        changes["stream_options"] = {"include_usage": True} if request.stream else None
    limit = given.get("max_completion_tokens") or given.get("max_tokens")
    if request.max_tokens is not None and request.max_tokens != limit:
        key = "max_tokens" if given.get("max_completion_tokens") is None else "max_completion_tokens"
        changes[key] = request.max_tokens
    return changes


def _built(request: ChatRequest, model: str) -> dict[str, Any]:
    """A body from the vocabulary alone: text, images, tool calls and sampling."""
    turns = request.messages if request.committed is None else (*request.messages, request.committed)
    body: dict[str, Any] = {"model": model, "messages": [written for turn in turns for written in _turns(turn)]}
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}  # a client of another dialect always wants the numbers
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.n > 1:
        body["n"] = request.n
    sampling = request.sampling
    # Only what OpenAI itself knows: a strict cloud refuses the others, and a lenient one does without them.
    for key in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"):
        value = getattr(sampling, key)
        if value is not None:
            body[key] = value
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return body


def _turns(message: Message) -> list[dict[str, Any]]:
    """One message of ours as OpenAI's: each tool result is a message of its own there."""
    results: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": part.id, "content": part.text}
        for part in message.parts
        if isinstance(part, ToolResult)
    ]
    rest = tuple(part for part in message.parts if not isinstance(part, ToolResult))
    if results and not rest:
        return results
    return [*results, _written(replace(message, parts=rest, role="user" if results else message.role))]


def _written(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": _content_of(message.parts)}
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    if calls:
        written["tool_calls"] = calls
        written["content"] = written["content"] or None
    return written


def _content_of(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, Image) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            content.append({"type": "image_url", "image_url": {"url": part.url}})
    return content
