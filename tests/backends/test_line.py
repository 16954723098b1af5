"""Whose turn it is: those that somebody reads already first, then in the order they came."""

from __future__ import annotations

import asyncio

import pytest

from appliance.backends.line import Line
from appliance.core.fault import BackendError, Fault

pytestmark = pytest.mark.anyio


async def test_the_foremost_hears_that_it_is_and_leaves_its_place_to_the_next() -> None:
    line, free, served = Line(queue=2, slots=1), asyncio.Event(), list[str]()

    async def wait(name: str, *, first: bool = False) -> None:
        served.append(await line.turn(lambda foremost: name if free.is_set() and foremost else None, first=first))

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(wait(name), name=name)
        group.create_task(wait("read already", first=True), name="c")
        await asyncio.sleep(0)
        assert (len(line), served) == (3, [])
        free.set()
        line.tell()
    assert (len(line), served) == (0, ["read already", "a", "b"])


async def test_whoever_gives_up_or_is_refused_is_in_nobodys_way() -> None:
    line = Line(queue=2, slots=1)

    def refuse(foremost: bool) -> str:
        raise BackendError(Fault.SERVER, "It is over.")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(line.turn(lambda foremost: None, first=False), 0)
    with pytest.raises(BackendError, match="over"):
        await line.turn(refuse, first=False)
    assert len(line) == 0


async def test_who_waits_for_the_line_to_be_empty_hears_of_it() -> None:
    line = Line(queue=2, slots=1)
    last = asyncio.ensure_future(line.turn(lambda foremost: None, first=False))
    await asyncio.sleep(0)
    emptied = asyncio.ensure_future(line.news())
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.wait_for(emptied, 5)
    assert len(line) == 0


@pytest.mark.parametrize(
    ("waiting", "up", "one_by_one", "words"),
    [
        (1, True, True, None),
        (2, True, True, "one request at a time"),
        (9, True, False, None),
        (4, False, False, None),
        (5, False, False, "being loaded"),
    ],
)
async def test_a_line_has_an_end(waiting: int, up: bool, one_by_one: bool, words: str | None) -> None:
    line = Line(queue=2, slots=3)
    tasks = [asyncio.ensure_future(line.turn(lambda foremost: None, first=number == 0)) for number in range(waiting)]
    await asyncio.sleep(0)
    refused = None
    try:
        line.refuse_if_full(up=up, one_by_one=one_by_one)
    except BackendError as error:
        refused = error
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (refused is None) == (words is None)
    if refused is not None:
        assert refused.fault is Fault.BUSY
        assert str(words) in refused.message
