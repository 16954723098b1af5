"""The model on the box while the service runs: what is exchanged, what comes back, and what the service dies of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from appliance.appliance import Appliance
from appliance.backends.process import Engine
from appliance.config import Config, load_config
from appliance.core.events import TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.machine import Machine, Placement, Weight
from appliance.dialects.openai_chat import OPENAI
from appliance.server.box import watch
from appliance.server.status import status
from appliance.store.store import Resolved
from tests.backends.conftest import python
from tests.backends.engines import job, until

pytestmark = [pytest.mark.anyio, pytest.mark.live]

__all__ = ["python"]

ASKED = b'{"model": "local", "messages": [{"role": "user", "content": "hello"}]}'
GB = 10**9
OTHERS = {"overflow": "refuse", "unload_after": 60.0, "standby": "hot"}
"""What comes true without another engine."""


def model(name: str, spoiler: Path | None = None) -> Resolved:
    return Resolved(path=Path(name), template=str(spoiler) if spoiler else None, name=name)


MACHINE = Machine(
    cpu="",
    cores=2,
    threads=2,
    ram_total=32 * GB,
    ram_free=8 * GB,
    gpu_offload=False,
    devices=(),
    instruction_sets=(),
    build="",
)
PLACE = Placement(
    context=512, kv_type="f16", gpu_layers=0, model=0, cache=GB, buffers=GB, ram=0, devices=(), from_disk=True
)
WEIGHT = Weight(
    name="large",
    architecture="llama",
    parameters=0,
    vocabulary=0,
    width=0,
    trained=0,
    layers=1,
    model=10 * GB,
    slots=1,
    process=GB,
    reads=(),
    asked=PLACE,
    chosen=PLACE,
)


@pytest.mark.parametrize(
    ("gone", "said", "refusal"),
    [
        (3 * GB, WEIGHT, "it takes at least 12.0 GB of memory, and 11.0 GB would be free."),
        (4 * GB, WEIGHT, None),
        (0, replace(WEIGHT, chosen=replace(PLACE, from_disk=False)), None),
        (None, WEIGHT, None),
        (0, BackendError(Fault.CONFIG, "large is cut short."), "large is cut short."),
        (0, BackendError(Fault.SILENT, "It did not answer."), None),
    ],
)
async def test_a_model_is_refused_if_it_will_not_fit_when_the_one_before_it_is_gone(
    config: Config, monkeypatch: pytest.MonkeyPatch, gone: int | None, said: Weight | BackendError, refusal: str | None
) -> None:
    def weigh(*_: object, **__: object) -> Weight:
        if isinstance(said, BackendError):
            raise said
        return said

    monkeypatch.setattr("appliance.backends.box.weigh", weigh)
    monkeypatch.setattr("appliance.backends.box.describe", lambda **_: MACHINE)
    monkeypatch.setattr(Engine, "memory", gone)
    appliance = Appliance(config, model("good"))
    assert await appliance.refusal(config.local, model("large")) == refusal
    await appliance.aclose()


async def _refusal(model: Resolved) -> str | None:
    return "it takes too much." if model.name == "too large" else None


@pytest.fixture
def config(isolated: Path) -> Config:
    return load_config(None, {"APPLIANCE_HOME": str(isolated)})


@contextlib.asynccontextmanager
async def ready(
    config: Config, model: Resolved, python: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Appliance]:
    """An appliance whose engines follow a script; the first one is ready."""
    monkeypatch.setattr("appliance.appliance.Engine", partial(Engine, python=python))
    monkeypatch.setattr(Appliance, "refusal", lambda self, local, model: _refusal(model))
    appliance = Appliance(config, model)
    await appliance.start()
    try:
        await appliance.engine.wait_ready(20)
        yield appliance
    finally:
        await appliance.aclose()


@contextlib.asynccontextmanager
async def watched(appliance: Appliance) -> AsyncIterator[asyncio.Task[str | None]]:
    """The task that ends when there is no engine any more; it has heard of the first one."""
    told = asyncio.Event()
    watching = asyncio.ensure_future(watch(appliance, require_gpu=False, news=told.set))
    try:
        await asyncio.wait_for(told.wait(), 20)
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_one_that_is_of_no_use_is_given_up_and_what_needs_no_engine_stays_as_the_file_says(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance, watched(appliance) as watching:
        appliance.reload(replace(config, local=replace(config.local, context=99, **OTHERS)), model("wrong"))
        await until(lambda: appliance.model_name == "wrong")
        await until(lambda: appliance.model_name == "good")
        await appliance.engine.wait_ready(20)
        assert appliance.config.local == replace(config.local, **OTHERS)
        assert (appliance.engine.unload_after, appliance.engine.spec.context) == (60.0, config.local.context)
        assert not watching.done()


async def test_one_that_is_refused_leaves_the_one_there_is_untouched(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance, watched(appliance) as watching:
        before = appliance.engine
        appliance.reload(config, model("too large"))
        await until(lambda: appliance.refused is not None)
        assert (appliance.engine is before, before.state, appliance.wanted) == (True, "ready", None)
        assert (await status(appliance))["engine"]["refused"] == "too large was refused: it takes too much."
        assert "not exchanged, good stays: too large was refused: it takes too much." in caplog.text
        appliance.reload(config, model("better"))
        await until(lambda: appliance.model_name == "better")
        await appliance.engine.wait_ready(20)
        assert (appliance.refused, watching.done()) == (None, False)


async def test_one_that_only_dies_is_given_up_for_the_one_before_it(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance, watched(appliance) as watching:
        appliance.reload(config, model("always dies"))
        await until(lambda: appliance.model_name == "always dies")
        await until(lambda: appliance.model_name == "good")
        await appliance.engine.wait_ready(20)
        assert not watching.done()
    assert "its process died 3 times before it was ready (last: exit code 3). The one" in caplog.text


async def test_one_that_was_ready_comes_back_however_soon_another_was_asked_for(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance:
        appliance.reload(config, model("wrong"))
        async with watched(appliance) as watching:
            await until(lambda: watching.done() or appliance.model_name == "wrong")
            await until(lambda: watching.done() or appliance.model_name == "good")
            assert not watching.done()


async def test_the_same_model_is_not_its_own_replacement(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spoiler = tmp_path / "spoiler"
    model_of_today = model("spoilt", spoiler)
    async with ready(config, model_of_today, python, monkeypatch) as appliance, watched(appliance) as watching:
        appliance.reload(replace(config, local=replace(config.local, **OTHERS)))
        assert appliance.wanted is None
        spoiler.touch()
        assert appliance.engine.pid is not None
        os.kill(appliance.engine.pid, signal.SIGKILL)
        trouble = await asyncio.wait_for(watching, 20)
    assert trouble == "the local model can no longer be used: wrong is not a GGUF file."


async def test_who_was_answered_by_the_old_one_hears_that_it_was_no_death(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance:
        before = appliance.engine
        answer = before.generate(job("wait"))
        await anext(answer)
        exchange = asyncio.ensure_future(appliance.exchange(config.local, model("better"), patience=0.0))
        await asyncio.sleep(0)
        assert (appliance.engine is before, appliance.engine.state) == (False, "starting")
        await exchange
        with pytest.raises(BackendError, match="exchanged") as ended:
            await anext(answer)
        assert (ended.value.fault, ended.value.innocent) == (Fault.STOPPED, True)
        await appliance.engine.wait_ready(20)


async def test_who_asks_one_that_gives_up_is_answered_by_the_one_that_comes_back(
    config: Config, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(config, model("good"), python, monkeypatch) as appliance, watched(appliance):
        appliance.reload(config, model("wrong"))
        await until(lambda: appliance.model_name == "wrong")
        given_up = appliance.engine
        answer = appliance.answer(OPENAI.parse(ASKED, ()), id="waiting")
        said = [event async for batch in answer.events() for event in batch]
        assert "".join(event.text for event in said if isinstance(event, TextDelta)) == "hello"
        assert (given_up.failure, appliance.model_name) == ("wrong is not a GGUF file.", "good")
        assert appliance.refused is not None and appliance.refused.startswith("wrong was given up")
        assert [(attempt.fault, attempt.leg) for attempt in appliance.journal.recent()] == [(Fault.STOPPED, "local")]
