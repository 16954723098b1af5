"""How likely a token was is told exactly, in order, and with its letters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.events import Odds
from appliance.engine.odds import LEAST, Ledger, odds
from appliance.engine.shape import Said
from appliance.engine.voice import Piece, Voice
from tests.engine.fakes import END, vocabulary


def test_they_are_of_the_models_own_numbers() -> None:
    words = vocabulary()
    numbers = np.full(len(words), -1e9, dtype=np.float32)
    numbers[[3, 4, END]] = [2.0, 3.0, 1.0]
    whole = math.log(math.exp(2) + math.exp(3) + math.exp(1))
    told = odds(numbers, 3, b"The", 3, words)
    assert told.token == b"The"
    assert told.logprob == pytest.approx(2 - whole)
    assert [token for token, _ in told.others] == [b" The", b"The", b"<|im_end|>"]
    assert [value for _, value in told.others] == pytest.approx([3 - whole, 2 - whole, 1 - whole])
    assert odds(numbers, 3, b"The", 0, words).others == ()
    numbers[5] = -np.inf
    assert odds(numbers, 5, b"x", 0, words).logprob == LEAST
    assert numbers[3] == 2.0


def one(token: bytes) -> Odds:
    return Odds(token=token, logprob=-1.0)


def told(pieces: list[Piece]) -> list[tuple[str, list[bytes]]]:
    return [(piece.text, [odds.token for odds in piece.odds]) for piece in pieces]


def heard(voice: Voice, *tokens: bytes) -> list[tuple[str, list[bytes]]]:
    assert voice.ledger is not None
    pieces: list[Piece] = []
    for token in tokens:
        voice.ledger.draw(one(token))
        pieces += voice.hear(token)
        if voice.stop is not None:
            break
    return told([*pieces, *voice.close()])


PARTY = "🎉".encode()


@pytest.mark.parametrize(
    ("stops", "tokens", "pieces"),
    [
        ([], [b"He", b"llo"], [("He", [b"He"]), ("llo", [b"llo"])]),
        ([], [PARTY[:2], PARTY[2:] + b"!"], [("🎉!", [PARTY[:2], PARTY[2:] + b"!"])]),
        ([], [b"a" + PARTY[:1], PARTY[1:3], PARTY[3:]], [("a", []), ("🎉", [b"a" + PARTY[:1], PARTY[1:3], PARTY[3:]])]),
        ([], [b"a", PARTY[:3]], [("a", [b"a"]), ("", [PARTY[:3]])]),
        ([], [b"\xff", b"b"], [("\ufffd", [b"\xff"]), ("b", [b"b"])]),
        (["two t"], [b"a", b" tw", b"ice"], [("a", [b"a"]), (" ", []), ("twice", [b" tw", b"ice"])]),
        (["END"], [b"a", b" E", b"N", b"D", b"x"], [("a", [b"a"]), (" ", []), ("", [b" E"])]),
        (["END"], [b"a", b"EN"], [("a", [b"a"]), ("EN", [b"EN"])]),
        (["END"], [b"aEND"], [("a", [b"aEND"])]),
    ],
)  # fmt: skip
def test_a_token_goes_out_with_its_last_letter(
    stops: list[str], tokens: list[bytes], pieces: list[tuple[str, list[bytes]]]
) -> None:
    assert heard(Voice(stops, ledger=Ledger()), *tokens) == pieces


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=12), st.sampled_from([(), ("ab",), ("\u00fc!",)]))
def test_no_token_of_the_text_is_missing_or_out_of_order(tokens: list[bytes], stops: tuple[str, ...]) -> None:
    voice = Voice(stops, ledger=Ledger())
    pieces = heard(voice, *tokens)
    out = [token for _, some in pieces for token in some]
    assert out == tokens[: len(out)]
    assert len(out) == len(tokens) or voice.stop is not None
    said = "".join(text for text, _ in pieces)
    assert b"".join(out).decode("utf-8", "replace").startswith(said)
    quiet = Voice(stops)
    assert said == "".join(
        piece.text for piece in [*(piece for token in tokens for piece in quiet.hear(token)), *quiet.close()]
    )


def test_what_is_no_text_is_not_told_of() -> None:
    voice = Voice(ledger=Ledger())
    assert voice.ledger is not None
    for token in (b"<think>", b"hm", b"</think>", b"\n\n", b"Yes", b".\n", b"<tool"):
        voice.ledger.draw(one(token))
    pieces = voice.tell([Said("reasoning", b"hm"), Said("text", b"Yes"), Said("text", b"."), Said("text", b"\n")])
    assert told(pieces) == [("hm", []), ("Yes", [b"Yes"]), (".", []), ("\n", [b".\n"])]
    assert voice.close() == []


def test_text_whose_last_white_space_is_never_said_is_told_of_all_the_same() -> None:
    voice = Voice(ledger=Ledger())
    assert voice.ledger is not None
    voice.ledger.draw(one(b"Yes.\n"))
    voice.ledger.draw(one(b"<tool_call>"))
    pieces = voice.tell([Said("text", b"Yes.")])
    assert told(pieces) == [("Yes.", [])]
    assert told(voice.tell([Said("name", b"look", 0)])) == [("", [b"Yes.\n"]), ("look", [])]
