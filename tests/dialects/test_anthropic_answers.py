"""Whatever legs say, wherever they are cut: a client of Anthropic's dialect reads one answer with nothing missing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from anthropic.types import Message as TheirMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.chat import ChatRequest
from appliance.core.events import (
    Event,
    Finish,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.dialects.anthropic import ANTHROPIC
from tests.dialects.anthropic_reader import Read, official, read

REQUEST = ChatRequest(dialect="anthropic", model="asked", messages=(), stream=True)
TAKEOVER = Takeover(source="claude", target="local", after=4, reason="broken")

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
ARGUMENTS = st.dictionaries(WORDS, st.none() | WORDS | st.lists(WORDS, max_size=2), max_size=2)


@dataclass(frozen=True, slots=True)
class Said:
    """A part of an answer, before it is anybody's wire."""

    kind: str  # "text", "thinking", "call" or "other"
    pieces: tuple[str, ...]


def cut(text: str, places: Sequence[int]) -> tuple[str, ...]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places} - {0, len(text)}), len(text)]
    return tuple(text[start:end] for start, end in itertools.pairwise(edges))


PLACES = st.lists(st.integers(0, 99), max_size=3)
PARTS = st.lists(
    st.builds(Said, st.sampled_from(["text", "thinking"]), st.lists(WORDS, max_size=3).map(tuple))
    | st.builds(Said, st.just("call"), st.builds(cut, ARGUMENTS.map(json.dumps), PLACES))
    | st.builds(Said, st.just("other"), st.lists(WORDS, max_size=2).map(tuple)),
    max_size=5,
)


def as_openai(parts: Sequence[Said], order: Sequence[int]) -> list[Event]:
    """As an OpenAI cloud's events: no blocks, and the pieces of neighbouring calls in any `order`."""
    said: list[Event] = [Started(id="chatcmpl-1", model="gpt", created=1)]
    numbers = itertools.count()
    picks = itertools.cycle(order or [0])
    for calls, group in itertools.groupby(parts, lambda part: part.kind == "call"):
        if not calls:
            for part in group:
                made = ReasoningDelta if part.kind == "thinking" else TextDelta
                said += [made(text=piece) for piece in part.pieces]
            continue
        left: list[list[Event]] = []
        for part in group:
            index = next(numbers)
            start = ToolCallStart(index=index, id=f"call_{index}", name="f")
            left.append([start, *(ToolCallDelta(index=index, arguments=piece) for piece in part.pieces)])
        while left:
            chosen = left[next(picks) % len(left)]
            said.append(chosen.pop(0))
            left = [one for one in left if one]
    return [replace(event, wire=Wire("openai", b"data: {}\n\n")) for event in said]


