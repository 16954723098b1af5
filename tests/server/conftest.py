"""One real server for all tests of this folder; each test plays its own clouds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes import ScriptedLocal, Stage, stage


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.fixture
def box(_stage: Stage) -> Stage:
    """The running service, its scripted model as new."""
    vars(_stage.local).update(vars(ScriptedLocal()))
    return _stage
