"""Ways to fail before there is a cloud at all: no name, no answer to a knock, somebody else behind the door.

Rules of this file:

1. Nothing leaves this machine but a question to the resolver for a name under .invalid, which nobody has (RFC 6761).
2. Whoever pretends to be the cloud keeps account of what it was told. It must never be told anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.core.fault import Fault
from appliance.drills.certificate import Authority
from appliance.drills.faults import CloudFault

NOBODY = "no-such-cloud.appliance-drill.invalid"
HOST = "127.0.0.1"
FULL = 4
"""Connections that fill a door for one: Linux lets in one more than it was told."""


@dataclass(slots=True, kw_only=True)
class Behind:
    """What is behind a door. `knocks` are connections, if they can be counted, and `told` the bytes that came through
    them: with TLS, once the caller had believed that this is the cloud."""

    root: str
    ca: Path | None = None
    knocks: int | None = None
    told: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One way to fail; `open` gives what is behind it, with files in a folder of the rehearsal."""

    fault: CloudFault
    open: Callable[[Path], AbstractAsyncContextManager[Behind]]


@asynccontextmanager
async def no_such_name(folder: Path) -> AsyncGenerator[Behind, None]:
    yield Behind(root=f"https://{NOBODY}")


@asynccontextmanager
async def no_answer(folder: Path) -> AsyncGenerator[Behind, None]:
    """A queue for connections that is full, so that whoever comes is not even refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(FULL):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield Behind(root=f"http://{HOST}:{listener.getsockname()[1]}")


def impostor(
    *names: str, expired: bool = False, trusted: bool = True
) -> Callable[[Path], AbstractAsyncContextManager[Behind]]:
    """A server with TLS, whose certificate is for these hosts. `trusted`: by an authority that the rehearsal trusts, so
    that nothing is wrong but what was asked for."""

    @asynccontextmanager
    async def open(folder: Path) -> AsyncGenerator[Behind, None]:
        authority = Authority()
        certificate = authority.vouch(*names, expired=expired)
        ca, own = folder / "ca.pem", folder / "own.pem"
        ca.write_text(authority.pem, "ascii")
        own.touch(mode=0o600)
        own.write_text(certificate.key_pem + certificate.pem, "ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        with socket.create_server((HOST, 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            behind = Behind(root=f"https://{HOST}:{port}", ca=ca if trusted else None, knocks=0)
            receiving = asyncio.create_task(_receive(listener, context, behind), name="drill-impostor")  # noqa: TID251 - ended below
            try:
                yield behind
            finally:
                receiving.cancel()
                await asyncio.wait([receiving])

    return open


async def _receive(listener: socket.socket, context: ssl.SSLContext, behind: Behind) -> None:
    """One after the other: shake hands, listen to what is said, and hang up."""
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        behind.knocks = (behind.knocks or 0) + 1
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(OSError):  # the caller refused, as it should
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=context)  # noqa: B023
            behind.told += len(await reader.read(65536))
            transport.abort()


def _unreachable(name: str, says: str, **more: Any) -> CloudFault:
    return CloudFault(name, says, None, "box", "box", Fault.UNREACHABLE, **more)


_DOORS = (
    Door(
        # "offline" is the same, once the box has looked for the name by itself. A resolver may take its time.
        fault=_unreachable("no-such-name", "its name is not known to anybody", also=("offline",), slow=True),
        open=no_such_name,
    ),
    Door(
        # It is silent where a first word is waited for less long than a connection.
        fault=_unreachable("no-answer", "nobody answers the knock", also=("silent",), slow=True),
        open=no_answer,
    ),
    Door(fault=_unreachable("tls-expired", "its certificate has expired"), open=impostor(HOST, expired=True)),
    Door(
        fault=_unreachable("spoofed-name", "the certificate is somebody else's"),
        open=impostor("somebody-else.invalid"),
    ),
    Door(
        fault=_unreachable("self-signed", "nobody known vouches for its certificate"),
        open=impostor(HOST, trusted=False),
    ),
)

DOORS: Mapping[str, Door] = MappingProxyType({door.fault.name: door for door in _DOORS})
