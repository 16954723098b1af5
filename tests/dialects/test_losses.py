"""What of a request is left out for the one model that would refuse it, named as the client names it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.seams import PLAIN, Quirks
from appliance.dialects import anthropic_body, anthropic_in, openai_chat_body, openai_chat_in

OLDER, LATER = "claude-sonnet-4-5", "claude-opus-5"
THINKS = Quirks(effort=("*",))
FUNCTION = {"type": "function", "function": {"name": "f"}}


def to_anthropic(model: str, quirks: Quirks = PLAIN, **body: Any) -> tuple[str, ...]:
    said = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **body}
    return anthropic_body.losses(openai_chat_in.parse(json.dumps(said).encode()), model, quirks)


def to_openai(quirks: Quirks = PLAIN, **body: Any) -> tuple[str, ...]:
    said = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **body}
    return openai_chat_body.losses(anthropic_in.parse(json.dumps(said).encode()), "m", quirks)


@pytest.mark.parametrize(
    ("model", "body", "lost"),
    [
        (OLDER, {"temperature": 0.5}, ()),
        (LATER, {"temperature": 0.5}, ("temperature",)),
        (LATER, {"temperature": 0}, ("temperature",)),
        (LATER, {"temperature": 1, "top_p": 1, "top_k": -1}, ()),  # so it is anyway
        (LATER, {"top_p": 0.5, "top_k": 3}, ("top_p", "top_k")),
        (OLDER, {"top_p": 0.5, "top_k": 3}, ()),
        (OLDER, {"temperature": 1.5}, ("temperature",)),
        (OLDER, {"temperature": 0.5, "top_p": 0.5}, ("top_p",)),
        (OLDER, {"reasoning_effort": "high"}, ("reasoning_effort",)),
        (OLDER, {"reasoning": {"effort": "high"}}, ("reasoning",)),
        (OLDER, {"user": "u", "stop": "END", "max_tokens": 9}, ()),
    ],
)
def test_what_a_claude_is_not_told_is_named(model: str, body: dict[str, Any], lost: tuple[str, ...]) -> None:
    assert to_anthropic(model, **body) == lost


def test_an_effort_that_is_told_is_not_lost() -> None:
    assert to_anthropic(OLDER, THINKS, reasoning_effort="high") == ()
    assert to_anthropic(OLDER, THINKS, reasoning_effort="none") == ()
    assert to_openai(THINKS, output_config={"effort": "max"}) == ()


@pytest.mark.parametrize(
    ("quirks", "body", "lost"),
    [
        (PLAIN, {"temperature": 0.5, "top_p": 0.5, "metadata": {"user_id": "u"}}, ()),
        (Quirks(new_limit=("m",)), {"temperature": 0.5, "top_p": 0.5}, ("temperature", "top_p")),
        (Quirks(new_limit=("m",)), {"temperature": 1, "top_p": 1}, ()),
        (Quirks(short_ids=True), {"metadata": {"user_id": "u"}}, ("metadata",)),
        (PLAIN, {"output_config": {"effort": "low"}}, ("output_config",)),
        (PLAIN, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, ("thinking",)),
        (PLAIN, {"thinking": {"type": "adaptive"}}, ()),
    ],
)
def test_what_a_model_of_openais_dialect_is_not_told_is_named(
    quirks: Quirks, body: dict[str, Any], lost: tuple[str, ...]
) -> None:
    assert to_openai(quirks, **body) == lost


def test_a_model_that_may_not_think_beside_tools_loses_the_wish_to() -> None:
    quirks = Quirks(effort=("m",), unthinking_tools=("m",))
    tools = [{"name": "f", "input_schema": {}}]
    assert to_openai(quirks, tools=tools, output_config={"effort": "low"}) == ("output_config",)
    assert to_openai(quirks, tools=tools, thinking={"type": "disabled"}) == ()
    assert to_openai(quirks, output_config={"effort": "low"}) == ()


def test_nothing_is_lost_on_the_way_to_a_cloud_of_the_clients_dialect() -> None:
    raw = b'{"model":"m","max_tokens":9,"temperature":0.5,"top_p":0.5,"messages":[{"role":"user","content":"a"}]}'
    assert anthropic_body.losses(anthropic_in.parse(raw), LATER) == ()
    assert openai_chat_body.losses(openai_chat_in.parse(raw), "o3", Quirks(new_limit=("o3",))) == ()


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ({}, ()),
        ({"type": "custom", "description": "d", "strict": True, "cache_control": {"type": "ephemeral"}}, ()),
        ({"defer_loading": False, "allowed_callers": ["direct"], "eager_input_streaming": True}, ()),
        ({"input_examples": [{"a": 1}]}, ("tools",)),
        ({"defer_loading": True}, ("tools",)),
        ({"allowed_callers": ["code_execution_20250825"]}, ("tools",)),
        ({"of_tomorrow": 0}, ("tools",)),
    ],
)
def test_what_others_cannot_say_of_a_tool_is_lost(more: dict[str, Any], lost: tuple[str, ...]) -> None:
    tool = {"name": "f", "input_schema": {}, **more}
    said = {"model": "m", "max_tokens": 9, "tools": [tool], "messages": [{"role": "user", "content": "hi"}]}
    assert anthropic_in.parse(json.dumps(said).encode()).unsaid == lost


@pytest.mark.parametrize(
    ("tool", "lost"),
    [
        (FUNCTION, ()),
        ({**FUNCTION, "cache_control": {}}, ()),
        ({**FUNCTION, "defer_loading": True}, ("tools",)),
        ({**FUNCTION, "of_tomorrow": None}, ()),
        ({"type": "function", "function": {"name": "f", "of_tomorrow": 1}}, ("tools",)),
    ],
)
def test_what_others_cannot_say_of_a_function_is_lost(tool: dict[str, Any], lost: tuple[str, ...]) -> None:
    said = {"model": "m", "tools": [tool], "messages": [{"role": "user", "content": "hi"}]}
    assert openai_chat_in.parse(json.dumps(said).encode()).unsaid == lost
