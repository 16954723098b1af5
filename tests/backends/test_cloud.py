"""A cloud as a backend: what goes up, what comes down, and every way of httpx to fail."""

import asyncio
import inspect
import json
import ssl
import traceback
from contextlib import aclosing, asynccontextmanager, suppress

import httpx
import pytest

from appliance.backends import cloud
from appliance.backends.cloud import CloudBackend, CloudTarget, translate
from appliance.core.chat import BackendError, Fault, Finish, Opened, TextDelta, Wire
from appliance.dialects.openai_chat import OPENAI

KEY = "sk-very-secret-0123456789"
BODY = b'{"model":"gpt-4","stream":true,  "messages":[{"role":"user","content":"Why?"}],"unheard_of":1}'
WHOLE = BODY.replace(b"true", b"false")
SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
ANSWER = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    },
    indent=3,
).encode()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def chunk(words=None, reason=None):
    delta = {} if words is None else {"content": words}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4", "choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


class Body(httpx.AsyncByteStream):
    """A body in pieces; an exception among them is raised, and it knows whether it was closed."""

    def __init__(self, *pieces):
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def aclose(self):
        self.closed = True


def backend(answer, **target):
    """A backend whose network is `answer`: a response, an exception, or a function of the request."""

    def network(request):
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    made = CloudBackend(CloudTarget(**{"name": "openai", "base_url": "https://cloud.test/v1", **target}), OPENAI)
    made._client._transport = httpx.MockTransport(network)
    return made


async def read(made, body=BODY, model="gpt-4", headers=()):
    async with aclosing(made.stream(OPENAI.parse(body, headers), model)) as batches:
        return [list(batch) async for batch in batches]


def answered(answer, body=BODY, model="gpt-4", headers=(), **target):
    return asyncio.run(read(backend(answer, **target), body, model, headers))


def failed(answer, body=BODY, headers=(), **target):
    with pytest.raises(BackendError) as caught:
        answered(answer, body, headers=headers, **target)
    return caught.value


def words(batches):
    return "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))


def sent(headers=(), body=BODY, model="gpt-4", **target):
    """The request as the cloud gets it."""
    seen = []

    def network(request):
        seen.append(request)
        if b"true" in body:
            return httpx.Response(200, headers=SSE, content=chunk("Hi", "stop"))
        return httpx.Response(200, headers=JSON, content=ANSWER)

    answered(network, body, model, headers, **target)
    return seen[0]


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
    between = [(name, "theirs") for name in sorted(cloud.NOT_PASSED_UP)] + [("x-appliance-route", "cloud")]
    headers = sent(headers=(*meaning, *between)).headers
    assert [(name, headers.get_list(name)) for name, _ in meaning] == [(name, [value]) for name, value in meaning]
    assert [name for name, value in headers.multi_items() if value == "theirs"] == []


@pytest.mark.parametrize(
    "name",
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "cookie"]
    + ["accept-encoding", "content-encoding", "expect", "authorization", "x-api-key", "proxy-authorization", "origin"],
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
    [(400, Fault.REQUEST), (401, Fault.CONFIG), (404, Fault.CONFIG), (429, Fault.BUSY), (500, Fault.SERVER)]
    + [(204, Fault.BROKEN), (302, Fault.BROKEN), (511, Fault.BROKEN)],
)
def test_another_status_is_for_the_dialect_to_judge(status, fault):
    response = httpx.Response(status, headers={"retry-after": "30", "location": "https://portal.test/"}, content=b"{}")
    error = failed(response)
    assert (error.fault, error.status) == (fault, status)
    if status == 429:
        assert error.retry_after == 30.0


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


# ------------------------------------------------------------------------------------- httpx's own exceptions

