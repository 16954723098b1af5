"""What may come next in an answer with calls or of JSON, as conversations with a small vocabulary."""

from __future__ import annotations

import json
from itertools import groupby
from types import MappingProxyType

import pytest

from appliance.core.structure import grammar_of, shortest
from appliance.engine.form import Form
from appliance.engine.job import Refusal
from appliance.engine.lexicon import Lexicon
from appliance.engine.masks import Masks
from appliance.engine.shape import Said, Shape
from appliance.engine.speech import HERMES, SPEECHES, Speech
from appliance.engine.vocabulary import Index

from .fakes import END, vocabulary

CITY = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
TOOLS = {"look": grammar_of(CITY, objects=True), "look_again": grammar_of("{}", objects=True)}
ANY = grammar_of("{}", objects=True)
VOCABULARY = vocabulary()
INDEX = Index(VOCABULARY)
MASKS = Masks(Lexicon(VOCABULARY.pieces, VOCABULARY.ends))
GPT = next(row for row in SPEECHES if row.family == "gpt-oss")
LLAMA = next(row for row in SPEECHES if row.family == "llama-3")
MISTRAL = next(row for row in SPEECHES if row.family == "ministral")


def letters(text: str) -> list[int]:
    """One token for each byte."""
    return [VOCABULARY.pieces.index(bytes([byte])) for byte in text.encode()]


def form(speech: Speech = HERMES, *, thinking: bool = False, **shape: object) -> Form:
    wanted = Shape(**{"tools": TOOLS, "any": ANY} | shape)  # type: ignore[arg-type]
    return Form(wanted, speech, lambda: MASKS, INDEX, letters, thinking=thinking)


def say(one: Form, text: str) -> list[Said]:
    """The model writes this, letter by letter, and is given what has to come; what of it may not come fails."""
    said: list[Said] = []
    for token in letters(text):
        allowed = one.allowed()
        assert allowed is None or token in allowed, f"{VOCABULARY.pieces[token]!r} may not come"
        said += one.take(token, VOCABULARY.pieces[token], VOCABULARY.pieces[token])
        said += give(one)
    return said


def give(one: Form) -> list[Said]:
    said: list[Said] = []
    while given := one.given:
        for token in given:
            said += one.take(token, VOCABULARY.pieces[token], VOCABULARY.pieces[token])
    return said


def told(said: list[Said]) -> list[tuple[str, str, int]]:
    """The letters of one kind in one piece."""
    runs = [
        (kind, b"".join(one.data for one in run)) for kind, run in groupby(said, key=lambda one: (one.kind, one.call))
    ]
    return [(kind, data.decode(), call) for (kind, call), data in runs]


def may_end(one: Form) -> bool:
    allowed = one.allowed()
    return allowed is None or END in allowed


def test_text_is_text() -> None:
    one = form()
    assert told(say(one, "I look. <tool") + one.close()) == [("text", "I look. <tool", 0)]
    assert one.reason == "stop"


def test_a_call_is_given_its_marks_and_its_name_is_one_of_the_tools() -> None:
    one = form()
    assert told(say(one, "I look.\n<tool_call>")) == [("text", "I look.", 0)]
    assert sorted(VOCABULARY.pieces[token] for token in one.allowed() or ()) == [b"l"]
    assert told(say(one, 'look"')) == [("name", "look", 0)]
    assert not may_end(one)
    assert told(say(one, ' {"city": "Paris"}')) == [("arguments", '{"city": "Paris"}', 0)]
    assert may_end(one)
    assert one.close() == []
    assert (one.reason, one.calls) == ("tool_calls", 1)


def test_arguments_keep_to_the_schema() -> None:
    one = form(must=True)
    give(one)
    say(one, 'look"')
    with pytest.raises(AssertionError, match="may not come"):
        say(one, "[")
    with pytest.raises(AssertionError, match="may not come"):
        say(one, '{"city": 1')


def test_several_calls_are_counted() -> None:
    one = form()
    said = say(one, '<tool_call>look" {"city": "A"}\n<look_ {}')
    assert [piece for piece in told(said) if piece[0] == "name"] == [("name", "look", 0), ("name", "look_again", 1)]
    assert one.calls == 2


def test_one_call_at_a_time_if_that_is_wished() -> None:
    one = form(several=False)
    say(one, "<tool_call>look_ {}")
    assert (one.over, one.reason) == (True, "tool_calls")


