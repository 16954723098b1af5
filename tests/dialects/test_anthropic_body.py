"""What a cloud of Anthropic's dialect is sent for a request of another dialect."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from appliance.core.chat import (
    ChatRequest,
    Foreign,
    Image,
    JsonFormat,
    Message,
    Part,
    Reasoning,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from appliance.core.seams import PLAIN, Quirks
from appliance.dialects.anthropic_body import NOTHING_SAID, objection, render
from appliance.dialects.anthropic_in import parse
from appliance.dialects.fields import compact

WHOLE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
STREAMED: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
GONE = ("temperature", "top_p", "top_k")  # the SDK has no words for them any more, the wire still has
THINKS = Quirks(effort=("claude-*",))
MODEL = "claude-sonnet-4-5"
HI = Message(role="user", parts=(Text("hi"),))


def drained(value: Any) -> Any:
    """What a validator gave, read to the end: it checks lists only as they are read."""
    if isinstance(value, dict):
        return {key: drained(one) for key, one in value.items()}
    return value if value is None or isinstance(value, str | int | float) else [drained(one) for one in value]


def valid(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, which is what the official SDK's types allow, and holds nothing they do not know."""
    known = {key: value for key, value in body.items() if key not in GONE}
    assert drained((STREAMED if body.get("stream") else WHOLE).validate_python(known)) == known
    return body


def rendered(request: ChatRequest, model: str = MODEL, quirks: Quirks = PLAIN) -> dict[str, Any]:
    return valid(json.loads(render(request, model, quirks)))


def foreign(*messages: Message, **fields: Any) -> ChatRequest:
    """A request of another dialect."""
    return ChatRequest(dialect="openai", model="gpt-4o", messages=messages or (HI,), raw=b"{}", **fields)


def turns(*messages: Message) -> list[dict[str, Any]]:
    return list(rendered(foreign(*messages))["messages"])


def test_the_check_against_the_sdk_can_fail() -> None:
    with pytest.raises(ValidationError):
        valid({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text"}]}]})
    with pytest.raises(AssertionError):
        valid({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x", "more": 1}]})


def test_the_smallest_request_gets_the_limit_it_does_not_have() -> None:
    assert rendered(foreign()) == {
        "model": MODEL,
        "max_tokens": 32000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-3-5-sonnet-20241022", 8192),
        ("anthropic/claude-3-5-haiku", 8192),
        ("claude-3-7-sonnet-latest", 32000),
        ("claude-3-haiku-20240307", 4096),
        ("claude-opus-4-8", 32000),
        ("somebody-elses", 32000),
    ],
)
def test_a_limit_nobody_gave_is_what_the_model_can_write(model: str, limit: int) -> None:
    assert rendered(foreign(), model)["max_tokens"] == limit
    assert rendered(foreign(max_tokens=7), model)["max_tokens"] == 7


def test_system_texts_stand_at_the_top_in_order() -> None:
    first, blank = (
        Message(role="system", parts=(Text("a"), Text("b"))),
        Message(role="system", parts=(Text(" "), Image("https://x.test/a.png"))),
    )
    body = rendered(foreign(first, HI, blank, Message(role="system", parts=(Text("c"),))))
    assert body["system"] == [{"type": "text", "text": text} for text in "abc"]
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert "system" not in rendered(foreign(blank, HI))


def test_calls_and_their_results_become_blocks_of_two_turns() -> None:
    calls = tuple(ToolCall(id=name, name=name, arguments=f'{{"x": "{name}"}}') for name in ("a1", "b:2"))
    written = turns(
        HI,
        Message(role="assistant", parts=(Reasoning("hm"), Text("let me see"), *calls)),
        Message(role="tool", parts=(ToolResult(id="a1", text="12"), Image("https://x.test/i.png"))),
        Message(role="tool", parts=(ToolResult(id="b:2", text="", failed=True),)),
        Message(role="user", parts=(Text("go on"),)),
    )
    assert [turn["role"] for turn in written] == ["user", "assistant", "user"]
    text, first, second = written[1]["content"]
    assert text == {"type": "text", "text": "let me see"}
    assert first == {"type": "tool_use", "id": "a1", "name": "a1", "input": {"x": "a1"}}
    assert second["id"].startswith("toolu_")
    assert written[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a1", "content": "12"},
        {"type": "tool_result", "tool_use_id": second["id"], "is_error": True},
        {"type": "image", "source": {"type": "url", "url": "https://x.test/i.png"}},
        {"type": "text", "text": "go on"},
    ]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ("[1]", {"_raw": "[1]"}),
        ('{"a": 1', {"_raw": '{"a": 1'}),
        ('{"a": NaN}', {"_raw": '{"a": NaN}'}),
        ("[" * 200_000, {"_raw": "[" * 200_000}),
    ],
)
def test_arguments_that_are_no_object_are_passed_on_as_they_were_written(arguments: str, given: Any) -> None:
    call = Message(role="assistant", parts=(ToolCall(id="t", name="n", arguments=arguments),))
    result = Message(role="tool", parts=(ToolResult(id="t", text="x"),))
    assert turns(HI, call, result)[1]["content"][0]["input"] == given


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x.test/a.png?b,c", {"type": "url", "url": "https://x.test/a.png?b,c"}),
        ("data:image/png;base64,iVBO", {"type": "base64", "media_type": "image/png", "data": "iVBO"}),
        ("data:image/gif;x=1;base64,iVBO", {"type": "base64", "media_type": "image/gif", "data": "iVBO"}),
        ("data:image/webp,a%20b", {"type": "base64", "media_type": "image/webp", "data": "YSBi"}),
    ],
)
def test_images_are_addresses_or_base64(url: str, source: dict[str, str]) -> None:
    assert turns(Message(role="user", parts=(Image(url),)))[0]["content"] == [{"type": "image", "source": source}]


