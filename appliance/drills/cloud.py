"""A cloud that fails on demand: OpenAI's chat completions over HTTP/1.1 on loopback, broken on the wire.

Written on bare sockets because a web framework cannot do what real clouds do: die between two bytes of a character,
reset a connection, promise a body and send none. What goes wrong is said in `faults`; this file knows how bytes
travel.

Rules of this file:

1. What was sent is on record: `Exchange.text` holds the characters of all whole content events and `Exchange.sent`
   all bytes of the body, so that a test can compare them with what the client got.
2. A client that leaves is noticed within one piece, and counted.
3. Nothing outlives `aclose`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import re
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

HEAD_LIMIT = 256 * 1024
LOOK = 0.002  # seconds between two looks at whether everything sent has arrived
LONGEST_LOOK = 2.0

STORY = (
    "The keeper of the lighthouse climbed the stairs every evening, lit the lamp and wrote one line into his book: "
    "the wind, the ships he had seen, and what the café by the harbour had served that day. Crème brûlée, 4 €. 🌊 "
    "He never missed a night."
)

_PIECE = re.compile(r"\s*\S{1,6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the cloud would say if it were well, how fast, and after how many content events it fails."""

    text: str = STORY
    pace: float = 0.0
    after: int = 6
    retry_after: int = 30
    model: str = "failing-cloud-1"

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text as it streams: a few letters at a time, so that words are cut in two, as by real tokens."""
        found = _PIECE.findall(self.text)
        rest = self.text[sum(map(len, found)) :]
        return (*found, rest) if rest else tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived. The body stays out of the repr: it holds a prompt."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def streams(self) -> bool:
        return self.fields.get("stream") is True

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Left(Exception):
    """The client closed the connection before its answer was over."""


class Exchange:
    """One request and the bytes of its answer, well-formed or not."""

    def __init__(
        self,
        asked: Asked,
        script: Script,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        id: str = "chatcmpl-drill",
    ) -> None:
        self.id = id
        self.asked = asked
        self.script = script
        self.text = ""
        """The characters of all whole content events, or of a whole answer, sent so far."""
        self.sent = bytearray()
        """The bytes of the body, without the framing of HTTP."""
        self.over = False
        """Nothing more can follow on this connection."""
        self._reader = reader
        self._writer = writer

    # ------------------------------------------------------------------------------------------ whole answers

    async def reply(
        self, status: int, body: bytes, *, kind: str = "application/json", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """A complete answer; the connection can be used again."""
        await self.head(status, kind=kind, headers=(("content-length", str(len(body))), *headers))
        await self.raw(body)

    async def refuse(
        self,
        status: int,
        *,
        type: str,
        code: str | None,
        message: str,
        param: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """An error in OpenAI's shape."""
        error = {"message": message, "type": type, "param": param, "code": code}
        await self.reply(status, json.dumps({"error": error}, indent=2).encode() + b"\n", headers=headers)

    def whole(self) -> bytes:
        """A healthy whole answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.script.text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        body = {**self._envelope("chat.completion"), "choices": [choice], "usage": self._usage(), "x_new": {"a": [1]}}
        # Indented and with its own order of keys: what passes through must not be written anew.
        return json.dumps(body, ensure_ascii=False, indent=2).encode() + b"\n"

    async def reply_whole(self) -> None:
        await self.reply(200, self.whole(), headers=self._ids())
        self.text = self.script.text

    # ----------------------------------------------------------------------------------------------- streams

    async def open(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        """The head of a chunked 200."""
        await self.head(200, kind=kind, headers=(("transfer-encoding", "chunked"), *self._ids()))

    async def role(self) -> None:
        await self.event(self.chunk({"role": "assistant", "content": "", "refusal": None}))

    async def words(self, count: int | None = None) -> None:
        """The next content events, all that are left by default."""
        done = len(self.text)
        left = [piece for piece, start in _starts(self.script.pieces) if start >= done]
        for piece in left if count is None else left[:count]:
            await self.event(self.chunk({"content": piece}))
            self.text += piece
            await self.pause(self.script.pace)

    async def begin(self) -> None:
        """Head, role and the first content events: up to where a stream dies in mid-answer."""
        await self.open()
        await self.role()
        await self.words(self.script.after)

    async def finish(self) -> None:
        """The terminal event, and usage if it was asked for."""
        await self.event(self.chunk({}, finish_reason="stop"))
        options = self.asked.fields.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage") is True:
            body = {**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()}
            await self.event(_compact(body))

    def chunk(self, delta: Mapping[str, Any], *, finish_reason: str | None = None) -> bytes:
        """The JSON of one chunk, with fields that no client knows."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _compact({**self._envelope("chat.completion.chunk"), "choices": [choice], "x_new": {"a": [1]}})

    async def event(self, data: bytes) -> None:
        await self.put(b"data: " + data + b"\n\n")

    async def put(self, data: bytes) -> None:
        """`data` as one chunk of the body."""
        await self._send(b"%x\r\n%b\r\n" % (len(data), data))
        self.sent += data

    async def end(self) -> None:
        """The end of a chunked body, as HTTP wants it."""
        await self._send(b"0\r\n\r\n")

    # ------------------------------------------------------------------------------------------ on the wire

    async def head(self, status: int, *, kind: str, headers: Sequence[tuple[str, str]]) -> None:
        lines = [f"HTTP/1.1 {status} Drill", f"content-type: {kind}", *(f"{name}: {value}" for name, value in headers)]
        await self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def raw(self, data: bytes) -> None:
        """Bytes of the body without any framing."""
        await self._send(data)
        self.sent += data

    async def pause(self, seconds: float) -> None:
        """Wait, but not for a client that has left."""
        if seconds <= 0:
            await asyncio.sleep(0)
            if self._reader.at_eof():
                raise Left
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.silence()

    async def silence(self) -> None:
        """Say nothing until the client leaves."""
        await self._reader.read(1)
        raise Left

    async def reset(self) -> None:
        """RST. What was sent before has arrived, and then the connection is gone."""
        connection = self._writer.get_extra_info("socket")
        # A reset throws away what is still on its way, and small segments wait for an acknowledgement now and then.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_LOOK):
                while _on_its_way(connection.fileno()):  # noqa: ASYNC110 - the kernel has no event for it
                    await asyncio.sleep(LOOK)
        self.over = True
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hang_up(self) -> None:
        """FIN, whatever was promised."""
        self.over = True
        self._writer.close()

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def _envelope(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": 1_763_000_000, "model": self.script.model}
        return head | {"service_tier": "default", "system_fingerprint": "fp_drill"}

    def _usage(self) -> dict[str, Any]:
        words, prompt = len(self.script.pieces), 21
        details = {"cached_tokens": 4, "audio_tokens": 0}
        counts = {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}
        return counts | {"prompt_tokens_details": details}

    @staticmethod
    def _ids() -> tuple[tuple[str, str], ...]:
        return (
            ("x-request-id", "req_drill"),
            ("openai-processing-ms", "12"),
            ("x-ratelimit-remaining-requests", "59"),
            ("set-cookie", "__drill=1"),
            ("server", "drill"),
        )


Act = Callable[[Exchange], Awaitable[None]]


class FailingCloud:
    """One upstream on a free port of the loopback interface, that answers every chat by `act`.

    `act` may be changed between two requests; absent from the start, the door is closed.
    """

    def __init__(self, act: Act | None, *, script: Script | None = None) -> None:
        self.act = act
        self.script = script or Script()
        self.exchanges: list[Exchange] = []
        self.left_early = 0
        self.departed = asyncio.Event()
        """Set when a client left before its answer was over."""
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        # With the protocol said: asyncio turns Nagle's algorithm off only for a socket that knows it is TCP.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> Self:
        # A socket that is bound and does not listen keeps the port ours and refuses every connection.
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        if self.act is not None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=HEAD_LIMIT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            running = [task for task in self._connections.values() if task is not None]
            for writer in self._connections:
                writer.transport.abort()
            if running:
                await asyncio.wait(running)
            await self._server.wait_closed()
        self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.current_task()
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until the kernel has it all
        try:
            while (asked := await _read(reader)) is not None:
                id = f"chatcmpl-drill-{self._port}-{len(self.exchanges)}"
                exchange = Exchange(asked, self.script, reader, writer, id=id)
                self.exchanges.append(exchange)
                await self._answer(exchange)
                if exchange.over:
                    break
        except (Left, ConnectionError):
            self.left_early += 1
            self.departed.set()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            del self._connections[writer]

    async def _answer(self, exchange: Exchange) -> None:
        asked = exchange.asked
        if asked.method == "GET" and asked.path == "/v1/models":
            listed = [{"id": self.script.model, "object": "model", "created": 0, "owned_by": "drill"}]
            await exchange.reply(200, _compact({"object": "list", "data": listed}))
        elif asked.method == "POST" and asked.path == "/v1/chat/completions":
            assert self.act is not None
            await self.act(exchange)
        else:
            message = f"Unknown request URL: {asked.method} {asked.path}."
            await exchange.refuse(404, type="invalid_request_error", code="unknown_url", message=message)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    """The next request, or ``None`` when the client is done with this connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    return Asked(method=method, path=path, headers=headers, body=await reader.readexactly(length))


def _on_its_way(connection: int) -> int:
    """Bytes that the peer has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _starts(pieces: Sequence[str]) -> list[tuple[str, int]]:
    starts, at = [], 0
    for piece in pieces:
        starts.append((piece, at))
        at += len(piece)
    return starts


def _compact(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
