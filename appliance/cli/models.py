"""`appliance models`: what is in the model store, and how it gets there."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli.outcome import FINE, INTERRUPTED, NOT_WELL, Unwell, command, complain, group
from appliance.cli.progress import progress, say, steps
from appliance.cli.reach import chosen
from appliance.cli.status import columns
from appliance.config import Config, load_config
from appliance.core.fault import BackendError, Fault
from appliance.core.machine import Weight
from appliance.core.size import in_words
from appliance.store.catalog import BOXES, Entry, StoreError, Unopenable, find, read_catalog
from appliance.store.disk import leftovers
from appliance.store.own import HUB, begun, known, own, split
from appliance.store.store import installed, part_of, path_of, place, verify

FORMS = "a name of the catalog, or hf:OWNER/REPO/FILE.gguf"
LASTING = re.compile(
    r"is not a GGUF file|shorter \([^)]*\) than its own header|which this llama\.cpp does not know|"
    r"llama\.cpp says: .*(?:missing tensor|wrong (?:shape|type|number of tensors|array length)|key not found|"
    r"invalid model|unknown pre-tokenizer|cannot be used as main model)"
)
"""What llama.cpp would say of these bytes at any time. A header that "cannot be read" may be a disk or memory that
fails: it does not tell."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = group(
        commands,
        "models",
        about="the model store",
        verbs="list, fit, pull, import, use, verify, rm, path",
        example="appliance models pull starter",
    )
    command(
        verbs,
        "list",
        list_all,
        about="show the models of the catalog, and which models are here",
        example="appliance models list",
    )
    each = command(
        verbs,
        "pull",
        pull_one,
        about="download a model and verify it; goes on where an interrupted download was",
        example="appliance models pull qwen3.5-4b\n"
        "  appliance models pull hf:unsloth/Qwen3.5-2B-GGUF/Qwen3.5-2B-Q4_K_M.gguf",
    )
    each.add_argument("name", metavar="NAME", help=FORMS)
    each = command(
        verbs,
        "verify",
        verify_some,
        about="read every byte of a model and hold its sha256 against the catalog",
        example="appliance models verify starter",
    )
    each.add_argument("name", metavar="NAME", nargs="?", help="without it, all that are installed")
    each = command(
        verbs, "path", show_path, about="print where a model lies, or would", example="appliance models path starter"
    )
    each.add_argument("name", metavar="NAME")
    from appliance.cli import fit, models_change

    models_change.add(verbs)
    fit.add(verbs)


def list_all(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    models = config.paths.models
    used = in_use(config)
    rows = [
        _row(entry, models, here=installed(entry, models), in_use=path_of(entry, models) == used)
        for entry in (*read_catalog(), *own(models))
    ]
    rows += [_row(entry, models, here=False, in_use=False) for entry in begun(models)]
    print(columns(("NAME", "HERE", "SIZE", "LICENSE", "WHAT IT IS"), rows))
    print(f"\nThe models lie in {models}")
    return FINE


def in_use(config: Config) -> Path | None:
    """The file of `[local] model`, if that names any."""
    try:
        return place(config.local.model, config.paths.models)
    except StoreError:
        return None


def _row(entry: Entry, models: Path, *, here: bool, in_use: bool) -> tuple[str, ...]:
    size = sum(part_of(entry, part, models).stat().st_size for part in entry.parts) if here else entry.bytes
    state = _begun(entry, models) if not here else "in use" if in_use else "yes"
    best = ", ".join(BOXES[box] for box in entry.boxes)
    about = f"{entry.about}; first choice for {best}" if best else entry.about
    words = in_words(size) if size is not None else f"~{in_words(entry.roughly)}" if entry.roughly else "?"
    return (entry.name, state, words, entry.license or "not stated", about)


def _begun(entry: Entry, models: Path) -> str:
    """How much of an interrupted download is here?"""
    parts = [part_of(entry, part, models) for part in entry.parts]
    here = sum(path.stat().st_size for part in parts for path in (part, *leftovers(part)) if path.is_file())
    whole = entry.bytes or entry.roughly
    if not here:
        return "-"
    return f"{min(99, 100 * here // whole)} %" if whole else f"{in_words(here)} of it"


def pull_one(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    split(args.name) if args.name.startswith(HUB) else find(args.name)  # a wrong name is a wrong setup
    from appliance.store.hub import hub_of
    from appliance.store.install import ended_as_by_ctrl_c
    from appliance.store.pull import pull, wanted

    try:
        hub = hub_of(environ)
        entry = wanted(args.name, config.paths, say=say, hub=hub)
        with ended_as_by_ctrl_c(), steps() as report:
            news = pull(entry, config.paths, say=say, report=report, accept=opens, hub=hub)
    except StoreError as error:
        raise Unwell(str(error)) from None
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where this one was.", file=sys.stderr)
        return INTERRUPTED
    where = path_of(entry, config.paths.models)
    print(
        f"{entry.name} is installed and verified: {where}"
        if news
        else f"{entry.name} was already there and verified: {where}"
    )
    if news and in_use(config) != where:
        print(f'To answer with it: "appliance models use {entry.name}".')
    return FINE


def opens(path: Path) -> None:
    """Does llama.cpp take this file? A dry load, which also tells whether it is whole.

    Raises:
        Unopenable: it never will, and a pull deletes what it brought.
        StoreError: it does not now, and perhaps for a reason that is not in the file.
    """
    weighed(path, context=256, slots=1, gpu_layers=0)


def weighed(path: Path, **asked: Any) -> Weight:
    """What it takes, if llama.cpp takes it. Raises as `opens`."""
    from appliance.backends.box import weigh

    try:
        return weigh(path, **asked)
    except BackendError as error:
        if error.fault is Fault.CONFIG and LASTING.search(str(error)):
            raise Unopenable(str(error)) from None
        said = str(error).rstrip(".")
        raise StoreError(f'{said}; if "appliance doctor" finds this box well, choose another model.') from None


def verify_some(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    models = config.paths.models
    everything = (*read_catalog(), *own(models))
    entries = [known(args.name, models)] if args.name else [entry for entry in everything if installed(entry, models)]
    if not entries:
        raise Unwell(f'no model is installed in {models}; run "appliance models pull starter".')
    verdict = FINE
    for entry in entries:
        try:
            with progress(f"verifying {entry.name}") as report:
                verify(entry, models, report)
        except StoreError as error:
            complain(str(error))
            verdict = NOT_WELL
        else:
            print(f"{entry.name} is whole: {path_of(entry, models)}")
    return verdict


def show_path(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    print(place(args.name, config.paths.models))
    return FINE
