"""Memory of processes, and files in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.bench.surroundings import forget, held, memory, parts, peak_memory


def test_memory_is_that_of_the_process() -> None:
    peak, now = peak_memory(os.getpid()), memory(os.getpid())
    assert peak is not None
    assert now is not None
    assert peak > 5_000_000
    assert peak >= 0.9 * now


def test_of_nobody_no_memory_is_known() -> None:
    assert peak_memory(None) is None
    assert memory(2**22 + 1) is None


def kind_of_file_system(path: Path) -> str:
    places = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    return max((place, kind) for place, kind in places if str(path).startswith(place))[1]


def test_a_file_that_was_read_is_held_until_it_is_forgotten() -> None:
    path = Path.home() / f".appliance-test-{os.getpid()}"  # not in /tmp, which may lie in memory
    try:
        path.write_bytes(os.urandom(1 << 20))
        if held(path) is None:
            pytest.skip("this system does not tell what it holds in memory")
        assert (held(path) or 0) >= 0.9
        if (kind := kind_of_file_system(path)) not in ("ext2", "ext3", "ext4", "xfs", "btrfs"):
            pytest.skip(f"nobody knows whether {kind} keeps its files in memory")
        assert forget(path)
        assert (held(path) or 0) <= 0.1
    finally:
        path.unlink(missing_ok=True)


def test_a_split_model_is_all_its_files(tmp_path: Path) -> None:
    names = [f"m-{at:05}-of-00003.gguf" for at in (1, 2, 3)]
    for name in (*names, "m-00001-of-00002.gguf", "other.gguf"):
        (tmp_path / name).touch()
    assert [path.name for path in parts(tmp_path / names[0])] == names
    assert parts(tmp_path / "other.gguf") == [tmp_path / "other.gguf"]
