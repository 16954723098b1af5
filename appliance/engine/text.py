"""Which letters may go to the client now?

Rules:

1. Only whole characters leave. A character cut between two tokens waits for its rest; what is still cut at the end
   of the answer is dropped; bytes that can never become a character are U+FFFD.
2. No stop string leaves, nor any part of one. Letters that may be the beginning of one wait until they are not.
   The stop string that is complete first wins, and of two that end on the same letter the longer one, so that the
   answer does not depend on how the tokens were cut.
3. Stop strings reach across the seam: the text the client already got counts as their beginning, but only a stop
   string that ends in new text ends the answer.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Stream:
    """One answer's token bytes in, the text that may be sent out."""

    def __init__(self, stops: Sequence[str] = (), committed: str = "") -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._reach = max((len(stop) for stop in self._stops), default=1) - 1
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # The letters a stop string may still begin in: what was sent first, then what waits.
        self._window = committed[len(committed) - self._reach :] if self._reach else ""
        self._sent = len(self._window)
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        """A stop string is complete; `stop` is the one."""
        return self.stop is not None

    def feed(self, piece: bytes) -> str:
        """The text that is certain now. After a stop string `stopped` is true and nothing more comes out."""
        if self.stopped:
            return ""
        new = self._decoder.decode(piece)
        if not self._stops:
            return new
        if not new:
            return ""
        # Every earlier letter has been looked at: a match must end behind it.
        seen = len(self._window)
        self._window += new
        found = self._first_stop(seen)
        if found is not None:
            begin, self.stop = found
            return self._window[self._sent : begin]
        held = self._unfinished()
        free = max(self._sent, len(self._window) - held)
        text = self._window[self._sent : free]
        drop = max(0, min(free, len(self._window) - self._reach))
        self._window = self._window[drop:]
        self._sent = free - drop
        return text

    def close(self) -> str:
        """The answer ends here: the letters that were waiting. A character cut in half is dropped."""
        if self.stopped:
            return ""
        text = self._window[self._sent :] if self._stops else ""
        self._window, self._sent = "", 0
        return text

    def _first_stop(self, seen: int) -> tuple[int, str] | None:
        """The stop string that is complete first, and where it begins."""
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = self._window.find(stop, max(0, seen - len(stop) + 1))
            if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
                best = (start + len(stop), start, stop)
        return None if best is None else best[1:]

    def _unfinished(self) -> int:
        """How many of the last letters may be the beginning of a stop string."""
        window = self._window
        for length in range(min(self._reach, len(window)), 0, -1):
            tail = window[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
