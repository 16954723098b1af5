"""`appliance models fit`: what fits this box, how fast it will be, and which model to take."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.backends import box
from appliance.cli import probing
from appliance.cli.outcome import FINE, NOT_WELL, Unwell, command
from appliance.cli.progress import progress
from appliance.cli.reach import chosen
from appliance.cli.status import columns
from appliance.config import Config, load_config
from appliance.core.fault import BackendError
from appliance.core.machine import Machine, Placement, Weight
from appliance.store.catalog import BOXES, Entry, StoreError, read_catalog
from appliance.store.fit import (
    PROMPT,
    READS_ALONG,
    WORDS,
    Verdict,
    burden_of,
    disk_bytes_of,
    guess_burden,
    guessed,
    need_of,
    rank_of,
    recommend,
    refusal_of,
    shared,
    weighed,
)
from appliance.store.own import own
from appliance.store.shape import looks_like_shape, parse_shape, write_empty
from appliance.store.speed import Burden, Rates, Speed, expect
from appliance.store.store import installed, part_of, place

MEMORY_SHARE = 1.25
"""Of the bytes of a file, where the catalog does not say what it takes in memory."""
DISK = 1e9
"""Bytes per second of a good disk, to have a notion of one that was not measured."""
KV_TYPES = ("f16", "q8_0", "q4_0")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        verbs,
        "fit",
        fit,
        about="show what fits this box and how fast it would answer, before anything is downloaded",
        example="appliance models fit\n  appliance models fit starter\n  appliance models fit 7B:Q4_K_M --context 8192",
    )
    parser.add_argument(
        "model", nargs="?", metavar="NAME|PATH|SHAPE", help="in detail: a model, a GGUF file, or a shape like 7B:Q4_K_M"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON, for programs")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of one slot, instead of the configured ones")
    parser.add_argument("--slots", type=int, metavar="N", help="answers at once, instead of the configured number")
    parser.add_argument("--kv-type", choices=KV_TYPES, help="the precision of the cache, instead of the configured one")


def fit(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    for name in ("context", "slots"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise StoreError(f"--{name} must be 1 or more.")
    try:
        this = _Box(config, args, box.describe())
        return _one(this, args.model, as_json=args.as_json) if args.model else _all(this, as_json=args.as_json)
    except BackendError as error:
        raise Unwell(str(error)) from None


class _Box:
    """This box, and what is asked for of a model on it."""

    def __init__(self, config: Config, args: argparse.Namespace, machine: Machine) -> None:
        local = config.local
        self.config, self.machine = config, machine
        self.others = 0.0
        self.asked: dict[str, Any] = {
            "context": args.context or local.context,
            "slots": args.slots or local.slots,
            "kv_type": args.kv_type or local.kv_type,
            "gpu_layers": local.gpu_layers,
        }

    def weigh(self, path: Path) -> Weight:
        return box.weigh(path, **self.asked)

    def speeds(self, burdens: Sequence[tuple[Burden, float]]) -> list[Speed]:
        """What to expect of models with so much of them on the GPU. The probes are run if they never were."""
        on_cpu = [burden for burden, share in burdens if share < 1]
        on_gpu = [burden for burden, share in burdens if share > 0]
        cpu, gpu = self._rates(on_cpu, 0), self._rates(on_gpu, "auto")
        found = []
        for burden, share in burdens:
            both = ((gpu, share > 0), (cpu, share < 1))
            parts = [expect(burden, known, prompts=(PROMPT,)) for known, used in both if used and known is not None]
            found.append(parts[0] if len(parts) == 1 else shared(parts[0], parts[1], share))
        return found

    def _rates(self, burdens: Sequence[Burden], layers: probing.Layers) -> Rates | None:
        if not burdens:
            return None
        with progress("measuring how fast this box computes", unit="step") as report:
            known = probing.measured(
                self.config.paths.cache, burdens, machine=self.machine, layers=layers, progress=report
            )
        self.others = max(self.others, known.others)
        return known

    @property
    def warning(self) -> str:
        """Said where the figures are of a box that was busy."""
        if self.others <= probing.BUSY:
            return ""
        return (
            f"\nOther programs used {self.others:.0%} of this box while it was measured, so it is faster than it looks."
            "\nNothing was kept: ask again when they rest."
        )


# -------------------------------------------------------------------------------------------------- the whole table


def _all(this: _Box, *, as_json: bool) -> int:
    rows = table(this)
    best = recommend(rows)
    if as_json:
        said = [asdict(row) | {"where": row.where} for row in rows]
        print(json.dumps({"machine": asdict(this.machine), "models": said, "take": best and best.name}, indent=2))
        return FINE
    print(f"{_said(this.machine)}\n")
    print(columns(("MODEL", "HERE", "FITS", "MEMORY", "ON", "TOK/S", f"{PROMPT:,} TOKENS"), map(_row, rows)))
    print(
        "\n~ is estimated from the size of the file; the others are weighed. The last column is the time until the"
        f"\nfirst word of an answer to a prompt of {PROMPT:,} tokens that the box has not seen before."
    )
    if this.warning:
        print(this.warning)
    print(f"\n{advice(best, this.config.local.model)}")
    return FINE


def table(this: _Box) -> list[Verdict]:
    models = this.config.paths.models
    entries = [entry for entry in (*read_catalog(), *own(models)) if entry.kind == "chat"]
    here = [entry for entry in entries if installed(entry, models)]
    weights: dict[str, Weight] = {}
    broken: set[str] = set()
    with progress("weighing", unit="model") as report:
        for number, entry in enumerate(here, start=1):
            try:
                weights[entry.name] = this.weigh(part_of(entry, entry.parts[0], models))
            except BackendError:
                broken.add(entry.name)  # what is wrong with it is said where it is asked for by name
            report(number, len(here))
    rough = {entry.name: _rough(entry, this.machine) for entry in entries if entry.name not in weights}
    burdens = [
        (burden_of(weight), _share(weight))
        if (weight := weights.get(entry.name))
        else _burden(entry, rough[entry.name])
        for entry in entries
    ]
    rows = []
    for entry, speed in zip(entries, this.speeds(burdens), strict=True):
        more = {
            "here": entry.name in weights or entry.name in broken,
            "free": entry.free,
            "rank": rank_of(entry.boxes, tuple(BOXES), gpu=bool(this.machine.devices)),
        }
        if entry.name in weights:
            rows.append(weighed(entry.name, weights[entry.name], speed, **more))
        else:
            rows.append(guessed(entry.name, rough[entry.name].memory, this.machine, speed, **more))
    return rows


def _rough(entry: Entry, machine: Machine) -> Verdict:
    size = entry.bytes or entry.roughly or 0
    return guessed(entry.name, entry.memory or round(size * MEMORY_SHARE), machine, None)


def _burden(entry: Entry, rough: Verdict) -> tuple[Burden, float]:
    return guess_burden(entry.bytes or entry.roughly or 1, entry.active), rough.gpu


def _share(weight: Weight) -> float:
    placed = weight.chosen or weight.asked
    return placed.gpu_layers / weight.layers if weight.layers else 0.0


def _row(row: Verdict) -> tuple[str, ...]:
    about = "" if row.exact else "~"
    speed = row.speed
    return (
        row.name,
        "yes" if row.here else "-",
        WORDS[row.fits],
        f"{about}{row.memory / 1e9:.1f} GB",
        row.where,
        f"{about}{speed.tokens_per_second:.{0 if speed.tokens_per_second >= 10 else 1}f}" if speed else "-",
        f"{about}{_seconds(speed.first_token[PROMPT])}" if speed else "-",
    )


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.{1 if seconds < 10 else 0}f} s"


def advice(best: Verdict | None, used: str) -> str:
    """The one recommendation, with the command that follows it."""
    if best is None:
        return "No model of the catalog fits this box; free memory, or choose a smaller context or fewer slots."
    speed = f", about {best.speed.tokens_per_second:.0f} tokens per second" if best.speed else ""
    if best.speed and best.speed.tokens_per_second < READS_ALONG:
        speed += ": slower than one reads, but nothing better fits"
    said = f"For this box: {best.name}{speed}."
    if best.name == used.lower():
        return f"{said} It is the one in use."
    if best.here:
        return f"{said}\n  appliance models use {best.name}"
    return f"{said}\n  appliance models pull {best.name} && appliance models use {best.name}"


def _said(machine: Machine) -> str:
    free = f"{machine.ram_free / 1e9:.1f} of {machine.ram_total / 1e9:.1f} GB free"
    parts = [f"{machine.cpu}, {machine.threads} threads, {free}"]
    parts += [
        f"{device.name}: {device.description}, {device.free / 1e9:.1f} of {device.total / 1e9:.1f} GB free"
        for device in machine.devices
    ]
    if not machine.devices:
        parts.append("no GPU is used" + ("" if machine.gpu_offload else ": llama.cpp was built without one"))
    return "\n".join(parts)


# -------------------------------------------------------------------------------------------------- one in detail


def _one(this: _Box, given: str, *, as_json: bool) -> int:
    with ExitStack() as stack:
        if looks_like_shape(given):
            shape = parse_shape(given)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="appliance-fit-")))
            path = folder / "shape.gguf"
            write_empty(shape, path)
        else:
            path = place(given, this.config.paths.models)
        if not path.is_file():
            return _not_here(this, given, path, as_json=as_json)
        weight = this.weigh(path)
    speed = None if refusal_of(weight) else this.speeds([(burden_of(weight), _share(weight))])[0]
    fastest = probing.bandwidth(this.config.paths.cache, this.machine)
    row = weighed(given, weight, speed)
    if as_json:
        said = {"machine": asdict(this.machine), "bandwidth": fastest, "weight": asdict(weight)}
        print(json.dumps(said | {"model": asdict(row) | {"where": row.where}}, indent=2))
    else:
        print("\n".join(details(weight, row, this.machine, fastest)) + this.warning)
    return NOT_WELL if row.fits == "no" else FINE


def _not_here(this: _Box, given: str, path: Path, *, as_json: bool) -> int:
    """Of a model of the catalog the file's size is known; of anything else nothing."""
    entry = next((one for one in read_catalog() if one.name == given.lower()), None)
    if entry is None:
        raise StoreError(
            f"the model {path} does not exist; give a name of the catalog, a GGUF file or a shape like 7B."
        )
    rough = _rough(entry, this.machine)
    (speed,) = this.speeds([_burden(entry, rough)])
    row = guessed(entry.name, rough.memory, this.machine, speed)
    if as_json:
        said = {"machine": asdict(this.machine), "model": asdict(row) | {"where": row.where}}
        print(json.dumps(said, indent=2))
    else:
        print(columns(("MODEL", "HERE", "FITS", "MEMORY", "ON", "TOK/S", f"{PROMPT:,} TOKENS"), [_row(row)]))
        print(f'\nIt is not here, so this is estimated; after "appliance models pull {entry.name}" it is weighed.')
        print(this.warning, end="\n" if this.warning else "")
    return NOT_WELL if row.fits == "no" else FINE


