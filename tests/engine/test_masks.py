"""Masks against the acceptor itself, token by token, and documents drawn at random through them."""

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest

from appliance.core.structure import SchemaError, grammar, shortest, start
from appliance.core.structure.acceptor import KEY, STRING
from appliance.core.structure.automaton import Automaton
from appliance.engine import masks as masks_of
from appliance.engine.content import Within
from appliance.engine.lexicon import SHORT, Lexicon
from appliance.engine.masks import MOST_BLANK, PATTERN_STEP, STEPS, Guide, Masks
from tests.core import schemas
from tests.core.test_schema import BOMBS

pytestmark = pytest.mark.long

# Every byte, and tokens of the kinds that vocabularies have: across quotes, in the middle of escapes and characters.
PIECES = [
    *(bytes([byte]) for byte in range(256)),
    *b'": " "," "} "] {" ":{" : " a": "a","b "name": ":"red","n'.split(),
    *b'\\" \\\\ \\u \\u00 \\ud83d 0041 u00e9", \\n" n"}'.split(),
    *(
        b'": "',
        b'", "',
        b'": {"a": 1',
        b'": [',
        b' "',
        b"\n  ",
        b"\r\n",
        b" " * 40,
        b'",\n  "',
        b"}}}",
        b"]]",
        b"[[[",
        b"{}",
    ),
    *(b"true", b"fal", b"null", b"12", b"123", b"-1", b"0.", b"e-0", b"2026-", b"-11-2", b":00Z"),
    *("é", "中文", "😀", "naïve", "grün", "x" * 30, "ab" * 14).__iter__(),
    *(b"\xf0\x9f", b"\x98\x80", b"\xe4\xb8", b"\xad\xe6", b"x\xc3", b"\xa9y", b'\xa9","a'),
    *(b'"a\\/', b'{"\\u00', b'{"\\n', b'\\/":', b'"\\/":1', b'"\\"":', b'\\n":'),
    b"",
    b"<end>",
]
PIECES = [piece.encode() if isinstance(piece, str) else piece for piece in PIECES]
END = PIECES.index(b"<end>")
LEXICON = Lexicon(PIECES, frozenset({END}))


def states(first, count):
    """Schemas by chance, and a place in a document that somebody else began."""
    for number in range(first, first + count):
        chance = random.Random(number)
        made = schemas.schema(chance)
        try:
            rules = grammar(made)
        except SchemaError:
            continue
        for _ in range(3):
            value = schemas.document(made, chance)
            if schemas.fits(made, value):
                data = schemas.spelled(value, chance).encode()
                cut = chance.randrange(len(data) + 1)
                yield made, data[:cut], start(rules).feed(data[:cut]), chance


def wrong(masks, state):
    """The tokens that a mask allows and may not, or may and are not. Long ones may be lacking in bounded strings, and
    more white space than there may be at once."""
    allowed = masks.allowed(state)
    bounded = any(
        (frame[0] == STRING and not frame[1].free) or (frame[0] == KEY and frame[1].patterns) for frame, _ in state.ways
    )
    found = []
    for token, piece in enumerate(PIECES):
        follows = bool(piece) and token != END and state.feed(piece) is not None
        follows = follows and (state.inside or len(piece) - len(piece.lstrip(b" \t\r\n")) <= MOST_BLANK)
        if allowed[token] != follows and not (follows and bounded and len(piece.decode(errors="ignore")) > SHORT):
            found.append(piece)
    return found


def test_a_mask_allows_the_tokens_that_may_follow_and_no_others():
    masks = Masks(LEXICON)
    for made, committed, state, chance in states(0, 250):
        assert wrong(masks, state) == [], (made, committed)
        guide = Guide(masks, state)
        for _ in range(3):
            assert wrong(masks, guide.state) == [], (made, committed)
            tokens = np.flatnonzero(guide.allowed())
            if not len(tokens):
                break
            committed += PIECES[token := int(chance.choice(tokens))]
            guide.take(PIECES[token])


