"""What does a body of OpenAI's chat completions ask for?

Rules of this file:

1. Reading is strict about the types of what we act on and blind to the rest: an unknown field travels on in `raw` and
   `fields`. A value we cannot use is a doubt, and a cloud of this dialect gets to judge it.
2. An explicit null is an absent field.
3. What clouds of other dialects cannot be told is noted on the way: `foreign` is no mistake here, only there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from appliance.core import gbnf
from appliance.core.chat import (
    ChatRequest,
    Foreign,
    Headers,
    Image,
    JsonFormat,
    Message,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from appliance.dialects import fields, openai_chat_fields, openai_chat_functions
from appliance.dialects.fields import Seen, at, refusal, tellable, wrong

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
CHOICES_AT_MOST = 128
OTHERS_AT_MOST = 20

# What the vocabulary says of a tool. The mark of a cache is known from others, and costs no words.
TOOL = frozenset(("type", "function", "cache_control"))
FUNCTION = frozenset(("name", "description", "parameters", "strict", "cache_control"))

# As a tool's arguments are always an object.
ANY_ARGUMENTS = {"type": "object"}

CHOICES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Mistral's word
}


# --------------------------------------------------------------------------------------------------- reading


def parse(body: bytes, headers: Headers = ()) -> ChatRequest:
    """The request in `body`. Raises `BackendError` (REQUEST) with one sentence and the path of the field at fault."""
    found = fields.document(body)
    model = fields.string(found, "model")
    if not model:
        raise refusal("model", "model is missing; name the model that should answer.")
    seen = Seen()
    messages = _messages(found, seen)
    choices = _choices(found, seen)
    old = openai_chat_functions.old(found)
    tools = openai_chat_functions.tools(found, seen) if old else _tools(found, seen)
    choice = openai_chat_functions.choice(found, seen) if old else _choice(found, seen)
    form = _format(found, seen)
    logprobs = _logprobs(found, seen)
    grammar = _grammar(found, seen)
    user = found.get("safety_identifier") or found.get("user")
    stream_options = fields.mapping(found, "stream_options") or {}
    longest = _limit(found, "max_tokens", seen)
    newer = _limit(found, "max_completion_tokens", seen)
    sampling = _sampling(found, seen)
    stop = _stop(found, seen)
    return ChatRequest(
        dialect=NAME,
        model=model,
        messages=messages,
        stream=fields.flag(found, "stream") or False,
        include_usage=fields.flag(stream_options, "include_usage", "stream_options") or False,
        max_tokens=newer or longest,
        stop=stop,
        sampling=sampling,
        n=choices,
        tools=_among(found, tools),
        tool_choice=choice,
        parallel_tools=False if old else fields.flag(found, "parallel_tool_calls"),
        format=form,
        grammar=grammar,
        logprobs=logprobs,
        effort=openai_chat_fields.effort(found),
        user=user if isinstance(user, str) and user else None,
        needs=frozenset(seen.needs),
        foreign=(*seen.foreign, *openai_chat_fields.foreign(found)),
        unsaid=openai_chat_fields.unsaid(found, seen.lost),
        doubts=tuple(seen.doubts),
        raw=body,
        fields=found,
        headers=headers,
    )


def _messages(found: fields.Object, seen: Seen) -> tuple[Message, ...]:
    given = fields.objects(found, "messages")
    if not given:
        raise refusal("messages", "messages is missing or empty; send at least one message.")
    ids = openai_chat_functions.Ids()
    return tuple(_message(item, at("messages", index), seen, ids) for index, item in enumerate(given))


def _message(item: fields.Object, path: str, seen: Seen, ids: openai_chat_functions.Ids) -> Message:
    named = fields.string(item, "role", path)
    role = ROLES.get(named or "")
    if role is None:
        known, where = f"it must be one of {', '.join(ROLES)}", at(path, "role")
        if named is None:
            raise refusal(where, f"{where} is missing; {known}.")
        seen.unusable(where, f"is unknown; {known}", matters=True)
        return Message(role="user", parts=_content(item, path, seen))
    parts = _content(item, path, seen)
    if role == "tool":
        key = "name" if named == "function" else "tool_call_id"
        identity = fields.string(item, key, path)
        if named == "function" and identity is not None:
            identity = ids.answered(identity)
        if identity is None:  # many local servers do without
            seen.unusable(at(path, key), "is missing; it says which call this is the result of", matters=True)
        text = "\n".join(part.text for part in parts if isinstance(part, Text))
        others = tuple(part for part in parts if not isinstance(part, Text))
        return Message(role=role, parts=(ToolResult(id=identity or "", text=text), *others))
    if role == "assistant":
        thought = fields.string(item, "reasoning_content", path)
        refused = fields.string(item, "refusal", path)
        if item.get("audio") is not None:
            seen.foreign.append(at(path, "audio"))
        said = (*parts, Text(refused)) if refused else parts
        parts = (*((Reasoning(thought),) if thought else ()), *said, *_calls(item, path, seen, ids))
    elif item.get("content") is None:
        seen.doubt(at(path, "content"), "is missing; send a string or a list of parts")
    return Message(role=role, parts=parts)


def _content(item: fields.Object, path: str, seen: Seen) -> tuple[Part, ...]:
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
        if isinstance(part, str):  # vLLM takes that
            parts.append(Text(part))
            continue
        if not isinstance(part, dict):
            raise wrong(where, "an object", part)
        named = fields.string(part, "type", where)
        if named is None:  # and that
            seen.unusable(at(where, "type"), "is missing; it says what kind of part this is", matters=True)
            parts.append(Foreign(fields.UNNAMED))
            continue
        if named in ("text", "refusal"):
            text = fields.string(part, named, where)
            if text is None:
                raise refusal(
                    at(where, named), f"{at(where, named)} is missing; a part of type {named} holds a string."
                )
            parts.append(Text(text))
            continue
        seen.needs.add(PART_NEEDS.get(named) or tellable(named))
        if named == "image_url":
            parts.append(_image(part, where))
        else:
            parts.append(Foreign(tellable(named)))
            seen.foreign.append(where)
    return tuple(parts)


def _image(part: fields.Object, path: str) -> Image:
    if isinstance(part.get("image_url"), str):  # not OpenAI's shape, but many send it and many accept it
        return Image(part["image_url"])
    url = fields.string(fields.mapping(part, "image_url", path) or {}, "url", at(path, "image_url"))
    if url is None:
        where = at(path, "image_url.url")
        raise refusal(where, f"{where} is missing; give the image's address or a data URL.")
    return Image(url)


def _calls(item: fields.Object, path: str, seen: Seen, ids: openai_chat_functions.Ids) -> tuple[ToolCall, ...]:
    calls = []
    for index, call in enumerate(fields.objects(item, "tool_calls", path)):
        where = at(at(path, "tool_calls"), index)
        if (custom := fields.mapping(call, "custom", where)) is not None:
            body, text, where_body = custom, "input", at(where, "custom")
            seen.foreign.append(where)  # its input is text, not arguments
        else:
            body, text, where_body = fields.mapping(call, "function", where) or {}, "arguments", at(where, "function")
        calls.append(_call(fields.string(call, "id", where) or "", body, text, where_body))
    if (old := fields.mapping(item, "function_call", path)) is not None:
        only = _call("", old, "arguments", at(path, "function_call"))
        calls.append(replace(only, id=ids.called(only.name)))
    return tuple(calls)


def _call(identity: str, body: fields.Object, text: str, path: str) -> ToolCall:
    name = fields.string(body, "name", path)
    if not name:
        raise refusal(at(path, "name"), f"{at(path, 'name')} is missing; it says which tool was called.")
    said = body.get(text)
    # An object instead of its text is not OpenAI's shape, but llama.cpp accepts it.
    arguments = fields.text_of(said) if isinstance(said, dict) else fields.string(body, text, path) or ""
    return ToolCall(id=identity, name=name, arguments=arguments)


def _choices(found: fields.Object, seen: Seen) -> int:
    """How many answers; of more than there can be, as many as there can be."""
    given = fields.integer(found, "n", seen, low=1, high=CHOICES_AT_MOST, matters=True)
    if given is None:
        given = CHOICES_AT_MOST if (found.get("n") or 0) > CHOICES_AT_MOST else 1
    if given > 1:
        seen.needs.add("n")
    return given


def _limit(found: fields.Object, key: str, seen: Seen) -> int | None:
    """How long the answer may be. LM Studio, llama.cpp and others write "without limit" as -1."""
    value = found.get(key)
    if not isinstance(value, bool) and value == -1:
        return None
    return fields.integer(found, key, seen, low=1, matters=True)


def _stop(found: fields.Object, seen: Seen) -> tuple[str, ...]:
    given = found.get("stop")
    if given is None:
        return ()
    listed = given if isinstance(given, list) else [given]
    for index, text in enumerate(listed):
        path = at("stop", index) if isinstance(given, list) else "stop"
        if not isinstance(text, str):
            raise wrong(path, "a string" if isinstance(given, list) else "a string or a list of strings", text)
        if not text:  # nothing to stop at: nothing is lost
            seen.doubt(path, "is an empty string; leave it out or give the text to stop at")
    return tuple(text for text in listed if text)


def _sampling(found: fields.Object, seen: Seen) -> Sampling:
    repeat = fields.number(found, "repeat_penalty", seen, low=0)
    # OpenRouter and vLLM write it out.
    written_out = fields.number(found, "repetition_penalty", seen, low=0)
    return Sampling(
        temperature=fields.number(found, "temperature", seen, low=0, high=2),
        top_k=fields.integer(found, "top_k", seen, low=-1),
        top_p=fields.number(found, "top_p", seen, low=0, high=1),
        min_p=fields.number(found, "min_p", seen, low=0, high=1),
        frequency_penalty=fields.number(found, "frequency_penalty", seen, low=-2, high=2),
        presence_penalty=fields.number(found, "presence_penalty", seen, low=-2, high=2),
        repeat_penalty=written_out if repeat is None else repeat,
        seed=fields.integer(found, "seed", seen, low=-SEEDS, high=SEEDS - 1),
        logit_bias=_biases(found, seen),
    )


def _biases(found: fields.Object, seen: Seen) -> tuple[tuple[int, float], ...]:
    if isinstance(found.get("logit_bias"), list):  # llama.cpp takes a list of pairs too, and words for ids
        seen.unusable("logit_bias", "must be an object, not a list", matters=True)
        return ()
    given = fields.mapping(found, "logit_bias") or {}
    biases = []
    for token in given:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            flaw = 'has a key that is not a token id; keys are ids such as "1234"'
            seen.unusable("logit_bias", flaw, matters=True)
            return ()
        bias = fields.number(given, token, seen, "logit_bias", low=-100, high=100, matters=True)
        if bias is not None:
            biases.append((int(token), bias))
    return tuple(biases)


def _tools(found: fields.Object, seen: Seen) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(fields.objects(found, "tools")):
        path = at("tools", index)
        seen.needs.add("tools")
        if fields.string(tool, "type", path) not in (None, "function"):
            seen.foreign.append(path)
            continue
        path = at(path, "function")
        function = fields.mapping(tool, "function", at("tools", index)) or {}
        name = fields.string(function, "name", path)
        if not name:
            raise refusal(at(path, "name"), f"{at(path, 'name')} is missing; a tool needs a name.")
        if any(tool[key] is not None for key in tool.keys() - TOOL) or any(
            function[key] is not None for key in function.keys() - FUNCTION
        ):
            seen.lost.add("tools")
        described, strict = function.get("description"), function.get("strict")
        schema = fields.schema(function, "parameters", seen, path, anything=ANY_ARGUMENTS)
        tools.append(
            Tool(
                name=name,
                description=described if isinstance(described, str) else "",
                parameters=schema or {},
                strict=strict if isinstance(strict, bool) else None,
            )
        )
    if tools and found.get("functions"):
        seen.doubt("functions", "cannot stand beside tools; leave one of them out")
    return tuple(tools)


def _choice(found: fields.Object, seen: Seen) -> ToolChoice | None:
    given = found.get("tool_choice")
    if given is None:
        return None
    if isinstance(given, str):
        if (kind := CHOICES.get(given)) is not None:
            return ToolChoice(kind)
    elif isinstance(given, dict):
        function = given.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and given.get("type") in (None, "function"):
            return ToolChoice("named", name)
        if _allowed(found) is not None:
            return ToolChoice(CHOICES[given["allowed_tools"]["mode"]])
    else:
        raise wrong("tool_choice", "a string or an object", given)
    seen.foreign.append("tool_choice")
    return None


def _allowed(found: fields.Object) -> frozenset[str] | None:
    """The only ones of the tools that may be called now, if that is said. They are all told of to keep a cache warm."""
    match found.get("tool_choice"):
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required", "tools": [*listed]}}:
            names = [_named(one) for one in listed]
            return frozenset(name for name in names if name) if all(names) else None
    return None


def _named(tool: object) -> str | None:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    return None


def _among(found: fields.Object, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    allowed = _allowed(found)
    return tools if allowed is None else tuple(tool for tool in tools if tool.name in allowed)


def _format(found: fields.Object, seen: Seen) -> JsonFormat | None:
    wanted = fields.mapping(found, "response_format") or {}
    named = fields.string(wanted, "type", "response_format")
    if named in (None, "text"):
        return None
    seen.needs.add("json")
    path = "response_format"
    if named not in ("json_schema", "json_object"):
        seen.unusable(at(path, "type"), "is unknown; it must be one of text, json_object, json_schema", matters=True)
        return None
    described: object = wanted  # llama.cpp takes a schema with "json_object" too
    if named == "json_schema":
        path = at(path, named)
        described = wanted.get(named)
    if not isinstance(described, dict):
        seen.unusable(path, f"must be an object with a schema, not {fields.kind(described)}", matters=True)
        return None
    name, strict = described.get("name"), described.get("strict")
    schema = fields.schema(described, "schema", seen, path, anything={})
    if schema is None and described.get("schema") is not None:
        return None
    return JsonFormat(
        schema=schema,
        name=name if isinstance(name, str) else "",
        strict=strict if isinstance(strict, bool) else None,
    )


def _grammar(found: fields.Object, seen: Seen) -> str | None:
    """llama.cpp's own field, which no cloud knows; an empty one is none."""
    given = found.get("grammar")
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        seen.doubt("grammar", "must be a grammar in GBNF, as text")
        return None
    try:
        gbnf.read(given)
    except gbnf.GrammarError as error:
        seen.doubt("grammar", str(error))
        return None
    if found.get("tools") or found.get("response_format"):
        seen.doubt("grammar", "cannot be kept to together with tools or response_format")
        return None
    return given


def _logprobs(found: fields.Object, seen: Seen) -> int | None:
    """How many other tokens are to be told of beside each."""
    logprobs = found.get("logprobs")
    if isinstance(logprobs, int) and not isinstance(logprobs, bool):  # Together counts them here
        seen.doubt("logprobs", "must be true or false, not a number")
    elif logprobs is not None and not isinstance(logprobs, bool):
        raise wrong("logprobs", "true or false", logprobs)
    others = fields.integer(found, "top_logprobs", seen, low=0, high=OTHERS_AT_MOST, matters=True)
    if "audio" in (fields.sequence(found, "modalities") or []):
        seen.needs.add("audio")
    if not logprobs and not others:
        return None
    seen.needs.add("logprobs")
    return others or 0
