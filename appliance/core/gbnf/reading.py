"""What does a grammar in GBNF say?

Rules of this file:

1. What llama.cpp reads, we read the same way: a rule ends with its line, but for lines inside parentheses and behind
   `|` and `::=`; of two rules of one name the last counts; a repetition is of the whole string or group before it.
2. What it can say only of its own vocabulary, `<token>`, we do not take: a takeover knows letters and no tokens.
3. Errors name the line, never the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST = 65_536
DEEPEST = 50
MOST_TIMES = 2_000
"""Times of a repetition, as in llama.cpp."""

LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]
"""Characters, by their numbers, from and to."""


class GrammarError(ValueError):
    """This grammar cannot be used. The sentence goes on from "The grammar"."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One of these characters."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Called:
    """What another rule says."""

    rule: str


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` so many times; None: without end."""

    item: Item
    least: int
    most: int | None


Item = Chars | Called | Sequence | Choice | Repeat

ANY = Chars(((0, LAST),))
_BLANK = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANKS = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_LINE = re.compile(r"\r\n?|\n")
_TIMES = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(?:(,)[ \t]*([0-9]{1,9})?[ \t]*)?\}")
_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}


def rules(text: str) -> Mapping[str, Item]:
    """The rules by name; there is a `root`, and no rule is called that there is not. Raises `GrammarError`."""
    if len(text) > LONGEST:
        raise GrammarError(f"is longer than {LONGEST} characters")
    return _Reader(text).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._called: dict[str, int] = {}  # where first

    def rules(self) -> Mapping[str, Item]:
        found: dict[str, Item] = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._match(_NAME, "the name of a rule")
            self._skip()
            if not self._text.startswith("::=", self._at):
                raise self._wrong("'::=' was expected")
            self._at += 3
            self._skip(lines=True)
            found[name] = self._choice(0)
            if self._at < len(self._text):
                self._match(_LINE, "the end of the line")
                self._skip(lines=True)
        if "root" not in found:
            raise GrammarError("has no rule 'root'")
        for name, at in self._called.items():
            if name not in found:
                self._at = at
                raise self._wrong(f"there is no rule '{name[:40]}'")
        return found

    def _choice(self, depth: int) -> Item:
        if depth > DEEPEST:
            raise self._wrong(f"there are more than {DEEPEST} parentheses in one another")
        ways = [self._sequence(depth)]
        while self._next == "|":
            self._at += 1
            self._skip(lines=True)
            ways.append(self._sequence(depth))
        return ways[0] if len(ways) == 1 else Choice(tuple(ways))

    def _sequence(self, depth: int) -> Item:
        items: list[Item] = []
        while (sign := self._next) and sign not in "|)\r\n":
            if sign in "*+?{":
                if not items:
                    raise self._wrong("a repetition has nothing before it")
                items[-1] = self._repeat(items[-1])
            else:
                items.append(self._item(sign, depth))
            self._skip(lines=depth > 0)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _item(self, sign: str, depth: int) -> Item:
        if sign == "(":
            self._at += 1
            self._skip(lines=True)
            inside = self._choice(depth + 1)
            if self._next != ")":
                raise self._wrong("')' was expected")
            self._at += 1
            return inside
        if sign == '"':
            return self._literal()
        if sign == "[":
            return self._class()
        if sign == ".":
            self._at += 1
            return ANY
        if sign in "<!":
            raise self._wrong("tokens in '<>' are not taken here; write their letters")
        at = self._at
        name = self._match(_NAME, "a rule, a string, characters or a group")
        self._called.setdefault(name, at)
        return Called(name)

    def _literal(self) -> Item:
        self._at += 1
        letters: list[Item] = []
        while self._next != '"':
            code = self._character()
            letters.append(Chars(((code, code),)))
        self._at += 1
        return letters[0] if len(letters) == 1 else Sequence(tuple(letters))

    def _class(self) -> Chars:
        self._at += 1
        others = self._next == "^"
        self._at += others
        ranges: list[tuple[int, int]] = []
        while self._next != "]":
            low = high = self._character()
            if self._next == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._character()
            if high < low:
                raise self._wrong("a range of characters ends before it begins")
            ranges.append((low, high))
        self._at += 1
        if not ranges and not others:
            raise self._wrong("'[]' is no character at all")
        return Chars(_without(ranges) if others else _merged(ranges))

    def _character(self) -> int:
        sign = self._next
        if not sign:
            raise self._wrong("it ends in the middle of a string or of characters")
        self._at += 1
        if sign != "\\":
            return ord(sign)
        kind = self._next
        self._at += 1
        if kind in _ESCAPED:
            return ord(_ESCAPED[kind])
        digits = self._text[self._at : self._at + _HEX.get(kind, 0)]
        if kind not in _HEX or len(digits) != _HEX[kind] or not re.fullmatch(r"[0-9a-fA-F]+", digits):
            raise self._wrong("there is no such escape")
        code = int(digits, 16)
        if code > LAST or 0xD800 <= code <= 0xDFFF:
            raise self._wrong("an escape is no character")
        self._at += len(digits)
        return code

    def _repeat(self, item: Item) -> Item:
        sign = self._next
        if sign != "{":
            self._at += 1
            return Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
        found = _TIMES.match(self._text, self._at)
        if found is None:
            raise self._wrong("a repetition in braces is not like {3}, {3,} or {3,5}")
        self._at = found.end()
        least = int(found[1])
        most = least if found[2] is None else None if found[3] is None else int(found[3])
        if max(least, most or 0) > MOST_TIMES:
            raise self._wrong(f"a repetition may be of {MOST_TIMES} times at most")
        if most is not None and most < least:
            raise self._wrong("a repetition has less at most than at least")
        return Repeat(item, least, most)

    @property
    def _next(self) -> str:
        """Nothing at the end."""
        return self._text[self._at : self._at + 1]

    def _skip(self, *, lines: bool = False) -> None:
        found = (_BLANKS if lines else _BLANK).match(self._text, self._at)
        assert found is not None, "nothing is blank too"
        self._at = found.end()

    def _match(self, what: re.Pattern[str], named: str) -> str:
        found = what.match(self._text, self._at)
        if found is None:
            raise self._wrong(f"{named} was expected")
        self._at = found.end()
        return found[0]

    def _wrong(self, what: str) -> GrammarError:
        line = self._text.count("\n", 0, self._at) + 1
        return GrammarError(f"is wrong in line {line}: {what}")


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _without(ranges: list[tuple[int, int]]) -> Ranges:
    """All characters but these."""
    others, begin = [], 0
    for low, high in _merged(ranges):
        if begin < low:
            others.append((begin, low - 1))
        begin = high + 1
    return (*others, (begin, LAST)) if begin <= LAST else tuple(others)
