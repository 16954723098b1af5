"""Where in these letters does a mark stand, or begin?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

SPACE = b" \t\r\n"
Then = TypeVar("Then")


def first(buffer: bytes, marks: Collection[bytes]) -> tuple[int, bytes]:
    """The mark that stands first, and where."""
    places = [(at, mark) for mark in marks if (at := buffer.find(mark)) >= 0]
    return min(places, default=(0, b""))


def fits(data: bytes, way: bytes) -> bool:
    """May these letters be the beginning of the way, or the way the beginning of them, white space in front aside?"""
    data, way = data.lstrip(SPACE), way.lstrip(SPACE)
    return way.startswith(data) or data.startswith(way)


def unfinished(buffer: bytes, marks: Collection[bytes]) -> int:
    """How many of the last letters may be the beginning of a mark, with the white space in front of it?"""
    if not marks:
        return 0
    most = max(map(len, marks)) - 1
    begun = 0
    for length in range(min(most, len(buffer)), 0, -1):
        if any(mark.startswith(buffer[len(buffer) - length :]) for mark in marks):
            begun = length
            break
    rest = buffer[: len(buffer) - begun]
    return len(buffer) - len(rest.rstrip(SPACE))


def along(data: bytes, ways: Mapping[bytes, Then]) -> tuple[int, dict[bytes, Then]]:
    """So many of these letters go along one of the ways, to the first end of one; and what is left of those ways."""
    left = dict(ways)
    for count in range(1, len(data) + 1):
        left = {way[count:]: then for way, then in ways.items() if way.startswith(data[:count])}
        if not left:
            return count - 1, {}
        if b"" in left:
            return count, left
    return len(data), left
