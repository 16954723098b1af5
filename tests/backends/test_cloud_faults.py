"""Every way in which aiohttp and a real line can fail, and where the key must not turn up."""

import asyncio
import gc
import inspect
import socket
import ssl
import struct
import traceback
from contextlib import suppress

import pytest
from aiohttp import client_exceptions, http_exceptions

from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.backends.transport import TROUBLE, translate
from appliance.core.fault import Fault
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import (
    CUT,
    JSON,
    KEY,
    RESET,
    SSE,
    WHOLE,
    Gate,
    Nonsense,
    chunk,
    failed,
    healthy,
    heard,
    listening,
    read,
    receive,
    says,
    within,
    words,
)

pytestmark = pytest.mark.live


# ----------------------------------------------------------------------------------- aiohttp's own exceptions

UNREACHABLE, BROKEN, SILENT, CONFIG = Fault.UNREACHABLE, Fault.BROKEN, Fault.SILENT, Fault.CONFIG
FAULTS = {
    "ClientConnectorError": UNREACHABLE,
    "ClientConnectorDNSError": UNREACHABLE,
    "ClientConnectorSSLError": UNREACHABLE,
    "ClientConnectorCertificateError": UNREACHABLE,
    "ClientSSLError": UNREACHABLE,
    "ServerFingerprintMismatch": UNREACHABLE,
    "ClientProxyConnectionError": UNREACHABLE,
    "ClientHttpProxyError": UNREACHABLE,
    "UnixClientConnectorError": UNREACHABLE,
    "ConnectionTimeoutError": UNREACHABLE,
    "ServerTimeoutError": SILENT,
    "SocketTimeoutError": SILENT,
    "InvalidURL": CONFIG,
    "InvalidUrlClientError": CONFIG,
    "NonHttpUrlClientError": CONFIG,
    "InvalidUrlRedirectClientError": CONFIG,
    "NonHttpUrlRedirectClientError": CONFIG,
    "RedirectClientError": BROKEN,
    "ClientError": BROKEN,
    "ClientConnectionError": BROKEN,
    "ClientConnectionResetError": BROKEN,
    "ClientOSError": BROKEN,
    "ClientPayloadError": BROKEN,
    "UploadAbortedError": BROKEN,
    "ClientResponseError": BROKEN,
    "ContentTypeError": BROKEN,
    "TooManyRedirects": BROKEN,
    "ServerConnectionError": BROKEN,
    "ServerDisconnectedError": BROKEN,
    "WSServerHandshakeError": BROKEN,
    "HttpProcessingError": BROKEN,
    "BadHttpMessage": BROKEN,
    "BadHttpMethod": BROKEN,
    "HttpBadRequest": BROKEN,
    "BadStatusLine": BROKEN,
    "InvalidHeader": BROKEN,
    "InvalidURLError": BROKEN,
    "LineTooLong": BROKEN,
    "PayloadEncodingError": BROKEN,
    "ContentEncodingError": BROKEN,
    "ContentLengthError": BROKEN,
    "TransferEncodingError": BROKEN,
    "DecompressSizeError": BROKEN,
}
NOT_RAISED_BY_A_REQUEST = {"WSMessageTypeError"}
KINDS = {
    kind
    for module in (client_exceptions, http_exceptions)
    for kind in vars(module).values()
    if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == module.__name__
}


def example(kind):
    """One exception of `kind`, without what it was made for: what it would say is not said."""
    made = kind.__new__(kind)
    made.args = (KEY,)
    return made


def test_every_exception_of_aiohttp_is_known_here():
    assert {kind.__name__ for kind in KINDS} == set(FAULTS) | NOT_RAISED_BY_A_REQUEST
    assert all(issubclass(kind, TROUBLE) for kind in KINDS if kind.__name__ in FAULTS)


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_it_becomes_a_fault_and_its_words_stay_behind(kind):
    if kind.__name__ in NOT_RAISED_BY_A_REQUEST:
        return
    error = translate(example(kind), "openai")
    assert error.fault is FAULTS[kind.__name__]
    assert KEY not in str(error) and "openai" in error.message


def test_what_took_too_long_is_a_504():
    late = {kind.__name__ for kind in KINDS if translate(example(kind), "openai").status == 504}
    assert late == {"ConnectionTimeoutError", "ServerTimeoutError", "SocketTimeoutError"}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimeoutError(), SILENT),
        (ConnectionResetError(KEY), BROKEN),
        (ssl.SSLError(KEY), BROKEN),
        (ssl.SSLCertVerificationError(KEY), UNREACHABLE),
    ],
)
def test_what_python_says_itself_is_known_too(error, fault):
    assert isinstance(error, TROUBLE)
    found = translate(error, "openai")
    assert (found.fault, KEY in found.message) == (fault, False)


