"""Which bytes may follow in this JSON document?

A state is a value: what was read so far, as far as it matters for what may follow. Somebody else may have written
the beginning, with keys in any order, white space of any amount and any escapes.

Rules:

1. Several ways of reading go on side by side (`anyOf`), at most `MOST_WAYS`. Each is a stack of frames, innermost
   first; each could be ended, whatever was read. So no state is a dead end.
2. A key stands once in its object, however it is spelled.
3. `ours()` is the same state where we go on, and we write more narrowly than we read, lest a weak model lose itself:
   numbers plainly (see `numeral`); of keys only those that the schema names or asks for (`ObjectRule.plain`); in keys,
   and in strings whose letters are bounded, no escape that need not be; white space only as in `{"a": 1, "b": 2}`, or a
   line for each member. Where somebody else left no such way to go on, what may be read may be written.
"""

from __future__ import annotations

import re
from typing import Any

from appliance.core.structure.letters import BACKSLASH, NEED, QUOTE, UNDONE, Half, letter, possible
from appliance.core.structure.numeral import begin, more, whole
from appliance.core.structure.rules import Grammar, ObjectRule
from appliance.core.structure.words import Words

MOST_WAYS = 128
MOST_AT_ONCE = 4_096  # while one token is read that we have drawn
MOST_STEPS = 6_000  # for all the ways of it: then those are dropped that were not looked at, if another is left
MOST_DEEP = 500  # clients' own parsers end soon after

VALUE, WORD, STRING, NUMBER, ARRAY, OBJECT, KEY, COLON, OVER = range(9)
FIRST, NEXT, AFTER = range(3)
"""Where an array or object is: opened, behind a comma, behind a value."""

NONE, DONE, LINE = range(3)
"""White space that we have written here: none, all there may be, the beginning of a line."""

SPACE = b" \t\r\n"
ENDING = b" \t\r\n,]}"
PLAIN = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7f]+")
NO_KEYS: frozenset[str | None] = frozenset()

BEGINNING = b'"{[-0123456789tfn'
LIKELY = {
    VALUE: SPACE + BEGINNING,
    NUMBER: b"0123456789.eE+-" + ENDING,
    ARRAY: SPACE + b",]" + BEGINNING,
    OBJECT: SPACE + b',}"',
    COLON: SPACE + b":",
    OVER: SPACE,
}
"""The only bytes that can follow in such a frame."""

Frame = tuple[Any, ...]
Way = tuple[Frame, Any]
"""A frame and the way around it, or None."""

END: Way = ((OVER,), None)


class State:
    """Immutable, and equal by content to other states of the same grammar."""

    __slots__ = ("_hash", "grammar", "is_ours", "ways")

    def __init__(self, grammar: Grammar, ways: tuple[Way, ...], ours: bool) -> None:
        self.grammar = grammar
        self.ways = ways
        self.is_ours = ours
        self._hash = hash((ways, ours))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return (
            self._hash == other._hash
            and self.is_ours == other.is_ours
            and self.grammar is other.grammar
            and self.ways == other.ways
        )

    def feed(self, data: bytes) -> State | None:
        """The state behind these bytes; None if they cannot follow."""
        if not self.is_ours or len(self.ways) == 1:
            found = self._read(self.ways, data, MOST_AT_ONCE if self.is_ours else MOST_WAYS)[0]
        else:  # whoever drew it has looked at each way by itself
            found, left = (), MOST_STEPS
            for way in self.ways:
                more_ways, steps = self._read((way,), data, MOST_AT_ONCE)
                found += more_ways
                left -= steps
                if found and (left < 0 or len(found) >= MOST_WAYS):
                    break
        return State(self.grammar, tuple(dict.fromkeys(found))[:MOST_WAYS], self.is_ours) if found else None

    def _read(self, ways: tuple[Way, ...], data: bytes, most: int) -> tuple[tuple[Way, ...], int]:
        """Where these ways lead, none if nowhere, and in how many steps."""
        nodes, ours = self.grammar.nodes, self.is_ours
        at, end, steps = 0, len(data), 0
        while at < end:
            if end - at > 1 and len(ways) == 1 and ways[0][0][0] == STRING:
                _, rule, within, _, _ = ways[0][0]
                if within is None and rule.free and (plain := PLAIN.match(data, at)):
                    at = plain.end()
                    continue
            byte = data[at]
            at += 1
            following: list[Way] = []
            for way in ways:
                step(way, byte, nodes, ours, following)
            steps += len(ways)
            if not following:
                return (), steps
            ways = tuple(dict.fromkeys(following))[:most] if len(following) > 1 else (following[0],)
        return ways, steps

    def ours(self) -> State:
        """The same place, from which we go on."""
        return self if self.is_ours else State(self.grammar, tuple(dict.fromkeys(map(_ours, self.ways))), True)

    @property
    def complete(self) -> bool:
        """May the document end here?"""
        return any(
            frame[0] == OVER or (frame[0] == NUMBER and rest is None and whole(frame[1], frame[2]))
            for frame, rest in self.ways
        )

    @property
    def over(self) -> bool:
        """May nothing but white space follow?"""
        return all(frame[0] == OVER for frame, _ in self.ways)

    @property
    def inside(self) -> bool:
        """Would white space belong to a string or a key here?"""
        return any(frame[0] in (STRING, KEY) for frame, _ in self.ways)

    def gist(self, reach: int) -> State:
        """A state behind which every text of at most `reach` letters may follow that may follow here (but for a very
        few that a cautious reader leaves out), the same one for many states: masks are remembered by it."""
        ways = tuple(_gist(way, reach) for way in self.ways)
        return self if ways == self.ways else State(self.grammar, ways, self.is_ours)


