"""What a cloud of Anthropic's dialect is sent for a client of the same: its own bytes, but for what has to change."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.chat import ChatRequest, Message, Reasoning, Text
from appliance.core.seams import PLAIN, Quirks
from appliance.dialects.anthropic_body import UNSIGNED, count_body, losses, render
from appliance.dialects.anthropic_in import parse, parse_count
from appliance.dialects.fields import told


def own(**body: Any) -> tuple[bytes, ChatRequest]:
    said = {"model": "big", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **body}
    raw = json.dumps(said, indent=1).encode()
    return raw, parse(raw)


def test_a_client_of_this_dialect_is_passed_on_byte_for_byte() -> None:
    raw, request = own(of_tomorrow=[1, {"a": 1e0}], mcp_servers=[{"x": 1}])
    assert render(request, "big") is raw


def test_for_an_alias_only_the_name_changes() -> None:
    raw, request = own(metadata={"model": "big"})
    assert render(request, "claude-opus-4-8") == raw.replace(b'"big"', b'"claude-opus-4-8"', 1)


@given(st.dictionaries(st.text(min_size=1).map(lambda key: "x_" + key), st.text() | st.integers(), max_size=4))
def test_fields_nobody_knows_pass_untouched(unknown: dict[str, Any]) -> None:
    raw, request = own(**unknown)
    assert render(request, "big") == raw
    assert render(request, "other") == raw.replace(b'"big"', b'"other"', 1)
    assert request.unsaid == told(unknown)


def test_only_what_moved_away_is_changed() -> None:
    _, request = own(stream=True, of_tomorrow=1)
    body = json.loads(render(replace(request, stream=False, max_tokens=5), "big"))
    assert body == {**request.fields, "stream": False, "max_tokens": 5}
    _, request = own()
    assert json.loads(render(replace(request, stream=True), "big")) == {**request.fields, "stream": True}


def test_a_committed_answer_is_the_assistants_turn_at_the_end_to_the_letter() -> None:
    _, request = own(top_k=3)
    committed = Message(
        role="assistant",
        parts=(
            Reasoning("hm"),
            Text("The sky \n"),
        ),
    )
    body = json.loads(render(request.continuing(committed), "big"))
    turn = {"role": "assistant", "content": [{"type": "text", "text": "The sky \n"}]}
    assert body == {**request.fields, "messages": [*request.fields["messages"], turn]}


def test_no_more_thinking_is_asked_for_behind_a_committed_answer() -> None:
    _, request = own(thinking={"type": "enabled", "budget_tokens": 2000})
    body = json.loads(render(request.continuing(Message(role="assistant", parts=(Text("a"),))), "big"))
    assert "thinking" not in body


def test_a_committed_answer_without_words_adds_no_turn() -> None:
    _, request = own()
    body = json.loads(render(request.continuing(Message(role="assistant", parts=(Reasoning("hm"),))), "big"))
    assert body["messages"] == request.fields["messages"]


@pytest.mark.parametrize(
    "begun", ["It is (", [{"type": "text", "text": "It is (", "cache_control": {"type": "ephemeral"}}]]
)
def test_a_committed_answer_stands_behind_what_the_client_began_it_with(begun: Any) -> None:
    raw, request = own(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": begun}])
    committed = Message(role="assistant", parts=(Text("C) Sun"),))
    body = json.loads(render(request.continuing(committed), "big"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]
    [block] = body["messages"][1]["content"]
    assert block["text"] == "It is (C) Sun"
    assert ("cache_control" in block) is isinstance(begun, list)
    assert json.loads(raw) == request.fields, "the request itself did not change"


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": UNSIGNED}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "EqQBCg"}
SAID = {"type": "text", "text": "a"}
ASK = {"role": "user", "content": "hi"}


def test_thinking_of_ours_is_taken_out_of_the_history() -> None:
    ours = {"role": "assistant", "content": [SIGNED, {**THOUGHT, "signature": UNSIGNED + "-2"}, SAID]}
    _, request = own(messages=[ASK, ours, ASK, {"role": "assistant", "content": [THOUGHT]}, ASK], more=1)
    kept = [ASK, {"role": "assistant", "content": [SIGNED, SAID]}, ASK, ASK]
    for body in (render(request, "new"), count_body(request, "new")):
        assert json.loads(body) == {**request.fields, "model": "new", "messages": kept}


def test_talk_about_the_mark_is_no_thinking_of_ours() -> None:
    quoted = {"role": "assistant", "content": [SIGNED, {"type": "text", "text": UNSIGNED}]}
    raw, request = own(messages=[{"role": "user", "content": f"what is {UNSIGNED}?"}, quoted, ASK])
    assert render(request, "big") is raw


def test_a_request_to_count_goes_on_as_it_came_under_the_clouds_name() -> None:
    raw = b'{ "model": "big", "messages": [{"role":"user","content":"hi"}], "tools": [], "new": 1.50 }'
    assert count_body(parse_count(raw), "big") is raw
    assert count_body(parse_count(raw), "m2") == raw.replace(b"big", b"m2")


# ------------------------------------------------------------------------------- calls that somebody else has made

ANTHROPIC = Quirks(signed_thinking=True)
THINK = {"type": "enabled", "budget_tokens": 2000}


def calls(identity: str = "toolu_01A09q90qw90lq917835lq9x", *before: dict[str, Any]) -> dict[str, Any]:
    call = {"type": "tool_use", "id": identity, "name": "f", "input": {}}
    return {"role": "assistant", "content": [*before, call]}


def answers(identity: str = "toolu_01A09q90qw90lq917835lq9x", *behind: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": identity, "content": "42"}, *behind]}


OURS = "toolu_" + "0123456789abcdef01234567"
ASTRAY = [
    [ASK, calls("toolu_1", THOUGHT), answers("toolu_1")],
    [ASK, calls("call_1"), answers("call_1")],
    [ASK, calls("call_1", SAID), answers("call_1", SAID), ASK],
    [ASK, calls("call_1"), answers("call_1"), {"role": "system", "content": "note"}],
    [ASK, calls(OURS), answers(OURS)],  # made here of an id that Anthropic would not take
    # What Anthropic then called itself, it called without thinking.
    [ASK, calls("call_1"), answers("call_1"), calls(), answers()],
    [ASK, {"role": "assistant", "content": "I look."}, calls("call_1"), answers("call_1")],
]
SOUND = [
    [ASK, calls("toolu_01", SIGNED), answers("toolu_01")],
    [ASK, calls("call_1", SIGNED), answers("call_1")],
    [ASK, calls("call_1", {"type": "redacted_thinking", "data": "x"}), answers("call_1")],
    [ASK, calls(), answers()],  # the caller's own mistake
    [ASK, calls("call_1"), answers("call_1"), {"role": "assistant", "content": "a"}, ASK],
    [ASK, calls("call_1"), answers("call_1"), {"role": "assistant", "content": [SAID]}, ASK, calls(), answers()],
    [ASK],
]


@pytest.mark.parametrize("messages", ASTRAY)
def test_behind_a_call_of_somebody_elses_anthropic_is_not_asked_to_think(messages: list[dict[str, Any]]) -> None:
    clear = {"type": "clear_thinking_20251015", "keep": "all"}
    other = {"type": "clear_tool_uses_20250919"}
    _, request = own(messages=messages, thinking=THINK, context_management={"edits": [clear, other]}, of_tomorrow=1)
    body = json.loads(render(request, "big", ANTHROPIC))
    assert "thinking" not in body
    assert body["context_management"] == {"edits": [other]}
    assert body["of_tomorrow"] == 1
    assert losses(request, "big", ANTHROPIC) == ("thinking",)


def test_what_was_thought_here_is_known_again_at_any_cloud_and_an_id_only_where_ids_tell() -> None:
    _, marked = own(messages=ASTRAY[0], thinking=THINK)
    raw, named = own(messages=ASTRAY[1], thinking=THINK)
    assert "thinking" not in json.loads(render(marked, "big"))
    assert render(named, "big") is raw
    assert losses(named, "big", PLAIN) == ()


@pytest.mark.parametrize("messages", SOUND)
def test_a_turn_that_anthropic_can_think_on_passes_byte_for_byte(messages: list[dict[str, Any]]) -> None:
    raw, request = own(messages=messages, thinking=THINK)
    assert render(request, "big", ANTHROPIC) is raw
    assert losses(request, "big", ANTHROPIC) == ()


@pytest.mark.parametrize("thinking", [None, {"type": "adaptive"}, {"type": "disabled"}])
def test_who_need_not_think_may_answer_anybodys_call(thinking: Any) -> None:
    raw, request = own(messages=ASTRAY[1], thinking=thinking)
    assert render(request, "big", ANTHROPIC) is raw


def test_no_thinking_is_cleared_behind_a_committed_answer_either() -> None:
    edits = {"edits": [{"type": "clear_thinking_20251015"}]}
    _, request = own(thinking={"type": "adaptive"}, context_management=edits)
    body = json.loads(render(request.continuing(Message(role="assistant", parts=(Text("a"),))), "big"))
    assert body["context_management"] == {"edits": []}
    assert request.fields["context_management"] == edits
