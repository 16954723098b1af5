"""`appliance bench`: how many tokens per second does this machine give with this model?"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance import __version__
from appliance.cli.figures import Answer, Report, as_json, markdown, summarise
from appliance.cli.outcome import FINE, Unwell, command
from appliance.cli.progress import progress
from appliance.cli.reach import chosen
from appliance.config import Config, load_config
from appliance.core.chat import BackendError
from appliance.store.store import Resolved, resolve

if TYPE_CHECKING:
    from appliance.backends.process import Engine, EngineReady, EngineSpec

_LOAD_WITHIN = 600.0
_ROOM = 128  # tokens of template and error in the prompt's length
_WORDS = (
    "river stone garden window summer letter market winter paper silver bridge forest island kitchen music number "
    "orange pencil question road school table uncle village water yellow animal butter circle doctor engine father"
).split()
_TASK = "Ignore the words above. Write the numbers from one to one thousand as words, separated by commas."


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "bench",
        run,
        about="measure tokens per second of this machine and model, in an engine process of its own",
        example="appliance bench --parallel 1,4 -o json > today.json",
    )
    parser.add_argument("--model", help="a catalog name or .gguf path instead of [local] model")
    parser.add_argument("-o", "--output", choices=("md", "json"), default="md", help="the form of the result")
    parser.add_argument("--json", action="store_const", const="json", dest="output", help="the same as -o json")
    parser.add_argument("--prompt-tokens", type=_positive, default=512, metavar="N", help="about this long (512)")
    parser.add_argument("--gen", type=_positive, default=128, metavar="N", help="tokens of each answer (128)")
    parser.add_argument("--parallel", type=_degrees, default=(1, 2, 4, 8), metavar="P,P,..", help="(1,2,4,8)")
    parser.add_argument("--rounds", type=_positive, default=3, metavar="R", help="how often each is measured (3)")


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _degrees(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part.strip()) for part in text.split(",")}))


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    model = resolve(args.model or config.local.model, config)
    report = asyncio.run(_measure(args, config, model))
    print(json.dumps(as_json(report), indent=2) if args.output == "json" else markdown(report))
    return FINE


async def _measure(args: argparse.Namespace, config: Config, model: Resolved) -> Report:
    from appliance.backends.process import Engine, EngineSpec

    slots = max(args.parallel)
    spec = EngineSpec(
        path=str(model.path),
        context=args.prompt_tokens + args.gen + _ROOM,
        slots=slots,
        gpu_layers=config.local.gpu_layers,
        threads=config.local.threads,
        kv_type=config.local.kv_type,
        mlock=config.local.mlock,
        queue=slots,
        template=model.template,
    )
    engine = Engine(spec)
    busy = os.getloadavg()[0]
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"loading {model.name} ...", file=sys.stderr, flush=True)
    await engine.start()
    try:
        ready = await engine.wait_ready(_LOAD_WITHIN)
        trial = _Trial(engine, args.prompt_tokens, args.gen)
        await trial.calibrate()
        steps, done = args.rounds * len(args.parallel), 0
        rounds: dict[int, list[list[Answer]]] = {parallel: [] for parallel in args.parallel}
        with progress("measuring", unit=" rounds") as report:
            for _ in range(args.rounds):
                for parallel in args.parallel:  # interleaved, so that a warm or busy machine falls on all alike
                    rounds[parallel].append(await trial.together(parallel))
                    done += 1
                    report(done, steps)
        rows = tuple(summarise(parallel, measured) for parallel, measured in rounds.items())
        peak = peak_memory(engine.pid)
        return Report(
            setup=_setup(spec, ready),
            rows=rows,
            load_s=ready.load_s,
            peak_memory=peak,
            at=began,
            busy=round(busy, 2),
            cores=os.cpu_count() or 1,
        )
    except BackendError as error:
        raise Unwell(f"the engine could not be measured: {error.message}") from None
    except TimeoutError:
        raise Unwell(f"{model.path} was not loaded within {_LOAD_WITHIN:.0f} s; try a smaller model.") from None
    finally:
        await engine.stop()


class _Trial:
    """Asks the engine for answers of a given length. Each prompt begins differently, so that none is known already."""

    def __init__(self, engine: Engine, prompt_tokens: int, generated: int) -> None:
        self._engine = engine
        self._prompt_tokens = prompt_tokens
        self._generated = generated
        self._words = 0
        self._random = random.Random(8484)

    async def calibrate(self) -> None:
        """How many words make a prompt of the wanted length with this model's tokenizer? Warms up as well."""
        sample = min(100, self._prompt_tokens)
        bare = await self._ask(0, 1)
        full = await self._ask(sample, 1)
        per_word = max(0.1, (full.prompt_tokens - bare.prompt_tokens) / sample)
        self._words = max(0, round((self._prompt_tokens - bare.prompt_tokens) / per_word))

    async def together(self, parallel: int) -> list[Answer]:
        return list(await asyncio.gather(*(self._ask(self._words, self._generated) for _ in range(parallel))))

    async def _ask(self, words: int, generated: int) -> Answer:
        prompt = " ".join([*self._random.choices(_WORDS, k=words), _TASK])
        job = {
            # A system prompt of its own: many templates write one otherwise, and what is alike is not computed again.
            "messages": [
                {"role": "system", "content": f"{self._random.random()}"[2:]},
                {"role": "user", "content": prompt},
            ],
            "committed": None,
            "max_tokens": generated,
            "stop": [],
            "trim": False,
            "sampling": {"temperature": 0.0},
        }
        asked, pieces = time.perf_counter(), []
        computed = known = written = 0
        async with aclosing(self._engine.generate(job)) as batches:  # type: ignore[type-var]
            async for frames in batches:
                now = time.perf_counter()
                for frame in frames:
                    if frame["op"] == "text":
                        pieces.append(now)
                    elif frame["op"] == "finish":
                        computed, known = frame["prompt_tokens"], frame["cached_tokens"]
                        written = frame["completion_tokens"]
                    elif frame["op"] == "error":
                        raise Unwell(f"the engine refused to be measured: {frame['message']}")
        return Answer(
            asked=asked,
            pieces=tuple(pieces) or (time.perf_counter(),),
            prompt_tokens=computed - known,
            generated=written,
        )


# ------------------------------------------------------------------------------------------- the surroundings


def peak_memory(pid: int | None) -> int:
    """The most memory that the process ever had resident; 0 if nobody knows."""
    if pid is None:
        return 0
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def cpu_name(read: Callable[[], str] = lambda: Path("/proc/cpuinfo").read_text()) -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", read(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _setup(spec: EngineSpec, ready: EngineReady) -> dict[str, Any]:
    model = ready.model
    return {
        "build_commit": f"appliance {__version__}",
        "cpu_info": f"{cpu_name()} ({os.cpu_count()} cores)",
        "backends": "GPU" if ready.gpu_layers else "CPU",
        "instruction_sets": ready.instruction_sets,
        "model_filename": Path(spec.path).name,
        "model_type": model.get("description") or model.get("name") or Path(spec.path).stem,
        "model_size": model.get("bytes") or Path(spec.path).stat().st_size,
        "model_n_params": model.get("parameters"),
        "n_threads": ready.threads,
        "n_gpu_layers": ready.gpu_layers,
        "type_k": spec.kv_type,
        "type_v": spec.kv_type,
    }
