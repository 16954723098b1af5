"""One client's connection: what it may send before there is a request, and how long it may take to send and to read.

uvicorn's protocol leaves all of this open. Rules of this file:

1. A head is bounded in bytes, in fields and in time, from its first byte. So is everything that is not a head and not
   a body: sizes of chunks, trailers. Trailers are never headers.
2. One request at a time. What comes before the answer is complete is not read, and the connection ends with the answer.
3. Whoever is refused hears why, in JSON: the rest of what it sends is thrown away for some seconds, then it is cut off.
4. Whoever does not read is cut off after a while without progress; its answer is cancelled like that of any client
   that left. Closing the sending half counts as leaving: it cannot be told from going away.
5. When there are too many connections, `Crowd` decides which one goes. Whoever has not been answered hears why, when it
   has asked: an answer that comes before is taken for nobody's.
6. A flood of refusals is one line in the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from appliance.core.fault import BackendError, Fault
from appliance.guard.limits import LIMITS, Limits
from appliance.server.crowd import Crowd
from appliance.server.small import spoken

log = logging.getLogger("appliance.server")

# Whatever is wrong with a request is the client's doing and is counted here; what is left is our own mistakes.
mistakes = logging.getLogger("uvicorn.error.connection")
mistakes.setLevel(logging.ERROR)

NEVER = float("inf")
ASKS_WITHIN = 1.0
"""Seconds until whoever is sent away should have asked; then it is told all the same."""
TOO_MANY = "The appliance has too many connections; come back soon."
NOT_AT_ALL = struct.pack("ii", 1, 0)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Refused(Exception):
    """The client broke a limit or a rule of HTTP; raised through the parser, which ends it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with patience that ends. Its class is made by `bounded`."""

    limits: ClassVar[Limits]
    crowd: ClassVar[Crowd[Connection]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = mistakes
        self.url = b""
        self.headers = []
        self._until = NEVER  # when its time is up; what for is told by `_answering`, `_in_head`, `_ending`
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._in_head = False
        self._body_open = False  # not all of the request has come
        self._sent_away = False  # it hears so when it has asked
        self._ending = False  # it was refused or is done; nothing it sends is looked at
        self._unread = 0  # bytes since the parser last made something of them
        self._thrown_away = 0
        self._fields = 0
        self._refused: Refused | None = None

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # ------------------------------------------------------------------------------------------ the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        now = self.loop.time()
        self._expect_by(now + self.limits.idle)
        goes = self.crowd.comes(self, now)
        if goes is not None:
            goes._make_way(now)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.crowd.is_gone(self)
        self._until = NEVER
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            self._throw_away(len(data))
            return
        while data and not self._ending:
            room = self.limits.head - self._unread
            piece, data = data[:room], data[room:]
            self._unread += len(piece)
            super().data_received(piece if self._body_open and not self._in_head else _without_upgrade(piece))
            if self._unread >= self.limits.head and not self._ending:
                status, what = (431, "header block") if self._in_head else (400, "framing of the body")
                self._refuse(status, f"The {what} of the request is larger than {self.limits.head} bytes.")
        if self._in_head and not self._ending and self._until > (by := self.loop.time() + self.limits.head_time):
            self._expect_by(by)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    # --------------------------------------------------------------------------------------------- the parser

    def on_message_begin(self) -> None:
        if self._answering:
            self._throw(400, "A second request came before the answer to the first was complete.")
        super().on_message_begin()
        self.crowd.begins(self, self.loop.time())
        self._in_head = self._body_open = True
        self._fields = self._thrown_away = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url:
            self._throw(414, f"The URL is longer than {self.limits.url} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > self.limits.fields:
            self._throw(431, f"The request has more than {self.limits.fields} header fields.")
        if self._in_head:  # else it is a trailer, and too late to mean anything
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._sent_away:
            self._throw(503, TOO_MANY)
        if sum(name == b"host" for name, _ in self.headers) > 1:
            self._throw(400, "The request has more than one Host header.")
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            # It came in two pieces and was not seen in time: the parser leaves out the body.
            self._throw(400, "This server speaks HTTP/1.1 only; leave out the Upgrade header.")
        self._in_head = False
        self._unread = 0
        self._until = NEVER
        self.crowd.asks(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if not self._answering:
            self._throw_away(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._body_open = False
        super().on_message_complete()
        if not self._answering and not self._ending:
            self._wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._ending:
            self._watch_writing()
        elif self._body_open:
            self._expect_by(self.loop.time() + self.limits.drain_time)
        else:
            self._wait_for_request()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up, over its own rules or ours."""
        refused, self._refused = self._refused, None
        if refused is None:
            refused = Refused(400, "This is not a request in HTTP/1.1 that can be read.")
        self._refuse(refused.status, str(refused))

    # ----------------------------------------------------------------------------------------------- patience

    def _wait_for_request(self) -> None:
        self.crowd.rests(self)
        self._expect_by(self.loop.time() + self.limits.idle)

    def _expect_by(self, until: float) -> None:
        """Something else must have begun by then. A timer that rings too early is cheaper than one moved each time."""
        self._until = until
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(until, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self.loop.time() < self._until:
            if self._until < NEVER:
                self._expect_by(self._until)
            return
        if self._sent_away and not self._ending:
            self._refuse(503, TOO_MANY)
        elif self._in_head and not self._ending:
            self._refuse(408, f"The header block did not come within {self.limits.head_time:g} s.")
        else:
            self._cut_off()

    def _make_way(self, now: float) -> None:
        """For a new one. Only who was answered, and has not begun to ask again, goes without a word."""
        if self.cycle is not None and not self._in_head:
            self._cut_off()
        else:
            self._sent_away = True
            self._expect_by(min(self._until, now + ASKS_WITHIN))
        self._leave()

    def _leave(self) -> None:
        longest = self.crowd.leaves(self)
        if longest is not None:
            longest._go_at_once()

    def _go_at_once(self) -> None:
        if not self._ending:
            self._tell(503, TOO_MANY)
        if self.flow.write_paused:  # it does not even read its last answer
            self.transport.abort()
        else:
            self._cut_off()

    def _cut_off(self) -> None:
        """End it; what is written already may still be taken."""
        self._ending = True
        self.transport.close()
        self._watch_writing()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._write_timer = self.loop.call_later(self.limits.write_stall, self._writing_stalled)

    def _writing_stalled(self) -> None:
        """Has the client taken anything since the last look?"""
        self._write_timer = None
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._watch_writing()
        elif unsent or self.transport.is_closing():
            self.crowd.cut_off += 1
            # By a reset: the system would keep for minutes what it could not send.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NOT_AT_ALL)
            self.transport.abort()

    # ------------------------------------------------------------------------------------------------ refusals

    def _throw(self, status: int, sentence: str) -> None:
        self._refused = Refused(status, sentence)
        raise self._refused

    def _refuse(self, status: int, sentence: str) -> None:
        """Say so and end the connection; a running answer is finished first, and is the last thing said."""
        self._ending = True
        self._thrown_away = 0
        if self._answering and not self._body_open:
            self._note(sentence)
            self.cycle.keep_alive = False
            return
        if self._answering:  # a request that will never be complete
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self._note(sentence)
                self._cut_off()
                return
        self._tell(status, sentence)
        self._leave()
        self.flow.resume_reading()
        self._expect_by(self.loop.time() + self.limits.drain_time)

    def _tell(self, status: int, sentence: str) -> None:
        """The last thing said, in the dialect of whoever asked, as far as it is known."""
        self._note(sentence)
        fault = Fault.BUSY if status == 503 else Fault.REQUEST
        dialect = spoken(self.url.decode("latin-1"), [name for name, _ in self.headers])
        reply = dialect.encode_error(BackendError(fault, sentence, status=status, retry_after=1.0))
        fields = [(name.encode(), value.encode()) for name, value in reply.headers]
        fields += [*self.server_state.default_headers, (b"content-length", b"%d" % len(reply.body))]
        lines = [b"%s: %s\r\n" % field for field in (*fields, (b"connection", b"close"))]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", reply.body]))
        self.transport.write_eof()

    def _note(self, sentence: str) -> None:
        if count := self.crowd.refusals.note(self.loop.time()):
            log.warning("Requests refused before they could be read: %d; the last one: %s", count, sentence)

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > self.limits.drain:
            self._cut_off()


def _without_upgrade(piece: bytes) -> bytes:
    """The beginning of a request without its wish to speak another protocol. There is none here, and the parser would
    leave out the body; Java's client wishes for HTTP/2 in its first request to anybody."""
    if b"pgrade" not in piece and b"PGRADE" not in piece:
        return piece
    end = piece.find(b"\r\n\r\n")
    end = len(piece) if end < 0 else end
    return _UPGRADE.sub(b"\r\nx-upgrade:", piece[:end]) + piece[end:]


def bounded(limits: Limits = LIMITS) -> type[Connection]:
    """The protocol class of one server, for ``uvicorn.Config(http=...)``."""

    class Bounded(Connection):
        pass

    Bounded.limits = limits
    Bounded.crowd = Crowd(limits.connections)
    return Bounded
