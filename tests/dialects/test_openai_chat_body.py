"""What a cloud of OpenAI's dialect is sent: the client's own bytes, or a body out of the vocabulary."""

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
from appliance.dialects.openai_chat import OPENAI

HI = {"role": "user", "content": "hi"}
MISTRAL = Quirks(short_ids=True, stream_usage=False)
REASONING = Quirks(new_limit=("o3*",), effort=("o3*", "grok-4"))


def asked(**body: Any) -> ChatRequest:
    return OPENAI.parse(json.dumps({"model": "gpt-4o", "messages": [HI], **body}).encode())


def theirs(*messages: Message, **changes: Any) -> ChatRequest:
    """A request of a client of another dialect."""
    listed = messages or (Message(role="user", parts=(Text("hi"),)),)
    return ChatRequest(**{"dialect": "anthropic", "model": "claude", "messages": listed, "raw": b"{}", **changes})


def built(request: ChatRequest, model: str = "gpt-4o", quirks: Quirks = PLAIN) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(OPENAI.render(request, model, quirks))
    return body


def said(*messages: Message) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = built(theirs(*messages))["messages"]
    return listed


# --------------------------------------------------------------------------------------- the client's own bytes


def test_a_cloud_gets_the_clients_own_bytes() -> None:
    raw = b' {"messages" : [{"role":"user","content":"hi"}],\n "temperature":1.50, "x":1e2, "model":"a"} '
    assert OPENAI.render(OPENAI.parse(raw), "a") is raw


def test_under_another_name_only_the_bytes_of_the_models_name_change() -> None:
    raw = b' {"messages" : [{"role":"user","model":"a","content":"\\u00e9"}],\n "temperature":1.50, "model" : "a" } '
    assert OPENAI.render(OPENAI.parse(raw), 'b"\u00fc') == raw.replace(b' : "a" ', b' : "b\\"\\u00fc" ')


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


def test_a_prefilling_cloud_is_not_sent_a_turn_of_mere_thought() -> None:
    request = asked(extra=1).continuing(Message(role="assistant", parts=(Reasoning("hm"),)))
    assert OPENAI.render(request, "gpt-4o") is request.raw
    assert json.loads(OPENAI.render(replace(request, max_tokens=40), "b"))["messages"] == [HI]


def test_a_request_that_is_asked_in_another_way_is_written_anew() -> None:
    request = asked(stream=True, stream_options={"include_usage": True}, extra=1)
    body = json.loads(OPENAI.render(replace(request, stream=False), "gpt-4o"))
    assert body == {"model": "gpt-4o", "messages": [HI], "stream": False, "extra": 1}


