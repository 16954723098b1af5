"""Put an unpacked, verified bundle onto this box, whole, or leave the box as it was.

``PREFIX/versions/VERSION-xxxx`` is a virtual environment, ``PREFIX/current`` points to one of them, and
``PREFIX/bin/appliance`` goes through it: so an upgrade is one rename of one link, after the new environment has proved
itself, and a service that is running keeps its files. The one before stays until the next upgrade. State, keys and
configuration lie elsewhere and are not touched.

Runs from inside our own wheel on a box that has only Python (`manifest.py` says so too): nothing but Python's own here.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from appliance.store.catalog import StoreError
from appliance.store.disk import CHUNK, Say, check_room, installing, put, scratch, sha256_of
from appliance.store.manifest import LIBRARIES, MANIFEST, MODELS, WHEELS, Host, Manifest, cpu_flags, objection, parse
from appliance.store.pip import complaint

_SLACK = 1.4
"""Bytecode beside each source, and blocks that are not full."""
_VERSION = re.compile(r"\d[^-]*-[a-z0-9_]{8}")  # a version of ours and what `mkdtemp` adds

_THROUGH = Path("../current/bin/appliance")
"""Where our `PREFIX/bin/appliance` leads."""


def own_prefix() -> Path | None:
    """The prefix that this Python was installed into by a bundle, if it was: PREFIX/bin/appliance outlives upgrades."""
    versions = Path(os.path.realpath(sys.prefix)).parent
    return versions.parent if versions.name == "versions" and (versions.parent / "current").is_symlink() else None


def default_prefix() -> Path:
    """Where this appliance is; else where one would be."""
    if prefix := own_prefix():
        return prefix
    return Path("/opt/appliance") if os.geteuid() == 0 else Path.home() / ".local/opt/appliance"


def this_box() -> Host:
    try:
        cpu = cpu_flags(Path("/proc/cpuinfo").read_text())
    except OSError:
        cpu = frozenset()
    name, version = platform.libc_ver()
    major, minor = sys.version_info[:2]
    return Host(
        machine=platform.machine(), cpu=cpu, glibc=version if name == "glibc" else None, python=f"{major}.{minor}"
    )


def install(folder: Path, prefix: Path, *, say: Say) -> Manifest:
    """Install what lies unpacked and verified in `folder`. Raises `StoreError`; then the program is the one before."""
    manifest = parse((folder / MANIFEST).read_bytes())
    if why := objection(manifest, this_box()):
        raise StoreError(why)
    versions = prefix / "versions"
    try:
        with (
            made(prefix),
            alone(prefix / ".lock", "another installation into this folder is running"),
            made(versions, prefix / "bin"),
        ):
            before, program = current(prefix), prefix / "bin/appliance"
            if os.path.lexists(program) and not _ours(program):
                raise StoreError(
                    f"{program} is not of an installation, so nothing was installed; move it away, or name another "
                    "folder with --prefix."
                )
            # A killed one never became current, and nothing runs from what has no program yet.
            _sweep(prefix, (before, *(each.parents[1] for each in versions.glob("*/bin/appliance"))))
            check_room("appliance", int(manifest.unpacked * _SLACK), versions)
            new = Path(tempfile.mkdtemp(prefix=f"{manifest.version}-", dir=versions))
            new.chmod(0o755)
            try:
                _fill(new, folder, manifest, say)
                _prove(new)
                _place_models(new, folder, manifest, say)
                _switch(prefix, new)
            except BaseException:
                if current(prefix) != new:  # else Ctrl-C came too late
                    shutil.rmtree(new, ignore_errors=True)
                    if before is None and _ours(program):
                        program.unlink()
                raise
            _sweep(prefix, (before, new))
    except OSError as error:
        raise StoreError(why_not_written(error, "nothing was installed")) from None
    return manifest


def why_not_written(error: OSError, outcome: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full, so {outcome}; free some space and try again."
    where = f" {error.filename}" if error.filename else ""
    return f"{outcome}: {error.strerror or 'the disk failed'}{where}; correct that, or name another place."


def _fill(new: Path, folder: Path, manifest: Manifest, say: Say) -> None:
    """A virtual environment with the wheels. pip runs from its own wheel: the box needs neither pip nor ensurepip."""
    wheels = folder / WHEELS
    say(f"Installing appliance {manifest.version} with Python {platform.python_version()} ...")
    venv.EnvBuilder(symlinks=True).create(new)
    pip = next(wheels.glob("pip-*.whl"), None)
    if pip is None:
        raise StoreError("there is no pip in this bundle, so nothing was installed; make the bundle again.")
    command = [str(new / "bin/python"), f"{pip}/pip", "install", "--isolated", "--no-index", f"--find-links={wheels}"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet", "--root-user-action=ignore"]
    run = _run([*command, f"fallback-appliance=={manifest.version}"])
    if run.returncode != 0:
        if "No space left" in run.stderr:
            raise OSError(errno.ENOSPC, "")
        why = complaint(run.stderr) or "no reason given"
        raise StoreError(f"pip could not install the wheels, so nothing was installed: {why}.")
    for piece in manifest.within(LIBRARIES):
        name = piece.path.partition("/")[2]
        if not _loadable(name):  # llama.cpp looks beside itself first
            for place in new.glob("lib/python*/site-packages/llama_cpp/lib"):
                say(f"This system has no {name}; taking the one of the bundle.")
                shutil.copyfile(folder / piece.path, place / name)


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A child that sees nothing of the Python that runs this."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=clean, check=False)


def _prove(new: Path) -> None:
    """The program starts and the engine can be loaded by this processor."""
    run = _run([str(new / "bin/python"), "-I", "-c", "import llama_cpp; llama_cpp.llama_backend_init()"])
    if run.returncode == -signal.SIGILL:
        raise StoreError(
            "the engine of this bundle is built for another processor; make one with --baseline native here."
        )
    if run.returncode == 0:
        run = _run([str(new / "bin/appliance"), "--version"])
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise StoreError(f"what was installed does not start, so it was taken away again: {last.rstrip('.')}.")


def _place_models(new: Path, folder: Path, manifest: Manifest, say: Say) -> None:
    """Each model into the store of whoever installs: linked where that is possible, copied otherwise.

    The catalog's lie in the store itself. What is in its folders may be the user's own under the same name, and stays.
    """
    pieces = manifest.within(MODELS)
    if not pieces:
        return
    run = _run([str(new / "bin/appliance"), "models", "path", "starter"])
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StoreError(f"where the models should lie could not be found out: {last.rstrip('.')}.")
    store = Path(run.stdout.strip()).parent
    with ExitStack() as stack:
        for name in sorted(manifest.models):
            stack.enter_context(installing(name, store, say))
        beside = stack.enter_context(scratch(store, ".importing-"))
        for number, piece in enumerate(pieces):
            target = store / piece.path.partition("/")[2]
            if target.is_file():
                if target.stat().st_size == piece.bytes and sha256_of(target) == piece.sha256:
                    continue
                if target.parent != store:
                    say(f"{target} is another file than the bundle's, and stays; delete it to take the bundle's.")
                    continue
            say(f"Putting {target.name} into {target.parent} ...")
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(folder / piece.path, beside / str(number), piece.bytes)
            put(beside / str(number), target)


def _link_or_copy(source: Path, target: Path, size: int) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        check_room(source.name, size, target.parent)
        with source.open("rb") as old, target.open("wb") as new:
            shutil.copyfileobj(old, new, CHUNK)


def _switch(prefix: Path, new: Path) -> None:
    """From here on `PREFIX/bin/appliance` is the new one. Either the rename happened or it did not."""
    _point(prefix / "bin/appliance", _THROUGH)
    os.sync()
    _point(prefix / "current", new.relative_to(prefix))


def _point(link: Path, to: Path) -> None:
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(to)
    fresh.replace(link)


def _ours(program: Path) -> bool:
    return program.is_symlink() and program.readlink() == _THROUGH


def came_of_it(prefix: Path, before: Path | None) -> str:
    """What to say of an installation that was ended, when `before` was the current one."""
    return "nothing was installed" if current(prefix) == before else f"it is installed in {prefix} all the same"


def current(prefix: Path) -> Path | None:
    """The environment that the program of this prefix runs in, if there is one."""
    link = prefix / "current"
    return prefix / link.readlink() if link.is_symlink() else None


def _sweep(prefix: Path, keep: Collection[Path | None]) -> None:
    """Delete our other versions, and nobody else's. What runs, or cannot be deleted now, waits for the next time."""
    with suppress(OSError):
        for folder in (prefix / "versions").iterdir():
            if _VERSION.fullmatch(folder.name) and folder not in keep and not runs(folder):
                shutil.rmtree(folder, ignore_errors=True)


