"""A cloud that fails on demand: two wires over HTTP/1.1 on loopback, broken as real ones break.

Written on bare sockets because a web framework cannot do what real clouds do: die between two bytes of a character,
reset a connection, promise a body and send none. What goes wrong is said in `faults`, what would be said in a `Voice`,
how bytes travel in `exchange`; this file knows who comes and goes.

Rules of this file:

1. A client that leaves is noticed within one piece, and counted.
2. Nothing outlives `aclose`.
3. Every cloud answers every wire; its `api` is only how it would be written into a configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Self

from appliance.drills.exchange import VOICES, Asked, Exchange, Left
from appliance.drills.script import STORY, Call, Script, compact

__all__ = ["STORY", "Act", "Asked", "Call", "Exchange", "FailingCloud", "Left", "Script"]

HEAD_LIMIT = 256 * 1024
BACKLOG = 1024  # connections that come at once

Act = Callable[[Exchange], Awaitable[None]]
_CHATS = ("/chat/completions", "/messages")


class FailingCloud:
    """One upstream on a free port of the loopback interface, that answers every chat by `act`.

    `act` may be changed between two requests; absent from the start, the door is closed. `api` says for which wire its
    `base_url` is written. Tokens are counted, unless there is a `counting` that fails.
    """

    def __init__(self, act: Act | None, *, script: Script | None = None, api: str = "openai") -> None:
        self.act = act
        self.api = api
        self.counting: Act | None = None
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
        """What a configuration calls it: OpenAI's ends in /v1, Anthropic's does not."""
        return self.root + ("/v1" if self.api == "openai" else "")

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def chats(self) -> list[Exchange]:
        """The exchanges in which an answer was asked for, without the small calls beside them."""
        return [exchange for exchange in self.exchanges if exchange.asked.path.endswith(_CHATS)]

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def __aenter__(self) -> Self:
        # A socket that is bound and does not listen keeps the port ours and refuses every connection.
        self._socket.bind(("127.0.0.1", 0))
        self._port = self._socket.getsockname()[1]
        if self.act is not None:
            self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=HEAD_LIMIT, backlog=BACKLOG)
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
                id = VOICES[asked.api].id(f"{self._port}-{len(self.exchanges)}")
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
        asked, voice = exchange.asked, exchange.voice
        match asked.method, asked.path.removeprefix("/v1"):
            case "POST", "/chat/completions" | "/messages":
                assert self.act is not None
                await self.act(exchange)
            case "POST", "/messages/count_tokens":
                await (self.counting or _count)(exchange)
            case "GET", "/models":
                await exchange.reply(200, voice.models(self.script), headers=voice.headers)
            case _:
                await exchange.refuse_as("unknown-url")


async def _count(exchange: Exchange) -> None:
    counted = max(1, len(exchange.asked.body) // 4)
    await exchange.reply(200, compact({"input_tokens": counted}), headers=exchange.voice.headers)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    """The next request, or ``None`` when the client is done with this connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    path, _, query = target.partition("?")
    pairs = (line.partition(":") for line in lines if line)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    body = await reader.readexactly(length)
    return Asked(method=method, path=path, query=query, headers=headers, body=body, head=head)
