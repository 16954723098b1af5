"""The failing cloud breaks on the wire as it says: looked at from a bare socket, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import cache

import pytest
import uvloop

from appliance.core.drip import READING
from appliance.core.quality import Taste
from appliance.drills.acts import DRIP
from appliance.drills.cloud import STORY, FailingCloud, Script
from appliance.drills.exchange import Exchange
from appliance.drills.faults import FAULTS, FLAWS, HEALTHY, OUTCOMES, CloudFault

pytestmark = pytest.mark.live

WAIT = 0.15
EVERY = {fault.name: fault for fault in (HEALTHY, *FAULTS.values())}


def request(*, stream: bool, method: str = "POST", path: str = "/v1/chat/completions", more: str = "") -> bytes:
    body = json.dumps({"model": "m", "stream": stream, "messages": []}).encode() if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: cloud\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def hear(cloud: FailingCloud, asked: bytes, *, rest: float = WAIT) -> tuple[bytes, str]:
    """Everything that comes, for `rest` behind the first of it, and the end: "closed", "reset", "refused" or "open"."""
    port = int(cloud.base_url.split(":")[2].partition("/")[0])
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return b"", "refused"
    writer.write(asked)
    heard = b""
    try:
        async with asyncio.timeout(4 * WAIT):  # this machine may have others to serve
            heard = await reader.read(65536)
        async with asyncio.timeout(rest):
            while data := await reader.read(65536):
                heard += data
        return heard, "closed"
    except TimeoutError:
        return heard, "open"
    except ConnectionResetError:
        return heard, "reset"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


Told = tuple[bytes, str, FailingCloud]


async def tell(fault: CloudFault, *, stream: bool, path: str, rest: float = WAIT, **script: object) -> Told:
    async with FailingCloud(fault.act, script=Script(**script)) as cloud:  # type: ignore[arg-type]
        heard, end = await hear(cloud, request(stream=stream, path=path), rest=rest)
    return heard, end, cloud


@cache
def told(stream: bool, path: str) -> dict[str, Told]:
    """By every fault there is: each is a cloud of its own and nearly all of it is waiting, so some wait together."""

    async def play() -> list[Told]:
        some = asyncio.Semaphore(8)

        async def one(fault: CloudFault) -> Told:
            async with some:
                return await tell(fault, stream=stream, path=path, rest=2 * WAIT)

        return await asyncio.gather(*map(one, EVERY.values()))

    return dict(zip(EVERY, asyncio.run(play()), strict=True))


def on_the_wire(fault: CloudFault, *, stream: bool, path: str = "/v1/chat/completions", **script: object) -> Told:
    if not script and fault.name in EVERY:
        return told(stream, path)[fault.name]
    return asyncio.run(tell(fault, stream=stream, path=path, **script))


def body_of(heard: bytes) -> bytes:
    """The body, out of its chunks if it has any; what is half there is left as it is."""
    head, _, body = heard.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return body
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size or b"0", 16)
        found, body = found + body[:count], body[count + 2 :]
    return found


@pytest.mark.parametrize("fault", [HEALTHY, *FAULTS.values()], ids=lambda fault: fault.name)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_is_on_record_is_what_was_sent(fault: CloudFault, stream: bool, path: str) -> None:
    heard, end, cloud = on_the_wire(fault, stream=stream, path=path)
    if end == "refused":
        assert cloud.exchanges == []
        return
    (exchange,) = cloud.exchanges
    assert body_of(heard) == bytes(exchange.sent)[: len(body_of(heard))]
    assert len(body_of(heard)) == len(exchange.sent) or "pings" in fault.name
    pieces = []
    for event in bytes(exchange.sent).split(b"\n\n")[:-1] if stream else []:
        _, _, data = event.rpartition(b"data: ")
        try:
            found = json.loads(data)
        except ValueError:
            continue  # [DONE], or garbage on purpose
        if path == "/v1/messages":
            pieces.append(found.get("delta", {}).get("text", ""))
        elif found.get("choices"):
            pieces.append(found["choices"][0]["delta"].get("content", ""))
    if stream:
        assert "".join(pieces) == exchange.text
    assert STORY.startswith(exchange.text)


ENDS = {
    "refused": ("refused", "refused"),
    "black-hole": ("open", "open"),
    "reset": ("reset", "reset"),
    "stray-close": ("closed", "closed"),
    "half-headers": ("open", "open"),
    "drip": ("open", "open"),
    "cut-headers": ("reset", "reset"),
    "pings": ("open", "open"),
    "role-then-death": ("reset", "reset"),
    "cut-reset": ("reset", "reset"),
    "cut-close": ("closed", "closed"),
    "stall": ("open", "open"),
    "half-event": ("reset", "reset"),
    "half-character": ("reset", "reset"),
    "reset-after-finish": ("reset", "reset"),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_connection_ends_as_the_fault_says(name: str, stream: bool, path: str) -> None:
    heard, end, _ = on_the_wire(FAULTS[name], stream=stream, path=path)
    assert end == ENDS[name][0 if stream else 1]
    if name in ("black-hole", "reset"):
        assert heard == b""
    elif name == "cut-close" and stream:
        assert not heard.endswith(b"0\r\n\r\n")


def test_the_kinds_of_death_in_mid_answer_are_what_they_say() -> None:
    names = "half-event half-character no-finish done-too-early no-done error-event pings captive-portal empty".split()
    bodies = {name: body_of(on_the_wire(FAULTS[name], stream=True)[0]) for name in names}
    assert bodies["half-event"].split(b"\n\n")[-1].startswith(b"data: {")
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        bodies["half-character"].decode()
    assert b'finish_reason":"stop' not in bodies["no-finish"]
    assert b'finish_reason":"stop' not in bodies["done-too-early"]
    assert bodies["done-too-early"].endswith(b"data: [DONE]\n\n")
    assert b'"stop"' in bodies["no-done"]
    assert b"[DONE]" not in bodies["no-done"]
    assert bodies["error-event"].split(b"\n\n")[-2].startswith(b'data: {"error":')
    assert bodies["pings"].count(b": keep-alive\n\n") > 1
    assert bodies["captive-portal"].startswith(b"<!doctype html>")
    assert bodies["empty"] == b""


def test_the_kinds_of_death_in_the_other_wire_are_what_they_say() -> None:
    names = "half-event half-character no-finish done-too-early no-done error-event pings captive-portal empty".split()
    bodies = {name: body_of(on_the_wire(FAULTS[name], stream=True, path="/v1/messages")[0]) for name in names}
    last = bodies["half-event"].split(b"\n\n")[-1]
    assert last.startswith(b'event: content_block_delta\ndata: {"type":"content_block_delta"')
    assert not last.endswith(b"}")
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        bodies["half-character"].decode()
    assert b"message_delta" not in bodies["no-finish"]
    assert b"content_block_stop" not in bodies["no-finish"]
    assert b"message_delta" not in bodies["done-too-early"]
    assert bodies["done-too-early"].endswith(b"data: [DONE]\n\n")
    assert b'"stop_reason":"end_turn"' in bodies["no-done"]
    assert b"message_stop" not in bodies["no-done"]
    assert bodies["error-event"].split(b"\n\n")[-2].startswith(b'event: error\ndata: {"type":"error",')
    assert bodies["pings"].count(b'event: ping\ndata: {"type": "ping"}\n\n') > 2
    assert b"content_block_delta" not in bodies["pings"]
    assert bodies["captive-portal"].startswith(b"<!doctype html>")
    assert bodies["empty"] == b""


def test_a_clean_end_without_a_finish_reason_is_a_clean_end_of_http() -> None:
    heard, end, _ = on_the_wire(FAULTS["no-finish"], stream=True)
    assert heard.endswith(b"0\r\n\r\n")
    assert end == "open"  # the connection could be used again


def test_a_whole_answer_that_breaks_off_had_promised_more() -> None:
    heard, _, cloud = on_the_wire(FAULTS["cut-close"], stream=False)
    head, _, body = heard.partition(b"\r\n\r\n")
    promised = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(body) < promised == len(cloud.exchanges[0].whole())


def test_one_connection_carries_many_requests() -> None:
    async def play() -> tuple[bytes, int]:
        async with FailingCloud(HEALTHY.act) as cloud:
            heard, _ = await hear(cloud, request(stream=False) * 3)
            return heard, len(cloud.exchanges)

    heard, count = asyncio.run(play())
    assert (heard.count(b"HTTP/1.1 200"), count) == (3, 3)


VERSION = "anthropic-version: 2023-06-01\r\n"


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "holds"),
    [
        ("GET", "/v1/models", "", 200, {"object": "list"}),
        ("GET", "/v1/models", VERSION, 200, {"has_more": False}),
        ("GET", "/v1/nothing", "", 404, {}),
        ("GET", "/v1/nothing", VERSION, 404, {"type": "error"}),
        ("POST", "/", "", 404, {}),
        ("POST", "/messages", "", 200, {"type": "message"}),
        ("POST", "/v1/messages?beta=true", "", 200, {"type": "message"}),
        ("POST", "/chat/completions", "", 200, {"object": "chat.completion"}),
        ("POST", "/v1/messages/count_tokens?beta=true", "", 200, {"input_tokens": 11}),
    ],
)
def test_it_knows_its_routes_and_answers_in_the_wire_it_is_asked_in(
    method: str, path: str, more: str, status: int, holds: dict[str, object]
) -> None:
    async def play() -> bytes:
        async with FailingCloud(HEALTHY.act) as cloud:
            return (await hear(cloud, request(stream=False, method=method, path=path, more=more)))[0]

    heard = asyncio.run(play())
    assert heard.startswith(f"HTTP/1.1 {status} ".encode())
    found = json.loads(body_of(heard))
    assert {key: found.get(key) for key in holds} == holds
    assert found.keys() & {"error", "type"} if status == 404 else True


def test_a_head_request_gets_no_body() -> None:
    async def play() -> bytes:
        async with FailingCloud(HEALTHY.act) as cloud:
            return (await hear(cloud, request(stream=False, method="HEAD", path="/", more=VERSION) * 2))[0]

    heard = asyncio.run(play())
    assert heard.count(b"HTTP/1.1 404") == 2
    assert heard.endswith(b"\r\n\r\n")


def test_its_address_is_written_as_a_configuration_of_that_wire_writes_it() -> None:
    async def play(api: str) -> str:
        async with FailingCloud(HEALTHY.act, api=api) as cloud:
            return cloud.base_url.removeprefix(cloud.root)

    assert (asyncio.run(play("openai")), asyncio.run(play("anthropic"))) == ("/v1", "")


@pytest.mark.parametrize("name", ["black-hole", "stall", "pings", "late-pings", "garbage"])
def test_a_client_that_leaves_is_noticed(name: str) -> None:
    async def play() -> int:
        async with FailingCloud(FAULTS[name].act) as cloud:
            await hear(cloud, request(stream=True))
            async with asyncio.timeout(5):
                await cloud.departed.wait()
            return cloud.left_early

    assert asyncio.run(play()) == 1


def test_a_client_that_stays_to_the_end_did_not_leave() -> None:
    assert on_the_wire(HEALTHY, stream=True)[2].left_early == 0


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_closed_under_it_is_a_client_that_left(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def goes_on(exchange: Exchange) -> None:
        await exchange.open()
        await exchange.reset()
        for _ in range(5):  # the loop lets go of the transport
            await asyncio.sleep(0)
        await exchange.role()

    async def play() -> int:
        async with FailingCloud(goes_on) as cloud:
            await hear(cloud, request(stream=True))
            await asyncio.wait_for(cloud.departed.wait(), 20)
            return cloud.left_early

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(play()) == 1


def test_nothing_outlives_it() -> None:
    async def play(ask: Callable[[FailingCloud], Awaitable[object]]) -> int:
        async with FailingCloud(FAULTS["black-hole"].act) as cloud:
            await ask(cloud)
        return cloud.open_connections + len(asyncio.all_tasks()) - 1

    async def connect(cloud: FailingCloud) -> asyncio.StreamWriter:
        port = int(cloud.base_url.split(":")[2].partition("/")[0])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(stream=True))
        while not cloud.exchanges:  # noqa: ASYNC110 - it has no event for the beginning
            await asyncio.sleep(0)
        writer.transport.abort()
        return writer

    assert asyncio.run(play(connect)) == 0


def test_it_fails_after_as_many_pieces_as_it_is_told() -> None:
    for after in (1, 2, 9):
        assert on_the_wire(FAULTS["cut-reset"], stream=True, after=after)[2].exchanges[0].text == "".join(
            Script().pieces[:after]
        )


# ------------------------------------------------------------------------------------ bad rather than dead


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("name", "flaw"), [("repetition", "repetition"), ("mangled", "mangled")])
def test_a_bad_answer_is_complete_and_bad(name: str, flaw: str, stream: bool, path: str) -> None:
    heard, _, cloud = on_the_wire(FLAWS[name], stream=stream, path=path)
    said = cloud.exchanges[0].text
    taste = Taste()
    complaints = [taste.tell(said), taste.finish(), taste.finish()]
    assert [complaint.flaw for complaint in complaints if complaint is not None] == [flaw]
    assert len(said) > 400
    assert (b"[DONE]" in heard or b"message_stop" in heard) is stream


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_empty_answer_is_complete_and_empty(stream: bool, path: str) -> None:
    heard, _, cloud = on_the_wire(FAULTS["empty-answer"], stream=stream, path=path)
    assert cloud.exchanges[0].text == ""
    assert b'"stop"' in heard or b'"end_turn"' in heard
    assert b"200 Drill" in heard


def test_a_drip_is_neither_silent_nor_of_any_use() -> None:
    _, end, cloud = on_the_wire(FAULTS["drip"], stream=True, after=1)
    assert end == "open"
    assert cloud.exchanges[0].text.startswith(Script().pieces[0])
    letters = sum(map(len, Script().pieces)) / len(Script().pieces)
    assert letters / DRIP < READING


# ----------------------------------------------------------------------------------------------- the table


def test_the_pieces_are_the_text_and_cut_words_in_two() -> None:
    for text in (STORY, "", " ", "a  b\n", "\n\nx", "lighthouse"):
        assert "".join(Script(text=text).pieces) == text
    assert Script(text="lighthouse").pieces == ("lighth", "ouse")


def test_the_story_has_a_character_of_several_bytes_to_be_cut() -> None:
    assert any(len(character.encode()) > 1 for character in STORY)


def test_names_and_words_are_fit_for_a_command_line() -> None:
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert name.replace("-", "").isalnum()
        assert name.islower()
        assert fault.says
        assert {fault.streamed, fault.whole} <= set(OUTCOMES)


def test_only_a_cloud_that_ends_well_has_no_reason() -> None:
    for fault in FAULTS.values():
        assert (fault.reason is None) == (fault.streamed == "cloud")
