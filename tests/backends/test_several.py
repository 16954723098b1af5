"""Several answers are written at the same time, and end together if they do not end well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from appliance.backends.local import LocalBackend
from appliance.backends.several import beside
from appliance.core.chat import ChatRequest, Message, Sampling, Text
from appliance.core.events import Degraded, Event, Finish, Odds, Started, TextDelta, Usage
from appliance.core.fault import BackendError, Fault
from appliance.core.frames import Frame
from tests.backends.engines import until

pytestmark = pytest.mark.anyio


def begun(**more: Any) -> Frame:
    return {"op": "begun", "prompt_tokens": 9, "cached_tokens": 0, "committed_tokens": 0, "trimmed": 0, **more}


def text(said: str, **more: Any) -> Frame:
    return {"op": "text", "text": said, **more}


def finish(tokens: int, cached: int = 0) -> Frame:
    count = {"prompt_tokens": 9, "completion_tokens": tokens, "cached_tokens": cached}
    return {"op": "finish", "reason": "stop", **count}


class Engine:
    """One script for each answer: batches of frames, events to wait for, errors to raise."""

    def __init__(self, *scripts: list[list[Frame] | asyncio.Event | Exception]) -> None:
        self.scripts = list(scripts)
        self.jobs: list[Mapping[str, Any]] = []
        self.begun: list[int] = []
        self.closed: list[int] = []

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]:
        number = len(self.begun)
        self.begun.append(number)
        self.jobs.append(job)
        try:
            for said in self.scripts[number]:
                if isinstance(said, asyncio.Event):
                    await said.wait()
                elif isinstance(said, Exception):
                    raise said
                else:
                    yield said
        finally:
            self.closed.append(number)

    async def count(self, job: Mapping[str, Any]) -> int:
        raise NotImplementedError

    def follow(self, job: Mapping[str, Any], *, mode: str, suspicion: float) -> Any:
        raise NotImplementedError


def ask(n: int, **more: Any) -> ChatRequest:
    return ChatRequest(dialect="openai", model="m", messages=(Message(role="user", parts=(Text("Hi"),)),), n=n, **more)


async def answer(engine: Engine, request: ChatRequest) -> list[Event]:
    stream = LocalBackend(engine, "starter").stream(request, "m")
    return [event async for events in stream for event in events]


async def test_each_has_its_number_and_the_prompt_is_counted_once() -> None:
    engine = Engine(
        [[begun(trimmed=1)], [text("A")], [finish(2)]],
        [[begun(trimmed=1, cached_tokens=8), text("B"), finish(3, 8)]],
        [[begun(trimmed=1, cached_tokens=8)], [finish(0, 8)]],
    )
    events = await answer(engine, ask(3, sampling=Sampling(seed=7)))
    assert events[:3] == [
        Started(id="", model="starter", created=0),
        Usage(prompt_tokens=9, completion_tokens=0),
        Degraded(what="context"),
    ]
    assert events.count(Degraded(what="context")) == 1
    assert [event.text for event in events if isinstance(event, TextDelta) and event.choice == 0] == ["A"]
    assert [event.text for event in events if isinstance(event, TextDelta) and event.choice == 1] == ["B"]
    assert {event.choice for event in events if isinstance(event, Finish)} == {0, 1, 2}
    usages = [event for event in events if isinstance(event, Usage)]
    assert usages[-1] == Usage(prompt_tokens=9, completion_tokens=5)
    assert [job["sampling"]["seed"] for job in engine.jobs] == [7, 8, 9]
    assert sorted(engine.closed) == [0, 1, 2]


async def test_the_others_begin_when_the_first_has_said_something() -> None:
    word = asyncio.Event()
    engine = Engine([[begun()], word, [text("A")], [finish(1)]], [[begun(), finish(1)]])
    stream = beside([engine.generate({}), engine.generate({})])
    assert (await anext(stream))[0] == 0
    assert engine.begun == [0]
    word.set()
    assert {number async for number, _ in stream} == {0, 1}
    assert engine.begun == [0, 1]


async def test_one_that_says_nothing_does_not_hold_up_the_others() -> None:
    engine = Engine([[begun(), finish(0)]], [[begun(), text("B"), finish(1)]])
    assert TextDelta(text="B", choice=1) in await answer(engine, ask(2))


async def test_one_that_fails_ends_them_all() -> None:
    engine = Engine(
        [[begun()], [text("A")], asyncio.Event()],
        [[begun()], [{"op": "error", "fault": "busy", "message": "Full."}]],
    )
    with pytest.raises(BackendError, match="Full"):
        await answer(engine, ask(2))
    assert sorted(engine.closed) == [0, 1]


async def test_an_engine_that_dies_ends_them_all() -> None:
    engine = Engine([[begun()], [text("A")], asyncio.Event()], [[begun()], RuntimeError("dead")])
    with pytest.raises(RuntimeError, match="dead"):
        await answer(engine, ask(2))
    assert sorted(engine.closed) == [0, 1]


async def test_of_an_engine_that_dies_those_that_were_at_work_speak_and_not_one_that_waited() -> None:
    died, waited = (BackendError(Fault.CRASHED, "It died.", innocent=innocent) for innocent in (False, True))
    last = asyncio.Event()
    engine = Engine([[begun()], [text("A")], last, died], [waited])
    answering = asyncio.ensure_future(answer(engine, ask(2)))
    await until(lambda: engine.closed == [1])
    last.set()
    with pytest.raises(BackendError) as raised:
        await answering
    assert raised.value is died


async def test_who_only_waited_says_so_if_nobody_was_at_work() -> None:
    waited = BackendError(Fault.CRASHED, "It died.", innocent=True)
    with pytest.raises(BackendError) as raised:
        await answer(Engine([[begun()], [text("A")], [finish(1)]], [waited], [waited]), ask(3))
    assert raised.value is waited
    with pytest.raises(BackendError) as raised:
        await answer(Engine([waited]), ask(2))
    assert raised.value is waited


async def test_whoever_stops_listening_ends_them_all() -> None:
    engine = Engine([[begun()], [text("A")], asyncio.Event()], [[begun()], [text("B")], asyncio.Event()])
    stream = LocalBackend(engine, "starter").stream(ask(2), "m")
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        async for events in stream:
            if TextDelta(text="B", choice=1) in events:
                break
    assert sorted(engine.closed) == [0, 1]
    assert [task for task in asyncio.all_tasks() if "_tell" in repr(task)] == []


async def test_odds_and_a_grammar_that_was_not_kept_to_are_told() -> None:
    likely = text("H\u00e9", odds=[["H\u00c3", -0.5, [["H\u00c3", -0.5], ["\u00e2", -1.0]]], ["\u00a9", 0.0, []]])
    events = await answer(Engine([[begun(strayed=True), likely], [finish(2)]]), ask(1))
    assert Degraded(what="grammar") in events
    assert (
        TextDelta(
            text="H\u00e9",
            odds=(
                Odds(token=b"H\xc3", logprob=-0.5, others=((b"H\xc3", -0.5), (b"\xe2", -1.0))),
                Odds(token=b"\xa9", logprob=0.0),
            ),
        )
        in events
    )
