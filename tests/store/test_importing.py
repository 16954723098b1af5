"""A model from a stick or from another tool: whole, hashed, and under the right name, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import PathsConfig, load_config
from appliance.store import importing
from appliance.store.catalog import Entry, ModelFile, StoreError
from appliance.store.disk import LOCK, Step
from appliance.store.importing import Imported, bring
from appliance.store.own import own
from appliance.store.store import resolve

MODEL = b"GGUF" + os.urandom(3 << 20)
SHA = hashlib.sha256(MODEL).hexdigest()
KNOWN = Entry(
    name="known", about="", repo="o/r", parts=(ModelFile(file="Known-Q4.gguf", bytes=len(MODEL), sha256=SHA),)
)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "My Model.gguf").write_bytes(MODEL)
    return tmp_path / "stick" / "My Model.gguf"


def take(path: Path, paths: PathsConfig, **how: object) -> Imported:
    return bring(path, paths, say=lambda _: None, **how)  # type: ignore[arg-type]


def failing(path: Path, paths: PathsConfig, **how: object) -> str:
    with pytest.raises(StoreError) as caught:
        take(path, paths, **how)
    return str(caught.value)


def left(paths: PathsConfig) -> list[str]:
    files = (path.relative_to(paths.models) for path in paths.models.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.suffix != LOCK)


def test_a_file_gets_a_name_of_its_own_and_can_be_used(stick: Path, paths: PathsConfig, tmp_path: Path) -> None:
    seen: list[Step] = []
    done = take(stick, paths, report=seen.append)
    assert done.news
    assert (done.entry.name, done.entry.come_from) == ("my-model", str(stick.parent))
    assert left(paths) == ["own/my-model.gguf", "own/my-model.gguf.json"]
    assert own(paths.models) == (done.entry,)
    assert seen[-1].completed == seen[-1].total == len(MODEL)
    config = replace(load_config(None, {"APPLIANCE_HOME": str(tmp_path)}), paths=paths)
    assert resolve("My-Model", config).path == paths.models / "own/my-model.gguf"
    assert not take(stick, paths).news
    stick.write_bytes(b"GGUF, and changed")
    assert (paths.models / "own/my-model.gguf").read_bytes() == MODEL


def test_what_a_killed_import_left_goes_with_the_next(stick: Path, paths: PathsConfig) -> None:
    (paths.models / ".importing-killed").mkdir(parents=True)
    (paths.models / ".importing-killed/1").touch()
    take(stick, paths, name="mine")
    assert left(paths) == ["own/mine.gguf", "own/mine.gguf.json"]


def test_a_file_that_the_catalog_knows_becomes_that_model(
    stick: Path, paths: PathsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "read_catalog", lambda: (KNOWN,))
    assert take(stick, paths) == Imported(entry=KNOWN, news=True)
    assert left(paths) == ["Known-Q4.gguf"]
    (paths.models / "Known-Q4.gguf").write_bytes(b"broken")
    assert take(stick, paths).news
    assert (paths.models / "Known-Q4.gguf").read_bytes() == MODEL


def test_a_file_of_another_tool_is_linked_and_its_hash_held(stick: Path, paths: PathsConfig) -> None:
    done = take(stick, paths, name="theirs", link=True, sha256=SHA)
    assert (paths.models / done.entry.file).samefile(stick)
    assert not take(stick, paths, name="theirs", link=True, sha256=SHA).news
    assert left(paths) == ["own/theirs.gguf", "own/theirs.gguf.json"]
    assert "is damaged: its hash is not the one it should have" in failing(stick, paths, link=True, sha256="0" * 64)
    assert stick.read_bytes() == MODEL


def test_a_link_to_a_file_is_taken_under_its_own_name(stick: Path, paths: PathsConfig) -> None:
    link = stick.with_name("Nice-Name.gguf")
    link.symlink_to(stick)
    for how in ({"link": True}, {"name": "other"}):
        done = take(link, paths, **how)
        file = paths.models / done.entry.file
        assert (done.entry.name, file.is_symlink()) == (how.get("name", "nice-name"), False)
        assert file.samefile(stick) is ("link" in how)


def test_a_file_that_cannot_be_linked_is_copied(
    stick: Path, paths: PathsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    done = take(stick, paths, link=True, sha256=SHA)
    assert not (paths.models / done.entry.file).samefile(stick)
    assert stick.read_bytes() == (paths.models / done.entry.file).read_bytes() == MODEL


def test_all_files_of_a_model_are_taken(tmp_path: Path, paths: PathsConfig) -> None:
    files = [tmp_path / f"Big-0000{n}-of-00002.gguf" for n in (1, 2)]
    for n, file in enumerate(files):
        file.write_bytes(MODEL + bytes([n]))
    done = take(files[1], paths, name="large")
    assert done.entry.name == "large"
    assert left(paths) == [
        "own/large-00001-of-00002.gguf",
        "own/large-00001-of-00002.gguf.json",
        "own/large-00002-of-00002.gguf",
    ]
    assert (paths.models / "own/large-00002-of-00002.gguf").read_bytes()[-1] == 1
    files[0].unlink()
    assert failing(files[1], paths) == f"{files[0]} does not exist; correct the path."


@pytest.mark.parametrize("name", ["starter", "my-model"])
def test_a_name_is_of_one_model(stick: Path, paths: PathsConfig, name: str) -> None:
    take(stick, paths)
    stick.write_bytes(MODEL + b"!")
    before = left(paths)
    assert failing(stick, paths, name=name) == (
        f'there is another model "{name}"; give this one a name of its own with --name.'
    )
    assert left(paths) == before


@pytest.mark.parametrize("name", ["a/b", "x.gguf", "..", "hf:x"])
def test_a_name_that_would_mean_something_else_is_refused(stick: Path, paths: PathsConfig, name: str) -> None:
    assert "cannot be the name of a model" in failing(stick, paths, name=name)
    assert not paths.models.exists()


def test_what_is_no_model_is_refused_before_anything_is_copied(stick: Path, paths: PathsConfig) -> None:
    def refuse(path: Path) -> None:
        raise StoreError("it is truncated.")

    assert failing(stick, paths, accept=refuse) == "it is truncated."
    stick.write_bytes(b"<html>")
    assert "is not a GGUF file (it does not begin with GGUF); give another file." in failing(stick, paths)
    assert not paths.models.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_what_breaks_in_the_middle_leaves_nothing(stick: Path, paths: PathsConfig, error: BaseException) -> None:
    def fail(step: Step) -> None:
        raise error

    with pytest.raises((StoreError, KeyboardInterrupt)) as caught:
        take(stick, paths, report=fail)
    assert isinstance(caught.value, KeyboardInterrupt) or str(caught.value) == (
        'the disk is full, so "my-model" was not installed; free some space and try again.'
    )
    assert left(paths) == []
