"""What a cloud says about the caller's own mistake is the caller's: nobody else is asked, and the cloud is not blamed.

In the cloud's dialect it comes back byte for byte; in the other one the cloud's sentence does.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from appliance.drills.application import Heard
from appliance.drills.cloud import Exchange, Script
from appliance.drills.faults import HEALTHY
from tests.fakes import Stage

pytestmark = pytest.mark.live

DIALECTS = ("openai", "anthropic")
MANY = 10
"""Three failures in a row, or half of twenty, would open a breaker."""

SAID = "We cannot take this: caf\u00e9 \U0001f30a is too much."
OPENAI, ANTHROPIC = "openai", "anthropic"


def openai(type: str = "invalid_request_error", **more: Any) -> dict[str, Any]:
    return {"error": {"message": SAID, "type": type, "param": None, "code": None, **more}}


def anthropic(type: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": SAID}, "request_id": "req_1"}


# Found in the wild, each in its own shape.
MISTAKES: list[tuple[str, str, int, dict[str, Any]]] = [
    (OPENAI, "a parameter", 400, openai(code="unsupported_parameter", param="max_tokens")),
    (OPENAI, "content policy", 400, openai(code="content_policy_violation")),
    (OPENAI, "Azure's filter", 400, openai(code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})),
    (OPENAI, "too large", 413, openai()),
    (OPENAI, "unprocessable", 422, openai()),
    (
        OPENAI,
        "unprocessable, as FastAPI says it",
        422,
        {"detail": [{"loc": ["body", "n"], "msg": SAID, "type": "int"}]},
    ),
    (OPENAI, "unprocessable, as Mistral says it", 422, {"object": "error", "message": SAID, "type": "invalid"}),
    (ANTHROPIC, "a parameter", 400, anthropic()),
    (ANTHROPIC, "too large", 413, anthropic("request_too_large")),
    (ANTHROPIC, "unprocessable", 422, anthropic()),
]


def blameless(box: Stage) -> bool:
    """Nobody but the cloud was asked, and nothing is held against it."""
    [upstream] = box.get("/appliance/status").json()["upstreams"]
    breakers = box.appliance.breakers["cloud"]
    return (upstream["state"], breakers.failures, box.local.asked) == ("closed", 0, [])


def sentence(heard: Heard) -> str:
    return str(json.loads(heard.body)["error"]["message"])


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("cloud", "name", "status", "body"), MISTAKES, ids=lambda value: str(value)[:40])
def test_it_goes_back_to_the_caller(
    box: Stage, cloud: str, name: str, status: int, body: dict[str, Any], client: str, stream: bool
) -> None:
    written = json.dumps(body, indent=3, ensure_ascii=False).encode() + b"\n"

    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(status, written, headers=exchange.voice.headers)

    box.play(refuse, api=cloud)
    for _ in range(MANY):
        heard = box.ask(api=client, stream=stream)
        assert (heard.status, heard.headers["content-type"]) == (status, "application/json")
        assert "x-appliance-fallback" not in heard.headers
        assert heard.headers["x-appliance-served-by"] == "cloud"
        if client == cloud:
            assert heard.body == written
        else:
            assert SAID in sentence(heard)
    assert len(box.cloud.exchanges) == MANY
    assert blameless(box)


REFUSED = {"openai": "content_filter", "anthropic": "refusal"}


@pytest.mark.parametrize("text", ["", "I would rather not"], ids=["without a word", "after some words"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("client", "cloud"), list(product(DIALECTS, DIALECTS)))
def test_a_refusal_is_an_answer(box: Stage, client: str, cloud: str, stream: bool, text: str) -> None:
    box.play(HEALTHY.act, api=cloud, script=Script(text=text, stopped=REFUSED[cloud]))
    for _ in range(MANY):
        heard = box.ask(api=client, stream=stream)
        assert (heard.status, heard.text, heard.errors) == (200, text, ())
        assert (heard.finishes, heard.dones) == ((REFUSED[client],), int(stream))
        assert "x-appliance-fallback" not in heard.headers
        if client == cloud:
            assert heard.body == bytes(box.cloud.exchanges[-1].sent)
    assert len(box.cloud.exchanges) == MANY
    assert blameless(box)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("client", DIALECTS)
def test_a_refusal_in_a_field_of_its_own_is_an_answer(box: Stage, client: str, stream: bool) -> None:
    """OpenAI's models say it in `refusal`, with no content, and stop as if nothing were the matter."""
    refusal = "I'm sorry, I cannot help with that."

    async def refuse(exchange: Exchange) -> None:
        if not stream:
            message = {"role": "assistant", "content": None, "refusal": refusal}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            await exchange.reply(200, json.dumps(body).encode())
            return
        await exchange.open()
        await exchange.event(exchange.chunk({"role": "assistant", "content": None, "refusal": ""}))
        await exchange.event(exchange.chunk({"refusal": refusal}))
        await exchange.event(exchange.chunk({}, finish_reason="stop"))
        await exchange.done()
        await exchange.end()

    box.play(refuse, api="openai")
    for _ in range(MANY):
        heard = box.ask(api=client, stream=stream)
        assert (heard.status, heard.errors, len(heard.finishes)) == (200, (), 1)
        assert refusal in heard.body.decode()
        if client == "openai":
            assert heard.body.startswith(bytes(box.cloud.exchanges[-1].sent))
        else:
            assert (heard.text, heard.finishes) == (refusal, ("end_turn",))
    assert len(box.cloud.exchanges) == MANY
    assert blameless(box)
