"""What is this box, what would a model take, how fast is memory, how fast is a model? A child that answers and ends.

`python -m appliance.engine.weigh '{"op": "describe"}'` prints one JSON object. It is a process of its own because
llama.cpp ends the process where Python would raise; what llama.cpp prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from appliance.core.machine import Machine, Pace, Placement, Weight, instruction_sets
from appliance.engine.cores import cores
from appliance.engine.devices import devices, free_room, gpu_offload
from appliance.engine.load import LARGEST_STEP, Load, LoadError, asked_of, measure, plan
from appliance.engine.memory import BYTES_PER_MERGE, BYTES_PER_WORD, PRECISIONS, PROCESS, Room, Rung, Sizes
from appliance.engine.model import Model, Row, system
from appliance.engine.tables import read_head, reads_of

WRONG, INTERNAL = 64, 70
LEAST_READ = 256 << 20
CACHES = 8
"""How many times the largest cache is read: more than any of it that could still be there."""
ROUNDS = 7
BEGUN = 16
FEWEST, MOST = 12, 240
SHORTEST = 0.1


def describe() -> Machine:
    room = free_room()
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=cores(),
        ram_total=psutil.virtual_memory().total,
        ram_free=room.ram,
        gpu_offload=gpu_offload(),
        devices=devices(),
        instruction_sets=instruction_sets(system()),
        build=version("llama-cpp-python"),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# --------------------------------------------------------------------------------------------------------- memory


def weigh(load: Load) -> Weight:
    """What it takes as asked for, and what the engine would make of that now. Raises `LoadError` if it is no model."""
    sizes, room = measure(load), free_room()
    head = read_head(load.path)
    chosen, refusal = None, None
    try:
        chosen = place(plan(load, sizes, room)[0], sizes, room)
    except LoadError as error:
        refusal = str(error)
    asked = asked_of(load, sizes)
    if asked.kind not in sizes.needs:
        asked = replace(asked, kv_type=PRECISIONS[0])
    return Weight(
        name=head.name or Path(load.path).stem,
        architecture=head.architecture,
        parameters=sum(table.weights for table in head.tables),
        vocabulary=head.vocabulary,
        width=head.width,
        trained=sizes.trained,
        layers=sizes.layers,
        model=sizes.model,
        slots=load.slots,
        process=PROCESS + BYTES_PER_WORD * head.vocabulary + BYTES_PER_MERGE * head.merges,
        reads=reads_of(head.tables, experts=head.experts),
        asked=place(asked, sizes, room),
        chosen=chosen,
        refusal=refusal,
    )


def place(rung: Rung, sizes: Sizes, room: Room) -> Placement:
    cache = sizes.cache(rung)
    return Placement(
        context=rung.context,
        kv_type=rung.kv_type,
        gpu_layers=rung.gpu_layers,
        model=sizes.host_model(rung),
        cache=cache,
        buffers=sizes.needs[rung.kind].host.at(rung.context),
        ram=sizes.host(rung) + sizes.host_model(rung),
        devices=sizes.devices(rung, room.devices),
        twice=sizes.twice(rung),
        from_disk=rung.from_disk,
        steps=rung.steps,
    )


# ---------------------------------------------------------------------------------------------------------- speed


def bandwidth() -> float:
    """Bytes per second that all of the engine's threads together read from memory: the best of several rounds."""
    threads = cores()
    count = max(LEAST_READ, CACHES * largest_cache()) // 8 // threads
    parts = [np.ones(count, np.float64) for _ in range(threads)]
    best = 0.0
    for _ in range(ROUNDS):
        gate = threading.Barrier(threads + 1)

        def read(part: Any, gate: threading.Barrier = gate) -> None:
            gate.wait()
            part.max()  # lets other threads run meanwhile, and does less with a number than it takes to fetch it
            gate.wait()

        workers = [threading.Thread(target=read, args=(part,), daemon=True) for part in parts]
        for worker in workers:
            worker.start()
        gate.wait()
        began = time.perf_counter()
        gate.wait()
        best = max(best, 8 * count * threads / (time.perf_counter() - began))
        for worker in workers:
            worker.join()
    return best


def largest_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    sizes = [32 << 20]
    for file in root.glob("index*/size"):
        try:
            text = file.read_text("ascii").strip()
            sizes.append(int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0))
        except (OSError, ValueError):
            continue
    return max(sizes)


def pace(load: Load, prompt: int, seconds: float) -> Pace:
    """How fast it really is: a token after another for so long, the likeliest each time; and a prompt."""
    model = Model(load)
    before = _spent()
    words = [int(token) for token in np.random.default_rng(0).integers(0, len(model.vocabulary), prompt)]
    logits = model.decode([Row(0, 0, words[:BEGUN], BEGUN - 1)])
    took: list[float] = []
    while len(took) < FEWEST or (sum(took) < seconds and len(took) < MOST):
        at = BEGUN + len(took)
        began = time.perf_counter()
        logits = model.decode([Row(0, at, [int(logits[-1].argmax())], at)])
        took.append(time.perf_counter() - began)
    model.forget(0)
    began = time.perf_counter()
    for start in range(0, prompt, LARGEST_STEP):
        part = words[start : start + LARGEST_STEP]
        model.decode([Row(0, start, part, start + len(part) - 1)])
    read = time.perf_counter() - began
    idle, own, busy = (after - since for after, since in zip(_spent(), before, strict=True))
    return Pace(
        # Not the mean: what else the box did meanwhile is not the model's.
        seconds_per_token=float(np.median(took[1:])),
        prompt_tokens_per_second=prompt / read,
        others=max(0.0, busy - own) / max(idle + busy, SHORTEST),
    )


def _spent() -> tuple[float, float, float]:
    """Seconds of all CPUs so far: idle, spent by this process, spent by everybody."""
    times, own = psutil.cpu_times(), time.process_time()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Time as a guest is counted twice.
    return idle, own, sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


# --------------------------------------------------------------------------------------------------------- asking


def answer(question: Mapping[str, Any]) -> Any:
    """The answer to one question. Raises `LoadError` for what is wrong with a model."""
    match question["op"]:
        case "describe":
            return asdict(describe())
        case "weigh":
            return asdict(weigh(Load(**question["load"])))
        case "bandwidth":
            return bandwidth()
        case "pace":
            return [asdict(pace(Load(**run["load"]), run["prompt"], question["seconds"])) for run in question["runs"]]
    raise LookupError(question["op"])


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].startswith("{"):
        print('This weighs models for the appliance; "appliance models fit" asks it.', file=sys.stderr)
        return 2
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        said, code = {"answer": answer(json.loads(arguments[0]))}, 0
    except LoadError as error:
        said, code = {"error": str(error)}, WRONG
    os.write(answers, json.dumps(said).encode("ascii"))
    return code


if __name__ == "__main__":
    # Not sys.exit: llama.cpp's own clean-up may end a process that has answered, and then the answer is not believed.
    code = INTERNAL
    try:
        code = main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
