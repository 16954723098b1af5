"""One token after the other of an answer that somebody else began: what may be drawn, and what must never be."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from appliance.engine.answer import Answer, answer
from appliance.engine.forms import Forms
from appliance.engine.job import Settings, parse
from appliance.engine.keeping import Spelling
from appliance.engine.prompt import Writer
from appliance.engine.sampling import Logits, Sampler
from appliance.engine.vocabulary import Index, Vocabulary

from .fakes import END, FirstOfAll, Paper, user, vocabulary

ENUM = {"type": "object", "properties": {"at": {"enum": ["Paris", "Rome"]}}, "required": ["at"]}
LOOK = {"name": "look", "parameters": ENUM}


def begun(arguments: str, *more: bytes, without: bytes = b"", **frame: Any) -> Answer:
    """An answer that goes on in this call, over a vocabulary with `more` tokens and without those of some bytes."""
    known = vocabulary()
    pieces = tuple(b"" if len(one) == 1 and one in without else one for one in known.pieces)
    known = replace(known, pieces=(*pieces, *more))
    paper = Paper("")
    frame = {
        "parallel": False,
        "tools": [LOOK],
        "committed": [{"call": {"name": "look", "arguments": arguments}}],
        **frame,
    }
    job = parse({"id": 1, "messages": user("Hello"), **frame}, vocabulary=len(known))
    index = Index(known)
    prompt = Writer(known, paper, template=None, own=None, context=4096).write(job)
    return answer(
        job,
        prompt,
        vocabulary=known,
        index=index,
        sampler=Sampler(Settings(temperature=0), lambda _: FirstOfAll()),
        spelling=Spelling(known),
        context=4096,
        form=Forms(known, index, paper.tokenize).of(job, prompt),
        drafts=False,
    )


def wishing(known: Vocabulary, *wishes: bytes) -> Logits:
    """The model wants the first of these most, and then the next."""
    row = np.zeros(len(known), dtype=np.float32)
    for place, piece in enumerate(reversed(wishes), start=1):
        row[[token for token, said in enumerate(known.pieces) if said == piece and piece]] = place
    row[END] = -1
    return row[None, :]


def written(one: Answer, *wishes: bytes, most: int = 60) -> str:
    """What comes of it if the model always wishes the same."""
    text = ""
    for _ in range(most):
        drawn = one.draw(wishing(one.vocabulary, *wishes))
        text += "".join(piece.text for piece in drawn.said if piece.kind == "arguments")
        if drawn.reason is not None:
            return text
    raise AssertionError("it never ends")


@pytest.mark.parametrize("cut", ['{"at": "The', '{"at": "The weather', '{"Paris', '{"at": "Paris", "The'])
def test_what_breaks_the_schema_only_in_the_letters_given_back_becomes_some_document(cut: str) -> None:
    one = begun(cut, b'The"', b'The"x', b"The weather\x01", b"Paris\n")
    wishes = (b"The weather\x01", b'The"x', b"Paris\n", b'"', b"}", b":", b"1")
    assert json.loads(cut + written(one, *wishes))


def test_letters_that_no_token_says_are_gone_on_behind_as_the_document_stands() -> None:
    one = begun('{"at": "Pa', without=b"P")
    assert one.seam.owed.startswith(b"Pa")
    text = written(one, b"X", b"R", b'"', b"}")
    assert json.loads('{"at": "Pa' + text) == {"at": "Paris"}


NAMED = [LOOK, {"name": "look_again", "parameters": {"type": "object", "properties": {}}}, {"name": "lift"}]


@pytest.mark.parametrize(
    ("name", "wishes", "rest", "arguments"),
    [
        ("lo", (b"ok", b"_"), ["ok_again"], "{}"),
        ("lo", (b"look", b'"'), ["ok"], '{"at": "Rome"}'),
        ("look", (b"look", b'", "'), [], '{"at": "Rome"}'),
        ("look", (b"_again",), ["_again"], "{}"),
        ("look_a", (b"x",), ["gain"], "{}"),
        ("look_again", (b"x",), [], "{}"),
        ("li", (b"loud",), ["ft"], "{}"),
    ],
)
def test_a_name_that_was_cut_is_written_to_its_end_and_the_arguments_are_that_tools(
    name: str, wishes: tuple[bytes, ...], rest: list[str], arguments: str
) -> None:
    call = {"call": {"name": name, "arguments": "", "half": True}}
    one = begun("", b"look", b"ok", b'", "', b"_again", b"loud", tools=NAMED, committed=[call])
    pieces = list(one.opening.said)
    for _ in range(60):
        drawn = one.draw(wishing(one.vocabulary, *wishes, b"R", b"}"))
        pieces += drawn.said
        if drawn.reason is not None:
            break
    assert drawn.reason == "tool_calls"
    assert [piece.text for piece in pieces if piece.kind != "arguments"] == rest
    assert {piece.kind for piece in pieces} <= {"rest", "arguments"}
    assert {piece.call for piece in pieces} == {0}
    assert json.loads("".join(piece.text for piece in pieces if piece.kind == "arguments")) == json.loads(arguments)
