"""One answer on its way to one client: when the status line goes out, what keeps the line alive, how it ends.

Rules of this file:

1. The status line waits for the first content, so an early failure has its true status.
2. After `KEEPALIVE` seconds with nothing to send, headers and the dialect's "still here" go out instead. If
   another than they name answers in the end, a takeover after no characters says so.
3. A stream ends cleanly only if the answer did; otherwise the dialect's error event is the last thing in it.
4. A client that leaves stops the work at once.
5. When the service ends before the answer does, the client is told so, like any other failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import aclosing

from starlette.types import Message, Receive, Scope, Send

from appliance.answer import Answer
from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import Degraded, Event, Takeover
from appliance.core.fault import BackendError, Reply
from appliance.core.seams import Dialect
from appliance.core.verdict import stopping

KEEPALIVE = 10.0


class AnswerResponse:
    """An ASGI response: streamed or whole, as `request` asks. `over` is called when it has ended."""

    def __init__(
        self,
        answer: Answer,
        request: ChatRequest,
        dialect: Dialect,
        *,
        keepalive: float = KEEPALIVE,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        self._answer = answer
        self._request = request
        self._dialect = dialect
        self._keepalive = keepalive
        self._over = over
        self._created = int(time.time())
        self._named = ""  # who the headers say answers
        self._told: frozenset[str] = frozenset()  # what they say is done less well
        self._encoder = dialect.encoder(request, id=answer.id, created=self._created)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = Sender(send)
        work = asyncio.current_task()
        assert work is not None
        watch = asyncio.create_task(_leave_with_client(receive, work), name="client-watch")
        alive = KeepAlive(sender, self._keepalive, self._say_still_here) if self._request.stream else None
        try:
            await (self._stream(sender) if self._request.stream else self._whole(sender))
        except asyncio.CancelledError:
            if watch.done() and not watch.cancelled() and watch.exception() is None:
                work.uncancel()  # the client left, and with it whoever would want to know
                return
            # Only the end of the service comes from outside; uvicorn waits for this last word.
            await self._fail(sender, stopping())
        finally:
            watch.cancel()
            if alive is not None:
                alive.close()
            self._over()

    async def _stream(self, sender: Sender) -> None:
        begun = False
        try:
            async with aclosing(self._answer.events()) as batches:
                async for events in batches:
                    told = await self._open(sender)
                    said = [one for one in events if not (isinstance(one, Degraded) and one.what in told)]
                    if data := self._encoder.encode(said if begun else [*self._correction(), *said]):
                        await sender.write(data)
                    begun = True
        except BackendError as error:
            await self._fail(sender, error)
            return
        await self._open(sender)
        await sender.write(self._encoder.close(), last=True)

    async def _whole(self, sender: Sender) -> None:
        events: list[Event] = []
        try:
            async with aclosing(self._answer.events()) as batches:
                async for batch in batches:
                    events += batch
        except BackendError as error:
            await self._fail(sender, error)
            return
        body = self._dialect.encode_whole(self._request, events, id=self._answer.id, created=self._created)
        await sender.reply(Reply(status=200, body=body, headers=(*self._answer.headers(), JSON)))

    def _correction(self) -> list[Event]:
        """The headers went out early, and named somebody who then did not answer."""
        now, reason = self._answer.served_by, self._answer.fallback
        if now == self._named or reason is None:
            return []
        return [Takeover(source=self._named, target=now, after=0, reason=reason)]

    async def _open(self, sender: Sender) -> Collection[str]:
        """Send the headers, if that was not done yet. Returns what they say is done less well."""
        if not sender.opened:
            self._named = self._answer.served_by
            self._told = frozenset(self._answer.degraded)
            kind = (("content-type", self._encoder.content_type), ("cache-control", "no-cache"))
            await sender.open(200, (*self._answer.headers(), *kind))
        return self._told

    async def _fail(self, sender: Sender, error: BackendError) -> None:
        if sender.opened:
            await sender.write(self._encoder.error(error), last=True)
            return
        reply = self._dialect.encode_error(error, id=self._answer.id)
        await sender.reply(
            Reply(status=reply.status, body=reply.body, headers=(*self._answer.headers(), *reply.headers))
        )

    async def _say_still_here(self, sender: Sender) -> None:
        await self._open(sender)
        await sender.write(self._encoder.keepalive())


JSON = ("content-type", "application/json")


class Sender:
    """The sending half of one HTTP exchange, shared by the answer and its keep-alive."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()  # the head goes out before any body, whichever task writes first
        self.opened = False
        self._closed = False
        self.last_write = time.monotonic()

    async def open(self, status: int, headers: Headers) -> None:
        async with self._lock:
            if self.opened:
                return
            self.opened = True
            raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            await self._put({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send `data`; after the last of it nothing more goes out, whoever asks."""
        async with self._lock:
            if self._closed:
                return
            self._closed = last
            await self._put({"type": "http.response.body", "body": data, "more_body": not last})

    async def reply(self, reply: Reply) -> None:
        await self.open(reply.status, (*reply.headers, ("content-length", str(len(reply.body)))))
        await self.write(reply.body, last=True)

    async def _put(self, message: Message) -> None:
        self.last_write = time.monotonic()
        await self._send(message)
        self.last_write = time.monotonic()  # a client that takes its time has not been left in silence


class KeepAlive:
    """Says "still here" when nothing was said for a while. Most answers never need it, so it is a timer that looks,
    and a task only for the word itself."""

    def __init__(self, sender: Sender, patience: float, say: Callable[[Sender], Coroutine[None, None, None]]) -> None:
        self._sender = sender
        self._patience = patience
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._saying: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(patience, self._look)

    def close(self) -> None:
        self._timer.cancel()
        if self._saying is not None:
            self._saying.cancel()

    def _look(self) -> None:
        quiet = time.monotonic() - self._sender.last_write
        if self._saying is not None and not self._saying.done():  # the client does not take what is said already
            quiet = 0.0
        elif quiet >= self._patience:
            self._saying = self._loop.create_task(self._say(self._sender), name="keep-alive")
            quiet = 0.0
        self._timer = self._loop.call_later(self._patience - quiet, self._look)


async def _leave_with_client(receive: Receive, work: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    work.cancel()