def test_turns_of_one_side_are_joined_and_empty_ones_left_out() -> None:
    def said(role: Any, *parts: Part) -> Message:
        return Message(role=role, parts=parts)

    written = turns(
        said("user", Text("a")),
        said("user", Text("")),
        said("assistant", Text(" \n"), Foreign("refusal"), Reasoning("hm")),
        said("user", Text("b"), Text("\t")),
        said("assistant", Text("c")),
        said("assistant", Text("d")),
        said("user", Text("e")),
    )
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in written] == [
        ("user", ["a", "b"]),
        ("assistant", ["c", "d"]),
        ("user", ["e"]),
    ]


@pytest.mark.parametrize("roles", ["", "assistant", "assistant user", "user assistant"])
def test_a_conversation_begins_and_ends_with_the_user(roles: str) -> None:
    system = Message(role="system", parts=(Text("s"),))
    said: tuple[Message, ...] = tuple(replace(HI, role=role) for role in roles.split())  # type: ignore[arg-type]
    written = turns(system, *said)
    nothing = {"role": "user", "content": NOTHING_SAID}
    assert (written[0] == nothing) is (not roles.startswith("user"))
    assert (written[-1] == nothing) is (not roles.endswith("user"))
    assert len(written) - written.count(nothing) == len(said)


