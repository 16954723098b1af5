"""How is a request written for a cloud of Anthropic's messages?

Rules of this file:

1. A request of this dialect goes out as the client's own bytes. If only the model goes by another name there, only the
   bytes of its value change, and so if a whole answer is asked for as a stream. A body is written anew only when
   something else has to change.
2. Thinking that we closed ourselves has no valid signature: it is taken out of the history before a cloud sees it.
   Where Anthropic insists on thinking before a call that is being answered, and somebody else has made the call, it is
   asked not to think: a turn is thought about from its beginning or not at all.
3. A committed answer is an assistant turn at the end, to the letter. Anthropic goes on from none while it is to think,
   so that is no longer asked for; nor from one that ends in white space, but cutting that off would repeat it in the
   answer. There the cloud may refuse (others of this dialect do not), and the refusal is ours, not the caller's.
4. A request of another dialect is written from the vocabulary alone, so that Anthropic takes it: system texts at the
   top, blank texts and empty messages left out, turns of one side joined, tool results first, a user's turn at either
   end.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any
from urllib.parse import unquote_to_bytes

from appliance.core.chat import ChatRequest, Image, Message, Part, Text, ToolCall, ToolResult
from appliance.core.seams import PLAIN, Quirks
from appliance.dialects import fields
from appliance.dialects.anthropic_errors import NAME
from appliance.dialects.ids import fitting_id
from appliance.dialects.rewrite import with_members, with_model

UNSIGNED = "appliance-unsigned"
"""What the signature of a thinking block begins with that was closed or made here."""
NOTHING_SAID = "..."
"""The user's turn that Anthropic insists on where another dialect needs none."""

_ELSEWHERE = re.compile(r"(?!toolu_).*|toolu_[0-9a-f]{24}", re.DOTALL)

# The first that fits. Anthropic must be told a limit, and refuses one that is more than the model can write.
LIMITS = (("*claude-3-5*", 8192), ("*claude-3-7*", 32000), ("*claude-3*", 4096), ("*", 32000))
# Claude took temperature, top_p and top_k up to 4.6. Later ones refuse the fields; other makers' models take them.
TEMPERATE = ("*claude-[23i]*", "*-4", "*-4[@:]*", "*-4-20*", "*-4[-.][0-6]", "*-4[-.][0-6][-@:]*")
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
EFFORT_FIELDS = ("reasoning_effort", "reasoning")
"""Where others say it."""
CHOICES = {"auto": "auto", "required": "any", "none": "none", "named": "tool"}


def objection(request: ChatRequest) -> str | None:
    """What of a request of another dialect cannot be said in this one, and matters."""
    if request.n > 1:
        return "n"
    if "logprobs" in request.needs:
        return "logprobs"
    if "audio" in request.needs:
        return "modalities"
    if request.format is not None and request.format.schema is None:
        return "response_format"
    if request.sampling.logit_bias:  # token ids of another model
        return "logit_bias"
    if any(not text.strip() for text in request.stop):
        return "stop"
    return None


def render(request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> bytes:
    """The body that asks a cloud of this dialect for `request`, under the name the cloud has for the model."""
    if request.dialect != NAME or not request.raw:
        return fields.compact(_built(request, model, quirks))
    return _own(request, model, request.committed, _changes(request), quirks)


def losses(request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> tuple[str, ...]:
    """What `render` leaves out or changes because this model would refuse it."""
    if request.dialect == NAME:
        return ("thinking",) if request.raw and _unthinkable(request, quirks) else ()
    sampling, said = request.sampling, _sampling(request, model)
    lost: list[str] = []
    for key, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p)):
        if value is not None and value != 1 and said.get(key) != value:  # 1 is what Anthropic does by itself
            lost.append(key)
    if (sampling.top_k or 0) > 0 and "top_k" not in said:
        lost.append("top_k")
    told = _can_be_told(model, quirks) and (request.effort in EFFORTS or request.effort == "none")
    if request.effort is not None and not told:
        lost.append(next((key for key in EFFORT_FIELDS if request.fields.get(key) is not None), "effort"))
    return tuple(lost)


def count_body(request: ChatRequest, model: str) -> bytes:
    """The body that asks a cloud of this dialect how many tokens the client's request has."""
    return _own(request, model, None, {}, PLAIN)


# ------------------------------------------------------------------------------------- the client's own words


