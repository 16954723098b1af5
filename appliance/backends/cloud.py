"""A cloud as a backend: a request in the cloud's dialect over HTTP, its answer as events.

Rules of this file:

1. It knows nothing of any provider: bodies are the dialect's business, connections the transport's, deadlines the
   relay's.
2. A request of the cloud's own dialect goes up with the client's headers and query. Of another dialect only its meaning
   goes up: what the client says beside it was meant for somebody else.
3. What is a secret between two others never passes: the client's credentials go up only if the configuration says that
   they are the cloud's (`client_key`), and then a cloud that refuses them has an answer for the client, not for us.
4. What is lost in translation is said (`Degraded`).
5. With `watch_whole` a whole answer is asked for as a stream, so that whoever waits for it sees it grow (`Progress`),
   and is put together here. What a cloud refuses then and speaks of streaming may be our doing: it is asked again, as
   the caller asked. If that is answered, so are the next requests for this model, for `UNSTREAMED_S`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from aiohttp import ClientResponse

from appliance import __version__
from appliance.backends.growing import growing
from appliance.backends.health import PROBE_SECONDS, lives
from appliance.backends.transport import TROUBLE, Transport, ended_with_its_connection, headers_of, translate
from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import Degraded, Event, Opened, Progress
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.seams import PLAIN, Dialect, Quirks, Unfoldable, credential

WHOLE_ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; a model's answer is a thousand times smaller
OK = 200
EVENTS, JSON = "text/event-stream", "application/json"
NOT_STREAMED = frozenset(("audio",))
"""What an answer must be able to do that OpenAI does not do in the same way, or at all, in a stream."""
UNSTREAMED_S = 3600.0
UNSTREAMED = 256
"""Models remembered because they are not streamed."""
UNWELCOME = (401, 403)
OVERLOADED = (503, 529)
OF_THE_WAY = (404, 405, 407, 410)
"""What tells of an address, a proxy or a model, and not of who asks."""
LIST_SECONDS = 2.0
LIST_PAGES = 20
ASK_SECONDS = 3.0  # for what the box can answer by itself
_SENDABLE = re.compile(r"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")
"""A header's value (RFC 9110 5.5)."""

