"""Requests that the engine's process has and did not end, and what came for each that nobody has taken yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.backends.refused import crashed
from appliance.core.fault import BackendError
from appliance.core.frames import Frame

ENDINGS = ("finish", "error")


class Mailbox:
    """What came for one request and was not taken yet."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._error: BackendError | None = None
        self._changed = asyncio.Event()

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._changed.set()

    def fail(self, error: BackendError) -> None:
        self._error = error
        self._changed.set()

    async def take(self) -> list[Frame]:
        """Everything that came, at least one frame. What came before a failure is given out before it is raised."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
            self._changed.clear()
        frames, self._frames = self._frames, []
        if self._error is not None:
            self._changed.set()
        return frames


class Outstanding:
    """All of them, by number. `over` is called when one is no longer the process's, or nobody's any more."""

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._mailboxes: dict[int, Mailbox] = {}
        self._begun: dict[int, bool] = {}  # those that the process has: did it begin them?

    def __len__(self) -> int:
        """How many the process has."""
        return len(self._begun)

    def __contains__(self, id: int) -> bool:
        return id in self._begun

    @property
    def read(self) -> bool:
        """Does anybody still read an answer?"""
        return bool(self._mailboxes)

    @contextmanager
    def opened(self, id: int, cancel: Callable[[], None]) -> Iterator[Mailbox]:
        """As long as somebody reads the answer; `cancel` is called if that ends before the answer does."""
        mailbox = self._mailboxes[id] = Mailbox()
        self._begun[id] = False
        try:
            yield mailbox
        finally:
            del self._mailboxes[id]
            if self._begun.pop(id, None) is not None:
                cancel()
            self._over()

    def put(self, id: int, frame: Frame) -> None:
        """The process says this of one of them."""
        if id in self._begun:
            if frame["op"] == "begun":
                self._begun[id] = True
            elif frame["op"] in ENDINGS:
                del self._begun[id]
                self._over()
        if id in self._mailboxes:
            self._mailboxes[id].put(frame)

    def fail(self, error: BackendError, *, slots: int = 0) -> None:
        """Of a process that died with all of its `slots` taken, whoever had none only waited."""
        full = 0 < slots <= sum(self._begun.values())
        for id, mailbox in self._mailboxes.items():
            mailbox.fail(crashed(innocent=True) if full and not self._begun.get(id, True) else error)
        self._begun.clear()
