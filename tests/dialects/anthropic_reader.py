"""A reader of Anthropic's streams that forgives nothing, and one that is the official client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_TEXTS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


@dataclass(slots=True)
class Block:
    """One block, as its events add up."""

    kind: str
    head: dict[str, Any]
    text: str = ""
    signature: str = ""
    pieces: list[str] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Read:
    """A whole streamed message. `comments` and `pings` are what a client skips."""

    message: dict[str, Any]
    blocks: list[Block] = field(default_factory=list)
    delta: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)
    pings: int = 0

    def joined(self, kind: str) -> str:
        return "".join(block.text for block in self.blocks if block.kind == kind)


def events(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream by their bytes alone; a comment is `{"comment": ...}`."""
    assert stream.endswith(b"\n\n")
    found: list[dict[str, Any]] = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(": "):
            found.append({"comment": block[2:]})
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def read(stream: bytes, *, known: bool = True) -> Read:
    """The message, if the grammar holds to the letter. `known`: every event is one that the official types know."""
    state, found, block = "before", Read({}), None
    for event in events(stream):
        if "comment" in event:
            found.comments.append(event["comment"])
            continue
        kind = event["type"]
        if kind == "ping":
            found.pings += 1
            continue
        if known:
            _EVENT.validate_python(event, strict=True)
        if kind == "message_start":
            assert state == "before"
            state, found.message = "between", event["message"]
            assert (event["message"]["content"], event["message"]["stop_reason"]) == ([], None)
        elif kind == "content_block_start":
            assert (state, event["index"]) == ("between", len(found.blocks))
            head = event["content_block"]
            block = Block(head["type"], head)
            found.blocks.append(block)
            state = "inside"
        elif kind == "content_block_delta":
            assert (state, event["index"]) == ("inside", len(found.blocks) - 1)
            assert block is not None
            _add(block, event["delta"])
        elif kind == "content_block_stop":
            assert (state, event["index"]) == ("inside", len(found.blocks) - 1)
            assert block is not None
            assert block.kind != "thinking" or block.signature
            state = "between"
        elif kind == "message_delta":
            assert state == "between"
            state, found.delta, found.usage = "told", event["delta"], event["usage"]
        else:
            assert (kind, state) == ("message_stop", "told")
            state = "after"
    assert state == "after"
    return found


def _add(block: Block, delta: dict[str, Any]) -> None:
    said, key = _TEXTS.get(block.kind, ("", ""))
    if delta["type"] == said:
        assert delta[key]
        assert not block.signature
        block.text += delta[key]
    elif delta["type"] == "signature_delta":
        assert block.kind == "thinking"
        assert not block.signature
        block.signature = delta["signature"]
    elif delta["type"] == "input_json_delta" and block.kind == "tool_use":
        assert bool(delta["partial_json"]) == bool(block.pieces)
        block.pieces.append(delta["partial_json"])
    else:
        assert delta["type"] not in ("text_delta", "thinking_delta")
        block.others.append(delta)


def official(stream: bytes) -> Message:
    """The message that the anthropic package adds up; its helper must agree with its plain stream."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=stream, headers=headers))
    with httpx2.Client(transport=transport) as http:
        client = anthropic.Anthropic(api_key="x", base_url="http://box", http_client=http, max_retries=0)
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as found:
            text = "".join(found.text_stream)
            message = found.get_final_message()
        plain = client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True
        )
        deltas = [event.delta for event in plain if event.type == "content_block_delta"]
    assert text == "".join(delta.text for delta in deltas if delta.type == "text_delta")
    assert text == "".join(block.text for block in message.content if block.type == "text")
    return message
