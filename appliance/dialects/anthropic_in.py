"""What does a body of Anthropic's messages ask for?

Rules of this file:

1. Reading is strict about the types of what we act on and blind to the rest: an unknown field travels on in `raw` and
   `fields`. A value we cannot use is a doubt, and a cloud of this dialect gets to judge it.
2. An explicit null is an absent field.
3. A user's message that holds tool results becomes several of ours: each result is a message of its own.
4. Whatever another dialect cannot say and the answer hangs on is named in `foreign`; what it merely does without, in
   `unsaid`. The tables below say which is which, and why.

How a request is written for a cloud stands in `anthropic_body.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, cast

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
from appliance.dialects import fields
from appliance.dialects.anthropic_body import NAME, UNSIGNED, count_body, objection, render
from appliance.dialects.fields import Seen, at, refusal, tellable, told, wrong

__all__ = ["NAME", "UNSIGNED", "count_body", "objection", "parse", "parse_count", "render"]

ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
# Blocks that stand on one side of the conversation only: on the other side they would change the meaning.
SIDES = {"tool_use": "assistant", "tool_result": "user"}
# What a block of a type needs of the answerer. Another type needs itself, which nobody but the cloud offers.
BLOCK_NEEDS = {"image": "images", "document": "file"}

# Top-level fields the vocabulary has words for.
SAID = frozenset(
    "model messages system max_tokens stop_sequences temperature top_p stream tools tool_choice thinking output_config"
    " output_format metadata".split()
)
# Top-level fields without which the answer would be another one, or would not be what the caller may have.
MATTERS = (
    "mcp_servers",  # the cloud calls their tools itself
    "container",  # the files and skills the answer works with lie there
    "thread",  # the conversation itself lies there, unless it begins with this request
    "inference_geo",  # a promise about where the conversation is read, which nobody else gives
)
# Every other field is `unsaid`. Those that are known, and why the answer can do without them:
#   cache_control, diagnostics                           cost and speed, never the words
#   service_tier, speed, billing_policy                  how soon and at what price
#   context_management, compaction                       what the cloud leaves out of a long conversation
#   fallbacks, fallback_credit_token                     who stands in at that cloud; here the next upstream does
#   user_profile_id, workspace_id                        whose account it is, over there
#   top_k                                                narrows the choice of words a little; the box obeys it

BEGINS = {"type": "create"}
"""A `thread` that is only begun: everything said so far stands in the request."""

TOOL = frozenset("type name description input_schema strict".split())
# What else a tool may hold, and the answer can do without a word: cost and speed.
TOOL_ASIDE = frozenset(("cache_control", "eager_input_streaming"))
TOOL_DEFAULTS = {"defer_loading": False, "allowed_callers": ["direct"], "input_examples": []}

# From how many tokens of thinking on it is how much effort.
BUDGETS = ((16384, "high"), (4096, "medium"), (0, "low"))
CHOICES: dict[str, Literal["auto", "none", "required", "named"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
    "tool": "named",
}


@dataclass(frozen=True, slots=True)
class _Answered:
    """A tool result among the parts of a user's message: a message of its own in the vocabulary."""

    parts: tuple[Part, ...]


def parse(body: bytes, headers: Headers = ()) -> ChatRequest:
    """The request in `body`. Raises `BackendError` (REQUEST) with one sentence and the path of the field at fault."""
    return _parse(body, headers, counting=False)


def parse_count(body: bytes, headers: Headers = ()) -> ChatRequest:
    """The request whose tokens are to be counted: as `parse`, but nobody said how long the answer may be."""
    return _parse(body, headers, counting=True)


