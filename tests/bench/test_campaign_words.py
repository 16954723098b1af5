"""Can a character that is lost, repeated or moved be told from the text alone?"""

import json

import pytest
from campaign_child import answer
from campaign_words import ANY, Astray, Hint, complete, entry, hint, mark, segments, words

TOLD = Hint(key=7, words=3, calls=2, thinks=False, dies=-1)
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


def test_each_segment_begins_with_a_mark_of_all_that_stands_before_it():
    begun = words("c", 7, 30)[:50]
    text = begun + mark("d", begun) + words("d", 7, 1)
    text += mark("b", text) + words("b", 7, 3)
    first, second, box = segments(text)
    assert (first.author, first.at, first.marked) == ("c", 0, False)
    assert second.text == second.whole(text, 7, 1)
    assert box.text == box.whole(text, 7, 3)


@pytest.mark.parametrize("place", [0, 12, 49])
def test_a_character_that_is_lost_before_a_mark_shows_in_it(place):
    begun = words("c", 7, 30)[:50]
    text = begun + mark("b", begun) + words("b", 7, 3)
    wrong = text[:place] + text[place + 1 :]
    *_, box = segments(wrong)
    assert not box.whole(wrong, 7, 3).startswith(box.text)


def test_half_a_mark_is_a_segment_as_well():
    text = "abc" + mark("b", "abc")[:4]
    _, half = segments(text)
    assert half.whole(text, 7, 3).startswith(half.text)


def test_no_text_has_no_segment():
    assert list(segments("")) == []


@pytest.mark.parametrize("begun", ["", "{", '{"n": -', '{"m": "\\ud8', '{"n":1} '])
def test_a_document_is_ended_from_wherever_it_is(begun):
    assert isinstance(json.loads(begun + complete(SCHEMA, begun))["n"], int)


def test_what_keeps_to_no_schema_is_ended_all_the_same_and_what_is_no_json_is_not():
    assert json.loads('{"n": "x' + complete(SCHEMA, '{"n": "x')) == {"n": "x"}
    with pytest.raises(Astray):
        complete(ANY, "{n:")


def test_a_question_tells_the_engine_what_to_do():
    assert hint(f"Say something. {TOLD}") == TOLD
    assert hint("Say something.") is None


def frame(committed, **more):
    tools = [{"name": "count", "parameters": json.loads(SCHEMA)}]
    return {
        "id": 1,
        "messages": [{"role": "user", "content": str(TOLD)}],
        "tools": tools,
        "committed": committed,
        **more,
    }


def said(frames, op="text"):
    return "".join(one["text"] for one in frames if one["op"] == op)


def test_the_scripted_engine_goes_on_from_exactly_what_it_is_given():
    frames = list(answer(frame("half a wo", tools=[])))
    assert said(frames) == mark("b", "half a wo") + words("b", 7, 3)
    assert frames[-1]["op"] == "finish"


def test_the_scripted_engine_ends_a_half_call_and_begins_the_next():
    frames = list(answer(frame([{"text": "So."}, {"call": {"name": "count", "arguments": '{"n": 1'}}])))
    assert [(one["op"], one["index"], one.get("text")) for one in frames[:2]] == [
        ("arguments", 0, "}"),
        ("call", 1, None),
    ]
    assert json.loads(said(frames[2:], "arguments"))
    assert frames[-1]["reason"] == "tool_calls"


def test_the_scripted_engine_refuses_what_is_no_json():
    (error,) = answer(frame([{"call": {"name": "count", "arguments": "{n"}}]))
    assert error["op"] == "error"


def test_the_diary_says_what_was_given_and_what_was_said():
    key, found = entry('{"key": 7, "text": ["a", "b"], "given": ["{"], "said": {"0": "}"}}')
    assert (key, found.given, found.said, found.calls_given, found.calls_said) == (7, "a", "b", ("{",), {0: "}"})
