"""The engine's tokens per second beside llama.cpp's own `llama-batched-bench`, in one run, taking turns.

    python bench/engine.py --model MODEL.gguf --batched-bench PATH/llama-batched-bench [--rounds 10] [--parallel 1,4,8]

Same model, threads, batch, flash attention and KV layout (one stream per sequence) on both sides; prompts of some
32 tokens, 128 generated. The C++ program feeds tokens it made up and samples nothing. Ours goes through the pipe,
samples (temperature 0, ends forbidden by logit_bias), makes text and sends it; counted is the time in which all
sequences were being written. Printed: the ratio ours/theirs per number of sequences, its median
and the lower end of a 95 % bootstrap interval.

`llama-batched-bench` is built from the llama-cpp-python sdist (docs/benchmarking.md says how); no test needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

from common import lower_bound

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


async def ours(engine: Engine, parallel: int, round: int, ends: list[int]) -> float:
    """Tokens per second while all sequences were being written: from the last first word to the first end."""
    begun = 0
    everybody, anybody = asyncio.Event(), asyncio.Event()

    async def one(index: int) -> None:
        nonlocal begun
        job = {
            "messages": [{"role": "user", "content": f"{LONG} {round * 100 + index}."}],
            "committed": None,
            "max_tokens": GENERATED,
            "stop": [],
            "trim": False,
            "sampling": {"temperature": 0, "logit_bias": [[token, -100] for token in ends]},
        }
        first = True
        async for frames in engine.generate(job):
            for frame in frames:
                if frame["op"] == "text" and first:
                    first = False
                    begun += 1
                    if begun == parallel:
                        everybody.set()
                if frame["op"] == "finish":
                    anybody.set()

    async def window() -> float:
        await everybody.wait()
        before, began = (await engine.stats())["decoded"], time.perf_counter()
        await anybody.wait()
        after, ended = (await engine.stats())["decoded"], time.perf_counter()
        return float((after - before) / (ended - began))

    rate, *_ = await asyncio.gather(window(), *(one(index) for index in range(parallel)))
    return rate


async def main(given: argparse.Namespace) -> None:
    for parallel in (int(one) for one in given.parallel.split(",")):
        engine = Engine(EngineSpec(path=given.model, context=CONTEXT, slots=parallel, threads=given.threads))
        await engine.start()
        await engine.wait_ready(120)
        pairs = []
        for round in range(given.rounds + 1):
            mine = await ours(engine, parallel, round, given.ends)
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
    parser.add_argument("--ends", type=int, nargs="*", default=[0, 2, 4], help="the model's end tokens, forbidden here")
    parser.add_argument("--threads", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
    sys.exit(0)