def _own(
    request: ChatRequest, model: str, committed: Message | None, changes: Mapping[str, Any], quirks: Quirks
) -> bytes:
    given: Sequence[Mapping[str, Any]] = request.fields["messages"]
    messages = given
    if UNSIGNED.encode() in request.raw:
        messages = _signed(given)
    if committed is not None:
        messages = _continued(messages, _blocks(committed.parts, exact=True))
    unthinking = committed is not None or _unthinkable(request, quirks)
    if messages is given and changes.keys() <= {"stream"} and not unthinking:
        raw = with_members(request.raw, changes) if changes else request.raw
        return raw if request.fields.get("model") == model else with_model(raw, model)
    body = {**request.fields, **changes, "messages": messages, "model": model}
    return fields.compact(_unthinking(body) if unthinking else body)


def _changes(request: ChatRequest) -> dict[str, Any]:
    """The top-level fields in which `request` has moved away from what the client wrote."""
    changes: dict[str, Any] = {}
    if request.stream != bool(request.fields.get("stream")):
        changes["stream"] = request.stream
    if request.max_tokens is not None and request.max_tokens != request.fields.get("max_tokens"):
        changes["max_tokens"] = request.max_tokens
    return changes


def _signed(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The messages without thinking of ours; the very same if there was none. What is left empty goes too."""
    kept: list[Mapping[str, Any]] = []
    changed = False
    for message in messages:
        content = message["content"]
        blocks = [block for block in content if not _unsigned(block)] if isinstance(content, list) else content
        if len(blocks) == len(content):
            kept.append(message)
            continue
        changed = True
        if blocks:
            kept.append({**message, "content": blocks})
    return kept if changed else messages


def _unsigned(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "thinking" and str(block.get("signature")).startswith(UNSIGNED)


def _unthinkable(request: ChatRequest, quirks: Quirks) -> bool:
    """Would Anthropic refuse to think here, because a call that is being answered was made by somebody else?

    It looks at the last turn of the assistant, and has no such rule for thinking that is "adaptive". One call by
    somebody else is enough: what Anthropic then said behind it, it said without thinking."""
    thinking = request.fields.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return False
    turns = (message for message in reversed(request.fields["messages"]) if message["role"] != "system")
    last = True
    for assistant, run in groupby(turns, key=lambda message: message["role"] == "assistant"):
        blocks = [block for message in reversed([*run]) for block in _listed(message["content"])]
        if not any(block["type"] == ("tool_use" if assistant else "tool_result") for block in blocks):
            return False  # the turn began behind this
        if not assistant:
            continue
        if last and blocks[0]["type"] in ("thinking", "redacted_thinking") and not _unsigned(blocks[0]):
            return False
        last = False
        if any(_unsigned(block) or (quirks.signed_thinking and _is_elsewhere(block)) for block in blocks):
            return True
    return False


def _listed(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _is_elsewhere(block: Mapping[str, Any]) -> bool:
    """Is it a call with an id that is not Anthropic's? Those we make are of the same length, but hexadecimal."""
    return block.get("type") == "tool_use" and _ELSEWHERE.fullmatch(block["id"]) is not None


def _unthinking(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the wish to think, and without what may only be asked along with it."""
    body.pop("thinking", None)
    managed = body.get("context_management")
    edits = managed.get("edits") if isinstance(managed, dict) else None
    if isinstance(managed, dict) and isinstance(edits, list):
        kept = [edit for edit in edits if not _clears_thinking(edit)]
        if len(kept) < len(edits):
            body["context_management"] = {**managed, "edits": kept}
    return body


def _clears_thinking(edit: Any) -> bool:
    return isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking")


def _continued(messages: Sequence[Mapping[str, Any]], blocks: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with `blocks` as the assistant's turn at the end, behind what the client itself began it with."""
    if not blocks:
        return [*messages]
    if not messages or messages[-1]["role"] != "assistant":
        return [*messages, {"role": "assistant", "content": blocks}]
    begun = messages[-1]["content"]
    own = [*_listed(begun)]
    if own and own[-1].get("type") == blocks[0]["type"] == "text":
        last = own.pop()
        blocks = [{**last, "text": last["text"] + blocks[0]["text"]}, *blocks[1:]]
    return [*messages[:-1], {**messages[-1], "content": [*own, *blocks]}]


# ------------------------------------------------------------------------------------- from the vocabulary


def _built(request: ChatRequest, model: str, quirks: Quirks) -> dict[str, Any]:
    turns: Sequence[Mapping[str, Any]] = _turns(request.messages)
    if request.committed is not None:
        turns = _continued(turns, _blocks(request.committed.parts, exact=True))
    limit = next(limit for pattern, limit in LIMITS if fnmatchcase(model, pattern))
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": limit if request.max_tokens is None else request.max_tokens,
        "messages": turns,
    }
    told = [part for message in request.messages if message.role == "system" for part in message.parts]
    if system := _blocks(part for part in told if isinstance(part, Text)):
        body["system"] = system
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.stream:
        body["stream"] = True
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    body |= _sampling(request, model)
    body |= _tools(request)
    body |= _output(request, _can_be_told(model, quirks))
    return body


def _can_be_told(model: str, quirks: Quirks) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in quirks.effort)


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [] if message.role == "system" else _blocks(message.parts)
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    nothing = {"role": "user", "content": NOTHING_SAID}
    if not turns or turns[0]["role"] != "user":
        turns.insert(0, nothing)
    if turns[-1]["role"] != "user":  # here the answer would go on from it; elsewhere it is a new one
        turns.append(nothing)
    return turns


