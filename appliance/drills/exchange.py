"""One request to a failing cloud, and the bytes of its answer, well-formed or not.

Rules of this file:

1. What was sent is on record: `Exchange.text` and its like hold what all whole content events said, `Exchange.sent`
   all bytes of the body, so that a test can compare them with what the client got.
2. A request is answered in the wire of its path, whatever the cloud's own is.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gzip
import json
import socket
import struct
import sys
import termios
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from appliance.drills.anthropic_voice import ANTHROPIC_VOICE
from appliance.drills.openai_voice import OPENAI_VOICE, chunk
from appliance.drills.script import STAGES, Said, Script, Stage, Voice, compact

LOOK = 0.002  # seconds between two looks at whether everything sent has arrived
LONGEST_LOOK = 2.0
GZIP = 31  # zlib's word for gzip with the largest window

VOICES: Mapping[str, Voice] = MappingProxyType({"openai": OPENAI_VOICE, "anthropic": ANTHROPIC_VOICE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived. The body stays out of the repr: it holds a prompt."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    query: str = field(default="", repr=False)
    head: bytes = field(default=b"", repr=False)
    """The request line and the headers, byte for byte."""

    @property
    def api(self) -> str:
        """Whose wire it speaks."""
        if self.path.endswith(("/messages", "/messages/count_tokens")) or self.header("anthropic-version"):
            return "anthropic"
        return "openai"

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
        id: str = "",
    ) -> None:
        self.voice = VOICES[asked.api]
        self.id = id or self.voice.id("0")
        self.asked = asked
        self.script = script
        self.text = ""
        """The characters of all whole content events, or of a whole answer, sent so far."""
        self.thinking = ""
        """Those of the thinking, likewise."""
        self.arguments: dict[int, str] = {}
        """Those of the arguments of each call, likewise; a call is there when it has begun."""
        self.sent = bytearray()
        """The bytes of the body as they travelled, without the framing of HTTP."""
        self.over = False
        """Nothing more can follow on this connection."""
        options = asked.fields.get("stream_options")
        usage = isinstance(options, dict) and options.get("include_usage") is True
        self._usage = usage
        self._story = self.voice.story(script, self.id, usage=usage)
        self._at = 0
        self._packer = zlib.compressobj(wbits=GZIP) if script.gzip else None
        self._reader = reader
        self._writer = writer

    @property
    def body(self) -> bytes:
        """The bytes of the body as a client sees them, unpacked if they travelled packed."""
        return zlib.decompressobj(wbits=GZIP).decompress(bytes(self.sent)) if self.script.gzip else bytes(self.sent)

    def retell(self, text: str) -> None:
        """Answer with `text` instead of what the script says; before the first event."""
        self.script = replace(self.script, text=text)
        self._story = self.voice.story(self.script, self.id, usage=self._usage)

    # ------------------------------------------------------------------------------------------ whole answers

    async def reply(
        self, status: int, body: bytes, *, kind: str = "application/json", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """A complete answer; the connection can be used again."""
        await self.half(status, body, len(body), kind=kind, headers=headers)

    async def half(
        self,
        status: int,
        body: bytes,
        count: int,
        *,
        kind: str = "application/json",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """The first `count` bytes of an answer that promised them all."""
        packed = gzip.compress(body) if self.script.gzip else body
        await self.head(status, kind=kind, headers=(("content-length", str(len(packed))), *headers))
        if self.asked.method != "HEAD":
            await self.raw(packed[: count * len(packed) // max(1, len(body))])

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
        """An error in the shape of the wire."""
        body = self.voice.error(type, message, code=code, param=param)
        await self.reply(status, body, headers=(*self.voice.headers, *headers))

    async def refuse_as(self, name: str) -> None:
        """What this wire's cloud says for the fault of that name."""
        refusal = self.voice.refusals[name]
        later = (("retry-after", str(self.script.retry_after)),) if refusal.later else ()
        await self.reply(refusal.status, refusal.body, headers=(*self.voice.headers, *later))

    def whole(self) -> bytes:
        """A healthy whole answer."""
        return self.voice.whole(self.script, self.id)

    async def reply_whole(self) -> None:
        await self.reply(200, self.whole(), headers=self.voice.headers)
        self.text, self.thinking = self.script.text, self.script.thinking
        self.arguments = {index: call.arguments for index, call in enumerate(self.script.calls)}

    # ----------------------------------------------------------------------------------------------- streams

    async def open(self, kind: str = "text/event-stream; charset=utf-8") -> None:
        """The head of a chunked 200."""
        await self.head(200, kind=kind, headers=(("transfer-encoding", "chunked"), *self.voice.headers))

    async def role(self) -> None:
        """What comes before all content: the first event, and the start of the first block in a wire that has any."""
        await self._tell("opening")

    async def words(self, count: int | None = None) -> None:
        """The next content events, all that are left by default."""
        await self._tell("middle", count)

    async def begin(self) -> None:
        """Head, role and the first content events: up to where a stream dies in mid-answer."""
        await self.open()
        await self.role()
        await self.words(self.script.after)

    async def finish(self) -> None:
        """The terminal event, and usage if it was asked for."""
        await self._tell("end")

    async def done(self) -> None:
        """What says that nothing more comes: [DONE], message_stop."""
        await self._tell("done")

    async def _tell(self, stage: Stage, count: int | None = None) -> None:
        """The events of `stage` that have not been told, up to `count` pieces; what is left before it is left out."""
        told = 0
        while self._at < len(self._story):
            said = self._story[self._at]
            if STAGES.index(said.stage) > STAGES.index(stage) or told == count:
                return
            self._at += 1
            if said.stage == stage:
                await self.put(said.data)
                self._note(said)
                told += said.piece
                if said.piece:
                    await self.pause(self.script.pace)

    def _note(self, said: Said) -> None:
        self.text += said.text
        self.thinking += said.thinking
        if said.call is not None:
            self.arguments[said.call] = self.arguments.get(said.call, "") + said.arguments

    def chunk(self, delta: Mapping[str, Any], *, finish_reason: str | None = None) -> bytes:
        """The JSON of one chunk of OpenAI's, with a field that no client knows."""
        return compact(chunk(self.script, self.id, delta, finish_reason=finish_reason))

    async def event(self, data: bytes) -> None:
        """`data` as one event; in Anthropic's wire under the name of its `type`."""
        await self.put(self.voice.framed(self.script, data))

    def piece(self, text: str) -> bytes:
        """One event of more text, whole."""
        return self.voice.piece(self.script, self.id, text)

    async def say(self, text: str) -> None:
        """More text than the script has."""
        await self.put(self.piece(text))
        self.text += text

    async def put(self, data: bytes) -> None:
        """`data` as one chunk of the body, or in pieces of `Script.cut` bytes."""
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        size = self.script.cut or len(data)
        for at in range(0, len(data), max(1, size)):
            part = data[at : at + size]
            await self._send(b"%x\r\n%b\r\n" % (len(part), part))
            self.sent += part

    async def end(self) -> None:
        """The end of a chunked body, as HTTP wants it."""
        if self._packer is not None:
            rest = self._packer.flush()
            await self._send(b"%x\r\n%b\r\n" % (len(rest), rest))
            self.sent += rest
        await self._send(b"0\r\n\r\n")

    # ------------------------------------------------------------------------------------------ on the wire

    async def head(self, status: int, *, kind: str, headers: Sequence[tuple[str, str]]) -> None:
        lines = [f"HTTP/1.1 {status} Drill", f"content-type: {kind}", *(f"{name}: {value}" for name, value in headers)]
        lines += ["content-encoding: gzip"] if self.script.gzip else []
        await self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def half_head(self, *headers: tuple[str, str]) -> None:
        """The beginning of a head: these headers, and half of another."""
        lines = ["HTTP/1.1 200 Drill", *(f"{name}: {value}" for name, value in headers), "content-ty"]
        await self._send("\r\n".join(lines).encode("latin-1"))

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
        if connection.fileno() < 0:
            return  # the client left meanwhile
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hang_up(self) -> None:
        """FIN, whatever was promised."""
        self.over = True
        self._writer.close()

    async def _send(self, data: bytes) -> None:
        if self._writer.is_closing():
            # asyncio says so when it drains; uvloop's transport calls it a program's mistake (RuntimeError).
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        await self._writer.drain()


def _on_its_way(connection: int) -> int:
    """Bytes that the peer has not acknowledged yet; none on a connection that is closed."""
    if connection < 0:
        return 0
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
