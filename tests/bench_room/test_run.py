"""What a run does when something goes wrong. `tests/cli/test_bench.py` sees what it measures, with a real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.bench.asking import Failed
from appliance.bench.plan import USUAL
from appliance.bench.result import Result
from appliance.bench.run import _Run, measure
from appliance.config import load_config
from appliance.core.fault import BackendError, Fault
from appliance.store.store import Resolved
from tests.bench_room.made_up import RESULT


async def well(run: _Run) -> None:
    run.result = RESULT


async def fails(run: _Run) -> None:
    raise Failed("it was hot")


async def dies(run: _Run) -> None:
    raise BackendError(Fault.CRASHED, "It is gone.")


async def interrupted(run: _Run) -> None:
    raise asyncio.CancelledError


def measured(isolated: Path, monkeypatch: pytest.MonkeyPatch, **parts: object) -> Result:
    for name, part in parts.items():
        monkeypatch.setattr(_Run, f"_{name}", part)
    config = load_config(None, {"APPLIANCE_HOME": str(isolated)})
    model = Resolved(path=Path("m.gguf"), template=None, name="m")
    return asyncio.run(measure(config, "m", model, USUAL, say=lambda what, left: None))


def test_a_part_that_fails_leaves_a_sentence_and_the_others_go_on(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(isolated, monkeypatch, alone=well, crowd=fails, served=dies)
    assert found.rows == RESULT.rows
    assert found.notes == (
        "Several answers at once could not be measured to the end: it was hot.",
        "The way through the box could not be measured to the end: It is gone.",
    )
    assert not found.interrupted


def test_without_a_model_there_is_no_result(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="it was hot"):
        measured(isolated, monkeypatch, alone=fails, crowd=well, served=well)


def test_whoever_ends_it_early_gets_what_there_is(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(isolated, monkeypatch, alone=well, crowd=interrupted, served=well)
    assert (found.rows, found.interrupted) == (RESULT.rows, True)
    with pytest.raises(asyncio.CancelledError):
        measured(isolated, monkeypatch, alone=interrupted, crowd=well, served=well)
