"""Which wheels does another box need, and where do they come from?

The box gets the very versions that run here: what this installation has is what was tried. Ready-made wheels come from
the package index by pip; llama-cpp-python is compiled, because the index has its source only; our own wheel is written
from the files that are running, so that neither a checkout nor a build tool is needed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata as metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import appliance
from appliance.core.machine import instruction_sets
from appliance.store import pip
from appliance.store.catalog import StoreError
from appliance.store.disk import Say
from appliance.store.manifest import Baseline

OURS = "fallback-appliance"
ENGINE = "llama-cpp-python"
# What the compiler's own libraries are called. A small system may lack the first; glibc is not carried.
_RUNTIME = re.compile(r"/(lib(?:gomp|stdc\+\+|gcc_s)\.so\.\d+)[.\d]*$")
_GLIBC = re.compile(rb"\0GLIBC_(\d+\.\d+)(?:\.\d+)?(?=\0)")
_ASK = """
import llama_cpp
print(llama_cpp.llama_print_system_info().decode())
print(open("/proc/self/maps").read())
"""

Requires = Callable[[str], tuple[str, Sequence[str]]]
"""The version of a package that is installed here, and what it requires. Raises `PackageNotFoundError`."""


def installed_here(name: str) -> tuple[str, Sequence[str]]:
    found = metadata.distribution(name)
    return found.version, found.requires or ()


def closure(python: str, *, requires: Requires = installed_here, root: str = OURS) -> dict[str, str]:
    """Every package that `root` needs under this Python ("3.12"), with the version that is installed here."""
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            found[name], rows = requires(name)
        except metadata.PackageNotFoundError:
            raise StoreError(
                f"Python {python} needs {name}, which is not installed here; leave {python} out with --python, "
                f"or make the bundle with a Python {python}."
            ) from None
        for row in map(Requirement, rows):
            wanted = {"", *extras}
            if row.marker and not any(row.marker.evaluate(environment | {"extra": extra}) for extra in wanted):
                continue
            next_one = (canonicalize_name(row.name), frozenset(row.extras))
            if next_one not in seen:
                seen.add(next_one)
                waiting.append(next_one)
    return found


def fetch(pins: Mapping[str, str], python: str, folder: Path, *, wheels: Path | None, say: Say) -> None:
    """Bring a ready-made wheel of each of these versions into `folder`. Raises `StoreError`."""
    say(f"Fetching {len(pins)} wheels for Python {python} ...")
    pip.download(
        [f"{name}=={version}" for name, version in sorted(pins.items())],
        folder,
        f"the wheels for Python {python}",
        "--quiet",
        f"--python-version={python}",
        *((f"--find-links={wheels}",) if wheels else ()),
        otherwise=f"leave {python} out with --python, or put that wheel into a folder and name it with --wheels",
    )


def engine_wheel(baseline: Baseline, cache: Path, *, wheels: Path | None, beside: Path, say: Say) -> Path:
    """llama-cpp-python as it is installed here, compiled for `baseline`: ready-made, kept from last time, or now.

    It is compiled in a folder in `beside`, which is on the disk of `cache`.
    """
    version, _ = installed_here(ENGINE)
    pattern = f"{ENGINE.replace('-', '_')}-{version}-*.whl"
    # pip keeps a wheel under its version alone; ours lie by what they were compiled for, "native" by the flags as well.
    marks = hashlib.sha256(" ".join((*baseline.cmake, *baseline.cpu)).encode()).hexdigest()[:8]
    kept = cache / "wheels" / f"{baseline.name}-{marks}"
    for folder in (wheels, kept):
        if folder and (ready := sorted(folder.glob(pattern))):
            say(f"Taking {ready[0].name} from {folder}.")
            return ready[0]
    kept.mkdir(parents=True, exist_ok=True)
    log = kept / "build.log"
    say(f"Compiling {ENGINE} {version} for {baseline.name}; it takes about ten minutes on two cores. Log: {log}")
    with tempfile.TemporaryDirectory(dir=beside) as scratch, log.open("wb") as out:
        flags = {"CMAKE_ARGS": " ".join(baseline.cmake), "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
        options = ("--no-binary", ENGINE, "--no-cache-dir", "--verbose", "--wheel-dir", scratch)
        code, _ = pip.run("wheel", *options, f"{ENGINE}=={version}", beside=beside, environ=flags, log=out)
        built = sorted(Path(scratch).glob(pattern))
        if code != 0 or not built:
            raise StoreError(f"{ENGINE} could not be compiled; the end of {log} says why.")
        return built[0].rename(kept / built[0].name)


def compiled_with(wheel: Path) -> tuple[tuple[str, ...], dict[str, Path]]:
    """What the engine of this wheel was compiled with, and the libraries of the compiler that it loads."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        code = f"import sys; sys.path.insert(0, {scratch!r}){_ASK}"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise StoreError(
            f"the engine in {wheel.name} cannot be loaded on this machine; make the bundle on its own kind."
        )
    said, _, maps = run.stdout.partition("\n")
    loaded = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if len(line.split(maxsplit=5)) == 6}
    libraries = {
        found[1]: Path(path) for path in loaded if not path.startswith(scratch) and (found := _RUNTIME.search(path))
    }
    return instruction_sets(said), libraries


