"""While the cloud is well, the box is not there: what passes is what was sent, both ways."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from appliance.drills.cloud import Exchange, Script
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import BODY, KEY, Stage

pytestmark = pytest.mark.live

ODD = b"""{ "messages" : [ {"role":"user","content":"caf\\u00e9 \xf0\x9f\x8c\x8a", "x": null} ],
  "model":"gpt-test", "stream": %b,\t"brand_new": {"deep": [1, 2.50, -0.0, 1e3]}, "user": "u-1" }
"""


def send(box: Stage, body: bytes, **headers: str) -> httpx.Response:
    return box.post("/v1/chat/completions", content=body, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_an_answer_passes_byte_for_byte(box: Stage, stream: bytes) -> None:
    box.play(HEALTHY.act)
    response = send(box, ODD % stream)
    assert response.status_code == 200
    assert response.content == bytes(box.cloud.exchanges[0].sent)
    assert b'"x_new"' in response.content  # the cloud's new field is among it
    assert box.local.asked == []


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_a_request_passes_byte_for_byte_unknown_fields_and_all(box: Stage, stream: bytes) -> None:
    box.play(HEALTHY.act)
    send(box, ODD % stream)
    assert box.cloud.exchanges[0].asked.body == ODD % stream


def test_under_an_alias_only_the_models_value_is_rewritten(box: Stage) -> None:
    box.play(HEALTHY.act, aliases=(("gpt-*", "claude-next"),))
    send(box, ODD % b"true")
    assert box.cloud.exchanges[0].asked.body == (ODD % b"true").replace(b'"gpt-test"', b'"claude-next"')


def test_the_usage_that_was_asked_for_passes(box: Stage) -> None:
    box.play(HEALTHY.act)
    heard = box.ask(stream_options={"include_usage": True})
    assert b'"prompt_tokens":21' in heard.body
    assert heard.body == bytes(box.cloud.exchanges[0].sent)


def test_headers_with_a_meaning_go_up_and_secrets_do_not(box: Stage) -> None:
    box.play(HEALTHY.act, headers=(("x-team", "harbour"),))
    send(
        box,
        ODD % b"true",
        **{
            "authorization": "Bearer sk-of-the-client",
            "x-api-key": "sk-of-the-client",
            "api-key": "sk-of-the-client",
            "cookie": "session=of-the-client",
            "openai-organization": "org-1",
            "anthropic-beta": "something-new",
            "idempotency-key": "once",
            "user-agent": "an-app/1.0",
            "x-appliance-route": "cloud",
        },
    )
    asked = box.cloud.exchanges[0].asked
    assert [value for name, value in asked.headers if name == "authorization"] == [f"Bearer {KEY}"]
    assert "of-the-client" not in repr(asked.headers)
    assert not [name for name, _ in asked.headers if name.startswith("x-appliance-") or name == "cookie"]
    assert asked.header("openai-organization") == "org-1"
    assert asked.header("anthropic-beta") == "something-new"
    assert asked.header("idempotency-key") == "once"
    assert asked.header("user-agent") == "an-app/1.0"
    assert asked.header("x-team") == "harbour"
    assert f"http://{asked.header('host')}/v1" == box.cloud.base_url


def test_without_a_key_of_ours_nothing_is_shown_to_the_cloud(box: Stage) -> None:
    box.play(HEALTHY.act, key=None)
    send(box, ODD % b"false", authorization="Bearer sk-of-the-client")
    assert box.cloud.exchanges[0].asked.header("authorization") is None


@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_headers_with_a_meaning_come_down_and_the_clouds_own_business_does_not(box: Stage, stream: bytes) -> None:
    box.play(HEALTHY.act)
    headers = send(box, ODD % stream).headers
    assert headers["x-request-id"] == "req_drill"
    assert headers["openai-processing-ms"] == "12"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert "set-cookie" not in headers
    assert headers.get("server") != "drill"
    assert headers["x-appliance-served-by"] == "cloud"
    assert headers["x-appliance-request-id"].startswith("chatcmpl-")
    assert "x-appliance-fallback" not in headers


def test_a_cookie_of_the_cloud_is_nobodys(box: Stage) -> None:
    box.play(HEALTHY.act)
    for _ in range(2):
        send(box, ODD % b"true")
    assert [exchange.asked.header("cookie") for exchange in box.cloud.exchanges] == [None, None]


@pytest.mark.parametrize("name", ["bad-request", "content-policy"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_callers_own_mistake_comes_back_as_the_cloud_said_it(box: Stage, name: str, stream: bool) -> None:
    box.play(FAULTS[name].act, HEALTHY.act)
    heard = box.ask(stream=stream)
    assert heard.status == 400
    assert heard.body == bytes(box.cloud.exchanges[0].sent)
    assert heard.headers["content-type"] == "application/json"
    assert (box.clouds[1].exchanges, box.local.asked) == ([], [])


def test_each_piece_goes_on_when_it_comes(box: Stage) -> None:
    go_on = asyncio.Event()

    async def halting(exchange: Exchange) -> None:
        await exchange.begin()
        await go_on.wait()
        await exchange.words()
        await exchange.finish()
        await exchange.end()

    async def conversation() -> tuple[bytes, bytes]:
        first = rest = b""
        async with (
            httpx.AsyncClient(base_url=box.url) as client,
            client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as response,
        ):
            pieces = response.aiter_bytes()
            while first.count(b"\n\n") < 7:  # the role and six pieces; the cloud says no more until we let it
                first += await anext(pieces)
            go_on.set()
            async for piece in pieces:
                rest += piece
        return first, rest

    box.play(halting)
    first, rest = box.call(conversation())
    assert first + rest == bytes(box.cloud.exchanges[0].sent) + b"data: [DONE]\n\n"
    assert rest.count(b"data: {") > 6


def test_a_cloud_with_other_line_ends_passes_too(box: Stage) -> None:
    async def carriage(exchange: Exchange) -> None:
        await exchange.open()
        for data in (exchange.chunk({"content": "Good "}), exchange.chunk({}, finish_reason="stop"), b"[DONE]"):
            await exchange.put(b"data: " + data + b"\r\n\r\n")
        await exchange.end()

    box.play(carriage)
    assert box.ask().body == bytes(box.cloud.exchanges[0].sent)


def test_bytes_cut_anywhere_by_the_network_make_the_same_answer(box: Stage) -> None:
    async def dripping(exchange: Exchange) -> None:
        await exchange.open()
        await exchange.role()
        event = b"data: " + exchange.chunk({"content": "caf\u00e9 \U0001f30a"}) + b"\n\n"
        for at in range(len(event)):
            await exchange.put(event[at : at + 1])
        await exchange.finish()
        await exchange.end()

    box.play(dripping)
    heard = box.ask()
    assert heard.text == "caf\u00e9 \U0001f30a"
    assert heard.body == bytes(box.cloud.exchanges[0].sent) + b"data: [DONE]\n\n"


def test_a_very_long_answer_passes(box: Stage) -> None:
    box.play(HEALTHY.act, script=Script(text="word " * 4000))
    assert box.ask().text == "word " * 4000
    assert json.loads(box.ask(stream=False).body)["choices"][0]["message"]["content"] == "word " * 4000
