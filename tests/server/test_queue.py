"""More requests than the box can answer at once: who waits, who is sent away, and what ends at its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.config import LocalConfig
from appliance.drills.application import Heard
from tests.fakes import PATIENT, QUICK, Stage, real_stage

pytestmark = pytest.mark.live

LONG: dict[str, Any] = {"max_tokens": 100, "temperature": 0, "logit_bias": {"2": -100}}  # <|im_end|> never comes


@pytest.fixture(scope="module", params=[0, 1])
def one_slot(
    request: pytest.FixtureRequest, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The real engine with one slot, and a queue for none or one."""
    local = LocalConfig(context=1024, slots=1, queue=request.param)
    with real_stage(tmp_path_factory.mktemp("stage"), starter_gguf, local=local) as running:
        yield running


@pytest.mark.parametrize("stream", [True, False])
def test_who_finds_the_queue_full_is_sent_away_at_once_and_may_come_back(one_slot: Stage, stream: bool) -> None:
    box = one_slot
    room = 1 + box.config.local.queue

    async def crowd() -> tuple[list[Heard], Heard, float]:
        first = [asyncio.create_task(box.asking(**LONG)) for _ in range(room)]
        await engine_has(box, room)
        begun = time.monotonic()
        late = await box.asking(stream=stream, max_tokens=4)
        took = time.monotonic() - begun
        assert not any(one.done() for one in first)
        return [await one for one in first], late, took

    answered, late, took = box.call(crowd())
    assert (late.status, late.headers["retry-after"]) == (503, "1")
    assert "x-should-retry" not in late.headers
    assert "try again" in late.errors[0]
    assert took < 1
    assert [(one.status, one.finishes) for one in answered] == [(200, ("length",))] * room
    assert box.ask(stream=stream, max_tokens=4).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_of_the_box_ends_at_the_deadline_and_its_slot_is_free(box: Stage, stream: bool) -> None:
    box.play(timeouts=QUICK)
    box.local.hold = asyncio.Event()
    heard = box.ask(stream=stream)
    assert heard.finishes == ()
    assert len(heard.errors) == 1
    if stream:
        assert (heard.status, heard.text) == (200, box.local.pieces[0])
    else:
        assert (heard.status, heard.text) == (504, "")
    assert box.local.running == 0


def test_waiting_for_a_slot_counts_for_the_deadline(one_slot: Stage) -> None:
    box = one_slot
    if box.config.local.queue == 0:
        return

    async def two() -> Heard:
        first = asyncio.create_task(box.asking(**LONG))
        await engine_has(box, 1)
        box.appliance.limits = _total(box, 0.2)
        second = await box.asking(stream=False, max_tokens=1)
        box.appliance.limits = _total(box, PATIENT.total)
        await engine_has(box, 1)  # who waited does no longer
        assert not first.done()
        assert (await first).status == 200
        return second

    second = box.call(two())
    assert (second.status, second.text) == (504, "")


async def engine_has(box: Stage, requests: int) -> None:
    """Wait until so many requests are answered or wait."""
    while True:
        stats = await box.appliance.engine.stats()
        if int(stats["busy"]) + int(stats["waiting"]) == requests:
            return
        await asyncio.sleep(0.01)


def _total(box: Stage, seconds: float) -> Any:
    return replace(box.appliance.limits, total=seconds)