def test_a_committed_answer_of_another_dialect_is_the_last_turn() -> None:
    committed = Message(role="assistant", parts=(Text("Once upon"), Text(" ")))
    written = rendered(foreign(HI, replace(HI, role="assistant")).continuing(committed))["messages"]
    assert written[-2] == {"role": "user", "content": NOTHING_SAID}
    assert written[-1]["content"] == [{"type": "text", "text": "Once upon"}, {"type": "text", "text": " "}]


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (Sampling(temperature=0), {"temperature": 0.0}),
        (Sampling(temperature=1.7, top_k=40), {"top_k": 40}),
        (Sampling(temperature=1, top_p=0.9), {"top_p": 0.9}),
        (Sampling(temperature=0.3, top_p=0.9, seed=1, min_p=0.1), {"temperature": 0.3}),
        (Sampling(top_p=1, top_k=0, frequency_penalty=1), {}),
    ],
)
def test_sampling_is_said_as_far_as_anthropic_lets_it(sampling: Sampling, said: dict[str, float]) -> None:
    body = rendered(foreign(sampling=sampling))
    assert {key: body[key] for key in ("temperature", "top_p", "top_k") if key in body} == said


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-3-opus-20240229", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4@20250514", True),
        ("claude-opus-4-1-20250805", True),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", True),
        ("anthropic/claude-opus-4.6", True),
        ("deepseek-chat", True),
        ("claude-opus-4-7", False),
        ("claude-opus-4-8-20260801", False),
        ("claude-sonnet-5", False),
        ("claude-haiku-5-20260301", False),
    ],
)
def test_later_models_of_claude_are_not_told_a_temperature(model: str, takes: bool) -> None:
    assert ("temperature" in rendered(foreign(sampling=Sampling(temperature=0.2)), model)) is takes


def test_tools_are_written_with_a_schema_of_an_object() -> None:
    tools = (Tool(name="a", description="d", parameters={"properties": {}}, strict=True), Tool(name="b", strict=False))
    body = rendered(foreign(tools=tools))
    assert body["tools"] == [
        {"name": "a", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": True},
        {"name": "b", "input_schema": {"type": "object"}},
    ]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), True, {"type": "any", "disable_parallel_tool_use": False}),
        (ToolChoice("named", "a"), False, {"type": "tool", "name": "a", "disable_parallel_tool_use": True}),
        (ToolChoice("none"), False, {"type": "none"}),
    ],
)
def test_every_choice_of_tools_is_written(choice: ToolChoice | None, parallel: bool | None, written: object) -> None:
    wishes: dict[str, Any] = {"tool_choice": choice, "parallel_tools": parallel}
    assert rendered(foreign(tools=(Tool(name="a"),), **wishes))["tool_choice"] == written
    assert "tool_choice" not in rendered(foreign(**wishes)), "nothing to choose from"


def test_a_history_of_calls_without_tools_names_them_and_forbids_calling() -> None:
    call = Message(role="assistant", parts=(ToolCall(id="t", name="n", arguments="{}"),) * 2)
    body = rendered(foreign(HI, call, Message(role="tool", parts=(ToolResult(id="t", text="x"),))))
    assert body["tools"] == [{"name": "n", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("effort", "written"),
    [
        ("none", {"thinking": {"type": "disabled"}}),
        ("minimal", {"output_config": {"effort": "low"}}),
        ("low", {"output_config": {"effort": "low"}}),
        ("xhigh", {"output_config": {"effort": "xhigh"}}),
        ("max", {"output_config": {"effort": "max"}}),
        ("of_tomorrow", {}),
        (None, {}),
    ],
)
def test_how_much_to_think_is_told_to_models_that_can_be_told(effort: str | None, written: dict[str, Any]) -> None:
    request = foreign(effort=effort)
    assert rendered(request, quirks=THINKS) == {**rendered(foreign()), **written}
    assert rendered(request, quirks=Quirks(effort=("gpt-*",))) == rendered(foreign())


def test_form_user_stops_and_streaming_are_written() -> None:
    shape = JsonFormat(schema={"type": "object", "additionalProperties": False}, name="answer", strict=True)
    body = rendered(foreign(format=shape, user="u", stop=("END",), stream=True, effort="low"), quirks=THINKS)
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
        "effort": "low",
    }
    assert (body["metadata"], body["stop_sequences"], body["stream"]) == ({"user_id": "u"}, ["END"], True)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, None),
        ({"n": 2}, "n"),
        ({"needs": frozenset({"logprobs"})}, "logprobs"),
        ({"needs": frozenset({"audio"})}, "modalities"),
        ({"format": JsonFormat()}, "response_format"),
        ({"format": JsonFormat(schema={})}, None),
        ({"sampling": Sampling(logit_bias=((1, 5.0),))}, "logit_bias"),
        ({"stop": ("END", "\n")}, "stop"),
        ({"stop": ("END\n",)}, None),
        ({"needs": frozenset({"tools", "images", "json"})}, None),
    ],
)
def test_what_cannot_be_said_here_and_matters_is_named(fields: dict[str, Any], field: str | None) -> None:
    assert objection(foreign(**fields)) == field


