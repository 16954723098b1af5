"""What a killed one left is deleted by the next, and what somebody works in is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.store.disk import scratch


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
