"""A healthy cloud that costs nearly nothing: bare sockets and bytes made beforehand, OpenAI's wire and Anthropic's.

A stream goes out one event for each write, as fast as the loop can turn but for a pause after the first word. Nothing
is read of a request but its path, its length and whether it wants a stream. It is a process of its own, so that it
shares no event loop with who is measured, and ends when whoever started it does.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import uvloop

FIRST = "Once"
TOKENS = 200
PAUSE = 0.005  # seconds after the first word, so that its way is not shared with the others
TEXT = " upon" * (TOKENS - 1)

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _pieces() -> list[str]:
    return [FIRST, *([" upon"] * (TOKENS - 1))]


def _openai_stream() -> list[bytes]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        head = {"id": "chatcmpl-B1", "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt-4o"}
        return b"data: %b\n\n" % _json({**head, "system_fingerprint": "fp_1", "choices": [choice]})

    words = [chunk({"content": piece}) for piece in _pieces()]
    return [chunk({"role": "assistant", "content": ""}), *words, chunk({}, "stop"), b"data: [DONE]\n\n"]


def _anthropic_stream() -> list[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _json({"type": kind, **fields}))

    def word(piece: str) -> bytes:
        return event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})

    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_B1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    return [
        event("message_start", message={**message, "stop_reason": None, "stop_sequence": None}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(word(piece) for piece in _pieces()),
        event("content_block_stop", index=0),
        event(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": TOKENS}
        ),
        event("message_stop"),
    ]


def _openai_whole() -> bytes:
    message = {"role": "assistant", "content": FIRST + TEXT, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": TOKENS + 9}
    head = {"id": "chatcmpl-B1", "object": "chat.completion", "created": 1750000000, "model": "gpt-4o"}
    return _json({**head, "choices": [choice], "usage": usage})


def _anthropic_whole() -> bytes:
    head = {"id": "msg_B1", "type": "message", "role": "assistant", "model": "claude"}
    content = [{"type": "text", "text": FIRST + TEXT}]
    usage = {"input_tokens": 9, "output_tokens": TOKENS}
    return _json({**head, "content": content, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _framed(events: list[bytes]) -> list[bytes]:
    chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [_SSE + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n"]


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


STREAMS = {"openai": _framed(_openai_stream()), "anthropic": _framed(_anthropic_stream())}
WHOLES = {"openai": _answer(_openai_whole()), "anthropic": _answer(_anthropic_whole())}


class _Speaker(asyncio.Protocol):
    def __init__(self) -> None:
        self._held = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._held[: end + 2]
        length = int(found[1]) if (found := _LENGTH.search(head)) else 0
        if len(self._held) < end + 4 + length:
            return
        body, self._held = self._held[end + 4 : end + 4 + length], self._held[end + 4 + length :]
        wire = "anthropic" if b"/messages" in head.split(b"\r\n", 1)[0] else "openai"
        if _STREAM.search(body):
            self._say(STREAMS[wire], 0)
        else:
            self._transport.write(WHOLES[wire])

    def _say(self, events: list[bytes], at: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(events[at])
        if at + 1 == len(events):
            return
        if FIRST.encode() in events[at]:
            self._loop.call_later(PAUSE, self._say, events, at + 1)
        else:
            self._loop.call_soon(self._say, events, at + 1)


async def serve() -> None:
    """Serve until our input ends; the base address goes to our output."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    server = await loop.create_server(_Speaker, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()


@asynccontextmanager
async def fast_cloud() -> AsyncIterator[str]:
    """The cloud in a process of its own; gives its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.bench.fastcloud", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to whoever started us
    uvloop.run(serve())
