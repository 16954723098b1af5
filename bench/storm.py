"""Ten thousand short requests, of which many are cancelled, while the engine is killed again and again: is any lost?

    python bench/storm.py [--requests 10000] [--kills 50] [--clients 16] [--seed 1]

The box has no cloud. Clients leave at random moments: in the queue, in prefill, in mid-stream; with a reset or in
peace. A 503 with Retry-After is asked again, as the official clients do, and counted. A request that got an error
after two deaths of the engine in its lifetime is counted apart; any other that stayed and got no whole answer is LOST.
Before and after, on an idle box: slots, memory, threads, descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import Heard, listen, request
from common import Box, Footprint, command, configured, free_port, median, prose, quantile

SLOTS, CONTEXT = 8, 512
WARM_UP = 60
LEAVING = 0.5  # share of the clients
WAIT = 120.0  # seconds after which an answer that has not ended is lost
ASK_AGAIN = 60  # times


@dataclass
class Storm:
    box: Box
    chance: random.Random
    verdicts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    deaths: list[float] = field(default_factory=list)
    refused: int = 0
    done: int = 0
    usual: float = 1.0
    """Seconds of an undisturbed request: the moments of leaving are spread over it."""

    async def run(self, requests: int, clients: int, kills: int) -> None:
        """`kills` are spread over the run by the number of requests that are done."""
        numbers = iter(range(requests))
        moments = sorted(self.chance.sample(range(requests), kills))
        killing = asyncio.create_task(self._kill(moments))

        async def client() -> None:
            for _ in numbers:
                await self._one()
                self.done += 1
                if self.done % 500 == 0:
                    print(f"  {self.done} done, {len(self.deaths)} kills", dict(self.verdicts), flush=True)

        await asyncio.gather(*(client() for _ in range(clients)))
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing

    async def _kill(self, moments: list[int]) -> None:
        for moment in moments:
            while self.done < moment:  # noqa: ASYNC110 - a look now and then is all it needs
                await asyncio.sleep(0.02)
            await self.box.ready()
            pid = (await self.box.engine())["pid"]
            await asyncio.sleep(self.chance.uniform(0, self.usual))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.deaths.append(time.monotonic())

    async def _one(self) -> None:
        body = request(prose(self.chance.randint(2, 6), self.chance), self.chance.randint(8, 12))
        body["stream"] = self.chance.random() < 0.8
        if not body["stream"]:
            del body["stream_options"]
        if self.chance.random() < LEAVING:
            await self._leave(body)
            return
        began = time.monotonic()
        for _ in range(ASK_AGAIN):
            heard = Heard()
            try:
                async with asyncio.timeout(WAIT):
                    await listen(self.box.port, body, heard)
            except TimeoutError:
                heard.error = f"nothing ended within {WAIT:.0f} s"
            if heard.status != 503 or "retry-after" not in heard.headers:
                break
            self.refused += 1
            await asyncio.sleep(min(2.0, float(heard.headers["retry-after"])))
        complaint = heard.complaint()
        if complaint is None:
            self.verdicts["whole"] += 1
            self.took.append(heard.ended - began)
            return
        deaths = sum(heard.sent <= death <= heard.ended for death in self.deaths)
        if deaths >= 2 and heard.error is not None and heard.status != 0:
            self.verdicts["an error after two deaths"] += 1
            return
        self.verdicts["LOST"] += 1
        self.lost.append(f"{complaint}; {deaths} deaths, {heard.ended - heard.sent:.1f} s, {len(heard.pieces)} pieces")

    async def _leave(self, body: dict[str, Any]) -> None:
        """Ask, and be gone before the answer is over."""
        pieces, heard = None, Heard()
        moment = self.chance.choice(("at once", "soon", "in mid-stream"))
        limit = WAIT
        if moment == "at once":
            limit = self.chance.uniform(0, 0.02)
        elif moment == "soon":
            limit = self.chance.uniform(0.02, self.usual)
        else:
            pieces = self.chance.randint(1, 7)
        try:
            async with asyncio.timeout(limit):
                await listen(self.box.port, body, heard, leave_after=pieces, peaceful=self.chance.random() < 0.5)
        except TimeoutError:
            pass
        if heard.finishes:
            self.verdicts["whole before it could be cancelled"] += 1
        elif heard.status in (0, 200):
            self.verdicts[f"cancelled {moment}, after {'some' if heard.pieces else 'no'} words"] += 1
        else:
            self.verdicts["refused before it could be cancelled"] += 1


async def look(box: Box) -> tuple[dict[str, Any], Footprint, Footprint]:
    """What an idle box holds; waits until it is idle."""
    await box.ready()
    for _ in range(150):
        engine, running = (status := await box.status())["engine"], status["requests"]["running"]
        if not engine.get("busy", 1) and not engine.get("waiting", 1) and not running:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # sockets that are closing
    status = await box.status()
    assert box.process is not None
    told = {name: status["engine"].get(name) for name in ("busy", "waiting", "standbys", "kept", "restarts")}
    told |= status["requests"]
    return told, Footprint.of(box.process.pid), Footprint.of(status["engine"]["pid"])


async def main(requests: int, kills: int, clients: int, seed: int) -> int:
    print(command())
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        box = Box(free_port(), configured(slots=SLOTS, context=CONTEXT), Path(folder))
        await box.start()
        storm = Storm(box, random.Random(seed))
        await storm.run(WARM_UP, clients, 1)  # what stays after this is held from the first storm on
        storm.usual = median(storm.took) if storm.took else 1.0
        before = await look(box)
        print("before: ", before[0], f"service {before[1]}; engine {before[2]}", sep=" ", flush=True)
        storm = Storm(box, random.Random(seed + 1), usual=storm.usual)
        began = time.monotonic()
        await storm.run(requests, clients, kills)
        took = time.monotonic() - began
        after = await look(box)
        await box.stop()
    print("after:  ", after[0], f"service {after[1]}; engine {after[2]}")
    print(f"{storm.done} requests in {took:.0f} s, {storm.done / took:.1f} a second; {len(storm.deaths)} engine kills")
    for verdict, count in storm.verdicts.most_common():
        print(f"  {count:6} {verdict}")
    print(f"  {storm.refused:6} times a 503 with Retry-After, asked again")
    print(f"whole answers: median {median(storm.took):.2f} s, p99 {quantile(storm.took, 0.99):.2f} s", end=", ")
    print(f"worst {max(storm.took, default=0):.2f} s")
    for line in storm.lost[:20]:
        print("LOST:", line)
    as_before = not after[0]["busy"] and not after[0]["waiting"] and not after[0]["running"]
    as_before &= after[1].descriptors <= before[1].descriptors + 4 and after[1].threads <= before[1].threads + 4
    as_before &= after[2].threads <= before[2].threads and after[2].descriptors <= before[2].descriptors
    print(f"slots, threads and descriptors as before: {'yes' if as_before else 'NO'};", end=" ")
    service, engine = after[1].rss - before[1].rss, after[2].rss - before[2].rss
    print(f"memory of the service {service:+.1f} MB, of the engine {engine:+.1f} MB")
    return 0 if as_before and not storm.lost else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.requests, given.kills, given.clients, given.seed)))
