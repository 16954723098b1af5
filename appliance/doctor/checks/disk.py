"""Can the box write down what it has to?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.core.size import in_words
from appliance.doctor.finding import Finding, ok, warn, wrong

LAYER = "disk"
FULL, LOW = 32 * 10**6, 500 * 10**6
"""Bytes free: under which the journal can not be relied on, and under which it is time to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """One of the folders of `[paths]`, or where it will be made. ``trouble`` is the system's word for why it cannot be
    written; ``read_only``: the file system is. ``needed``: something is written there in daily work."""

    what: str
    path: Path
    free: int = 0
    files_free: int | None = None
    trouble: str = ""
    read_only: bool = False
    needed: bool = True


def verdict(folders: Sequence[Folder]) -> Finding:
    for folder in folders:
        where = f"the {folder.what} folder {folder.path}"
        if folder.trouble and folder.needed:
            why = (
                "its file system is read-only"
                if folder.read_only
                else f"{folder.trouble[0].lower()}{folder.trouble[1:]}"
            )
            fix = f"Make it writable for whoever serves, or choose another in [paths] {folder.what}."
            return wrong(LAYER, f"{where} cannot be written: {why}", who="box", fix=fix)
    for folder in sorted(folders, key=lambda one: one.free):
        where = f"the {folder.what} folder {folder.path}"
        fix = f"Free some space there, or choose another place in [paths] {folder.what}."
        if folder.read_only and not folder.needed:
            continue
        if folder.free < FULL:
            return wrong(LAYER, f"full: {in_words(folder.free)} are free for {where}", who="box", fix=fix)
        if folder.files_free == 0:
            return wrong(LAYER, f"full: no more files can be made in {where}", who="box", fix=fix)
        if folder.free < LOW:
            return warn(LAYER, f"only {in_words(folder.free)} are free for {where}", who="box", fix=fix)
    return ok(LAYER, ", ".join(f"{one.what} {in_words(one.free)} free" for one in folders))
