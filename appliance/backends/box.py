"""What is this box, what would a model take, how fast would it be? Asked of a child, because only that one may die.

llama.cpp ends the process where Python would raise, so nobody but the engine's own processes loads it. Everything here
waits for the answer; none of it belongs on an event loop.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from appliance.backends.child import EngineSpec, environment, how, slowest_read
from appliance.backends.process import Engine
from appliance.core.fault import BackendError, Fault
from appliance.core.machine import Device, Machine, Pace, Placement, Read, Weight

PATIENCE = 60.0
"""Seconds for what takes one or two on an idle box."""
MOST = 320
"""Tokens of an answer that a `pace` may need room for."""
ANSWER = 48
"""Tokens of an answer that is `served`."""


def describe(*, python: str = sys.executable, patience: float = PATIENCE) -> Machine:
    """The box, as llama.cpp sees it. Raises `BackendError`: SILENT after `patience` seconds, and the child is ended."""
    said = _ask({"op": "describe"}, python, patience=patience)
    return Machine(
        **said
        | {
            "devices": tuple(Device(**device) for device in said["devices"]),
            "instruction_sets": tuple(said["instruction_sets"]),
        }
    )


def weigh(
    path: str | Path,
    *,
    context: int = 4096,
    slots: int = 4,
    kv_type: str = "f16",
    gpu_layers: int | Literal["auto"] = "auto",
    python: str = sys.executable,
    patience: float = PATIENCE,
) -> Weight:
    """What the model takes as asked for, and as the engine would load it now: a dry load, which allocates nothing.
    Raises `BackendError` with the sentence of what is wrong with the file; SILENT as `describe`."""
    load = {"path": str(path), "context": context, "slots": slots, "kv_type": kv_type, "gpu_layers": gpu_layers}
    said = _ask({"op": "weigh", "load": load}, python, patience=patience)
    return Weight(
        **said
        | {
            "reads": tuple(Read(**read) for read in said["reads"]),
            "asked": _placement(said["asked"]),
            "chosen": said["chosen"] and _placement(said["chosen"]),
        }
    )


def bandwidth(*, python: str = sys.executable) -> float:
    """Bytes per second that the engine's threads together read from memory. Raises `BackendError`."""
    return float(_ask({"op": "bandwidth"}, python))


def pace(
    runs: Sequence[tuple[str | Path, int]],
    *,
    seconds: float = 0.5,
    gpu_layers: int | Literal["auto"] = "auto",
    python: str = sys.executable,
) -> tuple[Pace, ...]:
    """How fast each of these models reads a prompt of so many tokens and then writes an answer for so many seconds, one
    after the other. Raises `BackendError`."""
    asked = [
        {
            "load": {"path": str(path), "context": MOST + prompt, "slots": 1, "gpu_layers": gpu_layers},
            "prompt": prompt,
        }
        for path, prompt in runs
    ]
    patience = PATIENCE * len(runs) + sum(slowest_read(str(path)) for path, _ in runs)
    said = _ask({"op": "pace", "runs": asked, "seconds": seconds}, python, patience=patience)
    return tuple(Pace(**one) for one in said)


def served(
    path: str | Path, *, gpu_layers: int | Literal["auto"] = "auto", python: str = sys.executable, answers: int = 3
) -> float:
    """Seconds per token of an answer that an engine's process gives while this one reads it: the median of several
    answers. Raises `BackendError`."""
    return asyncio.run(
        _served(EngineSpec(path=str(path), context=MOST, slots=1, gpu_layers=gpu_layers), python, answers)
    )


async def _served(spec: EngineSpec, python: str, answers: int) -> float:
    engine = Engine(spec, python=python)
    await engine.start()
    try:
        await engine.wait_ready(PATIENCE + slowest_read(spec.path))
        return statistics.median([await one_answer(engine, "Go on.", ANSWER) for _ in range(answers)])
    except TimeoutError:
        raise BackendError(Fault.SILENT, "the engine was not ready to answer in time.") from None
    finally:
        await engine.stop()


async def one_answer(engine: Engine, prompt: str, tokens: int, *, never: Sequence[int] = ()) -> float:
    """Seconds per token, from the first word to the last, of an answer without the tokens `never`. Raises
    `BackendError`."""
    job = {
        "messages": [{"role": "user", "content": prompt}],
        "committed": None,
        "max_tokens": tokens,
        "stop": [],
        "trim": False,
        "sampling": {"temperature": 0, "logit_bias": [[token, -100] for token in never]},
    }
    began, before = 0.0, 0
    async for frames in engine.generate(job):
        if not began and any(frame["op"] == "text" for frame in frames):
            before, began = (await engine.stats())["decoded"], time.perf_counter()
    after, ended = (await engine.stats())["decoded"], time.perf_counter()
    if not began or after <= before:
        raise BackendError(Fault.BROKEN, "the engine wrote nothing.")
    return float((ended - began) / (after - before))


def _placement(said: Mapping[str, Any]) -> Placement:
    return Placement(**{**said, "devices": tuple(said["devices"]), "steps": tuple(said["steps"])})


def _ask(question: Mapping[str, Any], python: str, *, patience: float = PATIENCE) -> Any:
    command = [python, "-m", "appliance.engine.weigh", json.dumps(question)]
    what = question["op"]
    try:
        child = subprocess.run(command, capture_output=True, timeout=patience, env=environment(), check=False)
    except subprocess.TimeoutExpired:
        raise BackendError(Fault.SILENT, f"llama.cpp did not answer ({what}) within {patience:.0f} s.") from None
    except OSError as error:
        raise BackendError(Fault.UNREACHABLE, f"{python} could not be started: {error.strerror}.") from None
    try:
        said = json.loads(child.stdout)
    except ValueError:
        said = {}
    if "answer" in said:
        return said["answer"]
    if "error" in said:
        raise BackendError(Fault.CONFIG, said["error"])
    last = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    ended = f"llama.cpp ended without an answer ({what}, {how(child.returncode)})"
    raise BackendError(Fault.CRASHED, f"{ended}: {last}" if last else f"{ended}.")
