"""The tokens that keep to a grammar are found, whichever way they are looked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.gbnf import Place, read
from appliance.engine import keeping
from appliance.engine.job import Refusal
from appliance.engine.keeping import Keeper, Spelling
from tests.engine.fakes import END, START, vocabulary

WORDS = vocabulary()
SPELLING = Spelling(WORDS)
NUMBERS = np.random.default_rng(1).normal(size=len(WORDS)).astype(np.float32)


def keeper(grammar: str, said: bytes = b"") -> Keeper:
    place = read(grammar).start.feed(said)
    assert place is not None
    return Keeper(SPELLING, place)


def slowly(grammar: str, said: bytes, owed: int = 0) -> list[int]:
    place = read(grammar).start.feed(said)
    assert place is not None
    return [
        token
        for token, piece in enumerate(WORDS.pieces)
        if (token == END and place.complete) or (piece and place.feed(piece[owed:]) is not None)
    ]


GRAMMARS = st.sampled_from(
    [
        ('root ::= "The weather" [^.]* "."?', b"The weather"),
        ('root ::= " wea" "ther"? | " in" root | "" ', b""),
        ("root ::= .*", b""),
        ("root ::= [ü🎉]+", b"\xc3"),
        ("root ::= [ü🎉]+", b"\xf0\x9f"),
        ('root ::= "1" "2" [3-9]*', b"1"),
        ('root ::= "x"', b"x"),
    ]
)


@settings(deadline=None)
@given(GRAMMARS, st.integers(1, 60), st.sampled_from([1, 3, 1000, None]))
def test_those_that_may_come_are_found(case: tuple[str, bytes], likely: int, enough: int | None) -> None:
    grammar, said = case
    some = keeper(grammar, said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "LIKELY", likely)
        found = some.among(NUMBERS, None, 0, enough)
        again = some.among(NUMBERS, None, 0, enough)
    every = slowly(grammar, said)
    assert sorted(found) == sorted(again)
    assert set(found.tolist()) <= set(every)
    best = sorted(every, key=lambda token: -NUMBERS[token])[: enough or len(every)]
    assert set(best) <= set(found.tolist())
    assert [token for token in range(len(WORDS)) if some.allows(token)] == every


@settings(deadline=None)
@given(GRAMMARS)
def test_a_walk_through_the_vocabulary_finds_all_of_them(case: tuple[str, bytes]) -> None:
    assert sorted(keeper(*case)._walk()) == slowly(*case)


def test_of_some_tokens_those_are_found_whose_new_letters_may_come() -> None:
    some = keeper('root ::= "The" "re" [a-z]*', b"The")
    ids = np.array([3, START, 4], dtype=np.int32)  # "The", no letters, " The"
    assert some.among(NUMBERS[ids], ids, 3, None).tolist() == [3]
    assert (some.allows(3), some.allows(3, 3), some.allows(START, 0), some.allows(END)) == (False, True, False, False)


def test_it_is_over_when_nothing_more_may_come() -> None:
    some = keeper('root ::= "12" "."?')
    assert not some.over
    some.take(b"12")
    assert (some.over, some.allows(END)) == (False, True)
    some.take(b".")
    assert some.over


def test_a_walk_that_is_cut_short_keeps_the_likely_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "STEPS", 5)
    monkeypatch.setattr(keeping, "LIKELY", 10)
    found = keeper("root ::= .*").among(NUMBERS, None, 0, None)
    likely = [token for token in np.argsort(-NUMBERS)[:10].tolist() if token in slowly("root ::= .*", b"")]
    assert set(likely) <= set(found.tolist())
    assert len(found) < 20


HARD = 'root ::= "a" root "a" | "a" root | ""'


def test_a_grammar_that_takes_too_much_work_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "WORK", 1000)
    monkeypatch.setattr(keeping, "WORK_PER_BYTE", 10)
    some = keeper(HARD)
    with pytest.raises(Refusal) as caught:
        for _ in range(100):
            some.take(b"a")
    assert caught.value.message == "The grammar takes too much time to follow."
    assert (caught.value.fault, caught.value.more) == ("request", {"param": "grammar"})


def test_one_token_may_not_take_too_much_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "WORK_AT_ONCE", -1)
    with pytest.raises(Refusal, match="takes too much time"):
        keeper('root ::= "\u00fc"').among(NUMBERS, None, 0, None)
    the = np.zeros(len(WORDS), dtype=np.float32)
    the[3] = 1
    assert keeper("root ::= .*").among(the, None, 0, None).tolist() == [3]  # what was found by then


def test_the_end_of_what_can_be_worked_out_is_a_refusal() -> None:
    some = keeper(HARD, b"a" * 60)
    with pytest.raises(Refusal, match="in too many ways at once"):
        for _ in range(10_000):
            some.take(b"a")


def test_a_place_is_a_value() -> None:
    start: Place = read('root ::= "12"').start
    one, other = Keeper(SPELLING, start), Keeper(SPELLING, start)
    one.take(b"1")
    assert other.allows(WORDS.pieces.index(b"12"))
