"""Whole answers taken to pieces as clouds stream them, and what the official clients make of the pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx2
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from appliance.core import sse
from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI

WIRE = Path(__file__).parent.parent / "wire"

Cuts = Sequence[int]


def folded(dialect: Dialect, stream: bytes, *, choices: int = 1, size: int = 1 << 20) -> Any:
    """The whole answer in a stream that comes in reads of `size` bytes."""
    fold = dialect.fold(choices)
    for start in range(0, len(stream), size):
        fold.feed(stream[start : start + size])
    return json.loads(fold.close())


def known(value: Any) -> Any:
    """`value` without the members that say nothing: whole answers and streams differ in which they leave out."""
    if isinstance(value, dict):
        return {key: known(member) for key, member in value.items() if member is not None}
    return [known(entry) for entry in value] if isinstance(value, list) else value


def pieces(text: str, cuts: Cuts) -> Iterator[str]:
    """`text` cut after so many characters each, and the rest."""
    at = 0
    for cut in cuts:
        yield text[at : at + cut]
        at += cut
    yield text[at:]


# ------------------------------------------------------------------------------------------------------ OpenAI


def chunks(whole: dict[str, Any], cuts: Cuts) -> list[dict[str, Any]]:
    """A completion as chunks, choice by choice in turns."""
    head = {key: whole[key] for key in ("id", "created", "model", "system_fingerprint", "service_tier")}
    head |= {"object": "chat.completion.chunk"}

    def chunk(**rest: Any) -> dict[str, Any]:
        return {**head, "choices": [], "usage": None, "obfuscation": "x", **rest}

    streams = [list(_deltas(choice, cuts)) for choice in whole["choices"]]
    made = [
        chunk(choices=[stream[at]]) for at in range(max(map(len, streams))) for stream in streams if at < len(stream)
    ]
    return [*made, chunk(usage=whole["usage"])]


def _deltas(choice: dict[str, Any], cuts: Cuts) -> Iterator[dict[str, Any]]:
    index, message = choice["index"], choice["message"]

    def said(delta: dict[str, Any], **rest: Any) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **rest}

    yield said({"role": "assistant", "content": None if message["content"] is None else "", "refusal": None})
    for key in ("reasoning_content", "content", "refusal"):
        for piece in pieces(message.get(key) or "", cuts):
            if piece:
                yield said({key: piece})
    for at, call in enumerate(message.get("tool_calls", ())):
        function = {**call["function"], "arguments": ""}
        yield said({"tool_calls": [{"index": at, **call, "function": function}]})
        for piece in pieces(call["function"]["arguments"], cuts):
            yield said({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    for token in (choice["logprobs"] or {}).get("content", ()):
        yield said({}, logprobs={"content": [token], "refusal": None})
    yield said({}, finish_reason=choice["finish_reason"])


def openai_stream(parts: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(sse.encode(json.dumps(part)) for part in parts) + b"data: [DONE]\n\n"


def openai_client(stream: bytes) -> Any:
    """What the official client makes of it."""
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    counted: Any = None
    for event in sse.SseParser().feed(stream):
        if event.data is None or event.data == b"[DONE]":
            continue
        said = json.loads(event.data)
        if not said.get("object"):  # Azure's verdict on the prompt, which it would take for the first chunk
            continue
        counted = said.get("usage") or counted
        for _ in state.handle_chunk(ChatCompletionChunk.construct(**_typed(said))):
            pass
    answer = state.current_completion_snapshot.to_dict()
    answer["usage"] = counted  # it keeps what the last chunk says, be it nothing
    for choice in _objects(answer["choices"]):
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
    return answer


def _typed(said: dict[str, Any]) -> dict[str, Any]:
    return ChatCompletionChunk.model_validate(said).__dict__


def _objects(found: Any) -> list[dict[str, Any]]:
    return list(found)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNTS = st.integers(0, 10**6)
CUTS = st.lists(st.integers(0, 4), max_size=4)
TOKENS = st.fixed_dictionaries(
    {"token": WORDS, "logprob": st.floats(-9, 0), "bytes": st.just([1]), "top_logprobs": st.just([])}
)


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    """Whole answers of OpenAI's."""
    choices = []
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["text", "tools", "refusal"]))
        message: dict[str, Any] = {"role": "assistant", "content": draw(WORDS), "refusal": None}
        if thought := draw(WORDS):
            message["reasoning_content"] = thought
        if kind == "tools":
            message["content"] = message["content"] or None
            message["tool_calls"] = [
                {"id": f"call_{at}", "type": "function", "function": {"name": f"tool_{at}", "arguments": text}}
                for at, text in enumerate(draw(st.lists(WORDS, min_size=1, max_size=3)))
            ]
        elif kind == "refusal":
            message |= {"content": None, "refusal": "No. " + draw(WORDS)}
        logprobs = draw(st.none() | st.lists(TOKENS, min_size=1, max_size=3))
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
                "finish_reason": "tool_calls" if kind == "tools" else draw(st.sampled_from(["stop", "length"])),
            }
        )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1748488520,
        "model": "gpt-4o",
        "choices": choices,
        "usage": {"prompt_tokens": draw(COUNTS), "completion_tokens": draw(COUNTS), "total_tokens": 1},
        "system_fingerprint": draw(st.none() | st.just("fp_1")),
        "service_tier": "default",
    }


