"""A regular expression of the kind that JSON schemas use, as a tree.

That is ECMAScript's, read by code points. What no finite automaton can hold (looking around, repeating what was found
before) raises `Unheld`; what is no regular expression at all raises `ValueError`.
"""

from __future__ import annotations

from dataclasses import dataclass

LAST = 0x10FFFF
MOST_NESTED = 60
MOST_LETTERS = 10_000

Ranges = tuple[tuple[int, int], ...]
"""Code points, from and to, sorted, without overlaps."""


class Unheld(Exception):
    """This asks for more than an automaton of bounded size can hold. `work`: what it took to find out."""

    def __init__(self, words: str, work: int = 0) -> None:
        super().__init__(words)
        self.work = work


@dataclass(frozen=True, slots=True)
class Letters:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Row:
    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Either:
    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Tree
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Edge:
    """The beginning of the text, or its end."""

    begin: bool


Tree = Letters | Row | Either | Repeat | Edge

EMPTY = Row(())
ANY: Ranges = ((0, LAST),)
DIGITS: Ranges = ((48, 57),)
WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
BLANK: Ranges = (
    *((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


def union(*sets: Ranges) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(one for ranges in sets for one in ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def others(ranges: Ranges) -> Ranges:
    """All code points but these."""
    rest: list[tuple[int, int]] = []
    at = 0
    for low, high in ranges:
        if low > at:
            rest.append((at, low - 1))
        at = high + 1
    return (*rest, (at, LAST)) if at <= LAST else tuple(rest)


LINE = others(union(((10, 10), (13, 13), (0x2028, 0x2029))))  # what a dot stands for
CLASSES = {
    "d": DIGITS,
    "w": WORD,
    "s": BLANK,
    "D": others(DIGITS),
    "W": others(WORD),
    "S": others(BLANK),
}


def parse(pattern: str) -> Tree:
    """The tree of `pattern`. Raises `Unheld` or `ValueError`, each with a few words on what."""
    if len(pattern) > MOST_LETTERS:
        raise Unheld(f"it has more than {MOST_LETTERS} letters")
    reading = _Reading(pattern)
    tree = reading.either(0)
    if reading.at < len(pattern):
        raise ValueError("a ')' without its '('")
    return tree


class _Reading:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self, words: str) -> bool:
        if self.text.startswith(words, self.at):
            self.at += len(words)
            return True
        return False

    def either(self, depth: int) -> Tree:
        if depth > MOST_NESTED:
            raise Unheld(f"it is nested more than {MOST_NESTED} deep")
        parts = [self._row(depth)]
        while self._take("|"):
            parts.append(self._row(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _row(self, depth: int) -> Tree:
        parts: list[Tree] = []
        while self._next() and self._next() not in "|)":
            parts.append(self._repeated(self._one(depth)))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _repeated(self, part: Tree) -> Tree:
        bounds = self._bounds()
        if bounds is None:
            return part
        if isinstance(part, Edge):
            raise ValueError("nothing to repeat")
        self._take("?")  # lazy or not, it is the same text
        if self._next() and (self._next() in "*+?" or self._counted() is not None):
            raise ValueError("nothing to repeat")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for mark, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(mark):
                return bounds
        counted = self._counted()
        if counted is None:
            return None
        least, most, self.at = counted
        if most is not None and most < least:
            raise ValueError("a repetition whose bounds are the wrong way round")
        return least, most

    def _counted(self) -> tuple[int, int | None, int] | None:
        """`{2}`, `{2,}` or `{2,5}`, if that stands here, and where it ends."""
        if self._next() != "{":
            return None
        end = self.text.find("}", self.at)
        first, comma, second = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not _number(first) or (second and not _number(second)):
            return None  # as in browsers, a brace that counts nothing is a letter
        return int(first), (int(second) if second else None if comma else int(first)), end + 1

    def _one(self, depth: int) -> Tree:
        letter = self._next()
        if letter in "*+?":
            raise ValueError("nothing to repeat")
        if self._counted() is not None:
            raise ValueError("nothing to repeat")
        self.at += 1
        match letter:
            case "^" | "$":
                return Edge(letter == "^")
            case ".":
                return Letters(LINE)
            case "(":
                return self._group(depth)
            case "[":
                return Letters(self._set())
            case "\\":
                return Letters(self._escaped(inside=False))
        return Letters(((ord(letter), ord(letter)),))

    def _group(self, depth: int) -> Tree:
        if self._take("?"):
            if any(self.text.startswith(mark, self.at) for mark in ("=", "!", "<=", "<!")):
                raise Unheld("it looks ahead or behind")
            if self._take("<"):
                end = self.text.find(">", self.at)
                if end < 0 or not self.text[self.at : end].isidentifier():
                    raise ValueError("a group whose name is none")
                self.at = end + 1
            elif not self._take(":"):
                raise ValueError("a group of an unknown kind")
        tree = self.either(depth + 1)
        if not self._take(")"):
            raise ValueError("a '(' without its ')'")
        return tree

    def _set(self) -> Ranges:
        inverted = self._take("^")
        parts: list[Ranges] = []
        while not self._take("]"):
            low = self._member()
            if self._next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
                    parts += [low, high, ((45, 45),)]
                elif low[0][0] > high[0][0]:
                    raise ValueError("a range whose ends are the wrong way round")
                else:
                    parts.append(((low[0][0], high[0][0]),))
            else:
                parts.append(low)
        ranges = union(*parts)
        return others(ranges) if inverted else ranges

    def _member(self) -> Ranges:
        letter = self._next()
        if not letter:
            raise ValueError("a '[' without its ']'")
        self.at += 1
        return self._escaped(inside=True) if letter == "\\" else ((ord(letter), ord(letter)),)

    def _escaped(self, *, inside: bool) -> Ranges:
        letter = self._next()
        self.at += 1
        if not letter:
            raise ValueError("a backslash at the end")
        if letter in CLASSES:
            return CLASSES[letter]
        if letter in "pP":
            raise Unheld("it names a property of characters")
        if letter in "bB" and not (inside and letter == "b"):
            raise Unheld("it asks where a word ends")
        if letter == "k" or letter in "123456789":
            raise Unheld("it repeats what was found before")
        code = self._code(letter)
        return ((code, code),)

    def _code(self, letter: str) -> int:
        if letter in CONTROL:
            return CONTROL[letter]
        if letter == "b":
            return 8
        if letter == "c" and self._next().isalpha() and self._next().isascii():
            self.at += 1
            return ord(self.text[self.at - 1]) % 32
        if letter == "x":
            return self._hex(2, letter)
        if letter == "u":
            if self._take("{"):
                end = self.text.find("}", self.at)
                digits, self.at = self.text[self.at : end], end + 1
                if end < 0 or not _hexadecimal(digits) or len(digits) > 8 or int(digits, 16) > LAST:
                    raise ValueError("a code point that is none")
                return int(digits, 16)
            code = self._hex(4, letter)
            if 0xD800 <= code < 0xDC00 and self._take("\\u"):
                return 0x10000 + ((code - 0xD800) << 10) + (self._hex(4, letter) - 0xDC00) % 0x400
            return code
        return ord(letter)

    def _hex(self, digits: int, letter: str) -> int:
        found = self.text[self.at : self.at + digits]
        if len(found) < digits or not _hexadecimal(found):
            return ord(letter)
        self.at += digits
        return int(found, 16)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _hexadecimal(text: str) -> bool:
    return bool(text) and all(letter in "0123456789abcdefABCDEF" for letter in text)
