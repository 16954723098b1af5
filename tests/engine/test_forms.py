"""Which form an answer must have: what is asked for, and what is written of it already."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.structure import shortest
from appliance.engine.form import Form
from appliance.engine.forms import Forms
from appliance.engine.job import Refusal, parse
from appliance.engine.prompt import Writer
from appliance.engine.vocabulary import Index

from .fakes import Paper, user, vocabulary

PAPER = Paper("")
FORMS = Forms(vocabulary(), Index(vocabulary()), PAPER.tokenize)
WRITER = Writer(vocabulary(), PAPER, template=None, own=None, context=4096)
LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}


def form(**frame: Any) -> Form | None:
    job = parse({"id": 1, "messages": user("Hello"), **frame}, vocabulary=WRITER.vocabulary_size)
    prompt = WRITER.write(job)
    one = FORMS.of(job, prompt)
    if one is not None and prompt.cut.owed:
        one.drive(prompt.cut.owed)
    return one


def test_plain_text_of_a_model_that_does_not_think_has_none() -> None:
    assert form() is None
    assert form(tools=[LOOK], choice="none") is None


@pytest.mark.parametrize(
    "sloppy", [{"required": None}, {"properties": None}, {"type": "STRING"}, {"$ref": "https://x.test/s"}]
)
def test_a_schema_that_nobody_can_follow_takes_no_tool_away(sloppy: dict[str, Any]) -> None:
    one = form(tools=[LOOK, {"name": "sloppy", "parameters": sloppy}], choice="required")
    assert one is not None
    assert one.lost == ("tools.sloppy",)


ODD = {"type": "object", "properties": {"at": {"not": {"type": "null"}}}}
NONE = {"type": "STRING"}


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ({"format": {"schema": NONE}}, "response_format"),
        ({"format": {"schema": ODD, "strict": True}}, "response_format"),
        ({"tools": [LOOK, {"name": "odd", "parameters": ODD, "strict": True}]}, "tools[1]"),
        ({"tools": [LOOK, {"name": "odd", "parameters": NONE, "strict": True}]}, "tools[1]"),
    ],
)
def test_what_was_asked_of_the_box_and_cannot_be_kept_to_is_refused_with_its_place(
    frame: dict[str, Any], param: str
) -> None:
    with pytest.raises(Refusal, match="schema") as caught:
        form(**frame)
    assert (caught.value.fault, caught.value.more) == ("request", {"param": param})
    assert caught.value.message.startswith(f"'{param}': The schema ") and caught.value.message.endswith(".")
    assert ("strict" in caught.value.message) is ("/properties/at/not" in caught.value.message)


@pytest.mark.parametrize(
    ("frame", "lost"),
    [
        ({"format": {"schema": ODD, "strict": False}}, ()),
        ({"tools": [{"name": "odd", "parameters": ODD}]}, ()),
        ({"format": {"schema": NONE}, "lenient": True}, ("response_format",)),
        ({"format": {"schema": ODD, "strict": True}, "lenient": True}, ()),
        ({"tools": [LOOK, {"name": "o x", "parameters": NONE, "strict": True}], "lenient": True}, ("tools.o_x",)),
    ],
)
def test_what_was_asked_of_a_cloud_is_kept_to_as_far_as_can_be_and_the_rest_is_named(
    frame: dict[str, Any], lost: tuple[str, ...]
) -> None:
    one = form(**frame)
    assert one is not None
    assert one.lost == lost


def test_calls_that_are_whole_are_not_looked_into() -> None:
    begun = [{"call": {"name": "look", "arguments": "null"}}, {"call": {"name": "look", "arguments": '{"at": "x"}'}}]
    one = form(tools=[LOOK], committed=begun)
    assert one is not None
    assert one.calls == 1
    assert one.called


def test_a_tool_that_nobody_knows_may_have_been_called() -> None:
    one = form(committed=[{"call": {"name": "gone", "arguments": '{"a": 1}'}}])
    assert one is not None
    assert one.called


TRIP = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 9},
        "days": {"type": "integer", "maximum": 14},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("written", "ends"),
    [
        ('{"days": 99', {"days": 99, "city": "", "unit": "celsius"}),
        ('{"unit": "kelv', {"unit": "kelv", "city": "", "days": 0}),
        ('{"foo": 1,', {"foo": 1, "city": "", "days": 0, "unit": "celsius"}),
        ('{"days": 99, "city": "Lon', {"days": 99, "city": "Lon", "unit": "celsius"}),
        ('{"days": 99, "unit": "kelvin", "city": "Lon', {"days": 99, "unit": "kelvin", "city": "Lon"}),
        ('{"city": "P", "ci', {"city": "P", "ci": 0, "days": 0, "unit": "celsius"}),
        ('{"city": {"a": ["days", "}"]}, "days": 3', {"city": {"a": ["days", "}"]}, "days": 3, "unit": "celsius"}),
        ('["a"', None),
        ("{'city", None),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_what_a_cloud_did_not_keep_to_is_let_go_and_the_rest_is_still_asked_for(
    written: str, ends: dict[str, Any] | None, named: bool
) -> None:
    frame: dict[str, Any] = {"tools": [{"name": "trip", "parameters": TRIP}]}
    frame["committed"] = [{"call": {"name": "trip", "arguments": written}}]
    if not named:
        frame = {"format": {"schema": TRIP}, "committed": written}
    if ends is None and named:
        with pytest.raises(Refusal, match="cannot go on"):
            form(**frame)
        return
    one = form(**frame)
    assert one is not None
    if ends is not None:
        assert one.writing is not None
        assert json.loads(written + shortest(one.writing.state).decode()) == ends
        assert one.lost == ("tools.trip" if named else "response_format",)


def test_a_tool_without_a_schema_is_called_with_nothing() -> None:
    one = form(tools=[{"name": "ping"}], committed=[{"call": {"name": "ping", "arguments": ""}}])
    assert one is not None
    assert one.writing is not None
    assert shortest(one.writing.state) == b"{}"
    assert one.writing.state.ours().feed(b'{"') is None
    assert form(tools=[{"name": "ping"}], committed=[{"call": {"name": "ping", "arguments": '{"a'}}]) is not None
