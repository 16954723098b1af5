"""A cloud as a backend: a request in the cloud's dialect over HTTP, its answer as events.

This file knows httpx and nothing of any provider: bodies are the dialect's business, deadlines the relay's. Every
exception of httpx becomes a `BackendError` here, and a test holds the list complete.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from appliance.core.chat import BackendError, ChatRequest, Dialect, Event, Fault, Headers, Opened

WHOLE_ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; a model's answer is a thousand times smaller
OK = 200
LIST_SECONDS = 2.0
_SENDABLE = re.compile(r"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")
"""A header's value (RFC 9110 5.5)."""

NOT_PASSED_UP = frozenset(
    # hop-by-hop (RFC 9110 7.6.1), what describes our own body or connection, and what is a secret between two others
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade "
    "host content-length content-type accept accept-encoding content-encoding expect cookie "
    "authorization x-api-key api-key x-goog-api-key origin referer "
    "proxy-connection forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip".split()
)
PASSED_DOWN_PREFIXES = ("x-ratelimit-", "openai-", "anthropic-", "x-request-id", "request-id", "retry-after")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTarget:
    """Where a cloud is and how we show who we are. The key never appears in a repr."""

    name: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    headers: Headers = field(default=(), repr=False)
    connect: float = 3.0
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None


class CloudBackend:
    """One upstream that speaks `dialect`."""

    def __init__(self, target: CloudTarget, dialect: Dialect) -> None:
        self.name = target.name
        self._dialect = dialect
        self._url = f"{target.base_url.rstrip('/')}/{dialect.path}"
        self._models_url = f"{target.base_url.rstrip('/')}/models"
        self._headers = {name.lower(): value for name, value in target.headers}
        if target.key is not None:
            self._headers["authorization"] = f"Bearer {target.key}"
        # Silence is judged by the relay, which knows what was asked; only connecting has its limit here.
        timeout = httpx.Timeout(None, connect=target.connect, pool=target.connect)
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(target.ca)) if target.ca else True
        self._client = httpx.AsyncClient(
            timeout=timeout,
            verify=verify,
            proxy=target.proxy,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=60),
            follow_redirects=False,
            # Cookies are between a cloud and one of its clients; nobody here gets another's.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def models(self) -> tuple[str, ...]:
        """The names of the models this cloud says it has; none if it does not say within `LIST_SECONDS`."""
        try:
            response = await self._client.get(self._models_url, headers=self._headers, timeout=LIST_SECONDS)
            listed = response.json()["data"] if response.status_code == OK else []
            return tuple(model["id"] for model in listed if isinstance(model["id"], str))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return ()

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        """The cloud's answer, one batch of events per read; a whole answer as one single batch.

        Raises:
            BackendError: every way a cloud can fail, sorted by what we do about it.
        """
        if not all(_SENDABLE.fullmatch(value) for value in self._headers.values()):
            raise BackendError(Fault.CONFIG, f"The key or a header of {self.name} has characters that cannot be sent.")
        body = self._dialect.render(request, model)
        try:
            outgoing = self._client.build_request(
                "POST", self._url, content=body, headers=self._outgoing_headers(request)
            )
            response = await self._client.send(outgoing, stream=True)
            try:
                if response.status_code != OK:
                    body = await _read(response, self.name)
                    raise self._dialect.decode_error(response.status_code, _headers(response), body)
                self._check_content_type(response, stream=request.stream)
                opened = Opened(headers=_passed_down(response))
                if request.stream:
                    async with aclosing(self._events(response, opened)) as batches:
                        async for batch in batches:
                            yield batch
                else:
                    body = await _read(response, self.name)
                    yield [opened, *self._dialect.decode_whole(body)]
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise translate(error, self.name) from error

    async def _events(self, response: httpx.Response, opened: Opened) -> AsyncGenerator[Sequence[Event], None]:
        decoder = self._dialect.decoder()
        yield [opened]
        async for data in response.aiter_bytes():
            if events := decoder.feed(data):
                yield events
        if events := decoder.close():
            yield events

    def _outgoing_headers(self, request: ChatRequest) -> list[tuple[bytes, bytes]]:
        """The client's own, then what the configuration says about the same names, then what describes our body."""
        # What `Connection` names is between the client and us (RFC 9110 7.6.1).
        hops = {
            one.strip().lower() for name, value in request.headers if name == "connection" for one in value.split(",")
        }
        kept_back = NOT_PASSED_UP | hops | self._headers.keys()
        passed = [
            (name, value)
            for name, value in request.headers
            if name not in kept_back and not name.startswith("x-appliance-")
        ]
        accept = "text/event-stream" if request.stream else "application/json"
        ours = [("content-type", "application/json"), ("accept", accept), ("accept-encoding", "identity")]
        said = [*passed, *self._headers.items(), *ours]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said]

    def _check_content_type(self, response: httpx.Response, *, stream: bool) -> None:
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = "text/event-stream" if stream else "application/json"
        if found != wanted:
            raise BackendError(
                Fault.BROKEN, f"{self.name} answered with {found[:60] or 'no content type'} instead of {wanted}."
            )


async def _read(response: httpx.Response, name: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > WHOLE_ANSWER_LIMIT:
            raise BackendError(Fault.BROKEN, f"{name} sent an answer of more than {WHOLE_ANSWER_LIMIT} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def _headers(response: httpx.Response) -> Headers:
    # Latin-1, as they go on to the client: httpx would guess, and what it guesses may not be sendable.
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw)


def _passed_down(response: httpx.Response) -> Headers:
    return tuple((name, value) for name, value in _headers(response) if name.startswith(PASSED_DOWN_PREFIXES))


def translate(error: Exception, name: str) -> BackendError:
    """Any exception of httpx to ours; the sentence holds no address, no key and no text of the request."""
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return BackendError(Fault.UNREACHABLE, f"{name} did not accept a connection in time.", status=504)
        case httpx.ConnectError() if _is_tls(error):
            return BackendError(Fault.UNREACHABLE, f"{name} could not prove who it is: the TLS handshake failed.")
        case httpx.ConnectError() | httpx.ProxyError():
            return BackendError(Fault.UNREACHABLE, f"{name} cannot be reached: no connection was made.", status=502)
        case httpx.TimeoutException():
            return BackendError(Fault.SILENT, f"{name} fell silent.", status=504)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return BackendError(Fault.CONFIG, f"The base_url of {name} is not a usable address.", status=502)
        case httpx.NetworkError() | httpx.RemoteProtocolError() | httpx.DecodingError() | httpx.TooManyRedirects():
            return BackendError(Fault.BROKEN, f"{name} broke off the connection.", status=502)
        case _:
            return BackendError(Fault.BROKEN, f"{name} failed with {type(error).__name__}.", status=502)


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
