"""What was said so far, in a body of OpenAI's chat completions?"""

from __future__ import annotations

from dataclasses import replace

from appliance.core.chat import Foreign, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from appliance.dialects import fields, openai_chat_functions
from appliance.dialects.fields import Seen, at, refusal, tellable, wrong

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


def messages(found: fields.Object, seen: Seen) -> tuple[Message, ...]:
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
