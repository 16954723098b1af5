"""Whenever an installation is ended, `current` leads to a whole version: Ctrl-C at every place of the switch."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from appliance.store import install
from appliance.store.catalog import StoreError
from appliance.store.manifest import Manifest, Piece, parse, render
from tests.store.test_manifest import MANIFEST


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked bundle for this box, whose wheels are one program."""

    def fill(new: Path, *_: object) -> None:
        (new / "bin").mkdir()
        program = new / "bin/appliance"
        program.write_text(f"#!/bin/sh\necho {tmp_path}/models/$3.gguf\n")
        program.chmod(0o755)

    box = install.this_box()
    manifest: Manifest = replace(
        MANIFEST, machine=box.machine, cpu=(), glibc="2.17", pythons=(box.python,), models={}, files=MANIFEST.files[:1]
    )
    monkeypatch.setattr(install, "_fill", fill)
    monkeypatch.setattr(install, "_prove", lambda new: None)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_bytes(render(manifest))
    return tmp_path / "bundle"


def installed(folder: Path, prefix: Path) -> Path:
    """Install; where `current` leads then."""
    install.install(folder, prefix, say=lambda _: None)
    return (prefix / "current").resolve()


def test_an_upgrade_keeps_the_one_before_and_sweeps_the_others(folder: Path, tmp_path: Path) -> None:
    others = tmp_path / "opt/versions/3.11.7"  # of a tool that keeps its versions there, too
    others.mkdir(parents=True)
    first, second, third = (installed(folder, tmp_path / "opt") for _ in range(3))
    assert sorted((tmp_path / "opt/versions").iterdir()) == sorted([others, second, third])
    assert first not in (second, third)


def test_ctrl_c_while_older_ones_are_deleted_leaves_the_new_one_in_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "opt"
    before = [installed(folder, prefix) for _ in range(2)]
    asked, delete = [], shutil.rmtree

    def interrupted(path: Path, **how: object) -> None:
        asked.append(path)
        if len(asked) == 1:
            raise KeyboardInterrupt
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    assert install.main([str(folder), "--prefix", str(prefix)]) == 130
    assert asked == before[:1]
    assert (prefix / "bin/appliance").is_file()
    assert (prefix / "current").resolve() not in before
    assert capsys.readouterr().err == f"install: interrupted; it is installed in {prefix} all the same.\n"


@pytest.mark.parametrize("fails", ["_fill", "_prove", "_switch", "_point"])
@pytest.mark.parametrize("there", ["", "opt", "opt/bundles/here"])
def test_a_refused_first_installation_leaves_the_folders_that_were_there_and_no_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, fails: str
) -> None:
    point = install._point

    def refuse(first: Path, *more: Path) -> None:
        if fails == "_point" and first.name != "current":
            return point(first, *more)
        assert (prefix / ".lock").exists()
        raise StoreError("no")

    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before, prefix = sorted(tmp_path.rglob("*")), tmp_path / "opt/bundles/here"
    monkeypatch.setattr(install, fails, refuse)
    with pytest.raises(StoreError, match="no"):
        installed(folder, prefix)
    assert sorted(tmp_path.rglob("*")) == before


def test_two_at_a_time_are_one_and_the_lock_goes_with_its_holder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = "another installation into this folder is running; wait for it to end."
    prefix, lock, flock = tmp_path / "opt", tmp_path / "opt/.lock", fcntl.flock
    prefix.mkdir()
    with install.alone(lock, ""), pytest.raises(StoreError, match=running):
        installed(folder, prefix)
    assert list(prefix.iterdir()) == []

    def late(file: IO[str], how: int) -> None:
        lock.unlink()  # by the holder before, when we had opened it
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(StoreError, match=running):
        installed(folder, prefix)
    monkeypatch.undo()


@pytest.mark.live
def test_the_catalogs_files_are_put_right_and_a_users_own_stay(folder: Path, tmp_path: Path) -> None:
    content = {"catalogs.gguf": b"new", "own/mine.gguf": b"theirs", "own/other.gguf": b"other"}
    pieces = []
    for name, file in content.items():
        (folder / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "models" / name).write_bytes(file)
        pieces.append(Piece(path=f"models/{name}", bytes=len(file), sha256=hashlib.sha256(file).hexdigest()))
    manifest = parse((folder / "manifest.json").read_bytes())
    manifest = replace(manifest, files=(*manifest.files, *pieces), models={"a": tuple(content)})
    (folder / "manifest.json").write_bytes(render(manifest))
    store = tmp_path / "models"
    (store / "own").mkdir(parents=True)
    (store / "own/mine.gguf").write_bytes(b"mine")
    (store / "catalogs.gguf").write_bytes(b"old")
    (store / "catalogs.gguf.part").write_bytes(b"half")  # of a pull, which goes on with it
    said: list[str] = []
    install.install(folder, tmp_path / "opt", say=said.append)
    there = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*.gguf*")}
    assert there == {**content, "own/mine.gguf": b"mine", "catalogs.gguf.part": b"half"}
    stays = f"{store}/own/mine.gguf is another file than the bundle's, and stays; delete it to take the bundle's."
    assert said == [f"Putting catalogs.gguf into {store} ...", stays, f"Putting other.gguf into {store}/own ..."]


@pytest.mark.parametrize(("renamed", "said"), [(False, "nothing was installed"), (True, "it is installed in")])
def test_ctrl_c_on_either_side_of_the_rename(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    renamed: bool,
    said: str,
) -> None:
    prefix = tmp_path / "opt"
    before = installed(folder, prefix)
    point = install._point

    def interrupted(link: Path, to: Path) -> None:
        if link.name != "current" or renamed:
            point(link, to)
        if link.name == "current":
            raise KeyboardInterrupt

    monkeypatch.setattr(install, "_point", interrupted)
    assert install.main([str(folder), "--prefix", str(prefix)]) == 130
    assert (prefix / "bin/appliance").is_file()
    assert ((prefix / "current").resolve() == before) is not renamed
    assert len(list((prefix / "versions").iterdir())) == 1 + renamed
    assert capsys.readouterr().err.startswith(f"install: interrupted; {said}")
