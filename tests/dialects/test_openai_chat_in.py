"""What a client of OpenAI's dialect asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.core.chat import (
    ChatRequest,
    Foreign,
    Image,
    JsonFormat,
    Message,
    Reasoning,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from appliance.core.fault import BackendError, Fault
from appliance.dialects.openai_chat import OPENAI

HI = {"role": "user", "content": "hi"}


def asked(**body: Any) -> ChatRequest:
    return OPENAI.parse(json.dumps({"model": "gpt-4o", "messages": [HI], **body}).encode())


def refused(**body: Any) -> tuple[str, str | None]:
    with pytest.raises(BackendError) as caught:
        asked(**body)
    assert (caught.value.fault, caught.value.status) == (Fault.REQUEST, 400)
    return str(caught.value), caught.value.param


# ---------------------------------------------------------------------------------------------------- parse


def test_the_smallest_request_is_a_model_and_one_message() -> None:
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
    assert OPENAI.parse(body, (("x-a", "b"),)) == ChatRequest(
        dialect="openai",
        model="gpt-4o",
        messages=(Message(role="user", parts=(Text("hi"),)),),
        raw=body,
        fields=json.loads(body),
        headers=(("x-a", "b"),),
    )


def test_every_field_of_sampling_is_read() -> None:
    request = asked(
        temperature=0,
        top_p=0.5,
        top_k=40,
        min_p=0.05,
        frequency_penalty=-2,
        presence_penalty=2,
        repeat_penalty=1.1,
        seed=-1,
        logit_bias={"15": -100, "9": 1.5, "3": None},
        stop=["a", "b"],
        max_tokens=9,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert request.sampling == Sampling(
        temperature=0.0,
        top_p=0.5,
        top_k=40,
        min_p=0.05,
        frequency_penalty=-2.0,
        presence_penalty=2.0,
        repeat_penalty=1.1,
        seed=-1,
        logit_bias=((15, -100.0), (9, 1.5)),
    )
    assert (request.stop, request.max_tokens, request.n) == (("a", "b"), 9, 2)
    assert (request.stream, request.include_usage) == (True, True)
    assert request.needs == {"n"}


def test_null_is_absent_and_unknown_fields_are_kept() -> None:
    nothing = dict.fromkeys(
        "stream stream_options max_tokens max_completion_tokens stop temperature n tools tool_choice functions seed "
        "logprobs top_logprobs response_format modalities logit_bias".split()
    )
    request = asked(**nothing, brand_new={"deep": [1, 2]})
    assert request.fields["brand_new"] == {"deep": [1, 2]}
    assert request.unsaid == ("brand_new",)
    assert replace(request, raw=b"", fields={}, unsaid=()) == replace(asked(), raw=b"", fields={})


def test_the_newer_token_limit_wins_and_one_stop_may_be_a_string() -> None:
    request = asked(max_tokens=5, max_completion_tokens=7, stop="\n")
    assert (request.max_tokens, request.stop) == (7, ("\n",))


@pytest.mark.parametrize(
    ("given_message", "read"),
    [
        ({"role": "developer", "content": "be brief"}, Message(role="system", parts=(Text("be brief"),))),
        ({"role": "system", "content": ""}, Message(role="system", parts=())),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "bob"},
            Message(role="user", parts=(Text("a"), Text("b"))),
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            Message(role="assistant", parts=(ToolCall(id="c1", name="f", arguments="{}"),)),
        ),
        (
            {"role": "assistant", "reasoning_content": "hm", "content": [{"type": "refusal", "refusal": "no"}]},
            Message(role="assistant", parts=(Reasoning("hm"), Text("no"))),
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            Message(role="assistant", parts=(ToolCall(id="call_1", name="f", arguments="{}"),)),
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
            },
            Message(role="assistant", parts=(ToolCall(id="c2", name="sh", arguments="ls"),)),
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12"}]},
            Message(role="tool", parts=(ToolResult(id="c1", text="12"),)),
        ),
        (
            {"role": "function", "name": "f", "content": "12"},
            Message(role="tool", parts=(ToolResult(id="f", text="12"),)),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
            Message(role="user", parts=(Image("data:x"),)),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://x/y.png"}]},
            Message(role="user", parts=(Image("https://x/y.png"),)),
        ),
    ],
)
def test_messages_of_every_shape_are_read(given_message: dict[str, Any], read: Message) -> None:
    assert asked(messages=[given_message]).messages == (read,)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({"tools": [TOOL]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tool_choice": "auto"}, set()),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"tools": [{"type": "custom", "custom": {"name": "sh"}}]}, {"tools"}),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, {"json"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"logprobs": True}, {"logprobs"}),
        ({"logprobs": False}, set()),
        ({"top_logprobs": 3}, {"logprobs"}),
        ({"n": 1}, set()),
        ({"n": 2}, {"n"}),
        ({"modalities": ["text"]}, set()),
        ({"modalities": ["text", "audio"]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, {"images"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, {"file"}),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, {"video_url"}),
    ],
)
def test_a_request_says_what_its_answer_must_be_able_to_do(body: dict[str, Any], needs: set[str]) -> None:
    assert asked(**body).needs == needs


@pytest.mark.parametrize(
    ("body", "sentence", "param"),
    [
        ({"model": None}, "model is missing; name the model that should answer.", "model"),
        ({"model": ""}, "model is missing; name the model that should answer.", "model"),
        ({"model": 4}, "model must be a string, not a number.", "model"),
        ({"messages": None}, "messages is missing or empty; send at least one message.", "messages"),
        ({"messages": []}, "messages is missing or empty; send at least one message.", "messages"),
        ({"messages": "hi"}, "messages must be a list, not a string.", "messages"),
        ({"messages": [HI, 3]}, "messages[1] must be an object, not a number.", "messages[1]"),
        (
            {"messages": [{"content": "x"}]},
            "messages[0].role is missing; it must be one of system, developer, user, assistant, tool, function.",
            "messages[0].role",
        ),
        (
            {"messages": [HI, HI, {"role": "user", "content": 3}]},
            "messages[2].content must be a string or a list of parts, not a number.",
            "messages[2].content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text is missing; a part of type text holds a string.",
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url is missing; give the image's address or a data URL.",
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.name is missing; it says which tool was called.",
            "messages[0].tool_calls[0].function.name",
        ),
        ({"stream": 1}, "stream must be true or false, not a number.", "stream"),
        ({"temperature": "hot"}, "temperature must be a number, not a string.", "temperature"),
        ({"max_tokens": False}, "max_tokens must be a whole number, not true or false.", "max_tokens"),
        ({"n": True}, "n must be a whole number, not true or false.", "n"),
        ({"logit_bias": "x"}, "logit_bias must be an object, not a string.", "logit_bias"),
        (
            {"messages": [{"role": "user", "content": [7]}]},
            "messages[0].content[0] must be an object, not a number.",
            "messages[0].content[0]",
        ),
        ({"stop": [3]}, "stop[0] must be a string, not a number.", "stop[0]"),
        ({"stop": 3}, "stop must be a string or a list of strings, not a number.", "stop"),
        (
            {"tools": [{"type": "function"}]},
            "tools[0].function.name is missing; a tool needs a name.",
            "tools[0].function.name",
        ),
        ({"tool_choice": 1}, "tool_choice must be a string or an object, not a number.", "tool_choice"),
        (
            {"stream_options": {"include_usage": "y"}},
            "stream_options.include_usage must be true or false, not a string.",
            "stream_options.include_usage",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_path_of_the_field(body: dict[str, Any], sentence: str, param: str) -> None:
    assert refused(**body) == (sentence, param)


# ------------------------------------------------------------------------- what clouds of other dialects are told

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
CUSTOM = {"type": "custom", "custom": {"name": "sh"}}
NAMED = {"type": "function", "function": {"name": "f"}}


def test_tools_are_read() -> None:
    function = {"name": "g", "description": "does g", "parameters": SCHEMA, "strict": True}
    request = asked(tools=[TOOL, {"type": "function", "function": function}], parallel_tool_calls=False)
    assert request.tools == (Tool(name="f"), Tool(name="g", description="does g", parameters=SCHEMA, strict=True))
    assert request.parallel_tools is False
    assert request.foreign == ()


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        (NAMED, ToolChoice("named", "f")),
        (None, None),
    ],
)
def test_which_tool_is_to_be_called_is_read(choice: Any, read: ToolChoice | None) -> None:
    request = asked(tools=[TOOL], tool_choice=choice)
    assert (request.tool_choice, request.foreign) == (read, ())


@pytest.mark.parametrize(
    ("wanted", "read"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonFormat()),
        ({"type": "json_object", "schema": SCHEMA}, JsonFormat(schema=SCHEMA)),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
            JsonFormat(schema=SCHEMA, name="n", strict=True),
        ),
    ],
)
def test_the_form_of_the_answer_is_read(wanted: Any, read: JsonFormat | None) -> None:
    request = asked(response_format=wanted)
    assert (request.format, request.foreign) == (read, ())


@pytest.mark.parametrize(
    ("body", "effort", "unsaid"),
    [
        ({"reasoning_effort": "high"}, "high", ()),
        ({"reasoning": {"effort": "low", "max_tokens": None}}, "low", ()),
        ({"reasoning": {"effort": "low", "exclude": True}}, "low", ("reasoning",)),
        ({"reasoning": {"max_tokens": 9}}, None, ("reasoning",)),
        ({"reasoning_effort": "utmost"}, None, ("reasoning_effort",)),
        ({"reasoning_effort": None, "reasoning": {"effort": "none"}}, "none", ()),
    ],
)
def test_how_much_to_think_is_read(body: dict[str, Any], effort: str | None, unsaid: tuple[str, ...]) -> None:
    request = asked(**body)
    assert (request.effort, request.unsaid) == (effort, unsaid)


def test_who_asks_is_read_under_the_newer_name_first() -> None:
    assert asked(user="u").user == "u"
    assert asked(user="u", safety_identifier="s").user == "s"
    assert asked(user=7).user is None


@pytest.mark.parametrize(
    ("body", "foreign"),
    [
        ({"tools": [TOOL, CUSTOM]}, ("tools[1]",)),
        ({"tools": [{**TOOL, "function": {"name": "f", "parameters": []}}]}, ("tools[0].function.parameters",)),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, ("tool_choice",)),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "sh"}}}, ("tool_choice",)),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, ("tool_choice",)),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, ("response_format.type",)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            ("response_format.json_schema.schema",),
        ),
        ({"functions": [{"name": "f"}], "function_call": "auto"}, ()),
        ({"functions": [{"name": "f"}], "function_call": "often"}, ("function_call",)),
        ({"functions": [{"name": "f", "parameters": []}]}, ("functions[0].parameters",)),
        ({"functions": []}, ()),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, ("modalities", "audio")),
        ({"modalities": ["text"]}, ()),
        ({"web_search_options": {}}, ("web_search_options",)),
        ({"web_search_options": None}, ()),
        ({"guided_regex": "a+"}, ("guided_regex",)),
        ({"messages": [HI, {"role": "user", "content": [{"type": "file", "file": {}}]}]}, ("messages[1].content[0]",)),
        ({"messages": [{"role": "function", "name": "f", "content": "12"}]}, ()),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, ("messages[0].audio",)),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, ()),
        (
            {"messages": [{"role": "assistant", "tool_calls": [NAMED, {**CUSTOM, "id": "c"}]}]},
            ("messages[0].tool_calls[1]",),
        ),
        ({"n": 2, "logprobs": True}, ()),  # the other dialect may object to them
    ],
)
def test_what_only_this_dialect_can_say_is_named(body: dict[str, Any], foreign: tuple[str, ...]) -> None:
    assert asked(**body).foreign == foreign


def test_a_part_that_only_this_dialect_knows_keeps_its_place() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {}}, {"type": "text", "text": "b"}]
    assert asked(messages=[{"role": "user", "content": parts}]).messages[0].parts == (
        Text("a"),
        Foreign("input_audio"),
        Text("b"),
    )


def test_a_refusal_in_the_history_is_what_the_assistant_said() -> None:
    refusing = {"role": "assistant", "content": None, "refusal": "I will not."}
    assert asked(messages=[HI, refusing]).messages[1].parts == (Text("I will not."),)


def test_what_gets_lost_without_harm_is_named_in_the_order_written() -> None:
    request = asked(store=True, seed=0, presence_penalty=0.5, new_thing={}, service_tier="flex")
    assert request.unsaid == ("store", "seed", "presence_penalty", "new_thing", "service_tier")
    idle = asked(store=False, seed=None, presence_penalty=0.0, metadata={}, service_tier="auto", verbosity="medium")
    assert idle.unsaid == ()


def test_a_name_that_fits_no_header_is_not_repeated() -> None:
    assert asked(**{"a\r\nb": 1, "x" * 100: 2, "caf\u00e9": 3}).unsaid == ("unknown",)
