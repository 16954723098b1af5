"""Tools that leave no room are told in fewer words, and their names to the last."""

from __future__ import annotations

from typing import Any

from appliance.engine.job import Job, Tool
from appliance.engine.slimming import slimmer

from .test_prompt import said, user, writer
from .test_prompt_tools import step

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "Args",
    "properties": {
        "description": {"type": "string", "description": "What it is. " * 20, "default": "x", "maxLength": 9},
        "items": {"type": "array", "items": {"anyOf": [{"enum": ["title", "default"], "description": "Which?"}]}},
    },
    "required": ["description"],
}
TOOL = Tool(name="look_up", description="Finds a thing in the house. " * 40, parameters=SCHEMA)


def test_each_telling_has_fewer_words_and_the_last_has_none() -> None:
    whole, first, second, third, nothing = slimmer([TOOL])
    assert (whole, nothing) == ((TOOL,), ())
    assert [len(one[0].description) for one in (first, second, third)] == [400, 120, 58]
    assert TOOL.description.startswith(first[0].description.removesuffix("...") + " ")
    assert {one[0].name for one in (first, second, third)} == {"look_up"}


def test_a_propertys_name_is_no_word_about_it() -> None:
    _, first, second, third, _ = slimmer([TOOL])
    given = first[0].parameters["properties"]
    assert first[0].parameters.keys() == {"type", "properties", "required"}
    assert given["description"].keys() == {"type", "description", "maxLength"}
    assert len(given["description"]["description"]) <= 123
    assert given["items"]["items"] == {"anyOf": [{"enum": ["title", "default"], "description": "Which?"}]}
    assert second[0].parameters["properties"]["description"] == {"type": "string", "maxLength": 9}
    assert third[0].parameters == {
        "type": "object",
        "properties": {"description": {"type": "string"}, "items": {"type": "array", "items": {}}},
        "required": ["description"],
    }


def test_short_words_stay_as_they_are() -> None:
    tool = Tool(name="f", description="Finds.", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
    assert [one[0] for one in slimmer([tool])[:4]] == [tool] * 4
    assert slimmer([Tool(name="f", description="x" * 999)])[1][0].description == "x" * 400 + "..."


def read(tools: tuple[Tool, ...], steps: int, **more: Any) -> Any:
    messages = [user("Find it."), *(one for number in range(steps) for one in step("look_up", f"Page {number}."))]
    return writer(context=2048).write(Job(id=1, messages=tuple(messages), tools=tools, trim=True, **more))


def test_tools_that_are_too_much_are_told_in_fewer_words() -> None:
    prompt = read((TOOL,), 1)
    text = said(prompt.tokens)
    assert prompt.trimmed == 1, "somebody wants to know that"
    assert '"name": "look_up", "description": "Finds' in text
    assert TOOL.description not in text
    assert "Find it." in text
    assert "Page 0." in text


def test_every_turn_of_a_conversation_has_them_in_the_same_words() -> None:
    first, second = (said(read((TOOL,), steps).tokens) for steps in (1, 30))
    end = first.index("</tools>")
    assert first[:end] == second[:end]
    assert "Page 29." in second


def test_a_box_without_room_for_any_tool_answers_all_the_same() -> None:
    many = tuple(Tool(name=f"tool_{number}_{'x' * 50}", parameters=SCHEMA) for number in range(200))
    for choice in ("auto", "required"):
        text = said(read(many, 1, choice=choice).tokens)
        assert "tool_1_" not in text
        assert "Page 0." in text


def test_tools_that_fit_are_told_whole() -> None:
    prompt = read((Tool(name="f", description="Finds."),), 1)
    assert prompt.trimmed == 0


def test_what_a_value_must_be_is_no_word_about_it_either() -> None:
    schema = {"const": {"title": "x", "default": 1}}
    assert all(one[0].parameters == schema for one in slimmer([Tool(name="f", parameters=schema)])[:4])


def test_where_only_tools_are_too_much_no_turn_is_left_out() -> None:
    messages = (user("Who are you?"), {"role": "assistant", "content": "A box."}, user("Find it."))
    prompt = writer(context=2048).write(Job(id=1, messages=messages, tools=(TOOL,), trim=True))
    assert "Who are you?" in said(prompt.tokens)
    assert prompt.trimmed == 1


def test_tools_take_no_more_than_a_third_where_something_has_to_give_way() -> None:
    tool = Tool(name="f", description="Finds a thing. " * 100)
    turns = [user("Old. " * 200), {"role": "assistant", "content": "Yes."}] * 3
    for messages, whole in (((user("New."),), True), ((*turns, user("New.")), False)):
        prompt = writer(context=4096).write(Job(id=1, messages=messages, tools=(tool,), trim=True))
        assert (tool.description in said(prompt.tokens)) is whole
