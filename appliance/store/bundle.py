"""Everything that a box without a network needs, in one file.

A plain tar, because weights do not compress. What it holds is in `manifest.py`, where the wheels come from in
`packing.py`, how it is read in `unpack.py`, and how it becomes an installation in `install.py`.
"""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from appliance import __version__
from appliance.store import packing
from appliance.store.catalog import Entry, StoreError
from appliance.store.disk import PART, Progress, Say, check_room, put, scratch, sha256_of
from appliance.store.install import alone, why_not_written
from appliance.store.manifest import (
    INSTALLER,
    LIBRARIES,
    MANIFEST,
    MODELS,
    SEAL,
    WHEELS,
    Baseline,
    Manifest,
    Piece,
    render,
    seal,
)
from appliance.store.own import RECORD, known
from appliance.store.store import installed, is_path, part_of
from appliance.store.unpack import TOP, Hashed, Meter, Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What goes into a bundle. `wheels` is a folder of ready-made ones, taken before any other."""

    baseline: Baseline
    pythons: tuple[str, ...]
    models: tuple[Entry, ...]
    wheels: Path | None = None


def carried(name: str, models: Path) -> Entry:
    """The model of this name, which is in the store `models`. Raises `StoreError`."""
    if is_path(name):
        raise StoreError(
            f"a bundle takes models of the store, and {name} is a file; run "
            f'"appliance models import {name}" and say its name with --model.'
        )
    entry = known(name, models)
    if not installed(entry, models):
        raise StoreError(f'the model "{entry.name}" is not installed; run "appliance models pull {entry.name}".')
    return entry


def create(
    target: Path, wanted: Wanted, *, models: Path, cache: Path, created: str, say: Say, progress: Progress | None = None
) -> Opened:
    """Pack a bundle into `target`, or leave what was there. Raises `StoreError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        with alone(cache / "bundle.lock", "another bundle is being made here"), scratch(cache, "bundle-") as folder:
            manifest, sources = _gather(folder, wanted, models, cache, created, say)
            return pack(target, manifest, sources, progress)
    except OSError as error:
        raise StoreError(why_not_written(error, "no bundle was written")) from None


def _gather(
    folder: Path, wanted: Wanted, models: Path, cache: Path, created: str, say: Say
) -> tuple[Manifest, Mapping[str, Path]]:
    """Bring everything together; answers what there is and where each file lies."""
    wheels = folder / WHEELS
    wheels.mkdir()
    engine = packing.engine_wheel(wanted.baseline, cache, wheels=wanted.wheels, beside=folder, say=say)
    sets, libraries = packing.compiled_with(engine)
    packing.check_sets(sets, wanted.baseline, engine.name)
    shutil.copyfile(engine, wheels / engine.name)
    for python in wanted.pythons:
        pins = packing.closure(python)
        elsewhere = {name: pins[name] for name in pins if name not in (packing.OURS, packing.ENGINE)}
        packing.fetch(elsewhere, python, wheels, wheels=wanted.wheels, say=say)
    packing.write_own_wheel(wheels)
    packing.copy_libraries(libraries, folder / LIBRARIES)
    shutil.copyfile(Path(__file__).with_name(INSTALLER), folder / INSTALLER)
    (folder / "LICENSE").write_text(packing.license_text())

    sources = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    known: dict[str, str] = {}
    carried_models: dict[str, tuple[str, ...]] = {}
    for entry in wanted.models:
        known |= {f"{MODELS}/{entry.place(part)}": part.sha256 for part in entry.parts}
        sources |= {f"{MODELS}/{entry.place(part)}": part_of(entry, part, models) for part in entry.parts}
        if (record := models / f"{entry.file}{RECORD}").is_file():  # what the catalog does not know
            sources[f"{MODELS}/{entry.file}{RECORD}"] = record
        carried_models[entry.name] = tuple(entry.place(part) for part in entry.parts)
    ready = sorted(wheels.glob("*.whl"))
    manifest = Manifest(
        version=__version__,
        created=created,
        baseline=wanted.baseline.name,
        machine=wanted.baseline.machine,
        cpu=wanted.baseline.cpu,
        instruction_sets=sets,
        glibc=packing.glibc_needed(packing.libraries_in(ready)),
        pythons=wanted.pythons,
        unpacked=packing.installed_size(ready),
        models=carried_models,
        files=tuple(
            Piece(path=name, bytes=path.stat().st_size, sha256=known.get(name) or sha256_of(path))
            for name, path in sources.items()
        ),
        built_with={"python": platform.python_version(), "system": platform.platform(), "engine": engine.name},
    )
    return manifest, sources


def pack(target: Path, manifest: Manifest, sources: Mapping[str, Path], progress: Progress | None) -> Opened:
    content = render(manifest)
    identity = hashlib.sha256(content).hexdigest()
    check_room(target.name, manifest.bytes, target.parent)
    unfinished = target.with_name(target.name + PART)
    born = datetime.fromisoformat(manifest.created).timestamp()
    top, meter = f"{TOP}-{manifest.version}", Meter(manifest.bytes, progress)
    try:
        with tarfile.open(unfinished, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, small in ((SEAL, seal(identity)), (MANIFEST, content)):
                archive.addfile(_member(f"{top}/{name}", len(small), born), io.BytesIO(small))
            for piece in manifest.files:
                with sources[piece.path].open("rb") as source:
                    read = Hashed(source, meter)
                    archive.addfile(_member(f"{top}/{piece.path}", piece.bytes, born), read)
                if read.digest.hexdigest() != piece.sha256:
                    what = sources[piece.path]
                    raise StoreError(f'{what} is not what it should be; run "appliance models verify".')
        put(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return Opened(id=identity, manifest=manifest)


def _member(name: str, size: int, born: float) -> tarfile.TarInfo:
    """Nothing of whoever packed it: no owner, and one time for all."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o644, int(born)
    return member
