"""What does a body of Anthropic's messages ask for?

Rules of this file:

1. Reading is strict about what we act on and blind to the rest: an unknown field travels on in `raw` and `fields`.
2. An explicit null is an absent field.
3. A user's message that holds tool results becomes several of ours: each result is a message of its own.
4. Whatever another dialect cannot say and the answer hangs on is named in `foreign`; what it merely does without, in
   `unsaid`. The tables below say which is which, and why.

How a request is written for a cloud stands in `anthropic_body.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

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
from appliance.dialects.fields import at, refusal, wrong

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
    "thread",  # the conversation itself lies there
    "inference_geo",  # a promise about where the conversation is read, which nobody else gives
)
# Every other field is `unsaid`. Those that are known, and why the answer can do without them:
#   cache_control, diagnostics                           cost and speed, never the words
#   service_tier, speed, billing_policy                  how soon and at what price
#   context_management, compaction                       what the cloud leaves out of a long conversation
#   fallbacks, fallback_credit_token                     who stands in at that cloud; here the next upstream does
#   user_profile_id, workspace_id                        whose account it is, over there
#   top_k                                                narrows the choice of words a little; the box obeys it

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


@dataclass(slots=True)
class _Found:
    """What was met on the way through a body."""

    needs: set[str] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    lossy: set[str] = field(default_factory=set)

    def alien(self, what: str, path: str) -> Foreign:
        """A part only this dialect's clouds understand."""
        self.needs.add(BLOCK_NEEDS.get(what, what))
        self.foreign.append(path)
        return Foreign(what)


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
    found = _Found()
    messages = (*_system(given, found), *_messages(given, found))
    # 0 fills the cloud's cache and writes nothing.
    longest = fields.integer(given, "max_tokens", low=0)
    if longest is None and not counting:
        raise refusal("max_tokens", "max_tokens is missing; say how many tokens the answer may have.")
    tools = _tools(given, found)
    choice, parallel = _tool_choice(given, found)
    format_ = _format(given, found)
    effort = _effort(given, found)
    user = fields.string(fields.mapping(given, "metadata") or {}, "user_id", "metadata")
    found.foreign += [name for name in given if name in MATTERS and given[name] not in (None, [], {})]
    if longest == 0:
        found.foreign.append("max_tokens")
    if messages[-1].role == "assistant":  # the answer is to go on from it
        found.foreign.append(at("messages", len(given["messages"]) - 1))
    said = (SAID | set(MATTERS)) - found.lossy
    return ChatRequest(
        dialect=NAME,
        model=model,
        messages=messages,
        stream=fields.flag(given, "stream") or False,
        include_usage=True,  # this dialect always tells
        max_tokens=longest,
        stop=_stop(given),
        sampling=Sampling(
            temperature=fields.number(given, "temperature", low=0, high=1),
            top_k=fields.integer(given, "top_k", low=0),
            top_p=fields.number(given, "top_p", low=0, high=1),
        ),
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        format=format_,
        effort=effort,
        user=user,
        needs=frozenset(found.needs),
        foreign=tuple(dict.fromkeys(found.foreign)),
        unsaid=tuple(name for name in given if name not in said and given[name] is not None),
        raw=body,
        fields=given,
        headers=headers,
    )


# -------------------------------------------------------------------------------------------------- messages


def _system(given: fields.Object, found: _Found) -> list[Message]:
    content = given.get("system")
    return [] if content is None else _apart("system", _content(content, "system", "system", found))


def _messages(given: fields.Object, found: _Found) -> list[Message]:
    listed = fields.objects(given, "messages")
    if not listed:
        raise refusal("messages", "messages is missing or empty; send at least one message.")
    messages: list[Message] = []
    for index, item in enumerate(listed):
        path = at("messages", index)
        named = fields.string(item, "role", path)
        role = ROLES.get(named or "")
        if role is None:
            what = "is missing" if named is None else "is unknown"
            raise refusal(at(path, "role"), f"{at(path, 'role')} {what}; it must be one of {', '.join(ROLES)}.")
        path = at(path, "content")
        if item.get("content") is None:
            raise refusal(path, f"{path} is missing; send a string or a list of blocks.")
        messages += _apart(role, _content(item["content"], role, path, found)) or [Message(role=role, parts=())]
    return messages


def _apart(role: Role, parts: list[Part | _Answered]) -> list[Message]:
    """The parts as messages: each tool result with the images it gave, and what stands between them."""
    messages: list[Message] = []
    for answered, run in groupby(parts, key=lambda part: isinstance(part, _Answered)):
        if answered:
            messages += [Message(role="tool", parts=part.parts) for part in run if isinstance(part, _Answered)]
        else:
            messages.append(Message(role=role, parts=tuple(part for part in run if not isinstance(part, _Answered))))
    return messages