def test_short_of_steps_a_mask_allows_too_little_and_never_too_much():
    few, lacking = Masks(LEXICON, steps=300), 0
    for made, committed, state, _ in states(500, 120):
        state = state.ours()
        if state.over:
            continue
        allowed = few.allowed(state)
        assert allowed.any() or state.complete, (made, committed)
        assert [PIECES[token] for token in np.flatnonzero(allowed) if state.feed(PIECES[token]) is None] == []
        lacking += bool(wrong(few, state))
    assert lacking > 20


SPECIAL = {
    "key that was there": ({"type": "object"}, '{"a":1,"b":2,"'),
    "key that may be named": ({"type": "object", "properties": {"a": {"type": "null"}, "ab": {}}}, '{"'),
    "key that has begun": ({"type": "object", "properties": {"name": {"type": "null"}}}, '{"nam'),
    "key that is not named": ({"type": "object", "properties": {"a": {}}}, '{"x'),
    "key beside named ones": ({"type": "object", "properties": {"a": {}, "ab": {}}}, '{"a":1,"'),
    "key behind a comma that is one too many": ({"type": "object", "properties": {"a": {}}}, '{"a":1,'),
    "key with a quote": ({"type": "object", "properties": {'a"b': {}, "a\n": {}, "a/": {}}}, '{"a'),
    "key in two ways": (
        {
            "type": "object",
            "anyOf": [{}, {"patternProperties": {"^a[b-z]*$": {}}, "additionalProperties": False}],
        },
        '{"a',
    ),
    "key in an escape": ({"type": "object"}, '{"a\\u00'),
    "key by a pattern with quotes": (
        {"type": "object", "patternProperties": {'^[a"]+$': {}, "^x/[\n-\r]$": {}}, "additionalProperties": False},
        '{"',
    ),
    "key by pattern": ({"type": "object", "patternProperties": {"^n": {}}, "additionalProperties": False}, '{"'),
    "empty key": ({"type": "object"}, '{"":1,"'),
    "short text": ({"type": "string", "maxLength": 5}, '"abc'),
    "full text": ({"type": "string", "maxLength": 3}, '"abc'),
    "text that must go on": ({"type": "string", "minLength": 5}, '"ab'),
    "half a character in a short text": ({"type": "string", "maxLength": 2}, '"a\\u00'),
    "long pattern": ({"type": "string", "pattern": "^.{2,80}$"}, '"ab'),
    "end of a pattern": ({"type": "string", "pattern": "^.{2,80}$"}, '"' + "x" * 70),
    "very end of a pattern": ({"type": "string", "pattern": "^.{2,80}$"}, '"' + "x" * 79),
    "pattern beyond ASCII": ({"type": "string", "pattern": "^[é-ü]*[😀-😂]?$"}, '"é'),
    "pattern in an escape": ({"type": "string", "pattern": "^[a-z]+$"}, '"ab\\'),
    "pattern with what has to be escaped": ({"type": "string", "pattern": '^a[\n"\\\\/-x]*$'}, '"a'),
    "words with what has to be escaped": ({"enum": ['a"b', "a\n", "a/", "aé"]}, '"a'),
    "value by a pattern behind a key": ({"type": "object", "properties": {"a": {"pattern": '^[\n"/a-z]+$'}}}, '{"a'),
    "pattern of a pair": ({"type": "string", "pattern": "^[😀-😂]+$"}, '"\\ud83d'),
    "words": ({"enum": ["red", "reddish", "", "nbsp", 12, 123]}, ""),
    "words begun": ({"enum": ["red", "reddish"]}, '"re'),
    "several ways": (
        {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "string", "pattern": "^x"}, {"enum": ["12345"]}]},
        '"',
    ),
    "number and text": ({"type": ["number", "string", "null"]}, ""),
    "over": ({"type": "null"}, "null"),
    "bounded": ({"type": "integer", "minimum": 100, "maximum": 130}, "1"),
}


