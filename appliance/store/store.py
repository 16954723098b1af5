"""Where does the model lie, and is it the file that it should be?

The store is one folder. The catalog's files lie in it under their own names, those of a hub under ``hf/OWNER/REPO``,
and what was imported under the name it was given. A quick look (size and first bytes) happens at every start; the whole
hash only when it is asked for, because it takes a minute for a large model.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.store.catalog import Entry, ModelFile, StoreError, names_file
from appliance.store.disk import Progress, leftovers, sha256_of
from appliance.store.own import HUB, known, of_place, record_of

__all__ = ["Resolved", "StoreError", "installed", "path_of", "resolve", "verify"]

_MAGIC = b"GGUF"


class _Paths(Protocol):
    @property
    def models(self) -> Path: ...


class Configured(Protocol):
    """The part of a `Config` that the store looks at."""

    @property
    def paths(self) -> _Paths: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A model file that is there and looks whole. `template` replaces the file's own, if given."""

    path: Path
    template: str | None
    name: str


def path_of(entry: Entry, models: Path) -> Path:
    """Where the model lies, or would."""
    return models / entry.file


def part_of(entry: Entry, part: ModelFile, models: Path) -> Path:
    """Where one part of it lies, or would."""
    return models / entry.place(part)


def installed(entry: Entry, models: Path) -> bool:
    return all(part_of(entry, part, models).is_file() for part in entry.parts)


def files_of(entry: Entry, models: Path) -> tuple[Path, ...]:
    """Everything that is here of it: whole, begun, and its record."""
    parts = [part_of(entry, part, models) for part in entry.parts]
    every = [*parts, *(left for part in parts for left in leftovers(part)), record_of(entry, models)]
    return tuple(path for path in every if path.is_file())


def remove(entry: Entry, models: Path) -> int:
    """Delete all of it; how many bytes did that free? Raises `OSError`."""
    freed = 0
    for path in files_of(entry, models):
        freed += path.stat().st_size if path.stat().st_nlink == 1 else 0
        path.unlink()
    for folder in path_of(entry, models).relative_to(models).parents[:-1]:
        with suppress(OSError):  # somebody else's model is in it
            (models / folder).rmdir()
    return freed


def place(model: str, models: Path) -> Path:
    """Where the file behind `[local] model` lies, or would. Raises `StoreError` for a name that nobody knows."""
    if model.startswith(HUB):
        return path_of(of_place(model), models)
    if is_path(model):
        return Path(model).expanduser()
    return path_of(known(model, models), models)


def resolve(model: str, config: Configured) -> Resolved:
    """The file behind `[local] model`. Raises `StoreError` if it is not there or obviously not whole."""
    if is_path(model):
        path = Path(model).expanduser()
        if not path.is_file():
            raise StoreError(f"the model {path} does not exist; correct [local] model in appliance.toml.")
        look_at(path)
        return Resolved(path=path, template=None, name=path.stem)
    entry = known(model, config.paths.models)
    if entry.kind != "chat":
        raise StoreError(f'the model "{entry.name}" cannot chat, it makes {entry.kind}s; choose another one.')
    for part in entry.parts:
        path = part_of(entry, part, config.paths.models)
        if not path.is_file():
            raise StoreError(_missing(entry))
        look_at(path, expected=part.bytes, remedy=remedy(entry))
    path = path_of(entry, config.paths.models)
    return Resolved(path=path, template=entry.template, name=path.stem if model.startswith(HUB) else entry.name)


def is_path(model: str) -> bool:
    return not model.startswith(HUB) and names_file(model)


def _missing(entry: Entry) -> str:
    return f'the model "{entry.name}" is not installed; {remedy(entry)}.'


def remedy(entry: Entry) -> str:
    """What to do about a file that is not what it should be, or not there."""
    if entry.come_from and not entry.repo:
        return "import it again"
    return f'run "appliance models pull {entry.name}"'


def look_at(path: Path, *, expected: int | None = None, remedy: str = "get it again") -> None:
    """Has it the right size, and does it begin like a model? Raises `StoreError`."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"the model {path} cannot be read: {error.strerror}.") from None
    if expected is not None and size < expected:
        raise StoreError(f"the model {path} is truncated: {size:,} of {expected:,} bytes; {remedy}.")
    if expected is not None and size > expected:
        raise StoreError(f"the model {path} has {size:,} bytes where the catalog says {expected:,}; {remedy}.")
    if magic != _MAGIC:
        raise StoreError(f"the model {path} is not a GGUF file (it does not begin with GGUF); {remedy}.")


def verify(entry: Entry, models: Path, progress: Progress | None = None) -> None:
    """Every byte of every part is what the catalog says. Raises `StoreError`."""
    paths = [part_of(entry, part, models) for part in entry.parts]
    total = sum(path.stat().st_size for path in paths if path.is_file())
    done = 0

    def told(here: int) -> None:
        if progress:
            progress(done + here, total)

    for part, path in zip(entry.parts, paths, strict=True):
        if not path.is_file():
            raise StoreError(_missing(entry))
        look_at(path, expected=part.bytes, remedy=remedy(entry))
        try:
            found = sha256_of(path, told)
            done += path.stat().st_size
        except OSError as error:
            raise StoreError(f"the model {path} cannot be read: {error.strerror}.") from None
        check_hash(part, path, found, remedy(entry))


def check_hash(part: ModelFile, path: Path, found: str, remedy: str) -> None:
    if found != part.sha256:
        raise StoreError(
            f"the model {path} is not the file of the catalog: its sha256 is {found[:12]}..., "
            f"expected {part.sha256[:12]}...; {remedy}."
        )
