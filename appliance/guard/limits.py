"""How much may one client ask for, and how long may it take? Every number of that kind, with its reason.

Rules of this file:

1. A limit stands where an honest client never gets, and below what costs the others something.
2. What is refused for its size is refused before it is read into objects: the looks taken here are scans in C over
   the bytes, a few milliseconds for 30 MB, and none of them recurses.
3. A client that is slow loses its own connection and nobody else's. A client that only waits gives way to one that
   comes new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may do; bytes, counts and seconds."""

    body: int = 32 * MIB
    """Anthropic takes 32 MB, OpenAI less in one request; an agent's 18,000-token prompt is 0.1 MB."""
    bodies: int = 256 * MIB
    """All bodies together, from their first byte to the end of the answer: eight of the largest, thousands of usual
    ones. Read into objects they take two or three times as much."""
    head: int = 64 * KIB
    """Request line and header fields. nginx takes 32 KiB, Node 16; a key, a trace and some cookies are 4."""
    fields: int = 128
    """Header fields. An SDK behind two proxies sends 40."""
    url: int = 8 * KIB
    depth: int = 64
    """Levels of lists and objects in a body. A tool with a deep schema has 25."""
    values: int = 1_000_000
    """Lists, objects, strings and commas in a body. A full context of ten thousand messages has 100,000; ten million
    empty objects fit into 30 MB and would hold up everybody for 2.4 s."""
    messages: int = 10_000
    connections: int = 4096
    """At once. Each costs a file and some kilobytes; see `connections_for`."""

    idle: float = 60.0
    """Between two requests, and before the first."""
    head_time: float = 10.0
    """For a complete head, from its first byte."""
    body_stall: float = 20.0
    """Without one byte of a body that is not complete."""
    body_time: float = 60.0
    """For a whole body, and one second more for each `body_pace` bytes that came."""
    body_pace: int = 64 * KIB
    drain_time: float = 5.0
    """For the rest of a request that is refused already: who still sends does not hear why."""
    drain: int = 512 * MIB
    write_stall: float = 60.0
    """While not one byte of an answer is taken: 30 s of a lost network are survived."""

    def next_byte_by(self, *, begun: float, last: float, received: int) -> float:
        """When more of a body must have come that began at `begun` and moved at `last`."""
        return min(last + self.body_stall, begun + self.body_time + received / self.body_pace)


LIMITS = Limits()


def connections_for(files: int, most: int = LIMITS.connections) -> int:
    """How many connections go with `files` open files: an answer may need one more for its cloud, and the engine, the
    journal and the logs need some."""
    return max(16, min(most, (files - 128) // 2))


_OPEN, _CLOSE = b"[{", b"]}"
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'",' + _OPEN + _CLOSE))
_STRING = re.compile(rb'"[^"]*"')
_CHUNK = 64 * KIB
_STEP = {**dict.fromkeys(_OPEN, 1), **dict.fromkeys(_CLOSE, -1), ord(","): 0}


def trouble_in_json(body: bytes, limits: Limits = LIMITS) -> str | None:
    """``None`` if this may be read into objects, else why not. Whether it is JSON at all is not asked here."""
    opened = body.count(b"[") + body.count(b"{")
    if opened <= limits.depth and opened + body.count(b",") + body.count(b'"') <= limits.values:
        return None
    if b"\\" in body:  # nothing escaped may look like the end of a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = body.translate(None, _ALL_BUT_STRUCTURE)
    too_many = f"The request body holds more than {limits.values:,} values; send fewer, or longer strings."
    if structure.count(b'"') > 2 * limits.values:
        return too_many
    structure = _STRING.sub(b"", structure).replace(b'"', b"")
    # The parser stops at the first thing that is no JSON; up to there it goes down just as far as this does.
    level = 0
    for start in range(0, min(len(structure), 3 * limits.values), _CHUNK):
        levels = list(accumulate(map(_STEP.__getitem__, structure[start : start + _CHUNK]), initial=level))
        if max(levels) > limits.depth:
            return (
                f"The request body is nested deeper than {limits.depth} levels; use fewer levels of lists and objects."
            )
        level = levels[-1]
    values = structure.count(b",") + structure.count(b"[") + structure.count(b"{")
    return too_many if values > limits.values else None


class Room:
    """Room for bodies in memory, shared by all requests."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0

    def open(self) -> Share:
        """One request's share, empty at first."""
        return Share(self)


class Share:
    """What one request holds of the room until it releases it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold `size` bytes more. False: there is no room, and nothing is held any more."""
        if self._room.taken + size > self._room.size:
            self.release()
            return False
        self._room.taken += size
        self.held += size
        return True

    def release(self) -> None:
        self._room.taken -= self.held
        self.held = 0


class Tally:
    """So that a flood of the same thing is one line now and then, with its count."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._next = float("-inf")
        self._silent = 0
        self.total = 0

    def note(self, now: float) -> int:
        """One more. For how many a line is due now, 0 if none is."""
        self.total += 1
        self._silent += 1
        if now < self._next:
            return 0
        self._next = now + self._every
        count, self._silent = self._silent, 0
        return count
