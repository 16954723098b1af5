"""Tokens per second of an answer that keeps to something beside one that is free, in one run, taking turns.

    python bench/structured.py --model MODEL.gguf [--rounds 10] [--tokens 192]

``schema``: a JSON schema of an array of records; ``tool``: a forced call with such arguments; ``json``: any document of
many keys; ``grammar``: a GBNF of words. The free answer is greedy text of as many tokens, its end forbidden, as theirs
is. Counted is the time between the first word and the end, per token, as the engine's own timings say it.
Printed: the rate over that of the free answer, its median and the lower end of a 95 % bootstrap interval.
Promised: at least 0.9.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Mapping
from typing import Any

from common import lower_bound

from appliance.backends.process import Engine, EngineSpec

STORY = "Write a very long story about a ship and its captain. Tell of storm number"
RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 8, "maxLength": 60},
        "kind": {"enum": ["ship", "storm", "island"]},
        "tons": {"type": "integer", "minimum": 0, "maximum": 100000},
        "day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    },
    "required": ["name", "kind", "tons", "day"],
    "additionalProperties": False,
}
RECORDS = {
    "type": "object",
    "properties": {"records": {"type": "array", "items": RECORD, "minItems": 60}},
    "required": ["records"],
    "additionalProperties": False,
}
TOOL = {"name": "store", "description": "Store records.", "parameters": RECORDS}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "free": {},
    "schema": {"format": {"schema": RECORDS}},
    "tool": {"tools": [TOOL], "choice": {"name": "store"}},
    "json": {"format": {"schema": {"type": "object", "minProperties": 60}}},
    "grammar": {"format": {"grammar": 'root ::= ("The " [a-z]+ (" " [a-z]+)* ". ")+'}},
}


async def rate(engine: Engine, way: Mapping[str, Any], round: int, tokens: int, ends: list[int]) -> tuple[float, int]:
    """Tokens per second behind the first, and how many were written."""
    job = {
        "messages": [{"role": "user", "content": f"{STORY} {round}."}],
        "max_tokens": tokens,
        "sampling": {"temperature": 0, "logit_bias": [[token, -100] for token in ends]},
        **way,
    }
    async for frames in engine.generate(job):
        for frame in frames:
            if frame["op"] == "finish":
                timings = frame["timings"]
                return 1000.0 * timings["predicted_n"] / timings["predicted_ms"], timings["predicted_n"]
    raise RuntimeError("no end")


async def main(given: argparse.Namespace) -> None:
    engine = Engine(EngineSpec(path=given.model, context=2048, slots=1, threads=given.threads))
    await engine.start()
    await engine.wait_ready(120)
    ratios: dict[str, list[float]] = {name: [] for name in WAYS}
    for round in range(given.rounds + 1):
        found = {name: await rate(engine, way, round, given.tokens, given.ends) for name, way in WAYS.items()}
        if round:  # the first finds out what the schemas allow
            for name, (speed, _) in found.items():
                ratios[name].append(speed / found["free"][0])
        print(f"{round}: " + ", ".join(f"{name} {speed:.1f}/s ({count})" for name, (speed, count) in found.items()))
    for name, of_free in ratios.items():
        print(f"{name:>8}: {statistics.median(of_free):.3f} of free, at least {lower_bound(of_free):.3f}")
    await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--ends", type=int, nargs="*", default=[0, 2, 4], help="the model's end tokens, forbidden here")
    parser.add_argument("--threads", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