def test_a_call_that_must_be_is_given_from_the_first_token() -> None:
    one = form(tools={"look": TOOLS["look"]}, must=True)
    assert told(give(one)) == [("name", "look", 0)]
    assert not may_end(one)


def test_json_is_a_document_and_its_end_the_end() -> None:
    one = form(tools={}, json=grammar_of(CITY))
    assert told(say(one, '{"city": "Paris"}')) == [("text", '{"city": "Paris"}', 0)]
    assert one.over


def test_a_number_ends_when_the_model_says_so() -> None:
    one = form(tools={}, json=grammar_of('{"type": "integer"}'))
    assert not may_end(one)
    say(one, "12")
    assert may_end(one)


def test_thoughts_are_told_apart_from_the_answer() -> None:
    one = form(tools={})
    assert told(say(one, "<think>Hm.</think>\n\nYes.")) == [("reasoning", "Hm.", 0), ("text", "Yes.", 0)]
    one = form(tools={}, thinking=True)
    assert told(say(one, "Hm.</think>Yes.")) == [("reasoning", "Hm.", 0), ("text", "Yes.", 0)]
    assert told(say(form(tools={}), "No <think>")) == [("text", "No <think>", 0)]


def test_what_may_begin_a_mark_waits_until_it_does_not() -> None:
    one = form()
    assert told(say(one, "a <tool_ca")) == [("text", "a", 0)]
    assert told(say(one, "ke")) == [("text", " <tool_cake", 0)]


DOCUMENT = '{ "c\\u0069ty" : "Zürich \\"🌊" }'


@pytest.mark.parametrize("cut", range(len(DOCUMENT) + 1))
def test_a_call_that_another_began_goes_on_wherever_it_was_cut(cut: int) -> None:
    one = form()
    one.goes_on_in_call("look", DOCUMENT[:cut].encode())
    assert one.writing is not None
    said = give(one) + say(one, shortest(one.writing.state.ours()).decode())
    arguments = DOCUMENT[:cut] + b"".join(piece.data for piece in said if piece.kind == "arguments").decode()
    assert "city" in json.loads(arguments)
    assert may_end(one)
    one.close()
    assert (one.reason, one.calls) == ("tool_calls", 1)


def test_behind_a_call_of_anothers_a_second_one_may_come() -> None:
    one = form()
    one.goes_on_from(b"I look. <tool_call> is a mark.")
    one.goes_on_behind_call()
    assert told(say(one, "\n<look_ {}"))[0] == ("name", "look_again", 1)


def test_arguments_that_keep_to_no_schema_may_become_any_document() -> None:
    one = form()
    one.goes_on_in_call("look", b'{"town": 1, "city": 2')
    assert told(say(one, ', "x": [true]}')) == [("arguments", ', "x": [true]}', 0)]


def test_what_is_no_json_nobody_can_go_on_with() -> None:
    with pytest.raises(Refusal, match="cannot go on"):
        form().goes_on_in_call("look", b"{'city'")


@pytest.mark.parametrize("row", [HERMES, LLAMA])
@pytest.mark.parametrize("junk", ["}", "}\n</tool_call>", "\n}", '{"'])
@pytest.mark.parametrize("back", [0, 1, 3])
def test_a_mark_behind_somebody_elses_arguments_is_nobodys(row: Speech, junk: str, back: int) -> None:
    letters = ('{"city": "x"}' + junk).encode()
    cut = len(letters) - back
    with pytest.raises(Refusal, match="cannot go on"):
        form(row).goes_on_in_call("look", letters[:cut], letters[cut:])


def test_letters_the_client_has_are_not_said_again() -> None:
    one = form()
    one.goes_on_in_call("look", b'{"city": "Par')
    token = letters("i")[0]
    assert told(one.take(token, b"is", b"s")) == [("arguments", "s", 0)]
    assert told(say(one, '"}')) == [("arguments", '"}', 0)]


def test_a_family_whose_marks_are_tokens_is_given_those() -> None:
    marks = MappingProxyType({"<|im_start|>": 1})
    row = Speech(family="x", trigger="<|im_start|>", open="<|im_start|>", between=":", close="", marks=marks)
    one = form(row, must=True, tools={"look": TOOLS["look"]})
    assert one.given[:1] == [1]
    one = form(row)
    assert told(one.take(1, b"", b"") + say(one, "look:")) == [("name", "look", 0)]
    assert one.given == []


