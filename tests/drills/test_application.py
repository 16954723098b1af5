"""The rehearsing application reads either dialect, and notices what an official client would forgive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from appliance.drills.application import Heard, ask
from appliance.drills.cloud import Call, Exchange, FailingCloud, Script
from appliance.drills.faults import FAULTS, HEALTHY

SCRIPT = Script(
    thinking="Hm, let me see.", calls=(Call(name="tide", arguments='{"at": 3}'), Call(name="w", arguments="{}"))
)
APIS = pytest.mark.parametrize("api", ["openai", "anthropic"])
START = {"type": "message_start", "message": {"id": "msg_1"}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
MORE = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
SHUT = {"type": "content_block_stop", "index": 0}
WHY = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
STOP = {"type": "message_stop"}


def answered(events: list[dict[str, Any]] | bytes) -> Heard:
    """What the application makes of a stream with these events."""
    body = (
        events
        if isinstance(events, bytes)
        else b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    )

    async def play() -> Heard:
        reply = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: reply), base_url="http://box") as client:
            return await ask(client, {}, api="anthropic")

    return asyncio.run(play())


@pytest.mark.live
@APIS
@pytest.mark.parametrize("stream", [True, False])
def test_a_healthy_answer_of_either_wire_is_heard_as_it_was_told(api: str, stream: bool) -> None:
    heard, exchange = asked(api, stream=stream)
    assert heard.errors == ()
    assert heard.text == exchange.text == SCRIPT.text
    assert heard.thinking == exchange.thinking == SCRIPT.thinking
    assert [name for name, _ in heard.calls] == ["tide", "w"]
    assert [json.loads(arguments) for _, arguments in heard.calls] == [{"at": 3}, {}]
    assert heard.finishes == ("tool_calls" if api == "openai" else "tool_use",)
    assert heard.ids == (exchange.id,)
    assert heard.dones == (1 if stream else 0)
    assert heard.body == exchange.body
    assert exchange.asked.api == heard.api == api


@pytest.mark.live
@APIS
def test_a_broken_answer_of_either_wire_is_heard_as_far_as_it_came(api: str) -> None:
    heard, exchange = asked(api, "cut-reset", stream=True)
    assert heard.errors == ("the connection broke: ReadError",)
    assert (heard.thinking, heard.finishes, heard.dones) == (exchange.thinking, (), 0)
    assert heard.thinking


@pytest.mark.live
@APIS
def test_an_error_of_either_wire_is_heard(api: str) -> None:
    heard, _ = asked(api, "error-event", stream=True)
    assert heard.errors == (
        "Overloaded" if api == "anthropic" else "The server had an error while processing your request.",
    )
    heard, _ = asked(api, "wrong-key", stream=False)
    assert heard.errors == ("invalid x-api-key" if api == "anthropic" else "Incorrect API key provided.",)


def asked(api: str, fault: str = "healthy", *, stream: bool) -> tuple[Heard, Exchange]:
    act = {**FAULTS, "healthy": HEALTHY}[fault].act

    async def play() -> tuple[Heard, Exchange]:
        async with FailingCloud(act, script=SCRIPT, api=api) as cloud, httpx.AsyncClient(base_url=cloud.root) as client:
            heard = await ask(client, {"stream": stream}, api=api)
        return heard, cloud.exchanges[0]

    return asyncio.run(play())


def test_an_orderly_stream_is_without_complaint() -> None:
    heard = answered([START, OPEN, MORE, SHUT, {**OPEN, "index": 1}, {**SHUT, "index": 1}, WHY, STOP])
    assert (heard.errors, heard.text, heard.finishes, heard.dones) == ((), "Hi", ("end_turn",), 1)


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([OPEN, SHUT], "content_block_start came before message_start"),
        ([START, START], "message_start came twice"),
        ([START, OPEN, {**OPEN, "index": 1}], "a block began inside another"),
        ([START, {**OPEN, "index": 1}], "block 0 is numbered 1"),
        ([START, MORE], "content_block_delta came for block 0, which is not open"),
        ([START, OPEN, {**MORE, "index": 1}], "content_block_delta came for block 1, which is not open"),
        ([START, OPEN, SHUT, SHUT], "content_block_stop came for block 0, which is not open"),
        ([START, OPEN, MORE, WHY], "message_delta came while a block was open"),
        ([START, STOP], "message_stop came without a stop_reason"),
        ([START, WHY, STOP, {"type": "ping"}], "something came after message_stop"),
        ([START, OPEN, SHUT, WHY, {**OPEN, "index": 1}, {**MORE, "index": 1}], "something came after the end"),
        (b"event: ping\ndata: {\n\n", "an event is not JSON"),
        (
            b'event: ping\ndata: {"type":"message_start","message":{}}\n\n',
            "an event named ping says it is message_start",
        ),
    ],
)
def test_what_is_out_of_order_is_said(events: list[dict[str, Any]] | bytes, complaint: str) -> None:
    assert complaint in answered(events).errors


def test_a_takeover_is_heard_in_the_comment_that_announces_it() -> None:
    orderly = [START, OPEN, MORE]
    body = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in orderly)
    heard = answered(body + b": appliance takeover claude->local after=2 reason=broken\n\n")
    assert heard.takeovers == ("claude->local after=2 reason=broken",)
