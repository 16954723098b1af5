"""Every way in which a stream says that it failed, or does not say it, from bytes to what the client is left with.

Each stream has said "Half a sen" when it happens. What comes next is told by the real decoder to the real relay: the
box goes on behind those words, or the answer was over, or the caller is told his own mistake.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from appliance.core.actions import Call, Done
from appliance.core.fault import BackendError, Fault
from tests.dialects.taxonomy import BROKEN, BUSY, DIALECTS, KEY, MODEL, THEIRS, TOO_LONG, Meaning, asked, body, meaning

SAID = "Half a sen"
HALF = {
    "openai": body("openai/error.sse").rpartition(b"data: ")[0],
    "anthropic": body("anthropic/error.sse").rpartition(b"event: ")[0],
}


@dataclass(frozen=True, slots=True)
class Fate:
    """``error``: what the decoder raised. ``next``: "answered", "caller", or what the box is to go on from."""

    error: BackendError | None
    next: str


def live(dialect: str, stream: bytes, size: int) -> Fate:
    """The stream, read in pieces of so many bytes."""
    relay = asked()
    decoder = DIALECTS[dialect].decoder()
    raised: BackendError | None = None
    actions = []
    try:
        for at in range(0, len(stream), size):
            relay.receive(decoder.feed(stream[at : at + size]), 1.0)
        relay.receive(decoder.close(), 1.0)
        actions = relay.end(1.0)
    except BackendError as error:
        raised = error
        actions = relay.fail(error, 1.0)
    match actions[-1]:
        case Call(_, request):
            return Fate(raised, request.committed.text if request.committed else "")
        case Done(None):
            return Fate(raised, "answered")
        case _:
            return Fate(raised, "caller")


def sse(found: Any, event: str = "") -> bytes:
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {json.dumps(found)}\n\n".encode()


def openai(**error: Any) -> bytes:
    return sse({"error": {"message": "m", **error}})


def anthropic(type: str, message: str = "m", **more: Any) -> bytes:
    return sse({"type": "error", "error": {"type": type, "message": message, **more}}, "error")


LATER = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]
GOOGLES = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
CUT = b'data: {"id":"chatcmpl-123","choices":[{"index":0,"delta":{"content":"t\xc3'

ERRORS: list[tuple[str, str, bytes, Meaning]] = [
    ("openai", "server error", openai(type="server_error"), BROKEN),
    ("openai", "OpenRouter's chunk", body("openai/openrouter_error.sse").rpartition(b"PROCESSING\n\n")[2], BROKEN),
    ("openai", "a number, 502", openai(code=502), BROKEN),
    ("openai", "a number, 499", openai(code=499), BROKEN),
    ("openai", "a number, 429", openai(code=429), BUSY),
    ("openai", "a number as text, 429", openai(code="429"), BUSY),
    ("openai", "a number, 401", openai(code=401), KEY),
    ("openai", "a number, 404", openai(code=404), MODEL),
    ("openai", "a number, 400", openai(code=400), THEIRS),
    ("openai", "rate limit", openai(code="rate_limit_exceeded", type="requests"), BUSY),
    ("openai", "quota", openai(code="insufficient_quota", type="insufficient_quota"), KEY),
    ("openai", "no such model", openai(code="model_not_found", type="invalid_request_error"), MODEL),
    ("openai", "too long", openai(code="context_length_exceeded", type="invalid_request_error"), TOO_LONG),
    ("openai", "filter", openai(code="content_filter"), THEIRS),
    ("openai", "unheard of", openai(code="never_heard_of_it"), BROKEN),
    ("openai", "a text", sse({"error": "Internal Server Error"}), BROKEN),
    ("openai", "a named event", sse({"message": "m"}, "error"), BROKEN),
    ("openai", "Google's own, bare", json.dumps(GOOGLES).encode() + b"\n\n", BROKEN),
    ("openai", "Google's own, in a list", json.dumps([GOOGLES]).encode() + b"\n\n", BROKEN),
    ("openai", "Anthropic's words", anthropic("overloaded_error"), BUSY),
    ("anthropic", "overloaded", body("anthropic/error.sse")[len(HALF["anthropic"]) :], BUSY),
    ("anthropic", "rate limit", anthropic("rate_limit_error"), BUSY),
    ("anthropic", "server error", anthropic("api_error"), BROKEN),
    ("anthropic", "timeout", anthropic("timeout_error"), BROKEN),
    (
        "anthropic",
        "spend cap",
        anthropic("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
        KEY,
    ),
    ("anthropic", "key", anthropic("authentication_error"), KEY),
    ("anthropic", "billing", anthropic("billing_error"), KEY),
    ("anthropic", "no such model", anthropic("not_found_error", "model: claude-9"), MODEL),
    ("anthropic", "too long", anthropic("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum"), TOO_LONG),
    ("anthropic", "bad request", anthropic("invalid_request_error"), THEIRS),
    ("anthropic", "unheard of", anthropic("never_heard_of_it"), BROKEN),
    ("anthropic", "without a name", anthropic("api_error").partition(b"\n")[2], BROKEN),
    ("anthropic", "OpenAI's words", openai(type="server_error"), BROKEN),
    *(
        (dialect, what, said, BROKEN)
        for dialect in ("openai", "anthropic")
        for what, said in (
            ("a page", body("between/502_nginx.html") + b"\r\n\r\n"),
            ("garbage", b"data: {oops\n\n"),
            ("no object", b"data: 7\n\n"),
            ("half a character", CUT),
            ("an end mark before the end", b"data: [DONE]\n\n"),
        )
    ),
    (
        "openai",
        "a reason that is none",
        sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}),
        BROKEN,
    ),
    ("anthropic", "a piece of no block", sse({"type": "content_block_delta", "index": 4, "delta": {}}), BROKEN),
]


@pytest.mark.parametrize(("dialect", "what", "said", "meant"), ERRORS, ids=[f"{row[0]}: {row[1]}" for row in ERRORS])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_an_error_in_mid_stream_is_gone_on_from(
    dialect: str, what: str, said: bytes, meant: Meaning, size: int
) -> None:
    fate = live(dialect, HALF[dialect] + said, size)
    assert fate.error is not None, what
    assert meaning(fate.error) == meant
    assert fate.next == ("caller" if meant is THEIRS else SAID)


def test_googles_time_to_wait_is_read_in_a_stream_too() -> None:
    said = sse({"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": LATER}})
    error = live("openai", HALF["openai"] + said, 9).error
    assert error is not None
    assert (error.fault, error.retry_after) == (Fault.BUSY, 34.0)


OPENAIS_END = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
ANTHROPICS_END = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}})
ENDS = {"openai": OPENAIS_END, "anthropic": ANTHROPICS_END}
LIFE = {
    "openai": b": OPENROUTER PROCESSING\n\n" * 3,
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n' * 3,
}


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("size", [1, 10**6])
def test_bytes_that_cease_before_the_end_are_a_failure_though_nobody_says_so(dialect: str, size: int) -> None:
    for behind in (b"", LIFE[dialect]):
        assert live(dialect, HALF[dialect] + behind, size) == Fate(None, SAID)
    if dialect == "anthropic":
        closed = sse({"type": "content_block_stop", "index": 0})
        assert live(dialect, HALF[dialect] + closed, size) == Fate(None, SAID)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_signs_of_life_alone_are_no_answer_and_the_next_one_begins_anew(dialect: str) -> None:
    assert live(dialect, LIFE[dialect], 5) == Fate(None, "")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("size", [1, 10**6])
def test_what_is_missing_or_wrong_behind_the_end_is_no_failure(dialect: str, size: int) -> None:
    ended = HALF[dialect] + ENDS[dialect]
    # Neither `[DONE]` nor `message_stop`; nonsense; an error; half an event.
    for behind in (b"", LIFE[dialect], b"data: {oops\n\n", openai(type="server_error"), CUT):
        assert live(dialect, ended + behind, size).next == "answered"


def test_an_event_of_a_type_that_nobody_knows_is_no_failure() -> None:
    stream = HALF["anthropic"] + sse({"type": "invented_yesterday", "index": 7}, "invented_yesterday") + ANTHROPICS_END
    assert live("anthropic", stream, 11) == Fate(None, "answered")


@pytest.mark.parametrize(("dialect", "reason"), [("openai", "content_filter"), ("anthropic", "refusal")])
def test_a_refusal_is_an_end_and_nobody_goes_round_it(dialect: str, reason: str) -> None:
    end = ENDS[dialect].replace(b'"stop"', f'"{reason}"'.encode()).replace(b'"end_turn"', f'"{reason}"'.encode())
    assert live(dialect, HALF[dialect] + end, 13) == Fate(None, "answered")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"", Fault.BROKEN),
        (b"<html><title>Log in</title></html>", Fault.BROKEN),
        (b'{"id": "x", "choices": [{"mess', Fault.BROKEN),
        (b"{}", Fault.BROKEN),
        (b"null", Fault.BROKEN),
        (b'{"error": {"message": "m", "code": 429}}', Fault.BUSY),
        (b'{"error": {"message": "m", "code": 502}}', Fault.BROKEN),
        (b'{"error": {"message": "m", "type": "invalid_api_key"}}', Fault.CONFIG),
        (b'{"error": {"message": "m", "type": "invalid_request_error"}}', Fault.REQUEST),
    ],
)
def test_a_whole_answer_of_status_200_that_is_none(dialect: str, said: bytes, fault: Fault) -> None:
    with pytest.raises(BackendError) as raised:
        DIALECTS[dialect].decode_whole(said)
    assert raised.value.fault is fault
