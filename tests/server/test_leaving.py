"""A client that leaves is nobody's failure, and its work stops at once: in the cloud and on the box."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from appliance.drills.cloud import Exchange
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import BODY, Stage

pytestmark = pytest.mark.live


async def endless(exchange: Exchange) -> None:
    """A cloud that never comes to its end."""
    await exchange.open()
    await exchange.role()
    while True:
        await exchange.event(exchange.chunk({"content": "and on "}))
        exchange.text += "and on "
        await exchange.pause(0.005)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(box: Stage) -> Iterator[None]:
    before = box.appliance.journal.counts.failed
    yield
    box.until(lambda: box.appliance.journal.counts.running == 0)
    assert box.local.running == 0
    assert box.appliance.journal.counts.failed == before
    for upstream in box.get("/appliance/status").json()["upstreams"]:
        assert (upstream["state"], upstream["failures"]) == ("closed", 0)


def client(box: Stage, *, stream: bool, part: bytes | None = None, **headers: str) -> socket.socket:
    """A client that has sent its request, or a `part` of it."""
    body = json.dumps({**BODY, "stream": stream}).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    connection = socket.create_connection(("127.0.0.1", int(box.url.rpartition(":")[2])), timeout=20)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body if part is None else part))
    return connection


def hear(connection: socket.socket, wanted: bytes) -> None:
    heard = b""
    while wanted not in heard:
        data = connection.recv(65536)
        assert data, "the box hung up"
        heard += data


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


BY = pytest.mark.parametrize("leave", [close, reset])


@BY
def test_who_leaves_in_mid_stream_stops_the_cloud(box: Stage, leave: Callable[[socket.socket], None]) -> None:
    box.play(endless)
    connection = client(box, stream=True)
    hear(connection, b"and on ")
    assert box.appliance.journal.counts.running == 1
    leave(connection)
    box.call(box.cloud.departed.wait())
    assert box.cloud.left_early == 1
    box.until(lambda: box.cloud.open_connections == 0)


@BY
def test_who_leaves_while_a_whole_answer_is_made_stops_the_cloud(
    box: Stage, leave: Callable[[socket.socket], None]
) -> None:
    box.play(FAULTS["stall"].act)
    connection = client(box, stream=False)
    box.until(lambda: len(box.cloud.exchanges) == 1)
    leave(connection)
    box.call(box.cloud.departed.wait())


@BY
@pytest.mark.parametrize("name", ["black-hole", "pings"])
def test_who_leaves_before_the_first_word_stops_the_cloud(
    box: Stage, name: str, leave: Callable[[socket.socket], None]
) -> None:
    box.play(FAULTS[name].act)
    connection = client(box, stream=True)
    box.until(lambda: len(box.cloud.exchanges) == 1)
    leave(connection)
    box.call(box.cloud.departed.wait())
    assert box.local.asked == []


@BY
@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_the_box_answers_stops_the_box(
    box: Stage, stream: bool, leave: Callable[[socket.socket], None]
) -> None:
    box.play()
    box.local.hold = asyncio.Event()
    connection = client(box, stream=stream)
    if stream:
        hear(connection, box.local.pieces[0].encode())
    box.until(lambda: box.local.running == 1)
    leave(connection)
    box.until(lambda: box.local.running == 0)


def test_who_leaves_after_a_takeover_stops_the_box(box: Stage) -> None:
    box.play(FAULTS["server-error"].act)
    box.local.hold = asyncio.Event()
    connection = client(box, stream=True)
    hear(connection, box.local.pieces[0].encode())
    connection.close()
    box.until(lambda: box.local.running == 0)
    box.appliance.reset(None)  # the cloud's own failure was real


def test_who_leaves_with_half_a_request_sent_leaves_nothing_behind(box: Stage) -> None:
    box.play(HEALTHY.act)
    for part in (b"", b'{"model": "gpt'):
        client(box, stream=True, part=part).close()
    assert box.ask().text == box.cloud.script.text
    assert len(box.cloud.exchanges) == 1


def test_a_crowd_that_leaves_leaves_nothing_behind(box: Stage) -> None:
    box.play(endless)
    crowd = [client(box, stream=True) for _ in range(20)]
    for connection in crowd:
        hear(connection, b"and on ")
    assert box.appliance.journal.counts.running == 20
    for connection in crowd:
        connection.close()
    box.until(lambda: box.cloud.left_early == 20)
    box.until(lambda: box.cloud.open_connections == 0)


def test_a_client_that_does_not_read_holds_up_nobody_else(box: Stage) -> None:
    async def torrent(exchange: Exchange) -> None:
        await exchange.open()
        while True:
            await exchange.event(exchange.chunk({"content": "x" * 60_000}))
            exchange.text += "x"
            await exchange.pause(0)

    box.play(torrent, HEALTHY.act)
    deaf = client(box, stream=True)
    seen: list[int] = []

    def held_up() -> bool:
        """The cloud is made to wait: the box does not pile up what the client does not take."""
        seen.append(len(box.cloud.exchanges[0].text) if box.cloud.exchanges else 0)
        return len(seen) > 50 and seen[-1] == seen[-50] > 0

    box.until(held_up)
    assert seen[-1] * 60_000 < 64 * 1024 * 1024
    heard = box.ask(headers={"x-appliance-route": "second"})
    assert heard.text == box.clouds[1].script.text
    deaf.close()
    box.call(box.cloud.departed.wait())
