"""Can rude clients knock the box over, or slow down those who behave?

    python bench/siege.py [--seconds 30] [--only before,slowloris,...]

Four well-behaved clients stream all the time, on four slots with a queue of 16. One after the other come: 500 clients
that dribble their headers, 2,000 idle connections, bodies of 100 MB and bodies without end, deep JSON, 50 clients at
once. Throughout, `/readyz` is asked ten times a second, on a new connection each time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from attacks import ATTACKS, attack
from client import Heard, listen, request
from common import Box, Footprint, command, configured, free_port, median, prose, quantile, table

SLOTS, QUEUE, CONTEXT = 4, 16, 1024
LONG = 300  # words of a well-behaved client's answer
EVERY = 0.1
PATIENCE = 5.0  # seconds that /readyz is waited for


@dataclass
class Watch:
    """What is seen from outside, with the time."""

    ready: list[tuple[float, float]] = field(default_factory=list)  # when asked, seconds; nan: no good answer
    held: list[tuple[float, Footprint, Footprint]] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)  # when a word came, seconds since the one before
    good: int = 0
    asked_again: int = 0
    bad: list[str] = field(default_factory=list)

    def row(self, name: str, since: float, until: float) -> tuple[object, ...]:
        ready = [seconds for at, seconds in self.ready if since <= at <= until]
        fine = [seconds for seconds in ready if not math.isnan(seconds)]
        held = [(service, engine) for at, service, engine in self.held if since <= at <= until]
        gaps = [gap for at, gap in self.gaps if since <= at <= until]
        return (
            name,
            f"{until - since:.0f}",
            f"{max(service.rss for service, _ in held):.0f}",
            f"{held[-1][0].rss:.0f}",
            f"{max(engine.rss for _, engine in held):.0f}",
            max(service.descriptors for service, _ in held),
            held[-1][0].descriptors,
            f"{len(fine)}/{len(ready)}",
            f"{1000 * median(fine):.1f}",
            f"{1000 * max(fine, default=math.nan):.0f}",
            f"{1000 * median(gaps):.1f}",
            f"{1000 * quantile(gaps, 0.99):.0f}",
            f"{len(gaps) / (until - since):.0f}",
        )


HEAD = (
    "phase",
    "s",
    "MB most",
    "MB end",
    "engine MB",
    "fds most",
    "fds end",
    "/readyz fine",
    "p50 ms",
    "max ms",
    "between words p50 ms",
    "p99 ms",
    "words/s",
)


async def ask_ready(port: int, watch: Watch) -> None:
    """Ask at fixed times, whether or not the last one has been answered."""

    async def once() -> None:
        began = time.monotonic()
        seconds = math.nan
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
                    line = await reader.readline()
                    if b" 200 " in line:
                        seconds = time.monotonic() - began
                finally:
                    writer.transport.abort()
        watch.ready.append((began, seconds))

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(once())
            await asyncio.sleep(EVERY)


async def weigh(box: Box, engine: int, watch: Watch) -> None:
    assert box.process is not None
    while True:
        with suppress(psutil.NoSuchProcess):
            watch.held.append((time.monotonic(), Footprint.of(box.process.pid), Footprint.of(engine)))
        await asyncio.sleep(0.2)


async def behave(port: int, watch: Watch, chance: random.Random) -> None:
    """A client that asks, reads, and asks again; a full box is asked again when it says."""
    while True:
        heard = Heard()
        try:
            await listen(port, request(prose(20, chance), LONG), heard)
        finally:
            times = [at for at, _ in heard.pieces]
            watch.gaps += [(at, gap) for at, gap in zip(times[1:], heard.gaps, strict=True)]
        if heard.status == 503 and "retry-after" in heard.headers:
            watch.asked_again += 1
            await asyncio.sleep(min(1.0, float(heard.headers["retry-after"])))
        elif complaint := heard.complaint():
            watch.bad.append(complaint)
            await asyncio.sleep(0.5)
        else:
            watch.good += 1


async def main(seconds: float, names: list[str], seed: int) -> int:
    print(command())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    chance = random.Random(seed)
    watch, phases, said = Watch(), [], []
    attackers = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as folder, attackers:
        box = Box(free_port(), configured(slots=SLOTS, context=CONTEXT, queue=QUEUE), Path(folder))
        await box.start()
        engine = (await box.engine())["pid"]
        loop = asyncio.get_running_loop()
        around = [
            asyncio.create_task(ask_ready(box.port, watch)),
            asyncio.create_task(weigh(box, engine, watch)),
            *(asyncio.create_task(behave(box.port, watch, chance)) for _ in range(SLOTS)),
        ]
        await loop.run_in_executor(attackers, attack, "before", box.port, 3.0)  # the first words are under way
        for name in names:
            began = time.monotonic()
            said.append((name, await loop.run_in_executor(attackers, attack, name, box.port, seconds)))
            phases.append((name, began, time.monotonic()))
            print(f"  {name}: {said[-1][1]}", file=sys.stderr, flush=True)
            await asyncio.sleep(2)
        for task in around:
            task.cancel()
        ends = await asyncio.gather(*around, return_exceptions=True)
        status = await box.status()
        await box.stop()
    for end in ends:
        if isinstance(end, Exception):
            raise end
    print(table([HEAD, *(watch.row(*phase) for phase in phases)]))
    for name, line in said:
        if line:
            print(f"{name}: {line}")
    missed = sum(math.isnan(one) for _, one in watch.ready)
    print(f"/readyz: {len(watch.ready)} asked, {missed} without a good answer within {PATIENCE:.0f} s")
    print(
        f"well-behaved answers: {watch.good} whole, {watch.asked_again} times asked again after a 503, bad: {watch.bad}"
    )
    print(f"the engine is the one it was: {'yes' if status['engine']['pid'] == engine else 'NO'}")
    return 0 if not missed and not watch.bad and status["engine"]["pid"] == engine else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", default=",".join(ATTACKS), help="phases, by their names in the table")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(ATTACKS):
        parser.error(f"there is no phase {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    sys.exit(asyncio.run(main(given.seconds, names, given.seed)))
