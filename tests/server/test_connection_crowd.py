"""More connections than places, on real sockets: each hears an answer or when to come back, and nobody is cut off."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.server import connection
from appliance.server.crowd import ROOM
from tests.server.bounded import QUICK, BoundedStage, Client, bounded_stage, get, post, sentence, status

pytestmark = pytest.mark.live

PLACES = 20
FEW = replace(QUICK, connections=PLACES, idle=3600.0, head_time=3600.0, drain_time=2.0)
ASK = post(None, "connection: close", stream=True)
DONE = b"data: [DONE]\n\n"
BUSY = "The appliance has too many connections; come back soon."


@pytest.fixture
def door(tmp_path: Path) -> Iterator[BoundedStage]:
    with bounded_stage(tmp_path, FEW) as running:
        running.stage.play()
        try:
            yield running
        finally:
            running.all_leave()


async def heard(port: int, words: bytes) -> bytes:
    """All that one client of many hears; a reset is no end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words)
        return await reader.read()
    finally:
        writer.close()


async def burst(port: int, words: bytes, count: int) -> list[bytes | BaseException]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*(heard(port, words) for _ in range(count)), return_exceptions=True)


def told(found: list[bytes | BaseException]) -> Counter[int | str]:
    """How many heard what, by status; what is no whole answer is said as it is."""
    counted: Counter[int | str] = Counter()
    for one in found:
        if isinstance(one, BaseException) or not one:
            counted[f"cut: {one!r}"] += 1
        elif status(one) == 503:
            assert sentence(one) == BUSY
            assert b"\r\nretry-after: 1\r\n" in one
            counted[503] += 1
        else:
            counted[status(one) if DONE in one else f"torn: {one!r}"] += 1
    return counted


def held(door: BoundedStage, count: int) -> list[Client]:
    """So many clients in the middle of their answers."""
    door.stage.local.hold = asyncio.Event()
    busy = [door.say(ASK) for _ in range(count)]
    for one in busy:
        one.hear(door.stage.local.pieces[0].encode())
    return busy


def let_go(door: BoundedStage) -> None:
    hold, door.stage.local.hold = door.stage.local.hold, None
    assert hold is not None
    door.stage._loop.call_soon_threadsafe(hold.set)  # type: ignore[union-attr]


def test_of_a_burst_each_gets_an_answer_or_is_told_when_to_come_back(door: BoundedStage) -> None:
    counted = told(asyncio.run(burst(door.port, ASK, PLACES + 50)))
    assert set(counted) <= {200, 503}
    assert sum(counted.values()) == PLACES + 50
    assert counted[200] >= PLACES


@pytest.mark.parametrize("beyond", [50, 400])
def test_a_burst_takes_no_running_answer(door: BoundedStage, beyond: int) -> None:
    busy = held(door, PLACES)
    counted = told(asyncio.run(burst(door.port, ASK, beyond)))
    assert door.crowd.refusals.total == beyond, "each of them is told, once"
    if beyond <= ROOM:
        assert counted == {503: beyond}
    else:  # in a full room they are told at once; a reset of the system's may overtake the words, never an answer's
        cut = sum(count for what, count in counted.items() if str(what).startswith("cut: ConnectionReset"))
        assert (counted[503] > ROOM, counted[503] + cut) == (True, beyond)
    let_go(door)
    assert [one.to_end().count(DONE) for one in busy] == [1] * PLACES
    assert status(door.say(get()).hear()) == 200


def test_a_burst_that_has_much_to_say_hears_all_the_same(door: BoundedStage) -> None:
    held(door, PLACES)
    large = post(None, metadata="x" * 190_000)
    assert told(asyncio.run(burst(door.port, large, 50))) == {503: 50}


# ----------------------------------------------------------------------------------------------- who gives way


def test_who_was_answered_and_is_idle_gives_way_first_and_the_longest_idle_of_them(door: BoundedStage) -> None:
    new, first, second, *rest = [door.open() for _ in range(PLACES)]
    for one in (first, second, *rest):
        one.send(get())
        assert status(one.hear(b'"ok"}')) == 200
    assert status(door.say(get()).hear()) == 200
    assert first.to_end() == b""
    for one in (new, second, *rest):
        one.send(get())
        assert status(one.hear(b'"ok"}')) == 200


def test_who_is_new_and_has_not_asked_yet_keeps_its_place(door: BoundedStage) -> None:
    young = [door.open() for _ in range(PLACES)]
    assert status(door.say(get()).to_end()) == 503
    for one in young:
        one.send(get())
        assert status(one.hear(b'"ok"}')) == 200


def test_who_was_answered_and_has_begun_to_ask_again_keeps_its_place(door: BoundedStage) -> None:
    again = [door.open() for _ in range(PLACES)]
    for one in again:
        one.send(get())
        assert status(one.hear(b'"ok"}')) == 200
        one.send(get()[:-2])
    door.stage.until(lambda: sum(one._in_head for one in (*door.crowd.idle, *door.crowd.new)) == PLACES)
    assert status(door.say(get()).to_end()) == 503
    for one in again:
        one.send(b"\r\n")
        assert status(one.hear(b'"ok"}')) == 200


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT"], ids=["silent", "in the middle of its head"])
def test_who_has_been_silent_for_too_long_gives_way_and_hears_why(
    door: BoundedStage, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "ASKS_WITHIN", 0.05)
    door.crowd.patience = 0.0
    silent = [door.say(begun) for _ in range(PLACES)]
    door.stage.until(lambda: sum(one._in_head for one in door.crowd.new) == PLACES * bool(begun))
    assert status(door.say(get()).hear()) == 200
    rest = silent[0].to_end()
    assert (status(rest), sentence(rest)) == (503, BUSY)


# ------------------------------------------------------------------------------------------- who hears it when


def test_who_is_refused_hears_so_when_it_has_asked_and_not_before(
    door: BoundedStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ASKS_WITHIN", 3600.0)
    held(door, PLACES)
    late = door.open()
    door.stage.until(lambda: len(door.crowd.leaving) == 1)
    late.send(get()[:-2])
    door.stage.until(lambda: any(one._in_head for one in door.crowd.leaving))
    late.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        late.socket.recv(1)
    late.socket.settimeout(20)
    late.send(b"\r\n")
    rest = late.to_end()
    assert (status(rest), sentence(rest)) == (503, BUSY)
    assert b"\r\nretry-after: 1\r\n" in rest


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT"], ids=["silent", "in the middle of its head"])
def test_who_is_refused_and_does_not_ask_is_told_after_a_while(
    door: BoundedStage, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "ASKS_WITHIN", 0.05)
    held(door, PLACES)
    rest = door.say(begun).to_end()
    assert (status(rest), sentence(rest)) == (503, BUSY)


def test_it_hears_so_in_its_dialect(door: BoundedStage) -> None:
    held(door, PLACES)
    rest = door.say(get("/v1/messages")).to_end()
    error = json.loads(rest.partition(b"\r\n\r\n")[2])
    assert (status(rest), error["type"], error["error"]["message"]) == (503, "error", BUSY)


def test_a_place_that_is_free_again_is_given_to_the_next(door: BoundedStage) -> None:
    busy = held(door, PLACES)
    assert status(door.say(get()).to_end()) == 503
    busy.pop().close()
    door.stage.until(lambda: door.stage.local.running == PLACES - 1)
    assert status(door.say(get()).hear()) == 200
