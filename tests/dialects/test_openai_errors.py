"""The table of failures, row by row, and what a client hears of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault, Reply
from appliance.dialects.openai_chat import OPENAI

QUOTA = "You exceeded your current quota, please check your plan and billing details."


def body(**error: Any) -> bytes:
    return json.dumps({"error": {"message": "m", "type": None, "param": None, "code": None, **error}}).encode()


@pytest.mark.parametrize(
    ("status", "said", "headers", "fault"),
    [
        (400, body(type="invalid_request_error", code="unsupported_parameter"), (), Fault.REQUEST),
        (400, body(), (), Fault.REQUEST),
        (400, b"", (), Fault.REQUEST),
        (400, b"<html>bad gateway in between</html>", (), Fault.BROKEN),
        (400, body(code="context_length_exceeded", type="invalid_request_error"), (), Fault.TOO_LONG),
        (400, body(message="This model's maximum context length is 8192 tokens."), (), Fault.TOO_LONG),
        (400, body(type="exceed_context_size_error"), (), Fault.TOO_LONG),
        (400, body(code="content_policy_violation"), (), Fault.REQUEST),
        (400, body(code="content_filter", message="content management policy"), (), Fault.REQUEST),
        (400, body(code="content_filter", message="maximum context length"), (), Fault.REQUEST),
        (400, body(type="insufficient_quota"), (), Fault.CONFIG),
        (400, body(code="billing_hard_limit_reached"), (), Fault.CONFIG),
        (400, body(message="Your credit balance is too low to use this API"), (), Fault.CONFIG),
        (400, body(message="API key not valid. Please pass a valid API key."), (), Fault.CONFIG),
        (400, body(message="Invalid API key"), (), Fault.CONFIG),
        (400, body(code="rate_limit_exceeded"), (), Fault.REQUEST),
        (400, body(message="the word billing alone is somebody's prompt"), (), Fault.REQUEST),
        (401, body(code="invalid_api_key"), (), Fault.CONFIG),
        (401, b"", (), Fault.CONFIG),
        (402, body(code=402, message="Insufficient credits"), (), Fault.CONFIG),
        (402, body(code=402), (("retry-after", "5"),), Fault.BUSY),
        (403, body(code="unsupported_country_region_territory"), (), Fault.CONFIG),
        (403, b"<html>", (), Fault.BROKEN),
        (403, body(code=403, message="flagged", metadata={"reasons": [], "flagged_input": "x"}), (), Fault.REQUEST),
        (403, body(message="Your input was flagged"), (), Fault.REQUEST),
        (404, body(code="model_not_found", type="invalid_request_error"), (), Fault.CONFIG),
        (404, b"<html>nginx</html>", (), Fault.CONFIG),
        (408, body(code=408), (), Fault.SILENT),
        (409, body(), (), Fault.REQUEST),
        (413, b"<html>too large</html>", (), Fault.REQUEST),
        (413, body(code="rate_limit_exceeded", type="tokens"), (), Fault.TOO_LONG),
        (422, b'{"detail": [{"loc": ["body"]}]}', (), Fault.REQUEST),
        (429, body(code="rate_limit_exceeded", type="requests"), (), Fault.BUSY),
        (429, b"", (), Fault.BUSY),
        (429, body(type="insufficient_quota", code="insufficient_quota", message=QUOTA), (), Fault.CONFIG),
        (429, body(code="credit_balance_exhausted"), (), Fault.CONFIG),
        (429, body(code="organization_spend_limit_exceeded"), (), Fault.CONFIG),
        (429, body(code="project_spend_limit_exceeded"), (), Fault.CONFIG),
        (429, body(code="organization_usage_limit_exceeded"), (), Fault.CONFIG),
        (429, body(message=QUOTA), (), Fault.CONFIG),
        (429, body(message=QUOTA), (("retry-after", "7"),), Fault.BUSY),
        (429, body(message=QUOTA, details=[{"@type": "x.RetryInfo", "retryDelay": "34s"}]), (), Fault.BUSY),
        (500, body(type="server_error"), (), Fault.SERVER),
        (500, body(code="insufficient_quota"), (), Fault.SERVER),
        (500, body(code="context_length_exceeded"), (), Fault.SERVER),
        (502, b"<html>", (), Fault.SERVER),
        (503, body(code="server_is_overloaded"), (), Fault.SERVER),
        (503, body(), (("retry-after", "3"),), Fault.BUSY),
        (529, b"", (("retry-after", "3"),), Fault.BUSY),
        (529, b"", (), Fault.SERVER),
        (504, b"", (("retry-after", "3"),), Fault.SERVER),
        (301, b"", (("location", "http://login.example/"),), Fault.BROKEN),
        (302, b"<html>", (), Fault.BROKEN),
        (204, b"", (), Fault.BROKEN),
        (511, b"<html>log in to the network</html>", (), Fault.BROKEN),
    ],
)
def test_every_row_of_the_table(status: int, said: bytes, headers: Headers, fault: Fault) -> None:
    error = OPENAI.decode_error(status, headers, said)
    assert (error.fault, error.status) == (fault, status)
    assert (error.reply is not None) == (fault in (Fault.REQUEST, Fault.TOO_LONG))


def test_the_callers_own_mistake_goes_back_unchanged() -> None:
    said = body(message="Unsupported parameter", code="unsupported_parameter", param="max_tokens")
    headers = (
        ("content-type", "application/json"),
        ("content-length", "99"),
        ("set-cookie", "a=b"),
        ("x-request-id", "req_1"),
        ("x-ratelimit-remaining-requests", "9"),
        ("openai-version", "2020-10-01"),
        ("content-encoding", "gzip"),
    )
    error = OPENAI.decode_error(400, headers, said)
    kept = (headers[0], headers[3], headers[4], headers[5])
    assert OPENAI.encode_error(error) == Reply(status=400, body=said, headers=kept, dialect="openai")
    assert (error.code, error.param) == ("unsupported_parameter", "max_tokens")


def test_a_prompt_in_an_error_of_a_cloud_is_not_in_ours() -> None:
    error = OPENAI.decode_error(400, (), body(message="my secret prompt", code="bad thing: my secret prompt"))
    assert str(error) == "The cloud refuses the request (400)."


@pytest.mark.parametrize("status", [401, 403, 404, 402, 429])
@pytest.mark.parametrize("said", ["correct-horse-battery-staple", "Tell me about the lighthouse."])
def test_no_word_of_a_cloud_that_may_be_a_key_or_a_prompt_is_repeated(status: int, said: str) -> None:
    error = OPENAI.decode_error(
        status, (), body(message=f"The credential {said} is not active", code="invalid_api_key")
    )
    assert said not in str(error)
    assert error.reply is None
    assert error.fault is not Fault.REQUEST
    assert said not in str(OPENAI.decode_error(401, (), body(message="x", code=said)))


@pytest.mark.parametrize(
    ("status", "says", "remedy"),
    [
        (401, {"code": "invalid_api_key"}, "invalid_api_key; it does not accept the key: look at the key"),
        (429, {"code": "insufficient_quota"}, "insufficient_quota; its credit is used up"),
        (400, {"message": "Your credit balance is too low"}, "; its credit is used up"),
        (404, {"code": "model_not_found"}, "model_not_found; it does not know the model"),
        (403, {"code": "unsupported_country_region_territory"}, "it does not serve this country"),
        (403, {}, "The cloud refuses us (403); it does not accept the key"),
    ],
)
def test_whoever_runs_the_box_is_told_what_to_look_at(status: int, says: dict[str, str], remedy: str) -> None:
    assert remedy in str(OPENAI.decode_error(status, (), body(**{"message": "", **says})))


FAULTS = [
    (Fault.REQUEST, None, 400, "invalid_request_error", None, None),
    (Fault.REQUEST, 404, 404, "invalid_request_error", None, None),
    (Fault.REQUEST, 401, 401, "authentication_error", None, None),
    (Fault.TOO_LONG, None, 400, "invalid_request_error", "context_length_exceeded", None),
    (Fault.CONFIG, None, 502, "server_error", "upstream_refused", "false"),
    (Fault.CONFIG, 401, 502, "server_error", "upstream_refused", "false"),
    (Fault.CONFIG, 429, 502, "server_error", "upstream_refused", "false"),
    (Fault.CONFIG, 404, 404, "invalid_request_error", "upstream_refused", "false"),
    (Fault.BUSY, None, 503, "service_unavailable_error", "server_is_overloaded", None),
    (Fault.BUSY, 429, 429, "rate_limit_error", "server_is_overloaded", None),
    (Fault.SERVER, None, 500, "server_error", "upstream_failed", "false"),
    (Fault.SERVER, 503, 503, "server_error", "upstream_failed", "false"),
    (Fault.BROKEN, None, 502, "server_error", "upstream_broken", "false"),
    (Fault.BROKEN, 302, 502, "server_error", "upstream_broken", "false"),
    (Fault.UNREACHABLE, None, 502, "server_error", "upstream_unreachable", "false"),
    (Fault.SILENT, None, 504, "server_error", "upstream_timeout", "false"),
    (Fault.SILENT, 408, 504, "server_error", "upstream_timeout", "false"),
    (Fault.CRASHED, None, 500, "server_error", "engine_crashed", "false"),
    (Fault.QUALITY, None, 502, "server_error", "upstream_bad_answer", "false"),
    (Fault.GONE, None, 499, "invalid_request_error", None, "false"),
    (Fault.STOPPED, 503, 503, "server_error", None, "false"),
]


def test_every_fault_has_a_row() -> None:
    assert {row[0] for row in FAULTS} == set(Fault)


@pytest.mark.parametrize(("fault", "given", "status", "named", "code", "retry"), FAULTS)
def test_every_fault_is_said_in_openais_words(
    fault: Fault, given: int | None, status: int, named: str, code: str | None, retry: str | None
) -> None:
    reply = OPENAI.encode_error(BackendError(fault, "So it is.", status=given, param="p"))
    assert reply.status == status
    assert json.loads(reply.body) == {"error": {"message": "So it is.", "type": named, "param": "p", "code": code}}
    headers = dict(reply.headers)
    assert headers["content-type"] == "application/json"
    assert headers.get("x-should-retry") == retry
    assert headers.get("retry-after") == ("1" if fault is Fault.BUSY else None)


def test_the_time_to_wait_is_given_in_whole_seconds_rounded_up() -> None:
    for seconds, said in ((0.0, "1"), (0.2, "1"), (7.0, "7"), (7.1, "8")):
        reply = OPENAI.encode_error(BackendError(Fault.BUSY, "m", retry_after=seconds))
        assert dict(reply.headers)["retry-after"] == said


def test_the_words_of_a_cloud_go_back_only_for_the_callers_own_mistake() -> None:
    theirs = Reply(status=418, body=b"theirs", dialect="openai")
    for fault in Fault:
        reply = OPENAI.encode_error(BackendError(fault, "ours", reply=theirs))
        assert (reply == theirs) == (fault in (Fault.REQUEST, Fault.TOO_LONG))


def test_the_words_of_a_cloud_of_another_dialect_are_said_in_this_one() -> None:
    theirs = Reply(status=400, body=b"theirs", dialect="anthropic")
    error = BackendError(Fault.REQUEST, "ours", status=400, reply=theirs, words="max_tokens: 1 is too small")
    assert json.loads(OPENAI.encode_error(error).body)["error"] == {
        "message": "max_tokens: 1 is too small",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert OPENAI.encode_error(error).dialect == "openai"


def test_the_words_are_kept_only_for_the_callers_own_mistake() -> None:
    assert OPENAI.decode_error(400, (), body(message="no such field")).words == "no such field"
    assert OPENAI.decode_error(400, (), body(message="")).words is None
    assert OPENAI.decode_error(401, (), body(message="no such key")).words is None
    assert OPENAI.decode_error(500, (), body(message="boom")).words is None


def test_the_official_client_understands_our_errors() -> None:
    reply = OPENAI.encode_error(BackendError(Fault.REQUEST, "temperature must be 0 to 2.", param="temperature"))
    transport = httpx.MockTransport(lambda _: httpx.Response(reply.status, content=reply.body, headers=reply.headers))
    with httpx.Client(transport=transport) as http:
        client = openai.OpenAI(api_key="x", base_url="http://box", http_client=http, max_retries=0)
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert caught.value.param == "temperature"
    assert "temperature must be 0 to 2." in str(caught.value)
