"""Who has a place when there are more connections than places? Pure: it is told what happens and when.

Rules of this file:

1. Whoever has a request keeps its place.
2. Whoever comes when all places are taken gets that of the connection that was answered and has been idle for longest;
   if there is none, that of the one that has not brought a request for longest, but for some seconds at least.
3. Whoever gets no place is refused, and so is whoever loses one without an answer. It is told so when it has asked, in
   a room of its own. Those in there never cost anybody a place.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from appliance.guard.limits import Tally

PATIENCE = 3.0
"""Seconds in which a new connection brings its request: a client opens it because it has one."""
ROOM = 64
"""For those without a place: half of the files that `connections_for` leaves."""

Who = TypeVar("Who")


class Crowd(Generic[Who]):
    """All connections of one server, `most` of which have places."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.room = ROOM
        self.patience = PATIENCE
        self.busy: set[Who] = set()
        self.idle: dict[Who, None] = {}
        """Answered, with nothing under way; the longest idle first."""
        self.new: dict[Who, float] = {}
        """Without a request so far, or in the middle of its head, and since when; the longest waiting first."""
        self.leaving: dict[Who, None] = {}
        """Without a place and not gone yet; the longest leaving first."""
        self.refusals = Tally()
        self.cut_off = 0

    @property
    def waiting(self) -> int:
        """Those with a place and without a request."""
        return len(self.idle) + len(self.new)

    def comes(self, who: Who, now: float) -> Who | None:
        """A new connection. Gives which one has to leave for it: itself, if there is no place."""
        goes = None
        if len(self.busy) + self.waiting >= self.most:
            goes = self._first_to_go(now)
            if goes is None:
                return who
            self._has_no_place(goes)
        self.new[who] = now
        return goes

    def begins(self, who: Who, now: float) -> None:
        """The first byte of a request."""
        if who in self.idle or who in self.new:
            self._has_no_place(who)
            self.new[who] = now

    def asks(self, who: Who) -> None:
        """It has brought a request."""
        if who in self.idle or who in self.new:
            self._has_no_place(who)
            self.busy.add(who)

    def rests(self, who: Who) -> None:
        """It was answered."""
        if who in self.busy:
            self.busy.remove(who)
            self.idle[who] = None

    def leaves(self, who: Who) -> Who | None:
        """It gave way or was refused, and goes when it has heard why. Gives which one has to go at once, because too
        many take their time."""
        self.is_gone(who)
        self.leaving[who] = None
        if len(self.leaving) <= self.room:
            return None
        longest = next(iter(self.leaving))
        del self.leaving[longest]
        return longest

    def is_gone(self, who: Who) -> None:
        self._has_no_place(who)
        self.leaving.pop(who, None)

    def _has_no_place(self, who: Who) -> None:
        self.busy.discard(who)
        self.idle.pop(who, None)
        self.new.pop(who, None)

    def _first_to_go(self, now: float) -> Who | None:
        for idle in self.idle:
            return idle
        for new, since in self.new.items():
            return new if now - since >= self.patience else None
        return None
