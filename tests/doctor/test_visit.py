"""Walking to real sockets on this box: what is seen at each layer when it breaks there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from appliance.doctor.checks.tls import OTHER_NAMES, STRANGERS
from appliance.doctor.sight import visit as sight
from appliance.doctor.sight.visit import Goal, Walk, visit
from appliance.drills.certificate import Authority

pytestmark = [pytest.mark.live, pytest.mark.anyio]

Met = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
WORLD = Authority("World Authority")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT", "TUNNEL", "HANDSHAKE", "ANSWER"):
        monkeypatch.setattr(sight, name, 0.6)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text(WORLD.pem)
    return tmp_path / "ca.pem"


def vouched(tmp_path: Path, *names: str, by: Authority = WORLD) -> ssl.SSLContext:
    certificate = by.vouch(*names)
    (tmp_path / "own.pem").write_text(certificate.key_pem + certificate.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    return context


@asynccontextmanager
async def listening(met: Met, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def meets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError):
            await met(reader, writer)

    server = await asyncio.start_server(meets, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for _ in range(3):  # so that they are closed before the loop is
            await asyncio.sleep(0)


def says(answer: bytes, heard: list[bytes] | None = None) -> Met:
    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = await reader.readuntil(b"\r\n\r\n")
        except (EOFError, OSError):
            question = b""
        if heard is not None:
            heard.append(question)
        writer.write(answer)
        writer.close()

    return met


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def slams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


async def answers_anything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def walk(port: int, *, scheme: str = "http", host: str = "localhost", **more: object) -> Walk:
    return await visit(Goal(url=f"{scheme}://{host}:{port}/v1/models", **more))  # type: ignore[arg-type]


async def test_all_the_way_on_one_connection(tmp_path: Path, ca: Path) -> None:
    heard: list[bytes] = []
    async with listening(says(ANSWER, heard), vouched(tmp_path, "localhost")) as port:
        found = await walk(port, scheme="https", ca=ca, headers=(("authorization", "Bearer k"),))
    assert found.way is not None and found.way.here
    assert [knock.outcome for knock in found.knocks if knock.address == "127.0.0.1"] == ["connected"]
    assert found.proven and found.handshake is not None and found.handshake.version.startswith("TLSv1")
    assert found.reply is not None
    assert (found.reply.status, found.reply.body, found.reply.trouble) == (200, b"{}", "")
    assert heard[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert f"host: localhost:{port}\r\nauthorization: Bearer k".encode() in heard[0].replace(b"Host", b"host")


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = await walk(free.getsockname()[1], host="127.0.0.1")
    assert [knock.outcome for knock in found.knocks] == ["refused"]
    assert (found.handshake, found.reply) == (None, None)


@pytest.mark.parametrize(
    ("met", "trouble"),
    [(mute, "silence"), (slams, "hung up"), (says(b""), "hung up"), (says(b"SSH-2.0\r\n"), "no HTTP")],
)
async def test_somebody_who_gives_no_answer(met: Met, trouble: str) -> None:
    async with listening(met) as port:
        found = await walk(port)
    assert found.reply is not None and (found.reply.status, found.reply.trouble) == (0, trouble)


async def test_a_certificate_of_nobody_known_is_shown_and_the_key_kept(tmp_path: Path, ca: Path) -> None:
    heard: list[bytes] = []
    tls = vouched(tmp_path, "localhost", by=Authority("Acme Gateway"))
    async with listening(says(ANSWER, heard), tls) as port:
        found = await walk(port, scheme="https", ca=ca, headers=(("authorization", "Bearer secret"),))
    assert found.handshake is not None and found.handshake.outcome == "untrusted"
    assert found.handshake.code in STRANGERS and found.handshake.ca
    assert found.handshake.shown is not None and found.handshake.shown.issuer == "Acme Gateway"
    assert found.reply is None and not any(b"secret" in question for question in heard)


async def test_a_certificate_for_another_name(tmp_path: Path, ca: Path) -> None:
    async with listening(says(ANSWER), vouched(tmp_path, "elsewhere.example")) as port:
        found = await walk(port, scheme="https", ca=ca)
    assert found.handshake is not None and found.handshake.code in OTHER_NAMES
    assert found.handshake.shown is not None and found.handshake.shown.names == ("elsewhere.example",)


@pytest.mark.parametrize(("met", "outcome"), [(mute, "silence"), (slams, "hung up"), (answers_anything, "no TLS")])
async def test_somebody_who_shakes_no_hands(met: Met, outcome: str, ca: Path) -> None:
    async with listening(met) as port:
        found = await walk(port, scheme="https", ca=ca)
    assert found.handshake is not None and found.handshake.outcome == outcome
    assert found.reply is None


# --------------------------------------------------------------------------------------------------- proxies


def leads_to(port: int, heard: list[bytes]) -> Met:
    """An HTTP proxy that connects to a port of this box, whoever is asked for."""

    async def pour(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            to.write(data)
        to.close()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pour(reader, back), pour(there, writer), return_exceptions=True)

    return met


async def test_through_a_proxy_with_a_password(tmp_path: Path, ca: Path) -> None:
    asked: list[bytes] = []
    async with (
        listening(says(ANSWER), vouched(tmp_path, "cloud.example")) as port,
        listening(leads_to(port, asked)) as proxy,
    ):
        found = await visit(
            Goal(url="https://cloud.example/v1/models", proxy=f"http://me:s%20t@127.0.0.1:{proxy}", ca=ca)
        )
    assert asked[0].startswith(b"CONNECT cloud.example:443 HTTP/1.1\r\n")
    assert b"Basic bWU6cyB0\r\n" in asked[0]
    assert found.tunnel is not None and found.tunnel.status == 200
    assert found.proven and found.reply is not None and found.reply.status == 200


async def test_through_a_proxy_that_speaks_tls_itself(tmp_path: Path, ca: Path) -> None:
    cloud = vouched(tmp_path, "cloud.example")
    own = vouched(tmp_path, "localhost")
    async with listening(says(ANSWER), cloud) as port, listening(leads_to(port, []), own) as proxy:
        found = await visit(Goal(url="https://cloud.example/v1/models", proxy=f"https://localhost:{proxy}", ca=ca))
    assert found.handshake is not None and (found.handshake.host, found.handshake.outcome) == ("cloud.example", "ok")
    assert found.reply is not None and found.reply.status == 200


@pytest.mark.parametrize(
    ("answer", "status", "trouble"),
    [
        (b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", 407, ""),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 503, ""),
        (b"", None, "hangs up"),
    ],
)
async def test_a_proxy_that_leads_nowhere(answer: bytes, status: int | None, trouble: str, ca: Path) -> None:
    async with listening(says(answer)) as proxy:
        found = await visit(Goal(url="https://cloud.example/v1", proxy=f"http://127.0.0.1:{proxy}", ca=ca))
    assert found.tunnel is not None
    assert (found.tunnel.status, found.tunnel.trouble) == (status, trouble)
    assert not found.proven and found.handshake is None


async def test_a_proxy_that_proves_who_it_is_is_not_the_cloud(tmp_path: Path, ca: Path) -> None:
    refuses = says(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
    async with listening(refuses, vouched(tmp_path, "localhost")) as proxy:
        found = await visit(Goal(url="https://cloud.example/v1", proxy=f"https://localhost:{proxy}", ca=ca))
    assert found.tunnel is not None and found.tunnel.status == 503
    assert not found.proven


async def test_a_proxy_is_asked_for_the_whole_address_of_a_cloud_without_tls() -> None:
    asked: list[bytes] = []
    async with listening(says(ANSWER, asked)) as proxy:
        found = await visit(Goal(url="http://cloud.example/v1/models", proxy=f"http://127.0.0.1:{proxy}"))
    assert asked[0].startswith(b"GET http://cloud.example/v1/models HTTP/1.1\r\n")
    assert found.reply is not None and found.reply.status == 200


@pytest.mark.parametrize(
    ("url", "host", "authority", "target"),
    [
        ("https://api.example/v1?a=b c", "api.example", "api.example", "/v1?a=b%20c"),
        ("https://api.example:8443", "api.example", "api.example:8443", "/"),
        ("http://[::1]:8080/v1", "::1", "[::1]:8080", "/v1"),
        ("https://münchen.example./ü", "xn--mnchen-3ya.example", "xn--mnchen-3ya.example", "/%C3%BC"),
    ],
)
async def test_an_address_as_http_writes_it(url: str, host: str, authority: str, target: str) -> None:
    goal = Goal(url=url)
    assert (goal.host, goal.authority, goal.target) == (host, authority, target)
