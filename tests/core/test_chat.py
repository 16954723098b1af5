"""The vocabulary: values that are equal by content, and the two questions they answer."""

import dataclasses
import inspect

import pytest

from appliance.core import chat
from appliance.core.chat import (
    BackendError,
    BlockStart,
    BlockStop,
    ChatRequest,
    Degraded,
    Fault,
    Finish,
    Image,
    Message,
    Opaque,
    Opened,
    Progress,
    Reasoning,
    ReasoningDelta,
    Reply,
    Started,
    Takeover,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
    carries_content,
)

CONTENT = [
    TextDelta(text="a"),
    ReasoningDelta(text="a"),
    ToolCallStart(index=0, id="c1", name="look"),
    ToolCallDelta(index=0, arguments="{"),
    ToolCallDelta(index=0, arguments=""),
    Opaque(content=True),
    Opaque(content=True, closed=True),
    BlockStart(index=0, kind="other"),
]
LIFECYCLE = [
    Opened(headers=()),
    Started(id="x", model="m", created=1),
    *(BlockStart(index=0, kind=kind) for kind in ("text", "reasoning", "tool_call")),
    BlockStop(index=0),
    TextDelta(text=""),
    ReasoningDelta(text=""),
    Opaque(content=False, wire=Wire("openai", b": ping\n\n")),
    Usage(prompt_tokens=1, completion_tokens=2),
    Finish(reason="stop"),
    Takeover(source="a", target="b", after=3, reason="broken"),
    Degraded(what="context"),
    Progress(kind="text", characters=7),
]


@pytest.mark.parametrize("event", CONTENT, ids=repr)
def test_a_client_counts_this_as_part_of_the_answer(event):
    assert carries_content(event)


@pytest.mark.parametrize("event", LIFECYCLE, ids=repr)
def test_a_client_does_not_count_this_as_part_of_the_answer(event):
    assert not carries_content(event)


def test_every_kind_of_event_is_judged_here():
    assert {type(event) for event in (*CONTENT, *LIFECYCLE)} == set(chat.Event.__args__)


def test_every_event_can_say_what_bytes_it_came_from():
    assert all("wire" in {field.name for field in dataclasses.fields(kind)} for kind in chat.Event.__args__)


def test_everything_that_travels_is_a_frozen_value():
    kinds = [kind for _, kind in inspect.getmembers(chat, dataclasses.is_dataclass)]
    assert [
        kind.__name__ for kind in kinds if not kind.__dataclass_params__.frozen or not hasattr(kind, "__slots__")
    ] == []


def test_more_than_two_fields_are_given_by_name():
    kinds = [kind for _, kind in inspect.getmembers(chat, dataclasses.is_dataclass)]
    by_place = {kind.__name__: [field for field in dataclasses.fields(kind) if not field.kw_only] for kind in kinds}
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


def test_an_error_is_its_sentence_and_carries_what_the_cloud_said():
    reply = Reply(status=400, body=b"{}")
    error = BackendError(
        Fault.REQUEST, "No such field.", status=400, retry_after=1.0, reply=reply, code="bad", param="n"
    )
    assert (str(error), error.message, error.fault) == ("No such field.", "No such field.", Fault.REQUEST)
    assert (error.status, error.retry_after, error.reply, error.code, error.param) == (400, 1.0, reply, "bad", "n")


def test_an_error_that_says_nothing_more_carries_nothing_more():
    error = BackendError(Fault.SILENT, "Nothing came.")
    assert (error.status, error.retry_after, error.reply, error.code, error.param) == (None,) * 5
