"""The engine's process dies in every way it can, and whoever waits for an answer is told so at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path

import pytest

from appliance.backends import child
from appliance.core.fault import BackendError, Fault
from appliance.core.frames import Frame
from tests.backends.engines import ask, job, running, text, until

pytestmark = pytest.mark.anyio


async def test_it_starts_at_once_and_becomes_ready_later(python: str) -> None:
    async with running(python) as engine:
        assert (engine.state, engine.ready) == ("starting", None)
        ready = await engine.wait_ready(10)
        assert (engine.state, ready, engine.progress) == ("ready", engine.ready, 1.0)
        assert ready.model["name"] == "scripted"
        assert engine.pid is not None
        assert engine.memory is None or engine.memory > 10**6
    assert (engine.state, engine.pid, engine.ready, engine.memory) == ("stopped", None, None, 0)


async def test_a_request_waits_for_readiness_and_is_answered(python: str) -> None:
    async with running(python) as engine:
        frames = await ask(engine, "hello")
    assert [frame["op"] for frame in frames] == ["begun", "text", "finish"]
    assert text(frames) == "hello"


async def test_waiting_for_readiness_has_an_end(python: str) -> None:
    async with running(python, path="never") as engine:
        with pytest.raises(TimeoutError):
            await engine.wait_ready(0.01)


async def test_many_requests_get_their_own_answers(python: str) -> None:
    async with running(python) as engine:
        answers = await asyncio.gather(*(ask(engine, f"number {number}") for number in range(20)))
    assert [text(answer) for answer in answers] == [f"number {number}" for number in range(20)]


async def test_closing_an_answer_cancels_it_and_a_finished_one_is_not_cancelled(python: str) -> None:
    async with running(python) as engine:
        answer = engine.generate(job("wait"))
        async with contextlib.aclosing(answer):  # type: ignore[type-var]
            assert (await anext(answer))[0]["op"] == "begun"
        await ask(engine, "hello")
        assert text(await ask(engine, "cancelled")) == "[1]"


async def test_a_crash_gives_out_what_came_and_then_says_so_to_every_answer(python: str) -> None:
    async with running(python) as engine:
        other = engine.generate(job("wait"))
        await anext(other)
        got: list[Frame] = []
        with pytest.raises(BackendError) as caught:
            async for batch in engine.generate(job("crash")):
                got += batch
        assert caught.value.fault is Fault.CRASHED
        assert text(got) == "half"
        with pytest.raises(BackendError) as caught:
            await anext(other)
        assert caught.value.fault is Fault.CRASHED
        assert text(await ask(engine, "again")) == "again"
        assert engine.restarts == 1


async def test_who_waited_for_a_slot_had_no_part_in_a_death(python: str) -> None:
    async with running(python) as engine:  # it has one slot
        busy = engine.generate(job("wait"))
        await anext(busy)
        waiting = asyncio.ensure_future(ask(engine, "nothing"))
        await ask(engine, "hello")  # by now it has heard of that one too
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(BackendError) as waited:
            await waiting
        with pytest.raises(BackendError) as worked:
            await anext(busy)
    assert [(error.value.fault, error.value.innocent) for error in (waited, worked)] == [
        (Fault.CRASHED, True),
        (Fault.CRASHED, False),
    ]


async def test_nobody_waited_as_long_as_a_slot_was_free(python: str) -> None:
    async with running(python) as engine:
        with pytest.raises(BackendError) as caught:
            await ask(engine, "malformed")
    assert not caught.value.innocent


async def test_a_kill_from_outside_is_survived(python: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with contextlib.suppress(BackendError):  # it may still be asked before its death is known
            await ask(engine, "wait")
        assert text(await ask(engine, "hello")) == "hello"
        assert engine.pid not in (None, first)
    assert "died with signal 9; starting it again" in caplog.text


async def test_one_for_which_the_system_has_no_room_yet_is_started_when_it_has(
    python: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("appliance.backends.process.RESPAWN_SECONDS", 0.01)
    os.rename(python, f"{python}.later")
    async with running(python) as engine:
        asking = asyncio.ensure_future(ask(engine, "hello"))
        await until(lambda: len(caplog.records) > 1)
        assert (engine.state, engine.pid) == ("starting", None)
        os.rename(f"{python}.later", python)
        assert text(await asking) == "hello"
    assert caplog.records[0].getMessage() == "the engine cannot be started (No such file or directory); trying again"


async def test_nonsense_in_the_pipe_is_a_crash(python: str) -> None:
    async with running(python) as engine:
        with pytest.raises(BackendError) as caught:
            await ask(engine, "nonsense")
        assert caught.value.fault is Fault.CRASHED
        assert text(await ask(engine, "hello")) == "hello"


async def test_a_frame_without_its_fields_is_a_crash_as_well(python: str) -> None:
    async with running(python) as engine:
        with pytest.raises(BackendError) as caught:
            await ask(engine, "malformed")
        assert caught.value.fault is Fault.CRASHED
        assert text(await ask(engine, "hello")) == "hello"


async def test_what_the_engine_gave_up_to_get_ready_is_told(python: str) -> None:
    async with running(python, path="stepped") as engine:
        assert (await engine.wait_ready(10)).steps_down == ("It has less context.", "It is on the CPU.")
    async with running(python) as engine:
        assert (await engine.wait_ready(10)).steps_down == ()


async def test_a_wrong_model_is_not_tried_again_and_says_what_is_wrong(python: str) -> None:
    async with running(python, path="wrong") as engine:
        for _ in range(2):
            with pytest.raises(BackendError, match="wrong is not a GGUF file") as caught:
                await ask(engine, "hello")
            assert (caught.value.fault, caught.value.status) == (Fault.SERVER, 500)
        assert (engine.state, engine.failure, engine.restarts) == ("failed", "wrong is not a GGUF file.", 0)
        with pytest.raises(BackendError):
            await engine.wait_ready(1)


async def test_the_last_words_of_a_dying_child_are_logged(
    python: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(python, path="dies", template=str(tmp_path / "died")) as engine:
        assert text(await ask(engine, "hello")) == "hello"
    message = next(record for record in caplog.records if record.levelno == logging.WARNING).getMessage()
    assert "died with exit code 3" in message
    assert message.endswith("\n  I cannot live.")


async def test_stopping_ends_the_answers_and_the_process(python: str) -> None:
    async with running(python) as engine:
        answer = engine.generate(job("wait"))
        await anext(answer)
        pid = engine.pid
        assert pid is not None
        await engine.stop()
        with pytest.raises(BackendError, match="stopped"):
            await anext(answer)
        with pytest.raises(BackendError, match="stopped"):
            await ask(engine, "hello")
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_child_that_does_not_want_to_go_is_killed(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.1)
    async with running(python, path="stubborn") as engine:
        await engine.wait_ready(10)
        pid = engine.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_child_sees_no_keys(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    async with running(python) as engine:
        names = text(await ask(engine, "environment")).split()
    assert "SOME_API_KEY" not in names
    assert "PATH" in names


async def test_a_request_larger_than_a_frame_is_the_callers_mistake(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        with pytest.raises(BackendError) as caught:
            await ask(engine, "x" * (64 << 20))
        assert (caught.value.fault, caught.value.status) == (Fault.REQUEST, 413)
        assert text(await ask(engine, "hello")) == "hello"


async def test_the_stats_are_asked_for_and_come_back(python: str) -> None:
    async with running(python) as engine:
        with pytest.raises(BackendError):
            await engine.stats()
        await engine.wait_ready(10)
        assert (await engine.stats())["busy"] == 0
