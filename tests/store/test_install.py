"""An installation is whole, or the box is as it was: with a real Python, a real pip and a real link.

The bundle is small: our own wheel as it is, pip, and one wheel that borrows everything else from here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import __version__
from appliance.cli import bundle as cli
from appliance.store import install as installing
from appliance.store import packing
from appliance.store.bundle import pack
from appliance.store.catalog import StoreError
from appliance.store.install import install, next_command, runs, this_box
from appliance.store.manifest import Manifest, Piece, render
from tests.store.test_manifest import MANIFEST

pytestmark = pytest.mark.live
HERE = sysconfig.get_path("purelib")
WEIGHTS = b"GGUF" + bytes(100)


def wheel(folder: Path, name: str, files: dict[str, bytes], *, needs: str = "") -> Path:
    about = f"{name}-1.0.dist-info"
    files |= {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"]).encode()
    target = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return target


def our_wheel(folder: Path) -> None:
    """Our own, asking for `borrowed` in place of everything."""
    full = packing.write_own_wheel(folder)
    with zipfile.ZipFile(full) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    about = f"fallback_appliance-{__version__}.dist-info/METADATA"
    lines = [line for line in files[about].splitlines(keepends=True) if not line.startswith(b"Requires-Dist:")]
    lines.insert(1, b"Requires-Dist: borrowed\n")
    files[about] = b"".join(lines)
    record = f"fallback_appliance-{__version__}.dist-info/RECORD"
    files[record] = "".join(f"{name},,\n" for name in files).encode()
    with zipfile.ZipFile(full, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def pip_wheel(folder: Path) -> None:
    pip = metadata.distribution("pip")
    with zipfile.ZipFile(folder / f"pip-{pip.version}-py3-none-any.whl", "w") as archive:
        for path in pip.files or ():
            if path.parts[0] in ("pip", f"pip-{pip.version}.dist-info") and "__pycache__" not in path.parts:
                archive.write(path.locate(), path.as_posix())


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    our_wheel(folder)
    pip_wheel(folder)
    return folder


def bundle(folder: Path, ours: Path, *, borrow: str = HERE, models: dict[str, bytes] | None = None) -> Path:
    """A bundle for this very machine."""
    wheel(folder, "borrowed", {"borrowed.pth": f"{borrow}\n".encode()})
    (folder / "install.sh").write_bytes(Path(packing.__file__).with_name("install.sh").read_bytes())
    sources = {f"wheels/{path.name}": path for path in [*ours.glob("*.whl"), *folder.glob("*.whl")]}
    sources["install.sh"] = folder / "install.sh"
    for name, content in (models or {}).items():
        (folder / name).write_bytes(content)
        sources[f"models/{name}"] = folder / name
    box = this_box()
    manifest = replace(
        MANIFEST,
        version=__version__,
        machine=box.machine,
        cpu=(),
        glibc="2.17",
        pythons=(box.python,),
        models={"tiny": tuple(models)} if models else {},
        files=tuple(
            Piece(path=name, bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
            for name, path in sources.items()
        ),
    )
    pack(folder / "b.tar", manifest, sources, None)
    return folder / "b.tar"


@contextmanager
def unpacked(file: Path, into: Path) -> Iterator[Path]:
    subprocess.run(["tar", "xf", file, "-C", into], check=True)
    yield into / f"appliance-bundle-{__version__}"


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=120)


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and link, and what is in it or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file() and "__pycache__" not in path.parts:
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_from_one_file_to_a_program_that_runs_and_an_upgrade_that_may_fail(
    tmp_path: Path, ours: Path, isolated: Path
) -> None:
    prefix = tmp_path / "opt" / "a folder"
    program = prefix / "bin/appliance"
    (tmp_path / "first").mkdir()
    file = bundle(tmp_path / "first", ours, models={"tiny.gguf": WEIGHTS})

    # By hand, on a box that has only Python.
    with unpacked(file, tmp_path) as folder:
        done = run("sh", folder / "install.sh", "--prefix", prefix, PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert f"'{program}' models use tiny && '{program}' serve" in done.stdout
    assert (isolated / "models/tiny.gguf").read_bytes() == WEIGHTS
    assert run(program, "--version").stdout == f"appliance {__version__}\n"
    first = os.readlink(prefix / "current")

    # An engine that cannot be loaded: the program that is there stays, every byte of it.
    before = snapshot(prefix)
    (tmp_path / "broken").mkdir()
    broken = bundle(tmp_path / "broken", ours, borrow="/nowhere", models={"tiny.gguf": WEIGHTS + b"newer"})
    done = run(program, "bundle", "install", broken)
    assert done.returncode == 1
    assert "what was installed does not start, so it was taken away again: ModuleNotFoundError" in done.stderr
    assert snapshot(prefix) == before
    assert (isolated / "models/tiny.gguf").read_bytes() == WEIGHTS

    # An upgrade by the program itself, into the prefix that it came from.
    done = run(program, "bundle", "install", file)
    assert done.returncode == 0, done.stderr
    assert "A service that runs goes on with the version before, until it is restarted." in done.stdout
    second = os.readlink(prefix / "current")
    assert second != first
    assert run(program, "--version").stdout == f"appliance {__version__}\n"
    assert run(prefix / first / "bin/appliance", "--version").returncode == 0  # a service of before goes on
    assert sorted(path.name for path in prefix.iterdir()) == ["bin", "current", "versions"]


def test_install_sh_takes_nothing_that_is_not_what_was_packed(tmp_path: Path, ours: Path) -> None:
    (tmp_path / "made").mkdir()
    with unpacked(bundle(tmp_path / "made", ours), tmp_path) as folder:
        original = {path: path.read_bytes() for path in (folder / "manifest.json", *(folder / "wheels").iterdir())}

        def refused(words: str) -> None:
            done = run("sh", folder / "install.sh", "--prefix", tmp_path / "opt", PYTHON=sys.executable)
            assert done.returncode == 1
            assert words in done.stderr
            assert done.stderr.count("\n") == 1
            assert not (tmp_path / "opt").exists()

        for path, content in original.items():
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            refused(f"install: {path.relative_to(folder)} is not what was packed; unpack the bundle again")
            path.write_bytes(content)
        path.unlink()
        refused(f"install: {path.relative_to(folder)} cannot be read (No such file or directory)")
        path.write_bytes(original[path])
        (folder / "wheels/other-1-py3-none-any.whl").touch()
        refused("install: wheels/other-1-py3-none-any.whl does not belong to this bundle")


def test_the_installer_needs_nothing_but_python() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(packing.__file__).parents[2])!r}); import appliance.store.install"
    done = run(sys.executable, "-I", "-S", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_option_that_is_not_known_is_said_before_anything_is_read() -> None:
    for wrong in (["--bogus"], ["--prefix"], ["--prefix", ""], ["--prefix", "/x", "more"]):
        done = run("sh", Path(packing.__file__).with_name("install.sh"), *wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f'install: "{" ".join(wrong)}" is not understood; type: sh ')


def test_a_box_with_the_wrong_python_is_told_which_it_needs(tmp_path: Path, ours: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "bin").mkdir()
    file = bundle(tmp_path / "made", ours)
    (tmp_path / "bin/python3").write_text("#!/bin/sh\nexit 1\n")  # too old
    (tmp_path / "bin/python3").chmod(0o755)
    for tool in ("sh", "dirname"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    with unpacked(file, tmp_path) as folder:
        done = run("/bin/sh", folder / "install.sh", PATH=str(tmp_path / "bin"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "install: no Python 3.11 or newer was found on the PATH; install one or name it: PYTHON="
    )


def test_a_python_that_is_named_and_not_there_is_no_reason_to_take_another(tmp_path: Path, ours: Path) -> None:
    with unpacked(bundle(tmp_path, ours), tmp_path) as folder:
        done = run("/bin/sh", folder / "install.sh", PATH=os.environ["PATH"], PYTHON="/nowhere/python3")
    assert (done.returncode, done.stderr.splitlines()) == (
        1, ["install: there is no /nowhere/python3; name the Python to use, or leave PYTHON out"]
    )  # fmt: skip


def refused(tmp_path: Path, words: str) -> None:
    (tmp_path / "manifest.json").write_bytes(render(MANIFEST))
    with pytest.raises(StoreError, match=words):
        install(tmp_path, tmp_path / "opt", say=lambda _: None)


def test_a_program_that_is_not_ours_is_named_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "opt/bin/appliance"

    def somebody_writes_it(*_: object) -> None:
        program.write_text("#!/bin/sh\n")
        raise StoreError("pip could not")

    monkeypatch.setattr(installing, "_fill", somebody_writes_it)
    monkeypatch.setattr(installing, "objection", lambda *_: None)
    refused(tmp_path, "pip could not")
    assert program.read_text() == "#!/bin/sh\n"
    refused(tmp_path, f"{program} is not of an installation, so nothing was installed; move it away, or name another")
    assert program.read_text() == "#!/bin/sh\n"


def test_what_a_killed_installation_left_there_is_ours_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "opt/bin").mkdir(parents=True)
    (tmp_path / "opt/bin/appliance").symlink_to("../current/bin/appliance")

    def fail(*_: object) -> None:
        raise StoreError("pip could not")

    monkeypatch.setattr(installing, "_fill", fail)
    monkeypatch.setattr(installing, "objection", lambda *_: None)
    refused(tmp_path, "pip could not")
    assert list((tmp_path / "opt/bin").iterdir()) == []


def test_a_version_that_runs_is_not_deleted_under_it(tmp_path: Path) -> None:
    processes, folder = tmp_path / "proc", tmp_path / "versions" / "1"
    (processes / "17").mkdir(parents=True)
    told = processes / "17" / "cmdline"
    told.write_bytes(f"{folder}/bin/python3\0-m\0appliance".encode())
    assert (runs(folder, processes), runs(tmp_path / "versions" / "2", processes)) == (True, False)
    told.write_bytes(f"/usr/bin/tail\0{folder}0/log".encode())
    assert not runs(folder, processes)


def test_what_to_type_next_is_named() -> None:
    manifest: Manifest = replace(MANIFEST, models={"starter": ("s.gguf",)})
    assert next_command(manifest, Path("/opt/appliance")) == "/opt/appliance/bin/appliance serve"
    manifest = replace(MANIFEST, models={"hf:o/r/a b.gguf": ("s.gguf",)})
    program = "'/opt/my box/bin/appliance'"
    assert next_command(manifest, Path("/opt/my box")) == f"{program} models use 'hf:o/r/a b.gguf' && {program} serve"


def test_a_list_of_pythons_is_read() -> None:
    assert cli.pythons("3.11, 3.13,3.11") == ("3.11", "3.13")
