"""A cloud as a backend: what goes up, what comes down, what is no answer, and how it is closed."""

import asyncio
from contextlib import aclosing, suppress

import httpx
import pytest

from appliance.backends import cloud
from appliance.core.chat import BackendError, Fault, Finish, Opened, Wire
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import (
    ANSWER,
    BODY,
    JSON,
    KEY,
    SSE,
    WHOLE,
    Body,
    answered,
    backend,
    chunk,
    failed,
    read,
    sent,
    words,
)

# ------------------------------------------------------------------------------------------------ going up


def test_the_cloud_gets_the_clients_own_bytes_at_the_dialects_path():
    request = sent(base_url="https://cloud.test/v1/")
    assert (request.method, str(request.url), request.content) == (
        "POST",
        "https://cloud.test/v1/chat/completions",
        BODY,
    )


def test_an_alias_changes_the_models_value_and_nothing_else():
    assert sent(model="gpt-5-big").content == BODY.replace(b"gpt-4", b"gpt-5-big")


def test_what_carries_meaning_goes_up_and_what_is_between_two_others_does_not():
    meaning = [("openai-beta", "assistants=v2"), ("anthropic-version", "1"), ("x-title", "app"), ("user-agent", "mine")]
    between = [(name, "theirs") for name in sorted(cloud.NOT_PASSED_UP)] + [("x-appliance-route", "theirs")]
    headers = sent(headers=(*meaning, *between)).headers
    assert [(name, headers.get_list(name)) for name, _ in meaning] == [(name, [value]) for name, value in meaning]
    assert [name for name, value in headers.multi_items() if value == "theirs"] == []


@pytest.mark.parametrize(
    "name",
    "connection keep-alive te trailer transfer-encoding upgrade host content-length cookie accept-encoding "
    "content-encoding expect authorization x-api-key proxy-authorization origin".split(),
)
def test_this_header_never_goes_up(name):
    assert "theirs" not in sent(headers=((name, "theirs"),)).headers.get_list(name)


def test_our_key_is_shown_and_not_the_clients():
    headers = sent(headers=(("authorization", "Bearer client"), ("x-api-key", "client")), key=KEY).headers
    assert headers.get_list("authorization") == [f"Bearer {KEY}"]
    assert "authorization" not in sent(headers=(("authorization", "Bearer client"),)).headers


@pytest.mark.parametrize(("body", "accept"), [(BODY, "text/event-stream"), (WHOLE, "application/json")])
def test_we_ask_for_what_we_can_read(body, accept):
    headers = sent(body=body).headers
    found = [headers.get_list(name) for name in ("accept", "content-type", "accept-encoding", "host")]
    assert found == [[accept], ["application/json"], ["identity"], ["cloud.test"]]


def test_configured_headers_go_up():
    made = backend(
        lambda request: httpx.Response(200, headers=SSE, content=chunk(request.headers["x-team"], "stop")),
        headers=(("x-team", "blue"),),
    )
    assert words(asyncio.run(read(made))) == "blue"


# --------------------------------------------------------------------------------------------- coming down


def test_a_stream_comes_as_it_came_one_batch_for_each_read():
    pieces = [chunk("Th"), chunk("e q") + chunk("uick"), chunk(None, "stop"), b"data: [DONE]\n\n"]
    batches = answered(httpx.Response(200, headers=SSE, stream=Body(*pieces)))
    assert batches[0] == [Opened(headers=())]
    assert [words([batch]) for batch in batches[1:]] == ["Th", "e quick", "", ""]
    assert b"".join(event.wire.data for batch in batches[1:] for event in batch if event.wire) == b"".join(pieces)


def test_a_read_that_completes_no_event_gives_no_batch():
    half, rest = chunk("Hi")[:20], chunk("Hi")[20:]
    batches = answered(httpx.Response(200, headers=SSE, stream=Body(half, rest, chunk(None, "stop"))))
    assert [words([batch]) for batch in batches[1:]] == ["Hi", ""]


def test_what_the_decoder_still_holds_at_the_end_is_given():
    batches = answered(httpx.Response(200, headers=SSE, stream=Body(chunk("Hi"), chunk(None, "stop").rstrip(b"\n"))))
    assert Finish in [type(event) for event in batches[-1]]


def test_a_whole_answer_is_one_batch_with_its_very_bytes():
    [batch] = answered(httpx.Response(200, headers=JSON, stream=Body(ANSWER[:30], ANSWER[30:])), WHOLE)
    assert batch[0] == Opened(headers=())
    assert batch[1].wire == Wire("openai", ANSWER)
    assert (words([batch]), type(batch[-1])) == ("Hi", Finish)


def test_headers_that_carry_meaning_come_down_and_no_others():
    down = {"x-request-id": "q", "OpenAI-Version": "1", "x-ratelimit-remaining-tokens": "9", "anthropic-x": "a"}
    others = {"set-cookie": "a=b", "server": "nginx", "connection": "close", "date": "now", "cf-ray": "1"}
    batches = answered(httpx.Response(200, headers=SSE | down | others, content=chunk("Hi", "stop")))
    assert batches[0] == [Opened(headers=tuple((name.lower(), value) for name, value in down.items()))]


