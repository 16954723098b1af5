"""What a client of OpenAI's dialect sees that does not stream."""

from __future__ import annotations

import json
from pathlib import Path

from openai.types.chat import ChatCompletion

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import Degraded, Event, Finish, Opened, Started, TextDelta
from appliance.dialects.openai_chat import OPENAI

WIRE = Path(__file__).parent.parent / "wire" / "openai"
REQUEST = ChatRequest(dialect="openai", model="asked", messages=(Message(role="user", parts=(Text("hi"),)),))
STARTED = Started(id="chatcmpl-1", model="box", created=7)


def test_a_whole_answer_of_a_cloud_is_given_back_byte_for_byte() -> None:
    for name in ("whole.json", "whole_tools.json"):
        body = (WIRE / name).read_bytes()
        events = [Opened(headers=()), Degraded(what="context"), *OPENAI.decode_whole(body)]
        assert OPENAI.encode_whole(REQUEST, events, id="x", created=1) == body


def test_a_whole_answer_of_ours_has_every_choice() -> None:
    events: list[Event] = [STARTED, TextDelta(text="a"), TextDelta(text="b", choice=1)]
    events += [Finish(reason="stop"), Finish(reason="length", choice=1)]
    whole = json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))
    ChatCompletion.model_validate(whole, strict=True)
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["a", "b"]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", "length"]
    assert "usage" not in whole


def test_a_whole_answer_out_of_a_stream_is_written_anew() -> None:
    events = OPENAI.decoder().feed((WIRE / "text.sse").read_bytes())
    whole = json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))
    assert (whole["id"], whole["choices"][0]["message"]["content"]) == ("chatcmpl-123", "Hello – wörld 🙂")  # noqa: RUF001
    assert OPENAI.encode_whole(REQUEST, events[:1], id="x", created=1).startswith(b'{"id"')