# --------------------------------------------------------------------------------------------------- Anthropic

_TEXTS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


def happenings(whole: dict[str, Any], cuts: Cuts) -> list[dict[str, Any]]:
    """A message as the events that it is streamed in."""
    start = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**whole["usage"], "output_tokens": 1}
    made: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        deltas = list(_changes(block, cuts))
        opened = {**block, **{key: "" for key in ("text", "thinking", "signature") if key in block}}
        opened |= {key: value for key, value in (("input", {}), ("citations", [])) if key in block}
        made.append({"type": "content_block_start", "index": index, "content_block": opened})
        made.append({"type": "ping"})
        made += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        made.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    return [*made, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def _changes(block: dict[str, Any], cuts: Cuts) -> Iterator[dict[str, Any]]:
    for citation in block.get("citations", ()):
        yield {"type": "citations_delta", "citation": citation}
    if block["type"] in _TEXTS:
        kind, key = _TEXTS[block["type"]]
        for piece in pieces(block[key], cuts):
            yield {"type": kind, key: piece}
    if "signature" in block:
        yield {"type": "signature_delta", "signature": block["signature"]}
    if "input" in block:
        for piece in ("", *pieces(json.dumps(block["input"]) if block["input"] else "", cuts)):
            yield {"type": "input_json_delta", "partial_json": piece}


def anthropic_stream(parts: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(sse.encode(json.dumps(part), part["type"]) for part in parts)


def anthropic_client(stream: bytes) -> Any:
    """What the official client makes of it, with the blocks of its beta."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    with (
        anthropic.Anthropic(api_key="none", http_client=http) as client,
        client.beta.messages.stream(model="any", max_tokens=5, messages=[{"role": "user", "content": "hi"}]) as read,
    ):
        return read.get_final_message().to_dict()


JSON = st.recursive(
    st.booleans() | st.integers(-99, 99) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Whole answers of Anthropic's."""
    content: list[dict[str, Any]] = []
    for at, kind in enumerate(
        draw(st.lists(st.sampled_from(["text", "cited", "thinking", "tool", "search", "found"])))
    ):
        match kind:
            case "text":
                content.append({"type": "text", "text": draw(WORDS)})
            case "cited":
                place = {"type": "web_search_result_location", "cited_text": draw(WORDS), "url": "u", "title": "t"}
                citation = {**place, "encrypted_index": "e"}
                content.append({"type": "text", "text": draw(WORDS), "citations": [citation] * draw(st.integers(1, 2))})
            case "thinking":
                content.append({"type": "thinking", "thinking": draw(WORDS), "signature": f"sig{at}"})
            case "found":
                content.append({"type": "redacted_thinking", "data": "abc"})
            case _:
                name = "tool_use" if kind == "tool" else "server_tool_use"
                given = draw(st.dictionaries(WORDS, JSON, max_size=3))
                content.append({"type": name, "id": f"toolu_{at}", "name": "web_search", "input": given})
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": content,
        "stop_reason": draw(st.sampled_from(["end_turn", "max_tokens", "tool_use", "pause_turn"])),
        "stop_sequence": None,
        "usage": {"input_tokens": draw(COUNTS), "output_tokens": draw(st.integers(1, 99)), "service_tier": "standard"},
    }


# --------------------------------------------------------------------------------------- answers in a few words


def begins(**message: Any) -> dict[str, Any]:
    given = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    return {"type": "message_start", "message": {**given, "usage": {"input_tokens": 5, "output_tokens": 1}, **message}}


def opens(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def ends(reason: str | None = "end_turn", usage: dict[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
    last = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or {"output_tokens": 7}, **more}
    return [last, {"type": "message_stop"}]


def message(*parts: dict[str, Any]) -> Any:
    return folded(ANTHROPIC, anthropic_stream([begins(), *parts]))


def chunk(
    delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **rest: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **rest}


def completion(*parts: dict[str, Any], reason: str = "stop") -> Any:
    return folded(OPENAI, openai_stream([*parts, chunk(reason=reason)]))


def said(*deltas: dict[str, Any], reason: str = "stop") -> Any:
    return completion(*map(chunk, deltas), reason=reason)["choices"][0]["message"]
