"""What was said so far, in a body of Anthropic's messages?

A user's message that holds tool results becomes several of ours: each result is a message of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import cast

from appliance.core.chat import Foreign, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from appliance.dialects import fields
from appliance.dialects.fields import Seen, at, refusal, required, tellable, wrong

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
# Blocks that stand on one side of the conversation only: on the other side they would change the meaning.
SIDES = {"tool_use": "assistant", "tool_result": "user"}
# What a block of a type needs of the answerer. Another type needs itself, which nobody but the cloud offers.
BLOCK_NEEDS = {"image": "images", "document": "file"}


@dataclass(frozen=True, slots=True)
class _Answered:
    """A tool result among the parts of a user's message: a message of its own in the vocabulary."""

    parts: tuple[Part, ...]


def system(given: fields.Object, seen: Seen) -> list[Message]:
    content = given.get("system")
    return [] if content is None else _apart("system", _content(content, "system", "system", seen))


def _alien(what: str, path: str, seen: Seen) -> Foreign:
    """A part only this dialect's clouds understand."""
    seen.needs.add(BLOCK_NEEDS.get(what) or tellable(what))
    seen.foreign.append(path)
    return Foreign(tellable(what))


def messages(given: fields.Object, seen: Seen) -> list[Message]:
    listed = fields.objects(given, "messages")
    if not listed:
        raise refusal("messages", "messages is missing or empty; send at least one message.")
    read: list[Message] = []
    for index, item in enumerate(listed):
        path = f"messages[{index}]"
        named = fields.string(item, "role", path)
        side = role = ROLES.get(named or "")
        if role is None:
            known, where = f"it must be one of {', '.join(ROLES)}", at(path, "role")
            if named is None:
                raise refusal(where, f"{where} is missing; {known}.")
            seen.unusable(where, f"is unknown; {known}", matters=True)
            role = "user"
        path = f"{path}.content"
        content = item.get("content")
        if content is None:
            raise refusal(path, f"{path} is missing; send a string or a list of blocks.")
        if isinstance(content, str):
            read.append(Message(role=role, parts=(Text(content),) if content else ()))
        else:
            read += _apart(role, _content(content, side, path, seen)) or [Message(role=role, parts=())]
    return read


def _apart(role: Role, parts: list[Part | _Answered]) -> list[Message]:
    """The parts as messages: each tool result with the images it gave, and what stands between them."""
    if len(parts) == 1 and not isinstance(part := parts[0], _Answered):  # most of them
        return [Message(role=role, parts=(part,))]
    read: list[Message] = []
    for answered, run in groupby(parts, key=_is_answered):
        if answered:
            read += [Message(role="tool", parts=part.parts) for part in run if isinstance(part, _Answered)]
        else:
            read.append(Message(role=role, parts=cast("tuple[Part, ...]", tuple(run))))
    return read


def _is_answered(part: Part | _Answered) -> bool:
    return isinstance(part, _Answered)


def _content(content: object, side: Role | None, path: str, seen: Seen) -> list[Part | _Answered]:
    """A string, or a list of blocks, as parts. Empty texts and thinking that was kept back are none. `side`: who says
    it, if we know."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise wrong(path, "a string or a list of blocks", content)
    parts = [_block(block, side, f"{path}[{index}]", seen) for index, block in enumerate(content)]
    return [part for part in parts if not isinstance(part, Text | Reasoning) or part.text]


def _block(block: object, side: Role | None, path: str, seen: Seen) -> Part | _Answered:
    if not isinstance(block, dict):
        raise wrong(path, "an object", block)
    kind = fields.string(block, "type", path)
    if kind is None:
        raise refusal(at(path, "type"), f"{at(path, 'type')} is missing; it says what kind of block this is.")
    if side is not None and side != (needed := SIDES.get(kind, side)):
        raise refusal(path, f"{path} is a {kind} block, which only a message of the role {needed} can hold.")
    match kind:
        case "text":
            return Text(required(block, "text", path, "a block of type text holds a string"))
        case "image":
            return _image(block, path, seen)
        case "thinking":
            return Reasoning(fields.string(block, "thinking", path) or "")
        case "redacted_thinking":
            return Foreign(kind)  # earlier thinking is not needed to go on, by others as little as by this dialect
        case "tool_use":
            return _call(block, path)
        case "tool_result":
            return _result(block, path, seen)
        case _:
            return _alien(kind, path, seen)


def _image(block: fields.Object, path: str, seen: Seen) -> Part:
    where = at(path, "source")
    source = fields.mapping(block, "source", path)
    if source is None:
        raise refusal(where, f"{where} is missing; it says where the image is.")
    match required(source, "type", where, "it says how the image is given"):
        case "base64":
            kind = required(source, "media_type", where, "it says what kind of image this is")
            seen.needs.add("images")
            return Image(f"data:{kind};base64,{required(source, 'data', where, 'it holds the image in base64')}")
        case "url":
            seen.needs.add("images")
            return Image(required(source, "url", where, "it is the address of the image"))
        case _:  # a file that lies in the cloud
            return _alien("image", path, seen)


def _call(block: fields.Object, path: str) -> ToolCall:
    given = fields.mapping(block, "input", path)
    if given is None:
        raise refusal(at(path, "input"), f"{at(path, 'input')} is missing; send the object the tool was called with.")
    return ToolCall(
        id=required(block, "id", path, "the tool's result refers to it"),
        name=required(block, "name", path, "it says which tool was called"),
        arguments=fields.text_of(given),
    )


def _result(block: fields.Object, path: str, seen: Seen) -> _Answered:
    identity = required(block, "tool_use_id", path, "it says which call this is the result of")
    content = block.get("content")
    parts = [] if content is None else _content(content, "tool", at(path, "content"), seen)
    result = ToolResult(
        id=identity,
        text="\n".join(part.text for part in parts if isinstance(part, Text)),
        failed=fields.flag(block, "is_error", path) or False,
    )
    return _Answered((result, *(part for part in parts if not isinstance(part, Text | _Answered))))
