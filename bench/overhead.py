"""What does a healthy answer cost on its way through the box?

    python bench/overhead.py [--rounds 200]

One process plays the cloud (bare sockets, answers at once), one is the appliance, this one is the client. Direct and
through the box take turns, so that noise hits both alike. Printed: the time to the first content, what is added
to it, what is added per event of a long stream, and whole answers per second on one worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from common import Box, free_port

from appliance.drills.cloud import Exchange, FailingCloud, Script

WORDS = "the quick brown fox jumps over the lazy dog and runs on " * 20


async def healthy(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
        return
    await exchange.open()
    await exchange.role()
    await exchange.words()
    await exchange.finish()
    await exchange.put(b"data: [DONE]\n\n")
    await exchange.end()


def cloud(pipe: Connection) -> None:
    async def serve() -> None:
        async with FailingCloud(healthy, script=Script(text=WORDS)) as running:
            pipe.send(running.base_url)
            await asyncio.Event().wait()

    asyncio.run(serve())


def body(*, stream: bool) -> bytes:
    return json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).encode()


async def streamed(client: httpx.AsyncClient, base: str) -> tuple[float, float, int]:
    """Seconds to the first content, from there to the end, and the number of events."""
    began = time.perf_counter()
    first = 0.0
    events = 0
    headers = {"content-type": "application/json"}
    async with client.stream("POST", f"{base}/chat/completions", content=body(stream=True), headers=headers) as answer:
        async for data in answer.aiter_bytes():
            if not first and b'"content":"' in data.replace(b'"content":""', b""):
                first = time.perf_counter()
            events += data.count(b"data: ")
    return first - began, time.perf_counter() - first, events


async def per_second(client: httpx.AsyncClient, base: str, seconds: float, clients: int = 8) -> float:
    done = 0
    until = time.perf_counter() + seconds

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < until:
            headers = {"content-type": "application/json"}
            answer = await client.post(f"{base}/chat/completions", content=body(stream=False), headers=headers)
            answer.raise_for_status()
            done += 1

    await asyncio.gather(*(loop() for _ in range(clients)))
    return done / seconds


async def main(rounds: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    stand_in = multiprocessing.Process(target=cloud, args=(theirs,), daemon=True)
    stand_in.start()
    direct: str = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        upstream = f'[[upstream]]\nname = "other"\napi = "openai"\nbase_url = "{direct}"\n'
        box = Box(free_port(), upstream, Path(folder))
        await box.start()
        through = f"{box.url}/v1"
        async with httpx.AsyncClient(timeout=30) as client:
            taken: dict[str, list[tuple[float, float, int]]] = {direct: [], through: []}
            for base in (direct, through) * 5:
                await streamed(client, base)
            for _ in range(rounds):
                for base in (direct, through):
                    taken[base].append(await streamed(client, base))
            firsts = {base: statistics.median(one[0] for one in taken[base]) * 1000 for base in taken}
            rests = {base: statistics.median(one[1] / one[2] for one in taken[base]) * 1000 for base in taken}
            print(f"first content, median: direct {firsts[direct]:.2f} ms, through the box {firsts[through]:.2f} ms")
            print(f"added first-content latency: {firsts[through] - firsts[direct]:.2f} ms (target 1.5)")
            added, events = rests[through] - rests[direct], taken[direct][0][2]
            print(f"added per event: {added:.4f} ms, over {events} events (target 0.05)")
            for name, base in (("direct", direct), ("through the box", through)):
                print(f"whole answers per second, 8 clients, {name}: {await per_second(client, base, 5):.0f}")
        await box.stop()
    stand_in.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    sys.exit(asyncio.run(main(parser.parse_args().rounds)))
