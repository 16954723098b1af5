"""The models that the catalog does not know: their records and their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.store.catalog import Entry, ModelFile, StoreError, find
from appliance.store.own import keep, known, own, record_of, siblings, split

ENTRY = Entry(
    name="mine",
    about="imported from a stick",
    repo="",
    parts=(ModelFile(file="mine.gguf", bytes=7, sha256="a" * 64), ModelFile(file="two.gguf", sha256="b" * 64)),
    folder="own",
    come_from="a stick",
)


def test_a_record_gives_the_same_model_back(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    keep(ENTRY, tmp_path)
    assert own(tmp_path) == (ENTRY,)
    assert known("MINE", tmp_path) == ENTRY
    assert known("starter", tmp_path) == find("starter")
    with pytest.raises(StoreError, match='did you mean "mine"'):
        known("min", tmp_path)


def test_a_record_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    keep(ENTRY, tmp_path)
    for broken in ("", "{}", "[]", '{"name": "x"}', '{"name": "x", "about": "", "repo": "", "parts": 3}'):
        record_of(ENTRY, tmp_path).write_text(broken)
        assert own(tmp_path) == ()
    assert own(tmp_path / "nowhere") == ()


def test_a_file_of_a_hub_is_named_by_its_place() -> None:
    assert split("hf:unsloth/Qwen3.5-4B-GGUF/Qwen3.5-4B-Q4_K_M.gguf") == (
        "unsloth/Qwen3.5-4B-GGUF",
        "Qwen3.5-4B-Q4_K_M.gguf",
    )
    assert split("hf:o/r/Q8_0/m-00001-of-00002.gguf") == ("o/r", "Q8_0/m-00001-of-00002.gguf")


@pytest.mark.parametrize(
    "name",
    ["hf:o/r", "hf:o/r/m.bin", "hf:o/r/../m.gguf", "hf:/r/m.gguf", "hf:o//m.gguf", "hf:o/r/.gguf", "hf:o/r/a b.gguf"],
)
def test_what_is_no_place_on_a_hub_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match=r"write it like hf:OWNER/REPO/FILE\.gguf"):
        split(name)


@pytest.mark.parametrize(
    ("file", "all_of_them"),
    [
        ("m.gguf", ("m.gguf",)),
        ("m-00002-of-00003.gguf", tuple(f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))),
        ("q/m-00001-of-00001.gguf", ("q/m-00001-of-00001.gguf",)),
        ("m-00004-of-00003.gguf", ("m-00004-of-00003.gguf",)),
    ],
)
def test_the_files_of_a_model_are_those_that_its_name_counts(file: str, all_of_them: tuple[str, ...]) -> None:
    assert siblings(file) == all_of_them