def test_blocks_of_gpt_oss_are_opened_by_what_it_wants_to_say() -> None:
    one = form(GPT)
    assert told(say(one, "<|channel|>aHm.<|end|><|start|>assistant")) == [("reasoning", "Hm.", 0)]
    assert told(say(one, "<|channel|>fYes.")) == [("text", "Yes.", 0)]
    one = form(GPT)
    said = say(one, "<|channel|>clook ")
    assert told(said) == [("name", "look", 0)]
    say(one, '{"city": "A"}')
    assert (one.over, one.reason) == (True, "tool_calls")


def test_llama_calls_only_where_its_answer_begins() -> None:
    one = form(LLAMA)
    assert told(say(one, '{"name": "look"{"city": "A"}')) == [("name", "look", 0), ("arguments", '{"city": "A"}', 0)]
    one = form(LLAMA)
    assert told(say(one, 'So: {"name": "l')) == [("text", 'So: {"name": "l', 0)]


def test_the_whole_document_is_what_was_asked_for() -> None:
    one = form(must=True)
    said = give(one) + say(one, 'look" {"city": "caf\\u00e9"}')
    arguments = "".join(text for kind, text, _ in told(said) if kind == "arguments")
    assert json.loads(arguments) == {"city": "café"}


def test_where_json_is_asked_for_and_tools_are_there_either_may_come() -> None:
    one = form(json=grammar_of(CITY))
    assert told(say(one, '{"city": "A"}')) == [("text", '{"city": "A"}', 0)]
    assert one.over
    one = form(json=grammar_of(CITY))
    assert told(say(one, '<look" {"city": "A"}')) == [("name", "look", 0), ("arguments", '{"city": "A"}', 0)]
    one = form(LLAMA, json=grammar_of(CITY))
    assert told(say(one, '{"city": "A"}')) == [("text", '{"city": "A"}', 0)]
    one = form(json=grammar_of(CITY), must=True, tools={"look": TOOLS["look"]})
    assert told(give(one)) == [("name", "look", 0)]


@pytest.mark.parametrize("row", SPEECHES, ids=lambda row: row.family)
@pytest.mark.parametrize("blank", [" ", "\n", "\r\n \t"])
def test_white_space_behind_whole_arguments_is_nobodys(row: Speech, blank: str) -> None:
    one = form(row)
    one.goes_on_in_call("look", b'{"city": "A"}' + blank.encode())
    assert give(one) == []
    assert may_end(one) or one.over
    one.close()
    assert one.reason == "tool_calls"


def test_a_line_feed_behind_a_call_is_no_second_call() -> None:
    one = form(tools={"look": TOOLS["look"]})
    say(one, '<tool_call> {"city": "A"}')
    assert say(one, "\n") == []
    assert may_end(one)
    with pytest.raises(AssertionError, match="may not come"):
        say(one, "\n")
    one.close()
    assert (one.reason, one.calls) == ("tool_calls", 1)


@pytest.mark.parametrize("behind", ["` tag", ", or", ". And", " is a tag"])
def test_text_that_speaks_of_the_mark_is_text(behind: str) -> None:
    one = form()
    written = f"The `<tool_call>{behind}".encode()
    assert told(one.take(5, written, written) + one.close()) == [("text", written.decode(), 0)]
    assert told(one.take(5, b" b", b" b")) == [("text", " b", 0)]


def test_letters_behind_a_mark_that_begin_a_call_are_its_own() -> None:
    for behind in ("{", "\n\n", '\n{"name": "'):
        one = form(tools={"look": TOOLS["look"]})
        written = f"<tool_call>{behind}".encode()
        assert told(one.take(5, written, written) + give(one)) == [("name", "look", 0)]


@pytest.mark.parametrize("shape", [{"must": True, "tools": {"look": TOOLS["look"]}}, {"json": ANY, "tools": {}}])
def test_what_does_not_fit_behind_thoughts_is_nobodys(shape: dict[str, object]) -> None:
    one = form(thinking=True, **shape)
    one.take(5, b"Hm.</think>. So", b"Hm.</think>. So")
    give(one)
    assert not may_end(one)
    assert say(one, '{"city": "A"}')[-1].data == b"}"


