"""Every way in which httpx and a real line can fail, and where the key must not turn up."""

import asyncio
import inspect
import ssl
import traceback
from contextlib import aclosing, asynccontextmanager, suppress

import httpx
import pytest

from appliance.backends.cloud import CloudBackend, CloudTarget, translate
from appliance.core.chat import BackendError, Fault
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import BODY, JSON, KEY, SSE, Body, answered, backend, chunk, failed, read, sent, words


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


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


def test_what_took_too_long_is_a_504_and_the_rest_a_502():
    late = {kind for kind in FAULTS if translate(example(kind), "openai").status == 504}
    assert late == {kind for kind in FAULTS if issubclass(kind, httpx.TimeoutException)}
    assert {translate(example(kind), "openai").status for kind in set(FAULTS) - late} == {502}


def test_certificates_are_checked_unless_somebody_gives_another_authority():
    checked = CloudBackend(CloudTarget(name="openai", base_url="https://cloud.test"), OPENAI)._client._transport._pool
    context = checked._ssl_context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_refused_certificate_is_named_as_such():
    error = httpx.ConnectError("handshake")
    error.__cause__ = OSError("wrapped")
    error.__cause__.__context__ = ssl.SSLCertVerificationError("self-signed")
    found = translate(error, "openai")
    assert (found.fault, "TLS handshake" in found.message) == (Fault.UNREACHABLE, True)
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


# ------------------------------------------------------------------------------------- once found wrong


def test_an_address_that_is_none_is_the_configurations_fault():
    assert failed(httpx.Response(200), base_url="http://[::1").fault is Fault.CONFIG


def test_a_header_with_letters_beyond_ascii_goes_up_as_it_came():
    assert (b"x-title", "Café".encode("latin-1")) in sent(headers=(("x-title", "Café"),)).headers.raw


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


def test_a_configured_header_goes_before_the_clients_own():
    made = backend(
        lambda request: httpx.Response(200, headers=SSE, content=chunk(request.headers["openai-project"], "stop")),
        headers=(("OpenAI-Project", "ours"),),
    )
    assert words(asyncio.run(read(made, headers=(("openai-project", "theirs"),)))) == "ours"


def test_a_key_that_is_no_header_value_is_not_quoted_in_a_traceback():
    _, error = against(b"", key=KEY + "\n")
    assert error is not None
    assert KEY not in "".join(traceback.format_exception(error))


def test_a_key_that_is_no_header_value_is_the_configurations_fault():
    _, error = against(b"", key=KEY + "\n")
    assert error is not None
    assert error.fault is Fault.CONFIG


def test_a_long_error_page_is_judged_by_its_status():
    error = failed(httpx.Response(400, headers=JSON, content=b'{"error":{"message":"' + b"x" * (1 << 20) + b'"}}'))
    assert (error.fault, error.status) == (Fault.REQUEST, 400)


def test_a_header_comes_down_in_its_very_bytes():
    arrow = "\u2192".encode()
    batches = answered(
        httpx.Response(200, headers=[(b"x-request-id", arrow), *SSE.items()], content=chunk("Hi", "stop"))
    )
    assert [value.encode("latin-1") for _, value in batches[0][0].headers] == [arrow]
