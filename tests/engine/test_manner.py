"""How tools are told is found out by trying, and nothing of what was said gets lost."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.engine.job import Tool
from appliance.engine.manner import UNREAD, Manner, described, mended, readable

from .families import CHATML_MARKS, Family

OBJECT = Manner(own=True, arguments="object")
TOOLS = (Tool(name="f", description="Finds."),)
HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
TOLD = "{% if tools %}{{ tools | tojson }}{% endif %}"
CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
END = "<|im_end|>\n{% endfor %}<|im_start|>assistant"
MANY = "{% for c in m.tool_calls %}" + CALL + "{{ c.function.arguments }}}\n</tool_call>{% endfor %}"
OBJECTS = MANY.replace("arguments }}", "arguments | tojson }}")
ONE = (
    "{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('One call.') }}{% endif %}"
    "{% set c = m.tool_calls[0] %}" + CALL + "{{ c.function.arguments }}}\n</tool_call>{% endif %}"
)
SILENT = TOLD + (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}"
    + MANY
    + "{% else %}{{ m.content }}{% endif %}"
    + END
)
NO_SYSTEM = "{% if m.role == 'system' %}{{ raise_exception('None, please.') }}{% endif %}"
# Each of them has the words by which the row of Hermes is known.
KNOWN = '{# <tool_call> "arguments": #}'


def call(name: str, arguments: str, id: str = "") -> dict[str, Any]:
    return {"id": id or name, "name": name, "arguments": arguments}


STEPS: list[dict[str, Any]] = [
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [call("f", '{"a": 1}'), call("g", "{}")]},
    {"role": "tool", "tool_call_id": "f", "content": "Here."},
    {"role": "tool", "tool_call_id": "g", "content": "There."},
]


@pytest.mark.parametrize(
    ("template", "manner"),
    [
        (TOLD + HEAD + MANY + END, Manner(own=True)),
        (TOLD + HEAD + OBJECTS + END, OBJECT),
        (TOLD + HEAD + ONE + END, Manner(own=True, single=True)),
        (SILENT, Manner(own=True, beside="apart")),
        (HEAD + MANY + END, Manner(own=False)),
        (TOLD + HEAD + END, Manner(own=False)),
        (TOLD + HEAD + NO_SYSTEM + END, Manner(own=False, system=False)),
    ],
)
def test_the_first_form_in_which_nothing_gets_lost_is_taken(template: str, manner: Manner) -> None:
    one = Family(KNOWN + template, CHATML_MARKS)
    assert one.speech.family == "hermes"
    assert one.writer._manner == manner
    rendered = one.prompt(STEPS, tools=TOOLS)
    for text in ("Where?", "I look.", one.speech.call("f", '{"a": 1}'), one.speech.call("g", "{}"), "Here.", "There."):
        assert rendered.count(text) == 1
    assert rendered.index('"g"') < rendered.index("There.")
    assert rendered.index('"arguments": {"a": 1}') < rendered.index("Here.")


def test_where_a_message_holds_one_call_each_is_followed_by_its_result() -> None:
    rendered = Family(KNOWN + TOLD + HEAD + ONE + END, CHATML_MARKS).prompt(STEPS, tools=TOOLS)
    places = [rendered.index(text) for text in ('"name": "f", "arg', "Here.", '"name": "g", "arg', "There.")]
    assert places == sorted(places)


def test_we_tell_as_qwen_does_but_tools_come_first() -> None:
    text = Family("", CHATML_MARKS).prompt([{"role": "system", "content": "Be kind."}, *STEPS], tools=TOOLS)
    declared = '{"type": "function", "function": {"name": "f", "description": "Finds.", "parameters": {}}}'
    assert text == (
        "<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{declared}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call>"
        ' XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>\n\n'
        "Be kind.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\nI look.\n"
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n'
        "<tool_response>\nHere.\n</tool_response>\n<tool_response>\nThere.\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_letters_of_any_script_are_told_as_they_are() -> None:
    assert '"description": "Où?"' in described([{"description": "Où?"}])


@pytest.mark.parametrize(
    ("arguments", "read"),
    [("", {}), ('{"a": 1}', {"a": 1}), ('{"a', {UNREAD: '{"a'}), ("[1]", {UNREAD: "[1]"}), ("[" * 9999, None)],
)
def test_arguments_that_are_no_object_are_told_all_the_same(arguments: str, read: dict[str, Any] | None) -> None:
    message = {"role": "assistant", "tool_calls": [call("f", arguments)]}
    assert readable(message, OBJECT)["tool_calls"][0]["arguments"] == (
        read or ({} if not arguments else {UNREAD: arguments})
    )
    assert readable(message, Manner(own=False))["tool_calls"][0]["arguments"] == (arguments or "{}")


def test_a_calls_id_is_one_that_every_template_takes_and_its_results_have_the_same() -> None:
    for id in ("call_1", "", "toolu_01ABCdef", "ü" * 9):
        made = readable({"role": "assistant", "tool_calls": [call("f", "{}", id)]}, OBJECT)["tool_calls"][0]["id"]
        assert (len(made), made.isalnum(), made.isascii()) == (9, True, True)
        if id:
            assert readable({"role": "tool", "tool_call_id": id}, OBJECT)["tool_call_id"] == made
    assert readable({"role": "tool", "tool_call_id": "abcDEF123"}, OBJECT)["tool_call_id"] == "abcDEF123"


def test_a_result_is_told_with_the_name_of_its_call() -> None:
    template = TOLD + HEAD + MANY + "{{ m.name }}" + END
    assert "Here.f" in Family(KNOWN + template, CHATML_MARKS).prompt(STEPS, tools=TOOLS)


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_turns_are_made_of_what_was_said_without_leaving_anything_out() -> None:
    calls = {"tool_calls": [call("f", "{}")]}
    messages = [
        said("system", "s"),
        said("system", "t"),
        said("user", "a"),
        said("system", "b"),
        said("assistant", "c", **calls),
        said("tool", "d"),
        said("tool", "e"),
        said("user", "f"),
        said("assistant", "g"),
        said("assistant", "h"),
        said("assistant", "i", **calls),
    ]
    first, second = mended(messages)
    assert [(one["role"], one["content"]) for one in first] == [
        ("system", "s\n\nt"),
        ("user", "a\n\nb"),
        ("assistant", "c"),
        ("tool", "d"),
        ("tool", "e\n\nf"),
        ("assistant", "g\n\nh"),
        ("assistant", "i"),
    ]
    assert [(one["role"], one["content"]) for one in second][:2] == [("user", "s\n\nt\n\nb\n\na"), ("assistant", "c")]


def test_what_has_its_turns_needs_no_mending() -> None:
    assert mended([said("user", "a"), said("assistant", "b"), said("user", "c")]) == []


def test_what_the_system_says_later_is_not_left_out() -> None:
    deaf = (
        "{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}:{{ m.content }}]"
        "{% endif %}{% endfor %}"
    )
    messages = [said("system", "a"), said("user", "b"), said("assistant", "c"), said("system", "d"), said("user", "e")]
    assert Family(deaf, CHATML_MARKS).prompt(messages) == "[system:a][user:b][assistant:c][user:d][user:e]"
    assert Family("", CHATML_MARKS).prompt(messages).count("<|im_start|>system\n") == 2
