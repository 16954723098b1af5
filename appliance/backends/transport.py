"""HTTP to one cloud: its connections, its certificates, its proxy, and every way in which these fail.

Rules of this file:

1. It knows aiohttp, and nothing of any provider. Every exception of aiohttp becomes a `BackendError` here, and a test
   holds the list complete; its sentence holds no address, no key and no text of the request.
2. An answer is what the cloud said: no redirect is followed, no cookie kept, no password looked up in a file, and a
   body that ends before its end is an error.
3. Nothing is ever sent twice. A kept connection that the cloud has closed, or on which it said something unasked, is
   noticed before a request is written.
4. It does not look at the environment: which proxy and which authorities hold is the configuration's to say.
5. Only connecting has a limit here: silence is judged by the relay, which knows what was asked.
6. Why there is no connection is said so that whoever reads it knows what to mend.
"""

from __future__ import annotations

import asyncio
import errno
import io
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp
import certifi
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from appliance.core.chat import Headers
from appliance.core.fault import BackendError, Fault

HANDSHAKE = 5.0
"""Seconds for TLS, from when the connection stands. A connection and this together are also the most that a cloud's
name, all of its addresses and a proxy's part may take."""
KEPT = 50.0
"""Seconds a connection is kept for the next request: less than the 60 after which common load balancers close it."""
HEADER_LIMIT = 64 * 1024
LARGE = 1024 * 1024  # bytes of a body that is handed over in pieces

TROUBLE = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What may come out of a request or of reading its answer; `TimeoutError` and `ssl.SSLError` are `OSError`s."""

# Of OpenSSL: what is wrong with a certificate (X509_V_ERR_...), and what comes of an answer that is no TLS.
STRANGER = "its certificate is of an authority that is not known here"
OTHER_NAME = "its certificate is for another name"
DOUBTS = {
    9: "its certificate is not valid yet by this machine's clock",
    10: "its certificate has expired",
    18: "its certificate is self-signed",
    **dict.fromkeys((2, 19, 20, 21), STRANGER),
    **dict.fromkeys((62, 64), OTHER_NAME),
}
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")

NO_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


class Transport:
    """The way to one cloud. Connections are made when they are needed and kept for a while."""

    def __init__(self, *, connect: float, proxy: str | None, ca: Path | None) -> None:
        self._connect = connect
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None
        self._proxy = proxy

    async def request(self, method: str, url: str, headers: Headers, body: bytes = b"") -> aiohttp.ClientResponse:
        """Send it, and read the answer's head. Whoever called closes the answer. Raises one of `TROUBLE`."""
        # Larger than that, aiohttp wants something it can read piece by piece; so do the other requests of this loop.
        content = body if len(body) < LARGE else io.BytesIO(body)
        said = CIMultiDict((name, _letters(value)) for name, value in headers)
        try:
            session = self._session or self._open()
            return await session.request(
                method,
                URL(url, encoded=True),
                data=content or None,
                headers=said,
                proxy=self._proxy,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorDNSError as error:
            if self._proxy is None:
                raise
            # It looked for the proxy's name; the cloud's is the proxy's to look for.
            raise aiohttp.ClientProxyConnectionError(error._conn_key, error.os_error) from error
        except aiohttp.ClientError:
            raise
        except ValueError as error:
            raise aiohttp.InvalidURL("") from error

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """The session; it can be made only where a loop runs."""
        if self._proxy is not None and URL(self._proxy).scheme not in ("http", "https"):
            raise aiohttp.InvalidURL("", "The proxy speaks something else than HTTP.")
        self._session = aiohttp.ClientSession(
            connector=Connector(ssl=authorities(self._ca), limit=0, keepalive_timeout=KEPT),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self._connect + HANDSHAKE,
                sock_connect=self._connect,
            ),
            # Cookies are between a cloud and one of its clients; nobody here gets another's.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            max_line_size=HEADER_LIMIT,
            max_field_size=HEADER_LIMIT,
        )
        # aiohttp would ask a question that changes nothing again by itself, and a cloud that is down twice.
        self._session._retry_connection = False
        return self._session