def _parse(body: bytes, headers: Headers, *, counting: bool) -> ChatRequest:
    given = fields.document(body)
    model = fields.string(given, "model")
    if not model:
        raise refusal("model", "model is missing; name the model that should answer.")
    seen = Seen()
    messages = (*_system(given, seen), *_messages(given, seen))
    # 0 fills the cloud's cache and writes nothing.
    longest = fields.integer(given, "max_tokens", seen, low=0, matters=True)
    if given.get("max_tokens") is None and not counting:
        raise refusal("max_tokens", "max_tokens is missing; say how many tokens the answer may have.")
    tools = _tools(given, seen)
    choice, parallel = _tool_choice(given, seen)
    format_ = _format(given, seen)
    effort = _effort(given, seen)
    user = fields.string(fields.mapping(given, "metadata") or {}, "user_id", "metadata")
    seen.foreign += [name for name in given if name in MATTERS and given[name] not in (None, [], {}, BEGINS)]
    if "thread" in seen.foreign:
        seen.needs.add("thread")
    elif given.get("thread"):
        seen.lost.add("thread")
    if longest == 0:
        seen.foreign.append("max_tokens")
    if messages[-1].role == "assistant":  # the answer is to go on from it
        seen.foreign.append(at("messages", len(given["messages"]) - 1))
    sampling = Sampling(
        temperature=fields.number(given, "temperature", seen, low=0, high=1),
        top_k=fields.integer(given, "top_k", seen, low=0),
        top_p=fields.number(given, "top_p", seen, low=0, high=1),
    )
    stop = _stop(given, seen)
    said = (SAID | set(MATTERS)) - seen.lost
    return ChatRequest(
        dialect=NAME,
        model=model,
        messages=messages,
        stream=fields.flag(given, "stream") or False,
        include_usage=True,  # this dialect always tells
        max_tokens=longest,
        stop=stop,
        sampling=sampling,
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        format=format_,
        effort=effort,
        user=user,
        needs=frozenset(seen.needs),
        foreign=tuple(dict.fromkeys(seen.foreign)),
        unsaid=told(name for name in given if name not in said and given[name] is not None),
        doubts=tuple(seen.doubts),
        raw=body,
        fields=given,
        headers=headers,
    )


# -------------------------------------------------------------------------------------------------- messages


def _system(given: fields.Object, seen: Seen) -> list[Message]:
    content = given.get("system")
    return [] if content is None else _apart("system", _content(content, "system", "system", seen))


def _alien(what: str, path: str, seen: Seen) -> Foreign:
    """A part only this dialect's clouds understand."""
    seen.needs.add(BLOCK_NEEDS.get(what) or tellable(what))
    seen.foreign.append(path)
    return Foreign(tellable(what))


def _messages(given: fields.Object, seen: Seen) -> list[Message]:
    listed = fields.objects(given, "messages")
    if not listed:
        raise refusal("messages", "messages is missing or empty; send at least one message.")
    messages: list[Message] = []
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
            messages.append(Message(role=role, parts=(Text(content),) if content else ()))
        else:
            messages += _apart(role, _content(content, side, path, seen)) or [Message(role=role, parts=())]
    return messages


def _apart(role: Role, parts: list[Part | _Answered]) -> list[Message]:
    """The parts as messages: each tool result with the images it gave, and what stands between them."""
    if len(parts) == 1 and not isinstance(part := parts[0], _Answered):  # most of them
        return [Message(role=role, parts=(part,))]
    messages: list[Message] = []
    for answered, run in groupby(parts, key=_is_answered):
        if answered:
            messages += [Message(role="tool", parts=part.parts) for part in run if isinstance(part, _Answered)]
        else:
            messages.append(Message(role=role, parts=cast("tuple[Part, ...]", tuple(run))))
    return messages


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
            return Text(_required(block, "text", path, "a block of type text holds a string"))
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
    match _required(source, "type", where, "it says how the image is given"):
        case "base64":
            kind = _required(source, "media_type", where, "it says what kind of image this is")
            seen.needs.add("images")
            return Image(f"data:{kind};base64,{_required(source, 'data', where, 'it holds the image in base64')}")
        case "url":
            seen.needs.add("images")
            return Image(_required(source, "url", where, "it is the address of the image"))
        case _:  # a file that lies in the cloud
            return _alien("image", path, seen)


def _call(block: fields.Object, path: str) -> ToolCall:
    given = fields.mapping(block, "input", path)
    if given is None:
        raise refusal(at(path, "input"), f"{at(path, 'input')} is missing; send the object the tool was called with.")
    return ToolCall(
        id=_required(block, "id", path, "the tool's result refers to it"),
        name=_required(block, "name", path, "it says which tool was called"),
        arguments=fields.text_of(given),
    )


def _result(block: fields.Object, path: str, seen: Seen) -> _Answered:
    identity = _required(block, "tool_use_id", path, "it says which call this is the result of")
    content = block.get("content")
    parts = [] if content is None else _content(content, "tool", at(path, "content"), seen)
    result = ToolResult(
        id=identity,
        text="\n".join(part.text for part in parts if isinstance(part, Text)),
        failed=fields.flag(block, "is_error", path) or False,
    )
    return _Answered((result, *(part for part in parts if not isinstance(part, Text | _Answered))))


