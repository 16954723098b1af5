"""The engine's process hangs, dies again and again, and sleeps; and who asks is told, served or kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from appliance.backends import child
from appliance.backends.process import Engine
from appliance.core import keeper as rules
from appliance.core.fault import BackendError, Fault
from appliance.core.keeper import Keeper
from appliance.core.watch import Patience
from tests.backends.engines import ask, job, running, text, until

pytestmark = [pytest.mark.live, pytest.mark.anyio]

STRICT = Patience(idle=60.0, silence=0.1, probe=1.0, longest_probe=1.0, look=0.1)
CURIOUS = Patience(idle=0.02, silence=0.02, probe=60.0, look=0.01)


async def crash(engine: Engine) -> None:
    with pytest.raises(BackendError) as caught:
        await ask(engine, "crash")
    assert caught.value.fault is Fault.CRASHED


# ---------------------------------------------------------------------------------------------------- wedged


@pytest.mark.parametrize(("path", "how"), [("good", "frozen"), ("stubborn", "frozen"), ("good", "halted")])
async def test_one_that_lives_and_computes_nothing_is_ended_and_started_again(
    python: str, path: str, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.2)
    async with running(python, path=path, patience=STRICT) as engine:
        await engine.wait_ready(10)
        wedged = engine.pid
        assert wedged is not None
        answer = engine.generate(job(how))
        said = await anext(answer)
        with pytest.raises(BackendError) as caught:
            while True:
                said += await anext(answer)
        assert caught.value.fault is Fault.CRASHED
        assert text(said) == "half"
        assert text(await ask(engine, "hello")) == "hello"
        assert engine.deaths == 1
        assert engine.last_death == "wedged: it computed nothing for 1 s"
        assert "lives but it computed nothing for 1 s; ending it" in caplog.text
        # SIGTERM where that is enough, SIGKILL where it is not.
        assert f"(pid {wedged}) died with signal {15 if (path, how) == ('good', 'frozen') else 9}" in caplog.text
        with pytest.raises(ProcessLookupError):
            os.kill(wedged, 0)


async def test_an_idle_one_that_was_stopped_from_outside_is_noticed(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.2)
    patience = Patience(idle=0.1, silence=60.0, probe=1.0, longest_probe=1.0, look=0.1)
    async with running(python, patience=patience) as engine:
        await engine.wait_ready(10)
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await until(lambda: engine.deaths == 1)
        assert text(await ask(engine, "hello")) == "hello"


async def test_a_wedged_one_with_a_full_pipe_does_not_hold_us(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.2)
    async with running(python, patience=STRICT) as engine:
        answer = engine.generate(job("halted"))
        await anext(answer)
        with pytest.raises(BackendError) as caught:
            await ask(engine, "x" * (8 << 20))
        assert caught.value.fault is Fault.CRASHED
        assert text(await ask(engine, "hello")) == "hello"


async def test_a_load_that_does_not_come_on_is_ended(python: str) -> None:
    async with running(python, path="never", patience=Patience(load=0.2, look=0.05)) as engine:
        await until(lambda: engine.deaths > 0)
        assert engine.last_death == "wedged: it loaded nothing for 0 s"


async def test_one_that_answers_its_probes_is_left_alone(python: str) -> None:
    async with running(python, patience=CURIOUS) as engine:
        await engine.wait_ready(10)
        await probed(engine, 3)
        answer = engine.generate(job("wait"))
        await anext(answer)
        await probed(engine, 6)
        await answer.aclose()  # type: ignore[attr-defined]
        assert engine.deaths == 0


async def probed(engine: Engine, times: int) -> None:
    async with asyncio.timeout(20):
        while (await engine.stats())["probed"] < times:  # noqa: ASYNC110 - somebody else's state
            await asyncio.sleep(0.005)


async def test_words_are_as_good_as_the_answer_to_a_probe(python: str) -> None:
    patience = Patience(idle=0.01, silence=0.01, probe=0.6, look=0.05)
    async with running(python, path="deaf", patience=patience) as engine:
        await engine.wait_ready(10)
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 1.2:
            assert text(await ask(engine, "hello")) == "hello"
            await asyncio.sleep(0.02)
        assert engine.deaths == 0
        await until(lambda: engine.deaths == 1)  # nobody asks, and it is silent


# ------------------------------------------------------------------------------------------------- deaths


async def test_after_too_many_deaths_one_request_is_let_through_at_a_time_and_in_order(python: str) -> None:
    async with running(python, keeper=Keeper(deaths=1), queue=2) as engine:
        await crash(engine)
        await engine.wait_ready(10)
        assert (engine.state, engine.able, engine.deaths, engine.last_death) == ("careful", True, 1, "signal 9")
        first = engine.generate(job("wait"))
        await anext(first)
        order: list[str] = []

        async def take(content: str) -> None:
            order.append(text(await ask(engine, content)))

        waiting = [asyncio.create_task(take(content)) for content in ("one", "two")]
        await asyncio.sleep(0)
        with pytest.raises(BackendError) as caught:
            await ask(engine, "three")
        assert (caught.value.fault, caught.value.status, caught.value.retry_after) == (Fault.BUSY, 503, 1.0)
        await engine.stats()  # by now the others' answers would be there
        assert order == []
        await first.aclose()  # type: ignore[attr-defined]
        await asyncio.gather(*waiting)
        assert order == ["one", "two"]


async def test_a_newcomer_does_not_overtake_those_who_wait(python: str) -> None:
    async with running(python, keeper=Keeper(deaths=1)) as engine:
        await crash(engine)
        first = engine.generate(job("wait"))
        await anext(first)
        waiting = asyncio.create_task(ask(engine, "cancelled"))
        await asyncio.sleep(0)
        await first.aclose()  # type: ignore[attr-defined]
        await ask(engine, "hello")  # nobody was woken yet
        assert waiting.done()
        await waiting


async def test_one_that_gives_up_waiting_or_asks_for_nonsense_does_not_block_the_line(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(python, keeper=Keeper(deaths=1)) as engine:
        await crash(engine)
        first = engine.generate(job("wait"))
        await anext(first)
        gone = asyncio.create_task(ask(engine, "gone"))
        large = asyncio.create_task(ask(engine, "x" * (65 << 20)))
        last = asyncio.create_task(ask(engine, "last"))
        await asyncio.sleep(0)
        gone.cancel()
        await first.aclose()  # type: ignore[attr-defined]
        assert text(await last) == "last"
        with pytest.raises(BackendError):
            await large


async def test_after_a_minute_without_a_death_all_are_let_through_again(python: str) -> None:
    async with running(python, keeper=Keeper(deaths=1, minute=0.3), patience=CURIOUS) as engine:
        await crash(engine)
        await engine.wait_ready(10)
        first = engine.generate(job("wait"))
        await anext(first)
        assert text(await ask(engine, "hello")) == "hello"  # though the first one is still out
        assert engine.state == "ready"
        await first.aclose()  # type: ignore[attr-defined]


async def test_one_that_fails_refuses_at_once_and_heals_by_itself(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FAILING_WAIT", 0.05)
    monkeypatch.setattr(rules, "HEALTHY_AFTER", 0.2)
    sick = tmp_path / "sick"
    sick.touch()
    async with running(python, path="sick", template=str(sick), keeper=Keeper(deaths=1), patience=CURIOUS) as engine:
        with pytest.raises(BackendError) as caught:
            await ask(engine, "hello")  # it waits for readiness, and stops waiting
        assert (caught.value.fault, caught.value.status) == (Fault.BUSY, 503)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        assert (engine.state, engine.able) == ("failing", False)
        with pytest.raises(BackendError):
            await ask(engine, "hello")
        sick.unlink()
        await until(lambda: engine.state == "careful")
        assert text(await ask(engine, "hello")) == "hello"


# -------------------------------------------------------------------------------------------------- asleep


async def test_one_that_nobody_needs_gives_its_memory_back_and_wakes_for_a_request(python: str) -> None:
    async with running(python, unload_after=0.05, patience=CURIOUS) as engine:
        ready = await engine.wait_ready(10)
        first = engine.pid
        assert first is not None
        await until(lambda: engine.state == "asleep" and engine.pid is None)
        assert (engine.able, await engine.wait_ready(0)) == (True, ready)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert text(await ask(engine, "hello")) == "hello"
        assert (engine.deaths, engine.restarts) == (0, 0)


async def test_one_that_is_at_work_does_not_sleep(python: str) -> None:
    async with running(python, unload_after=0.05, patience=CURIOUS) as engine:
        answer = engine.generate(job("wait"))
        await anext(answer)
        await asyncio.sleep(0.2)
        assert engine.state == "ready"
        following = engine.follow(job("hello"), mode="auto", suspicion=0.0)
        await answer.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        assert engine.state == "ready"
        following.close()
        await until(lambda: engine.state == "asleep")


async def test_zero_is_never(python: str) -> None:
    async with running(python, unload_after=0, patience=CURIOUS) as engine:
        await engine.wait_ready(10)
        await asyncio.sleep(0.1)
        assert engine.state == "ready"


async def test_a_request_that_comes_while_it_falls_asleep_is_answered(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LEAVE_SECONDS", 0.05)
    monkeypatch.setattr(child, "STOP_SECONDS", 0.2)
    async with running(python, path="stubborn", unload_after=0.05, patience=CURIOUS) as engine:
        await engine.wait_ready(10)
        await until(lambda: engine.state == "asleep")
        assert engine.pid is not None  # it is not gone yet
        assert text(await ask(engine, "hello")) == "hello"
        assert engine.deaths == 0


@pytest.mark.parametrize(
    ("mode", "suspicion", "later", "wakes"),
    [("hot", 0.0, None, True), ("auto", 1.0, None, True), ("auto", 0.0, None, False), ("auto", 0.0, 1.0, True)],
)
async def test_what_is_urgent_to_follow_wakes_it(
    python: str, mode: str, suspicion: float, later: float | None, wakes: bool
) -> None:
    async with running(python, unload_after=0.05, patience=CURIOUS) as engine:
        await engine.wait_ready(10)
        await until(lambda: engine.state == "asleep")
        following = engine.follow(job("hello"), mode=mode, suspicion=suspicion)  # type: ignore[arg-type]
        if later is not None:
            following.suspect(later)
        if wakes:
            await until(lambda: engine.state == "ready")
        else:
            await asyncio.sleep(0.1)
            assert engine.state == "asleep"


async def test_one_can_be_ended_while_it_sleeps(python: str) -> None:
    async with running(python, unload_after=0.05, patience=CURIOUS) as engine:
        await engine.wait_ready(10)
        await until(lambda: engine.state == "asleep")
    assert engine.state == "stopped"


# ------------------------------------------------------------------------------------------------ what is left


async def test_nothing_is_left_of_twenty_processes(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "LONGEST_WAIT_IF_READY", 0.0)

    def left() -> tuple[int, int, int]:
        return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), threading.active_count()

    async with running(python, keeper=Keeper(deaths=1000)) as engine:
        assert text(await ask(engine, "hello")) == "hello"
        before = left()
        for _ in range(20):
            with contextlib.suppress(BackendError):
                await ask(engine, "crash")
            await engine.wait_ready(10)
        await until(lambda: left() == before)
        children = [process.status() for process in psutil.Process().children()]
        assert psutil.STATUS_ZOMBIE not in children
        assert (engine.deaths, len(children)) == (20, 1)


async def test_a_grandchild_that_holds_the_stderr_does_not_hold_us(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LAST_WORDS_SECONDS", 0.1)
    before = len(os.listdir("/proc/self/fd"))
    async with running(python, path="parent") as engine:
        await engine.wait_ready(10)
        assert engine.pid is not None
        family = psutil.Process(engine.pid).children()
        assert len(family) == 1
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    family[0].kill()
