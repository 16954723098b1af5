"""A cloud as a backend: what comes down, what is no answer, and how it is closed. Real sockets."""

import asyncio
import gzip
import zlib
from contextlib import aclosing, suppress

import pytest

from appliance.backends import cloud
from appliance.core.events import Finish, Opened, Wire
from appliance.core.fault import BackendError, Fault
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import (
    ANSWER,
    BODY,
    CUT,
    JSON,
    RESET,
    SSE,
    WHOLE,
    Gate,
    Silent,
    answered,
    chunk,
    failed,
    heard,
    read,
    says,
    within,
    words,
)

pytestmark = pytest.mark.live


# --------------------------------------------------------------------------------------------- coming down


def test_a_stream_comes_as_it_came_one_batch_for_each_read():
    pieces = [chunk("Th"), chunk("e q") + chunk("uick"), chunk(None, "stop"), b"data: [DONE]\n\n"]
    gates = [Gate() for _ in pieces]

    async def scene(made, _):
        got = []
        async with aclosing(made.stream(OPENAI.parse(BODY), "gpt-4")) as batches:
            got.append(await anext(batches))
            for gate in gates:
                gate.open.set()
                got.append(await anext(batches))
        return got

    talk = [one for pair in zip(gates, pieces, strict=True) for one in pair]
    batches = within(scene, says(200, SSE, *talk))
    assert batches[0] == [Opened(headers=())]
    assert [words([batch]) for batch in batches[1:]] == ["Th", "e quick", "", ""]
    assert b"".join(event.wire.data for batch in batches[1:] for event in batch if event.wire) == b"".join(pieces)


def test_a_read_that_completes_no_event_gives_no_batch():
    half, rest = chunk("Hi")[:20], chunk("Hi")[20:]
    gate = Gate()

    async def scene(made, _):
        async with aclosing(made.stream(OPENAI.parse(BODY), "gpt-4")) as batches:
            await anext(batches)
            asyncio.get_running_loop().call_later(0.05, gate.open.set)
            return await anext(batches)

    assert words([within(scene, says(200, SSE, half, gate, rest, chunk(None, "stop")))]) == "Hi"


def test_what_the_decoder_still_holds_at_the_end_is_given():
    batches = answered(says(200, SSE, chunk("Hi"), chunk(None, "stop").rstrip(b"\n")))
    assert Finish in [type(event) for event in batches[-1]]


def test_a_whole_answer_is_one_batch_with_its_very_bytes():
    [batch] = answered(says(200, JSON, ANSWER[:30], ANSWER[30:]), WHOLE)
    assert batch[0] == Opened(headers=())
    assert batch[1].wire == Wire("openai", ANSWER)
    assert (words([batch]), type(batch[-1])) == ("Hi", Finish)


