"""Served answers beside `llama-server` of the same llama.cpp: tokens per second, first token, time between tokens.

    python bench/beside.py --model MODEL.gguf --llama-server PATH/llama-server [--rounds 10] [--clients 1,4,8]

Same model, context per slot, slots (as many as clients), threads, batch of 512, flash attention "auto", one KV stream
per sequence, prompt cache on; temperature 0, ends forbidden by logit_bias, so every answer has its `max_tokens`. One
client of bare sockets asks both through OpenAI's chat stream. Both servers are up; they take turns in being asked, and
what the idle one computes meanwhile is printed. Last scene: a prompt of 3,000 tokens comes while three clients stream.

Every ratio says how many times better the box is (its rate over theirs, their time over its), its median over the
rounds and the lower end of a 95 % bootstrap interval: 1 is alike, above is better.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import psutil
from client import Heard, ask, listen, request
from common import Box, command, configured, free_port, lower_bound, median, prose, quantile, table

from appliance.engine.cores import cores

ASKED, ANSWERED = 24, 128
CONTEXT = 4096
STREAMS, UNDER_WAY, LONG, LONG_ANSWER = 3, 16, 3000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    name: str
    port: int
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return float(sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids))


Figures = dict[str, float]
"""By name; those that begin with a "+" are better when larger."""


async def together(port: int, clients: int, seed: int) -> Figures:
    chance = random.Random(seed)
    bodies = [request(prose(ASKED, chance), ANSWERED) for _ in range(clients)]
    began = time.monotonic()
    answers = [whole(heard) for heard in await asyncio.gather(*(ask(port, body) for body in bodies))]
    took = max(heard.pieces[-1][0] for heard in answers) - began
    gaps = [gap for heard in answers for gap in heard.gaps]
    return {
        "+tokens per second": sum(heard.usage["completion_tokens"] for heard in answers) / took,
        "first token": median([heard.first for heard in answers]),
        "between tokens p50": median(gaps),
        "between tokens p99": quantile(gaps, 0.99),
    }


async def long_one(port: int, seed: int) -> Figures:
    """Three stream, and a long prompt comes."""
    chance = random.Random(seed)
    heard = [Heard() for _ in range(STREAMS)]
    streams = [asyncio.create_task(listen(port, request(prose(ASKED, chance), CONTEXT - 400), one)) for one in heard]
    while any(len(one.pieces) < UNDER_WAY for one in heard):
        await asyncio.sleep(0.005)
        if broken := next((one for one in heard if one.error), None):
            whole(broken)
    late = whole(await ask(port, request(prose(LONG, chance), LONG_ANSWER)))
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    until = late.pieces[0][0]
    gaps = []
    for one in heard:
        times = [at for at, _ in one.pieces]
        gaps += [b - a for a, b in itertools.pairwise(times) if b > late.sent and a < until]
        gaps.append(until - times[-1] if times[-1] < until else 0.0)
    await asyncio.sleep(0.3)  # the three are noticed to have left
    return {
        "first token of the long one": late.first,
        "between tokens p50": median(gaps),
        "between tokens p99": quantile(gaps, 0.99),
        "longest pause": max(gaps),
    }


def whole(heard: Heard) -> Heard:
    if complaint := heard.complaint():
        raise SystemExit(f"an answer was not whole: {complaint}")
    return heard


@contextlib.asynccontextmanager
async def both(given: argparse.Namespace, slots: int) -> AsyncIterator[tuple[Server, Server]]:
    """The box and llama-server, up and warm."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        local = {"model": given.model, "context": CONTEXT, "slots": slots}
        box = Box(free_port(), configured(**local, threads=given.threads, queue=64), folder)
        await box.start()
        port = free_port()
        options = f"-c {CONTEXT * slots} -np {slots} -t {given.threads} -tb {given.threads} -b 512 -ub 512 -fa auto"
        options += f" --no-kv-unified --cache-prompt --cache-ram 0 -fit off --no-ui --host 127.0.0.1 --port {port}"
        with tempfile.TemporaryFile() as log:
            theirs = await asyncio.create_subprocess_exec(
                given.llama_server, "-m", given.model, *options.split(), stdout=log, stderr=log
            )
            try:
                await healthy(port, theirs, log)
                assert box.process is not None
                engine = (await box.engine())["pid"]
                yield (
                    Server(name="box", port=box.port, pids=(box.process.pid, engine)),
                    Server(name="llama-server", port=port, pids=(theirs.pid,)),
                )
            finally:
                theirs.terminate()
                await theirs.wait()
                await box.stop()


async def healthy(port: int, process: asyncio.subprocess.Process, log: BinaryIO) -> None:
    async with httpx.AsyncClient(timeout=5) as client:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200:
                    return
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"llama-server did not start; it said:\n{log.read().decode()[-2000:]}")


async def scene(name: str, given: argparse.Namespace, clients: int | None) -> list[tuple[object, ...]]:
    """All rounds of one scene; `clients` is ``None`` for the long prompt."""
    taken: dict[str, list[Figures]] = {"box": [], "llama-server": []}
    idle: dict[str, list[float]] = {"box": [], "llama-server": []}
    async with both(given, clients or STREAMS + 1) as servers:
        tokens = {one.name: whole(await ask(one.port, request("Hello there.", 4))).prompt_tokens for one in servers}
        if len(set(tokens.values())) != 1:
            print(f"the same prompt has not as many tokens on both sides: {tokens}")
        for round in range(given.rounds + 1):
            for server in servers if round % 2 else reversed(servers):
                other = next(one for one in servers if one is not server)
                before, began = other.cpu(), time.monotonic()
                if clients is None:
                    figures = await long_one(server.port, round)
                else:
                    figures = await together(server.port, clients, round)
                if round:  # the first warms up
                    taken[server.name].append(figures)
                    idle[other.name].append((other.cpu() - before) / (time.monotonic() - began))
            print(f"  {name}: {round}/{given.rounds}", file=sys.stderr, flush=True)
    rows: list[tuple[object, ...]] = []
    for figure in taken["box"][0]:
        ours, theirs = ([figures[figure] for figures in taken[who]] for who in ("box", "llama-server"))
        larger = figure.startswith("+")
        ratios = [a / b if larger else b / a for a, b in zip(ours, theirs, strict=True)]
        unit = 1 if larger else 1000
        rows.append(
            (
                name,
                figure.removeprefix("+") + ("" if larger else ", ms"),
                f"{unit * median(ours):.1f}",
                f"{unit * median(theirs):.1f}",
                f"{median(ratios):.3f}",
                f"{lower_bound(ratios):.3f}",
                f"{min(ratios):.2f}-{max(ratios):.2f}",
            )
        )
    cores_idle = ", ".join(f"{who} {median(shares):.3f}" for who, shares in idle.items())
    print(f"  {name}: cores busy while the other is asked: {cores_idle}", file=sys.stderr, flush=True)
    return rows


async def main(given: argparse.Namespace) -> int:
    print(command())
    rows: list[tuple[object, ...]] = [("scene", "figure", "box", "llama-server", "better", "lower 95 %", "spread")]
    for clients in (int(one) for one in given.clients.split(",") if one):
        rows += await scene(f"{clients} clients" if clients > 1 else "1 client", given, clients)
    if not given.no_long:
        rows += await scene("a long prompt", given, None)
    print(table(rows))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=os.path.abspath)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", default="1,4,8")
    parser.add_argument("--no-long", action="store_true", help="without the scene of the long prompt")
    parser.add_argument("--threads", type=int, default=cores())
    sys.exit(asyncio.run(main(parser.parse_args())))
