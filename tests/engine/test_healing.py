"""An answer cut anywhere goes on as if nothing had happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.healing import Seam, cut, given_back
from appliance.engine.vocabulary import Index, Vocabulary

from .fakes import END, START, Bench, Paper, vocabulary

TEXT = "The weather in Paris is fine.\n\nThe 12 weather🎉🎉 in  Paris übel is fine. 1212 in (Paris)\n is fine."


def tokens_of(index: Index, vocab: Vocabulary, letters: bytes) -> set[bytes]:
    return {vocab.pieces[token] for token in index.agreeing(letters)}


@given(st.binary(min_size=1, max_size=4) | st.sampled_from([b" w", b" wea", b"\n", b"12", b"\xff", b"\xff\xff"]))
def test_the_index_finds_what_a_look_through_the_vocabulary_finds(letters: bytes) -> None:
    vocab = vocabulary()
    found = sorted(Index(vocab).agreeing(letters).tolist())
    expected = [
        token
        for token, piece in enumerate(vocab.pieces)
        if piece and token != END and (piece.startswith(letters) or letters.startswith(piece))
    ]
    assert found == expected


def test_control_tokens_and_ends_never_agree() -> None:
    found = set(Index(vocabulary()).agreeing(b"<").tolist())
    assert not found & {END, START}


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ([b"The", b" wea"], 1),
        ([b"The", b" wea", b"t"], 2),
        ([b" fine", b"."], 2),
        ([b" fine", b".", b"\n", b"\n"], 4),
        ([b"``", b"`", b"py", b"tho"], 2),  # a letter behind what is none begins a word
        ([b"\xf0", b"\x9f", b"\x8e", b"\x89"], 4),
        ([b"."] * 20, 8),  # no word in reach: as far as it goes
        ([b"x" * 40], 1),  # one is always given back
        ([b" y", b"x" * 30, b"x" * 30], 1),
        ([b"The"], 1),
        ([], 0),
    ],
)
def test_tokens_are_given_back_to_where_a_word_begins(said: list[bytes], count: int) -> None:
    assert given_back(said) == count


@given(st.integers(0, len(TEXT)))
def test_what_is_kept_and_what_is_owed_is_the_committed_text(at: int) -> None:
    paper = Paper(TEXT)
    text = TEXT[:at]
    made = cut(paper.tokenize(text), paper.vocabulary.pieces, text.encode())
    assert paper.vocabulary.bytes(list(made.kept)) + made.owed == text.encode()
    assert paper.vocabulary.bytes(list(made.draft)) == made.owed
    assert len(made.draft) <= 8


def test_a_tokenizer_that_changes_letters_owes_what_it_did_not_say() -> None:
    pieces = [b"", b" ab", b"c", b"d"]
    # "abX" was tokenized as " ab", "c": the last letter came out as another.
    made = cut([1, 2], pieces, b"abX")
    assert (made.kept, made.draft, made.owed) == ((1,), (), b"X")


def test_a_space_that_the_tokenizer_put_in_front_is_the_drafts_too() -> None:
    made = cut([1], [b"", b" ab"], b"ab")
    assert (made.kept, made.draft, made.owed) == ((), (1,), b" ab")


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=6), st.binary(max_size=12))
def test_owed_letters_and_new_letters_are_all_that_was_drawn(pieces: list[bytes], owed: bytes) -> None:
    seam = Seam(Index(vocabulary()), owed)
    drawn = new = b""
    for piece in pieces:
        if not (seam.owed.startswith(piece) or piece.startswith(seam.owed)):
            continue
        drawn += piece
        new += seam.take(piece)
    assert new == drawn[len(owed) :]
    assert seam.owed == owed[len(drawn) :]


@pytest.mark.parametrize("rewinds", [True, False])
@pytest.mark.parametrize("at", range(1, len(TEXT)))
def test_a_cut_anywhere_goes_on_with_exactly_the_rest(at: int, rewinds: bool) -> None:
    bench = Bench(Paper(TEXT, rewinds=rewinds))
    bench.ask(1, committed=TEXT[:at])
    bench.run()
    assert bench.text(1) == TEXT[at:]
    assert bench.last(1)["reason"] == "stop"
    assert bench.last(1)["completion_tokens"] == len(bench.model.tokenize(TEXT))


def test_the_draft_is_verified_in_one_step() -> None:
    bench = Bench(Paper(TEXT))
    at = TEXT.index(" is fine")
    bench.ask(1, committed=TEXT[:at], max_tokens=len(bench.model.tokenize(TEXT[:at])) + 1)
    bench.run()
    assert bench.text(1) == " is"
    assert len(bench.model.steps) == 1


def test_letters_that_no_token_says_do_not_end_the_answer() -> None:
    bench = Bench(Paper("The weather"))
    few = Index(Vocabulary(**{name: getattr(vocabulary(), name) for name in FIELDS} | {"pieces": (b"", b"", b"x")}))
    bench.loop._index = few
    bench.ask(1, committed="The wea", max_tokens=6)
    bench.run()
    assert bench.last(1)["op"] == "finish"


FIELDS = ("ends", "controls", "named", "bos", "eos", "bos_text", "eos_text", "add_bos")