def test_names_in_any_script_are_told_apart() -> None:
    one = form(tools={"höhe": ANY, "hänge": ANY, "获取": ANY, "获得": ANY}, must=True)
    give(one)
    one.take(5, "获".encode() + b"\xe5\xbe", "获".encode() + b"\xe5\xbe")
    assert told(say(one, "") + one.take(6, b"\x97", b"\x97") + give(one)) == [("name", "获得", 0)]


def test_a_call_that_must_be_comes_when_the_model_wants_to_end() -> None:
    one = form(must=True, tools={"look": TOOLS["look"]})
    one.goes_on_from(b"The wea")
    assert told(say(one, "ther.")) == [("text", "ther.", 0)]
    assert one.insist()
    assert told(give(one)) == [("name", "look", 0)]
    assert not form().insist()


def test_a_document_in_a_fence_is_gone_on_with_as_text() -> None:
    one = form(json=grammar_of(CITY), tools={})
    one.goes_on_from(b'```json\n{"city": ')
    assert told(say(one, '"A"}')) == [("text", '"A"}', 0)]


def test_a_whole_call_whose_mark_is_missing_is_a_call() -> None:
    one = form(must=True, tools={"look": TOOLS["look"]})
    give(one)
    assert not one.called
    for token in letters(' {"city": "A"}'):
        one.take(token, VOCABULARY.pieces[token], VOCABULARY.pieces[token])
    assert one.called
    one.close()
    assert one.reason == "tool_calls"


def test_what_a_tool_is_called_with_that_nobody_knows_nobody_here_begins() -> None:
    for name, arguments in (("lo", b""), ("gone", b""), ("gone", b" ")):
        with pytest.raises(Refusal, match="cannot go on"):
            form().goes_on_in_call(name, arguments)
    form().goes_on_in_call("gone", b" ", b'{"a')
    one = form()
    one.goes_on_in_call("look", b"")  # though there is a longer one
    assert told(say(one, '{"city": "x"}')) == [("arguments", '{"city": "x"}', 0)]


@pytest.mark.parametrize("speech", [HERMES, GPT, LLAMA, MISTRAL], ids=lambda row: row.family)
@pytest.mark.parametrize(
    ("kept", "owed", "drawn", "rest"),
    [
        (b"", b"lo", "ok_", [("rest", "ok_again", 1)]),
        (b"l", b"o", "ok", [("rest", "ok", 1)]),
        (b"look", b"", "", []),
        (b"", b"look", "_", [("rest", "_again", 1)]),
        (b"look_", b"", None, [("rest", "again", 1)]),
    ],
)
def test_half_a_name_becomes_that_of_a_tool_and_its_arguments_are_that_tools(
    speech: Speech, kept: bytes, owed: bytes, drawn: str | None, rest: list[tuple[str, str, int]]
) -> None:
    one = form(speech)
    one.goes_on_behind_call()
    one.goes_on_in_name(kept, owed)
    one.drive(owed)
    if drawn is not None and not drawn.endswith("_"):
        drawn += speech.between[0]
    assert told(give(one) if drawn is None else say(one, drawn)) == rest
    assert told(say(one, '{"city": "x"}')) == [("arguments", '{"city": "x"}', 1)]
    city = form(speech, tools={"look": TOOLS["look"]})
    city.goes_on_in_name(b"l", b"")
    assert told(give(city)) == [("rest", "ook", 0)]
    with pytest.raises(AssertionError, match="may not come"):
        say(city, "{}")


def test_the_next_call_has_a_name_of_its_own() -> None:
    one = form(tools={"look": TOOLS["look"]})
    one.goes_on_in_name(b"lo", b"")
    assert told(give(one)) == [("rest", "ok", 0)]
    assert told(say(one, '{"city": "x"}\n<')[-1:]) == [("name", "look", 1)]


def test_half_a_name_of_nobodys_can_be_gone_on_with_by_nobody() -> None:
    with pytest.raises(Refusal, match="cannot go on"):
        form().goes_on_in_name(b"loud", b"")


def test_a_tool_that_only_the_cloud_knew_is_not_called_again() -> None:
    one = form()
    one.goes_on_in_call("gone", b'{"a": 1')
    assert told(say(one, "}")) == [("arguments", "}", 0)]
    with pytest.raises(AssertionError, match="may not come"):
        say(one, "<g")
    one = form(tools={})
    one.goes_on_in_call("gone", b'{"a": 1')
    say(one, "}")
    assert one.over
