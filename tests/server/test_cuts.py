"""An answer that is cut at every single byte of its wire: the client always has what the whole events said, the box's
words behind it, and one end.

Rules of this file:

1. Exhaustive, so nothing is drawn by chance: every position, every way to die, every pair of dialects.
2. What an event says is written down beside its bytes; nothing here reads them the way the product does.
3. A crowd at a time is let in and then dies together, so that no breaker has a say in it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from json import dumps
from typing import Any, Literal, cast

import httpx
import pytest

from appliance.drills.application import Heard, ask
from appliance.drills.cloud import Exchange
from tests.fakes import BODIES, PATIENT, Stage

pytestmark = pytest.mark.live

CROWD = 90  # of requests at once; httpx opens a hundred connections
ROUNDS = 12
"""Turns of the loop in which everybody reads what was sent, before the connection is gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a cloud. `text` is what it says, `over` that the answer was all."""

    lines: tuple[str, ...]
    text: str = ""
    over: bool = False


def chunk(delta: str, *, text: str = "", over: bool = False) -> Event:
    reason = ',"finish_reason":"stop"' if over else ""
    return Event((f'data: {{"id":"c","choices":[{{"delta":{delta}{reason}}}]}}',), text, over)


def named(name: str, rest: str = "", *, text: str = "", over: bool = False) -> Event:
    return Event((f"event: {name}", f'data: {{"type":"{name}"{rest}}}'), text, over)


def delta(said: str, *, text: str) -> Event:
    return named("content_block_delta", f',"index":0,"delta":{{"type":"text_delta","text":"{said}"}}', text=text)


# Letters of two bytes and of four, as themselves and escaped, and what looks like the end of a line.
ANSWERS: dict[str, tuple[Event, ...]] = {
    "openai": (
        chunk('{"role":"assistant","content":""}'),
        chunk('{"content":"Caf"}', text="Caf"),
        chunk('{"content":"\u00e9 \U0001f30a,"}', text="\u00e9 \U0001f30a,"),
        chunk(r'{"content":" \u00e9\ud83c\udf0a"}', text=" \u00e9\U0001f30a"),
        chunk(r'{"content":"\r\n\n}"}', text="\r\n\n}"),
        chunk("{}", over=True),
        Event(("data: [DONE]",)),
    ),
    "anthropic": (
        named("message_start", ',"message":{"id":"msg_c"}'),
        named("content_block_start", ',"index":0,"content_block":{"type":"text","text":""}'),
        Event(("event: ping", 'data: {"type": "ping"}')),
        delta("Caf", text="Caf"),
        delta("\u00e9 \U0001f30a,", text="\u00e9 \U0001f30a,"),
        delta(r" \u00e9\ud83c\udf0a", text=" \u00e9\U0001f30a"),
        named("content_block_stop", ',"index":0'),
        named("message_delta", ',"delta":{"stop_reason":"end_turn"}', over=True),
        named("message_stop"),
    ),
}

Death = Literal["reset", "close", "end"]
"""RST; FIN in a body that promised more; FIN that ends a body which promised nothing."""


@dataclass(frozen=True, slots=True)
class Wire:
    """All bytes of one answer, its head among them."""

    data: bytes
    head: int
    """How many of them are the head."""
    said: tuple[tuple[int, Event], ...]
    """From which position on an event counts: behind its blank line, or, where the end of the connection is the end of
    the body, behind the last byte of what it says."""
    death: Death

    @classmethod
    def whole(cls, body: str, *, death: Death) -> Wire:
        """An answer in one piece, of which nothing counts before it is complete."""
        data = body.encode()
        framing = b"connection: close" if death == "end" else b"content-length: %d" % len(data)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + framing + b"\r\n\r\n"
        return cls(head + data, len(head), (), death)

    @classmethod
    def of(cls, events: tuple[Event, ...], *, line_end: bytes, death: Death) -> Wire:
        framing = b"connection: close" if death == "end" else b"transfer-encoding: chunked"
        data = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + b"\r\n\r\n"
        begin = len(data)
        said: list[tuple[int, Event]] = []
        for event in events:
            raw = b"".join(line.encode() + line_end for line in (*event.lines, ""))
            if death == "end":
                said.append((len(data) + len(raw) - 2 * len(line_end), event))
                data += raw
            else:
                head = b"%x\r\n" % len(raw)
                said.append((len(data) + len(head) + len(raw), event))
                data += head + raw + b"\r\n"
        return cls(data if death == "end" else data + b"0\r\n\r\n", begin, tuple(said), death)

    def told(self, cut: int) -> list[Event]:
        """The events that had been said when it was cut there."""
        return [event for at, event in self.said if at <= cut]


async def _cut(box: Stage, wire: Wire, api: str, cuts: range, *, stream: bool) -> list[Heard]:
    """One answer for each of these cuts, all at once."""
    arrived = 0
    complete = asyncio.Event()

    async def act(exchange: Exchange) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == len(cuts):
            complete.set()
        await complete.wait()
        place = re.search(rb"cut-(\d+)-here", exchange.asked.body)
        assert place is not None
        await exchange.raw(wire.data[: int(place[1])])
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        await (exchange.reset() if wire.death == "reset" else exchange.hang_up())

    box.cloud.act = act
    box.appliance.reset(None)
    bodies = (
        {**BODIES[api], "stream": stream, "messages": [{"role": "user", "content": f"cut-{cut}-here"}]} for cut in cuts
    )
    return await asyncio.gather(*(ask(cast(httpx.AsyncClient, Line(box.url)), body, api=api) for body in bodies))


class Line:
    """As much of an HTTP client as `ask` looks at. The cuts are thousands, and httpx takes longer than all the rest."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])

    @asynccontextmanager
    async def stream(self, method: str, path: str, *, json: Any, headers: dict[str, str]) -> AsyncIterator[Line]:
        body = dumps(json).encode()
        said = {"host": "localhost", "connection": "close", "content-type": "application/json", **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
            first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            self.status_code = int(first.split(" ")[1])
            self.headers = dict(field.split(": ", 1) for field in fields if field)
            self._reader = reader
            yield self
        finally:
            writer.close()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        if length := self.headers.get("content-length"):
            yield await self._reader.readexactly(int(length))
            return
        assert self.headers["transfer-encoding"] == "chunked"
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]


