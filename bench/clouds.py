"""A cloud in a process of its own: silent until told, then words at a pace, then a reset in mid-sentence or an end."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any, Self

from common import STORY

from appliance.drills.cloud import Exchange, FailingCloud, Script

PACE = 0.03


class Cloud:
    """One exchange at a time: `asked`, then `go`, then `over`."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_run, args=(theirs,), daemon=True)
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._process.start()
        self.base_url = str(await self._said())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.join)

    async def asked(self) -> None:
        """A request has arrived."""
        assert await self._said() == "asked"

    def go(self, pieces: int, *, cut: bool) -> None:
        """Say so many pieces, then break the connection or end the answer."""
        self._pipe.send((pieces, cut))

    async def over(self) -> tuple[float, str]:
        """When the connection died or the answer ended or the client left, and what had been said."""
        at, text = await self._said()
        return at, text

    async def _said(self) -> Any:
        if not await asyncio.to_thread(self._pipe.poll, 60):
            raise RuntimeError("nothing was heard from the cloud for a minute")
        return self._pipe.recv()


async def _told(orders: asyncio.Queue[tuple[int, bool]], exchange: Exchange) -> tuple[int, bool]:
    """The next order; raises `Left` if the client leaves before it."""
    order, gone = asyncio.ensure_future(orders.get()), asyncio.ensure_future(exchange.silence())
    try:
        await asyncio.wait((order, gone), return_when=asyncio.FIRST_COMPLETED)
        if not order.done():
            gone.result()
        return order.result()
    finally:
        for waiting in (order, gone):
            waiting.cancel()
        # Two may not wait for the same reader.
        await asyncio.gather(order, gone, return_exceptions=True)


def _run(pipe: Connection) -> None:
    async def serve() -> None:
        orders: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

        async def act(exchange: Exchange) -> None:
            pipe.send("asked")
            try:
                await exchange.open()
                await exchange.role()
                pieces, cut = await _told(orders, exchange)
                await exchange.words(pieces)
                if cut:
                    await exchange.reset()
                else:
                    await exchange.finish()
                    await exchange.put(b"data: [DONE]\n\n")
                    await exchange.end()
            finally:
                pipe.send((time.monotonic(), exchange.text))

        async with FailingCloud(act, script=Script(text=STORY, pace=PACE)) as running:
            asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: orders.put_nowait(pipe.recv()))
            pipe.send(running.base_url)
            await asyncio.Event().wait()

    asyncio.run(serve())
