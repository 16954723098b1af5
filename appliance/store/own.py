"""Which models are here that the catalog does not know?

Each has a record beside its file, ``FILE.json``, with what the catalog would say: where it came from, its parts, their
sizes and hashes. A record that cannot be read is as good as none; the file is then a file like any other.
"""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path

from appliance.store.catalog import Entry, ModelFile, StoreError, entry_of, find, read_catalog
from appliance.store.disk import PART, write_small

RECORD = ".json"
HUB = "hf:"
"""What the name of a model begins with that is named by its place on the hub."""
_MANY = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.gguf")


def own(models: Path) -> tuple[Entry, ...]:
    """The models with a record of their own, by name."""
    found = []
    for path in models.glob(f"**/*.gguf{RECORD}"):
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            found.append(entry_of(json.loads(path.read_text("utf-8"))))
    return tuple(sorted(found, key=lambda entry: entry.name))


def begun(models: Path) -> tuple[Entry, ...]:
    """The models of a hub of which something is here and no record yet: their downloads were interrupted."""
    found = {}
    for path in models.glob("hf/**/*"):
        file = path.relative_to(models / "hf").as_posix().removesuffix(PART)
        with suppress(StoreError):  # a note, a folder, a record
            entry = of_place(f"{HUB}{file}")
            if path.is_file() and not record_of(entry, models).exists():
                found[entry.name] = entry
    return tuple(sorted(found.values(), key=lambda entry: entry.name))


def known(name: str, models: Path) -> Entry:
    """The model of this name, of the catalog or our own. Raises `StoreError` with the nearest one."""
    if name.startswith(HUB):
        file = of_place(name).file
        for entry in own(models):
            if entry.file == file:
                return entry
        raise StoreError(f'the model "{name}" is not installed; run "appliance models pull {name}".')
    return find(name, (*read_catalog(), *own(models)))


def of_place(name: str) -> Entry:
    """The model "hf:OWNER/REPO/FILE.gguf", of which only its place is known. Raises `StoreError`."""
    repo, file = split(name)
    parts = tuple(ModelFile(file=one, sha256="") for one in siblings(file))
    return Entry(name=f"{HUB}{repo}/{parts[0].file}", about=f"from {repo}", repo=repo, parts=parts, folder=f"hf/{repo}")


def keep(entry: Entry, models: Path) -> None:
    """Write the record of a model that is there now."""
    fields = {
        field.name: value
        for field in dataclasses.fields(entry)
        if (value := getattr(entry, field.name)) != field.default and value is not None
    }
    fields["parts"] = [{k: v for k, v in dataclasses.asdict(part).items() if v is not None} for part in entry.parts]
    write_small(record_of(entry, models), json.dumps(fields, indent=1) + "\n")


def record_of(entry: Entry, models: Path) -> Path:
    path = models / entry.file
    return path.with_name(path.name + RECORD)


def split(name: str) -> tuple[str, str]:
    """The repository and the file of "hf:OWNER/REPO/FILE.gguf". Raises `StoreError`."""
    steps = name.removeprefix(HUB).split("/")
    good = all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", step) for step in steps)
    if len(steps) < 3 or not good or not steps[-1].lower().endswith(".gguf"):
        raise StoreError(f'"{name}" does not name a file of a model hub; write it like hf:OWNER/REPO/FILE.gguf.')
    return "/".join(steps[:2]), "/".join(steps[2:])


def siblings(file: str) -> tuple[str, ...]:
    """All files of the model that `file` belongs to: those that it counts in its name, or only itself."""
    if not (counted := _MANY.fullmatch(file)) or not 1 <= int(counted["number"]) <= int(counted["of"]):
        return (file,)
    return tuple(f"{counted['stem']}-{n:05}-of-{counted['of']}.gguf" for n in range(1, int(counted["of"]) + 1))
