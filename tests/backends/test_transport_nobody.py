"""Nobody takes the connection: whoever reads why knows what to mend, and no secret."""

import asyncio
import errno
import socket

import pytest

from appliance.backends import transport
from appliance.core.fault import Fault
from tests.backends.scripted import Scripted, heard, listening
from tests.backends.test_transport import asked

pytestmark = pytest.mark.live


def nobody(**target):
    async def scene():
        async with asked("https://sk-secret.example:9/v1", **target) as made:
            return await heard(made)

    said, error = asyncio.run(scene())
    assert (said, error.fault) == ("", Fault.UNREACHABLE)
    assert "secret" not in str(error)
    return error.message.removeprefix("openai cannot be reached: ")


@pytest.mark.parametrize(
    ("number", "why"),
    [(socket.EAI_NONAME, "was not found."), (socket.EAI_AGAIN, "could not be looked up.")],
)
def test_a_name_that_nobody_has_is_no_resolver_that_is_silent(monkeypatch, number, why):
    def lookup(*args, **options):
        raise socket.gaierror(number, "sk-secret.example")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert nobody() == f"its name {why}"
    assert nobody(proxy="http://me:secret@proxy.example:1") == f"the name of its proxy {why}"


@pytest.mark.parametrize(
    ("number", "why", "of_proxy"),
    [
        (errno.ECONNREFUSED, "it refused the connection.", "its proxy refused the connection."),
        (
            errno.ENETUNREACH,
            "there is no route to it in the network.",
            "there is no route to its proxy in the network.",
        ),
        (
            errno.EHOSTUNREACH,
            "there is no route to it in the network.",
            "there is no route to its proxy in the network.",
        ),
        (errno.ETIMEDOUT, "it did not answer the knock.", "its proxy did not answer the knock."),
        (errno.ECONNRESET, "it hung up before the connection stood.", "its proxy hung up before the connection stood."),
        (errno.EPERM, "no connection was made.", "no connection to its proxy was made."),
    ],
    ids=lambda one: errno.errorcode.get(one, "why"),
)
def test_why_no_connection_was_made_is_said(monkeypatch, number, why, of_proxy):
    async def connecting(**options):
        raise OSError(number, "secret")

    async def found(*args, **options):
        return [{"host": "192.0.2.1", "port": 9}]

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connecting)
    monkeypatch.setattr(transport.Connector, "_resolve_host", found)
    assert nobody() == why
    assert nobody(proxy="http://me:secret@proxy.example:1") == of_proxy


@pytest.mark.parametrize(
    ("error", "certain"),
    [
        (OSError(errno.ENETUNREACH, ""), True),
        (OSError(errno.EHOSTUNREACH, ""), True),
        (OSError(errno.ECONNREFUSED, ""), False),
        (socket.gaierror(errno.ENETUNREACH, ""), False),
    ],
    ids=repr,
)
def test_only_a_network_without_a_route_is_certain_not_to_have_one_a_moment_later(monkeypatch, error, certain):
    async def connecting(**options):
        raise error

    async def found(*args, **options):
        return [{"host": "192.0.2.1", "port": 9}]

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", connecting)
    monkeypatch.setattr(transport.Connector, "_resolve_host", found)

    async def scene():
        async with asked("https://192.0.2.1/v1") as made:
            return await heard(made)

    assert asyncio.run(scene())[1].certain is certain


def test_a_probe_that_is_hung_up_on_is_not_sent_again():
    async def scene():
        cloud = Scripted(b"")
        async with listening(cloud.speak) as port, asked(f"http://127.0.0.1:{port}/v1") as made:
            return await made.alive(), len(cloud.sent)

    assert asyncio.run(scene()) == (False, 1)


def test_a_port_where_nobody_listens_refuses():
    async def scene():
        async with listening(None) as port:
            pass
        async with asked(f"https://127.0.0.1:{port}") as made:
            return await heard(made)

    _, error = asyncio.run(scene())
    assert error.message == "openai cannot be reached: it refused the connection."