@pytest.mark.parametrize(
    ("made", "written"),
    [
        ({"type": "object"}, '{"a\\'),
        ({"type": "object"}, '{"a\\u'),
        ({"type": "object"}, '{"a\\u00'),
        ({"type": "object", "properties": {'a"b': {}}}, '{"a\\'),
        ({"type": "object", "patternProperties": {'^a["\\\\x]b?$': {}}, "additionalProperties": False}, '{"a\\'),
        ({"type": "object", "patternProperties": {"^a[\u001f-x]b?$": {}}, "additionalProperties": False}, '{"a\\u00'),
        ({"type": "string", "pattern": '^a["\\\\x]b?$'}, '"a\\'),
        ({"type": "string", "pattern": "^a[\u001f-x]b?$"}, '"a\\u00'),
        ({"type": "object"}, '{"a": 1, '),
        ({"type": "object"}, "{\n "),
        ({"type": "object"}, '{"a": 1\n'),
        ({"type": "array", "minItems": 2}, "[1"),
        ({"type": "array"}, "[1 "),
        ({}, "\n"),
        ({}, "12"),
    ],
)
def test_a_mask_is_exact_where_we_have_written_something(made, written):
    state = start(grammar(made)).ours().feed(written.encode())
    assert state is not None and wrong(Masks(LEXICON), state) == []


def test_what_models_like_to_write_is_there():
    made = {"type": "object", "properties": {"city": {}, "days": {}, "a": {}}}
    masks, begun = Masks(LEXICON), start(grammar(made)).ours()
    for written, likes in {
        '{"city': [b'": "', b'": [', b'": {"a": 1', b'":{"', b'"'],
        '{"city":': [b' "', b'"', b"12", b" "],
        '{"city": "x': [b'","', b'", "', b'"}', b'",\n  "', b'"', b'\\"'],
        '{"city": ["x"': [b"]", b'"] ', b"\n  "][:1],
        '{"city": {"b": [1': [b"]", b"12"],
    }.items():
        allowed = masks.allowed(begun.feed(written.encode()))
        assert [piece for piece in likes if not allowed[PIECES.index(piece)]] == [], written


def test_of_keys_that_nobody_asked_for_we_write_none():
    masks, keys = Masks(LEXICON), set()
    rules = grammar({"type": "object", "properties": {"a": {"type": "null"}, "name": {"type": "null"}}})
    for number in range(30):
        keys |= json.loads(drawn(masks, start(rules), random.Random(number))).keys()
    assert keys == {"a", "name"}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_mask_is_exact_in_every_special_place(name):
    made, committed = SPECIAL[name]
    state = start(grammar(made)).feed(committed.encode()).ours()
    masks = Masks(LEXICON)
    assert wrong(masks, state) == []
    assert wrong(masks, state) == []  # remembered


def drawn(masks, state, chance):
    """Tokens by chance from here to the end, after sixty of them the shortest way there."""
    guide = Guide(masks, state)
    written = b""
    for _ in range(60):
        tokens = np.flatnonzero(guide.allowed())
        if guide.complete and (not len(tokens) or chance.random() < 0.3):
            break
        closers = [token for token in tokens if PIECES[token] in (b'"', b"}", b"]", b",", b":", b"0")]
        token = int(chance.choice(closers if closers and chance.random() < 0.5 else tokens))
        guide.take(PIECES[token])
        written += PIECES[token]
    return written + shortest(guide.state)


def test_documents_drawn_through_masks_parse_and_validate_from_wherever_they_were_cut():
    masks = Masks(LEXICON)
    count = 0
    for number in range(3_000, 3_200):
        chance = random.Random(number)
        made = schemas.schema(chance)
        try:
            rules = grammar(made)
        except SchemaError as refused:
            assert "no value fits this" in str(refused)
            continue
        values = [value for value in (schemas.document(made, chance) for _ in range(3)) if schemas.fits(made, value)]
        for value in values:
            data = schemas.spelled(value, chance).encode()
            for cut in {0, *(chance.randrange(len(data) + 1) for _ in range(4))}:
                written = data[:cut] + drawn(masks, start(rules).feed(data[:cut]), chance)
                assert schemas.fits(made, json.loads(written)), (made, data[:cut], written)
                count += 1
    assert count > 1_500