ROOTS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
FAULTS = {
    httpx.ConnectTimeout: Fault.UNREACHABLE,
    httpx.PoolTimeout: Fault.UNREACHABLE,
    httpx.ConnectError: Fault.UNREACHABLE,
    httpx.ProxyError: Fault.UNREACHABLE,
    httpx.ReadTimeout: Fault.SILENT,
    httpx.WriteTimeout: Fault.SILENT,
    httpx.TimeoutException: Fault.SILENT,
    httpx.UnsupportedProtocol: Fault.CONFIG,
    httpx.InvalidURL: Fault.CONFIG,
    httpx.NetworkError: Fault.BROKEN,
    httpx.ReadError: Fault.BROKEN,
    httpx.WriteError: Fault.BROKEN,
    httpx.CloseError: Fault.BROKEN,
    httpx.ProtocolError: Fault.BROKEN,
    httpx.LocalProtocolError: Fault.BROKEN,
    httpx.RemoteProtocolError: Fault.BROKEN,
    httpx.DecodingError: Fault.BROKEN,
    httpx.TooManyRedirects: Fault.BROKEN,
    httpx.TransportError: Fault.BROKEN,
    httpx.RequestError: Fault.BROKEN,
    httpx.HTTPError: Fault.BROKEN,
    httpx.HTTPStatusError: Fault.BROKEN,
    httpx.StreamError: Fault.BROKEN,
    httpx.StreamConsumed: Fault.BROKEN,
    httpx.StreamClosed: Fault.BROKEN,
    httpx.ResponseNotRead: Fault.BROKEN,
    httpx.RequestNotRead: Fault.BROKEN,
}
NOT_RAISED_BY_A_REQUEST = {httpx.CookieConflict}


def example(kind):
    """One exception of `kind`, with a secret in its words."""
    given = {"message": KEY, "request": httpx.Request("GET", "https://cloud.test"), "response": httpx.Response(500)}
    asked = inspect.signature(kind.__init__).parameters
    return kind(**{name: value for name, value in given.items() if name in asked})


def test_every_exception_of_httpx_is_known_here():
    kinds = {kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)}
    assert kinds == set(FAULTS) | NOT_RAISED_BY_A_REQUEST
    assert all(issubclass(kind, ROOTS) for kind in kinds)


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_it_becomes_a_fault_and_its_words_stay_behind(kind):
    error = translate(example(kind), "openai")
    assert error.fault is FAULTS[kind]
    assert KEY not in str(error) and error.message.startswith(("openai ", "The base_url of openai "))


@pytest.mark.parametrize(
    "kind", [kind for kind in FAULTS if kind is not httpx.InvalidURL], ids=lambda kind: kind.__name__
)
def test_no_exception_of_httpx_gets_past_the_backend_whole_or_streamed(kind):
    cut = Body(chunk("Hi"), example(kind))
    assert [failed(example(kind)).fault, failed(httpx.Response(200, headers=SSE, stream=cut)).fault] == [
        FAULTS[kind]
    ] * 2
    assert cut.closed


def test_a_refused_certificate_is_named_as_such():
    error = httpx.ConnectError("handshake")
    error.__cause__ = OSError("wrapped")
    error.__cause__.__context__ = ssl.SSLCertVerificationError("self-signed")
    found = translate(error, "openai")
    assert (found.fault, "TLS certificate" in found.message) == (Fault.UNREACHABLE, True)
    assert "TLS" not in translate(httpx.ConnectError("refused"), "openai").message


# ---------------------------------------------------------------------------------------------- real sockets


@asynccontextmanager
async def serving(talk):
    """A tiny server on this machine that says `talk` and hangs up; gives its base URL."""

    async def speak(reader, writer):
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError):  # whoever called has hung up
            await reader.readuntil(b"\r\n\r\n")
            writer.write(talk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def against(talk, **target):
    """What a backend has read from that server, and the error it ended with."""

    async def scene():
        async with serving(talk) as url:
            made = CloudBackend(CloudTarget(name="openai", base_url=url, **target), OPENAI)
            got, error = [], None
            try:
                async with aclosing(made.stream(OPENAI.parse(BODY), "gpt-4")) as batches:
                    async for batch in batches:
                        got.append(list(batch))
            except BackendError as caught:
                error = caught
            await made.aclose()
            return words(got), error

    return asyncio.run(scene())


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.mark.parametrize(
    ("talk", "heard", "fault"),
    [
        (HEAD + b"connection: close\r\n\r\n" + chunk("Hi", "stop"), "Hi", None),
        (HEAD + b"content-length: 9999\r\n\r\n" + chunk("Hi"), "Hi", Fault.BROKEN),
        (
            HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(chunk("Hi")), chunk("Hi")),
            "Hi",
            Fault.BROKEN,
        ),
        (HEAD + b"content-encoding: gzip\r\nconnection: close\r\n\r\nnot gzip", "", Fault.BROKEN),
        (b"", "", Fault.BROKEN),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "", Fault.BROKEN),
    ],
)
def test_a_real_line_that_breaks_is_broken(talk, heard, fault):
    got, error = against(talk)
    assert (got, error and error.fault) == (heard, fault)


