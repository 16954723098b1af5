"""What a client of OpenAI's dialect asks for, and what a cloud is sent of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.chat import (
    BackendError,
    ChatRequest,
    Fault,
    Image,
    Message,
    Reasoning,
    Sampling,
    Text,
    ToolCall,
    ToolResult,
)
from appliance.dialects.openai_chat import OPENAI
from appliance.dialects.openai_chat_in import with_model

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
    assert replace(request, raw=b"", fields={}) == replace(asked(), raw=b"", fields={})


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
            Message(role="assistant", parts=(ToolCall(id="", name="f", arguments="{}"),)),
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
            {"messages": [{"role": "narrator", "content": "x"}]},
            "messages[0].role is unknown; it must be one of system, developer, user, assistant, tool, function.",
            "messages[0].role",
        ),
        (
            {"messages": [HI, HI, {"role": "user", "content": 3}]},
            "messages[2].content must be a string or a list of parts, not a number.",
            "messages[2].content",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content is missing; send a string or a list of parts.",
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "messages[0].content[0] must be an object, not a string.",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages[0].content[0].type is missing; it says what kind of part this is.",
            "messages[0].content[0].type",
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
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id is missing; it says which call this is the result of.",
            "messages[0].tool_call_id",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.name is missing; it says which tool was called.",
            "messages[0].tool_calls[0].function.name",
        ),
        ({"temperature": 2.1}, "temperature must be 0 to 2.", "temperature"),
        ({"top_p": -0.1}, "top_p must be 0 to 1.", "top_p"),
        ({"n": 129}, "n must be 1 to 128.", "n"),
        ({"max_tokens": 0}, "max_tokens must be at least 1.", "max_tokens"),
        ({"stream": 1}, "stream must be true or false, not a number.", "stream"),
        ({"stop": ""}, "stop is an empty string; leave it out or give the text to stop at.", "stop"),
        ({"stop": ["a", ""]}, "stop[1] is an empty string; leave it out or give the text to stop at.", "stop[1]"),
        ({"stop": 3}, "stop must be a string or a list of strings, not a number.", "stop"),
        (
            {"logit_bias": {"the": 1}},
            'logit_bias has a key that is not a token id; keys are ids such as "1234".',
            "logit_bias",
        ),
        ({"logit_bias": {"5": 101}}, "logit_bias.5 must be -100 to 100.", "logit_bias.5"),
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


# --------------------------------------------------------------------------------------------------- render

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_cloud_gets_the_clients_own_bytes() -> None:
    raw = b' {"messages" : [{"role":"user","content":"hi"}],\n "temperature":1.50, "x":1e2, "model":"a"} '
    assert OPENAI.render(OPENAI.parse(raw), "a") is raw


def test_under_another_name_only_the_bytes_of_the_models_name_change() -> None:
    raw = b' {"messages" : [{"role":"user","model":"a","content":"\\u00e9"}],\n "temperature":1.50, "model" : "a" } '
    assert OPENAI.render(OPENAI.parse(raw), 'b"\u00fc') == raw.replace(b' : "a" ', b' : "b\\"\\u00fc" ')


def test_a_name_that_is_given_twice_or_escaped_is_changed_everywhere() -> None:
    raw = b'{"model":"a","m\\u006fdel":"a","messages":[]}'
    assert with_model(raw, "b") == b'{"model":"b","m\\u006fdel":"b","messages":[]}'


@settings(deadline=None)  # a busy machine is no failure
@given(
    before=st.dictionaries(st.text(), JSON, max_size=3),
    after=st.dictionaries(st.text(), JSON, max_size=3),
    model=st.text(),
    indent=st.sampled_from([None, 0, 1, "\t"]),
    ascii_only=st.booleans(),
)
def test_changing_the_name_changes_nothing_else(
    before: dict[str, Any], after: dict[str, Any], model: str, indent: int | str | None, ascii_only: bool
) -> None:
    body = {**before, "model": "old", **{key: value for key, value in after.items() if key != "model"}}
    body["model"] = "old-name-of-the-model"
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return
    changed = with_model(raw, model)
    assert json.loads(changed) == {**body, "model": model}
    assert with_model(changed, "old-name-of-the-model") == raw


def test_a_prefilling_cloud_is_sent_what_the_client_already_has() -> None:
    request = asked(max_completion_tokens=50, extra=1)
    committed = Message(role="assistant", parts=(Reasoning("hm"), Text("The quick ")))
    body = json.loads(OPENAI.render(replace(request.continuing(committed), max_tokens=40), "b"))
    assert body == {
        "model": "b",
        "messages": [HI, {"role": "assistant", "content": "The quick "}],
        "max_completion_tokens": 40,
        "extra": 1,
    }


def test_a_request_that_is_asked_in_another_way_is_written_anew() -> None:
    request = asked(stream=True, stream_options={"include_usage": True}, extra=1)
    body = json.loads(OPENAI.render(replace(request, stream=False), "gpt-4o"))
    assert body == {"model": "gpt-4o", "messages": [HI], "stream": False, "extra": 1}


def test_a_request_of_another_dialect_is_built_from_the_vocabulary() -> None:
    request = ChatRequest(
        dialect="anthropic",
        model="claude",
        messages=(
            Message(role="system", parts=(Text("be brief"),)),
            Message(role="user", parts=(Text("look"), Image("data:x"))),
            Message(role="assistant", parts=(Reasoning("hm"), ToolCall(id="c", name="f", arguments="{}"))),
            Message(role="user", parts=(ToolResult(id="c", text="12"), Text("go on"))),
            Message(role="tool", parts=(ToolResult(id="d", text="13"),)),
        ),
        stream=True,
        max_tokens=9,
        stop=("\n",),
        sampling=Sampling(temperature=0.5, top_k=3, seed=1, logit_bias=((5, 1.0),)),
        raw=b"{}",
    )
    assert json.loads(OPENAI.render(request, "gpt-4o")) == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "12"},
            {"role": "user", "content": "go on"},
            {"role": "tool", "tool_call_id": "d", "content": "13"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "stop": ["\n"],
        "temperature": 0.5,
        "seed": 1,
        "logit_bias": {"5": 1.0},
    }
