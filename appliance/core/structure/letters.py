"""The inside of a JSON string, byte by byte: which character did this byte end?

Between two characters the place is None. Inside one it is a `Half`: of bytes of UTF-8, or of an escape. Both come in
their only valid form: no overlong bytes, no half of a surrogate pair without the other.
"""

from __future__ import annotations

from typing import NamedTuple

QUOTE, SLASH, BACKSLASH = 0x22, 0x2F, 0x5C
LAST = 0x10FFFF
SHORT = {0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x62: 8, 0x66: 12, 0x6E: 10, 0x72: 13, 0x74: 9}
HEX = {**{48 + n: n for n in range(10)}, **{65 + n: 10 + n for n in range(6)}, **{97 + n: 10 + n for n in range(6)}}

BYTES, ESCAPE, UNIT, PAIR, PAIRED, NEEDED = range(6)
"""Bytes of UTF-8 are owed; a backslash was read; so were digits of \\u; the pair's other half is owed, or its `u`; and
any part of an escape which must be of something that cannot be written otherwise."""

Ranges = tuple[tuple[int, int], ...]
CONTROL = 0x1F
UNSPEAKABLE: Ranges = ((0, CONTROL), (QUOTE, QUOTE), (BACKSLASH, BACKSLASH))


class Half(NamedTuple):
    kind: int
    owed: int = 0  # bytes or digits
    code: int = 0  # what is known of it
    least: int = 0  # of the code, for bytes: no overlong ones
    high: int = 0  # the first half of the pair


Within = Half | None
NEED = Half(NEEDED)
WRONG: tuple[Within, int] = (None, -2)
UNDONE = -1


def letter(within: Within, byte: int) -> tuple[Within, int]:
    """Where this byte leads, and the character it ended: `UNDONE` if none, or `WRONG`. Not for a closing quote."""
    if within is None:
        if byte == BACKSLASH:
            return Half(ESCAPE), UNDONE
        if byte < 0x80:
            return (None, byte) if byte >= 0x20 and byte != QUOTE else WRONG
        return _lead(byte)
    kind, owed, code, least, high = within
    if kind == BYTES:
        if byte & 0xC0 != 0x80:
            return WRONG
        return _checked(owed - 1, code << 6 | byte & 0x3F, least)
    if kind == ESCAPE:
        if byte == 0x75:
            return Half(UNIT, 4), UNDONE
        return (None, SHORT[byte]) if byte in SHORT else WRONG
    if kind == UNIT:
        return _digit(owed - 1, code, high, HEX[byte]) if byte in HEX else WRONG
    if kind == NEEDED:
        return _needed(owed, code, byte)
    if kind == PAIR:
        return (Half(PAIRED, high=high), UNDONE) if byte == BACKSLASH else WRONG
    return (Half(UNIT, 4, high=high), UNDONE) if byte == 0x75 else WRONG


def _lead(byte: int) -> tuple[Within, int]:
    if 0xC2 <= byte < 0xE0:
        return Half(BYTES, 1, byte & 0x1F, 0x80), UNDONE
    if 0xE0 <= byte < 0xF0:
        return Half(BYTES, 2, byte & 0x0F, 0x800), UNDONE
    if 0xF0 <= byte < 0xF5:
        return Half(BYTES, 3, byte & 0x07, 0x10000), UNDONE
    return WRONG


def _checked(owed: int, code: int, least: int) -> tuple[Within, int]:
    low, high = code << 6 * owed, (code + 1 << 6 * owed) - 1
    if high < least or low > LAST or (low >= 0xD800 and high <= 0xDFFF):
        return WRONG
    return (Half(BYTES, owed, code, least), UNDONE) if owed else (None, code)


def _digit(owed: int, code: int, high: int, digit: int) -> tuple[Within, int]:
    code = code << 4 | digit
    first, last = code << 4 * owed, (code + 1 << 4 * owed) - 1
    if high:
        if last < 0xDC00 or first > 0xDFFF:
            return WRONG
        return (Half(UNIT, owed, code, 0, high), UNDONE) if owed else (None, _pair(high, code))
    if first >= 0xDC00 and last <= 0xDFFF:
        return WRONG
    if owed:
        return Half(UNIT, owed, code), UNDONE
    return (Half(PAIR, high=code), UNDONE) if 0xD800 <= code < 0xDC00 else (None, code)


def _needed(owed: int, code: int, byte: int) -> tuple[Within, int]:
    if not owed:
        if byte == 0x75:
            return Half(NEEDED, 4), UNDONE
        return (None, SHORT[byte]) if byte in SHORT and byte != SLASH else WRONG
    code = code << 4 | HEX.get(byte, LAST)
    if code << 4 * (owed - 1) > CONTROL:
        return WRONG
    return (Half(NEEDED, owed - 1, code), UNDONE) if owed > 1 else (None, code)


def _pair(high: int, low: int) -> int:
    return 0x10000 + (high - 0xD800 << 10) + low - 0xDC00


def possible(within: Half) -> Ranges:
    """The characters that this half may still become."""
    kind, owed, code, least, high = within
    if kind == BYTES:
        return ((max(code << 6 * owed, least), min((code + 1 << 6 * owed) - 1, LAST)),)
    if kind == ESCAPE:
        return ((0, LAST),)
    if kind == NEEDED:
        return ((code << 4 * owed, min((code + 1 << 4 * owed) - 1, CONTROL)),) if owed else UNSPEAKABLE
    if kind != UNIT:
        return ((_pair(high, 0xDC00), _pair(high, 0xDFFF)),)
    first, last = code << 4 * owed, (code + 1 << 4 * owed) - 1
    if high:
        return ((_pair(high, max(first, 0xDC00)), _pair(high, min(last, 0xDFFF))),)
    ranges = []
    if first < 0xD800:
        ranges.append((first, min(last, 0xD7FF)))
    if last >= 0xE000:
        ranges.append((max(first, 0xE000), last))
    if first < 0xDC00 and last >= 0xD800:
        ranges.append((_pair(max(first, 0xD800), 0xDC00), _pair(min(last, 0xDBFF), 0xDFFF)))
    return tuple(ranges)
