"""What does a bundle hold, and does this box take it? Pure: no file, no clock.

A bundle is one plain tar with one folder: ``manifest.sha256`` (the hash of the next), ``manifest.json`` (the hash of
everything else), then the files. So one hash stands for the whole bundle: its `id`, which two people can read to each
other.

This file and `install.py` run on the box from inside our own wheel, before any other wheel is installed: they
import nothing but Python's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from appliance.store.catalog import StoreError

FORMAT = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
WHEELS, MODELS, LIBRARIES = "wheels", "models", "libraries"
INSTALLER = "install.sh"
MOST_BYTES = 4 << 20
"""No honest manifest is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """For which processors is llama.cpp compiled? `sets` are what llama.cpp calls them, `cpu` what Linux calls them."""

    name: str
    machine: str
    cmake: tuple[str, ...]
    cpu: tuple[str, ...] = ()
    sets: frozenset[str] = frozenset()


_PORTABLE = "-DGGML_NATIVE=OFF"
_V3 = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
BASELINES = (
    Baseline(
        name="x86-64-v3",
        machine="x86_64",
        cmake=(_PORTABLE, *(f"-DGGML_{one}=ON" for one in _V3)),
        cpu=("sse4_2", "avx", "avx2", "bmi2", "fma", "f16c"),
        sets=frozenset({"SSE3", "SSSE3", *_V3}),
    ),
    Baseline(
        name="armv8-a", machine="aarch64", cmake=(_PORTABLE,), cpu=("asimd",), sets=frozenset({"NEON", "ARM_FMA"})
    ),
)
NATIVE = "native"
# What a compiler that is told "native" may use, as Linux names it: AVX-512 and AMX in all their parts, and older ones.
_EXTENSION = re.compile(
    r"avx|amx|sse|ssse|fma|f16c|bmi|adx|aes|pclmul|vaes|gfni|sha|popcnt|movbe|asimd|sve|sme|i8mm|bf16"
)


def baseline_named(name: str, machine: str, cpu: Iterable[str]) -> Baseline:
    """The baseline of this name, for a box of this kind. Raises `StoreError`."""
    if name == NATIVE:
        used = tuple(sorted(flag for flag in cpu if _EXTENSION.match(flag)))
        return Baseline(name=NATIVE, machine=machine, cmake=("-DGGML_NATIVE=ON",), cpu=used)
    found = next((one for one in BASELINES if one.name == name), None)
    if found is None:
        there = ", ".join([*(one.name for one in BASELINES), NATIVE])
        raise StoreError(f'there is no baseline "{name}"; take one of {there}.')
    if found.machine != machine:
        raise StoreError(
            f"{name} is for {found.machine} and this machine is {machine}; make the bundle on its own kind."
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of a bundle. `path` is relative, with slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a bundle that a box must know before it takes anything out of it."""

    version: str
    created: str
    baseline: str
    machine: str
    cpu: tuple[str, ...]
    """What a processor must have, as /proc/cpuinfo writes it."""
    instruction_sets: tuple[str, ...]
    """What llama.cpp says it was compiled with."""
    glibc: str
    pythons: tuple[str, ...]
    unpacked: int
    """Bytes of all wheels once they are installed."""
    models: Mapping[str, tuple[str, ...]]
    """The files of each model, by the name it is asked for, as they lie in the store."""
    files: tuple[Piece, ...]
    built_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.files)

    @property
    def weights(self) -> int:
        return sum(piece.bytes for piece in self.files if piece.path.startswith(f"{MODELS}/"))

    def within(self, folder: str) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.files if piece.path.startswith(f"{folder}/"))


def render(manifest: Manifest) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode() + b"\n"


def parse(content: bytes) -> Manifest:
    """Raises `StoreError` unless it is a manifest of ours whose every path stays inside its folder."""
    broken = StoreError("the manifest of this bundle is damaged; get the bundle again.")
    try:
        found: dict[str, Any] = json.loads(content)
        if found.pop("format") != FORMAT:
            raise StoreError("this bundle was made by another version of the appliance; use the install.sh inside it.")
        files = tuple(
            Piece(path=str(row["path"]), bytes=int(row["bytes"]), sha256=str(row["sha256"]))
            for row in found.pop("files")
        )
        models = {str(name): tuple(map(str, parts)) for name, parts in found.pop("models").items()}
        lists: dict[str, Any] = {key: tuple(map(str, found.pop(key))) for key in ("cpu", "instruction_sets", "pythons")}
        manifest = Manifest(files=files, models=models, **lists, **found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise broken from None
    paths = [piece.path for piece in files]
    if len(set(paths)) != len(paths) or not all(map(stays_inside, paths)) or not manifest.within(WHEELS):
        raise broken
    return manifest


def stays_inside(path: str) -> bool:
    """Is this a plain relative path below the bundle's own folder?"""
    pure = PurePosixPath(path)
    return (
        path == str(pure)
        and not pure.is_absolute()
        and ".." not in pure.parts
        and path not in (".", MANIFEST, SEAL)
        and all(character.isprintable() and character != "\\" for character in path)
    )


def seal(manifest_sha256: str) -> bytes:
    """As sha256sum writes and reads it."""
    return f"{manifest_sha256}  {MANIFEST}\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What an installation depends on."""

    machine: str
    cpu: frozenset[str]
    glibc: str | None
    python: str


def objection(manifest: Manifest, box: Host) -> str | None:
    """Why this box cannot take the bundle, as a sentence; None if it can."""
    if box.machine != manifest.machine:
        return f"this bundle is for {manifest.machine} and this machine is {box.machine}; make one for its kind."
    if manifest.cpu and not box.cpu:
        return "/proc/cpuinfo does not say what the processor here can do; mount /proc and try again."
    if missing := [flag for flag in manifest.cpu if flag not in box.cpu]:
        return (
            f"this bundle is for {manifest.baseline} processors, and the one here has no {', '.join(missing[:6])}; "
            f"make one on a machine with this processor and --baseline {NATIVE}."
        )
    if box.glibc is None:
        return f"this bundle needs glibc {manifest.glibc} or newer, and this system has none (musl is not supported)."
    if numbers(box.glibc) < numbers(manifest.glibc):
        return (
            f"this bundle needs glibc {manifest.glibc} or newer, and this system has {box.glibc}; "
            "make the bundle on a system that is no newer than this one."
        )
    if box.python not in manifest.pythons:
        there = " or ".join(manifest.pythons)
        return (
            f"this bundle is for Python {there} and this is {box.python}; install one of those, "
            f"or make the bundle with --python {box.python}."
        )
    return None


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The extensions of the first processor in /proc/cpuinfo."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()
