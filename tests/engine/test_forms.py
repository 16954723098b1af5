"""Which form an answer must have: what is asked for, and what is written of it already."""

from __future__ import annotations

from typing import Any

import pytest

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
    with pytest.raises(Refusal, match="response_format") as caught:
        form(format={"schema": {"type": "STRING"}})
    assert caught.value.more["param"] == "response_format"


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
