"""A bundle that is not byte for byte what was packed is refused, in one sentence, and nothing of it stays."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.store import packing
from appliance.store.bundle import Wanted, carried, create, pack
from appliance.store.catalog import Entry, ModelFile, StoreError
from appliance.store.install import alone
from appliance.store.manifest import BASELINES, Manifest, Piece
from appliance.store.unpack import Opened, check, unpacked
from tests.store.test_manifest import MANIFEST

FILES = {
    "install.sh": b"#!/bin/sh\n",
    "wheels/a-1-py3-none-any.whl": random.Random(1).randbytes(5000),
    "models/hf/o/r/tiny.gguf": b"GGUF" + random.Random(2).randbytes(40_000),
}
MODEL = FILES["models/hf/o/r/tiny.gguf"]
TINY = Entry(
    name="tiny",
    about="",
    repo="o/r",
    parts=(ModelFile(file="tiny.gguf", bytes=len(MODEL), sha256=hashlib.sha256(MODEL).hexdigest()),),
)
WANTED = 'give the file that "appliance bundle create" wrote.'
DAMAGED = "is damaged or not whole; copy it again and compare its id."


def manifest_of(files: dict[str, bytes]) -> Manifest:
    pieces = [
        Piece(path=name, bytes=len(body), sha256=hashlib.sha256(body).hexdigest()) for name, body in files.items()
    ]
    return replace(MANIFEST, files=tuple(pieces))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    sources = {name: tmp_path / "sources" / name for name in FILES}
    for name, path in sources.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
    pack(tmp_path / "b.tar", manifest_of(FILES), sources, None)
    return tmp_path / "b.tar"


def refused(file: Path, beside: Path) -> str:
    """The sentence, after nothing was left of it."""
    with pytest.raises(StoreError) as caught, unpacked(file, beside):
        pytest.fail("it was taken")
    assert list(beside.iterdir()) == []
    with pytest.raises(StoreError) as again:
        check(file)
    assert str(again.value) == str(caught.value)
    return str(caught.value)


def test_a_refused_one_does_not_leave_the_folder_that_it_was_to_go_into(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-12_000])
    with pytest.raises(StoreError, match="damaged"), unpacked(packed, tmp_path / "opt/here"):
        pytest.fail("it was taken")
    assert not (tmp_path / "opt").exists()


def test_what_was_packed_comes_out_and_goes_away_again(packed: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with unpacked(packed, tmp_path / "out", lambda *at: seen.append(at)) as (opened, folder):
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES
        assert opened.manifest == manifest_of(FILES)
        assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == opened.id
        assert (folder / "manifest.sha256").read_text() == f"{opened.id}  manifest.json\n"
    assert not (tmp_path / "out").exists()
    assert check(packed) == opened
    assert seen[-1] == (opened.manifest.bytes, opened.manifest.bytes)


def test_what_a_killed_one_unpacked_goes_with_the_next(packed: Path, tmp_path: Path) -> None:
    left = tmp_path / "opt/.unpacking-killed"
    left.mkdir(parents=True)
    with unpacked(packed, tmp_path / "opt") as (_, folder):
        assert list((tmp_path / "opt").iterdir()) == [folder]


def test_the_same_files_make_the_same_bundle(packed: Path, tmp_path: Path) -> None:
    sources = {name: tmp_path / "sources" / name for name in FILES}
    pack(tmp_path / "again.tar", manifest_of(FILES), sources, None)
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()


def test_a_bundle_that_ends_early_is_refused_wherever_it_ends(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    chance = random.Random(3)
    short = tmp_path / "short.tar"
    end = len(whole.rstrip(b"\0"))
    for length in [0, 1, 511, 512, 513, 1024, 2000, end - 1, *(chance.randrange(end) for _ in range(20))]:
        short.write_bytes(whole[:length])
        assert refused(short, fresh(tmp_path)).endswith(DAMAGED), length


def test_a_bit_that_fell_over_is_seen_wherever_it_fell(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    chance = random.Random(4)
    other = tmp_path / "other.tar"
    with tarfile.open(packed) as archive:
        starts = [(found.offset_data, found.size) for found in archive]
    holds = [start + chance.randrange(size) for start, size in starts for _ in range(6)]
    for place in holds:
        other.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        assert refused(other, fresh(tmp_path)).endswith(DAMAGED), place


def fresh(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    return folder


def repacked(packed: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Path:
    """The bundle with other members, whose manifest is honest about what it says."""
    with tarfile.open(packed) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(packed, "w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return packed


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(f"appliance-bundle-1.2.3/{name}")
    found.size = len(content)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda all_: all_.pop(), DAMAGED, id="one is missing"),
        pytest.param(lambda all_: all_.append(all_[-1]), DAMAGED, id="one comes twice"),
        pytest.param(lambda all_: all_.append(member("more", b"x")), DAMAGED, id="one more"),
        pytest.param(lambda all_: all_.append(member("../../x", b"x")), DAMAGED, id="one elsewhere"),
        pytest.param(
            lambda all_: all_.insert(2, member("install.sh", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
            DAMAGED,
            id="a link",
        ),
        pytest.param(
            lambda all_: all_.__setitem__(2, member("install.sh", type=b"2", linkname="x", size=10)),
            DAMAGED,
            id="a link instead",
        ),
        pytest.param(lambda all_: all_.insert(2, member("wheels", type=tarfile.DIRTYPE)), DAMAGED, id="a folder"),
        pytest.param(lambda all_: all_.insert(2, member("install.sh", type=tarfile.FIFOTYPE)), DAMAGED, id="a pipe"),
        pytest.param(lambda all_: all_.insert(0, all_.pop(1)), DAMAGED, id="the manifest first"),
        pytest.param(lambda all_: all_.clear(), f"is not a bundle; {WANTED}", id="nothing"),
        pytest.param(
            lambda all_: all_.__setitem__(0, member("manifest.sha256", b"0" * 80)), DAMAGED, id="another seal"
        ),
    ],
)
def test_a_tar_that_holds_anything_else_is_refused(
    packed: Path, tmp_path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None], words: str
) -> None:
    assert refused(repacked(packed, change), fresh(tmp_path)).endswith(words)


def test_a_manifest_that_leads_elsewhere_is_refused_though_its_seal_is_right(packed: Path, tmp_path: Path) -> None:
    def lead(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        content = json.loads(members[1][1])
        content["files"][0]["path"] = "../outside"
        body = json.dumps(content).encode()
        members[0] = member("manifest.sha256", f"{hashlib.sha256(body).hexdigest()}  manifest.json\n".encode())
        members[1] = member("manifest.json", body)
        members[2] = member("../outside", members[2][1])

    assert (
        refused(repacked(packed, lead), fresh(tmp_path))
        == "the manifest of this bundle is damaged; get the bundle again."
    )
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, f"does not exist; {WANTED}"),
        (b"root:x:0:0:root:/root:/bin/bash\n", f"is not a bundle; {WANTED}"),
        (b"", DAMAGED),
    ],
)
def test_what_is_no_bundle_is_said(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "x.tar"
    if content is not None:
        file.write_bytes(content)
    assert refused(file, fresh(tmp_path)).endswith(words)


def test_a_folder_is_no_bundle(tmp_path: Path) -> None:
    assert refused(tmp_path, fresh(tmp_path)) == f"{tmp_path} is a folder; {WANTED}"


def test_a_disk_that_cannot_be_read_is_one_sentence() -> None:
    with pytest.raises(StoreError, match=r"/proc/self/mem cannot be read: Input/output error; correct that, or copy"):
        check(Path("/proc/self/mem"))


# ------------------------------------------------------------------------------------------- making one


@pytest.fixture
def making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Opened]:
    """`create` with the model TINY, where compiler and package index are played."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny.gguf").write_bytes(MODEL)
    engine = tmp_path / "llama_cpp_python-1-py3-none-any.whl"
    with zipfile.ZipFile(engine, "w") as archive:
        archive.writestr("llama_cpp/lib/libllama.so", b"\0GLIBC_2.30\0")
    library = tmp_path / "libgomp.so.1.0.0"
    library.write_bytes(b"ELF")

    def fetch(pins: dict[str, str], python: str, folder: Path, **_: object) -> None:
        assert not {"fallback-appliance", "llama-cpp-python"} & set(pins)
        with zipfile.ZipFile(folder / f"pip-{python}-py3-none-any.whl", "w") as archive:
            archive.writestr("pip/__init__.py", "#" * 1000)

    monkeypatch.setattr(packing, "engine_wheel", lambda *_, **__: engine)
    monkeypatch.setattr(packing, "compiled_with", lambda wheel: (("AVX2",), {"libgomp.so.1": library}))
    monkeypatch.setattr(packing, "fetch", fetch)
    monkeypatch.setattr(packing, "write_own_wheel", lambda wheels: fetch({}, "ours", wheels))

    def make() -> Opened:
        return create(
            tmp_path / "out" / "b.tar",
            Wanted(baseline=BASELINES[0], pythons=("3.11", "3.12"), models=(TINY,)),
            models=tmp_path / "models",
            cache=tmp_path / "cache",
            created="2026-01-02T03:04:05+00:00",
            say=lambda _: None,
        )

    return make


