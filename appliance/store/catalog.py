"""Which models do we know by name, and what must their files be?"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FREE = ("apache-2.0", "mit")
"""The licenses of the models that are recommended."""
BOXES: Mapping[str, str] = {
    "cpu-8": "8 GB of memory",
    "cpu-16": "16 GB of memory",
    "cpu-32": "32 GB of memory",
    "cpu-64": "64 GB of memory",
    "gpu-8": "a GPU with 6 to 8 GB",
    "gpu-12": "a GPU with 12 GB",
    "gpu-16": "a GPU with 16 GB",
    "gpu-24": "a GPU with 24 GB",
    "gpu-48": "a GPU with 32 to 48 GB",
    "gpu-80": "a GPU with 80 GB",
}
"""The kinds of box that the catalog has a recommendation for, from small to large."""

# In an installed wheel the catalog lies beside this file, in a checkout at the top of the repository.
_PLACES = (Path(__file__).parent / "models", Path(__file__).parents[2] / "models")


class StoreError(Exception):
    """The model is not there or not what it should be; `str()` is one sentence that says what to do."""


class Unopenable(StoreError):
    """llama.cpp was asked and does not take this model. It would not if it were fetched again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of a model, by its path in the repository. `bytes` is missing where nobody has confirmed the size."""

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
    """One model. llama.cpp is given the first of `parts` and finds the others beside it.

    `boxes` are those for which it is the first choice, `also` those where it is a good second one. `active` is the
    share of the weights that one token reads (less than 1 for a mixture of experts). `roughly` and `memory` are
    estimates in bytes: of the files where `bytes` is not confirmed, and of the memory in use. `family` is a row of the
    engine's table of speech. What is not of the catalog says where it has `come_from`, and may lie in a `folder`.
    """

    name: str
    about: str
    repo: str
    parts: tuple[ModelFile, ...]
    revision: str | None = None
    license: str | None = None
    context: int | None = None
    template: str | None = None
    kind: Literal["chat", "embedding"] = "chat"
    family: str | None = None
    run_with_weights: bool = False
    boxes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    active: float = 1.0
    roughly: int | None = None
    memory: int | None = None
    package: Package | None = None
    folder: str = ""
    come_from: str = ""

    @property
    def file(self) -> str:
        """The file that llama.cpp is given, by its path in the model store."""
        return self.place(self.parts[0])

    def place(self, part: ModelFile) -> str:
        """Where this part lies in the model store."""
        return f"{self.folder}/{part.file}" if self.folder else part.file

    @property
    def bytes(self) -> int | None:
        """The size of all parts, if each is known."""
        sizes = [part.bytes for part in self.parts if part.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.parts) else None

    @property
    def free(self) -> bool:
        """May anybody use it for anything? Only such a model is recommended."""
        return self.license in FREE


@cache
def read_catalog() -> tuple[Entry, ...]:
    """All models of the packaged catalog, in its order."""
    path = next(place / "catalog.toml" for place in _PLACES if (place / "catalog.toml").is_file())
    return parse_catalog(path.read_text("utf-8"))


def parse_catalog(text: str) -> tuple[Entry, ...]:
    return tuple(entry_of(row) for row in tomllib.loads(text)["model"])


def entry_of(row: Mapping[str, Any]) -> Entry:
    """A model from its table. One of a single file may name that without a list of parts."""
    fields = dict(row)
    parts = fields.pop("parts", None) or fields.pop("part", None)
    parts = parts or [{key: fields.pop(key) for key in ("file", "bytes", "sha256") if key in fields}]
    if package := fields.pop("package", None):
        fields["package"] = Package(**package)
    for name in ("boxes", "also"):
        fields[name] = tuple(fields.get(name, ()))
    return Entry(parts=tuple(ModelFile(**part) for part in parts), **fields)


def names_file(name: str) -> bool:
    """Is this the path of a file, and no name of a model?"""
    return os.sep in name or name.endswith(".gguf")


def find(name: str, entries: Sequence[Entry] | None = None) -> Entry:
    """The entry of this name. Raises `StoreError` with the nearest one."""
    entries = read_catalog() if entries is None else entries
    for entry in entries:
        if entry.name == name.lower():
            return entry
    close = difflib.get_close_matches(name.lower(), [entry.name for entry in entries], n=1)
    if names_file(name):
        hint = '"appliance models import" takes a file of this box into the store.'
    else:
        hint = f'did you mean "{close[0]}"?' if close else '"appliance models list" shows those there are.'
    raise StoreError(f'the catalog has no model "{name}"; {hint}')
