"""The vocabulary: values that are equal by content; and what is asked for."""

import dataclasses
import inspect

from appliance.core import chat, events, fault
from appliance.core.chat import ChatRequest, Image, Message, Reasoning, Text

VALUES = [kind for room in (chat, events, fault) for _, kind in inspect.getmembers(room, dataclasses.is_dataclass)]


def test_everything_that_travels_is_a_frozen_value():
    assert [
        kind.__name__ for kind in VALUES if not kind.__dataclass_params__.frozen or not hasattr(kind, "__slots__")
    ] == []


def test_more_than_two_fields_are_given_by_name():
    by_place = {kind.__name__: [field for field in dataclasses.fields(kind) if not field.kw_only] for kind in VALUES}
    assert [name for name, fields in by_place.items() if len(fields) > 2] == []


def test_the_text_of_a_message_is_its_text_parts_and_nothing_else():
    message = Message(role="assistant", parts=(Reasoning("hm"), Text("a"), Image("http://x/y.png"), Text("b")))
    assert message.text == "ab"
    assert Message(role="user", parts=()).text == ""


def test_continuing_is_the_same_request_with_a_half_written_turn_at_its_end():
    question = Message(role="user", parts=(Text("Why?"),))
    request = ChatRequest(dialect="openai", model="m", messages=(question,), stream=True, raw=b"{}", trim=True)
    half = Message(role="assistant", parts=(Text("Becau"),))
    assert request.continuing(half) == dataclasses.replace(request, committed=half)
    assert (request.committed, request.continuing(half).messages) == (None, (question,))


def test_a_request_does_not_show_its_bytes_or_headers():
    request = ChatRequest(
        dialect="openai",
        model="m",
        messages=(),
        raw=b"top secret",
        fields={"a": "top secret"},
        headers=(("authorization", "top secret"),),
    )
    assert "top secret" not in repr(request)
