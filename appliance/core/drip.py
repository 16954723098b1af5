"""Is this answer so slow that it is dead, though it still drips?

Rules:

1. Below a tenth of the model's usual speed for `SPAN` seconds is dead. What is usual is the median of finished answers
   of this model at this upstream (`Usual`); before there are enough of them nobody is judged, and no answer that comes
   faster than people read is dead, however fast its model usually is.
2. Only text is judged. While the leg thinks or writes a call's arguments the clock stands, and it starts anew with the
   next text.
3. A pause is not a drip. Clouds and the proxies before them hold text back and let it out in bursts, a sentence or a
   paragraph at a time; silence has a limit of its own, which is not ours. So of a wait between two pieces only the
   first `PAUSE` seconds count, and after those we have no deadline until something comes.
4. Characters count, not pieces, and when the first piece of a burst comes the burst before it still counts.
5. Told times (seconds, monotonic) and characters, it answers times; it has no clock.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from appliance.core.suspicion import Kind

SPAN = 15.0
PAUSE = 5.0
SHARE = 0.1
READING = 50.0  # characters per second, which is twice as fast as people read
ENOUGH = 8
WINDOW = 50
NEVER = math.inf

# An answer tells how fast its model is only if it took some time and had some length.
LEAST_SECONDS = 0.25
LEAST_CHARACTERS = 100


class Usual:
    """How fast one model at one upstream usually writes."""

    __slots__ = ("_rates", "rate")

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=WINDOW)
        self.rate: float | None = None
        """Characters per second, once enough is known."""

    def learn(self, rate: float) -> None:
        """An answer that ended well came at so many characters per second."""
        self._rates.append(rate)
        if len(self._rates) >= ENOUGH:
            self.rate = median(self._rates)


class Drip:
    """The speed of one leg's text. `usual` is in characters per second, ``None`` if it is not known."""

    __slots__ = ("_at", "_base", "_count", "_last", "_least", "_pieces", "_seconds", "_written")

    def __init__(self, usual: float | None) -> None:
        self._least = None if usual is None else SPAN * min(SHARE * usual, READING)  # characters in any `SPAN`
        self._last: float | None = None  # when text last came; ``None`` while none is being written
        self._seconds = 0.0  # spent on text,
        self._written = 0  # and the characters that came in them: not the first ones, which were written before
        self._start()

    def heard(self, kind: Kind, characters: int, now: float) -> None:
        """Content of this kind came."""
        if kind != "text":
            self.pause()
            return
        last, self._last = self._last, now
        if last is None:
            self._start()
        else:
            waited = max(now - last, 0.0)
            self._at += min(waited, PAUSE)
            self._seconds += waited
            self._written += characters
        if self._least is None:
            return
        self._pieces.append((self._at, characters))
        self._count += characters
        # Whatever could leave and still be enough behind it, has no say in when there will be too little.
        while self._count >= self._least and self._pieces:
            at, gone = self._pieces.popleft()
            self._count -= gone
            self._base = at + SPAN

    def pause(self) -> None:
        """The leg does something else than writing text, and says so."""
        self._last = None

    def held_up(self, seconds: float) -> None:
        """The client was slow to take what it was given; that time is not the leg's."""
        if self._last is not None:
            self._last += seconds

    def deadline(self, now: float) -> float:
        """When it will have been too slow, if nothing more comes; never before `now`."""
        if self._last is None or self._least is None:
            return NEVER
        wait = self._base - self._at
        return NEVER if wait > PAUSE else max(now, self._last + wait)

    @property
    def rate(self) -> float | None:
        """Characters per second of the text so far, for `Usual.learn`; ``None`` if it was too little to tell."""
        if self._seconds < LEAST_SECONDS or self._written < LEAST_CHARACTERS:
            return None
        return self._written / self._seconds

    def _start(self) -> None:
        """Text begins."""
        self._at = 0.0  # seconds as rule 3 counts them
        self._pieces: deque[tuple[float, int]] = deque()  # (when, characters), of those that hold off the deadline
        self._count = 0
        self._base = SPAN  # when it will be too late, counted likewise