def _content(content: object, role: Role, path: str, found: _Found) -> list[Part | _Answered]:
    """A string, or a list of blocks, as parts. Empty texts and thinking that was kept back are none."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    if not isinstance(content, list):
        raise wrong(path, "a string or a list of blocks", content)
    parts = [_block(block, role, at(path, index), found) for index, block in enumerate(content)]
    return [part for part in parts if part not in (Text(""), Reasoning(""))]


def _block(block: object, role: Role, path: str, found: _Found) -> Part | _Answered:
    if not isinstance(block, dict):
        raise wrong(path, "an object", block)
    kind = fields.string(block, "type", path)
    if kind is None:
        raise refusal(at(path, "type"), f"{at(path, 'type')} is missing; it says what kind of block this is.")
    if role != SIDES.get(kind, role):
        side = SIDES[kind]
        raise refusal(path, f"{path} is a {kind} block, which only a message of the role {side} can hold.")
    match kind:
        case "text":
            return Text(_required(block, "text", path, "a block of type text holds a string"))
        case "image":
            return _image(block, path, found)
        case "thinking":
            return Reasoning(fields.string(block, "thinking", path) or "")
        case "redacted_thinking":
            return Foreign(kind)  # earlier thinking is not needed to go on, by others as little as by this dialect
        case "tool_use":
            return _call(block, path)
        case "tool_result":
            return _result(block, path, found)
        case _:
            return found.alien(kind, path)


def _image(block: fields.Object, path: str, found: _Found) -> Part:
    where = at(path, "source")
    source = fields.mapping(block, "source", path)
    if source is None:
        raise refusal(where, f"{where} is missing; it says where the image is.")
    match _required(source, "type", where, "it says how the image is given"):
        case "base64":
            kind = _required(source, "media_type", where, "it says what kind of image this is")
            found.needs.add("images")
            return Image(f"data:{kind};base64,{_required(source, 'data', where, 'it holds the image in base64')}")
        case "url":
            found.needs.add("images")
            return Image(_required(source, "url", where, "it is the address of the image"))
        case _:  # a file that lies in the cloud
            return found.alien("image", path)


def _call(block: fields.Object, path: str) -> ToolCall:
    given = fields.mapping(block, "input", path)
    if given is None:
        raise refusal(at(path, "input"), f"{at(path, 'input')} is missing; send the object the tool was called with.")
    return ToolCall(
        id=_required(block, "id", path, "the tool's result refers to it"),
        name=_required(block, "name", path, "it says which tool was called"),
        arguments=fields.compact(given).decode(),
    )


def _result(block: fields.Object, path: str, found: _Found) -> _Answered:
    identity = _required(block, "tool_use_id", path, "it says which call this is the result of")
    content = block.get("content")
    parts = [] if content is None else _content(content, "tool", at(path, "content"), found)
    result = ToolResult(
        id=identity,
        text="".join(part.text for part in parts if isinstance(part, Text)),
        failed=fields.flag(block, "is_error", path) or False,
    )
    return _Answered((result, *(part for part in parts if not isinstance(part, Text | _Answered))))


def _required(owner: fields.Object, key: str, path: str, why: str) -> str:
    value = fields.string(owner, key, path)
    if value is None:
        raise refusal(at(path, key), f"{at(path, key)} is missing; {why}.")
    return value


# ---------------------------------------------------------------------------------------------------- wishes


def _tools(given: fields.Object, found: _Found) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(fields.objects(given, "tools")):
        path = at("tools", index)
        found.needs.add("tools")
        if fields.string(tool, "type", path) not in (None, "custom"):
            found.foreign.append(path)  # the cloud runs it, or has trained for it
            continue
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


def _tool_choice(given: fields.Object, found: _Found) -> tuple[ToolChoice | None, bool | None]:
    """Which tool, and may there be several calls at once?"""
    choice = fields.mapping(given, "tool_choice")
    if choice is None:
        return None, None
    single = fields.flag(choice, "disable_parallel_tool_use", "tool_choice")
    parallel = None if single is None else not single
    kind = CHOICES.get(_required(choice, "type", "tool_choice", "it must be one of " + ", ".join(CHOICES)))
    if kind is None:
        found.foreign.append("tool_choice")
        return None, parallel
    name = _required(choice, "name", "tool_choice", "it says which tool is to be called") if kind == "named" else ""
    return ToolChoice(kind, name), parallel


def _format(given: fields.Object, found: _Found) -> JsonFormat | None:
    config = fields.mapping(given, "output_config") or {}
    if config.keys() - {"effort", "format"}:
        found.lossy.add("output_config")
    # Its first form stood at the top.
    for owner, key, above in ((config, "format", "output_config"), (given, "output_format", "")):
        path = at(above, key)
        wanted = fields.mapping(owner, key, above)
        if wanted is None:
            continue
        found.needs.add("json")
        if _required(wanted, "type", path, "it says what form the answer is to have") != "json_schema":
            found.foreign.append(path)
            return None
        schema = fields.mapping(wanted, "schema", path)
        if schema is None:
            raise refusal(at(path, "schema"), f"{at(path, 'schema')} is missing; send the JSON schema of the answer.")
        return JsonFormat(schema=schema)
    return None


def _effort(given: fields.Object, found: _Found) -> str | None:
    """How much to think: not at all if that was said; else as much as was named; else what the budget amounts to."""
    effort = fields.string(fields.mapping(given, "output_config") or {}, "effort", "output_config")
    thinking = fields.mapping(given, "thinking")
    if thinking is None:
        return effort
    match _required(thinking, "type", "thinking", "it must be enabled, adaptive or disabled"):
        case "disabled":
            return "none"
        case "enabled":
            budget = fields.integer(thinking, "budget_tokens", "thinking", low=0)
            if budget is None:
                where = "thinking.budget_tokens"
                raise refusal(where, f"{where} is missing; say how many tokens may be spent on thinking.")
            return effort or next(word for least, word in BUDGETS if budget >= least)
        case "adaptive":
            return effort
        case _:
            found.lossy.add("thinking")
            return effort


def _stop(given: fields.Object) -> tuple[str, ...]:
    listed = fields.sequence(given, "stop_sequences") or []
    for index, text in enumerate(listed):
        path = at("stop_sequences", index)
        if not isinstance(text, str):
            raise wrong(path, "a string", text)
        if not text:
            raise refusal(path, f"{path} is an empty string; leave it out or give the text to stop at.")
    return tuple(listed)
