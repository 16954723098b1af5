"""Somebody else's half answer is written so that each byte of it can be gone on with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.begun import Begun, write
from appliance.engine.job import Call, Part, Words
from appliance.engine.speech import HERMES, SPEECHES, Speech, bound

from .families import CALL_MARKS, HARMONY_MARKS, LLAMA_MARKS, MISTRAL_MARKS, Letters

ALL = Letters((*CALL_MARKS, *HARMONY_MARKS, *MISTRAL_MARKS, *LLAMA_MARKS))
ROWS = [bound(row, ALL.vocabulary) for row in SPEECHES]
THOUGHT = "<think>\n\n</think>\n\n"


def begun(*parts: Part, speech: Speech = HERMES, lead: str = "") -> Begun:
    return write(parts, speech, lead, tokenize=ALL.tokenize, pieces=ALL.pieces)


def text(one: Begun) -> str:
    return ALL.text((*one.cut.kept, *one.cut.draft))


def test_nothing_is_nothing_whatever_leads_to_it() -> None:
    one = begun(lead=THOUGHT)
    assert (text(one), one.said, one.count, one.before) == ("", (), 0, 0)


def test_what_leads_to_an_answer_stands_before_it_and_is_none_of_it() -> None:
    one = begun(Words("Hi"), lead=THOUGHT)
    assert text(one) == THOUGHT + "Hi"
    assert one.before == len(ALL.tokenize(THOUGHT))


def test_parts_are_told_apart_by_what_the_family_writes_between_them() -> None:
    one = begun(Words("I look."), Call("f", "{}"), Call("g", '{"a": '), speech=bound(HERMES, ALL.vocabulary))
    assert text(one) == (
        'I look.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {"a": '
    )
    said = [(part.kind, part.index, part.name, part.letters) for part in one.said[:-1]]
    assert said == [("text", 0, "", b"I look."), ("call", 0, "f", b" {}")]
    assert (one.said[-1].index, one.said[-1].name) == (1, "g")
    assert one.said[-1].letters + one.cut.owed == b' {"a": '


def test_marks_are_tokens_and_what_was_said_is_none() -> None:
    speech = bound(HERMES, ALL.vocabulary)
    one = begun(Words("<tool_call>"), Call("<think>", '{"x": "</tool_call>"}'), speech=speech)
    marks = [token for token in (*one.cut.kept, *one.cut.draft) if token < len(ALL.marks)]
    assert marks == [ALL.marks["<tool_call>"]]


@pytest.mark.parametrize("speech", ROWS, ids=[row.family for row in ROWS])
@pytest.mark.parametrize("arguments", ["", "{", '{"a": "\\u00', '{"a": "ü🎉', '{"a": 1}', ' {"a": 1} ', "nonsense"])
def test_a_call_is_cut_nowhere_but_in_its_arguments(speech: Speech, arguments: str) -> None:
    one = begun(Call("look_up", arguments), speech=speech)
    head = speech.open + "look_up" + speech.between
    assert text(one) == head + (speech.gap + arguments if arguments else "")
    kept = ALL.text(one.cut.kept) if one.cut.owed.isascii() else ""
    assert kept.startswith(head) or not kept
    assert one.said[-1].letters + one.cut.owed == (speech.gap + arguments if arguments else "").encode()
    assert one.count == len(one.cut.kept) + len(one.cut.draft)


def test_a_call_without_arguments_in_the_middle_has_none() -> None:
    assert '"arguments": {}}' in text(begun(Call("f", ""), Words("x")))
    assert text(begun(Call("f", ""))).endswith('"arguments":')


words = st.text(alphabet='ab \n{}"ü🎉', min_size=1, max_size=12)


@given(
    st.lists(words.map(Words) | words.map(lambda text: Call("f", text)), min_size=1, max_size=5), st.sampled_from(ROWS)
)
def test_whatever_comes_later_changes_no_token_before_it(parts: list[Part], speech: Speech) -> None:
    whole = begun(*parts, speech=speech)
    tokens = (*whole.cut.kept, *whole.cut.draft)
    for size in range(1, len(parts)):
        part = begun(*parts[:size], speech=speech)
        assert tokens[: part.count] == (*part.cut.kept, *part.cut.draft)
    assert tuple(one.letters for one in whole.said[:-1]) == tuple(
        (part.text if isinstance(part, Words) else speech.gap + part.arguments).encode() for part in parts[:-1]
    )


@pytest.mark.parametrize("speech", ROWS, ids=[row.family for row in ROWS])
def test_behind_a_name_that_may_not_be_whole_nothing_stands_and_its_letters_are_given_back(speech: Speech) -> None:
    parts = (Words("I look."), Call("look_up", "", half=True))
    one = write(parts, speech, "", tokenize=ALL.tokenize, pieces=ALL.pieces, naming=True)
    head = speech.say + "I look." + speech.after_text + speech.open
    assert text(one) == head + "look_up"
    assert ALL.text(one.cut.kept).startswith(head)
    assert (one.said[-1].kind, one.said[-1].letters + one.cut.owed) == ("name", b"look_up")
    assert one.cut.owed
    assert one.count == len(one.cut.kept) + len(one.cut.draft)
