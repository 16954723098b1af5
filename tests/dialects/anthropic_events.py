"""Events as clouds of Anthropic's dialect write them, one after the other, and what we read in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.core.events import BlockStart, Event, Opaque, Started, ToolCallStart
from appliance.dialects.anthropic_out import AnthropicDecoder

WIRE = Path(__file__).parent.parent / "wire" / "anthropic"

PASSED = Opaque(content=False)
OVER = Opaque(content=False, over=True)
SEEN = Opaque(content=True, closed=True)


def bare(events: list[Event]) -> list[Event]:
    return [replace(event, wire=None) for event in events]


def decoded(*pieces: bytes) -> list[Event]:
    decoder = AnthropicDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def said(type: str, **more: Any) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **more})}\n\n".encode()


def opened(block: dict[str, Any], index: int | None = 0) -> bytes:
    return said("content_block_start", content_block=block, **({} if index is None else {"index": index}))


def piece(delta: dict[str, Any], index: int | None = 0) -> bytes:
    return said("content_block_delta", delta=delta, **({} if index is None else {"index": index}))


def closed(index: int | None = 0) -> bytes:
    return said("content_block_stop", **({} if index is None else {"index": index}))


def ended(reason: str | None = "end_turn", **more: Any) -> bytes:
    return said("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, **more)


BEGUN = said("message_start", message={"id": "m", "model": "c"})
STARTED = Started(id="m", model="c", created=0)
TEXT = opened({"type": "text", "text": ""})
CALL = {"type": "tool_use", "id": "t", "name": "f"}
CALLED = [BlockStart(index=0, kind="tool_call"), ToolCallStart(index=0, id="t", name="f")]