def runs(folder: Path, processes: Path = Path("/proc")) -> bool:
    """Is there a program that was started from in here? It loads more of its files later."""
    began = os.fsencode(f"{folder}{os.sep}")
    for process in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if any(word.startswith(began) for word in process.read_bytes().split(b"\0")):
                return True
    return False


@contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """Nobody else does this meanwhile. The kernel lets the lock go when its holder dies. Raises `StoreError`."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:  # its holder ended, and took it away, between our two steps
                raise BlockingIOError
        except BlockingIOError:
            raise StoreError(f"{otherwise}; wait for it to end.") from None
        try:
            yield
        finally:
            path.unlink()


@contextmanager
def made(*folders: Path) -> Iterator[None]:
    """These folders are there. What of them and of their parents is new goes again if it is empty at the end."""
    new = [each for folder in folders for each in (folder, *folder.parents) if not each.exists()]
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Whoever is told to end, or loses the terminal, puts away what was begun. What `nohup` ignores stays ignored."""
    told = [ending for ending in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(ending) is signal.SIG_DFL]
    for ending in told:
        signal.signal(ending, signal.default_int_handler)
    try:
        yield
    finally:
        for ending in told:
            signal.signal(ending, signal.SIG_DFL)


def next_command(manifest: Manifest, prefix: Path) -> str:
    """What to type now."""
    program = shlex.quote(str(prefix / "bin/appliance"))
    chosen = next(iter(manifest.models), None)
    if chosen is None or chosen == "starter":
        return f"{program} serve"
    return f"{program} models use {shlex.quote(chosen)} && {program} serve"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="install.sh", allow_abbrev=False)
    parser.add_argument("folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prefix", type=Path, default=None, help="the folder to install into")
    args = parser.parse_args(argv)
    prefix = Path(os.path.abspath(args.prefix or default_prefix()))
    before = current(prefix)
    try:
        with ended_as_by_ctrl_c():
            manifest = install(args.folder, prefix, say=lambda line: print(line, flush=True))
    except StoreError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"install: interrupted; {came_of_it(prefix, before)}.", file=sys.stderr)
        return 130
    print(f"Installed in {prefix}.")
    if before is not None:
        print("A service that runs goes on with the version before, until it is restarted.")
    print(f"Next:\n\n    {next_command(manifest, prefix)}\n")
    return 0
