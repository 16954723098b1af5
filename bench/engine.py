"""The engine's tokens per second beside llama.cpp's own `llama-batched-bench`, in one run, taking turns.

    python bench/engine.py --model MODEL.gguf --batched-bench PATH/llama-batched-bench [--rounds 10] [--parallel 1,4,8]

Same model, threads, batch, flash attention and KV layout (one stream per sequence) on both sides; prompts of some
32 tokens, 128 generated. The C++ program feeds tokens it made up and samples nothing. Ours goes through the pipe,
samples (temperature 0), makes text and sends it. Printed: the ratio ours/theirs per number of sequences, its median
and the lower end of a 95 % bootstrap interval.

`llama-batched-bench` is built from the llama-cpp-python sdist (docs/benchmarking.md says how); no test needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys

from appliance.backends.process import Engine, EngineSpec

GENERATED = 128
CONTEXT = 512
LONG = "Write a very long story about a ship and its captain. Tell of storm number"


def theirs(program: str, model: str, threads: int, parallel: int) -> float:
    command = [program, "-m", model, "-c", str(CONTEXT * parallel), "-b", "520", "-ub", "512", "-npp", "32"]
    command += ["-ntg", str(GENERATED), "-npl", str(parallel), "-t", str(threads), "-no-kvu"]
    command += ["--output-format", "jsonl"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = next(json.loads(line) for line in out.splitlines() if line.startswith("{"))
    return float(row["speed_tg"])


async def ours(engine: Engine, parallel: int, round: int) -> float:
    """All sequences start together; tokens over the time in which they were generated."""

    async def one(index: int) -> tuple[int, float]:
        job = {
            "messages": [{"role": "user", "content": f"{LONG} {round * 100 + index}."}],
            "committed": None,
            "max_tokens": GENERATED,
            "stop": [],
            "trim": False,
            "sampling": {"temperature": 0},
        }
        async for frames in engine.generate(job):
            for frame in frames:
                if frame["op"] == "finish":
                    return frame["timings"]["predicted_n"], frame["timings"]["predicted_ms"]
        raise RuntimeError("the engine gave no end")

    ends = await asyncio.gather(*(one(index) for index in range(parallel)))
    return sum(tokens for tokens, _ in ends) / (max(ms for _, ms in ends) / 1000)


def lower_bound(ratios: list[float]) -> float:
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50]


async def main(given: argparse.Namespace) -> None:
    for parallel in (int(one) for one in given.parallel.split(",")):
        engine = Engine(EngineSpec(path=given.model, context=CONTEXT, slots=parallel, threads=given.threads))
        await engine.start()
        await engine.wait_ready(120)
        pairs = []
        for round in range(given.rounds + 1):
            mine = await ours(engine, parallel, round)
            other = await asyncio.to_thread(theirs, given.batched_bench, given.model, given.threads, parallel)
            if round:  # the first warms up
                pairs.append((mine, other))
        await engine.stop()
        ratios = [mine / other for mine, other in pairs]
        print(
            f"{parallel} sequences: ours {statistics.median(one for one, _ in pairs):.1f} tok/s, "
            f"batched-bench {statistics.median(one for _, one in pairs):.1f} tok/s, ratio median "
            f"{statistics.median(ratios):.3f}, 95 % lower bound {lower_bound(ratios):.3f}, "
            f"{len(ratios)} rounds, {min(ratios):.3f} to {max(ratios):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batched-bench", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parallel", default="1,4,8")
    parser.add_argument("--threads", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
    sys.exit(0)
