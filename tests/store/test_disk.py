"""What a killed one left is deleted by the next, and what somebody works in is not."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from appliance.store.disk import installing, scratch


def test_a_scratch_folder_is_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch(tmp_path / "cache", "probes-") as folder:
        (folder / "file").touch()
        raise ZeroDivisionError
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_one_left_goes_and_what_is_in_use_or_somebody_elses_stays(tmp_path: Path) -> None:
    (tmp_path / "probes-killed").mkdir()
    (tmp_path / "probes-killed/1.gguf").touch()
    (tmp_path / "probes-file").touch()
    (tmp_path / "shapes").mkdir()
    with scratch(tmp_path, "probes-") as first, scratch(tmp_path, "probes-") as second:
        assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "probes-file", "shapes"}


def test_a_lock_goes_with_its_holder_and_one_that_was_taken_away_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, flock, taken = tmp_path / ".hf:o_r_m.gguf.lock", fcntl.flock, []
    with pytest.raises(ZeroDivisionError), installing("hf:o/r/m.gguf", tmp_path, print):
        assert lock.exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    def late(file: int, how: int) -> None:
        if not taken:
            lock.unlink()  # by the holder before, when we had opened it
        taken.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with installing("hf:o/r/m.gguf", tmp_path, print), lock.open() as same:
        assert len(taken) == 2
        with pytest.raises(BlockingIOError):
            flock(same, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(tmp_path.iterdir()) == []
