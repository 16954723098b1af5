"""Which whole events are in these bytes? Server-sent events, with no I/O.

Rules of this file:

1. The raw bytes of all events, joined, are the stream: nothing is dropped, nothing is added.
2. Where the network cut the bytes changes nothing: the same stream gives the same events.
3. An event ends at its blank line, however the lines end (LF, CRLF or CR; WHATWG HTML 9.2.5). A CR that is the last
   byte so far waits for its LF.
4. Comments before a field are an event of their own. Lines that are no field at all are kept in `stray`, because an
   HTML page where a stream should be must not pass for silence.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EVENT_LIMIT = 16 * 1024 * 1024
BOM = b"\xef\xbb\xbf"

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
NAMED = 4
"""Lines of an event with a name and one data line, with the two empty ones that the last line ends leave."""
_SILENT_FIELDS = frozenset((b"id", b"retry"))


class OverlongEvent(ValueError):
    """An event went past the size limit before it ended."""


class SseEvent(NamedTuple):
    """One event. A tuple and not a dataclass, because one is made for every token that passes through.

    ``data`` is `None` for comments and for blank lines. It stays bytes: what is not UTF-8 is for the dialect to judge.
    """

    raw: bytes
    data: bytes | None = None
    event: str | None = None
    comment: str | None = None
    stray: bytes | None = None


class SseParser:
    """Bytes, cut anywhere, to whole events."""

    __slots__ = ("_begun", "_carriage", "_limit", "_overlong", "_rest")

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._carriage = False  # a CR was seen; inside JSON none can stand, so it speaks for the whole stream
        self._begun = False
        self._overlong = False

    @property
    def left_over(self) -> bytes:
        """The bytes after the last whole event."""
        return bytes(self._rest)

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that are complete now. Raises `OverlongEvent`, one call after the events before it."""
        if self._overlong:
            raise OverlongEvent(f"an event is longer than {self._limit} bytes")
        if not self._carriage and b"\r" in data:
            self._carriage = True
        searched = 0
        if self._rest:
            searched = max(0, len(self._rest) - 3)
            self._rest += data
            if self._end(self._rest, searched) < 0:
                return self._checked([])
            data = bytes(self._rest)
            self._rest.clear()
        found: list[SseEvent] = []
        start = 0
        while (end := self._end(data, searched)) > 0:
            if end - start > self._limit:
                self._overlong = True
                return self._checked(found)
            found.extend(self._parse(data[start:end]))
            start = searched = end
        self._rest += data[start:]
        return self._checked(found)

    def close(self) -> list[SseEvent]:
        """What was left over, read as if its blank line had come. The raw bytes are still only those that came."""
        rest = self.left_over
        self._rest.clear()
        return self._parse(rest) if rest else []

    def _checked(self, found: list[SseEvent]) -> list[SseEvent]:
        if len(self._rest) > self._limit:
            self._overlong = True
        if self._overlong and not found:
            raise OverlongEvent(f"an event is longer than {self._limit} bytes")
        return found

    def _end(self, data: bytes | bytearray, start: int) -> int:
        """Where the first event after `start` ends, or -1."""
        if not self._carriage:
            at = data.find(b"\n\n", start)
            return at + 2 if at >= 0 else -1
        blank = _BLANK_LINE.search(data, start)
        if blank is None or (blank.end() == len(data) and data[-1] == 0x0D):
            return -1
        return blank.end()

    def _parse(self, raw: bytes) -> list[SseEvent]:
        block = raw
        if not self._begun:
            self._begun = True
            block = raw.removeprefix(BOM)
        # The event that every cloud sends: one data line.
        if block[:6] == b"data: ":
            data = block[6:].rstrip(b"\r\n")
            if b"\n" not in data and not (self._carriage and b"\r" in data):
                return [SseEvent(raw, data)]
        # And the one Anthropic sends: its name, and one data line.
        elif block[:7] == b"event: " and not self._carriage:
            lines = block.split(b"\n")
            if len(lines) == NAMED and lines[1][:6] == b"data: ":
                return [SseEvent(raw, lines[1][6:], lines[0][7:].decode("utf-8", "replace"))]
        return _fields(raw, block)


def _fields(raw: bytes, block: bytes) -> list[SseEvent]:
    found: list[SseEvent] = []
    comments: list[bytes] = []
    data: list[bytes] | None = None
    event: str | None = None
    stray: bytes | None = None
    fields = 0
    cut = 0
    before = len(raw) - len(block)  # a byte order mark
    for match in _LINE.finditer(block):
        line = match[1]
        if not line:
            continue
        if line[:1] == b":":
            if not fields:
                comments.append(line[1:].removeprefix(b" "))
            continue
        if comments and not fields:
            cut = before + match.start()
            found.append(SseEvent(raw[:cut], comment=_text(comments)))
            comments = []
        fields += 1
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data = [value] if data is None else [*data, value]
        elif name == b"event":
            event = value.decode("utf-8", "replace")
        elif name not in _SILENT_FIELDS and stray is None:
            stray = line
    joined = None if data is None else b"\n".join(data)
    comment = _text(comments) if comments else None
    return [*found, SseEvent(raw[cut:], joined, event, comment, stray)]


def _text(comments: list[bytes]) -> str:
    return b"\n".join(comments).decode("utf-8", "replace")


def encode(data: str | bytes, event: str | None = None) -> bytes:
    """One event as bytes."""
    body = data.encode() if isinstance(data, str) else data
    if b"\n" in body or b"\r" in body:
        body = b"\ndata: ".join(_LINE_END.split(body))
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + body + b"\n\n"


def comment(text: str) -> bytes:
    """What readers of events skip: it keeps a connection alive, or tells a curious reader something."""
    return b"".join(b": " + line.encode() + b"\n" for line in text.splitlines() or [""]) + b"\n"
