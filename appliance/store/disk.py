"""Files that are whole or not there: what every way into the store has in common."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from appliance.core.size import in_words
from appliance.store.catalog import StoreError

CHUNK = 1 << 20
PART = ".part"
"""What an unfinished file's name ends with."""
NOTE = PART + ".of"
"""And the note beside it that says of which content it is."""

LOCK = ".lock"

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Told how much of how much is done."""
Accept = Callable[[Path], None]
"""Does llama.cpp take this model? Raises `Unopenable` if it never will, `StoreError` if that is not sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far is the work on one file? `digest` is what the file should have, as "sha256:..."."""

    status: Literal["downloading", "copying", "checking", "unpacking"]
    file: str
    digest: str | None = None
    total: int | None = None
    completed: int = 0


Report = Callable[[Step], None]


def unheard(step: Step) -> None:
    """The `Report` of somebody who does not want to know."""


def unasked(path: Path) -> None:
    """The `Accept` of somebody who takes anything."""


class Folders(Protocol):
    """The part of a `PathsConfig` that is written to."""

    @property
    def cache(self) -> Path: ...
    @property
    def models(self) -> Path: ...


@contextmanager
def installing(name: str, models: Path, say: Say, *, again: str = "try again") -> Iterator[None]:
    """Nobody else installs this model meanwhile, and what the disk does is one sentence. `again` says what to do then.

    The lock lies beside what it guards, which several users may share, so it is only read. The kernel lets it go when
    its holder dies, and a holder that ends takes the file away.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
        lock = models / f".{name.replace('/', '_')}{LOCK}"
        file = _locked(lock, lambda: say(f'Somebody else is installing "{name}"; waiting for them ...'))
        try:
            yield
        finally:
            with suppress(OSError):  # one of another user, in a folder where everybody deletes only their own
                lock.unlink()
            os.close(file)
    except OSError as error:
        raise StoreError(why_not_written(error, name, again)) from None


def _locked(path: Path, waiting: Callable[[], None]) -> int:
    """The open and locked file at `path`."""
    while True:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder took it away while we waited; who else waited may have made another


def why_not_written(error: OSError, name: str, again: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f'the disk is full, so "{name}" was not installed; free some space and {again}.'
    where = f" {error.filename}" if error.filename else ""
    return f'"{name}" was not installed: {error.strerror or "the disk failed"}{where}; correct that and {again}.'


@contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder of our own in `folder` that is gone afterwards, and with it what a killed one of this prefix left.

    Whoever works in one holds its lock, which the kernel lets go when its holder dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as name, ExitStack() as stack:
        with suppress(OSError):  # without such locks nobody sweeps here
            stack.enter_context(_held(Path(name)))
        yield Path(name)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody else works in this folder. Raises `OSError` if somebody does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def check_room(name: str, needed: int, folder: Path, *, remedy: str = "make room and try again") -> None:
    """Is there room for this many bytes more? Raises `StoreError`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(f'"{name}" needs {in_words(needed)} at {folder} and {in_words(free)} are free; {remedy}.')


def put(unfinished: Path, target: Path) -> None:
    """Give a finished file its name, so that it survives a power cut: all of it, or none."""
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(target)
    settle(target.parent)


def sha256_of(path: Path, told: Callable[[int], None] = lambda _: None) -> str:
    """The hash of what is in a file; `told` hears how many bytes are read so far."""
    with path.open("rb") as file:
        return hash_of(file, told)


def hash_of(source: IO[bytes], told: Callable[[int], None], *, into: IO[bytes] | None = None) -> str:
    """The hash of what is to be read here, and a copy of it written on the way."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        if into is not None:
            into.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        told(done)
    return digest.hexdigest()


def leftovers(target: Path) -> tuple[Path, Path]:
    """What an unfinished download of this file leaves."""
    return target.with_name(target.name + PART), target.with_name(target.name + NOTE)


def settle(folder: Path) -> None:
    """Make what was renamed in here survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_small(path: Path, text: str) -> None:
    """Write a small file, whole or not at all. One that is there keeps its owner and its rights."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(b"")
    if path.exists():
        shutil.copymode(path, unfinished)
        with suppress(PermissionError):
            os.chown(unfinished, path.stat().st_uid, path.stat().st_gid)
    unfinished.write_text(text, "utf-8")
    put(unfinished, path)
