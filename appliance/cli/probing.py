"""How fast does this box compute? Probes are written, run in the engine's own process, and their pace is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from appliance import __version__
from appliance.backends import box
from appliance.core.fault import BackendError
from appliance.core.machine import Machine, Pace
from appliance.store.catalog import StoreError
from appliance.store.disk import Progress, check_room, scratch, write_small
from appliance.store.speed import Burden, Probe, Rates, probes, rates

Layers = int | Literal["auto"]

BUSY = 0.15
"""The share of the box that other programs may have; what was measured beside more is not kept."""


def identity(machine: Machine, layers: Layers) -> str:
    """What must be the same for a pace to be believed again: the box, how llama.cpp was built, and our own probes; not
    what is free."""
    cards = [(device.name, device.description, device.total) for device in machine.devices] if layers else []
    said = repr(
        (__version__, machine.cpu, machine.cores, machine.threads, machine.build, machine.instruction_sets, cards)
    )
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def measured(
    folder: Path,
    burdens: Sequence[Burden],
    *,
    machine: Machine | None = None,
    layers: Layers = "auto",
    fresh: bool = False,
    progress: Progress | None = None,
) -> Rates:
    """What the probes say that these models need; run only if nobody has on this box. Raises `BackendError`,
    `StoreError`."""
    box_is = identity(machine or box.describe(), layers)
    file = folder / f"speed-{box_is}.json"
    known = {} if fresh else _paces(_read(file))
    missing = [probe for probe in probes(burdens) if probe.key not in known]
    if missing:
        known |= _run(folder, missing, layers, progress)
        _write(file, {key: asdict(pace) for key, pace in known.items() if pace.others <= BUSY})
    return rates(known)


def bandwidth(folder: Path, machine: Machine) -> float:
    """Bytes per second from memory, measured once on a box. Raises `BackendError`."""
    file = folder / f"bandwidth-{identity(machine, 0)}.json"
    kept = _read(file)
    if not isinstance(kept, float):
        kept = box.bandwidth()
        _write(file, kept)
    return kept


def _run(cache: Path, missing: Sequence[Probe], layers: Layers, progress: Progress | None) -> dict[str, Pace]:
    from appliance.store.weights import write_random  # brings numpy, which only this needs

    steps = 2 * len(missing)

    def report(done: int) -> None:
        if progress:
            progress(done, steps)

    try:
        with scratch(cache, "probes-") as folder:
            check_room("speed probes", sum(probe.shape.bytes for probe in missing), folder)
            files = []
            for number, probe in enumerate(missing, start=1):
                path = folder / f"{number}.gguf"
                write_random(probe.shape, path)
                files.append(path)
                report(number)
            runs = [(path, probe.prompt) for path, probe in zip(files, missing, strict=True)]
            found = dict(zip((probe.key for probe in missing), box.pace(runs, gpu_layers=layers), strict=True))
            for path, probe in zip(files, missing, strict=True):
                if probe.served:
                    with suppress(BackendError):  # then what the engine costs is not known, and all else is
                        found[probe.key] = replace(found[probe.key], served=box.served(path, gpu_layers=layers))
    except OSError as error:
        raise StoreError(f"the probes cannot be written to {cache}: {error.strerror}; correct that.") from None
    report(steps)
    return found


def _paces(kept: Any) -> dict[str, Pace]:
    try:
        return {key: Pace(**pace) for key, pace in kept.items()}
    except (TypeError, AttributeError):
        return {}


def _read(file: Path) -> Any:
    """What was kept; None if it is not there or cannot be read: then it is measured again."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _write(file: Path, kept: Any) -> None:
    """Kept for the next time. On a disk that cannot be written there is none."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_small(file, json.dumps(kept, indent=1))
