"""Ways to fail before there is a cloud at all: nobody there, somebody else there, or somebody in between. The box
answers, the key stays here, and the log and the journal say what it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from appliance.backends import transport
from appliance.config import TimeoutConfig
from appliance.core import again
from appliance.core.fault import Fault
from appliance.drills.application import Heard
from appliance.drills.cloud import Exchange, FailingCloud
from appliance.drills.doors import DOORS, HOST, Behind, Door, impostor
from appliance.drills.faults import HEALTHY
from tests.fakes import KEY, PATIENCE, PATIENT, Stage

pytestmark = pytest.mark.live

T = TypeVar("T")

# A handshake takes its time as well, so only who is never let in is waited for this briefly.
SHORT = TimeoutConfig(connect=0.1, first_content=PATIENCE, stall=PATIENCE, total=PATIENCE)
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

REFUSED = "cloud cannot be reached: it refused the connection."
LATE = "cloud did not accept a connection in time."
NO_TLS_IN_TIME = "cloud took the connection, but the TLS handshake did not end in time."
NO_TLS = "cloud speaks no TLS on that port."
NO_PROOF = "cloud could not prove who it is: its certificate"
PROXY = "cloud cannot be reached: its proxy refused."
NO_PROXY = "cloud cannot be reached: its proxy refused the connection."
SENTENCES = {
    # The second: where no resolver answers at all.
    "no-such-name": tuple(
        f"cloud cannot be reached: its name {why}." for why in ("was not found", "could not be looked up")
    ),
    "no-answer": (LATE,),
    "tls-expired": (f"{NO_PROOF} has expired.",),
    "spoofed-name": (f"{NO_PROOF} is for another name.",),
    "self-signed": (f"{NO_PROOF} is of an authority that is not known here.",),
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it waits before it asks the same cloud again is not the question here."""
    monkeypatch.setattr(again, "BACK_OFF", 0.02)


@pytest.fixture
def opened(box: Stage) -> Iterator[Callable[[AbstractAsyncContextManager[T]], T]]:
    """Opens something on the stage's loop; it is closed with the test."""
    stack = AsyncExitStack()
    yield lambda what: box.call(stack.enter_async_context(what))
    box.call(stack.aclose())


Opened = Callable[[AbstractAsyncContextManager[T]], T]


class Listener:
    """Somebody at a port: how often it was knocked at, and what came first. He says one thing and hangs up, or is
    silent until he is left."""

    def __init__(self, says: bytes | None = b"") -> None:
        self.knocks = 0
        self.heard = b""
        self._says = says

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[str, None]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        async with server:
            yield f"{HOST}:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        self.heard += await reader.read(65536)
        if self._says is None:
            await reader.read()
        else:
            writer.write(self._says)
        writer.close()


def the_box_answered(box: Stage, heard: Heard, *, stream: bool, reasons: tuple[str, ...] = ("unreachable",)) -> None:
    assert (heard.status, heard.errors, heard.text) == (200, (), box.local.text)
    assert (heard.finishes, heard.dones) == (("stop",), int(stream))
    assert heard.headers["x-appliance-served-by"] == "local"
    assert heard.headers["x-appliance-fallback"] in reasons


def told(box: Stage, caplog: pytest.LogCaptureFixture) -> tuple[Fault | None, str]:
    """What the journal says of the last attempt that failed; the log says the same, and neither holds the key."""
    last = box.appliance.journal.recent(1)[0]
    assert last.reason in caplog.text
    assert KEY not in caplog.text + repr(last)
    return last.fault, last.reason


@STREAMED
@pytest.mark.parametrize("door", DOORS.values(), ids=lambda door: door.fault.name)
def test_who_is_not_the_cloud_is_told_nothing_and_the_box_answers(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[Behind], tmp_path: Path, door: Door, stream: bool
) -> None:
    behind = opened(door.open(tmp_path))
    box.face(f"{behind.root}/v1", ca=behind.ca, timeouts=SHORT if door is DOORS["no-answer"] else PATIENT)
    heard = box.ask(stream=stream)
    assert door.fault.reason is not None
    the_box_answered(box, heard, stream=stream, reasons=(door.fault.reason.value, *door.fault.also))
    fault, sentence = told(box, caplog)
    assert fault is door.fault.reason
    assert sentence in SENTENCES[door.fault.name]
    assert sentence.startswith("cloud ") and sentence.endswith(".")
    assert behind.told == 0


def test_with_nothing_wrong_the_same_door_is_believed(box: Stage, opened: Opened[Behind], tmp_path: Path) -> None:
    behind = opened(impostor(HOST)(tmp_path))
    box.face(f"{behind.root}/v1", ca=behind.ca, timeouts=PATIENT)
    the_box_answered(box, box.ask(), stream=True, reasons=("broken",))
    assert behind.told > 0