def test_a_bundle_has_everything_and_says_what_for(making: Callable[[], Opened], tmp_path: Path) -> None:
    made = making()
    assert check(tmp_path / "out/b.tar") == made
    names = {piece.path for piece in made.manifest.files}
    assert {"install.sh", "LICENSE", "libraries/libgomp.so.1", "models/tiny.gguf"} <= names
    assert {"wheels/pip-3.11-py3-none-any.whl", "wheels/pip-3.12-py3-none-any.whl"} <= names
    assert {"wheels/pip-ours-py3-none-any.whl", "wheels/llama_cpp_python-1-py3-none-any.whl"} <= names
    found = made.manifest
    assert (found.glibc, found.pythons, found.baseline) == ("2.30", ("3.11", "3.12"), "x86-64-v3")
    assert (found.instruction_sets, found.models) == (("AVX2",), {"tiny": ("tiny.gguf",)})
    assert found.cpu == BASELINES[0].cpu
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_one_left_is_cleared_away_unless_it_is_still_at_work(
    making: Callable[[], Opened], tmp_path: Path
) -> None:
    left = tmp_path / "cache/bundle-killed"
    left.mkdir(parents=True)
    with (
        alone(tmp_path / "cache/bundle.lock", ""),
        pytest.raises(StoreError, match="another bundle is being made here"),
    ):
        making()
    assert left.exists()
    making()
    assert not left.exists()


def test_the_record_of_a_model_that_the_catalog_does_not_know_goes_along(
    making: Callable[[], Opened], tmp_path: Path
) -> None:
    (tmp_path / "models/tiny.gguf.json").write_text("{}")
    assert "models/tiny.gguf.json" in {piece.path for piece in making().manifest.files}


def test_a_model_that_is_not_what_it_should_be_does_not_travel(making: Callable[[], Opened], tmp_path: Path) -> None:
    (tmp_path / "models/tiny.gguf").write_bytes(MODEL[:-1] + b"?")
    with pytest.raises(StoreError, match=r'tiny\.gguf is not what it should be; run "appliance models verify"'):
        making()
    assert list((tmp_path / "out").iterdir()) == []


def test_only_a_model_that_is_here_is_carried(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match='the model "starter" is not installed; run "appliance models pull starter"'):
        carried("starter", tmp_path)


def test_an_older_bundle_stays_when_the_new_one_fails(making: Callable[[], Opened], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.tar").write_bytes(b"older")
    (tmp_path / "models/tiny.gguf").write_bytes(MODEL[:-1] + b"?")
    with pytest.raises(StoreError):
        making()
    assert (tmp_path / "out/b.tar").read_bytes() == b"older"
