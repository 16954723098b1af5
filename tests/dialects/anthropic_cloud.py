"""What an Anthropic cloud sends, piece by piece, and what our client is given of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import Event, Finish, Started, Takeover, ToolCallDelta, ToolCallStart
from appliance.core.seams import StreamEncoder
from appliance.dialects.anthropic import ANTHROPIC
from tests.dialects.anthropic_reader import Read, read

REQUEST = ChatRequest(
    dialect="anthropic", model="asked", messages=(Message(role="user", parts=(Text("hi"),)),), stream=True
)
TAKEOVER = Takeover(source="claude", target="local", after=4, reason="broken")
COMMENT = b": appliance takeover claude->local after=4 reason=broken\n\n"
STARTED = Started(id="msg_1", model="box", created=7)
STOP = Finish(reason="stop")

BEGUN = {
    "type": "message_start",
    "message": {
        "id": "msg_cloud",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 1},
    },
}
ENDED: list[dict[str, Any]] = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
]


def wire(said: Iterable[dict[str, Any]]) -> bytes:
    """Events as a cloud writes them: with spaces, which we do not write."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in said)


def block(index: int, head: dict[str, Any], *deltas: dict[str, Any], stopped: bool = True) -> list[dict[str, Any]]:
    found = [{"type": "content_block_start", "index": index, "content_block": head}]
    found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [*found, {"type": "content_block_stop", "index": index}] if stopped else found


def text(index: int, *pieces: str, stopped: bool = True) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas, stopped=stopped)


def thinking(index: int, thought: str, *, signature: str = "", stopped: bool = True) -> list[dict[str, Any]]:
    deltas = [{"type": "thinking_delta", "thinking": thought}] if thought else []
    deltas += [{"type": "signature_delta", "signature": signature}] if signature else []
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas, stopped=stopped)


def tool(index: int, named: str, *pieces: str, stopped: bool = True) -> list[dict[str, Any]]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return block(index, {"type": "tool_use", "id": named, "name": "f", "input": {}}, *deltas, stopped=stopped)


def decoded(*said: dict[str, Any]) -> list[Event]:
    return ANTHROPIC.decoder().feed(wire(said))


def later(*said: dict[str, Any]) -> list[Event]:
    """A later leg of the dialect, as the relay gives it on: without its `Started`."""
    return [event for event in decoded(BEGUN, *said) if not isinstance(event, Started)]


def encoder(**changes: Any) -> StreamEncoder:
    return ANTHROPIC.encoder(replace(REQUEST, **changes), id="msg_ours", created=1)


def streamed(given: Sequence[Event]) -> Read:
    """What a client reads of events in one batch; in batches of one it must be the same, byte for byte."""
    client = encoder()
    out = client.encode(given) + client.close()
    one_by_one = encoder()
    assert b"".join(one_by_one.encode([event]) for event in given) + one_by_one.close() == out
    return read(out)


def call(index: int, named: str, *pieces: str) -> list[Event]:
    return [
        ToolCallStart(index=index, id=named, name="f"),
        *[ToolCallDelta(index=index, arguments=piece) for piece in pieces],
    ]