def _blocks(parts: Iterable[Part], *, exact: bool = False) -> list[dict[str, Any]]:
    """The parts that can be said. Blank texts are refused, so they stay out unless it has to be `exact`; reasoning
    stays out because nobody can sign it."""
    blocks: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case Text(text=text) if text if exact else text.strip():
                blocks.append({"type": "text", "text": text})
            case Image(url=url):
                blocks.append({"type": "image", "source": _source(url)})
            case ToolCall(id=identity, name=name, arguments=arguments):
                call = {"type": "tool_use", "id": fitting_id(identity, "anthropic"), "name": name}
                blocks.append({**call, "input": _input(arguments)})
            case ToolResult(id=identity, text=text, failed=failed):
                result: dict[str, Any] = {"type": "tool_result", "tool_use_id": fitting_id(identity, "anthropic")}
                if text.strip():
                    result["content"] = text
                if failed:
                    result["is_error"] = True
                blocks.append(result)
    return blocks


def _source(url: str) -> dict[str, str]:
    head, comma, body = url.partition(",")
    if not comma or not head.startswith("data:"):
        return {"type": "url", "url": url}
    kind, *marks = head.removeprefix("data:").split(";")
    if "base64" not in marks:
        body = base64.b64encode(unquote_to_bytes(body)).decode()
    return {"type": "base64", "media_type": kind, "data": body}


def _input(arguments: str) -> dict[str, Any]:
    """The object a tool was called with; what a model wrote instead of one stands in it as it was written."""
    try:
        found = json.loads(arguments or "{}", parse_constant=_constant)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"_raw": arguments}


def _constant(name: str) -> float:
    raise ValueError(name)


def _sampling(request: ChatRequest, model: str) -> dict[str, Any]:
    """What Anthropic lets be said about the drawing of words: defaults stay unsaid, and so does `top_p` beside a
    temperature, which models since 4.1 refuse."""
    sampling = request.sampling
    if "claude" in model and not any(fnmatchcase(model, pattern) for pattern in TEMPERATE):
        return {}
    said: dict[str, Any] = {}
    if sampling.temperature is not None and sampling.temperature < 1:
        said["temperature"] = sampling.temperature
    elif sampling.top_p is not None and sampling.top_p < 1:
        said["top_p"] = sampling.top_p
    if sampling.top_k is not None and sampling.top_k > 0:
        said["top_k"] = sampling.top_k
    return said


def _tools(request: ChatRequest) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for tool in request.tools:
        written: dict[str, Any] = {"name": tool.name}
        if tool.description:
            written["description"] = tool.description
        written["input_schema"] = {"type": "object", **tool.parameters}
        if tool.strict:
            written["strict"] = True
        tools.append(written)
    if not tools:
        # A history of calls is refused where no tool is named: the names are there, and calling is not allowed.
        called = [part.name for message in request.messages for part in message.parts if isinstance(part, ToolCall)]
        stubs = [{"name": name, "input_schema": {"type": "object"}} for name in dict.fromkeys(called)]
        return {"tools": stubs, "tool_choice": {"type": "none"}} if stubs else {}
    choice: dict[str, Any] = {"type": CHOICES[request.tool_choice.kind if request.tool_choice else "auto"]}
    if request.tool_choice is not None and request.tool_choice.kind == "named":
        choice["name"] = request.tool_choice.name
    if request.parallel_tools is not None and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = not request.parallel_tools
    return {"tools": tools, "tool_choice": choice} if len(choice) > 1 or request.tool_choice else {"tools": tools}


def _output(request: ChatRequest, can_be_told: bool) -> dict[str, Any]:
    """The form of the answer and, where the model takes it, how much to think."""
    config: dict[str, Any] = {}
    if request.format is not None and request.format.schema is not None:
        config["format"] = {"type": "json_schema", "schema": request.format.schema}
    said: dict[str, Any] = {}
    if can_be_told and request.effort == "none":
        said["thinking"] = {"type": "disabled"}
    elif can_be_told and request.effort in EFFORTS:
        config["effort"] = EFFORTS[request.effort]
    return {**said, "output_config": config} if config else said
