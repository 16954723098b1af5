"""`appliance bench`: how many tokens per second does this machine give with this model?"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.cli.outcome import FINE, INTERRUPTED, Unwell, command
from appliance.cli.progress import progress
from appliance.cli.reach import chosen
from appliance.config import Config, load_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.bench.plan import Wishes
    from appliance.bench.result import Result
    from appliance.bench.run import Say
    from appliance.store.store import Resolved

FORMS = ("md", "json", "jsonl", "csv")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "bench",
        run,
        about="measure this machine and model: tokens per second, first tokens, memory, takeovers",
        example="appliance bench --save today.json --plot today.svg\n"
        "  appliance bench --quick --compare yesterday.json\n"
        "  appliance bench --shape 7B:Q4_K_M",
    )
    parser.add_argument("-m", "--model", help="a catalog name or .gguf path instead of [local] model")
    parser.add_argument(
        "--shape", metavar="SIZE:QUANT", help="a model nobody has downloaded: random weights, 7B:Q4_K_M for example"
    )
    parser.add_argument("--keep", action="store_true", help="keep the file of --shape for the next time")
    parser.add_argument("-p", "--n-prompt", type=_lengths, metavar="N,..", help="tokens of prompt (512); 0 for none")
    parser.add_argument("-n", "--n-gen", type=_lengths, metavar="N,..", help="tokens of answer (128); 0 for none")
    parser.add_argument(
        "-d", "--depth", "--n-depth", dest="depth", type=_lengths, metavar="N,..",
        help="behind so many tokens (0 and what fits, 4096 at most)",
    )  # fmt: skip
    parser.add_argument("-r", "--repetitions", type=_positive, metavar="R", help="how often each is measured (3)")
    parser.add_argument("--parallel", type=_degrees, metavar="P,..", help="so many answers at once (1,2,4,8)")
    parser.add_argument("--quick", action="store_true", help="less of everything, in half a minute")
    parser.add_argument("-o", "--output", choices=FORMS, default="md", help="the form of the result (md)")
    parser.add_argument("--json", action="store_const", const="json", dest="output", help="the same as -o json")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the result there too, as JSON")
    parser.add_argument("--plot", metavar="FILE.svg", type=_picture, help="draw a picture of it")
    parser.add_argument(
        "--compare", metavar="OLD.json", type=Path, help="with an earlier result, or one of llama-bench -o json"
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _picture(text: str) -> Path:
    if not text.lower().endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text} is no .svg file, and that is what is drawn; name one like today.svg")
    return Path(text)


def _degrees(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part.strip()) for part in text.split(",")}))


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(sorted({0 if part.strip() == "0" else _positive(part.strip()) for part in text.split(",")}))


def wishes(args: argparse.Namespace) -> Wishes:
    """What was asked for, and what nobody said."""
    from appliance.bench.plan import QUICK, USUAL

    said = {
        "prompts": args.n_prompt,
        "gens": args.n_gen,
        "depths": args.depth,
        "rounds": args.repetitions,
        "parallel": args.parallel,
    }
    return replace(QUICK if args.quick else USUAL, **{name: value for name, value in said.items() if value is not None})


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    from appliance.bench import compare, plot, result, table

    try:
        old = compare.read(args.compare) if args.compare else None  # before minutes of work
    except compare.Unreadable as error:
        raise Unwell(str(error)) from None
    for path in (args.save, args.plot):
        if path is not None and not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise Unwell(f"{path} cannot be written; name a file in a folder that is there and may be written to.")
    wanted = wishes(args)
    with _model(args, config) as (name, model):
        found = _measured(config, name, model, wanted, random_weights=args.shape is not None)
    forms = {"md": table.markdown, "json": result.as_json, "jsonl": result.as_jsonl, "csv": result.as_csv}
    print(forms[args.output](found), flush=True)
    if old is not None:
        # What a program reads is not mixed with a table for people.
        print("", compare.comparison(old, found), sep="\n", file=sys.stdout if args.output == "md" else sys.stderr)
    for path, text in ((args.save, result.as_json), (args.plot, plot.svg)):
        if path is not None:
            _write(path, text(found) + "\n")
    return INTERRUPTED if found.interrupted else FINE


@contextmanager
def _model(args: argparse.Namespace, config: Config) -> Iterator[tuple[str, Resolved]]:
    """The model to measure, and what a configuration calls it. One of random weights is written first, and removed
    afterwards unless it was there before or is to be kept."""
    from appliance.store.disk import scratch
    from appliance.store.shape import parse_shape
    from appliance.store.store import resolve
    from appliance.store.weights import write_random

    if args.shape is None:
        name = args.model or config.local.model
        yield name, resolve(name, config)
        return
    if args.model is not None:
        raise Unwell("a model is measured or a shape, not both; leave out --model or --shape.")
    shape = parse_shape(args.shape)
    path = config.paths.cache / "shapes" / f"{shape.name}-{shape.quant}.gguf"
    with ExitStack() as stack:
        if not path.exists():
            try:
                folder = path.parent if args.keep else stack.enter_context(scratch(config.paths.cache, "shape-"))
            except OSError as error:
                raise Unwell(f"{config.paths.cache} cannot be written: {error.strerror}; correct that.") from None
            path = folder / path.name
            with progress(f"writing {shape.title}, {shape.bytes / 1e9:.1f} GB of random weights") as report:
                write_random(shape, path, progress=report)
        yield str(path), resolve(str(path), config)


def _measured(config: Config, name: str, model: Resolved, wanted: Wishes, *, random_weights: bool) -> Result:
    import uvloop

    from appliance.bench.asking import Failed
    from appliance.bench.run import measure

    try:
        with _screen() as say, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measuring = measure(config, name, model, wanted, say=say, random_weights=random_weights)
            return runner.run(_until_told(measuring))
    except Failed as error:
        raise Unwell(str(error)) from None
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _until_told(measuring: Coroutine[Any, Any, Result]) -> Result:
    """To its end, or to Ctrl-C or SIGTERM: then it is what was measured until then."""
    task = asyncio.current_task()
    assert task is not None
    for told in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(told, task.cancel)
    return await measuring


@contextmanager
def _screen() -> Iterator[Say]:
    """What is being done and how long it still takes: on a terminal one line that is written over, else a line each."""
    terminal, last = sys.stderr.isatty(), ""

    def say(what: str, left: float | None) -> None:
        nonlocal last
        line = f"bench: {what}" + (f", about {_rounded(left)} left" if left is not None else "")
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif what != last:
            print(line, file=sys.stderr, flush=True)
        last = what

    try:
        yield say
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _rounded(seconds: float) -> str:
    return f"{5 * round(seconds / 5) or 5} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise Unwell(f"{path} could not be written: {(error.strerror or str(error)).lower()}.") from None
