"""Who waits for the engine's process itself, and whose turn is it? What it has taken is in a queue of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from appliance.backends.refused import FULL, NOT_YET, busy

Found = TypeVar("Found")


class Line:
    """Whoever somebody reads already stands at the front, everybody else behind. Those are few: `queue` while the
    process takes one request at a time, and as many more as it has `slots` while there is none."""

    def __init__(self, *, queue: int, slots: int) -> None:
        self._most = max(1, queue)
        self._slots = slots
        self._waiting: deque[object] = deque()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def refuse_if_full(self, *, up: bool, one_by_one: bool) -> None:
        """Raises `BackendError` (BUSY) if one more would be too many."""
        if one_by_one and len(self) >= self._most:
            raise busy(FULL)
        if not up and len(self) >= self._most + self._slots:
            raise busy(NOT_YET)

    async def turn(self, look: Callable[[bool], Found | None], *, first: bool) -> Found:
        """What `look` finds, as soon as it does; it hears whether who asks is the foremost, and may raise."""
        me = object()
        self._waiting.insert(0, me) if first else self._waiting.append(me)
        try:
            while (found := look(self._waiting[0] is me)) is None:
                await self.news()
            return found
        finally:
            self._waiting.remove(me)
            self.tell()

    def tell(self) -> None:
        """Something changed for those who wait."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def news(self) -> None:
        """Waits until something has changed."""
        await self._news.wait()
