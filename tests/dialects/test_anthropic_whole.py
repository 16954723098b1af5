"""A whole answer as a client of Anthropic's dialect gets it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import Message as TheirMessage

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    Takeover,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.anthropic_body import UNSIGNED
from tests.dialects.anthropic_cloud import (
    BEGUN,
    ENDED,
    REQUEST,
    STARTED,
    STOP,
    TAKEOVER,
    call,
    decoded,
    text,
    thinking,
)


def whole(given: Sequence[Event]) -> dict[str, Any]:
    body = ANTHROPIC.encode_whole(REQUEST, given, id="msg_ours", created=1)
    TheirMessage.model_validate_json(body, strict=True)
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_whole_answer_of_ours_has_its_blocks_in_order() -> None:
    found = whole(
        [
            STARTED,
            ReasoningDelta(text="hm"),
            TextDelta(text="a"),
            Takeover(source="a", target="b", after=1, reason="broken"),
            TextDelta(text="b"),
            Opaque(content=True, text="!"),
            *call(0, "call_1", '{"x":', "1"),
            *call(1, "call_2", ""),
            ToolCallDelta(index=0, arguments="}"),
            TextDelta(text="c"),
            Finish(reason="stop"),
            Usage(prompt_tokens=5, completion_tokens=6, cached_tokens=2),
        ]
    )
    assert found["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": UNSIGNED},
        {"type": "text", "text": "ab!"},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "call_2", "name": "f", "input": {}},
        {"type": "text", "text": "c"},
    ]
    assert (found["id"], found["model"], found["stop_reason"]) == ("msg_1", "box", "tool_use")
    assert (found["usage"]["input_tokens"], found["usage"]["cache_read_input_tokens"]) == (3, 2)


def test_a_whole_answer_of_two_legs_is_one() -> None:
    second: list[Event] = [BlockStart(index=0, kind="reasoning"), BlockStop(index=0)]
    second += [BlockStart(index=1, kind="text"), TextDelta(text="b"), BlockStop(index=1)]
    usages = Usage(prompt_tokens=5, completion_tokens=1), Usage(prompt_tokens=8, completion_tokens=3)
    found = whole([STARTED, usages[0], TextDelta(text="a"), TAKEOVER, *second, STOP, usages[1]])
    assert found["content"] == [{"type": "text", "text": "ab"}]
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (5, 3)


@pytest.mark.parametrize("arguments", ['{"path":"/a', "[1]", "nonsense", "[" * 100_000])
def test_arguments_that_are_no_object_are_none(arguments: str) -> None:
    assert whole([STARTED, *call(0, "a", arguments), Finish(reason="length")])["content"][0]["input"] == {}


def test_a_whole_answer_out_of_a_stream_is_written_anew() -> None:
    found = whole([*decoded(BEGUN, *thinking(0, "hm", signature="s"), *text(1, "a"), *ENDED)])
    assert [one["type"] for one in found["content"]] == ["thinking", "text"]
    assert (found["id"], found["usage"]["output_tokens"]) == ("msg_cloud", 7)
    assert whole([])["id"] == "msg_ours"