@STREAMED
def test_a_door_that_speaks_no_tls_hears_no_key(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[str], stream: bool
) -> None:
    plain = Listener(b"HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\ncontent-length: 0\r\n\r\n")
    box.face(f"https://{opened(plain.listening())}/v1", timeouts=PATIENT)
    the_box_answered(box, box.ask(stream=stream), stream=stream)
    assert told(box, caplog) == (Fault.UNREACHABLE, NO_TLS)
    assert plain.knocks == 2  # what may have been an accident is tried again, once
    assert plain.heard
    for secret in (KEY, "lighthouse", "chat/completions"):
        assert secret.encode() not in plain.heard


@STREAMED
def test_plain_http_to_a_door_that_wants_tls_is_answered_by_the_box(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[Behind], tmp_path: Path, stream: bool
) -> None:
    behind = opened(impostor(HOST)(tmp_path))
    box.face(f"{behind.root.replace('https', 'http')}/v1", timeouts=PATIENT)
    the_box_answered(box, box.ask(stream=stream), stream=stream, reasons=("broken",))
    assert told(box, caplog) == (Fault.BROKEN, "cloud broke off the connection.")


@STREAMED
def test_a_closed_port_is_answered_by_the_box(box: Stage, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    box.play(None)
    the_box_answered(box, box.ask(stream=stream), stream=stream)
    assert told(box, caplog) == (Fault.UNREACHABLE, REFUSED)


@STREAMED
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_by_nobody(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[str], status: int, stream: bool
) -> None:
    elsewhere = Listener()
    address = opened(elsewhere.listening())

    async def elsewhere_please(exchange: Exchange) -> None:
        await exchange.reply(status, b"", kind="text/html", headers=(("location", f"http://{address}/v1/login"),))

    box.play(elsewhere_please)
    the_box_answered(box, box.ask(stream=stream), stream=stream, reasons=("broken",))
    fault, sentence = told(box, caplog)
    assert (fault, str(status) in sentence) == (Fault.BROKEN, True)
    assert address not in sentence
    assert (len(box.cloud.exchanges), elsewhere.knocks) == (1, 0)


@STREAMED
@pytest.mark.parametrize(
    ("status", "heard"),
    [
        (b"407 Proxy Authentication Required", (Fault.CONFIG, "The proxy of cloud wants other credentials.")),
        (b"502 Bad Gateway", (Fault.UNREACHABLE, PROXY)),
        (b"403 Forbidden", (Fault.UNREACHABLE, PROXY)),
    ],
)
def test_a_proxy_that_makes_no_tunnel_hears_no_key(
    box: Stage,
    caplog: pytest.LogCaptureFixture,
    opened: Opened[str],
    status: bytes,
    heard: tuple[Fault, str],
    stream: bool,
) -> None:
    proxy, cloud = Listener(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n"), Listener()
    gate, address = opened(proxy.listening()), opened(cloud.listening())
    box.face(f"https://{address}/v1", proxy=f"http://me:hush@{gate}", timeouts=PATIENT)
    the_box_answered(box, box.ask(stream=stream), stream=stream, reasons=(heard[0].value,))
    assert told(box, caplog) == heard
    assert "hush" not in caplog.text
    assert proxy.heard.startswith(b"CONNECT " + address.encode())
    assert KEY.encode() not in proxy.heard
    assert cloud.knocks == 0


@STREAMED
def test_a_proxy_that_is_not_there_is_answered_by_the_box(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[FailingCloud], stream: bool
) -> None:
    closed = opened(FailingCloud(None))
    cloud = opened(FailingCloud(HEALTHY.act))
    box.face(cloud.base_url, proxy=closed.root, timeouts=PATIENT)
    the_box_answered(box, box.ask(stream=stream), stream=stream)
    assert told(box, caplog) == (Fault.UNREACHABLE, NO_PROXY)
    assert cloud.exchanges == []


@STREAMED
def test_who_never_shakes_hands_costs_the_time_for_tls_and_is_not_tried_again(
    box: Stage,
    caplog: pytest.LogCaptureFixture,
    opened: Opened[str],
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE", SHORT.connect)
    silent = Listener(None)
    box.face(f"https://{opened(silent.listening())}/v1", timeouts=SHORT)
    heard = box.ask(stream=stream)
    the_box_answered(box, heard, stream=stream)
    assert told(box, caplog) == (Fault.UNREACHABLE, NO_TLS_IN_TIME)
    assert silent.knocks == 1
    assert box.appliance.journal.recent(1)[0].seconds < 10 * SHORT.connect


def test_what_nobody_answers_is_not_tried_again(
    box: Stage, caplog: pytest.LogCaptureFixture, opened: Opened[Behind], tmp_path: Path
) -> None:
    behind = opened(DOORS["no-answer"].open(tmp_path))
    box.face(f"{behind.root}/v1", timeouts=SHORT)
    heard = box.ask()
    the_box_answered(box, heard, stream=True)
    tried = [one for one in box.appliance.journal.recent() if one.request_id == heard.headers["x-appliance-request-id"]]
    assert [(one.leg, one.reason, one.seconds < 10 * SHORT.connect) for one in tried] == [("cloud", LATE, True)]