def _required(owner: fields.Object, key: str, path: str, why: str) -> str:
    value = fields.string(owner, key, path)
    if value is None:
        raise refusal(at(path, key), f"{at(path, key)} is missing; {why}.")
    return value


# ---------------------------------------------------------------------------------------------------- wishes


def _tools(given: fields.Object, seen: Seen) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(fields.objects(given, "tools")):
        path = at("tools", index)
        seen.needs.add("tools")
        if fields.string(tool, "type", path) not in (None, "custom"):
            seen.foreign.append(path)  # the cloud runs it, or has trained for it
            continue
        if any(tool[key] not in (None, TOOL_DEFAULTS.get(key)) for key in tool.keys() - TOOL - TOOL_ASIDE):
            seen.lost.add("tools")
        schema = fields.mapping(tool, "input_schema", path)
        if schema is None:
            where = at(path, "input_schema")
            raise refusal(where, f"{where} is missing; send a JSON schema of what the tool is called with.")
        tools.append(
            Tool(
                name=_required(tool, "name", path, "a tool needs a name"),
                description=fields.string(tool, "description", path) or "",
                parameters=schema,
                strict=fields.flag(tool, "strict", path),
            )
        )
    return tuple(tools)


def _tool_choice(given: fields.Object, seen: Seen) -> tuple[ToolChoice | None, bool | None]:
    """Which tool, and may there be several calls at once?"""
    choice = fields.mapping(given, "tool_choice")
    if choice is None:
        return None, None
    single = fields.flag(choice, "disable_parallel_tool_use", "tool_choice")
    parallel = None if single is None else not single
    kind = CHOICES.get(_required(choice, "type", "tool_choice", "it must be one of " + ", ".join(CHOICES)))
    if kind is None:
        seen.foreign.append("tool_choice")
        return None, parallel
    name = _required(choice, "name", "tool_choice", "it says which tool is to be called") if kind == "named" else ""
    return ToolChoice(kind, name), parallel


def _format(given: fields.Object, seen: Seen) -> JsonFormat | None:
    config = fields.mapping(given, "output_config") or {}
    if config.keys() - {"effort", "format"}:
        seen.lost.add("output_config")
    # Its first form stood at the top.
    for owner, key, above in ((config, "format", "output_config"), (given, "output_format", "")):
        path = at(above, key)
        wanted = fields.mapping(owner, key, above)
        if wanted is None:
            continue
        seen.needs.add("json")
        if _required(wanted, "type", path, "it says what form the answer is to have") != "json_schema":
            seen.foreign.append(path)
            return None
        schema = fields.mapping(wanted, "schema", path)
        if schema is None:
            raise refusal(at(path, "schema"), f"{at(path, 'schema')} is missing; send the JSON schema of the answer.")
        return JsonFormat(schema=schema)
    return None


def _effort(given: fields.Object, seen: Seen) -> str | None:
    """How much to think: not at all if that was said; else as much as was named; else what the budget amounts to."""
    effort = fields.string(fields.mapping(given, "output_config") or {}, "effort", "output_config")
    thinking = fields.mapping(given, "thinking")
    if thinking is None:
        return effort
    match _required(thinking, "type", "thinking", "it must be enabled, adaptive or disabled"):
        case "disabled":
            return "none"
        case "enabled":
            budget = fields.integer(thinking, "budget_tokens", seen, "thinking", low=0)
            if thinking.get("budget_tokens") is None:
                flaw = "is missing; say how many tokens may be spent on thinking"
                seen.unusable("thinking.budget_tokens", flaw, matters=False)
            if budget is None:
                return effort
            return effort or next(word for least, word in BUDGETS if budget >= least)
        case "adaptive":
            return effort
        case _:
            seen.lost.add("thinking")
            return effort


def _stop(given: fields.Object, seen: Seen) -> tuple[str, ...]:
    listed = fields.sequence(given, "stop_sequences") or []
    for index, text in enumerate(listed):
        path = at("stop_sequences", index)
        if not isinstance(text, str):
            raise wrong(path, "a string", text)
        if not text:  # nothing to stop at: nothing is lost
            seen.doubt(path, "is an empty string; leave it out or give the text to stop at")
    return tuple(text for text in listed if text)