def start(grammar: Grammar) -> State:
    """The state before the first byte."""
    return State(grammar, (((VALUE, grammar.root, NONE), None),), False)


# ------------------------------------------------------------------------------------------------------ one byte


def step(way: Way, byte: int, nodes: Any, ours: bool, out: list[Way]) -> None:
    """Add to `out` where this way of reading leads."""
    frame, rest = way
    match frame[0]:
        case 2:  # STRING
            _string(frame, rest, byte, ours, out)
        case 6:  # KEY
            _key(frame, rest, byte, ours, out)
        case 3:  # NUMBER
            _, rule, digits = frame
            if byte in ENDING:
                if whole(rule, digits):
                    step(rest or END, byte, nodes, ours, out)
            elif (digits := more(rule, digits, byte, ours=ours)) is not None:
                out.append(((NUMBER, rule, digits), rest))
        case 1:  # WORD
            word = frame[1]
            if byte == word[0]:
                out.append(((WORD, word[1:]), rest) if len(word) > 1 else rest or END)
        case _ if byte in SPACE:
            if not ours:
                out.append(way)
            elif (blank := _blank(frame, rest, byte)) is not None:
                out.append(((*frame[:-1], blank), rest))
        case 0:  # VALUE
            _begin(frame[1], rest, byte, nodes, ours, out)
        case 4:  # ARRAY
            _array(frame, rest, byte, nodes, ours, out)
        case 5:  # OBJECT
            _object(frame, rest, byte, ours, out)
        case 7 if byte == 0x3A:  # COLON
            out.append(((VALUE, frame[1], NONE), rest))


def likely(way: Way) -> bytes | None:
    """The only bytes that can follow, perhaps with some that cannot; None: any may."""
    frame = way[0]
    kind = frame[0]
    if kind == WORD:
        return bytes(frame[1][:1])
    if kind == STRING and frame[2] is None and isinstance(frame[1].texts, Words):
        return frame[1].texts.bytes(frame[3])
    if kind == KEY and frame[5] is None and frame[7] < 0:
        keys: Words = frame[1].keys
        return keys.bytes(frame[6])
    return LIKELY.get(kind)