def test_a_port_where_nobody_listens_is_unreachable():
    async def scene():
        async with serving(b"") as url:
            pass
        await read(CloudBackend(CloudTarget(name="openai", base_url=url), OPENAI))

    with pytest.raises(BackendError) as caught:
        asyncio.run(scene())
    assert (caught.value.fault, caught.value.status) == (Fault.UNREACHABLE, 502)


# ------------------------------------------------------------------------------------------------- the key


def test_the_key_is_in_no_repr():
    target = CloudTarget(name="o", base_url="https://x", key=KEY, headers=(("x-api", KEY),), proxy=f"http://u:{KEY}@p")
    made = CloudBackend(CloudTarget(name="o", base_url="https://x", key=KEY), OPENAI)
    assert KEY not in repr(target) + str(target) + repr(made) + str(made)


@pytest.mark.parametrize("answer", [httpx.ConnectError("x"), httpx.Response(401, content=b'{"error":{"code":"no"}}')])
def test_the_key_is_in_no_error_and_no_traceback(answer):
    error = failed(answer, key=KEY)
    assert KEY not in str(error) + repr(error) + "".join(traceback.format_exception(error))


# ------------------------------------------------------------------------------------------- known faults


def known(reason):
    return pytest.mark.xfail(strict=True, reason=f"cloud.py {reason}")


@known("stream(): build_request stands before the try, so InvalidURL gets past")
def test_an_address_that_is_none_is_the_configurations_fault():
    assert failed(httpx.Response(200), base_url="http://[::1").fault is Fault.CONFIG


@known("_outgoing_headers(): httpx encodes header values as ASCII, and its UnicodeEncodeError gets past")
def test_a_header_with_letters_beyond_ascii_goes_up_as_it_came():
    assert ("x-title".encode(), "Café".encode("latin-1")) in sent(headers=(("x-title", "Café"),)).headers.raw


@known("__init__(): httpx keeps the cloud's cookies and sends them with everybody's next request")
def test_a_cloud_that_sets_a_cookie_does_not_get_it_back():
    seen = []

    def network(request):
        seen.append(request.headers.get("cookie"))
        return httpx.Response(200, headers=SSE | {"set-cookie": "who=first; Path=/"}, content=chunk("Hi", "stop"))

    async def scene():
        made = backend(network)
        await read(made)
        await read(made)

    asyncio.run(scene())
    assert seen == [None, None]


@known("_outgoing_headers(): a configured header is added to the client's own of that name")
def test_a_configured_header_goes_before_the_clients_own():
    made = backend(
        lambda request: httpx.Response(200, headers=SSE, content=chunk(request.headers["openai-project"], "stop")),
        headers=(("OpenAI-Project", "ours"),),
    )
    assert words(asyncio.run(read(made, headers=(("openai-project", "theirs"),)))) == "ours"


@known("stream(): `raise ... from error` keeps h11's words, which quote the header with the key")
def test_a_key_that_is_no_header_value_is_not_quoted_in_a_traceback():
    _, error = against(b"", key=KEY + "\n")
    assert error is not None
    assert KEY not in "".join(traceback.format_exception(error))


@known("translate(): a key that cannot be sent is called the cloud's failure, and a header of a client's too")
def test_a_key_that_is_no_header_value_is_the_configurations_fault():
    _, error = against(b"", key=KEY + "\n")
    assert error is not None
    assert error.fault is Fault.CONFIG


@known("_read(): an error whose page is too long is BROKEN, whatever its status says")
def test_a_long_error_page_is_judged_by_its_status():
    error = failed(httpx.Response(400, headers=JSON, content=b'{"error":{"message":"' + b"x" * (1 << 20) + b'"}}'))
    assert (error.fault, error.status) == (Fault.REQUEST, 400)