# -------------------------------------------------------------------------------------------------- inverse

WORDS = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
NAMES = st.text("abcxyz_-", min_size=1, max_size=8)
VALUES = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.none(), max_size=2)
CALLS = st.builds(ToolCall, id=NAMES, name=NAMES, arguments=VALUES.map(lambda value: compact(value).decode()))
IMAGES = st.sampled_from([Image("https://x.test/a.png"), Image("data:image/png;base64,iVBO")])
RESULTS = st.builds(ToolResult, id=NAMES, text=st.just("") | WORDS, failed=st.booleans())
MESSAGES = st.one_of(
    st.builds(Message, role=st.just("system"), parts=st.tuples(WORDS.map(Text))),
    st.builds(Message, role=st.just("user"), parts=st.lists(WORDS.map(Text) | IMAGES, min_size=1).map(tuple)),
    st.builds(Message, role=st.just("assistant"), parts=st.lists(WORDS.map(Text) | CALLS, min_size=1).map(tuple)),
    st.builds(Message, role=st.just("tool"), parts=st.tuples(RESULTS) | st.tuples(RESULTS, IMAGES)),
)
REQUESTS = st.builds(
    foreign,
    st.just(HI),
    MESSAGES,
    MESSAGES,
    MESSAGES,
    st.just(HI),
    stream=st.booleans(),
    max_tokens=st.integers(1, 9999),
    stop=st.lists(WORDS, max_size=2).map(tuple),
    sampling=st.builds(Sampling, temperature=st.none() | st.floats(0, 0.99), top_k=st.none() | st.integers(1, 99)),
    tools=st.lists(
        st.builds(Tool, name=NAMES, description=st.text(max_size=4), parameters=st.just({"type": "object"})),
        min_size=1,
        max_size=2,
    ).map(tuple),
    tool_choice=st.sampled_from([None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("named", "a")]),
    parallel_tools=st.sampled_from([None, True, False]),
    format=st.none() | st.builds(JsonFormat, schema=VALUES),
    effort=st.sampled_from([None, "none", "low", "medium", "high", "xhigh", "max"]),
    user=st.none() | st.text(max_size=5),
)


def meaning(messages: tuple[Message, ...]) -> list[tuple[str, list[Part]]]:
    """Who said what, whatever messages it was cut into: system texts first, of each turn the tool results first."""
    system = [part for message in messages if message.role == "system" for part in message.parts]
    said: list[tuple[str, list[Part]]] = [("system", system)]
    for message in messages:
        side = "user" if message.role == "tool" else message.role
        if side != "system" and said[-1][0] != side:
            said.append((side, []))
        if side != "system":
            said[-1][1].extend(message.parts)
    return [(side, sorted(parts, key=lambda part: not isinstance(part, ToolResult))) for side, parts in said]


@settings(deadline=None)
@given(REQUESTS)
def test_what_is_written_reads_back_with_the_same_meaning(request: ChatRequest) -> None:
    rendered(request, quirks=THINKS)
    back = parse(render(request, MODEL, THINKS))
    assert meaning(back.messages) == meaning(request.messages)
    assert (back.foreign, set(back.unsaid) - {"top_k"}) == ((), set())
    choice = request.tool_choice
    if choice is None and request.parallel_tools is not None:
        choice = ToolChoice("auto")
    same = "stream max_tokens stop sampling tools parallel_tools format effort user".split()
    assert [getattr(back, name) for name in same] == [getattr(request, name) for name in same]
    assert back.tool_choice == choice
