"""Does `models fit` foretell what happens? Memory and tokens per second, foretold and then measured, on this box.

    python bench/fit.py [MODEL.gguf | SHAPE ...] [--context 2048] [--slots 2] [--rounds 3] [--folder FOLDER]

Without models: the starter, and random weights of the shapes 0.5B:Q4_K_M and 1.5B:Q4_K_M. For each: the dry load and
the probes say what to expect; then the real engine process loads it, fills every slot's context and answers. Memory is
the engine's proportional set size (PSS) after that: the mapped pages of the file and Python's own are in it. Tokens
per second are those of one request, temperature 0, counted by the engine between the first word and the last; each
round asks the probes again right before, and the median of the ratios counts. On a busy box it says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
from pathlib import Path

from common import prose

from appliance.backends import box
from appliance.backends.process import Engine, EngineSpec
from appliance.bench.surroundings import forget
from appliance.cli.probing import measured
from appliance.config import default_paths
from appliance.core.machine import Weight
from appliance.store.catalog import find
from appliance.store.fit import burden_of, resident_of
from appliance.store.shape import looks_like_shape, parse_shape
from appliance.store.speed import expect
from appliance.store.store import path_of
from appliance.store.weights import write_random

DEFAULT = ("starter", "0.5B:Q4_K_M", "1.5B:Q4_K_M")
ANSWER = 96
MEMORY_WITHIN, SPEED_WITHIN = 0.05, 0.20


def the_file(given: str, folder: Path) -> Path:
    if looks_like_shape(given):
        shape = parse_shape(given)
        path = folder / f"{shape.name}-{shape.quant}.gguf"
        if not path.is_file():
            print(f"writing {shape.title}, {shape.bytes / 1e6:,.0f} MB", flush=True)
            write_random(shape, path)
        return path
    return Path(given) if given.endswith(".gguf") else path_of(find(given), default_paths(dict(os.environ)).models)


def pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no Pss")


ENDS: list[int] = [0, 1, 2, 256, 257, 258]  # the starter's, and those of random weights: nobody ends early


async def run(path: Path, given: argparse.Namespace) -> tuple[Weight, int, list[float]]:
    """What is foretold, the bytes that were really taken, and the ratios foretold / real of tokens per second."""
    weight = box.weigh(path, context=given.context, slots=given.slots)
    spec = EngineSpec(path=str(path), context=given.context, slots=given.slots)
    ratios = []
    forget(path)
    engine = Engine(spec)
    await engine.start()
    try:
        ready = await engine.wait_ready(600)
        assert not ready.steps_down, ready.steps_down
        for turn in range(given.rounds):
            known = await asyncio.to_thread(measured, given.folder / "probes", [burden_of(weight)], fresh=True)
            foretold = expect(burden_of(weight), known).tokens_per_second
            real = 1 / await box.one_answer(engine, prose(4, random.Random(turn)), ANSWER, never=ENDS)
            (alone,) = await asyncio.to_thread(box.pace, [(path, 16)])
            ratios.append(foretold / real)
            print(
                f"  round {turn + 1}: foretold {foretold:.1f} tok/s, real {real:.1f}"
                f" ({1 / alone.seconds_per_token:.1f} without the engine around it; others had {known.others:.0%})",
                flush=True,
            )
        per_word = 1 if path.name.startswith("SmolLM2") else 5  # random weights have a token per letter
        words = (given.context - 96) // per_word - 64
        await asyncio.gather(
            *(box.one_answer(engine, prose(words, random.Random(slot)), 24, never=ENDS) for slot in range(given.slots))
        )
        assert engine.pid is not None
        return weight, pss(engine.pid), ratios
    finally:
        await engine.stop()


async def main(given: argparse.Namespace) -> int:
    well = True
    for one in given.models or DEFAULT:
        path = the_file(one, given.folder)
        print(f"{one}: {path}", flush=True)
        weight, took, ratios = await run(path, given)
        memory, speed = resident_of(weight, weight.asked) / took - 1, statistics.median(ratios) - 1
        good = abs(memory) <= MEMORY_WITHIN and abs(speed) <= SPEED_WITHIN
        well &= good
        print(
            f"  memory: foretold {resident_of(weight, weight.asked) / 2**20:,.0f} MiB, real {took / 2**20:,.0f} MiB,"
            f" {memory:+.1%};  tok/s: {speed:+.1%} (rounds {', '.join(f'{ratio - 1:+.0%}' for ratio in ratios)})"
            f"  {'within' if good else 'NOT WITHIN'} {MEMORY_WITHIN:.0%} and {SPEED_WITHIN:.0%}",
            flush=True,
        )
    return 0 if well else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/appliance-fit"))
    sys.exit(asyncio.run(main(parser.parse_args())))