def as_anthropic(parts: Sequence[Said], _: Sequence[int]) -> list[Event]:
    """As the events of an Anthropic cloud, through the decoder."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "ping"},
    ]
    for index, part in enumerate(parts):
        heads: dict[str, dict[str, Any]] = {
            "text": {"type": "text", "text": ""},
            "thinking": {"type": "thinking", "thinking": "", "signature": ""},
            "call": {"type": "tool_use", "id": f"toolu_{index}", "name": "f", "input": {}},
            "other": {"type": "new_kind", "x": 1},
        }
        said.append({"type": "content_block_start", "index": index, "content_block": heads[part.kind]})
        deltas: list[dict[str, Any]] = [{"type": "input_json_delta", "partial_json": ""}] * (part.kind == "call")
        for piece in part.pieces:
            deltas.append(
                {
                    "text": {"type": "text_delta", "text": piece},
                    "thinking": {"type": "thinking_delta", "thinking": piece},
                    "call": {"type": "input_json_delta", "partial_json": piece},
                    "other": {"type": "new_delta", "y": piece},
                }[part.kind]
            )
        deltas += [{"type": "signature_delta", "signature": "real"}] * (part.kind == "thinking")
        said += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        said.append({"type": "content_block_stop", "index": index})
    stream = b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said)
    return ANTHROPIC.decoder().feed(stream)


def cut_at(events: list[Event], place: int) -> list[Event]:
    """The beginning of a leg, as far as its bytes came: a wire event comes whole or not at all."""
    edges = [at for at, event in enumerate(events) if event.wire is None or event.wire.data]
    return events[: edges[place % len(edges)]]


LEGS = st.lists(
    st.tuples(st.sampled_from([as_openai, as_anthropic]), PARTS, PLACES, st.integers(0, 99)), min_size=1, max_size=3
)


def answer(legs: Sequence[Any]) -> tuple[list[list[Event]], bool]:
    """The legs' events as the relay gives them on, all but the last cut somewhere; and whether anything is of a kind
    that the official types do not know."""
    found: list[list[Event]] = []
    begun = False
    for at, (form, parts, order, place) in enumerate(legs):
        events = form(parts, order)
        if at < len(legs) - 1:
            events = cut_at(events, place)
        if begun:
            events = [event for event in events if not isinstance(event, Started)]
        begun = begun or any(isinstance(event, Started) for event in events)
        found.append(events)
    return found, not any(form is as_anthropic and part.kind == "other" for form, parts, *_ in legs for part in parts)


def calls_of(legs: Sequence[Sequence[Event]]) -> list[str]:
    """The arguments of every call that was begun, in the order of their beginnings."""
    found: dict[tuple[int, int], str] = {}
    for leg, events in enumerate(legs):
        for event in events:
            if isinstance(event, ToolCallStart):
                found[leg, event.index] = ""
            elif isinstance(event, ToolCallDelta):
                found[leg, event.index] += event.arguments
    return list(found.values())


@pytest.mark.long
@settings(deadline=None, max_examples=150)  # a busy machine is no failure
@given(legs=LEGS, size=st.integers(1, 9), finish=st.sampled_from(["stop", "length", "tool_calls", "other"]))
def test_the_grammar_holds_and_nothing_is_lost(legs: Sequence[Any], size: int, finish: Any) -> None:
    given, known = answer(legs)
    last = [Finish(reason=finish), Usage(prompt_tokens=7, completion_tokens=3)]
    events = [event for leg in given for event in [TAKEOVER, *leg]][1:] + last
    client = ANTHROPIC.encoder(REQUEST, id="msg_ours", created=1)
    out = b"".join(client.encode(events[at : at + size]) for at in range(0, len(events), size)) + client.close()
    found = read(out, known=known)

    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert (found.joined("text"), found.joined("thinking")) == (text, thought)
    assert arguments(found) == calls_of(given)
    assert (found.usage["output_tokens"], len(found.comments)) == (3, len(legs) - 1)
    ids = [block.head["id"] for block in found.blocks if block.kind == "tool_use"]
    assert len(ids) == len(set(ids))
    if known:
        assert "".join(block.text for block in official(out).content if block.type == "text") == text

    body = ANTHROPIC.encode_whole(REQUEST, events, id="msg_ours", created=1)
    message = TheirMessage.model_validate_json(body, strict=True)
    assert "".join(block.text for block in message.content if block.type == "text") == text
    assert "".join(block.thinking for block in message.content if block.type == "thinking") == thought
    assert len([block for block in message.content if block.type == "tool_use"]) == len(ids)
    assert message.stop_reason == found.delta["stop_reason"]


def arguments(found: Read) -> list[str]:
    return ["".join(block.pieces) for block in found.blocks if block.kind == "tool_use"]


@settings(deadline=None, max_examples=50)
@given(parts=PARTS, places=st.lists(st.integers(0, 10_000), max_size=8))
def test_a_cloud_that_nobody_interrupts_is_given_back_byte_for_byte(parts: list[Said], places: list[int]) -> None:
    stream = b"".join(event.wire.data for event in as_anthropic(parts, []) if event.wire is not None)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    decoder, client = ANTHROPIC.decoder(), ANTHROPIC.encoder(REQUEST, id="msg_ours", created=1)
    out = b"".join(client.encode(decoder.feed(stream[start:end])) for start, end in itertools.pairwise(edges))
    assert out == stream


@settings(deadline=None, max_examples=50)
@given(parts=PARTS, order=PLACES)
def test_what_we_write_of_another_clouds_answer_says_the_same_when_read_back(
    parts: list[Said], order: list[int]
) -> None:
    events = as_openai(parts, order)
    client = ANTHROPIC.encoder(REQUEST, id="msg_ours", created=1)
    decoder = ANTHROPIC.decoder()
    back = decoder.feed(client.encode([*events, Finish(reason="length")]) + client.close()) + decoder.close()
    for kind in (TextDelta, ReasoningDelta):
        assert [event.text for event in back if isinstance(event, kind)] == [
            event.text for event in events if isinstance(event, kind)
        ]
    assert calls_of([back]) == [text or "{}" for text in calls_of([events])]
    assert [(event.id, event.name) for event in back if isinstance(event, ToolCallStart)] == [
        (event.id, event.name) for event in events if isinstance(event, ToolCallStart)
    ]
