"""One client, and eight at once: total tokens per second through the whole service.

    python bench/together.py [--clients 8] [--rounds 5]

A box with eight slots is started, and asked with the official OpenAI SDK, streamed, temperature 0. One client and all
of them take turns. "At the same time" means that every answer had begun before any ended.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import Box, free_port
from kills import PROMPTS
from openai import AsyncOpenAI

TOKENS = 128


async def ask(client: AsyncOpenAI, prompt: str) -> tuple[float, float, int]:
    """When the first word came, when the last, and how many tokens the box counted."""
    first = last = 0.0
    tokens = 0
    stream = await client.chat.completions.create(
        model="local",
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        max_tokens=TOKENS,
    )
    async for chunk in stream:
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
        if chunk.choices and chunk.choices[0].delta.content:
            last = time.perf_counter()
            first = first or last
    return first, last, tokens


async def main(clients: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        box = Box(free_port(), f"[local]\nslots = {clients}\ncontext = 1024\n", Path(folder))
        await box.start()
        client = AsyncOpenAI(base_url=f"{box.url}/v1", api_key="none", max_retries=0, timeout=600)
        rates: dict[int, list[float]] = {1: [], clients: []}
        together = 0
        for round in range(rounds + 1):
            for count in (1, clients):
                began = time.perf_counter()
                ends = await asyncio.gather(*(ask(client, PROMPTS[(round + i) % len(PROMPTS)]) for i in range(count)))
                if round:  # the first warms up
                    took = max(last for _, last, _ in ends) - began
                    rates[count].append(sum(tokens for _, _, tokens in ends) / took)
                    together += count > 1 and max(first for first, _, _ in ends) < min(last for _, last, _ in ends)
        await box.stop()
    one, all_ = statistics.median(rates[1]), statistics.median(rates[clients])
    print(f"1 client: {one:.1f} tok/s; {clients} clients: {all_:.1f} tok/s together, {all_ / one:.2f} times as many")
    print(f"every answer had begun before any ended: {together} of {rounds} rounds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.clients, given.rounds))
    sys.exit(0)
