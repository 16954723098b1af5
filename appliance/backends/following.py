"""Clouds' answers that the engine follows, so that it could go on at once: told to the engine as far as it can listen.

To follow is a courtesy. Nothing here waits or raises, a following that cannot be had is inert, and what a slow engine
did not take yet is kept here, once, and not in its pipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from appliance.core.frames import Frame, FrameError, encode
from appliance.core.standby import SUSPICIOUS

BACKLOG = 1 << 20
"""Bytes in the pipe from which on words wait here."""
LONGEST = 1 << 20
"""Characters of an answer; no context holds more."""
DEATHS_TO_FORGET = 2
CERTAIN = 1e6


class Listener(Protocol):
    """What is needed of the engine's process."""

    @property
    def backlog(self) -> int: ...

    def write(self, data: bytes) -> None: ...


UNREAD = frozenset({"committed", "first", "max_tokens", "sampling", "stop"})
"""What of a job is not for reading, or is told as it grows."""


class Following:
    """One answer of a cloud. Cheap, synchronous, never raises; without a home it does nothing at all."""

    def __init__(
        self, home: Followings | None, id: int, job: Mapping[str, Any], mode: Literal["auto", "hot"], suspicion: float
    ) -> None:
        self.id = id
        self.mode = mode
        self.suspicion = _finite(suspicion)
        self.deaths = 0
        self._home = home
        self._job = {name: value for name, value in job.items() if name not in UNREAD} if home is not None else {}
        self._pieces: list[str] = [job.get("committed") or ""] if home is not None else []
        self._length = len(self._pieces[0]) if self._pieces else 0
        self._sent: int | None = None  # so many pieces are known to this process; None: it knows nothing of us

    @property
    def inert(self) -> bool:
        """Nothing will come of it."""
        return self._home is None

    @property
    def told(self) -> bool:
        """The process knows of it."""
        return self._sent is not None

    @property
    def urgent(self) -> bool:
        """Worth waking an engine that is asleep."""
        return self.mode == "hot" or self.suspicion >= SUSPICIOUS

    def feed(self, text: str) -> None:
        """The cloud wrote more."""
        if self._home is None or not text:
            return
        self._pieces.append(text)
        self._length += len(text)
        if self._length > LONGEST:
            self.close()
        else:
            self.catch_up(self._home.listener)

    def suspect(self, level: float) -> None:
        """The cloud looks more likely to fail, or less."""
        level = _finite(level)
        if self._home is None or level == self.suspicion:
            return
        self.suspicion = level
        listener = self._home.listener
        if listener is not None and self.told:
            listener.write(encode({"op": "suspect", "id": self.id, "level": level}))
        elif self.urgent:
            self._home.wake()

    def close(self) -> None:
        """It is over, or somebody else goes on. What was computed stays with the engine."""
        home, self._home = self._home, None
        if home is None:
            return
        home.closed(self)
        if home.listener is not None and self.told:
            home.listener.write(encode({"op": "cancel", "id": self.id}))
        self._pieces, self._job = [], {}

    def forget(self) -> None:
        """The process that knew of it is gone."""
        self._sent = None

    def catch_up(self, listener: Listener | None) -> None:
        """Tell the process what it does not know, if there is one and it listens."""
        if listener is None or listener.backlog > BACKLOG or self._sent == len(self._pieces):
            return
        if self._sent is None:
            self._pieces = ["".join(self._pieces)]
            try:
                request = encode(self._begin(self._pieces[0]))
            except FrameError:  # too large for a frame, and then for a context as well
                self.close()
                return
        else:
            request = encode({"op": "fed", "id": self.id, "text": "".join(self._pieces[self._sent :])})
        self._sent = len(self._pieces)
        listener.write(request)

    def _begin(self, committed: str) -> Frame:
        return {
            **self._job,
            "op": "follow",
            "id": self.id,
            "committed": committed,
            "mode": self.mode,
            "suspicion": self.suspicion,
        }


class Followings:
    """All of them, `limit` at most. `listener` is the process as long as it may be told."""

    def __init__(self, limit: int, wake: Callable[[], None], changed: Callable[[], None]) -> None:
        self.wake = wake
        self.listener: Listener | None = None
        self._limit = max(1, limit)
        self._changed = changed
        self._open: dict[int, Following] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, id: int, job: Mapping[str, Any], mode: Literal["auto", "hot"], suspicion: float) -> Following:
        """A new one; inert when there are too many."""
        if len(self._open) >= self._limit:
            return inert(id)
        following = self._open[id] = Following(self, id, job, mode, suspicion)
        following.catch_up(self.listener)
        self._changed()
        if self.listener is None and following.urgent and not following.inert:
            self.wake()
        return following

    def listen(self, listener: Listener) -> None:
        """A process is ready: it hears of all of them, with all words so far."""
        self.listener = listener
        self.catch_up()

    def catch_up(self) -> None:
        """Send what had to wait."""
        for following in list(self._open.values()):
            following.catch_up(self.listener)

    def silence(self, *, died: bool) -> None:
        """The process is gone. What was known to it at two deaths may be what killed it."""
        self.listener = None
        for following in list(self._open.values()):
            following.deaths += died and following.told
            following.forget()
            if following.deaths >= DEATHS_TO_FORGET:
                following.close()

    def close(self) -> None:
        """All of them are inert from now on."""
        for following in list(self._open.values()):
            following.close()

    def closed(self, following: Following) -> None:
        """Called by one that is over."""
        self._open.pop(following.id, None)
        self._changed()


def _finite(level: float) -> float:
    """A frame knows no infinity, and a cloud that is silent for long enough is infinitely odd."""
    return min(max(level, 0.0), CERTAIN) if level == level else 0.0


def inert(id: int) -> Following:
    """One of which nothing will come."""
    return Following(None, id, {"messages": []}, "auto", 0.0)