# -------------------------------------------------------------------------------------------- lines that break

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
HI = chunk("Hi", "stop")


@pytest.mark.parametrize(
    ("answer", "said", "fault"),
    [
        (HEAD + b"connection: close\r\n\r\n" + HI, "Hi", None),
        (b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + HI, "Hi", None),
        (HEAD + b"content-length: 9999\r\n\r\n" + chunk("Hi"), "Hi", BROKEN),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(chunk("Hi")), chunk("Hi")), "Hi", BROKEN),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b" % (len(HI) + 1, HI), "Hi", BROKEN),
        (says(200, SSE, chunk("Hi"), CUT), "Hi", BROKEN),
        (says(500, JSON, b"{", CUT), "", BROKEN),
        (HEAD + b"content-encoding: gzip\r\nconnection: close\r\n\r\nnot gzip", "", BROKEN),
        (HEAD[:30], "", BROKEN),
        (HEAD, "", BROKEN),
        (b"", "", BROKEN),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "", BROKEN),
        (HEAD + b"x-long: " + b"x" * 100_000 + b"\r\n\r\n", "", BROKEN),
    ],
)
def test_a_real_line_that_breaks_is_broken(answer, said, fault):
    got, error = within(lambda made, _: heard(made), answer)
    assert (got, error and error.fault) == (said, fault)


@pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\nhello\r\nnonsense\r\n"])
def test_a_body_that_is_not_framed_as_it_says_is_broken(body):
    # What came just before the nonsense may be lost with it: no client has seen it.
    _, error = within(lambda made, _: heard(made), HEAD + b"transfer-encoding: chunked\r\n\r\n" + body)
    assert error.fault is BROKEN


@pytest.mark.parametrize("body", [WHOLE, None], ids=["whole", "streamed"])
def test_nonsense_in_mid_answer_is_noticed_though_the_connection_stays(body):
    gate = Gate()

    async def scene(made, _):
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        async with asyncio.timeout(5.0):
            return await heard(made, *([body] if body else []))

    said = chunk("Hi") if body is None else b'{"id":'
    answer = says(200, SSE if body is None else JSON, said, gate, Nonsense(b"zzzz\r\nhello\r\n"), Gate())
    got, error = within(scene, answer)
    assert (got, error.fault) == ("Hi" if body is None else "", BROKEN)


def test_a_reset_of_a_kept_connection_is_nothing_to_complain_of():
    """asyncio complains of an exception that nobody looked at."""
    gate = Gate()

    async def scene(made, cloud):
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        assert await heard(made) == ("Hi", None)
        for writer in list(cloud._writers):
            line = writer.transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await asyncio.sleep(0.05)
        return [one for one in gc.get_objects() if isinstance(one, asyncio.Future) and one._log_traceback]

    assert within(scene, says(200, SSE, chunk("Hi"), gate, chunk(None, "stop"))) == []


def test_a_reset_in_mid_answer_is_broken():
    def scene(made, _):
        return heard(made)

    _, error = within(scene, says(200, SSE, chunk("Hi"), RESET))
    assert error.fault is BROKEN
    _, error = within(lambda made, _: heard(made, WHOLE), says(200, JSON, b'{"id":', RESET))
    assert error.fault is BROKEN


def test_a_port_where_nobody_listens_is_unreachable():
    async def scene():
        async with listening(lambda _, __: None) as port:
            pass
        made = CloudBackend(CloudTarget(name="openai", base_url=f"http://127.0.0.1:{port}"), OPENAI)
        found = await heard(made)
        await made.aclose()
        return found

    _, error = asyncio.run(scene())
    assert (error.fault, error.status) == (UNREACHABLE, 502)


def test_a_name_that_nobody_has_is_unreachable():
    assert failed(b"", base_url="http://nobody.invalid/v1").fault is UNREACHABLE


def test_who_does_not_take_the_connection_in_time_is_unreachable():
    async def scene(made, _):
        # An address on this machine at which nothing is ever answered: a listener whose queue is full.
        with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
            late = CloudBackend(CloudTarget(name="openai", base_url=url, connect=0.05), OPENAI)
            try:
                return await heard(late)
            finally:
                await late.aclose()

    _, error = within(scene, b"")
    assert (error.fault, error.status) == (UNREACHABLE, 504)


# -------------------------------------------------------------------------------------------- kept connections


