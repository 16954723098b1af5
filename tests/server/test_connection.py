"""Clients that are slow, broken or hostile, on bare sockets: each loses its own connection, and nobody else's."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.server.bounded import QUICK, BoundedStage, bounded_stage, get, post, sentence, status

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def _door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BoundedStage]:
    with bounded_stage(tmp_path_factory.mktemp("door")) as running:
        yield running


@pytest.fixture
def door(_door: BoundedStage) -> Iterator[BoundedStage]:
    """The box with short limits, alone; after the test it answers, and nothing is left running."""
    _door.stage.local.hold = None
    _door.stage.local.asked.clear()
    _door.stage.play()
    yield _door
    _door.all_leave()
    assert _door.stage.get("/healthz").status_code == 200
    _door.stage.until(lambda: _door.stage.local.running == 0)
    _door.stage.until(lambda: _door.crowd.waiting <= 1)  # the stage's own client


# ----------------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize(
    ("head", "code", "what"),
    [
        (get("/healthz", "x: " + "y" * 5000), 431, "header block"),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 20_000, 431, "header block"),
        (get("/healthz", *["x: y"] * 20), 431, "more than 20 header fields"),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 5000, 431, "more than 20 header fields"),
        (get("/" + "x" * 1000), 414, "URL is longer"),
        (get("/healthz", "host: localhost"), 400, "more than one Host"),
        (b"\x00\x01\x02\r\n\r\n", 400, "cannot be read|can be read"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "can be read"),
        (get("/healthz", "x: a\x00b"), 400, "can be read"),
        (get("/healthz", "x : y"), 400, "can be read"),
        (b"GET /healthz HTTP/9.9\r\nhost: localhost\r\n\r\n", 400, "can be read"),
        (b"GET /health z HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "can be read"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "can be read"),
        (post(b"{}", "transfer-encoding: chunked, identity"), 400, "can be read"),
        (post(b"{}", "content-length: 2"), 400, "can be read"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "can be read"),
    ],
    ids=[
        "large field", "endless field", "many fields", "very many fields", "long url", "two hosts", "nonsense", "http2",
        "nul",
        "space before colon", "version", "space in url", "tls", "te", "two lengths", "connect",
    ],
)  # fmt: skip
def test_a_head_that_breaks_a_rule_is_refused_in_one_sentence(
    door: BoundedStage, head: bytes, code: int, what: str
) -> None:
    heard = door.say(head).to_end()
    assert status(heard) == code
    assert any(part in sentence(heard) for part in what.split("|"))
    assert b"connection: close" in heard


def test_length_and_chunks_together_are_refused(door: BoundedStage) -> None:
    body = b"0\r\n\r\nGET /appliance/status HTTP/1.1\r\nhost: localhost\r\n\r\n"
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "transfer-encoding: chunked", "", ""]).encode()
    heard = door.say(head + body).to_end()
    assert heard.count(b"\r\ndate:") == 1
    assert status(heard) == 400


def test_a_refusal_is_heard_by_a_client_that_goes_on_sending(door: BoundedStage) -> None:
    client = door.say(b"GET /healthz HTTP/1.1\r\n")
    for _ in range(100):
        client.send(b"x: " + b"y" * 50_000 + b"\r\n")
    assert status(client.hear()) == 431


def test_who_is_refused_and_goes_on_sending_is_cut_off(door: BoundedStage) -> None:
    client = door.say(b"nonsense\r\n\r\n")
    with pytest.raises(OSError):
        while True:
            client.send(b"x" * 1000)


def test_a_head_that_does_not_come_to_its_end_is_cut_off(door: BoundedStage) -> None:
    client = door.say(b"GET /healthz HTTP/1.1\r\n")
    begun = door.stage.now()
    heard = client.to_end()
    assert status(heard) == 408
    assert "0.1 s" in sentence(heard)
    assert 0.05 < door.stage.now() - begun < 5


def test_a_head_that_drips_is_cut_off_all_the_same(door: BoundedStage) -> None:
    client = door.say(b"GET /healthz HTTP/1.1\r\nx: ")
    client.socket.settimeout(0.01)
    heard = b""
    while not heard:
        with suppress(TimeoutError):
            heard = client.socket.recv(65536)
        if not heard:
            client.send(b"y")
    assert status(heard) == 408


@pytest.mark.parametrize("before", [b"", b"\r\n", get()])
def test_a_connection_without_a_request_is_closed_after_a_while(door: BoundedStage, before: bytes) -> None:
    client = door.say(before)
    begun = door.stage.now()
    heard = client.to_end()
    assert heard.count(b"HTTP/1.1 200") == (before == get())
    assert b"408" not in heard
    assert 0.2 < door.stage.now() - begun < 5


def test_a_second_request_on_a_connection_has_all_its_time_again(door: BoundedStage) -> None:
    client = door.open()
    for _ in range(3):
        client.send(get())
        assert status(client.hear(b'"ok"}')) == 200


# ----------------------------------------------------------------------------------------------------- the body


def test_a_body_that_stalls_is_a_408_and_the_end_of_the_connection(door: BoundedStage) -> None:
    heard = door.say(post(b'{"model": ', length=500)).to_end()
    assert status(heard) == 408
    assert "in time" in sentence(heard)
    assert b"connection: close" in heard


def test_a_body_that_drips_is_a_408(door: BoundedStage) -> None:
    client = door.say(post(b"{", length=500))
    client.socket.settimeout(0.02)
    begun, heard = door.stage.now(), b""
    while not heard:
        with suppress(TimeoutError):
            heard = client.socket.recv(65536)
        if not heard:
            client.send(b" ")
    assert status(heard) == 408
    assert door.stage.now() - begun > QUICK.body_time - 0.1


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\n", b"-1\r\nx\r\n", b"5\r\nab", b"fffffffffffffffff\r\n", b"1;" + b"x" * 20_000, b"2\r\n{}XX"],
    ids=["no size", "negative", "short", "overflow", "endless extension", "no line end"],
)
def test_broken_chunks_are_refused(door: BoundedStage, chunks: bytes) -> None:
    heard = door.say(post(chunks, "transfer-encoding: chunked")).to_end()
    assert status(heard) in (400, 408)
    sentence(heard)
    assert door.stage.local.asked == []


def test_an_endless_trailer_is_refused(door: BoundedStage) -> None:
    client = door.say(post(b"2\r\n{}\r\n0\r\nx: ", "transfer-encoding: chunked"), b"y" * 20_000)
    assert status(client.to_end()) == 400


def test_a_trailer_is_never_a_header(door: BoundedStage) -> None:
    body = post().partition(b"\r\n\r\n")[2]
    chunked = b"%x\r\n%b\r\n0\r\nx-appliance-route: nowhere\r\norigin: https://evil.example\r\n\r\n" % (len(body), body)
    client = door.say(post(chunked, "transfer-encoding: chunked"))
    assert status(client.hear()) == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nowhere"])
def test_who_asks_before_sending_a_body_that_is_refused_need_not_send_it(door: BoundedStage, path: str) -> None:
    head = post(b"", "expect: 100-continue", length=500_000).replace(b"/v1/chat/completions", path.encode())
    heard = door.say(head).to_end()
    assert status(heard) == (413 if "chat" in path else 404)
    assert b"100 Continue" not in heard


def test_who_asks_before_sending_a_body_that_is_fine_is_told_to(door: BoundedStage) -> None:
    whole = post(None, "expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    client = door.say(head + b"\r\n\r\n")
    assert status(client.hear()) == 100
    client.send(body)
    assert status(client.hear()) == 200


def test_the_rest_of_a_body_that_nobody_wants_is_waited_for_only_a_while(door: BoundedStage) -> None:
    client = door.say(get("/healthz", "content-length: 1000000"))
    heard = client.hear(b'"ok"}')
    assert status(heard) == 200
    with suppress(ConnectionError):
        assert client.to_end() == b""


def test_a_refused_body_is_drained_only_for_a_while(door: BoundedStage) -> None:
    client = door.say(post(b"x" * 300_000, length=10_000_000))
    heard = client.hear()
    assert status(heard) == 413
    assert b"connection: close" in heard


def test_bodies_share_one_room_and_give_it_back(door: BoundedStage) -> None:
    door.stage.local.hold = asyncio.Event()
    large = post(metadata="x" * 160_000, stream=True)
    first = door.say(large)
    door.stage.until(lambda: door.stage.local.running == 1)
    heard = door.say(large).hear(b"}}")
    assert status(heard) == 503
    assert "room for bodies" in sentence(heard)
    assert b"retry-after: 2" in heard
    first.close()
    door.stage.until(lambda: door.stage.local.running == 0)
    door.stage.local.hold = None
    assert status(door.say(large).hear()) == 200


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"messages": [{"role": "user", "content": "x"}] * 51}, 400, "51 messages; at most 50"),
        ({"metadata": list(range(3000))}, 400, "more than 2,000 values"),
        ({"metadata": eval("[" * 80 + "]" * 80)}, 400, "nested deeper than 64"),
        ({"stop": ["x"] * 17}, 400, "at most 16 strings"),
        ({"stop": "x" * 257}, 400, "256 characters"),
    ],
    ids=["messages", "values", "depth", "stops", "long stop"],
)
def test_too_much_of_something_is_a_400(door: BoundedStage, changes: dict[str, object], code: int, words: str) -> None:
    heard = door.say(post(None, "connection: close", **changes)).to_end()
    assert status(heard) == code
    assert words in sentence(heard)


# ------------------------------------------------------------------------------------------- one after the other


def test_a_second_request_before_the_first_answer_is_complete_is_not_read(door: BoundedStage) -> None:
    door.stage.local.hold = asyncio.Event()
    client = door.say(post(stream=True) + post(stream=True) * 20)
    client.hear(door.stage.local.pieces[0].encode())
    door.stage._loop.call_soon_threadsafe(door.stage.local.hold.set)  # type: ignore[union-attr]
    rest = client.to_end()
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert rest.count(b"HTTP/1.1") == 0
    assert len(door.stage.local.asked) == 1


def test_bytes_after_a_body_do_not_break_its_answer(door: BoundedStage) -> None:
    heard = door.say(post(stream=True) + b"and some more nonsense").to_end()
    assert status(heard) == 200
    assert b"data: [DONE]" in heard
    assert heard.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "h2c, websocket"])
def test_a_wish_to_upgrade_is_passed_over(door: BoundedStage, upgrade: str) -> None:
    client = door.open()
    for _ in range(2):
        client.send(
            post(None, f"upgrade: {upgrade}", "connection: upgrade, http2-settings", "http2-settings: AAMAAABk")
        )
        assert status(client.hear(b'"object":"chat.completion"')) == 200


def test_http_1_0_and_an_absolute_address_are_understood(door: BoundedStage) -> None:
    heard = door.say(b"GET http://localhost/healthz HTTP/1.0\r\nhost: localhost\r\n\r\n").to_end()
    assert status(heard) == 200


# ------------------------------------------------------------------------------------------ who does not read


def torrent(door: BoundedStage) -> None:
    """More words than any buffer holds."""
    door.stage.local.pieces = ("x" * 200_000,) * 200


def test_who_does_not_read_is_cut_off_and_its_slot_is_free(door: BoundedStage) -> None:
    pieces = door.stage.local.pieces
    torrent(door)
    before = door.crowd.cut_off
    deaf = door.say(post(stream=True))
    try:
        door.stage.until(lambda: door.stage.local.running == 1)
        door.stage.until(lambda: door.stage.local.running == 0)
        assert door.crowd.cut_off == before + 1
        with pytest.raises(OSError):
            deaf.to_end()
    finally:
        door.stage.local.pieces = pieces


def test_who_does_not_read_a_whole_answer_does_not_keep_its_connection(door: BoundedStage) -> None:
    pieces = door.stage.local.pieces
    torrent(door)
    before = door.crowd.cut_off
    deaf = door.say(post(None, "connection: close", stream=False))
    try:
        door.stage.until(lambda: door.crowd.cut_off == before + 1)
        with pytest.raises(OSError):
            deaf.to_end()
    finally:
        door.stage.local.pieces = pieces


def test_who_reads_slowly_gets_everything(door: BoundedStage) -> None:
    pieces = door.stage.local.pieces
    torrent(door)
    slow = door.say(post(None, "connection: close", stream=True))
    heard = 0
    try:
        slow.socket.settimeout(5)
        begun = door.stage.now()
        while data := slow.socket.recv(1_000_000):
            heard += len(data)
            if door.stage.now() - begun < 4 * QUICK.write_stall:
                door.stage.call(asyncio.sleep(0.05))
    finally:
        door.stage.local.pieces = pieces
    assert heard > 200 * 200_000


def test_closing_the_sending_half_is_leaving(door: BoundedStage) -> None:
    door.stage.local.hold = asyncio.Event()
    client = door.say(post(stream=True))
    client.hear(door.stage.local.pieces[0].encode())
    client.socket.shutdown(socket.SHUT_WR)
    door.stage.until(lambda: door.stage.local.running == 0)
    assert client.to_end() == b""


# ------------------------------------------------------------------------------------------------- many at once


def test_a_flood_of_refusals_is_not_a_flood_of_lines(door: BoundedStage, caplog: pytest.LogCaptureFixture) -> None:
    before = door.crowd.refusals.total
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            assert status(door.say(b"nonsense\r\n\r\n").to_end()) == 400
    assert door.crowd.refusals.total == before + 50
    assert len([one for one in caplog.records if "nonsense" in one.message or "refused" in one.message]) <= 1
    assert "Invalid HTTP" not in caplog.text
