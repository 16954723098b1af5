"""A coding agent points at the box and cannot tell: what it sends, what it gets, and what it is told in an outage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from appliance.config import LocalConfig
from appliance.drills.faults import FAULTS, HEALTHY
from tests import agent
from tests.fakes import Stage, real_stage, stage

pytestmark = pytest.mark.live
PATIENCE = 120.0
PATH = f"/v1/messages?{agent.QUERY}"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Stage]:
    local = LocalConfig(model=str(starter_gguf), context=1024, slots=1)
    with real_stage(tmp_path_factory.mktemp("stage"), starter_gguf, local=local) as running:
        yield running


def events(stream: bytes) -> list[tuple[str, dict[str, object]]]:
    found = []
    for block in stream.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_while_the_cloud_is_well_every_byte_and_every_header_with_a_meaning_passes(box: Stage, stream: bool) -> None:
    box.play(HEALTHY.act, api="anthropic", key=None, client_key=True)
    body = agent.body(stream=stream)
    response = box.post(PATH, content=body, headers=agent.HEADERS)
    exchange = box.cloud.exchanges[0]
    assert exchange.asked.body == body
    assert f"{exchange.asked.path}?{exchange.asked.query}" == PATH
    for name in agent.HEADERS:
        if name != "accept":
            assert exchange.asked.header(name) == agent.HEADERS[name], name
    assert response.content == bytes(exchange.sent)
    assert response.headers["x-appliance-served-by"] == "cloud"
    assert response.headers["request-id"]


def test_its_small_calls_are_answered_by_the_cloud(box: Stage) -> None:
    box.play(HEALTHY.act, api="anthropic", key=None, client_key=True)
    assert box.call(box._client.head("/")).status_code == 200
    response = box.post(f"/v1/messages/count_tokens?{agent.QUERY}", content=agent.count_body(), headers=agent.HEADERS)
    (exchange,) = box.cloud.exchanges
    assert exchange.asked.body == agent.count_body()
    assert (exchange.asked.path, exchange.asked.query) == ("/v1/messages/count_tokens", agent.QUERY)
    assert exchange.asked.header("authorization") == agent.HEADERS["authorization"]
    assert response.content == bytes(exchange.sent)
    assert response.headers["x-appliance-served-by"] == "cloud"


def test_a_key_that_the_cloud_refuses_is_the_agents_own_affair(box: Stage) -> None:
    """So that it can renew its token; the others' requests are none the worse."""
    box.play(FAULTS["wrong-key"].act, api="anthropic", key=None, client_key=True)
    response = box.post(PATH, content=agent.body(), headers=agent.HEADERS)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert box.local.asked == []
    assert box.appliance.breakers["cloud"].state(box.now()) == "closed"


@pytest.mark.parametrize("fault", ["refused", "server-error"])
def test_in_an_outage_the_box_answers_and_says_what_it_does_less_well(real: Stage, fault: str) -> None:
    real.play(FAULTS[fault].act, api="anthropic", key=None, client_key=True)
    body = json.loads(agent.body()) | {"max_tokens": 24}
    response = real.post(PATH, json=body, headers=agent.HEADERS, timeout=PATIENCE)
    assert response.status_code == 200
    assert response.headers["x-appliance-served-by"] == "local"
    assert response.headers["x-appliance-fallback"]
    degraded = set(response.headers["x-appliance-degraded"].split(", "))
    assert "context" in degraded
    assert "tools" not in degraded
    found = events(response.content)
    assert found[0][0] == "message_start"
    assert [name for name, _ in found[-2:]] == ["message_delta", "message_stop"]
    assert "error" not in [name for name, _ in found]
    assert any(name == "content_block_delta" for name, _ in found)


def test_in_an_outage_the_box_counts(real: Stage) -> None:
    real.play(FAULTS["refused"].act, api="anthropic", key=None, client_key=True)
    path = f"/v1/messages/count_tokens?{agent.QUERY}"
    response: httpx.Response = real.post(path, content=agent.count_body(), headers=agent.HEADERS, timeout=PATIENCE)
    assert response.status_code == 200
    assert response.headers["x-appliance-served-by"] == "local"
    assert 12_000 < response.json()["input_tokens"] < 40_000


def test_a_model_list_in_its_own_words(box: Stage) -> None:
    box.play(HEALTHY.act, api="anthropic", models=("claude-opus-4-8",))
    listed = box.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
    assert [model["id"] for model in listed["data"]] == ["local", "claude-opus-4-8"]
    assert (listed["has_more"], listed["data"][0]["type"]) == (False, "model")
    one = box.get("/v1/models/claude-opus-4-8", headers={"anthropic-version": "2023-06-01"}).json()
    assert (one["id"], one["type"]) == ("claude-opus-4-8", "model")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/batches"])
def test_errors_are_in_its_own_words(box: Stage, path: str) -> None:
    box.play(HEALTHY.act, api="anthropic")
    refused = box.post(path, content=b"{", headers={"content-type": "application/json"})
    found = refused.json()
    assert found["type"] == "error"
    assert found["error"]["type"] == {400: "invalid_request_error", 404: "not_found_error"}[refused.status_code]


def test_what_is_done_less_well_after_a_cut_is_said_in_the_stream(box: Stage) -> None:
    """The headers are long gone; whoever reads the bytes can still know."""
    box.play(FAULTS["cut-reset"].act, api="anthropic", key=None, client_key=True)
    body = json.loads(agent.body()) | {"stop_sequences": [f"<{number}>" for number in range(17)]}
    response = box.post(PATH, content=json.dumps(body).encode(), headers=agent.HEADERS)
    assert response.headers["x-appliance-served-by"] == "cloud"
    assert "x-appliance-degraded" not in response.headers
    assert response.content.count(b": appliance degraded stop\n\n") == 1
    assert response.content.startswith(box.cloud.chats[0].body)


@pytest.mark.parametrize("fault", ["rate-limit", "quota"])
def test_one_agents_limits_are_not_everybodys(box: Stage, fault: str) -> None:
    box.play(FAULTS[fault].act, api="anthropic", key=None, client_key=True)
    for _ in range(2):
        response = box.post(PATH, content=agent.body(), headers=agent.HEADERS)
        assert response.headers["x-appliance-served-by"] == "local"
    assert len(box.cloud.chats) == 2
    assert box.appliance.breakers["cloud"].state(box.now()) == "closed"
