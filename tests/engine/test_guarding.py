"""What somebody said is hidden from the template, and comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.guarding import OPEN, SHUT, Marks, pattern
from appliance.engine.job import Call, Job, Tool, Words

from .families import HARMONY_MARKS, MISTRAL_MARKS, Family
from .test_speech import SOURCES, family

GUARDED = ("<|im_end|>", "<|im_end|>x", "<tool_call>")


def back(marks: Marks, rendered: str) -> str:
    return "".join(text for text, _ in marks.split(rendered))


def test_a_guarded_text_is_nowhere_in_what_the_template_sees() -> None:
    said = {"a<|im_end|>": ["<tool_call>", ("x<|im_end|>x",)], "n": 3, "none": None}
    marks = Marks(pattern(GUARDED), said)
    hidden = marks.guard(said)
    assert not any(text in repr(hidden) for text in GUARDED)
    assert hidden["n"] == 3
    assert back(marks, next(iter(hidden))) == "a<|im_end|>"
    assert marks.split(hidden[next(iter(hidden))][1][0]) == [("x", False), ("<|im_end|>x", True)]


def test_where_there_is_nothing_to_guard_nothing_is_changed() -> None:
    marks = Marks(pattern(()), "x<|im_end|>")
    assert marks.guard("x<|im_end|>") == "x<|im_end|>"
    assert marks.split("x<|im_end|>") == [("x<|im_end|>", False)]


@given(st.lists(st.text(alphabet=f"a{OPEN}{SHUT}01", max_size=8) | st.sampled_from(GUARDED), max_size=6))
def test_marks_are_told_from_whatever_was_said(leaves: list[str]) -> None:
    marks = Marks(pattern(GUARDED), leaves)
    hidden = marks.guard(leaves)
    assert back(marks, "".join(hidden)) == "".join(leaves)


@pytest.mark.parametrize("name", SOURCES)
def test_no_tool_and_no_result_writes_a_mark_of_the_family(name: str) -> None:
    one = family(name)

    def tokens(hostile: str) -> tuple[int, ...]:
        escaped = hostile.replace("<", "\\u003c").replace('"', '\\"')
        call = {"id": "call00000", "name": "look_up", "arguments": f'{{"{hostile.replace(chr(34), "")}": "{escaped}"}}'}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": hostile},
            {"role": "assistant", "content": hostile, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00000", "name": "look_up", "content": hostile},
        ]
        schema = {"type": "object", "properties": {"x": {"type": "string", "description": hostile, "enum": [hostile]}}}
        tool = Tool(name="look_up", description=hostile, parameters=schema)
        return one.writer.write(Job(id=1, messages=tuple(messages), tools=(tool,))).tokens

    controls = range(len(one.letters.marks))
    meant = [token for token in tokens("harmless") if token in controls]
    for mark in one.letters.marks:
        assert [token for token in tokens(f"a{mark}b") if token in controls] == meant
    assert [token for token in tokens("".join(one.letters.marks)) if token in controls] == meant


@pytest.mark.parametrize("marks", [MISTRAL_MARKS, HARMONY_MARKS])
def test_what_is_committed_holds_only_the_marks_of_its_form(marks: tuple[str, ...]) -> None:
    name = "ministral" if marks is MISTRAL_MARKS else "gpt-oss"
    one = Family(SOURCES[name][0], marks)
    for hostile in marks:
        parts = (Words(hostile), Call("look_up", f'{{"x": "{hostile}"}}'))
        spelled = one.answered([{"role": "user", "content": "x"}], parts=parts, committed=hostile)
        assert spelled.count(hostile) >= 3

    def controls(text: str) -> list[int]:
        job = Job(id=1, messages=({"role": "user", "content": "x"},), parts=(Words(text), Call("f", text)))
        cut = one.writer.write(job).cut
        return [token for token in (*cut.kept, *cut.draft) if token < len(marks)]

    assert {tuple(controls(mark)) for mark in marks} == {tuple(controls("harmless"))}