# ----------------------------------------------------------------------------------------- what is no answer


@pytest.mark.parametrize(
    ("body", "found", "message"),
    [
        (BODY, "text/html", "openai answered with text/html instead of text/event-stream."),
        (BODY, "application/json", "openai answered with application/json instead of text/event-stream."),
        (WHOLE, "text/event-stream", "openai answered with text/event-stream instead of application/json."),
        (WHOLE, "text/html; charset=utf-8", "openai answered with text/html instead of application/json."),
        (WHOLE, None, "openai answered with no content type instead of application/json."),
        (WHOLE, "x" * 500, f"openai answered with {'x' * 60} instead of application/json."),
    ],
)
def test_a_wrong_content_type_is_a_broken_answer(body, found, message):
    error = failed(httpx.Response(200, headers={"content-type": found} if found else {}, content=b"<html>"), body)
    assert (error.fault, error.message) == (Fault.BROKEN, message)


@pytest.mark.parametrize("found", ["Text/Event-Stream", "text/event-stream;charset=utf-8", "text/event-stream ; a=b"])
def test_a_content_type_may_be_written_in_many_ways(found):
    assert words(answered(httpx.Response(200, headers={"content-type": found}, content=chunk("Hi", "stop")))) == "Hi"


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.REQUEST),
        (401, Fault.CONFIG),
        (404, Fault.CONFIG),
        (429, Fault.BUSY),
        (500, Fault.SERVER),
        (204, Fault.BROKEN),
        (302, Fault.BROKEN),
        (511, Fault.BROKEN),
    ],
)
def test_another_status_is_for_the_dialect_to_judge(status, fault):
    response = httpx.Response(status, headers={"retry-after": "30", "location": "https://portal.test/"}, content=b"{}")
    error = failed(response)
    assert (error.fault, error.status) == (fault, status)
    if status == 429:
        assert error.retry_after == 30.0


def test_the_dialect_judges_by_the_clouds_own_words():
    full = b'{"error":{"code":"context_length_exceeded","message":"..."}}'
    assert failed(httpx.Response(400, headers=JSON, content=full)).fault is Fault.TOO_LONG


def test_a_redirect_is_not_followed():
    seen = []

    def network(request):
        seen.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://portal.test/login"})

    assert failed(network).fault is Fault.BROKEN
    assert seen == ["https://cloud.test/v1/chat/completions"]


def test_what_does_not_parse_is_broken_after_the_events_before_it():
    made = backend(httpx.Response(200, headers=SSE, stream=Body(chunk("Hi") + b"data: {nonsense\n\n", chunk("no"))))
    got = []

    async def scene():
        async with aclosing(made.stream(OPENAI.parse(BODY), "gpt-4")) as batches:
            async for batch in batches:
                got.append(list(batch))

    with pytest.raises(BackendError) as caught:
        asyncio.run(scene())
    assert (words(got), caught.value.fault) == ("Hi", Fault.BROKEN)


def test_a_whole_answer_without_bounds_is_cut_off(monkeypatch):
    monkeypatch.setattr(cloud, "WHOLE_ANSWER_LIMIT", 100)
    body = Body(*[b"x" * 60] * 3)
    error = failed(httpx.Response(200, headers=JSON, stream=body), WHOLE)
    assert (error.fault, error.message) == (Fault.BROKEN, "openai sent an answer of more than 100 bytes.")
    assert body.closed


def test_a_whole_answer_may_be_as_long_as_the_limit(monkeypatch):
    monkeypatch.setattr(cloud, "WHOLE_ANSWER_LIMIT", len(ANSWER))
    assert words(answered(httpx.Response(200, headers=JSON, stream=Body(ANSWER[:30], ANSWER[30:])), WHOLE)) == "Hi"


# --------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("batches_read", [1, 2])
def test_closing_the_stream_closes_the_response(batches_read):
    body = Body(chunk("a"), chunk("b"), chunk("c"))
    made = backend(httpx.Response(200, headers=SSE, stream=body))

    async def scene():
        batches = made.stream(OPENAI.parse(BODY), "gpt-4")
        for _ in range(batches_read):
            await anext(batches)
        assert not body.closed
        await batches.aclose()
        return body.closed

    assert asyncio.run(scene())


@pytest.mark.parametrize(
    "response",
    [
        (200, SSE, [chunk("a", "stop")]),
        (200, SSE, [chunk("a"), httpx.ReadError("cut")]),
        (200, SSE, [b"data: nonsense\n\n"]),
        (200, {"content-type": "text/html"}, [b"<html>"]),
        (500, JSON, [b"{}"]),
        (500, JSON, [httpx.ReadError("cut")]),
    ],
)
def test_however_it_ends_the_response_is_closed(response):
    status, headers, pieces = response
    body = Body(*pieces)
    with suppress(BackendError):
        answered(httpx.Response(status, headers=headers, stream=body))
    assert body.closed


def test_closing_the_backend_closes_its_connections():
    async def scene():
        made = backend(httpx.Response(200))
        await made.aclose()
        return made._client.is_closed

    assert asyncio.run(scene())
