"""Does the next turn of a long conversation begin as soon as the answer to a short prompt?

    python bench/turns.py [--rounds 20] [--words 3000] [--system 1500]

Three scenes. `turn`: a conversation of 3,000 tokens with the box, and its next turns. `taken over`: the first answer
was begun by a cloud that broke, and ended by the box; then the next turn. `shared`: two conversations with the same
system prompt of 1,500 tokens, the second of which computes only its own words. Each first token is taken in turns with
that of a short prompt nobody has seen, whose last message has as many words. Cold: the same without reuse.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import Heard, ask, listen, request
from clouds import Cloud
from common import Box, command, configured, free_port, lower_bound, median, prose, quantile, table

ASKED, ANSWERED = 24, 16  # words of a short message, tokens of an answer
TURNS = 5  # next turns per long conversation


@dataclass
class Scene:
    """First tokens of a next turn and, beside each, of a short prompt; in seconds."""

    firsts: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    computed_beside: list[int] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)

    def row(self, name: str) -> tuple[object, ...]:
        ratios = [first / short for first, short in zip(self.firsts, self.beside, strict=True)]
        return (
            name,
            len(ratios),
            f"{1000 * median(self.firsts):.1f}",
            f"{1000 * median(self.beside):.1f}",
            f"{median(self.firsts) / median(self.beside):.2f}",
            f"{-lower_bound([-ratio for ratio in ratios]):.2f}",
            f"{quantile(ratios, 0.05):.2f}-{quantile(ratios, 0.95):.2f}",
            f"{median(self.cached):.0f}",
            f"{median(self.computed):.0f}",
            f"{median(self.computed_beside):.0f}",
            f"{1000 * median(self.cold):.0f}",
        )


class Rounds:
    def __init__(self, box: Box, chance: random.Random) -> None:
        self._box = box
        self._chance = chance
        self.scenes: dict[str, Scene] = {}

    def words(self, count: int = ASKED) -> dict[str, str]:
        return {"role": "user", "content": prose(count, self._chance)}

    async def say(self, messages: Sequence[dict[str, str]]) -> Heard:
        return whole(await ask(self._box.port, chat(messages)))

    async def compare(self, name: str, messages: Sequence[dict[str, str]], cold: float) -> Heard:
        """The first token of `messages`, beside that of a short prompt, in either order."""
        scene = self.scenes.setdefault(name, Scene())
        short = [self.words()]
        if self._chance.random() < 0.5:
            beside, heard = await self.say(short), await self.say(messages)
        else:
            heard, beside = await self.say(messages), await self.say(short)
        scene.firsts.append(heard.first)
        scene.beside.append(beside.first)
        scene.cached.append(heard.cached)
        scene.computed.append(heard.prompt_tokens - heard.cached)
        scene.computed_beside.append(beside.prompt_tokens - beside.cached)
        scene.cold.append(cold)
        return heard

    async def conversation(self, words: int, turns: int) -> None:
        """One long conversation, and its next turns."""
        messages = [self.words(words)]
        heard = await self.say(messages)
        cold = heard.first
        for _ in range(turns):
            messages += [{"role": "assistant", "content": heard.text}, self.words()]
            heard = await self.compare("turn", messages, cold)

    async def taken_over(self, cloud: Cloud, words: int) -> None:
        messages = [self.words(words)]
        asking = asyncio.create_task(listen(self._box.port, chat(messages, model="some-model", tokens=96), Heard()))
        await cloud.asked()
        cloud.go(40, cut=True)
        died, said = await cloud.over()
        heard = whole(await asking, begins=said)
        cold = next(at for at, _ in heard.pieces if at > died) - died
        await self._box.reset()
        messages += [{"role": "assistant", "content": heard.text}, self.words()]
        await self.compare("taken over", messages, cold)

    async def shared(self, words: int) -> None:
        system = {"role": "system", "content": prose(words, self._chance)}
        first = await self.say([system, self.words()])
        await self.compare("shared", [system, self.words()], first.first)


def chat(messages: Sequence[dict[str, str]], *, model: str = "local", tokens: int = ANSWERED) -> dict[str, Any]:
    return request("", tokens, messages=list(messages), model=model)


def whole(heard: Heard, *, begins: str = "") -> Heard:
    if complaint := heard.complaint(begins=begins):
        raise SystemExit(f"an answer was not whole: {complaint}")
    return heard


async def main(rounds: int, words: int, system: int, seed: int) -> int:
    print(command())
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cloud = await stack.enter_async_context(Cloud())
        box = Box(free_port(), configured(cloud=cloud.base_url, context=8192, slots=4, standby="cold"), folder)
        await box.start()
        stack.push_async_callback(box.stop)
        play = Rounds(box, random.Random(seed))
        await play.say([play.words()])
        for done in range(0, rounds, TURNS):
            turns = min(TURNS, rounds - done)
            await play.conversation(words, turns)
            await play.taken_over(cloud, words)
            for _ in range(turns):
                await play.shared(system)
            print(f"  {done + turns}/{rounds}", file=sys.stderr, flush=True)
    head = (
        "first token of",
        "rounds",
        "median ms",
        "short ms",
        "ratio",
        "upper 95 %",
        "spread 5-95 %",
        "cached_tokens",
        "computed",
        "short computed",
        "cold ms",
    )
    print(table([head, *(scene.row(name) for name, scene in play.scenes.items())]))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--words", type=int, default=3000)
    parser.add_argument("--system", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.rounds, given.words, given.system, given.seed)))
