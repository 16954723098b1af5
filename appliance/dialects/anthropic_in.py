"""What does a body of Anthropic's messages ask for?

Rules of this file:

1. Reading is strict about the types of what we act on and blind to the rest: an unknown field travels on in `raw` and
   `fields`. A value we cannot use is a doubt, and a cloud of this dialect gets to judge it.
2. An explicit null is an absent field.
3. Whatever another dialect cannot say and the answer hangs on is named in `foreign`; what it merely does without, in
   `unsaid`. The tables below say which is which, and why.

How a request is written for a cloud stands in `anthropic_body.py`.
"""

from __future__ import annotations

from typing import Literal

from appliance.core.chat import ChatRequest, Headers, JsonFormat, Sampling, Tool, ToolChoice
from appliance.dialects import anthropic_messages, fields
from appliance.dialects.anthropic_errors import NAME
from appliance.dialects.fields import Seen, at, refusal, required, told, wrong

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
    messages = (*anthropic_messages.system(given, seen), *anthropic_messages.messages(given, seen))
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
                name=required(tool, "name", path, "a tool needs a name"),
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
    kind = CHOICES.get(required(choice, "type", "tool_choice", "it must be one of " + ", ".join(CHOICES)))
    if kind is None:
        seen.foreign.append("tool_choice")
        return None, parallel
    name = required(choice, "name", "tool_choice", "it says which tool is to be called") if kind == "named" else ""
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
        if required(wanted, "type", path, "it says what form the answer is to have") != "json_schema":
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
    match required(thinking, "type", "thinking", "it must be enabled, adaptive or disabled"):
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