def check_sets(sets: Sequence[str], baseline: Baseline, wheel: str) -> None:
    """A wheel that asks more of a processor than was promised does not travel."""
    if baseline.sets and (more := sorted(set(sets) - baseline.sets)):
        raise StoreError(
            f"{wheel} was compiled with {', '.join(more)}, which {baseline.name} does not have; compile it with "
            f'CMAKE_ARGS="{" ".join(baseline.cmake)}", or leave it out of --wheels.'
        )


def glibc_needed(contents: Iterator[bytes]) -> str:
    """The newest glibc that any of these libraries names."""
    versions = {found.decode() for content in contents for found in _GLIBC.findall(content)}
    return max(versions, key=lambda version: tuple(map(int, version.split("."))), default="2.17")


def libraries_in(wheels: Sequence[Path]) -> Iterator[bytes]:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.search(r"\.so(\.\d+)*$", name):
                    yield archive.read(name)


def installed_size(wheels: Sequence[Path]) -> int:
    return sum(sum(member.file_size for member in zipfile.ZipFile(wheel).infolist()) for wheel in wheels)


def write_own_wheel(folder: Path) -> Path:
    """The wheel of the appliance that is running, from a checkout or from an installed wheel alike."""
    package, ours = Path(appliance.__file__).parent, metadata.distribution(OURS)
    if ours.version != appliance.__version__:
        raise StoreError(
            f"the code here is {appliance.__version__} and was installed as {ours.version}; "
            'run "./scripts/setup" and try again.'
        )
    project = package.parent / "pyproject.toml"
    if project.is_file() and (news := unknown(project.read_text("utf-8"), ours.requires or ())):
        raise StoreError(f'pyproject.toml asks for {news[0]} since the last "./scripts/setup"; run that and try again.')
    about = f"{OURS.replace('-', '_')}-{ours.version}.dist-info"
    contents = {f"appliance/{path.relative_to(package).as_posix()}": path.read_bytes() for path in _sources(package)}
    catalog = package.parent / "models"  # in a checkout it lies beside the package, in an installed wheel inside
    if (catalog / "catalog.toml").is_file():
        contents |= {f"appliance/store/models/{path.name}": path.read_bytes() for path in _sources(catalog)}
    for path in ours.files or ():
        name = path.as_posix()
        if name.startswith(f"{about}/") and path.name not in ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json"):
            contents[name] = path.read_binary()
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items())
    contents[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    wheel = folder / f"{OURS.replace('-', '_')}-{ours.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # no clock: the same bytes each time
    return wheel


def unknown(project: str, requires: Sequence[str]) -> list[str]:
    """Which requirements of a checkout its installation does not know of yet?"""
    there = {str(Requirement(row)) for row in requires}
    wanted = [str(Requirement(row)) for row in tomllib.loads(project)["project"]["dependencies"]]
    return [row for row in wanted if row not in there]


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def copy_libraries(libraries: Mapping[str, Path], folder: Path) -> None:
    """For a box that lacks one of them; where it is there, its own is taken."""
    folder.mkdir(exist_ok=True)
    for name, path in libraries.items():
        shutil.copyfile(path.resolve(), folder / name)


def license_text() -> str:
    found = next(path for path in metadata.distribution(OURS).files or () if path.name == "LICENSE")
    return found.read_text("utf-8")
