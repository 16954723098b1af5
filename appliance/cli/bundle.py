"""`appliance bundle`: the whole appliance as one file, for a box without a network."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.outcome import FINE, INTERRUPTED, NOT_WELL, Misused, Unwell, command, group
from appliance.cli.progress import progress, say
from appliance.cli.reach import chosen
from appliance.config import load_config
from appliance.core.size import in_words
from appliance.store.catalog import StoreError
from appliance.store.manifest import BASELINES, NATIVE

if TYPE_CHECKING:
    from appliance.store.unpack import Opened

PYTHONS = "3.11,3.12,3.13"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = group(
        commands,
        "bundle",
        about="one file with everything for a box without a network",
        verbs="create, verify, install",
        example="appliance bundle create -o appliance.tar",
    )
    each = command(
        verbs,
        "create",
        create,
        about="pack wheels, model, manifest and installer into one file",
        example="appliance bundle create -o appliance.tar --model starter --python 3.11",
    )
    each.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="where to write the bundle")
    which = each.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        metavar="NAME",
        action="append",
        help="a model of the catalog, more than once for more; default: [local] model",
    )
    which.add_argument("--without-model", action="store_true", help="no model: an upgrade for a box that has one")
    each.add_argument("--python", metavar="LIST", default=PYTHONS, help=f"for which Pythons; default {PYTHONS}")
    names = ", ".join([*(one.name for one in BASELINES), NATIVE])
    each.add_argument(
        "--baseline", metavar="NAME", help=f"for which processors: {names}; default: the first of this machine"
    )
    each.add_argument("--wheels", metavar="FOLDER", type=Path, help="ready-made wheels, taken before any other")
    each = command(
        verbs,
        "verify",
        check,
        about="read every byte of a bundle and hold it against its manifest",
        example="appliance bundle verify appliance.tar",
        config=False,
    )
    each.add_argument("file", metavar="FILE", type=Path)
    each = command(
        verbs,
        "install",
        install,
        about="verify a bundle and install it beside the version that is here, then switch",
        example="appliance bundle install appliance.tar",
        config=False,
    )
    each.add_argument("file", metavar="FILE", type=Path)
    each.add_argument(
        "--prefix", metavar="FOLDER", type=Path, help="the folder to install into; default: where this one is"
    )


def create(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    from appliance.store import bundle
    from appliance.store.install import ended_as_by_ctrl_c, this_box
    from appliance.store.manifest import baseline_named

    box = this_box()
    usual = next((one.name for one in BASELINES if one.machine == box.machine), NATIVE)
    names = [] if args.without_model else args.model or [config.local.model]
    wanted = bundle.Wanted(
        baseline=baseline_named(args.baseline or usual, box.machine, box.cpu),
        pythons=pythons(args.python),
        models=tuple(bundle.carried(name, config.paths.models) for name in names),
        wheels=args.wheels,
    )
    if args.wheels and not any(args.wheels.glob("*.whl")):
        raise Misused(f"there is no wheel in {args.wheels}; --wheels names a folder that holds some.")
    if args.output.is_dir():
        raise Unwell(f"{args.output} is a folder; name a file in it.")
    if not os.access(args.output.absolute().parent, os.W_OK):  # llama.cpp may have to be compiled before it is written
        raise Unwell(f"nothing can be written to {args.output.absolute().parent}; make that folder, or name another.")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with ended_as_by_ctrl_c(), progress("packing") as report:
            made = bundle.create(
                args.output,
                wanted,
                models=config.paths.models,
                cache=config.paths.cache,
                created=created,
                say=partial(say, file=sys.stderr),
                progress=report,
            )
    except StoreError as error:
        raise Unwell(str(error)) from None
    except KeyboardInterrupt:
        print("Interrupted; no bundle was written.", file=sys.stderr)
        return INTERRUPTED
    _describe(args.output, made)
    name = shlex.quote(args.output.name)
    print(f"\nOn the other box: tar xf {name} && sh appliance-bundle-{made.manifest.version}/install.sh")
    return FINE


def pythons(text: str) -> tuple[str, ...]:
    """ "3.11,3.12" as a list. Raises `Misused`."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for one in found:
        major, _, minor = one.partition(".")
        if major != "3" or not minor.isdecimal() or int(minor) < 11:
            raise Misused(f'"{one}" is no Python that the appliance runs on; write for example --python 3.11,3.13.')
    return found


def check(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.store import unpack

    try:
        with progress("verifying") as report:
            found = unpack.check(args.file, report)
    except StoreError as error:
        raise Unwell(str(error)) from None
    _describe(args.file, found)
    return FINE


def install(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.store import unpack
    from appliance.store.install import came_of_it, current, default_prefix, ended_as_by_ctrl_c

    prefix = Path(os.path.abspath(args.prefix or default_prefix()))
    before = current(prefix)
    try:
        with ended_as_by_ctrl_c(), ExitStack() as stack:
            with progress("unpacking") as report:
                _, folder = stack.enter_context(unpack.unpacked(args.file, prefix, report))
            code = unpack.hand_over(folder, ["--prefix", str(prefix)])
    except StoreError as error:
        raise Unwell(str(error)) from None
    except KeyboardInterrupt:
        print(f"Interrupted; {came_of_it(prefix, before)}.", file=sys.stderr)
        return INTERRUPTED
    return FINE if code == 0 else INTERRUPTED if code == INTERRUPTED else NOT_WELL


def _describe(file: Path, opened: Opened) -> None:
    manifest = opened.manifest
    size = in_words(file.stat().st_size)
    print(f"{file} is whole: appliance {manifest.version}, {size}, made {manifest.created}")
    print(
        f"  for     {manifest.machine}, {manifest.baseline}, glibc {manifest.glibc} or newer, "
        f"Python {', '.join(manifest.pythons)}"
    )
    print(f"  models  {', '.join(manifest.models) or 'none'}")
    print(f"  id      {opened.id}")