WORDS = [
    f"{one}{two}{three}".encode()
    for one in ("", " ", '"', "x", '",', "[")
    for two in "abcdefghij"
    for three in range(400)
]
MANY_PIECES = [*PIECES, *WORDS, *(f"{number:03d}".encode() for number in range(1_000))]
MANY = Lexicon(MANY_PIECES, frozenset({END}))


class Costs:
    """How often is a byte followed, and an automaton led over the whole vocabulary?"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, masks: Masks) -> None:
        self.bytes = self.automata = 0
        follow, run = masks_of.step, masks.content.by_pattern

        def step(*of: Any) -> None:
            self.bytes += 1
            follow(*of)

        def by_pattern(texts: Automaton, at: int) -> Within:
            self.automata += not masks.content.knows(texts, at)
            return run(texts, at)

        monkeypatch.setattr(masks_of, "step", step)
        monkeypatch.setattr(masks.content, "by_pattern", by_pattern)


@pytest.mark.parametrize("name", BOMBS)
def test_no_mask_of_a_bomb_takes_more_than_its_steps(name, monkeypatch):
    try:
        rules = grammar(BOMBS[name])
    except SchemaError:
        return
    masks, chance = Masks(MANY), random.Random(1)
    costs = Costs(monkeypatch, masks)
    for _ in range(3):
        guide = Guide(masks, start(rules))
        for _ in range(20):
            costs.bytes = costs.automata = 0
            tokens = np.flatnonzero(guide.allowed())
            assert costs.bytes + costs.automata * PATTERN_STEP < STEPS + PATTERN_STEP
            assert len(tokens) or guide.complete
            if not len(tokens):
                break
            liked = [token for token in tokens if MANY_PIECES[token][:1] in b'[{"1a']
            guide.take(MANY_PIECES[chance.choice(liked or tokens)])


def test_white_space_comes_to_an_end():
    guide = Guide(Masks(LEXICON), start(grammar({"type": "object"})))
    guide.take(b"{\n")
    count = 1
    while guide.allowed()[PIECES.index(b" ")]:
        guide.take(b" ")
        count += 1
    assert count == MOST_BLANK
    assert guide.allowed()[PIECES.index(b'"')] and not guide.allowed()[PIECES.index(b"\n")]
    guide.take(b'"')
    assert guide.allowed()[PIECES.index(b" ")]  # in a key it is a letter


def test_when_the_document_is_over_only_its_end_may_be_said():
    guide = Guide(Masks(LEXICON), start(grammar({"type": "null"})))
    assert (guide.complete, guide.allowed().any()) == (False, True)
    guide.take(b"null")
    assert (guide.complete, guide.allowed().any()) == (True, False)


def test_a_mask_that_was_handed_out_may_be_changed():
    masks = Masks(LEXICON)
    state = start(grammar({})).feed(b'"a').ours()
    masks.allowed(state)[:] = False
    assert masks.allowed(state).any()


def test_remembered_masks_stay_within_their_room():
    masks = Masks(LEXICON, room=20_000)
    rules = grammar({"type": "object"})
    for number in range(200):
        masks.allowed(start(rules).feed(b'{"k%d":' % number).ours())
    assert masks.remembered < 40
    assert masks.allowed(start(rules).feed(b'{"k1":').ours())[PIECES.index(b"[[[")]


def test_names_of_different_free_keys_share_their_masks():
    masks = Masks(LEXICON)
    rules = grammar({"type": "object", "properties": {"name": {}}})
    for text in itertools.product("xyz", repeat=3):
        masks.allowed(start(rules).feed(f'{{"{"".join(text)}'.encode()).ours())
    assert masks.remembered == 1
