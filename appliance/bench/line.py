"""A client that costs nearly nothing: it looks only at when the first word and the end came."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import cast
from urllib.parse import urlsplit

from appliance.bench.fastcloud import FIRST, TOKENS

PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ANSWERED_WITHIN = 30.0


class Caller(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[None] | None = None
        self._last = b""
        self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own

    def data_received(self, data: bytes) -> None:
        if not self._last and b" 200 " not in data[:16]:
            self._fail(data)
        self._last = self._last[-4096:] + data
        if not self.first and FIRST.encode() in self._last:
            self.first = time.perf_counter()
        over = self._last.endswith(b"\r\n0\r\n\r\n") or (not self._chunked and self._complete())
        if over and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(b"the connection was closed")

    def _fail(self, said: bytes) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(RuntimeError(said[:2000].decode(errors="replace")))

    def _complete(self) -> bool:
        head, blank, body = self._last.partition(b"\r\n\r\n")
        for field in head.lower().split(b"\r\n"):
            if field.startswith(b"content-length:"):
                return bool(blank) and len(body) >= int(field[15:])
        return False

    async def ask(self, request: bytes, *, stream: bool) -> None:
        """Raises `RuntimeError` with what was answered instead of a 200, and `TimeoutError`."""
        self._done = asyncio.get_running_loop().create_future()
        self._last, self.first = b"", 0.0
        self._chunked = stream
        self._transport.write(request)
        async with asyncio.timeout(ANSWERED_WITHIN):
            await self._done

    def close(self) -> None:
        self._done = None
        self._transport.close()


async def connect(address: str) -> Caller:
    host, _, port = urlsplit(address).netloc.partition(":")
    _, line = await asyncio.get_running_loop().create_connection(Caller, host, int(port))
    return line


def request(address: str, dialect: str, model: str, *, stream: bool) -> bytes:
    asked = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 500}
    body = json.dumps(asked).encode()
    key = (
        "x-api-key: sk-bench\r\nanthropic-version: 2023-06-01"
        if dialect == "anthropic"
        else "authorization: Bearer sk-bench"
    )
    head = f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: {urlsplit(address).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}accept: */*\r\nuser-agent: bench\r\n{key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def streamed(address: str, dialect: str, model: str, times: int) -> tuple[float, float]:
    """Seconds to the first content, and from there to the end for each token; medians."""
    line = await connect(address)
    asked = request(address, dialect, model, stream=True)
    firsts, rests = [], []
    for _ in range(times):
        began = time.perf_counter()
        await line.ask(asked, stream=True)
        firsts.append(line.first - began)
        rests.append((time.perf_counter() - line.first) / TOKENS)
    line.close()
    return statistics.median(firsts), statistics.median(rests)
