"""How does a document end with as few bytes as possible?

Every state can be ended; this finds an end, near the shortest. It also says what values cost at least, which decides
whether a schema can be followed at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from appliance.core.structure.acceptor import (
    AFTER,
    ARRAY,
    COLON,
    FIRST,
    KEY,
    NEXT,
    NO_KEYS,
    NUMBER,
    OBJECT,
    STRING,
    VALUE,
    WORD,
    Frame,
    State,
    Way,
    openings,
    step,
)
from appliance.core.structure.numeral import Digits, Numeral, begin, more, whole
from appliance.core.structure.rules import NOTHING, ArrayRule, Grammar, ObjectRule, Shape, StringRule

ENDLESS = 1 << 20  # nobody waits for a document of more bytes
MOST_MEMBERS = 10_000
BEAM = 64
MOST_DIGITS = 700

Costs = Sequence[int]


def cost(shape: Shape, costs: Costs) -> int:
    """The bytes of the shortest value of this shape, `costs` being those of the nodes below it."""
    return min(_kinds(shape, costs))[0]


def _kinds(shape: Shape, costs: Costs) -> Iterator[tuple[int, int]]:
    """The bytes of the shortest value of each kind; of no kind at all there is none."""
    yield ENDLESS, WORD
    yield from ((len(word), WORD) for word in shape.words)
    if shape.number:
        yield 1, NUMBER
    if shape.string:
        texts = shape.string.texts
        yield 2 + (shape.string.least if texts is None else texts.least(texts.start)), STRING
    if shape.array:
        yield min(2 + sum(_items(shape.array, 0, costs)), ENDLESS), ARRAY
    if shape.object:
        yield min(2 + sum(size for _, _, size in _members(shape.object, 0, 0, costs)), ENDLESS), OBJECT


def _items(rule: ArrayRule, place: int, costs: Costs) -> Iterator[int]:
    """What the items cost that must still come, the like ones in one sum."""
    for at in range(place, min(rule.least, len(rule.first))):
        yield _of(costs, rule.item(at)) + 1
    behind = rule.least - max(place, len(rule.first))
    if behind > 0:
        yield behind * (_of(costs, rule.item(rule.least - 1)) + 1)


def _members(rule: ObjectRule, seen: int, others: int, costs: Costs) -> Iterator[tuple[str | None, int, int]]:
    """The keys that must still come, None for any other, with their nodes and what they cost."""
    lacking = rule.required & ~seen
    for place in range(len(rule.nodes)):
        if lacking >> place & 1:
            yield rule.keys.words[place], rule.nodes[place], _key_cost(rule, place, costs)
    free = rule.least - (seen | lacking).bit_count() - others
    if free > 0:
        spare = [place for place in range(len(rule.nodes)) if (rule.allowed & ~seen & ~lacking) >> place & 1]
        spare.sort(key=lambda place: _key_cost(rule, place, costs))
        for place in spare[:free]:
            yield rule.keys.words[place], rule.nodes[place], _key_cost(rule, place, costs)
        free -= len(spare)
        if free > 0:
            node = min((rule.other, *rule.labels.values()), key=lambda node: _of(costs, node))
            if free > MOST_MEMBERS:
                yield None, NOTHING, ENDLESS
                return
            for _ in range(free):
                yield None, node, (_of(costs, node) + 8)


def _key_cost(rule: ObjectRule, place: int, costs: Costs) -> int:
    return len(json.dumps(rule.keys.words[place])) + 2 + _of(costs, rule.nodes[place])


def _of(costs: Costs, node: int) -> int:
    return ENDLESS if node == NOTHING else costs[node]


# ----------------------------------------------------------------------------------------------------- the bytes


def shortest(state: State) -> bytes:
    """Bytes that end the document from here."""
    return min((_end(way, state) for way in state.ways), key=len)


def _end(way: Way | None, state: State) -> bytes:
    said = b""
    while way is not None:
        frame, rest = way
        said += _frame(frame, rest, state)
        way = rest
    return said


def _frame(frame: Frame, rest: Way | None, state: State) -> bytes:
    """Bytes that end the value which this frame is in."""
    grammar = state.grammar
    match frame[0]:
        case kind if kind == VALUE:
            return _value(frame[1], grammar)
        case kind if kind == COLON:
            return b":" + _value(frame[1], grammar)
        case kind if kind == WORD:
            return bytes(frame[1])
        case kind if kind == NUMBER:
            return _digits(frame[1], frame[2])
        case kind if kind == STRING:
            half, (frame, _) = _whole_letter((frame, rest), state)
            return half + _text(frame[1], frame[3], frame[4])
        case kind if kind == ARRAY:
            return _array(frame[1], frame[2], frame[3], grammar)
        case kind if kind == OBJECT:
            return _object(frame[1], frame[2], frame[3], frame[4], grammar)
        case kind if kind == KEY:
            return _key((frame, rest), state)
    return b""


def _value(node: int, grammar: Grammar) -> bytes:
    """The shortest value of a node."""
    shape = min(grammar.nodes[node], key=lambda shape: cost(shape, grammar.costs))
    _, kind = min(_kinds(shape, grammar.costs))
    if kind == NUMBER:
        assert shape.number, "this kind was there"
        return _digits(shape.number, None)
    if kind == STRING:
        assert shape.string, "this kind was there"
        return b'"' + _text(shape.string, shape.string.texts.start if shape.string.texts else 0, 0)
    if kind == ARRAY:
        assert shape.array, "this kind was there"
        return b"[" + _array(shape.array, 0, FIRST, grammar)
    if kind == OBJECT:
        assert shape.object, "this kind was there"
        return b"{" + _object(shape.object, 0, NO_KEYS, FIRST, grammar)
    return min(shape.words, key=len)


def _text(rule: StringRule, at: int, count: int) -> bytes:
    said = rule.texts.shortest(at) if rule.texts else "a" * (rule.least - count)
    return json.dumps(said, ensure_ascii=False)[1:].encode()


def _array(rule: ArrayRule, count: int, at: int, grammar: Grammar) -> bytes:
    least = max(rule.least, count + 1) if at == NEXT else rule.least
    items = [_value(rule.item(place), grammar) for place in range(count, least)]
    return (b"," if at == AFTER and items else b"") + b",".join(items) + b"]"


def _object(rule: ObjectRule, seen: int, others: frozenset[str | None], at: int, grammar: Grammar) -> bytes:
    members = []
    taken = {*rule.keys.words, *others}
    for key, node, _ in _members(rule, seen, len(others), grammar.costs):
        members.append(_member(key, node, rule, taken, grammar))
    if at == NEXT and not members:
        wanted, _ = openings(rule, seen, others)
        place = next((place for place in range(len(rule.nodes)) if wanted >> place & 1), None)
        if place is None:
            members.append(_member(None, NOTHING, rule, taken, grammar))
        else:
            members.append(_member(rule.keys.words[place], rule.nodes[place], rule, taken, grammar))
    return (b"," if at == AFTER and members else b"") + b",".join(members) + b"}"


def _member(key: str | None, node: int, rule: ObjectRule, taken: set[str | None], grammar: Grammar) -> bytes:
    """A key and its value; without a key one that is not taken."""
    if key is None:
        patterns = rule.patterns
        names = patterns.texts(patterns.start) if patterns else ("a" * count for count in range(len(taken) + 1))
        key = next(name for name in names if name not in taken)
        node = rule.others(rule.patterns.finds(key) if rule.patterns else 0)
        taken.add(key)
    return json.dumps(key, ensure_ascii=False).encode() + b":" + _value(node, grammar)


def _key(way: Way, state: State) -> bytes:
    half, way = _whole_letter(way, state)
    _, rule, _, others, wanted, _, place, pattern, _ = way[0]
    ends: list[str] = []
    if place >= 0:
        ends += sorted((rest for n, rest in rule.keys.below(place) if wanted >> n & 1), key=len)
    if pattern >= 0:
        ends += rule.patterns.texts(pattern) if rule.patterns else ("a" * count for count in range(len(others) + 2))
    for said in ends:
        data = json.dumps(said, ensure_ascii=False)[1:].encode()
        following = State(state.grammar, (way,), state.is_ours).feed(data)
        if following is not None:
            (_, node), (around, _) = following.ways[0]
            _, rule, seen, others, at, _ = around
            return half + data + b":" + _value(node, state.grammar) + _object(rule, seen, others, at, state.grammar)
    raise AssertionError("a key was begun that can become none")


def _whole_letter(way: Way, state: State) -> tuple[bytes, Way]:
    """Bytes to the end of the character that was begun."""
    said = b""
    within = 2 if way[0][0] == STRING else 5
    while way[0][within] is not None:
        for byte in b'\\uaedcbf9876543210nrt"' + bytes(range(0x80, 0xC0)):
            following: list[Way] = []
            step(way, byte, state.grammar.nodes, state.is_ours, following)
            if following:
                said += bytes([byte])
                way = following[0]
                break
        else:
            raise AssertionError("a character was begun that can become none")
    return said, way


def _digits(rule: Numeral, at: Digits | None) -> bytes:
    """Digits that end this number, plain ones if there are."""
    known: list[tuple[bytes, Digits]] = []
    if at is None:
        known = [(bytes([byte]), first) for byte in b"0123456789-" if (first := begin(rule, byte, ours=True))]
    else:
        known = [(b"", at)]
    for _ in range(MOST_DIGITS):
        for said, digits in known:
            if whole(rule, digits):
                return said
        known = [
            (said + bytes([byte]), following)
            for said, digits in known
            for byte in b"e-.0123456789"
            if (following := more(rule, digits, byte, ours=True))
        ][:BEAM]
    raise AssertionError("a number was begun that can become none")
