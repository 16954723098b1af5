"""A client of bare sockets for OpenAI's chat: it notes when each piece came, and may leave at any moment."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import common  # noqa: F401 - it makes this checkout the one that is measured
import httptools

from appliance.core.sse import SseEvent, SseParser

ENDS = {"0": -100, "2": -100, "4": -100}
"""A `logit_bias` that forbids the starter's end tokens, so that an answer runs to its `max_tokens`."""


@dataclass
class Heard:
    """One answer as it came; filled while it comes, so that a client that leaves keeps what it had."""

    sent: float = 0.0
    ended: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, str]] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    finishes: int = 0
    dones: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.pieces)

    @property
    def first(self) -> float:
        """Seconds from asking to the first piece."""
        return self.pieces[0][0] - self.sent if self.pieces else math.nan

    @property
    def gaps(self) -> list[float]:
        times = [at for at, _ in self.pieces]
        return [after - before for before, after in itertools.pairwise(times)]

    @property
    def cached(self) -> int:
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens", 0))

    def complaint(self, *, begins: str = "") -> str | None:
        """Why this is not one whole answer; ``None`` if it is."""
        if self.error is not None or self.status != 200:
            return f"{self.status} {self.error}"
        if self.finishes != 1:
            return f"{self.finishes} ends"
        if not self.text.startswith(begins):
            return "not what the cloud said"
        return None if len(self.text) > len(begins) else "nothing more came"


def request(prompt: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A streamed chat at temperature 0 that runs to `max_tokens`."""
    body = {
        "model": "local",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": max_tokens,
        "logit_bias": ENDS,
    }
    return body | more


async def listen(
    port: int, body: Mapping[str, Any], heard: Heard, *, leave_after: int | None = None, peaceful: bool = False
) -> Heard:
    """Ask for a chat over a connection of its own. Cancelled, or after so many pieces, the client is gone at once:
    with a reset, or `peaceful` with an ordinary close."""
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    heard.sent = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        heard.error, heard.ended = f"no connection: {error}", time.monotonic()
        return heard
    ear = _Ear(heard)
    try:
        heard.sent = time.monotonic()
        writer.write(f"{head}content-length: {len(raw)}\r\nconnection: close\r\n\r\n".encode() + raw)
        while not ear.over and (data := await reader.read(65536)):
            ear.feed(data)
            if leave_after is not None and len(heard.pieces) >= leave_after:
                break
        else:
            ear.end()
    except OSError as error:
        heard.error = f"the connection broke: {error}"
    finally:
        heard.ended = time.monotonic()
        if not peaceful:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    return heard


async def ask(port: int, body: Mapping[str, Any]) -> Heard:
    return await listen(port, body, Heard())


class _Ear:
    """Bytes of one HTTP response into a `Heard`."""

    def __init__(self, heard: Heard) -> None:
        self.over = False
        self._heard = heard
        self._http = httptools.HttpResponseParser(self)
        self._events = SseParser()
        self._whole = bytearray()
        self._now = 0.0

    def feed(self, data: bytes) -> None:
        self._now = time.monotonic()
        self._http.feed_data(data)

    def end(self) -> None:
        if not self.over:
            self._heard.error = self._heard.error or "the answer broke off"
        if self._whole:
            try:
                self._chunk(json.loads(bytes(self._whole)))
            except ValueError:
                self._heard.error = "the answer is not JSON"

    def on_header(self, name: bytes, value: bytes) -> None:
        self._heard.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._heard.status = self._http.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._heard.headers.get("content-type", "").startswith("text/event-stream"):
            for event in self._events.feed(body):
                self._event(event)
        else:
            self._whole += body

    def on_message_complete(self) -> None:
        self.over = True

    def _event(self, event: SseEvent) -> None:
        if event.comment is not None and event.comment.startswith("appliance takeover "):
            self._heard.takeovers.append(self._now)
        if event.data == b"[DONE]":
            self._heard.dones += 1
        elif event.data is not None:
            self._chunk(json.loads(event.data))

    def _chunk(self, chunk: Mapping[str, Any]) -> None:
        heard = self._heard
        if error := chunk.get("error"):
            heard.error = str(error.get("message") if isinstance(error, dict) else error)
        heard.usage = chunk.get("usage") or heard.usage
        for choice in chunk.get("choices", ()):
            if piece := (choice.get("delta") or choice.get("message") or {}).get("content"):
                heard.pieces.append((self._now, piece))
            heard.finishes += choice.get("finish_reason") is not None
