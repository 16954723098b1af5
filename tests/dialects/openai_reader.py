"""What a client of OpenAI's dialect reads of a stream, and who writes it one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletionChunk

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import Event, Started, Takeover
from appliance.core.seams import StreamEncoder
from appliance.dialects.openai_chat import OPENAI

WIRE = Path(__file__).parent.parent / "wire" / "openai"
REQUEST = ChatRequest(
    dialect="openai", model="asked", messages=(Message(role="user", parts=(Text("hi"),)),), stream=True
)
TAKEOVER = Takeover(source="claude", target="local", after=4, reason="broken")
STARTED = Started(id="chatcmpl-1", model="box", created=7)


def encoder(**changes: Any) -> StreamEncoder:
    return OPENAI.encoder(replace(REQUEST, **changes), id="chatcmpl-ours", created=1)


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream, each one as the official client must see it."""
    found = []
    for block in stream.decode().split("\n\n"):
        if block.startswith("data: ") and block != "data: [DONE]":
            chunk = json.loads(block.removeprefix("data: "))
            ChatCompletionChunk.model_validate(chunk, strict=True)
            found.append(chunk)
    return found


def bare(events: Sequence[Event]) -> list[Event]:
    return [replace(event, wire=None) for event in events]
