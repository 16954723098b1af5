"""Does a standby get out of the way? The first token of a real request while 6,000 tokens are computed for a standby.

    python bench/yielding.py [--rounds 20] [--tokens 6000]

A cloud has been asked and says nothing yet; the box, standing by "hot", computes the conversation. At random moments of
that a short request is made to the box. Each such first token has one of an idle box at its side. A small batch: what
one step of the standby took just before, from the engine's own figures.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from client import Heard, ask, listen, request
from clouds import Cloud
from common import Box, command, configured, free_port, median, prose, quantile, table

PER_STANDBY = 5
ASKED, ANSWERED = 24, 8
TOLD = ("standby_ready", "standby_tokens", "standby_s", "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    idle: float
    busy: float
    batch: float
    """Seconds of one step of the standby."""
    depth: int
    """Tokens of the standby that were computed when the request came."""

    @property
    def later(self) -> float:
        return self.busy - self.idle


async def short(box: Box, chance: random.Random) -> float:
    heard = await ask(box.port, request(prose(ASKED, chance), ANSWERED))
    if complaint := heard.complaint():
        raise SystemExit(f"an answer was not whole: {complaint}")
    return heard.first


async def during(box: Box, cloud: Cloud, tokens: int, count: int, whole: float, chance: random.Random) -> list[Pair]:
    """`count` requests at random moments of one standby, which takes `whole` seconds if nobody comes."""
    idle = [await short(box, chance) for _ in range(count)]
    before = (await box.engine(*TOLD))["standby_tokens"]
    asking = asyncio.create_task(listen(box.port, request(prose(tokens, chance), 64, model="some-model"), Heard()))
    await cloud.asked()
    pairs = []
    for first in idle:
        await asyncio.sleep(chance.uniform(0, whole / count * 0.6))
        early = await box.engine(*TOLD)
        await asyncio.sleep(max(0.25, whole / count * 0.1))
        late = await box.engine(*TOLD)
        if late["standby_ready"]:
            print("  the standby was ready too early for another request", file=sys.stderr)
            break
        steps = late["steps"] - early["steps"]
        if not steps:
            continue
        pair = Pair(
            idle=first,
            batch=(late["standby_s"] - early["standby_s"]) / steps,
            depth=late["standby_tokens"] - before,
            busy=await short(box, chance),
        )
        pairs.append(pair)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await cloud.over()
    return pairs


async def undisturbed(box: Box, cloud: Cloud, tokens: int, chance: random.Random) -> float:
    """Seconds until a standby is ready on an idle box."""
    asking = asyncio.create_task(listen(box.port, request(prose(tokens, chance), 64, model="some-model"), Heard()))
    await cloud.asked()
    seconds = await box.caught_up()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await cloud.over()
    return seconds


async def main(rounds: int, tokens: int, seed: int) -> int:
    print(command())
    chance = random.Random(seed)
    pairs: list[Pair] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cloud = await stack.enter_async_context(Cloud())
        box = Box(free_port(), configured(cloud=cloud.base_url, context=8192, slots=4, standby="hot"), folder)
        await box.start()
        stack.push_async_callback(box.stop)
        await short(box, chance)
        whole = await undisturbed(box, cloud, tokens, chance)
        print(f"a standby of {tokens} words was ready after {whole:.1f} s on an idle box")
        for _ in range(3 * rounds):  # some may find the standby ready
            if len(pairs) >= rounds:
                break
            pairs += await during(box, cloud, tokens, min(PER_STANDBY, rounds - len(pairs)), whole, chance)
            print(f"  {len(pairs)}/{rounds}", file=sys.stderr, flush=True)
    rows: list[tuple[object, ...]] = [("first token, ms", "median", "p95", "worst")]
    for name, values in (
        ("idle box", [pair.idle for pair in pairs]),
        ("during a standby", [pair.busy for pair in pairs]),
        ("later by", [pair.later for pair in pairs]),
        ("one small batch", [pair.batch for pair in pairs]),
    ):
        rows.append((name, *(f"{1000 * one:.1f}" for one in (median(values), quantile(values, 0.95), max(values)))))
    print(table(rows))
    batches = [pair.later / pair.batch for pair in pairs]
    print(
        f"later by {median(batches):.2f} small batches in the median, {quantile(batches, 0.95):.2f} at p95; "
        f"{sum(one <= 1 for one in batches)} of {len(batches)} by one at most; "
        f"depths {min(pair.depth for pair in pairs)} to {max(pair.depth for pair in pairs)} tokens"
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.rounds, given.tokens, given.seed)))
