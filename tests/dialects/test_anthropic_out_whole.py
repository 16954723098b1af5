"""Whole answers of clouds of Anthropic's dialect."""

from __future__ import annotations

import anthropic
import pytest

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Finish,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.core.fault import BackendError, Fault
from appliance.dialects.anthropic_out import decode_whole
from tests.dialects.anthropic_events import SEEN, WIRE, bare

WHOLES = sorted(path.name for path in WIRE.glob("*.json"))


def test_a_whole_answer_is_the_same_events() -> None:
    body = (WIRE / "whole.json").read_bytes()
    events = decode_whole(body)
    assert bare(events) == [
        Started(id="msg_01WholeOfTheBox00000001", model="claude-opus-5-5", created=0),
        BlockStart(index=0, kind="text"),
        TextDelta(text="Hi! I am a box."),
        BlockStop(index=0),
        Finish(reason="stop"),
        Usage(prompt_tokens=12, completion_tokens=9),
    ]
    assert [event.wire for event in events] == [Wire("anthropic", body), *[Wire("anthropic", b"")] * 5]


def test_a_whole_answer_of_thinking_and_tool_calls() -> None:
    assert bare(decode_whole((WIRE / "whole_tools.json").read_bytes()))[1:] == [
        BlockStart(index=0, kind="reasoning"),
        ReasoningDelta(text="Two questions."),
        BlockStop(index=0),
        BlockStart(index=1, kind="text"),
        TextDelta(text="I will look."),
        BlockStop(index=1),
        BlockStart(index=2, kind="tool_call"),
        ToolCallStart(index=0, id="toolu_01BoxA", name="get_weather"),
        ToolCallDelta(index=0, arguments='{"location":"Köln"}'),
        BlockStop(index=2),
        BlockStart(index=3, kind="tool_call"),
        ToolCallStart(index=1, id="toolu_01BoxB", name="get_time"),
        ToolCallDelta(index=1, arguments="{}"),
        BlockStop(index=3),
        Finish(reason="tool_calls"),
        Usage(prompt_tokens=345, completion_tokens=71),
    ]


def test_a_whole_answer_of_a_web_search() -> None:
    assert bare(decode_whole((WIRE / "whole_web_search.json").read_bytes()))[1:-1] == [
        BlockStart(index=0, kind="other"),
        BlockStop(index=0),
        BlockStart(index=1, kind="other"),
        BlockStop(index=1),
        BlockStart(index=2, kind="text"),
        TextDelta(text="It answers."),
        SEEN,
        BlockStop(index=2),
        Finish(reason="other"),
    ]


@pytest.mark.parametrize("name", WHOLES)
def test_recorded_whole_answers_are_messages_of_the_official_client(name: str) -> None:
    body = (WIRE / name).read_bytes()
    message = anthropic.types.Message.model_validate_json(body, strict=True)
    starts = [event for event in decode_whole(body) if isinstance(event, BlockStart)]
    assert len(message.content) == len(starts)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"content": []}', "stop"),
        (b'{"content": [], "stop_reason": null}', "stop"),
        (b'{"content": [{"type": "tool_use", "id": "t", "name": "f"}], "stop_reason": null}', "tool_calls"),
        (b'{"content": [], "stop_reason": "refusal", "usage": null}', "content_filter"),
    ],
)
def test_a_whole_answer_may_lack_its_reason(body: bytes, reason: str) -> None:
    assert [event.reason for event in decode_whole(body) if isinstance(event, Finish)] == [reason]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.BROKEN),
        (b"<html>", Fault.BROKEN),
        (b"[]", Fault.BROKEN),
        (b"{}", Fault.BROKEN),
        (b'{"content": "text"}', Fault.BROKEN),
        (b'{"content": [1]}', Fault.BROKEN),
        (b'{"content": [{"type": "text", "text": 1}]}', Fault.BROKEN),
        (b"[" * 100_000, Fault.BROKEN),
        (b'{"type": "error", "error": {"type": "api_error", "message": "m"}}', Fault.BROKEN),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}', Fault.BUSY),
        (b'{"error": {"type": "invalid_request_error", "message": "m"}}', Fault.REQUEST),
    ],
)
def test_a_whole_answer_that_is_none_is_a_failure(body: bytes, fault: Fault) -> None:
    with pytest.raises(BackendError) as caught:
        decode_whole(body)
    assert caught.value.fault is fault