class SlowHandshake(TimeoutError):
    """Somebody took the connection, and TLS came to no end."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's, that gives up a kept connection on which something came that nobody had asked for. aiohttp would take
    it for the answer to the next request, and everybody's answers would be the one before.

    TLS has its own time: aiohttp has one for both, and a cloud that is not there would be waited for as long as one
    that is slow to prove who it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[ResponseHandler] = WeakSet()
        self._shaking: WeakSet[aiohttp.ClientRequest] = WeakSet()
        """Those for which a handshake has begun, at one address or another."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            try:
                connection = await super().connect(req, traces, timeout)
            except TimeoutError as error:
                if req in self._shaking:
                    raise SlowHandshake from error
                raise
            line = connection.protocol
            assert line is not None
            if line not in self._used:
                self._used.add(line)
                return connection
            if not line.should_close:
                return connection
            connection.close()

    async def _wrap_create_connection(
        self, *args: Any, req: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout, **options: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        """To one of a cloud's addresses, and TLS if it is spoken there."""
        factory, *more = args
        async with asyncio.timeout(timeout.sock_connect) as limit:

            def connected() -> ResponseHandler:
                """asyncio asks for the protocol when the connection stands, and then shakes hands."""
                limit.reschedule(asyncio.get_running_loop().time() + HANDSHAKE)
                if options.get("ssl"):
                    self._shaking.add(req)
                made: ResponseHandler = factory()
                return made

            free = aiohttp.ClientTimeout(sock_connect=None)
            return await super()._wrap_create_connection(connected, *more, req=req, timeout=free, **options)

    async def _start_tls_connection(
        self,
        underlying_transport: asyncio.Transport,
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,
        client_error: type[Exception] = aiohttp.ClientConnectorError,
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """In the tunnel of a proxy."""
        self._shaking.add(req)
        longer = aiohttp.ClientTimeout(sock_connect=HANDSHAKE)
        return await super()._start_tls_connection(underlying_transport, req, longer, client_error)


def headers_of(response: aiohttp.ClientResponse) -> Headers:
    """As they came. Latin-1, as they go on to the client."""
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers)


def _letters(value: str) -> str:
    """A header's value, of whose bytes each is a letter here, so that aiohttp writes the same bytes: it writes UTF-8.
    What is none in UTF-8 goes up as the letters that it is in Latin-1."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except ValueError:
        return value


@cache
def authorities(ca: Path | None) -> ssl.SSLContext:
    """Who may vouch for a cloud. Made once: reading them takes longer than a request."""
    if ca is not None:
        context = ssl.create_default_context(cafile=str(ca))
    else:
        context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


_looked_at: WeakSet[asyncio.Future[None]] = WeakSet()


@contextmanager
def ended_with_its_connection(answer: aiohttp.ClientResponse) -> Iterator[None]:
    """While its body is read. aiohttp closes a connection on which something comes that is no HTTP, and forgets whoever
    waits for the rest of the body: without this, only a deadline would end that wait."""
    connection, content = answer.connection, answer.content
    closed = connection.protocol.closed if connection is not None and connection.protocol is not None else None
    if closed is None:
        yield
        return

    if closed not in _looked_at:  # else the loop would complain of each reset that nobody looked at it
        _looked_at.add(closed)
        closed.add_done_callback(lambda closed: closed.cancelled() or closed.exception())

    def tell(_: asyncio.Future[None]) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("The connection ended before the answer."))

    closed.add_done_callback(tell)
    try:
        yield
    finally:
        closed.remove_done_callback(tell)


def translate(error: BaseException, name: str) -> BackendError:
    """Any exception of aiohttp to ours."""
    match error:
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLCertVerificationError():
            return BackendError(Fault.UNREACHABLE, _no_proof(getattr(error, "os_error", error), name))
        case aiohttp.ConnectionTimeoutError(__cause__=SlowHandshake()):
            sentence = f"{name} took the connection, but the TLS handshake did not end in time."
            return BackendError(Fault.UNREACHABLE, sentence, status=504)
        case aiohttp.ConnectionTimeoutError():
            return BackendError(Fault.UNREACHABLE, f"{name} did not accept a connection in time.", status=504)
        case aiohttp.ClientHttpProxyError(status=407):
            return BackendError(Fault.CONFIG, f"The proxy of {name} wants other credentials.", status=407)
        case aiohttp.ClientHttpProxyError():
            return BackendError(Fault.UNREACHABLE, f"{name} cannot be reached: its proxy refused.", status=502)
        case aiohttp.ClientConnectorError():
            whose = "its proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else "it"
            cause = getattr(error, "os_error", error)
            sentence = f"{name} cannot be reached: {_no_connection(cause, whose)}."
            return BackendError(Fault.UNREACHABLE, sentence, status=502, certain=_without_a_route(cause))
        case TimeoutError():
            return BackendError(Fault.SILENT, f"{name} fell silent.", status=504)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return BackendError(Fault.CONFIG, f"The base_url or proxy of {name} is not a usable address.", status=502)
        case aiohttp.ClientError() | HttpProcessingError() | OSError():
            return BackendError(Fault.BROKEN, f"{name} broke off the connection.", status=502)
        case _:
            return BackendError(Fault.BROKEN, f"{name} failed with {type(error).__name__}.", status=502)


def _no_proof(error: BaseException, name: str) -> str:
    """Why nobody was believed to be the cloud."""
    if getattr(error, "reason", None) in NO_TLS:
        return f"{name} speaks no TLS on that port."
    why = DOUBTS.get(getattr(error, "verify_code", 0), "the TLS handshake failed")
    return f"{name} could not prove who it is: {why}."


def _no_connection(error: BaseException, whose: str) -> str:
    """Why `whose` connection was not made: the cloud's or its proxy's."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror):
        name = "its name" if whose == "it" else f"the name of {whose}"
        return f"{name} was not found" if number in NO_NAME else f"{name} could not be looked up"
    if number == errno.ECONNREFUSED:
        return f"{whose} refused the connection"
    if _without_a_route(error):
        return f"there is no route to {whose} in the network"
    if number == errno.ETIMEDOUT:
        return f"{whose} did not answer the knock"
    if isinstance(error, ConnectionError):
        return f"{whose} hung up before the connection stood"
    return "no connection was made" if whose == "it" else f"no connection to {whose} was made"


def _without_a_route(error: BaseException) -> bool:
    # The numbers of a failed look-up are others, and on some systems the same.
    return getattr(error, "errno", None) in NO_ROUTE and not isinstance(error, socket.gaierror)
