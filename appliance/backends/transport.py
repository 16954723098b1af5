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
"""

from __future__ import annotations

import io
import ssl
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

from appliance.core.chat import BackendError, Fault, Headers

HANDSHAKE = 2.0
"""Seconds more than for a connection, for all of its name, other addresses, a proxy's part and TLS: 3 round trips by
satellite."""
KEPT = 50.0
"""Seconds a connection is kept for the next request: less than the 60 after which common load balancers close it."""
HEADER_LIMIT = 64 * 1024
LARGE = 1024 * 1024  # bytes of a body that is handed over in pieces

TROUBLE = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What may come out of a request or of reading its answer; `TimeoutError` and `ssl.SSLError` are `OSError`s."""


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
            connector=Connector(ssl=_authorities(self._ca), limit=0, keepalive_timeout=KEPT),
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
        return self._session


class Connector(aiohttp.TCPConnector):
    """aiohttp's, that gives up a kept connection on which something came that nobody had asked for. aiohttp would take
    it for the answer to the next request, and everybody's answers would be the one before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            line = connection.protocol
            assert line is not None
            if line not in self._used:
                self._used.add(line)
                return connection
            if not line.should_close:
                return connection
            connection.close()


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
def _authorities(ca: Path | None) -> ssl.SSLContext:
    """Who may vouch for a cloud. Made once: reading them takes longer than a request."""
    if ca is not None:
        context = ssl.create_default_context(cafile=str(ca))
    else:
        context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def translate(error: BaseException, name: str) -> BackendError:
    """Any exception of aiohttp to ours."""
    match error:
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch() | ssl.SSLCertVerificationError():
            return BackendError(Fault.UNREACHABLE, f"{name} could not prove who it is: the TLS handshake failed.")
        case aiohttp.ConnectionTimeoutError():
            return BackendError(Fault.UNREACHABLE, f"{name} did not accept a connection in time.", status=504)
        case aiohttp.ClientHttpProxyError(status=407):
            return BackendError(Fault.CONFIG, f"The proxy of {name} wants other credentials.", status=407)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return BackendError(Fault.UNREACHABLE, f"{name} cannot be reached: its proxy refused.", status=502)
        case aiohttp.ClientConnectorError():
            return BackendError(Fault.UNREACHABLE, f"{name} cannot be reached: no connection was made.", status=502)
        case TimeoutError():
            return BackendError(Fault.SILENT, f"{name} fell silent.", status=504)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return BackendError(Fault.CONFIG, f"The base_url or proxy of {name} is not a usable address.", status=502)
        case aiohttp.ClientError() | HttpProcessingError() | OSError():
            return BackendError(Fault.BROKEN, f"{name} broke off the connection.", status=502)
        case _:
            return BackendError(Fault.BROKEN, f"{name} failed with {type(error).__name__}.", status=502)