@pytest.mark.parametrize(
    ("name", "packed"),
    [("gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_an_answer_that_was_packed_unasked_is_unpacked(name, packed):
    packing = {"content-encoding": name}
    [batch] = answered(says(200, JSON | packing, packed(ANSWER)), WHOLE)
    assert batch[1].wire == Wire("openai", ANSWER)
    stream = packed(chunk("Hi", "stop"))
    assert words(answered(says(200, SSE | packing, stream[:10], stream[10:]))) == "Hi"


def test_words_that_were_packed_come_as_soon_as_they_are_there():
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(chunk("Hi")) + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(chunk(None, "stop")) + packer.flush()
    gate = Gate()

    async def scene(made, _):
        async with aclosing(made.stream(OPENAI.parse(BODY), "gpt-4")) as batches:
            await anext(batches)
            return await anext(batches)

    assert words([within(scene, says(200, SSE | {"content-encoding": "gzip"}, first, gate, rest))]) == "Hi"


@pytest.mark.parametrize("name", ["gzip", "br", "x-own"])
def test_a_packing_that_is_not_what_it_says_is_a_broken_answer(name):
    error = failed(says(200, SSE | {"content-encoding": name}, b"this is not packed"))
    assert error.fault is Fault.BROKEN


def test_headers_that_carry_meaning_come_down_and_no_others():
    down = {
        "x-request-id": "q",
        "OpenAI-Version": "1",
        "x-ratelimit-remaining-tokens": "9",
        "anthropic-x": "a",
        "request-id": "r",
        "retry-after-ms": "5",
        "x-should-retry": "false",
    }
    others = {"set-cookie": "a=b", "server": "nginx", "date": "now", "cf-ray": "1"}
    batches = answered(says(200, SSE | down | others, chunk("Hi", "stop")))
    assert batches[0] == [Opened(headers=tuple((name.lower(), value) for name, value in down.items()))]


def test_a_header_comes_down_in_its_very_bytes_and_as_often_as_it_came():
    arrow = "\u2192".encode()
    headers = [*SSE.items(), (b"x-request-id", arrow), (b"x-request-id", b"caf\xe9")]
    batches = answered(says(200, headers, chunk("Hi", "stop")))
    assert [value.encode("latin-1") for _, value in batches[0][0].headers] == [arrow, b"caf\xe9"]


def test_headers_may_be_long():
    batches = answered(says(200, SSE | {"x-request-id": "q" * 30_000}, chunk("Hi", "stop")))
    assert batches[0][0].headers == (("x-request-id", "q" * 30_000),)


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
    error = failed(says(200, {"content-type": found} if found else {}, b"<html>"), body)
    assert (error.fault, error.message) == (Fault.BROKEN, message)


@pytest.mark.parametrize("found", ["Text/Event-Stream", "text/event-stream;charset=utf-8", "text/event-stream ; a=b"])
def test_a_content_type_may_be_written_in_many_ways(found):
    assert words(answered(says(200, {"content-type": found}, chunk("Hi", "stop")))) == "Hi"


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (400, Fault.REQUEST),
        (401, Fault.CONFIG),
        (404, Fault.CONFIG),
        (429, Fault.BUSY),
        (500, Fault.SERVER),
        (302, Fault.BROKEN),
        (511, Fault.BROKEN),
    ],
)
def test_another_status_is_for_the_dialect_to_judge(status, fault):
    error = failed(says(status, {"retry-after": "30", "location": "https://portal.test/"}, b"{}"))
    assert (error.fault, error.status) == (fault, status)
    if status == 429:
        assert error.retry_after == 30.0


def test_an_answer_of_no_content_is_broken():
    assert failed(b"HTTP/1.1 204 No Content\r\n\r\n").fault is Fault.BROKEN


def test_the_dialect_judges_by_the_clouds_own_words():
    full = b'{"error":{"code":"context_length_exceeded","message":"..."}}'
    assert failed(says(400, JSON, full)).fault is Fault.TOO_LONG


def test_a_long_error_page_is_judged_by_its_status():
    error = failed(says(400, JSON, b'{"error":{"message":"' + b"x" * (1 << 20) + b'"}}'))
    assert (error.fault, error.status) == (Fault.REQUEST, 400)


def test_a_redirect_is_not_followed():
    async def scene(made, cloud):
        with pytest.raises(BackendError) as caught:
            await read(made)
        return caught.value.fault, [request.target for request in cloud.sent]

    found = within(scene, says(307, {"location": "/elsewhere"}))
    assert found == (Fault.BROKEN, ["/v1/chat/completions"])


def test_what_does_not_parse_is_broken_after_the_events_before_it():
    got, error = within(lambda made, _: heard(made), says(200, SSE, chunk("Hi") + b"data: {nonsense\n\n", chunk("no")))
    assert (got, error.fault) == ("Hi", Fault.BROKEN)


def test_a_whole_answer_without_bounds_is_cut_off(monkeypatch):
    monkeypatch.setattr(cloud, "WHOLE_ANSWER_LIMIT", 100)
    gate = Gate()

    async def scene(made, there):
        with pytest.raises(BackendError) as caught:
            await read(made, WHOLE)
        await there.departed.wait()
        return caught.value

    error = within(scene, says(200, JSON, b"x" * 60, b"x" * 60, gate))
    assert (error.fault, error.message) == (Fault.BROKEN, "openai sent an answer of more than 100 bytes.")


def test_a_whole_answer_may_be_as_long_as_the_limit(monkeypatch):
    monkeypatch.setattr(cloud, "WHOLE_ANSWER_LIMIT", len(ANSWER))
    assert words(answered(says(200, JSON, ANSWER[:30], ANSWER[30:]), WHOLE)) == "Hi"


# --------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("batches_read", [1, 2])
def test_closing_the_stream_hangs_up(batches_read):
    async def scene(made, there):
        batches = made.stream(OPENAI.parse(BODY), "gpt-4")
        for _ in range(batches_read):
            await anext(batches)
        assert there.open == 1
        await batches.aclose()
        await there.departed.wait()
        return there.open

    assert within(scene, says(200, SSE, chunk("a"), Gate())) == 0


def test_a_client_that_leaves_before_the_head_of_the_answer_hangs_up():
    async def scene(made, there):
        reading = asyncio.create_task(read(made))
        while not there.sent:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        while there.open:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    within(scene, Silent())


@pytest.mark.parametrize(
    "answer",
    [
        says(200, SSE, chunk("a"), RESET),
        says(200, SSE, chunk("a"), CUT),
        says(200, SSE, b"data: nonsense\n\n", Gate()),
        says(200, {"content-type": "text/html"}, b"<html>", Gate()),
        says(500, JSON, b"{", CUT),
    ],
)
def test_however_badly_it_ends_the_connection_is_given_up(answer):
    async def scene(made, there):
        with suppress(BackendError):
            await read(made)
        while there.open:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return made._transport._session.connector._conns

    assert not any(within(scene, answer).values())


def test_after_an_end_the_connection_is_kept_for_the_next_request():
    async def scene(made, there):
        for body in (BODY, WHOLE, BODY):
            await read(made, body)
        return there.made

    assert (
        within(
            scene, lambda asked: says(200, SSE, chunk("Hi", "stop")) if asked.body == BODY else says(200, JSON, ANSWER)
        )
        == 1
    )


def test_after_a_refusal_the_connection_is_kept_too():
    async def scene(made, there):
        for _ in range(3):
            with suppress(BackendError):
                await read(made)
        return there.made

    assert within(scene, says(429, JSON, b"{}")) == 1


def test_closing_the_backend_closes_its_connections():
    async def scene(made, there):
        await read(made)
        assert there.open == 1
        await made.aclose()
        while there.open:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return there.open

    assert within(scene, says(200, SSE, chunk("Hi", "stop"))) == 0
