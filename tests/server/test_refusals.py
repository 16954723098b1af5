"""What is wrong is refused with one clear sentence in OpenAI's shape, and the service goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from appliance.drills.faults import HEALTHY
from tests.fakes import BODY, Stage

pytestmark = pytest.mark.live

CHAT = "/v1/chat/completions"


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error, after a look at its shape."""
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]
    assert "Traceback" not in response.text
    return dict(error)


@pytest.fixture(autouse=True)
def goes_on(box: Stage) -> Iterator[None]:
    """After every refusal the next request is answered, and nothing wrong has gone to a cloud or to the box."""
    box.play(HEALTHY.act)
    yield
    assert box.cloud.exchanges == []
    assert box.local.asked == []
    assert box.ask().text == box.cloud.script.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "gpt-test", "messages": [',
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"model": "gpt-test", "messages": [{"role": "user", "content": "\xff"}]}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "half", "cut", "list", "null", "string", "bom", "not-utf8", "deep-list", "deep-object", "digits"],
)
def test_what_is_not_a_json_object_is_a_400(box: Stage, body: bytes) -> None:
    response = box.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 7),
        ("model", None),
        ("model", ""),
        ("messages", "hello"),
        ("messages", []),
        ("messages", None),
        ("messages", [7]),
        ("messages", [{"content": "no role"}]),
        ("messages", [{"role": "user", "content": 7}]),
        ("stream", "yes"),
        ("max_tokens", "many"),
        ("temperature", "hot"),
        ("stop", 7),
        ("stop", [7]),
        ("seed", "dice"),
        ("n", "all"),
        ("logit_bias", "all"),
        ("stream_options", 7),
    ],
    ids=lambda value: json.dumps(value)[:30],
)
def test_a_wrong_type_is_a_400_that_names_the_field(box: Stage, field: str, value: Any) -> None:
    response = box.post(CHAT, json={**BODY, field: value})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"].startswith(field)
    assert field in error["message"]
    assert response.headers["x-appliance-request-id"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_a_post_that_is_not_declared_as_json_is_a_415(box: Stage, kind: str) -> None:
    response = box.post(CHAT, content=json.dumps(BODY).encode(), headers={"content-type": kind})
    assert response.status_code == 415
    error_of(response)


def test_a_declared_charset_is_fine(box: Stage) -> None:
    response = box.post(CHAT, content=b"{}", headers={"content-type": "application/json; charset=utf-8"})
    assert response.status_code == 400


@pytest.mark.parametrize("path", ["/v1/chat/completion", "/v1/embeddings", "/nothing", "/v1//models", "/%00"])
def test_an_unknown_route_is_a_404_in_openais_shape(box: Stage, path: str) -> None:
    response = box.get(path)
    assert response.status_code == 404
    error_of(response)


def test_the_wrong_method_is_a_405(box: Stage) -> None:
    response = box.get(CHAT)
    assert response.status_code == 405
    error_of(response)


def test_a_body_of_100_mb_is_a_413_that_the_client_gets_to_read(box: Stage) -> None:
    async def flood() -> Any:
        for _ in range(100):
            yield b"x" * 1_000_000

    response = box.post(CHAT, content=flood(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "bytes" in error_of(response)["message"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8484", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a b"]
)
def test_a_host_that_is_not_ours_is_refused(box: Stage, host: str) -> None:
    response = box.post(CHAT, json=BODY, headers={"host": host})
    assert response.status_code == 403
    error_of(response)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8484", "LOCALHOST:8484", "box.localhost"])
def test_the_loopback_names_are_ours(box: Stage, host: str) -> None:
    assert box.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "file://", "http://["])
@pytest.mark.parametrize("path", [CHAT, "/appliance/reset"])
def test_a_web_page_of_somebody_else_is_refused(box: Stage, origin: str, path: str) -> None:
    response = box.post(path, json=BODY, headers={"origin": origin})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    error_of(response)


def test_a_page_of_our_own_is_welcome(box: Stage) -> None:
    assert box.get("/healthz", headers={"origin": box.url}).status_code == 200


@pytest.mark.parametrize("wish", ["nowhere", "LOCAL,cloud", ""])
def test_a_wish_that_names_nobody_is_a_400_that_names_everybody(box: Stage, wish: str) -> None:
    response = box.post(CHAT, json=BODY, headers={"x-appliance-route": wish})
    assert response.status_code == 400
    assert "auto, local, cloud" in error_of(response)["message"]


def test_a_request_with_a_secret_in_it_is_refused_without_repeating_it(box: Stage) -> None:
    secret = "sk-live-9f8e7d6c5b4a"
    for body in (f'{{"model": "{secret}', f'{{"model": "m", "messages": "{secret}"}}'):
        response = box.post(CHAT, content=body.encode(), headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert secret not in response.text
