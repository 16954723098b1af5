"""What a cloud of Anthropic's dialect may take and we cannot use is doubted, not refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.chat import ChatRequest, Foreign, Message, Sampling, Text, ToolCall, ToolResult
from appliance.dialects.anthropic_body import render
from appliance.dialects.anthropic_in import parse, parse_count

HI = {"role": "user", "content": "hi"}


def asked(**body: Any) -> ChatRequest:
    return parse(json.dumps({"model": "claude-opus-4-8", "max_tokens": 99, "messages": [HI], **body}).encode())


ROLE = "is unknown; it must be one of user, assistant, system."


@pytest.mark.parametrize(
    ("body", "path", "sentence", "foreign", "unsaid"),
    [
        ({"temperature": 1.3}, "temperature", "must be 0 to 1.", (), ("temperature",)),
        ({"top_p": 2}, "top_p", "must be 0 to 1.", (), ("top_p",)),
        ({"top_k": -1}, "top_k", "must be at least 0.", (), ("top_k",)),
        ({"max_tokens": -1}, "max_tokens", "must be at least 0.", ("max_tokens",), ()),
        ({"max_tokens": 1.5}, "max_tokens", "must be a whole number, not a fraction.", ("max_tokens",), ()),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", ROLE, ("messages[0].role",), ()),
        (
            {"thinking": {"type": "enabled"}},
            "thinking.budget_tokens",
            "is missing; say how many tokens may be spent on thinking.",
            (),
            ("thinking",),
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": -1}},
            "thinking.budget_tokens",
            "must be at least 0.",
            (),
            ("thinking",),
        ),
        (
            {"stop_sequences": ["a", ""]},
            "stop_sequences[1]",
            "is an empty string; leave it out or give the text to stop at.",
            (),
            (),
        ),
    ],
)
def test_what_a_cloud_may_take_and_we_cannot_use_is_doubted(
    body: dict[str, Any], path: str, sentence: str, foreign: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    request = asked(**body)
    assert request.doubts == ((path, f"{path} {sentence}"),)
    assert (request.foreign, request.unsaid) == (foreign, unsaid)
    assert (request.sampling, request.effort) == (Sampling(), None)
    assert render(request, "claude-opus-4-8") == request.raw


def test_what_is_beyond_doubt_is_said_beside_it() -> None:
    request = asked(stop_sequences=["", "END"], thinking={"type": "enabled"}, output_config={"effort": "low"})
    assert (request.stop, request.effort) == (("END",), "low")
    assert asked(temperature=1, top_p=0, top_k=0, max_tokens=0).doubts == ()


def test_a_message_of_an_unknown_role_is_the_users_and_may_hold_any_block() -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "12"}
    request = asked(messages=[{"role": "tool", "content": [call, result]}, {"role": "x", "content": "hi"}])
    assert request.messages == (
        Message(role="user", parts=(ToolCall(id="t", name="f", arguments="{}"),)),
        Message(role="tool", parts=(ToolResult(id="t", text="12"),)),
        Message(role="user", parts=(Text("hi"),)),
    )
    assert request.foreign == ("messages[0].role", "messages[1].role")


def test_a_name_that_fits_no_header_is_not_repeated() -> None:
    assert asked(**{"a\r\nb": 1, "x" * 65: 2, "caf\u00e9": 3, "tools[0].x-1": 4}).unsaid == ("unknown", "tools[0].x-1")
    request = asked(messages=[{"role": "user", "content": [{"type": "a\r\nb"}]}])
    assert (request.needs, request.messages[0].parts) == (frozenset({"unknown"}), (Foreign("unknown"),))


def test_a_count_has_its_doubts_too() -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "tool", "content": "x"}]}).encode()
    assert [path for path, _ in parse_count(body).doubts] == ["messages[0].role"]
