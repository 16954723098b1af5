"""Tokens are counted beside everything else, or not at all; nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest

from appliance.backends import questions
from appliance.core.fault import BackendError, Fault
from tests.backends.engines import ask, job, running, text

pytestmark = pytest.mark.anyio


async def test_tokens_are_counted_while_answers_run(python: str) -> None:
    async with running(python) as engine:
        answer = engine.generate(job("wait"))
        await anext(answer)
        counts = await asyncio.gather(*(engine.count(job("x" * size)) for size in (3, 1, 2)))
        await answer.aclose()
    assert counts == [3, 1, 2]


@pytest.mark.parametrize("path", ["never", "wrong"])
async def test_an_engine_that_is_not_ready_does_not_count_and_nobody_waits(python: str, path: str) -> None:
    async with running(python, path=path) as engine:
        async with asyncio.timeout(1):
            with pytest.raises(BackendError, match="not ready") as caught:
                await engine.count(job("hello"))
    assert (caught.value.fault, caught.value.status) == (Fault.BUSY, 503)


async def test_what_cannot_be_counted_is_refused_as_the_engine_says(python: str) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        with pytest.raises(BackendError, match=r"No\.") as caught:
            await engine.count(job("refuse"))
    assert (caught.value.fault, caught.value.param) == (Fault.REQUEST, "messages")


async def test_a_count_that_does_not_come_is_given_up(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "COUNT_SECONDS", 0.01)
    async with running(python) as engine:
        await engine.wait_ready(10)
        with pytest.raises(BackendError, match="too busy to count") as caught:
            await engine.count(job("wait"))
        assert caught.value.fault is Fault.BUSY
        assert (engine.deaths, engine.state, engine.line, len(engine._outstanding)) == (0, "ready", 0, 0)
        assert text(await ask(engine, "hello")) == "hello"


@pytest.mark.parametrize("content", ["crash", "malformed"])
async def test_an_engine_that_dies_while_it_counts_says_so(python: str, content: str) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        with pytest.raises(BackendError) as caught:
            await engine.count(job(content))
        assert caught.value.fault is Fault.CRASHED
        assert text(await ask(engine, "hello")) == "hello"
        assert await engine.count(job("hello")) == 5


async def test_a_count_ends_with_the_engine_that_dies_of_something_else_and_is_not_asked_again(python: str) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        async with asyncio.timeout(4):  # sooner than a count is given up
            count, answer = await asyncio.gather(
                engine.count(job("wait")), ask(engine, "crash"), return_exceptions=True
            )
        for error in (count, answer):
            assert isinstance(error, BackendError)
            assert error.fault is Fault.CRASHED
        assert text(await ask(engine, "hello")) == "hello"
        assert engine.deaths == 1


async def test_a_count_ends_with_an_engine_that_is_stopped(python: str) -> None:
    async with running(python) as engine:
        await engine.wait_ready(10)
        count = asyncio.ensure_future(engine.count(job("wait")))
        await engine.stats()  # so it was asked for both
        await engine.stop()
        with pytest.raises(BackendError, match="was stopped") as caught:
            await count
    assert caught.value.fault is Fault.SERVER
