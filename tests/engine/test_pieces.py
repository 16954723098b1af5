"""A text cut in front of control tokens has the same tokens as the whole; and nothing is tokenized twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.pieces import Pieces, cuts
from appliance.engine.prompt import CHATML
from appliance.engine.vocabulary import Vocabulary

from .fakes import CONTROLS, Paper, vocabulary

MARKS = list(CONTROLS)
parts = st.lists(
    st.sampled_from([*MARKS, "The weather", " in ", "\n", "<|im_", "🎉"]) | st.text(max_size=6), max_size=12
)


class Counting(Paper):
    """Counts the letters it was asked for."""

    letters = 0

    def tokenize(self, text: str, *, template: bool = False) -> list[int]:
        self.letters += len(text)
        return super().tokenize(text, template=template)


@given(parts)
def test_with_and_without_cuts_the_tokens_are_the_same(parts: list[str]) -> None:
    text = "".join(parts)
    paper = Paper("")
    assert Pieces(paper, MARKS).tokens(text) == paper.tokenize(text, template=True)


def test_the_next_turn_tokenizes_only_what_is_new() -> None:
    paper = Counting("")
    pieces = Pieces(paper, MARKS)
    first = "<|im_start|>user\n" + "The weather " * 50 + "<|im_end|>\n"
    pieces.tokens(first)
    paper.letters = 0
    assert len(pieces.tokens(first + "<|im_start|>assistant\n")) > 50
    assert paper.letters == len("<|im_start|>assistant\n")


def test_what_was_used_longest_ago_is_forgotten() -> None:
    paper = Counting("")
    pieces = Pieces(paper, MARKS, room=25)
    for text in ("a" * 10, "b" * 10, "a" * 10, "c" * 10):
        pieces.tokens(text)
    paper.letters = 0
    pieces.tokens("a" * 10)
    assert paper.letters == 0
    pieces.tokens("b" * 10)
    assert paper.letters == 10
    pieces.tokens("x" * 30)
    paper.letters = 0
    pieces.tokens("b" * 10)
    assert paper.letters == 0, "what is too large for the room is not remembered and pushes nothing out"


def words(named: dict[str, int], **more: frozenset[str]) -> Vocabulary:
    plain = vocabulary(named=named)
    fields = {name: getattr(plain, name) for name in ("pieces", "ends", "controls", "named", "bos", "eos", "add_bos")}
    return Vocabulary(**fields, bos_text=plain.bos_text, eos_text=plain.eos_text, **more)


def test_there_is_no_cut_where_another_token_could_begin_or_white_space_is_swallowed() -> None:
    assert sorted(cuts(words({}), CHATML)) == sorted(MARKS)
    assert cuts(words({"x<|im_end|>": 5}), CHATML) == ["<|im_start|>"]
    assert cuts(words({">\n": 5}), CHATML) == []
    assert cuts(words({}, swallows=frozenset({"<|im_end|>"})), CHATML) == ["<|im_start|>"]
