"""The rehearsal's own listener: the real server, on a port that nobody else knows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from appliance.appliance import Appliance
from appliance.guard.limits import LIMITS, Limits
from appliance.server.connection import bounded
from appliance.server.routes import build


class _Server(uvicorn.Server):
    """Signals are the command line's: Ctrl-C ends the rehearsal at once."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(appliance: Appliance, *, limits: Limits = LIMITS, first: bool = True) -> AsyncGenerator[str, None]:
    """The appliance behind the real server, on a free port of the loopback interface; gives its address. The `first`
    one starts the appliance, and ends it."""
    # With the protocol said: asyncio turns Nagle's algorithm off only for a socket that knows it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(
            build(appliance, limits=limits),
            log_config=None,
            access_log=False,
            server_header=False,
            http=bounded(limits),
            ws="none",
            lifespan="on" if first else "off",
            timeout_graceful_shutdown=1,
        )
    )
    # No task group: what goes wrong in a rehearsal is to come out as it is, not in a group.
    task = asyncio.create_task(server.serve(sockets=[listener]), name="drill-server")  # noqa: TID251 - ended below
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
