"""What rude clients do to a port, in a process of its own, so that their work is not on the clock of the measurement.

Each attack is a coroutine that takes the port and the seconds it may last, and gives one line of what they saw.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from client import Heard, listen, request
from common import median, prose, quantile

SLOW, IDLE, BOMBS, CROWD = 500, 2000, 10, 50
BOMB = 100_000_000
PATIENCE = 4
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"


class Connections:
    """Many connections at once, and what became of them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._began = time.monotonic()
        self.refused = 0
        self.cut: list[float] = []
        self.open = 0

    async def hold(self, seconds: float, drip: bytes = b"", every: float = 1.0) -> None:
        """One connection, until the other end cuts it or the time is up; `drip` goes out byte by byte."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.refused += 1
            return
        began = time.monotonic()
        ended = asyncio.create_task(reader.read())
        bytes_ = iter(drip)
        try:
            while time.monotonic() - began < seconds:
                if (byte := next(bytes_, None)) is not None:
                    writer.write(bytes([byte]))
                await asyncio.wait((ended,), timeout=every)
                if ended.done():
                    self.cut.append(time.monotonic() - began)
                    return
            self.open += 1
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            writer.transport.abort()

    def __str__(self) -> str:
        when = f" after {min(self.cut):.1f} to {max(self.cut):.1f} s" if self.cut else ""
        return f"{self.refused} refused, {len(self.cut)} cut{when}, {self.open} open to the end"


async def quiet(port: int, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return ""


async def slowloris(port: int, seconds: float) -> str:
    """Five hundred clients that write a byte of their headers in a second, and never end them."""
    held = Connections(port)
    drip = b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: " + b"a" * 1000
    await asyncio.gather(*(held.hold(seconds, drip) for _ in range(SLOW)))
    return f"{SLOW} slow headers: {held}"


async def idle(port: int, seconds: float) -> str:
    """Two thousand connections that say nothing."""
    held = Connections(port)
    waves = []
    for wave in range(10):
        waves += [asyncio.ensure_future(held.hold(seconds - wave * 0.1)) for _ in range(IDLE // 10)]
        await asyncio.sleep(0.1)
    await asyncio.gather(*waves)
    return f"{IDLE} idle: {held}"


async def bombs(port: int, seconds: float) -> str:
    """Bodies of a hundred megabytes, with their length said; two more in chunks that never end."""
    seen: Counter[str] = Counter()
    sent: list[int] = []

    async def one(*, chunked: bool) -> None:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = asyncio.create_task(reader.read(4096))
            block = b"a" * 65536
            size = 0
            try:
                writer.write(HEAD + (b"transfer-encoding: chunked" if chunked else b"content-length: %d" % BOMB))
                writer.write(b"\r\n\r\n")
                while not answer.done() and (chunked or size < BOMB):
                    piece = block if chunked else block[: BOMB - size]
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    size += len(piece)
                    await writer.drain()
                await asyncio.wait((answer,), timeout=10)
            except OSError:
                pass
            finally:
                sent.append(size)
                how = "chunked" if chunked else "100 MB"
                status = "cut"
                if answer.done() and not answer.exception() and answer.result():
                    status = answer.result().split(b" ", 2)[1].decode()
                seen[f"{how}: {status}"] += 1
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
                writer.transport.abort()

    everybody = [asyncio.ensure_future(one(chunked=number >= BOMBS)) for number in range(BOMBS + 2)]
    _, late = await asyncio.wait(everybody, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    most = max(sent, default=0) / 1e6
    return f"bodies: {dict(seen)}, {len(late)} still taken at the end, {most:.0f} MB of one were taken at most"


async def deep(port: int, seconds: float) -> str:
    """JSON that is nested a hundred thousand times, numbers of a million digits, ten thousand messages."""
    shapes = {
        "arrays": b'{"model":"local","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "objects": b'{"model":"local","messages":[],"tools":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        "half": b'{"model":"local","messages":' + b"[" * 1_000_000,
        "digits": b'{"model":"local","messages":[],"seed":' + b"9" * 1_000_000 + b"}",
        "messages": json.dumps(request("", 1, messages=[{"role": "user", "content": "a"}] * 10_000)).encode(),
        "stops": json.dumps(request("a", 1, stop=["b" * 100] * 10_000)).encode(),
    }
    seen: Counter[str] = Counter()

    async def one(name: str, body: bytes) -> None:
        status = "cut"
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(seconds):
                writer.write(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                line = await reader.readline()
                status = line.split(b" ", 2)[1].decode() if line else "cut"
            writer.transport.abort()
        seen[f"{name}: {status}"] += 1

    await asyncio.gather(*(one(name, body) for name, body in shapes.items() for _ in range(4)))
    return f"four of each: {dict(seen)}"


async def crowd(port: int, seconds: float) -> str:
    """Fifty clients at once; they wait for their answers longer than the others attack."""
    seconds *= PATIENCE
    chance = random.Random(seconds)
    everybody = [Heard() for _ in range(CROWD)]
    asked = [asyncio.ensure_future(listen(port, request(prose(20, chance), 64), heard)) for heard in everybody]
    _, late = await asyncio.wait(asked, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    whole = [heard for heard in everybody if heard.complaint() is None]
    full = [heard for heard in everybody if heard.status == 503 and "retry-after" in heard.headers]
    waits = [heard.ended - heard.sent for heard in full]
    said = f"{len(whole)} whole answers, {len(full)} times 503 with Retry-After"
    if full:
        said += f" after {1000 * median(waits):.0f} ms (p95 {1000 * quantile(waits, 0.95):.0f})"
    other = CROWD - len(whole) - len(full) - len(late)
    return f"{CROWD} clients: {said}, {len(late)} not over in {seconds:.0f} s, {other} other"


ATTACKS: dict[str, Callable[[int, float], Awaitable[str]]] = {
    "before": quiet,
    "slowloris": slowloris,
    "idle": idle,
    "body bombs": bombs,
    "deep JSON": deep,
    "50 clients": crowd,
    "after": quiet,
}


def attack(name: str, port: int, seconds: float) -> str:
    """One attack from begin to end, in this process."""
    return asyncio.run(_told(ATTACKS[name](port, seconds)))


async def _told(attack: Awaitable[str]) -> str:
    return await attack