def _begin(node: int, rest: Way | None, byte: int, nodes: Any, ours: bool, out: list[Way]) -> None:
    if byte in b"[{" and _deep(rest) >= MOST_DEEP:
        return
    for shape in nodes[node]:
        match byte:
            case 0x22:  # a quote
                if shape.string:
                    texts = shape.string.texts
                    out.append(((STRING, shape.string, None, texts.start if texts else 0, 0), rest))
            case 0x7B:  # {
                if shape.object:
                    out.append(((OBJECT, shape.object, 0, NO_KEYS, FIRST, NONE), rest))
            case 0x5B:  # [
                if shape.array:
                    out.append(((ARRAY, shape.array, 0, FIRST, NONE), rest))
            case 0x74 | 0x66 | 0x6E:  # t, f, n
                out += [((WORD, word[1:]), rest) for word in shape.words if word[0] == byte]
            case _:
                if shape.number and (digits := begin(shape.number, byte, ours=ours)):
                    out.append(((NUMBER, shape.number, digits), rest))


def _blank(frame: Frame, rest: Way | None, byte: int) -> int | None:
    """Our white space with this byte behind it: one space, or a line feed and what indents the line. Behind a colon it
    is the space only; in front of the document, two line feeds. Behind a value, only what closes it all may follow."""
    kind, blank = frame[0], frame[-1]
    if kind == VALUE:
        if byte == 0x0A and rest is None and blank != DONE:
            return LINE if blank == NONE else DONE
        return DONE if byte == 0x20 and blank == NONE else None
    if kind in (ARRAY, OBJECT):
        if blank == LINE:
            return LINE if byte in b" \t" else None
        if blank == NONE and byte in b" \n" and (frame[-2] != AFTER or _closes(frame)):
            return LINE if byte == 0x0A else DONE
    return None


def _closes(frame: Frame) -> bool:
    """May this array or object, behind a value or just opened, be closed?"""
    rule = frame[1]
    if frame[0] == ARRAY:
        return bool(frame[2] >= rule.least)
    _, _, seen, others, _, _ = frame
    return not rule.required & ~seen and bool(seen.bit_count() + len(others) >= rule.least)


def _deep(rest: Way | None) -> int:
    deep = 0
    while rest is not None:
        deep += 1
        rest = rest[1]
    return deep


def _string(frame: Frame, rest: Way | None, byte: int, ours: bool, out: list[Way]) -> None:
    _, rule, within, at, count = frame
    texts, most = rule.texts, rule.most
    if byte == QUOTE and within is None:
        if texts.label(at) if texts else count >= rule.least:
            out.append(rest or END)
        return
    if most is not None and count >= most:
        return
    needed = ours and texts and within is None and byte == BACKSLASH
    within, code = (NEED, UNDONE) if needed else letter(within, byte)
    if code == UNDONE:
        if texts and within and not any(texts.some(at, low, high) for low, high in possible(within)):
            return
    elif code < 0:
        return
    elif texts:
        at = texts.step(at, code)
        if at < 0:
            return
    elif most is not None or count < rule.least:
        count += 1
    out.append(((STRING, rule, within, at, count), rest))


def _array(frame: Frame, rest: Way | None, byte: int, nodes: Any, ours: bool, out: list[Way]) -> None:
    _, rule, count, at, blank = frame
    if byte == 0x5D:  # ]
        if at != NEXT and _closes(frame):
            out.append(rest or END)
    elif at == AFTER:
        if byte == 0x2C and not blank and rule.item(count) >= 0:  # ,
            out.append(((ARRAY, rule, count, NEXT, NONE), rest))
    elif (node := rule.item(count)) >= 0:
        following = (ARRAY, rule, min(count + 1, rule.cap), AFTER, NONE)
        _begin(node, (following, rest), byte, nodes, ours, out)


def _object(frame: Frame, rest: Way | None, byte: int, ours: bool, out: list[Way]) -> None:
    _, rule, seen, others, at, blank = frame
    if byte == 0x7D:  # }
        if at != NEXT and _closes(frame):
            out.append(rest or END)
    elif byte == 0x2C:
        if at == AFTER and not blank and any(openings(rule.plain if ours else rule, seen, others)):
            out.append(((OBJECT, rule, seen, others, NEXT, NONE), rest))
    elif byte == QUOTE and at != AFTER:
        if ours and (at != NEXT or any(openings(rule.plain, seen, others))):
            rule = rule.plain  # it is not where somebody else has written a comma behind the last of the keys
        wanted, more_keys = openings(rule, seen, others)
        if wanted or more_keys:
            place = rule.keys.start
            pattern = (rule.patterns.start if rule.patterns else 0) if more_keys else -1
            out.append(((KEY, rule, seen, others, wanted, None, place, pattern, ""), rest))