def test_a_cloud_that_does_not_count_in_streams_is_not_asked_to() -> None:
    request = replace(asked(), stream=True)
    assert built(request) == {
        "model": "gpt-4o",
        "messages": [HI],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream_options" not in built(request, quirks=MISTRAL)


CALLED = {"id": "call_abcdefghijkl", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x": 1}
ANSWERED = {"role": "tool", "tool_call_id": "call_abcdefghijkl", "content": "12", "x": 2}


def test_ids_that_mistral_refuses_are_shortened_and_nothing_else_changes() -> None:
    request = asked(messages=[HI, {"role": "assistant", "content": None, "tool_calls": [CALLED]}, ANSWERED], extra=1)
    assert OPENAI.render(request, "gpt-4o") is request.raw
    body = built(request, quirks=MISTRAL)
    short = body["messages"][2]["tool_call_id"]
    assert len(short) == 9
    assert short.isalnum()
    assert body == {
        "model": "gpt-4o",
        "messages": [
            HI,
            {"role": "assistant", "content": None, "tool_calls": [{**CALLED, "id": short}]},
            {**ANSWERED, "tool_call_id": short},
        ],
        "extra": 1,
    }


def test_ids_that_mistral_takes_leave_the_bytes_alone() -> None:
    calls = [{**CALLED, "id": "abc123XYZ"}]
    request = asked(
        messages=[HI, {"role": "assistant", "tool_calls": calls}, {**ANSWERED, "tool_call_id": "abc123XYZ"}]
    )
    assert OPENAI.render(request, "gpt-4o", MISTRAL) is request.raw
    assert OPENAI.render(asked(), "gpt-4o", MISTRAL) == asked().raw


# ------------------------------------------------------------------------------------------ from the vocabulary


def test_a_request_of_another_dialect_is_built_from_the_vocabulary() -> None:
    request = ChatRequest(
        dialect="anthropic",
        model="claude",
        messages=(
            Message(role="system", parts=(Text("be brief"),)),
            Message(role="user", parts=(Text("look"), Image("data:x"))),
            Message(role="assistant", parts=(Reasoning("hm"), ToolCall(id="c", name="f", arguments="{}"))),
            Message(role="tool", parts=(ToolResult(id="c", text="12"), Text("go on"))),
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
            {"role": "tool", "tool_call_id": "d", "content": "13"},
            {"role": "user", "content": "go on"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "stop": ["\n"],
        "temperature": 0.5,
        "seed": 1,
        "logit_bias": {"5": 1.0},
    }


def test_texts_of_others_are_joined_by_a_line_and_the_assistants_as_they_are() -> None:
    parts = (Text("a"), Text("b"))
    listed = said(
        Message(role="system", parts=parts), Message(role="user", parts=parts), Message(role="assistant", parts=parts)
    )
    assert [message["content"] for message in listed] == ["a\nb", "a\nb", "ab"]


def test_images_of_a_tool_come_from_the_user_behind_all_results() -> None:
    calls = (ToolCall(id="c", name="f", arguments="{}"), ToolCall(id="d", name="g", arguments=""))
    listed = said(
        Message(role="assistant", parts=calls),
        Message(role="tool", parts=(ToolResult(id="c", text="1"), Image("data:x"))),
        Message(role="tool", parts=(ToolResult(id="d", text="no such file", failed=True),)),
        Message(role="user", parts=(Text("go on"),)),
    )
    assert [message["role"] for message in listed] == ["assistant", "tool", "tool", "user"]
    assert [call["function"]["arguments"] for call in listed[0]["tool_calls"]] == ["{}", "{}"]
    assert listed[2]["content"] == "no such file"
    assert listed[3]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "text", "text": "go on"},
    ]


def test_images_of_a_tool_come_before_the_assistant_goes_on() -> None:
    result: tuple[Part, ...] = (ToolResult(id="c", text="1"), Image("data:x"))
    listed = said(Message(role="tool", parts=result), Message(role="assistant", parts=(Text("nice"),)))
    assert [message["role"] for message in listed] == ["tool", "user", "assistant"]
    assert [message["role"] for message in said(Message(role="tool", parts=result))] == ["tool", "user"]


def test_results_follow_their_calls_whatever_the_user_said_before_and_between_them() -> None:
    calls = (ToolCall(id="c", name="f", arguments="{}"), ToolCall(id="d", name="g", arguments="{}"))
    user = [Message(role="user", parts=(Text(text),)) for text in ("before", "between", "behind", "later")]
    listed = said(
        Message(role="assistant", parts=calls),
        user[0],
        Message(role="tool", parts=(ToolResult(id="c", text="1"),)),
        Message(role="system", parts=(Text("note"),)),
        user[1],
        Message(role="tool", parts=(ToolResult(id="d", text="2"),)),
        *user[2:],
        Message(role="assistant", parts=(Text("a"),)),
    )
    assert listed[1:] == [
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
        {"role": "system", "content": "note"},
        {"role": "user", "content": "before\nbetween\nbehind"},
        {"role": "user", "content": "later"},
        {"role": "assistant", "content": "a"},
    ]


def test_where_the_user_may_not_speak_behind_a_tool_the_tool_says_it() -> None:
    quirks = Quirks(user_after_tool=False)
    call = Message(role="assistant", parts=(ToolCall(id="c", name="f", arguments="{}"),))
    result = Message(role="tool", parts=(ToolResult(id="c", text="42"),))
    go, on = (Message(role="user", parts=(Text(text),)) for text in ("go", "on"))
    seen = Message(role="tool", parts=(ToolResult(id="c", text=""), Image("data:x")))

    def contents(*messages: Message) -> list[Any]:
        listed = built(theirs(*messages), quirks=quirks)["messages"]
        assert [one["role"] for one in listed] == ["user", "user", "assistant", "tool"]
        return [one["content"] for one in listed]

    assert contents(go, on, call, result) == ["go", "on", None, "42"]
    assert contents(go, on, call, go, result, on) == ["go", "on", None, "42\n\ngo\n\non"]
    assert contents(go, on, call, result, go, on)[-1] == "42\n\ngo\n\non"
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    assert contents(go, on, call, seen)[-1] == [image]
    assert contents(go, on, call, seen, go)[-1] == [{"type": "text", "text": "go"}, image]


def test_a_turn_of_mere_thought_is_not_said_again() -> None:
    thought = Message(role="assistant", parts=(Reasoning("hm"), Foreign("redacted_thinking")))
    assert said(Message(role="user", parts=(Text("hi"),)), thought) == [HI]
    assert said(Message(role="user", parts=())) == [{"role": "user", "content": ""}]


def test_a_model_that_wants_its_reasoning_back_gets_it_with_the_calls_it_led_to() -> None:
    call = ToolCall(id="c", name="f", arguments="{}")
    request = theirs(
        Message(role="assistant", parts=(Reasoning("I must "), Reasoning("look."), Text("Let me see."), call)),
        Message(role="tool", parts=(ToolResult(id="c", text="42"),)),
        Message(role="assistant", parts=(replace(call, id="d"),)),
        Message(role="tool", parts=(ToolResult(id="d", text="43"),)),
        Message(role="assistant", parts=(Reasoning("So."), Text("42"))),
        Message(role="assistant", parts=(Reasoning("hm"),)),
    )
    quirks = Quirks(reasoning_back=("thinker-*",))
    back = [message.get("reasoning_content") for message in built(request, "thinker-2", quirks)["messages"]]
    # The field is missed even where nothing was thought; without calls it is not.
    assert back == ["I must look.", None, "", None, None]
    assert "reasoning_content" not in json.dumps(built(request, "talker-2", quirks))


def test_ids_fit_the_cloud_and_a_result_still_finds_its_call() -> None:
    long = "toolu_" + "x" * 60
    request = theirs(
        Message(role="assistant", parts=(ToolCall(id=long, name="f", arguments="{}"),)),
        Message(role="tool", parts=(ToolResult(id=long, text="1"),)),
    )
    for quirks, longest in ((PLAIN, 40), (MISTRAL, 9)):
        call, result = built(request, quirks=quirks)["messages"]
        assert call["tool_calls"][0]["id"] == result["tool_call_id"]
        assert len(result["tool_call_id"]) <= longest


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}


def test_tools_and_which_of_them_must_be_called_are_said() -> None:
    tools = (Tool(name="f", description="does f", parameters=SCHEMA, strict=True), Tool(name="g"))
    request = theirs(tools=tools, tool_choice=ToolChoice("named", "g"), parallel_tools=False)
    body = built(request)
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "does f", "parameters": SCHEMA, "strict": True},
        },
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert body["parallel_tool_calls"] is False
    for kind in ("auto", "none", "required"):
        assert built(replace(request, tool_choice=ToolChoice(kind)))["tool_choice"] == kind
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & built(replace(request, tools=())).keys()


