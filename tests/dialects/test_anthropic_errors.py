"""The table of failures in Anthropic's words, row by row, and what a client hears of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects.anthropic_errors import (
    decode_error,
    decode_stream_error,
    encode_error,
    error_body,
    status_of,
)

RECORDED = Path(__file__).parent.parent / "wire" / "anthropic" / "errors"
ROWS = {
    "400_invalid": Fault.REQUEST,
    "400_too_long": Fault.TOO_LONG,
    "400_too_long_with_answer": Fault.TOO_LONG,
    "400_credit": Fault.CONFIG,
    "400_spend_limit": Fault.CONFIG,
    "400_on_hold": Fault.CONFIG,
    "400_filtered": Fault.REQUEST,
    "401_key": Fault.CONFIG,
    "402_billing": Fault.CONFIG,
    "403_permission": Fault.CONFIG,
    "404_model": Fault.CONFIG,
    "413_too_large": Fault.REQUEST,
    "429_rate": Fault.BUSY,
    "429_spend_limit": Fault.CONFIG,
    "429_ramp": Fault.BUSY,
    "429_long_context": Fault.TOO_LONG,
    "500_api": Fault.SERVER,
    "504_timeout": Fault.SERVER,
    "529_overloaded": Fault.SERVER,
}


def body(type: str = "invalid_request_error", message: str = "m", **more: Any) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type, "message": message, **more}}).encode()


def test_every_recorded_error_has_a_row() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(ROWS)


@pytest.mark.parametrize(("name", "fault"), ROWS.items())
def test_every_recorded_error_is_the_fault_it_is_for_us(name: str, fault: Fault) -> None:
    said = (RECORDED / f"{name}.json").read_bytes()
    status = int(name[:3])
    error = decode_error(status, (("content-type", "application/json"),), said)
    assert (error.fault, error.status, error.retry_after) == (fault, status, None)
    callers = fault in (Fault.REQUEST, Fault.TOO_LONG)
    assert (error.reply is not None) == callers
    assert error.words == (json.loads(said)["error"]["message"] if callers else None)


@pytest.mark.parametrize(
    ("status", "said", "headers", "fault"),
    [
        (400, b"", (), Fault.REQUEST),
        (400, b"<html>a portal</html>", (), Fault.BROKEN),
        (400, body("rate_limit_error"), (), Fault.REQUEST),
        (400, body("billing_error"), (), Fault.CONFIG),
        (400, body("authentication_error"), (), Fault.CONFIG),
        (400, body(details={"error_code": "organization_on_hold"}), (), Fault.CONFIG),
        (400, body(message="my essay on usage limits and credits"), (), Fault.REQUEST),
        (400, body(message="m", details={"error_code": "thread_not_found"}), (), Fault.REQUEST),
        (401, b"", (), Fault.CONFIG),
        (402, body("billing_error", details={"error_code": "user_profile_not_billable"}), (), Fault.CONFIG),
        (403, b"<html>", (), Fault.BROKEN),
        (404, b"404 page not found", (), Fault.CONFIG),
        (408, body(details={"error_code": "request_body_timeout"}), (), Fault.SILENT),
        (409, body(), (), Fault.REQUEST),
        (413, b"<html>cloudflare</html>", (), Fault.REQUEST),
        (422, body(), (), Fault.REQUEST),
        (429, body("rate_limit_error"), (("retry-after", "41"),), Fault.BUSY),
        (429, b"", (), Fault.BUSY),
        (429, body("rate_limit_error", details={"error_code": "contract_spend_limit_reached"}), (), Fault.CONFIG),
        (429, body("rate_limit_error", message="Usage credits are required for long context"), (), Fault.TOO_LONG),
        (500, body("invalid_request_error", message="prompt is too long"), (), Fault.SERVER),
        (502, b"<html>", (), Fault.SERVER),
        (503, body("overloaded_error"), (("retry-after", "2"),), Fault.BUSY),
        (529, body("overloaded_error"), (("retry-after", "2"),), Fault.BUSY),
        (529, b"", (), Fault.SERVER),
        (302, b"", (), Fault.BROKEN),
    ],
)
def test_every_row_of_the_table(status: int, said: bytes, headers: Headers, fault: Fault) -> None:
    assert decode_error(status, headers, said).fault is fault


def test_the_callers_own_mistake_goes_back_unchanged() -> None:
    said = (RECORDED / "400_invalid.json").read_bytes()
    kept: Headers = (
        ("content-type", "application/json"),
        ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
        ("retry-after", "3"),
        ("x-should-retry", "false"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-organization-id", "0a1b"),
    )
    dropped: Headers = (("content-length", "9"), ("set-cookie", "a=b"), ("cf-ray", "1"), ("content-encoding", "gzip"))
    error = decode_error(400, kept + dropped, said)
    assert error.reply == Reply(status=400, body=said, headers=kept, dialect="anthropic")
    assert encode_error(error, id="ours") == error.reply


def test_the_code_in_the_details_is_kept() -> None:
    error = decode_error(429, (), (RECORDED / "429_spend_limit.json").read_bytes())
    assert error.code == "enforced_spend_limit_reached"
    assert encode_error(error).status == 502


def test_a_prompt_or_a_key_in_an_error_of_a_cloud_is_not_in_ours() -> None:
    assert str(decode_error(400, (), body(message="my secret prompt"))) == (
        "The cloud refuses the request (400): invalid_request_error."
    )
    error = decode_error(401, (), body("authentication_error", "invalid x-api-key sk-ant-api03-abc"))
    assert str(error).startswith("The cloud refuses us (401): authentication_error; it does not accept the key: look")
    assert "sk-ant" not in str(error)


@pytest.mark.parametrize(
    ("type", "message", "fault"),
    [
        ("overloaded_error", "Overloaded", Fault.BUSY),
        ("rate_limit_error", "m", Fault.BUSY),
        ("api_error", "Internal server error", Fault.BROKEN),
        ("timeout_error", "m", Fault.BROKEN),
        ("api_error", "prompt is too long for the cache", Fault.BROKEN),
        ("never_heard_of_it", "m", Fault.BROKEN),
        ("authentication_error", "m", Fault.CONFIG),
        ("billing_error", "m", Fault.CONFIG),
        ("invalid_request_error", "Your credit balance is too low", Fault.CONFIG),
        ("invalid_request_error", "prompt is too long: 2 tokens > 1 maximum", Fault.TOO_LONG),
        ("invalid_request_error", "Output blocked by content filtering policy", Fault.REQUEST),
        ("request_too_large", "m", Fault.REQUEST),
    ],
)
def test_an_error_in_a_stream_is_sorted_by_its_words(type: str, message: str, fault: Fault) -> None:
    found = json.loads(body(type, message))
    error = decode_stream_error(found)
    assert (error.fault, error.status) == (fault, None)
    if fault in (Fault.REQUEST, Fault.TOO_LONG):
        assert error.reply is not None
        assert (error.reply.status, error.reply.dialect) == (400, "anthropic")
        assert json.loads(error.reply.body) == found


# ---------------------------------------------------------------------------------------------------- saying

FAULTS = [
    (Fault.REQUEST, None, 400, "invalid_request_error", None, None),
    (Fault.REQUEST, 401, 401, "authentication_error", None, None),
    (Fault.REQUEST, 402, 402, "billing_error", None, None),
    (Fault.REQUEST, 403, 403, "permission_error", None, None),
    (Fault.REQUEST, 404, 404, "not_found_error", None, None),
    (Fault.REQUEST, 413, 413, "request_too_large", None, None),
    (Fault.REQUEST, 429, 429, "rate_limit_error", None, None),
    (Fault.REQUEST, 422, 422, "invalid_request_error", None, None),
    (Fault.TOO_LONG, None, 400, "invalid_request_error", "context_length_exceeded", None),
    (Fault.CONFIG, None, 502, "api_error", "upstream_refused", "false"),
    (Fault.CONFIG, 401, 502, "api_error", "upstream_refused", "false"),
    (Fault.CONFIG, 403, 502, "api_error", "upstream_refused", "false"),
    (Fault.CONFIG, 429, 502, "api_error", "upstream_refused", "false"),
    (Fault.CONFIG, 404, 404, "not_found_error", "upstream_refused", "false"),
    (Fault.BUSY, None, 529, "overloaded_error", "server_is_overloaded", None),
    (Fault.BUSY, 529, 529, "overloaded_error", "server_is_overloaded", None),
    (Fault.BUSY, 503, 503, "overloaded_error", "server_is_overloaded", None),
    (Fault.BUSY, 402, 529, "overloaded_error", "server_is_overloaded", None),
    (Fault.BUSY, 429, 429, "rate_limit_error", "server_is_overloaded", None),
    (Fault.SERVER, None, 500, "api_error", "upstream_failed", "false"),
    (Fault.SERVER, 529, 529, "overloaded_error", "upstream_failed", "false"),
    (Fault.SERVER, 504, 504, "timeout_error", "upstream_failed", "false"),
    (Fault.BROKEN, None, 502, "api_error", "upstream_broken", "false"),
    (Fault.UNREACHABLE, None, 502, "api_error", "upstream_unreachable", "false"),
    (Fault.SILENT, None, 504, "timeout_error", "upstream_timeout", "false"),
    (Fault.CRASHED, None, 500, "api_error", "engine_crashed", "false"),
    (Fault.QUALITY, None, 502, "api_error", "upstream_bad_answer", "false"),
    (Fault.GONE, None, 499, "invalid_request_error", None, "false"),
    (Fault.STOPPED, 503, 503, "api_error", None, "false"),
]


def test_every_fault_has_a_row() -> None:
    assert {row[0] for row in FAULTS} == set(Fault)


@pytest.mark.parametrize(("fault", "given", "status", "named", "code", "retry"), FAULTS)
def test_every_fault_is_said_in_anthropics_words(
    fault: Fault, given: int | None, status: int, named: str, code: str | None, retry: str | None
) -> None:
    error = BackendError(fault, "prompt is too long", status=given)
    reply = encode_error(error, id="req_1")
    assert (reply.status, reply.dialect, status_of(error)) == (status, "anthropic", status)
    said: dict[str, Any] = {"type": named, "message": "prompt is too long"}
    if code is not None:
        said["details"] = {"error_code": code}
    assert json.loads(reply.body) == {"type": "error", "error": said, "request_id": "req_1"}
    headers = dict(reply.headers)
    assert (headers["content-type"], headers["request-id"]) == ("application/json", "req_1")
    assert headers.get("x-should-retry") == retry
    assert headers.get("retry-after") == ("1" if fault is Fault.BUSY else None)


def test_without_an_id_none_is_said() -> None:
    assert "request_id" not in error_body(BackendError(Fault.SERVER, "m"))
    assert "request-id" not in dict(encode_error(BackendError(Fault.SERVER, "m")).headers)


def test_agents_find_the_words_for_a_conversation_that_does_not_fit() -> None:
    error = BackendError(Fault.TOO_LONG, "9 tokens do not fit into 8.", words=None)
    assert error_body(error)["error"]["message"] == "prompt is too long: 9 tokens do not fit into 8."
    already = BackendError(Fault.TOO_LONG, "m", words="Prompt is too long: 9 > 8")
    assert error_body(already)["error"]["message"] == "Prompt is too long: 9 > 8"


def test_the_words_of_a_cloud_of_another_dialect_are_said_in_this_one() -> None:
    theirs = Reply(status=400, body=b"theirs", dialect="openai")
    error = BackendError(
        Fault.REQUEST, "ours", status=400, reply=theirs, words="Unsupported value", code="unsupported_value"
    )
    assert json.loads(encode_error(error).body)["error"] == {
        "type": "invalid_request_error",
        "message": "Unsupported value",
        "details": {"error_code": "unsupported_value"},
    }


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (BackendError(Fault.REQUEST, "max_tokens must be at least 1."), anthropic.BadRequestError),
        (BackendError(Fault.REQUEST, "Wrong key.", status=401), anthropic.AuthenticationError),
        (BackendError(Fault.CONFIG, "No key.", status=401), anthropic.InternalServerError),
        (BackendError(Fault.BUSY, "Full."), anthropic.InternalServerError),
        (BackendError(Fault.BUSY, "Full.", status=429), anthropic.RateLimitError),
    ],
)
def test_the_official_client_understands_our_errors(error: BackendError, raised: type[Exception]) -> None:
    reply = encode_error(error, id="req_7")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(reply.status, content=reply.body, headers=reply.headers))
    with httpx2.Client(transport=transport) as http:
        client = anthropic.Anthropic(api_key="x", base_url="http://box", http_client=http, max_retries=0)
        with pytest.raises(raised) as caught:
            client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    found = caught.value
    assert isinstance(found, anthropic.APIStatusError)
    assert (found.request_id, found.api_message) == ("req_7", error.message)
    assert found.type == json.loads(reply.body)["error"]["type"]