def _wrong(heard: Heard, wire: Wire, cut: int, words_of_the_box: str, *, stream: bool) -> list[str]:
    """What is not as it should be in the answer that was cut there."""
    told = wire.told(cut)
    over, said = any(event.over for event in told), "".join(event.text for event in told)
    expected = {
        "text": said + ("" if over else words_of_the_box),
        "status": 200,
        "errors": (),
        "ends": (1, int(stream)),
        "ids": 1,
        "takeovers": int(bool(said) and not over),
    }
    found = {
        "text": heard.text,
        "status": heard.status,
        "errors": heard.errors,
        "ends": (len(heard.finishes), heard.dones),
        "ids": len(heard.ids),
        "takeovers": len(heard.takeovers),
    }
    behind = wire.data[max(0, cut - 20) : cut]
    return [
        f"cut at {cut} behind {behind!r}: {what} {found[what]!r}" for what in found if found[what] != expected[what]
    ]


DIALECTS = ("openai", "anthropic")
DEATHS: tuple[Death, ...] = ("reset", "close", "end")
LF, CRLF = b"\n", b"\r\n"
CASES: list[tuple[str, str, bytes, Death]] = [
    *((api, api, LF, death) for api in DIALECTS for death in DEATHS),
    # Lines are read alike however it dies, and all is read alike for a client of the other dialect: once is enough.
    *((api, api, CRLF, "reset") for api in DIALECTS),
    *(("openai", "anthropic", *how) for how in ((LF, "end"), (CRLF, "reset"))),
    *(("anthropic", "openai", *how) for how in ((LF, "reset"), (CRLF, "end"))),
]


@pytest.mark.parametrize(("client", "cloud", "line_end", "death"), CASES, ids=str)
def test_wherever_it_is_cut_no_character_is_lost_and_none_comes_twice(
    box: Stage, caplog: pytest.LogCaptureFixture, client: str, cloud: str, line_end: bytes, death: Death
) -> None:
    caplog.set_level(logging.ERROR, "appliance")  # thousands of warnings take longer than the answers
    wire = Wire.of(ANSWERS[cloud], line_end=line_end, death=death)
    assert _cut_everywhere(box, wire, client, cloud, range(wire.head, len(wire.data))) == []


@pytest.mark.parametrize("death", DEATHS)
def test_nothing_is_said_by_half_a_head(box: Stage, caplog: pytest.LogCaptureFixture, death: Death) -> None:
    caplog.set_level(logging.ERROR, "appliance")
    wire = Wire.of(ANSWERS["openai"], line_end=LF, death=death)
    assert _cut_everywhere(box, wire, "openai", "openai", range(wire.head)) == []


WHOLE = {
    "openai": '{"id":"c","choices":[{"message":{"content":"Café \\u00e9 🌊"},"finish_reason":"stop"}]}',
    "anthropic": '{"id":"c","type":"message","content":[{"type":"text","text":"Café 🌊"}],"stop_reason":"end_turn"}',
}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("cloud", DIALECTS)
def test_of_a_whole_answer_that_is_cut_nothing_is_told(
    box: Stage, caplog: pytest.LogCaptureFixture, cloud: str, death: Death
) -> None:
    caplog.set_level(logging.ERROR, "appliance")
    wire = Wire.whole(WHOLE[cloud], death=death)
    assert _cut_everywhere(box, wire, cloud, cloud, range(wire.head, len(wire.data)), stream=False) == []


def _cut_everywhere(box: Stage, wire: Wire, client: str, cloud: str, cuts: range, *, stream: bool = True) -> list[str]:
    box.play(_never, api=cloud, timeouts=PATIENT)
    wrong: list[str] = []
    for first in range(0, len(cuts), CROWD):
        crowd = cuts[first : first + CROWD]
        for cut, heard in zip(crowd, box.call(_cut(box, wire, client, crowd, stream=stream)), strict=True):
            wrong += _wrong(heard, wire, cut, box.local.text, stream=stream)
    return wrong


async def _never(exchange: Exchange) -> None:
    raise AssertionError("each crowd has its own")
