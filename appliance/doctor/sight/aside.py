"""Waits for what cannot be interrupted, and no longer than one likes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], *, seconds: float, name: str) -> T:
    """What `work` answers, or `TimeoutError`. The resolver, a hung disk and a driver may block for minutes, and a
    thread of asyncio's would keep the command from ending for as long: this one is left behind."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[T] = loop.create_future()

    def tell(found: T | None, error: BaseException | None) -> None:
        if told.done():  # nobody waits any more
            return
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(found)  # type: ignore[arg-type]  # T, which may be None

    def run() -> None:
        found, problem = None, None
        try:
            found = work()
        except BaseException as error:
            problem = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, found, problem)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await told
