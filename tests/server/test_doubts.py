"""What the box could not use itself is for the cloud to judge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import BODIES, BODY, Stage

pytestmark = pytest.mark.live

# Of the right type, but nothing that the box can use.
DOUBTFUL: list[tuple[str, Any]] = [
    ("messages", [{"role": "wizard", "content": "x"}]),
    ("messages", [{"role": "user"}]),
    ("max_tokens", -2),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("temperature", 9),
    ("top_p", -1),
    ("stop", ""),
    ("n", 0),
    ("logit_bias", [1]),
]
ODD_CALL = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"a": 1}}}]}
TAKEN: list[tuple[str, str, Any]] = [
    *(("openai", field, value) for field, value in DOUBTFUL),
    ("openai", "max_tokens", -1),
    ("openai", "messages", [*BODY["messages"], ODD_CALL]),
    ("anthropic", "temperature", 1.3),
    ("anthropic", "thinking", {"type": "enabled"}),
    ("anthropic", "top_k", -1),
    ("anthropic", "messages", [{"role": "tool", "content": "x"}]),
]


@pytest.mark.parametrize(("api", "field", "value"), TAKEN, ids=lambda value: json.dumps(value)[:30])
def test_a_cloud_of_the_dialect_gets_it_byte_for_byte(box: Stage, api: str, field: str, value: Any) -> None:
    box.play(HEALTHY.act, api=api)
    body = json.dumps({**BODIES[api], field: value}, indent=1).encode()
    response = box.send(body, api=api)
    assert response.status_code == 200
    [exchange] = box.cloud.exchanges
    assert (exchange.asked.body, bytes(exchange.sent)) == (body, response.content)
    assert "x-appliance-degraded" not in response.headers


@pytest.mark.parametrize(("field", "value"), DOUBTFUL, ids=lambda value: json.dumps(value)[:30])
@pytest.mark.parametrize("wish", [{"model": "local"}, {"route": "local"}], ids=["model", "route"])
def test_the_box_alone_refuses_it_and_names_the_field(box: Stage, field: str, value: Any, wish: dict[str, str]) -> None:
    box.play(HEALTHY.act)
    body = {**BODY, "model": wish.get("model", BODY["model"]), field: value}
    headers = {"x-appliance-route": wish.get("route", "auto")}
    response = box.send(json.dumps(body).encode(), api="openai", **headers)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(field)
    assert error["message"].startswith(error["param"])
    assert (box.local.asked, box.cloud.exchanges) == ([], [])


def test_the_box_steps_in_for_the_cloud_without_it(box: Stage) -> None:
    box.play(FAULTS["server-error"].act)
    heard = box.ask(temperature=9, max_tokens=-1, stop="")
    assert heard.text == box.local.text
    [request] = box.local.asked
    assert (request.sampling.temperature, request.max_tokens, request.stop) == (None, None, ())


def test_a_cloud_of_another_dialect_is_left_out_if_it_matters(box: Stage) -> None:
    box.play(HEALTHY.act, api="anthropic")
    body = {**BODY, "messages": [{"role": "wizard", "content": "x"}]}
    response = box.send(json.dumps(body).encode(), api="openai")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[0].role")
    assert box.cloud.exchanges == []


def test_a_cloud_of_another_dialect_goes_without_what_does_not_matter(box: Stage) -> None:
    box.play(HEALTHY.act, api="anthropic")
    response = box.send(json.dumps({**BODY, "temperature": 9}).encode(), api="openai")
    assert (response.status_code, response.headers["x-appliance-degraded"]) == (200, "temperature")
    assert "temperature" not in box.cloud.exchanges[0].asked.fields