def test_the_form_of_the_answer_is_said() -> None:
    assert built(theirs(format=JsonFormat()))["response_format"] == {"type": "json_object"}
    assert built(theirs(format=JsonFormat(schema=SCHEMA)))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }
    form = JsonFormat(schema=SCHEMA, name="n", strict=True)
    assert built(theirs(format=form))["response_format"]["json_schema"] == {
        "name": "n",
        "schema": SCHEMA,
        "strict": True,
    }


@pytest.mark.parametrize(
    ("effort", "told"),
    [("none", "low"), ("minimal", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high"), ("max", "high")],
)
def test_how_much_to_think_is_told_to_models_that_can_be_told(effort: str, told: str) -> None:
    assert built(theirs(effort=effort), "o3-mini", REASONING)["reasoning_effort"] == told
    assert "reasoning_effort" not in built(theirs(effort=effort), "gpt-4o", REASONING)


def test_a_model_that_thinks_or_calls_is_told_not_to_think_when_it_has_tools() -> None:
    quirks = Quirks(effort=("gpt-6*",), unthinking_tools=("gpt-6*",))
    assert built(theirs(effort="high", tools=(Tool(name="f"),)), "gpt-6", quirks)["reasoning_effort"] == "none"
    assert built(theirs(effort="high"), "gpt-6", quirks)["reasoning_effort"] == "high"


def test_reasoning_models_have_another_limit_and_are_not_told_how_to_draw() -> None:
    request = theirs(max_tokens=9, sampling=Sampling(temperature=0.5, top_p=0.9, seed=1))
    told = {key: value for key, value in built(request, "o3-mini", REASONING).items() if key != "messages"}
    assert told == {"model": "o3-mini", "max_completion_tokens": 9, "seed": 1}
    plain = {key: value for key, value in built(request, "gpt-4o", REASONING).items() if key != "messages"}
    assert plain == {"model": "gpt-4o", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 1}


def test_who_asks_is_named_in_no_more_letters_than_fit() -> None:
    assert built(theirs(user="u1"))["user"] == "u1"
    long = built(theirs(user="user_" + "x" * 100))["user"]
    assert len(long) == 64
    assert long == built(theirs(user="user_" + "x" * 100))["user"] != built(theirs(user="user_" + "y" * 100))["user"]
    assert "user" not in built(theirs(user="u1"), quirks=MISTRAL)


def test_what_the_client_already_has_is_the_last_turn() -> None:
    committed = Message(role="assistant", parts=(Reasoning("hm"), Text("The quick ")))
    assert built(theirs().continuing(committed))["messages"] == [HI, {"role": "assistant", "content": "The quick "}]


@pytest.mark.parametrize(
    ("request_", "objection"),
    [
        (theirs(stop=("a", "b", "c", "d")), None),
        (theirs(stop=("a", "b", "c", "d", "e")), "stop_sequences"),
        (theirs(stop=("a", "b", "c", "d", "e"), dialect="other"), "stop"),
        (theirs(tools=(Tool(name="f" * 64),)), None),
        (theirs(tools=(Tool(name="f"), Tool(name="f" * 65))), "tools[1].name"),
    ],
)
def test_what_cannot_be_said_is_named(request_: ChatRequest, objection: str | None) -> None:
    assert OPENAI.objection(request_) == objection
