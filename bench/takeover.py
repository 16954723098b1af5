"""How long is the silence when the cloud dies in mid-sentence, cold and standing by?

    python bench/takeover.py [--rounds 20] [--tokens 200,2000,6000] [--modes cold,hot]

The cloud says about forty pieces at 30 ms each and then resets the connection. Every round is a conversation nobody has
seen before; cold and standing by take turns, on two boxes with the same model. Standing by, the cloud begins to speak
when the standby has computed the prompt; its words are fed in as they pass.

Silence: from the moment the cloud's socket died to the first of the box's own words at the client. Noticed: from
the same moment to the comment that announces the takeover; a box that sends both together says nothing by it. A step:
the median time between two of the box's own words in the same answer, which is one decode step at the same depth.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from client import Heard, listen, request
from clouds import Cloud
from common import Box, command, configured, free_port, median, prose, quantile, table

CONTEXT = 8192
CONTINUED = 32  # words of the box, after the cloud's
SETTLING = 3  # the first pieces may hold several tokens: a healed word is verified in one batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    seconds: float
    noticed: float
    step: float
    prompt_tokens: int
    caught_up: float
    complaint: str | None


async def one(box: Box, cloud: Cloud, tokens: int, mode: str, chance: random.Random) -> Silence:
    pieces = chance.randint(36, 44)
    heard = Heard()
    body = request(prose(tokens, chance), pieces * 2 + CONTINUED, model="some-model")
    asking = asyncio.create_task(listen(box.port, body, heard))
    await cloud.asked()
    caught_up = 0.0
    if mode == "cold":
        await asyncio.sleep(0.3)
    else:
        caught_up = await box.caught_up()
    cloud.go(pieces, cut=True)
    died, said = await cloud.over()
    await asking
    await box.reset()
    complaint = heard.complaint(begins=said) if len(said) > pieces else "the cloud was left before it broke"
    if complaint is not None:
        return Silence(seconds=0, noticed=0, step=0, prompt_tokens=0, caught_up=0, complaint=complaint)
    ours = [at for at, end in _ends(heard) if end > len(said)]
    gaps = [after - before for before, after in itertools.pairwise(ours[SETTLING:])]
    return Silence(
        seconds=ours[0] - died,
        noticed=heard.takeovers[0] - died if heard.takeovers else float("nan"),
        step=median(gaps),
        prompt_tokens=heard.prompt_tokens,
        caught_up=caught_up,
        complaint=None,
    )


def _ends(heard: Heard) -> list[tuple[float, int]]:
    """When each piece came, and how long the answer was with it."""
    found, length = [], 0
    for at, piece in heard.pieces:
        length += len(piece)
        found.append((at, length))
    return found


async def main(rounds: int, sizes: list[int], modes: list[str], seed: int) -> int:
    print(command())
    chance = random.Random(seed)
    taken: dict[tuple[int, str], list[Silence]] = {(size, mode): [] for size in sizes for mode in modes}
    lost = 0
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cloud = await stack.enter_async_context(Cloud())
        boxes = {}
        for mode in modes:
            config = configured(cloud=cloud.base_url, context=CONTEXT, slots=2, standby=mode)
            boxes[mode] = Box(free_port(), config, folder)
            await boxes[mode].start()
            stack.push_async_callback(boxes[mode].stop)
        for round in range(rounds):
            for size in sizes:
                for mode in modes if round % 2 else reversed(modes):
                    silence = await one(boxes[mode], cloud, size, mode, chance)
                    if silence.complaint:
                        lost += 1
                        print(f"LOST: {size} {mode}: {silence.complaint}", flush=True)
                    else:
                        taken[size, mode].append(silence)
                        ms = 1000 * silence.seconds
                        print(f"  {round + 1}/{rounds} {size} {mode}: {ms:.0f} ms", file=sys.stderr, flush=True)
    rows: list[tuple[object, ...]] = [
        ("words", "tokens", "mode", "rounds", "median ms", "p95 ms", "noticed ms", "step ms", "steps", "p95 steps")
    ]
    for (size, mode), found in taken.items():
        seconds = [one.seconds for one in found]
        steps = [one.seconds / one.step for one in found]
        rows.append(
            (
                size,
                f"{median([one.prompt_tokens for one in found]):.0f}",
                mode,
                len(found),
                f"{1000 * median(seconds):.1f}",
                f"{1000 * quantile(seconds, 0.95):.1f}",
                f"{1000 * median([one.noticed for one in found]):.1f}",
                f"{1000 * median([one.step for one in found]):.1f}",
                f"{median(steps):.2f}",
                f"{quantile(steps, 0.95):.2f}",
            )
        )
    print(table(rows))
    if {"cold", "hot"} <= set(modes):
        for size in sizes:
            cold, hot = (median([one.seconds for one in taken[size, mode]]) for mode in ("cold", "hot"))
            print(f"{size}: standing by, the silence is {cold / hot:.0f} times shorter than cold")
    print(f"answers that were not whole: {lost}")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", default="200,2000,6000", help="lengths of the prompts")
    parser.add_argument("--modes", default="cold,hot")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sizes = [int(one) for one in given.tokens.split(",")]
    sys.exit(asyncio.run(main(given.rounds, sizes, given.modes.split(","), given.seed)))
