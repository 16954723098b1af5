"""What the tests of the store have in common: folders, and a hub that breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import PathsConfig
from tests.store.hub import FakeHub, standing


@pytest.fixture
def paths(tmp_path: Path) -> PathsConfig:
    return PathsConfig(state=tmp_path / "s", cache=tmp_path / "c", models=tmp_path / "m")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with standing(monkeypatch) as hub:
        yield hub