def test_a_kept_connection_that_the_cloud_has_closed_is_not_used():
    async def scene():
        made_in_all = 0

        async def once(reader, writer):
            nonlocal made_in_all
            made_in_all += 1
            await receive(reader)
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(HI) + HI)
            await writer.drain()
            writer.close()

        async with listening(once) as port:
            made = CloudBackend(CloudTarget(name="openai", base_url=f"http://127.0.0.1:{port}"), OPENAI)
            said = []
            for _ in range(5):
                said.append(words(await read(made)))
                await asyncio.sleep(0.01)  # the news of its end travel
            await made.aclose()
            return said, made_in_all

    assert asyncio.run(scene()) == (["Hi"] * 5, 5)


def test_a_request_is_never_sent_twice():
    async def scene():
        asked = 0

        async def speak(reader, writer):
            nonlocal asked
            await receive(reader)
            asked += 1
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(HI) + HI)
            await receive(reader)  # the second on this line is taken, and never answered
            asked += 1
            writer.close()

        async with listening(speak) as port:
            made = CloudBackend(CloudTarget(name="openai", base_url=f"http://127.0.0.1:{port}"), OPENAI)
            first, second = await heard(made), await heard(made)
            await made.aclose()
            return first[0], second[1].fault, asked

    assert asyncio.run(scene()) == ("Hi", BROKEN, 2)


UNASKED = HEAD + b"content-length: %d\r\n\r\n" % len(HI) + HI


@pytest.mark.parametrize(
    "unasked", [UNASKED, b"HTTP/1.1 408 Request Time-out\r\ncontent-length: 0\r\n\r\n", b"noise\r\n\r\n"]
)
@pytest.mark.parametrize("later", [False, True])
def test_what_a_cloud_says_unasked_is_no_answer_to_the_next_request(unasked, later):
    async def scene():
        asked = 0
        said = asyncio.Event()

        async def speak(reader, writer):
            nonlocal asked
            while True:
                await receive(reader)
                asked += 1
                mine = chunk(f"number {asked}", "stop")
                answer = HEAD + b"content-length: %d\r\n\r\n" % len(mine) + mine
                if later:
                    writer.write(answer)
                    await asyncio.sleep(0.02)
                    writer.write(unasked)
                else:
                    writer.write(answer + unasked)
                said.set()

        async with listening(speak) as port:
            made = CloudBackend(CloudTarget(name="openai", base_url=f"http://127.0.0.1:{port}"), OPENAI)
            heard_of = []
            for _ in range(4):
                said.clear()
                heard_of.append(await heard(made))
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await said.wait()
                await asyncio.sleep(0.02)
            await made.aclose()
            return heard_of

    for number, (words_of_it, error) in enumerate(asyncio.run(scene()), 1):
        # Noise that comes with an answer may cost it, but nobody ever gets another's.
        if error is None or later:
            assert (words_of_it, error) == (f"number {number}", None)
        else:
            assert words_of_it in ("", f"number {number}")


def test_a_server_that_speaks_first_is_asked_once_and_is_broken():
    async def scene():
        made_in_all = 0

        async def speak(reader, writer):
            nonlocal made_in_all
            made_in_all += 1
            writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
            await reader.read()

        async with listening(speak) as port:
            made = CloudBackend(CloudTarget(name="openai", base_url=f"http://127.0.0.1:{port}"), OPENAI)
            _, error = await heard(made)
            await made.aclose()
            return error.fault, made_in_all

    assert asyncio.run(scene()) == (BROKEN, 1)


# ------------------------------------------------------------------------------------------------- the key


def test_the_key_is_in_no_repr():
    target = CloudTarget(name="o", base_url="https://x", key=KEY, headers=(("x-api", KEY),), proxy=f"http://u:{KEY}@p")
    made = CloudBackend(CloudTarget(name="o", base_url="https://x", key=KEY), OPENAI)
    assert KEY not in repr(target) + str(target) + repr(made) + str(made)


@pytest.mark.parametrize("answer", [b"", says(401, JSON, b'{"error":{"code":"no"}}')])
def test_the_key_is_in_no_error_and_no_traceback(answer):
    error = failed(answer, key=KEY)
    assert KEY not in str(error) + repr(error) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\r\nx: y", f"{KEY}\0", f"{KEY}\u2192"])
def test_a_key_that_is_no_header_value_is_the_configurations_fault(key):
    error = failed(healthy, key=key)
    assert error.fault is CONFIG
    assert KEY not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "address", ["http://[::1", "ftp://cloud.test/v1", "cloud.test/v1", "http:///v1", "http://a:b@cloud.test/"]
)
def test_an_address_that_is_none_is_the_configurations_fault(address):
    assert failed(healthy, base_url=address, key=KEY).fault is CONFIG
