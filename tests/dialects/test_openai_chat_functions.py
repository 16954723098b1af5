"""Who still asks with the `functions` of 2023 is answered in their shape, whoever answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.chat import ChatRequest, Tool, ToolCall, ToolChoice, ToolResult
from appliance.core.events import Event, Finish, Takeover, TextDelta, ToolCallDelta, ToolCallStart
from appliance.core.given import Given
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.openai_reader import STARTED, TAKEOVER, chunks

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
FUNCTIONS = [{"name": "look", "description": "Looks.", "parameters": SCHEMA}, {"name": "act"}]
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
    {"role": "function", "name": "look", "content": "Rain."},
    {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"at": "x"}'}},
    {"role": "function", "name": "look", "content": "Sun."},
]
CALL = [ToolCallStart(index=0, id="", name="look"), ToolCallDelta(index=0, arguments='{"at"'),
        ToolCallDelta(index=0, arguments=': "x"}')]  # fmt: skip
SECOND = [ToolCallStart(index=1, id="", name="act"), ToolCallDelta(index=1, arguments="{}")]
END = Finish(reason="tool_calls")


def asked(**more: Any) -> ChatRequest:
    return OPENAI.parse(json.dumps({"model": "m", "messages": TURNS, "functions": FUNCTIONS, **more}).encode())


def streamed(*events: Event) -> list[dict[str, Any]]:
    client = OPENAI.encoder(asked(stream=True), id="chatcmpl-1", created=7)
    return [chunk["choices"][0] for chunk in chunks(client.encode(events) + client.close())]


def test_they_are_tools_one_call_at_a_time() -> None:
    request = asked()
    assert request.tools == (Tool(name="look", description="Looks.", parameters=SCHEMA), Tool(name="act"))
    assert (request.needs, request.parallel_tools, request.foreign) == ({"tools"}, False, ())


@pytest.mark.parametrize(
    ("wish", "read"),
    [
        (None, None),
        ("auto", None),
        ("none", ToolChoice("none")),
        ({"name": "act"}, ToolChoice("named", "act")),
    ],
)
def test_what_is_to_be_called_is_understood(wish: Any, read: ToolChoice | None) -> None:
    assert asked(function_call=wish).tool_choice == read


def test_a_result_is_that_of_the_call_before_it() -> None:
    parts = [part for message in asked().messages for part in message.parts]
    calls = [part.id for part in parts if isinstance(part, ToolCall)]
    assert len(set(calls)) == 2
    assert [part.id for part in parts if isinstance(part, ToolResult)] == calls


def test_a_cloud_of_the_dialect_gets_the_bytes() -> None:
    request = asked(function_call={"name": "act"})
    assert OPENAI.render(request, "m") == request.raw


def test_a_cloud_of_the_other_dialect_gets_tools() -> None:
    body = json.loads(ANTHROPIC.render(asked(function_call={"name": "act"}), "claude-sonnet-4-6"))
    assert [tool["name"] for tool in body["tools"]] == ["look", "act"]
    assert body["tool_choice"] == {"type": "tool", "name": "act", "disable_parallel_tool_use": True}


def test_beside_tools_they_are_a_doubt_and_the_answer_is_one_of_today() -> None:
    request = asked(tools=[{"type": "function", "function": {"name": "new"}}])
    assert [tool.name for tool in request.tools] == ["new"]
    assert [path for path, _ in request.doubts] == ["functions"]
    whole = json.loads(OPENAI.encode_whole(request, [*CALL, END], id="chatcmpl-1", created=7))
    assert whole["choices"][0]["finish_reason"] == "tool_calls"


def test_a_whole_answer_has_their_shape() -> None:
    events = [STARTED, TextDelta(text="So."), *CALL, *SECOND, END]
    choice = json.loads(OPENAI.encode_whole(asked(), events, id="chatcmpl-1", created=7))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": "So.",
        "refusal": None,
        "function_call": {"name": "look", "arguments": '{"at": "x"}'},
    }


def test_a_call_that_ran_into_the_limit_ended_by_it() -> None:
    events = [STARTED, *CALL[:2], Finish(reason="length")]
    choice = json.loads(OPENAI.encode_whole(asked(), events, id="chatcmpl-1", created=7))["choices"][0]
    assert (choice["finish_reason"], choice["message"]["function_call"]["arguments"]) == ("length", '{"at"')


def test_so_has_a_streamed_one() -> None:
    choices = streamed(STARTED, *CALL, *SECOND, END)
    calls = [choice["delta"]["function_call"] for choice in choices if "function_call" in choice["delta"]]
    assert calls == [{"name": "look", "arguments": ""}, {"arguments": '{"at"'}, {"arguments": ': "x"}'}]
    assert not any("tool_calls" in choice["delta"] for choice in choices)
    assert choices[-1]["finish_reason"] == "function_call"


def test_a_call_without_arguments_has_empty_ones() -> None:
    choices = streamed(STARTED, CALL[0], END)
    assert choices[-2]["delta"] == {"function_call": {"arguments": "{}"}}


def test_a_call_that_a_cloud_left_half_written_goes_on_in_the_same_shape() -> None:
    pieces = [{"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": ""}},
              {"function_call": {"arguments": '{"at"'}}]  # fmt: skip
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt"}
    said = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in pieces]
    raw = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said)
    events = OPENAI.decoder().feed(raw)
    given = Given()
    for event in events:
        given.note(event)
    assert given.continuable
    assert given.message().parts == (ToolCall(id="", name="look", arguments='{"at"'),)
    client = OPENAI.encoder(asked(stream=True), id="chatcmpl-1", created=7)
    assert client.encode(events) == raw
    assert isinstance(TAKEOVER, Takeover)
    (more, end) = chunks(client.encode([TAKEOVER, CALL[2], END]))
    assert more["choices"][0]["delta"] == {"function_call": {"arguments": ': "x"}'}}
    assert (more["id"], end["choices"][0]["finish_reason"]) == ("c", "function_call")


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_of_the_tools_that_are_allowed_the_others_are_not_told_of(mode: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b", "c")]
    allowed = {"mode": mode, "tools": [tools[2], tools[0], {"type": "function", "function": {"name": "gone"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    request = asked(functions=None, tools=tools, tool_choice=choice)
    assert [tool.name for tool in request.tools] == ["a", "c"]
    assert request.tool_choice == ToolChoice(mode)  # type: ignore[arg-type]
    assert request.foreign == ()
    assert OPENAI.render(request, "m") == request.raw
    body = json.loads(ANTHROPIC.render(request, "claude-sonnet-4-6"))
    assert [tool["name"] for tool in body["tools"]] == ["a", "c"]