CREDENTIALS = frozenset("authorization x-api-key api-key".split())
CREDENTIAL_ENDS = ("-key", "-token", "authorization")
NO_CREDENTIALS = ("idempotency-key",)
NOT_PASSED_UP = frozenset(
    # hop-by-hop (RFC 9110 7.6.1), what describes our own body or connection, and what is a secret between two others
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade "
    "host content-length content-type accept accept-encoding content-encoding expect cookie "
    "x-goog-api-key origin referer "
    "proxy-connection forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip".split()
)
PASSED_DOWN_PREFIXES = (
    "x-ratelimit-",
    "openai-",
    "anthropic-",
    "x-request-id",
    "request-id",
    "retry-after",
    "x-should-retry",
)
_USER_AGENT = ("user-agent", f"fallback-appliance/{__version__}")
_ANSWER = (("content-type", "application/json"), ("accept-encoding", "identity"), ("accept", "application/json"))
_STREAM = (*_ANSWER[:2], ("accept", "text/event-stream"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTarget:
    """Where a cloud is and how we show who we are. The key never appears in a repr.

    ``key_header`` is where the key goes (`credential`); ``None``: where the dialect has it. With ``client_key`` there
    is no key of ours, and the client's own goes up. ``watch_whole``: whole answers are watched while they are written.
    """

    name: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    key_header: str | None = None
    client_key: bool = False
    headers: Headers = field(default=(), repr=False)
    quirks: Quirks = PLAIN
    connect: float = 3.0
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    watch_whole: bool = False


class CloudBackend:
    """One upstream that speaks `dialect`."""

    def __init__(self, target: CloudTarget, dialect: Dialect) -> None:
        self.name = target.name
        self._dialect = dialect
        self._base = target.base_url.rstrip("/")
        self._client_key = target.client_key
        self._quirks = target.quirks
        self._watch_whole = target.watch_whole
        self._unstreamed: dict[str, float] = {}  # until when which models are not asked for as a stream
        ours = {name.lower(): value for name, value in target.headers}
        if target.key is not None and not target.client_key:
            ours.update([credential(target.key, target.key_header or dialect.key_header)])
        self._ours = tuple(ours.items())
        self._sendable = all(_SENDABLE.fullmatch(value) for value in ours.values())
        self._kept_back = NOT_PASSED_UP | ours.keys() | (frozenset() if target.client_key else CREDENTIALS)
        # What is said if neither the client nor the configuration says it.
        self._said_anyway = tuple(one for one in (*dialect.said_anyway, _USER_AGENT) if one[0] not in ours)
        self._transport = Transport(connect=target.connect, proxy=target.proxy, ca=target.ca)

    async def aclose(self) -> None:
        await self._transport.aclose()

    # ------------------------------------------------------------------------------------------------ questions

    async def models(self) -> tuple[str, ...]:
        """The names of the models this cloud says it has; none if it does not say within `LIST_SECONDS`."""
        names: list[str] = []
        query = ""
        try:
            async with asyncio.timeout(LIST_SECONDS):
                for _ in range(LIST_PAGES):
                    page = json.loads(await self._get(self._dialect.models_path + query))
                    names += [model["id"] for model in page["data"] if isinstance(model["id"], str)]
                    if not page.get("has_more") or not page["data"]:
                        break
                    query = f"?limit=1000&after_id={quote(names[-1], safe='')}"
        except (*TROUBLE, BackendError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return ()
        return tuple(names)

    async def alive(self) -> bool:
        """Is somebody there? A question that costs nothing, and that any answer of the cloud's own answers."""
        headers = (*self._ours, *self._said_anyway, *_ANSWER)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                response = await self._transport.request("GET", f"{self._base}/{self._dialect.models_path}", headers)
                response.close()
        except TROUBLE:
            return False
        return lives(response.status, response.headers.get("content-type", ""))

    async def _get(self, path: str) -> bytes:
        headers = (*self._ours, *self._said_anyway, *_ANSWER)
        response = await self._transport.request("GET", f"{self._base}/{path}", headers)
        try:
            return await self._read(response) if response.status == OK else b"{}"
        finally:
            response.close()

    async def ask(self, path: str, body: bytes, request: ChatRequest) -> Reply:
        """The cloud's answer to a small question of its own dialect, like how many tokens `request` has.

        Raises:
            BackendError: what a refusal means, or that there was no answer within `ASK_SECONDS`.
        """
        assert request.dialect == self._dialect.name
        try:
            async with asyncio.timeout(ASK_SECONDS):
                response = await self._post(path, body, request, _ANSWER)
                try:
                    self._content_type(response, JSON)
                    found = await self._read(response)
                finally:
                    response.close()
        except TROUBLE as error:
            raise translate(error, self.name) from error
        kind = ("content-type", response.headers["content-type"])
        return Reply(status=OK, body=found, headers=(*_passed_down(response), kind), dialect=self._dialect.name)

    # -------------------------------------------------------------------------------------------------- answers

    def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        """The cloud's answer, one batch of events per read; a whole answer as one single batch, with `watch_whole`
        behind those that say how it grows.

        Raises:
            BackendError: every way a cloud can fail, sorted by what we do about it.
        """
        if self._watch_whole and not request.stream and not request.needs & NOT_STREAMED:
            return self._watched(request, model)
        return self._answer(request, model)

    async def _watched(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        clock = asyncio.get_running_loop().time
        refused = begun = False
        if self._unstreamed.get(model, -math.inf) <= clock():
            try:
                async with aclosing(self._answer(request, model, streamed=True)) as batches:
                    async for batch in batches:
                        begun = True
                        yield batch
                return
            except Unfoldable:
                pass
            except BackendError as error:
                refused = not begun and _is_of_streaming(error)
                # Behind a 200 it is told in other bytes than the caller would have seen.
                if error.fault is not Fault.REQUEST or not (begun or refused):
                    raise
        yield [Progress(kind="thinking", characters=0)]  # from here on nothing will be seen before the end
        async with aclosing(self._answer(request, model)) as batches:
            async for batch in batches:
                if refused:  # and this is not
                    self._not_streamed(model, clock() + UNSTREAMED_S)
                yield batch

    def _not_streamed(self, model: str, until: float) -> None:
        self._unstreamed.pop(model, None)  # the one remembered last stands last
        if len(self._unstreamed) >= UNSTREAMED:
            del self._unstreamed[next(iter(self._unstreamed))]
        self._unstreamed[model] = until

    async def _answer(
        self, request: ChatRequest, model: str, *, streamed: bool = False
    ) -> AsyncGenerator[Sequence[Event], None]:
        """`streamed`: though a whole answer is wanted."""
        asked = replace(request, stream=True) if streamed else request
        # There are proxies that stream nothing: what they answer is what was wanted.
        wanted = (EVENTS, JSON) if streamed else (EVENTS if request.stream else JSON,)
        body = self._dialect.render(asked, model, self._quirks)
        lost = self._lost(request, model)
        try:
            response = await self._post(self._dialect.path, body, request, _STREAM if asked.stream else _ANSWER)
            try:
                with ended_with_its_connection(response):
                    found = self._content_type(response, *wanted)
                    opening: list[Event] = [Opened(headers=_passed_down(response))]
                    opening += [Degraded(what=what) for what in lost]
                    if found == JSON:
                        yield [*opening, *self._dialect.decode_whole(await self._read(response))]
                        return
                    yield opening
                    if streamed:
                        fold = self._dialect.fold(request.n)
                        async with aclosing(growing(response.content, fold)) as steps:
                            async for progress in steps:
                                yield progress
                        yield self._dialect.decode_whole(fold.close())
                        return
                    decoder = self._dialect.decoder()
                    read = response.content.readany
                    while data := await read():
                        if events := decoder.feed(data):
                            yield events
                            decoder.feed(b"")  # what is wrong behind good words is told now, and not with the next read
                    if events := decoder.close():
                        yield events
            finally:
                response.close()  # at the end of its body the connection is already somebody else's
        except TROUBLE as error:
            raise translate(error, self.name) from error

    def _lost(self, request: ChatRequest, model: str) -> Iterable[str]:
        """The fields that the cloud is not told, each once."""
        here = self._dialect.losses(request, model, self._quirks)
        return here if request.dialect == self._dialect.name else dict.fromkeys((*request.unsaid, *here))

    async def _post(self, path: str, body: bytes, request: ChatRequest, about: Headers) -> ClientResponse:
        """An answer of status 200, its body still to be read. `about` is what our own headers say of both bodies."""
        if not self._sendable:
            raise BackendError(Fault.CONFIG, f"The key or a header of {self.name} has characters that cannot be sent.")
        url = f"{self._base}/{path}"
        if request.query and request.dialect == self._dialect.name:
            url += "?" + quote(request.query, safe="%/:=&?~+!$,;'@()*[]", encoding="latin-1")
        headers = (*self._outgoing(request), *about)
        response = await self._transport.request("POST", url, headers, body)
        if response.status == OK:
            return response
        try:
            with ended_with_its_connection(response):
                said = await self._read(response)
        finally:
            response.close()
        error = self._dialect.decode_error(response.status, headers_of(response), said)
        raise self._of_the_client(response, said, error) if self._client_key else error

    def _outgoing(self, request: ChatRequest) -> list[tuple[str, str]]:
        """The client's own, then what the configuration says about the same names, then what a cloud insists on."""
        if request.dialect != self._dialect.name:
            assert not self._client_key  # no such leg: the client's credential would be of another cloud
            return [*self._ours, *self._said_anyway]
        kept_back = self._kept_back
        for name, value in request.headers:
            if name == "connection":
                # What it names is between the client and us (RFC 9110 7.6.1).
                kept_back = kept_back | {one.strip().lower() for one in value.split(",")}
        passed = [one for one in request.headers if one[0] not in kept_back and not self._is_private(one[0])]
        said = {name for name, _ in passed}
        return [*passed, *self._ours, *(one for one in self._said_anyway if one[0] not in said)]

    def _is_private(self, name: str) -> bool:
        """Is it between the client and us, like a credential under a name of its own?"""
        credential = name.endswith(CREDENTIAL_ENDS) and name not in NO_CREDENTIALS and not self._client_key
        return credential or name.startswith("x-appliance-")

    def _of_the_client(self, response: ClientResponse, said: bytes, error: BackendError) -> BackendError:
        """A cloud that refuses the client's own credential says so to the client, which can renew it; a page in its
        place is not the cloud's. Its money and its limits are its own as well."""
        if response.status not in UNWELCOME or said.lstrip()[:1] == b"<":
            ours = (*OVERLOADED, *OF_THE_WAY)
            error.private = error.fault in (Fault.CONFIG, Fault.BUSY) and response.status not in ours
            return error
        kept = tuple(one for one in headers_of(response) if one[0] in ("content-type", "www-authenticate"))
        reply = Reply(
            status=response.status,
            body=said,
            headers=(*_passed_down(response), *kept),
            dialect=self._dialect.name,
        )
        message = f"{self.name} does not accept the caller's own credential."
        return BackendError(Fault.REQUEST, message, status=response.status, reply=reply, words=error.words)

    def _content_type(self, response: ClientResponse, *wanted: str) -> str:
        """What of `wanted` it is."""
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if found in wanted:
            return found
        shown = found[:60] or "no content type"
        raise BackendError(Fault.BROKEN, f"{self.name} answered with {shown} instead of {wanted[0]}.")

    async def _read(self, response: ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > WHOLE_ANSWER_LIMIT:
                message = f"{self.name} sent an answer of more than {WHOLE_ANSWER_LIMIT} bytes."
                raise BackendError(Fault.BROKEN, message)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _is_of_streaming(refusal: BackendError) -> bool:
    """Does it speak of streaming, in whatever place? What only repeats our request is then asked once too often."""
    return refusal.reply is not None and b"stream" in refusal.reply.body.lower()


def _passed_down(response: ClientResponse) -> Headers:
    return tuple(one for one in headers_of(response) if one[0].startswith(PASSED_DOWN_PREFIXES))
