"""Files that are whole or not there: what every way into the store has in common."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance.store.catalog import StoreError

CHUNK = 1 << 20
PART = ".part"
"""What an unfinished file's name ends with."""
NOTE = PART + ".of"
"""And the note beside it that says of which content it is."""

Say = Callable[[str], None]


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


class Folders(Protocol):
    """The part of a `PathsConfig` that is written to."""

    @property
    def cache(self) -> Path: ...
    @property
    def models(self) -> Path: ...


@contextmanager
def installing(name: str, folders: Folders, say: Say, *, again: str = "try again") -> Iterator[None]:
    """Nobody else installs this model meanwhile, and what the disk does is one sentence. `again` says what to do then.

    The kernel lets the lock go when its holder dies.
    """
    try:
        folders.models.mkdir(parents=True, exist_ok=True)
        folders.cache.mkdir(parents=True, exist_ok=True)
        with (folders.cache / f"{name.replace('/', '_')}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f'Somebody else is installing "{name}"; waiting for them ...')
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise StoreError(why_not_written(error, name, again)) from None


def why_not_written(error: OSError, name: str, again: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f'the disk is full, so "{name}" was not installed; free some space and {again}.'
    where = f" {error.filename}" if error.filename else ""
    return f'"{name}" was not installed: {error.strerror or "the disk failed"}{where}; correct that and {again}.'


def check_room(name: str, needed: int, folder: Path) -> None:
    """Is there room for this many bytes more? Raises `StoreError`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f'"{name}" needs {needed / 1e6:,.0f} MB at {folder} and {free / 1e6:,.0f} MB are free; '
            "make room and try again."
        )


def put(unfinished: Path, target: Path) -> None:
    """Give a finished file its name, so that it survives a power cut: all of it, or none."""
    descriptor = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(target)
    settle(target.parent)


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