def details(weight: Weight, row: Verdict, machine: Machine, bandwidth: float) -> Iterable[str]:
    """What it takes, what the engine would do, and how fast that is."""
    placed = weight.chosen or weight.asked
    size = f"{weight.parameters / 1e9:.2f} billion weights in {weight.layers - 1} layers"
    yield f"{weight.name}: {weight.architecture}, {size}"
    yield ""
    yield columns(("", "MEMORY", ""), _bill(weight, placed, machine))
    yield ""
    slots = "slot" if weight.slots == 1 else "slots"
    given = f"{weight.slots} {slots} {placed.context:,} tokens each"
    if refusal := refusal_of(weight):
        yield f"It does not fit. {refusal}"
        if weight.chosen is not None:
            slow = disk_bytes_of(weight, placed, machine.ram_free)
            yield (
                f"The engine would still try, and give {given}. A token reads {_gigabytes(slow)} from disk then: at"
                f" {DISK / 1e9:.0f} GB/s that takes {_seconds(slow / DISK)}."
            )
        return
    yield f"The engine would give {given}, on {row.where}." + ("" if placed.steps else " That is what was asked for.")
    yield from placed.steps
    if row.speed is None:
        return
    speed, read = row.speed, sum(read.bytes for read in weight.reads)
    yield f"Expected: {speed.tokens_per_second:.1f} tokens per second for one answer at a time."
    if not placed.gpu_layers:
        yield (
            f"A token reads {read / 1e9:.2f} GB; memory gives {bandwidth / 1e9:.0f} GB/s, which allows"
            f" {bandwidth / read:.0f} tokens per second at most."
        )
    yield (
        f"A prompt of {PROMPT:,} tokens: about {_seconds(speed.first_token[PROMPT])} to the first token, if the box has"
        " not followed along."
    )


def _bill(weight: Weight, placed: Placement, machine: Machine) -> Iterable[tuple[str, str, str]]:
    where = f"{weight.slots} x {placed.context:,} tokens, {placed.kv_type}"
    on_gpu = sum(placed.devices)
    yield "weights", _gigabytes(placed.model), "in RAM" if on_gpu else ""
    yield "cache", _gigabytes(placed.cache), where
    yield "buffers", _gigabytes(placed.buffers), ""
    yield "the engine itself", _gigabytes(weight.process), ""
    yield "RAM together", _gigabytes(placed.ram + weight.process), f"{_gigabytes(machine.ram_free)} is free"
    if placed.twice:
        yield "until it is needed", _gigabytes(placed.twice), "of the file, beside its copy in an order this CPU likes"
    for device, size in zip(machine.devices, placed.devices, strict=False):
        yield device.name, _gigabytes(size), f"{_gigabytes(device.free)} is free"
    yield "all together", _gigabytes(need_of(weight, placed)), ""


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
