"""What a process is asked that it answers in one frame: how busy it is, and how many tokens something has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from appliance.backends.refused import UNCOUNTED, busy, failure, written
from appliance.core.fault import BackendError
from appliance.core.frames import Frame, encode

COUNT_SECONDS = 5.0


class Questions:
    """Those that one process was asked and has not answered. `write` gives it bytes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._asked: deque[asyncio.Future[Frame]] = deque()
        self._counting: dict[int, asyncio.Future[int]] = {}

    async def stats(self) -> Frame:
        """How busy it is, as it says itself. Raises `BackendError`."""
        asked: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._write(encode({"op": "stats"}))
        return await asked

    def take_stats(self, frame: Frame) -> None:
        """Give the answer to whoever asked first."""
        if self._asked and not (asked := self._asked.popleft()).done():
            asked.set_result(frame)

    async def count(self, id: int, job: Mapping[str, Any]) -> int:
        """The tokens of `job`, as it says itself. Raises `BackendError`."""
        request = written({**job, "op": "count", "id": id})
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._counting[id] = asked
        try:
            self._write(request)
            async with asyncio.timeout(COUNT_SECONDS):
                return await asked
        except TimeoutError as error:
            raise busy(UNCOUNTED) from error
        finally:
            del self._counting[id]

    def took_count(self, id: int, frame: Frame) -> bool:
        """Was it asked for by `count`? Then whoever asked has it now. Raises what nonsense raises."""
        asked = self._counting.get(id)
        if asked is None:
            return False
        if frame["op"] == "error":
            _fail(asked, failure(frame))
        else:
            tokens = int(frame["tokens"])
            if not asked.done():
                asked.set_result(tokens)
        return True

    def fail(self, error: BackendError) -> None:
        """Whoever still waits gets no answer."""
        waiting: list[asyncio.Future[Any]] = [*self._asked, *self._counting.values()]
        for asked in waiting:
            _fail(asked, error)
        self._asked.clear()


def _fail(asked: asyncio.Future[Any], error: BackendError) -> None:
    if not asked.done():
        asked.set_exception(error)
