"""`appliance models`: what is in the model store, and how it gets there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from appliance.cli.outcome import FINE, INTERRUPTED, NOT_WELL, Unwell, command
from appliance.cli.progress import progress
from appliance.cli.reach import chosen
from appliance.cli.status import columns
from appliance.config import load_config
from appliance.store.catalog import Entry, StoreError, find, read_catalog
from appliance.store.store import installed, path_of, verify


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="the model store: list, pull, verify, path",
        description="The model store.",
        epilog="example:\n  appliance models pull starter",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|pull|verify|path")
    command(
        verbs,
        "list",
        list_all,
        about="show the models of the catalog and which are here",
        example="appliance models list",
    )
    each = command(
        verbs, "pull", pull_one, about="download a model and verify it", example="appliance models pull starter"
    )
    each.add_argument("name", metavar="NAME")
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


def list_all(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    rows = [
        _row(entry, config.paths.models, in_use=entry.name == config.local.model.lower()) for entry in read_catalog()
    ]
    print(columns(("NAME", "HERE", "SIZE", "LICENSE", "WHAT IT IS"), rows))
    print(f"\nThe models lie in {config.paths.models}")
    return FINE


def _row(entry: Entry, models: Path, *, in_use: bool) -> tuple[str, ...]:
    here = installed(entry, models)
    size = sum((models / part.file).stat().st_size for part in entry.parts) if here else entry.bytes
    state = "-" if not here else "in use" if in_use else "yes"
    return (entry.name, state, megabytes(size), entry.license or "not stated", entry.about)


def megabytes(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def pull_one(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    entry = find(args.name)
    from appliance.store.pull import pull

    try:
        with progress(f"verifying {entry.name}") as report:
            news = pull(entry, config.paths, say=lambda line: print(line, flush=True), progress=report)
    except StoreError as error:
        raise Unwell(str(error)) from None
    except KeyboardInterrupt:
        print("Interrupted; nothing was installed.", file=sys.stderr)
        return INTERRUPTED
    where = path_of(entry, config.paths.models)
    print(
        f"{entry.name} is installed and verified: {where}"
        if news
        else f"{entry.name} was already there and verified: {where}"
    )
    return FINE


def verify_some(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    models = config.paths.models
    entries = [find(args.name)] if args.name else [entry for entry in read_catalog() if installed(entry, models)]
    if not entries:
        raise Unwell(f'no model is installed in {models}; run "appliance models pull starter".')
    verdict = FINE
    for entry in entries:
        try:
            with progress(f"verifying {entry.name}") as report:
                verify(entry, models, report)
        except StoreError as error:
            print(f"appliance: {error}", file=sys.stderr)
            verdict = NOT_WELL
        else:
            print(f"{entry.name} is whole: {path_of(entry, models)}")
    return verdict


def show_path(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    print(path_of(find(args.name), config.paths.models))
    return FINE