def openings(rule: ObjectRule, seen: int, others: frozenset[str | None]) -> tuple[int, bool]:
    """Which of the named keys may come, as bits, and may there be others?"""
    wanted, more_keys = rule.allowed & ~seen, rule.open
    if rule.most is not None:
        lacking = rule.required & ~seen
        if rule.most - seen.bit_count() - len(others) <= lacking.bit_count():
            return lacking, False
    return wanted, more_keys


def _key(frame: Frame, rest: Way | None, byte: int, ours: bool, out: list[Way]) -> None:
    _, rule, seen, others, wanted, within, place, pattern, text = frame
    keys, patterns = rule.keys, rule.patterns
    if byte == QUOTE and within is None:
        named = keys.label(place) if place >= 0 else 0
        if named:
            if wanted >> named - 1 & 1:
                around = (OBJECT, rule, seen | 1 << named - 1, others, AFTER, NONE)
                out.append(((COLON, rule.nodes[named - 1]), (around, rest)))
        elif pattern >= 0 and text not in others and (text is None or None not in others):
            node = rule.others(patterns.label(pattern) if patterns else 0)
            if node >= 0:
                out.append(((COLON, node), ((OBJECT, rule, seen, others | {text}, AFTER, NONE), rest)))
        return
    within, code = (NEED, UNDONE) if ours and within is None and byte == BACKSLASH else letter(within, byte)
    if code == UNDONE:
        assert within is not None, "what is not done is within a character"
        if not _may_be_key(rule, wanted, within, place, pattern):
            return
    elif code < 0:
        return
    else:
        place = keys.step(place, code) if place >= 0 else -1
        if pattern >= 0:
            pattern = patterns.step(pattern, code) if patterns else 0
        if pattern >= 0:
            text = text + chr(code) if text is not None else None
        else:
            text = ""
            if place < 0 or not keys.leads(place, wanted):
                return
    out.append(((KEY, rule, seen, others, wanted, within, place, pattern, text), rest))


def _may_be_key(rule: ObjectRule, wanted: int, within: Half, place: int, pattern: int) -> bool:
    """Can what was begun inside of a character still become a key?"""
    keys, patterns, ranges = rule.keys, rule.patterns, possible(within)
    if pattern >= 0 and (not patterns or any(patterns.some(pattern, low, high) for low, high in ranges)):
        return True
    return place >= 0 and any(keys.among(place, low, high, wanted) for low, high in ranges)


def _ours(way: Way) -> Way:
    """This way where we go on: half a key of somebody else's becomes one that we would write, if it can."""
    frame, rest = way
    if frame[0] != KEY or frame[7] < 0 or frame[1].plain is frame[1]:
        return way
    _, rule, seen, others, wanted, within, place, _, text = frame
    plain = rule.plain
    pattern = plain.patterns.reached(text) if plain.patterns else -1
    if within is not None:
        fits = _may_be_key(plain, wanted, within, place, pattern)
    else:
        fits = pattern >= 0 or (place >= 0 and rule.keys.leads(place, wanted))
    text = text if pattern >= 0 else ""
    return ((KEY, plain, seen, others, wanted, within, place, pattern, text), rest) if fits else way


def _gist(way: Way, reach: int) -> Way:
    frame, rest = way
    if frame[0] == STRING:
        _, rule, within, at, count = frame
        if rule.texts is None and (rule.most is not None or rule.least):
            far = rule.most is None or rule.most - count > reach
            if far and count >= rule.least:
                return (STRING, rule, within, at, rule.least), rest
            if far and rule.least - count > reach:
                return (STRING, rule, within, at, 0), rest
    elif frame[0] == KEY:
        _, rule, seen, others, wanted, within, place, pattern, text = frame
        if pattern >= 0 and place < 0 and text and not any(key and key.startswith(text) for key in others):
            return (KEY, rule, seen, others, wanted, within, place, pattern, None), rest
    return way
