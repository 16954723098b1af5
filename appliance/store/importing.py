"""Take a model into the store that is on this box already, or on a stick: whole and hashed, or not at all.

A file whose hash the catalog knows becomes that model, whatever it is called. Any other gets a name of its own and a
record beside it. Files of other tools are linked where the disk allows it, so that they are not there twice; a user's
own file is cloned or copied, because it may change later.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.store.catalog import Entry, ModelFile, StoreError, read_catalog
from appliance.store.disk import (
    Accept,
    Folders,
    Report,
    Say,
    Step,
    check_room,
    hash_of,
    installing,
    put,
    scratch,
    sha256_of,
    unasked,
    unheard,
)
from appliance.store.elsewhere import slug
from appliance.store.own import keep, own, siblings
from appliance.store.store import installed, look_at, part_of

OWN = "own"
"""The folder of imported models."""
_CLONE = 0x40049409
"""Linux's FICLONE: both files share their blocks until one changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file. `news` is False if the model was here already."""

    entry: Entry
    news: bool


def bring(
    path: Path,
    folders: Folders,
    *,
    name: str | None = None,
    come_from: str = "",
    sha256: str | None = None,
    link: bool = False,
    accept: Accept = unasked,
    say: Say,
    report: Report = unheard,
) -> Imported:
    """Take the model at `path` into the store, if `accept` raises nothing about the file. Raises `StoreError`."""
    path = path.expanduser().absolute()
    files = [path.with_name(part) for part in siblings(path.name)]
    for file in files:
        if file.is_dir():
            raise StoreError(f"{file} is a folder; name the GGUF file in it.")
        if not file.is_file():
            raise StoreError(f"{file} does not exist; correct the path.")
        look_at(file, remedy="give another file")
    accept(path)
    called = checked(name or slug(re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)))
    with installing(called, folders.models, say):
        with scratch(folders.models, ".importing-") as folder:
            unfinished = [folder / str(number) for number in range(1, len(files) + 1)]
            hashes = [
                _take(file, to, folders, called, link=link, report=report)
                for file, to in zip(files, unfinished, strict=True)
            ]
            if sha256 is not None and hashes != [sha256]:
                raise StoreError(f"{path} is damaged: its hash is not the one it should have; get the model again.")
            entry = recognised(hashes) or _named(called, files, hashes, come_from or str(path.parent), folders)
            news = not installed(entry, folders.models) or _differs(entry, folders)
            for part, file in zip(entry.parts, unfinished, strict=True):
                target = part_of(entry, part, folders.models)
                target.parent.mkdir(parents=True, exist_ok=True)
                put(file, target)
        if entry.folder:
            keep(entry, folders.models)
        return Imported(entry=entry, news=news)


def checked(name: str) -> str:
    """A name that an imported model can have. Raises `StoreError`."""
    lower = name.lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", lower) or lower.endswith(".gguf"):
        raise StoreError(f'"{name}" cannot be the name of a model; use letters, digits, dots and dashes with --name.')
    return lower


def recognised(hashes: list[str]) -> Entry | None:
    """The model of the catalog that has these files."""
    for entry in read_catalog():
        if [part.sha256 for part in entry.parts] == hashes:
            return entry
    return None


def _named(called: str, files: list[Path], hashes: list[str], come_from: str, folders: Folders) -> Entry:
    """A model of our own. Raises `StoreError` if the name is another model's."""
    parts = siblings(f"{called}-00001-of-{len(files):05}.gguf") if len(files) > 1 else (f"{called}.gguf",)
    entry = Entry(
        name=called,
        about=f"imported from {come_from}",
        repo="",
        parts=tuple(
            ModelFile(file=part, bytes=file.stat().st_size, sha256=digest)
            for part, file, digest in zip(parts, files, hashes, strict=True)
        ),
        folder=OWN,
        come_from=come_from,
    )
    for other in (*read_catalog(), *own(folders.models)):
        if other.name == called and [part.sha256 for part in other.parts] != hashes:
            raise StoreError(f'there is another model "{called}"; give this one a name of its own with --name.')
    return entry


def _differs(entry: Entry, folders: Folders) -> bool:
    """Is what is installed obviously not this?"""
    return any(
        part.bytes is not None and part_of(entry, part, folders.models).stat().st_size != part.bytes
        for part in entry.parts
    )


def _take(file: Path, to: Path, folders: Folders, name: str, *, link: bool, report: Report) -> str:
    """Bring one file into the store's folder under a name that nobody reads yet. Gives its hash."""
    total = file.stat().st_size

    def told(status: Literal["checking", "copying"]) -> Callable[[int], None]:
        return lambda done: report(Step(status=status, file=file.name, total=total, completed=done))

    if link and _linked(file, to):
        return sha256_of(to, told("checking"))
    with file.open("rb") as source, to.open("xb") as target:
        try:
            fcntl.ioctl(target, _CLONE, source.fileno())
        except OSError:  # most file systems cannot
            check_room(name, total, folders.models)
            return hash_of(source, told("copying"), into=target)
    return sha256_of(to, told("checking"))


def _linked(file: Path, to: Path) -> bool:
    try:
        os.link(file.resolve(), to)  # the file, where this is a link to it
    except OSError:  # another disk, or a file that is not ours to link
        return False
    return True
