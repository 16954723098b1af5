"""What a client of Anthropic's dialect asks for."""

from __future__ import annotations

import json
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
from appliance.core.fault import BackendError, Fault
from appliance.dialects import anthropic_in
from appliance.dialects.anthropic_in import parse, parse_count

HI = {"role": "user", "content": "hi"}
WEATHER = {"name": "weather", "input_schema": {"type": "object"}}


def asked(**body: Any) -> ChatRequest:
    return parse(json.dumps({"model": "claude-opus-4-8", "max_tokens": 99, "messages": [HI], **body}).encode())


def refused(**body: Any) -> tuple[str, str | None]:
    with pytest.raises(BackendError) as caught:
        asked(**body)
    assert (caught.value.fault, caught.value.status) == (Fault.REQUEST, 400)
    return str(caught.value), caught.value.param


def read(*blocks: dict[str, Any] | str, role: str = "user") -> tuple[Message, ...]:
    return asked(messages=[{"role": role, "content": list(blocks)}]).messages


def part(block: dict[str, Any], role: str = "user") -> Part:
    [message] = read(block, role=role)
    [found] = message.parts
    return found


def test_the_smallest_request_is_a_model_a_limit_and_one_message() -> None:
    body = b'{"model":"claude-opus-4-8","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    assert parse(body, (("x-a", "b"),)) == ChatRequest(
        dialect="anthropic",
        model="claude-opus-4-8",
        messages=(Message(role="user", parts=(Text("hi"),)),),
        max_tokens=9,
        include_usage=True,
        raw=body,
        fields=json.loads(body),
        headers=(("x-a", "b"),),
    )


# ------------------------------------------------------------------------------------------------- messages


def test_a_system_prompt_is_a_string_or_blocks_and_comes_first() -> None:
    assert asked(system="Be brief.").messages[0] == Message(role="system", parts=(Text("Be brief."),))
    blocks = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    request = asked(system=blocks)
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[0].parts == (Text("a"), Text("b"))
    assert (request.foreign, request.unsaid, request.needs) == ((), (), frozenset())


@pytest.mark.parametrize("system", [None, "", []])
def test_an_empty_system_prompt_is_none(system: object) -> None:
    assert [message.role for message in asked(system=system).messages] == ["user"]


def test_a_system_message_may_stand_in_the_middle() -> None:
    request = asked(messages=[HI, {"role": "system", "content": "now in French"}, HI])
    assert [message.role for message in request.messages] == ["user", "system", "user"]
    assert request.foreign == ()


def test_empty_texts_are_no_parts() -> None:
    assert read({"type": "text", "text": ""}, {"type": "text", "text": "a"})[0].parts == (Text("a"),)
    assert asked(messages=[{"role": "user", "content": ""}]).messages[0].parts == ()


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ({"type": "base64", "media_type": "image/png", "data": "iVBO"}, "data:image/png;base64,iVBO"),
        ({"type": "url", "url": "https://x.test/a.png"}, "https://x.test/a.png"),
    ],
)
def test_an_image_is_a_data_url_or_an_address(source: dict[str, str], url: str) -> None:
    request = asked(messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    assert request.messages[0].parts == (Image(url),)
    assert (request.needs, request.foreign) == (frozenset({"images"}), ())


@pytest.mark.parametrize(
    ("block", "need"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, "images"),
        ({"type": "document", "source": {"type": "text", "data": "x", "media_type": "text/plain"}}, "file"),
        ({"type": "search_result", "source": "s", "title": "t", "content": []}, "search_result"),
        ({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}, "server_tool_use"),
        ({"type": "container_upload", "file_id": "file_1"}, "container_upload"),
        ({"type": "of_tomorrow"}, "of_tomorrow"),
    ],
)
def test_a_block_only_this_dialect_knows_is_foreign_and_names_its_place(block: dict[str, Any], need: str) -> None:
    request = asked(messages=[HI, {"role": "user", "content": [{"type": "text", "text": "see"}, block]}])
    assert request.messages[1].parts == (Text("see"), Foreign(block["type"]))
    assert (request.foreign, request.needs) == (("messages[1].content[1]",), frozenset({need}))


def test_thinking_is_reasoning_and_hidden_thinking_is_a_part_that_others_do_without() -> None:
    request = asked(
        messages=[
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "EqQ"},
                    {"type": "redacted_thinking", "data": "EmwK"},
                    {"type": "text", "text": "ah"},
                ],
            },
            HI,
        ]
    )
    assert request.messages[1].parts == (Reasoning("hm"), Foreign("redacted_thinking"), Text("ah"))
    assert (request.foreign, request.needs) == ((), frozenset())


def test_a_call_has_its_input_as_json_text() -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln", "days": [1, 2.5]}}
    assert part(block, "assistant") == ToolCall(
        id="toolu_1", name="weather", arguments='{"city":"Köln","days":[1,2.5]}'
    )


def test_each_tool_result_is_a_message_of_its_own_with_its_images_behind_it() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
    text = {"type": "text", "text": "12 "}
    messages = read(
        {"type": "tool_result", "tool_use_id": "t1", "content": [text, image, {"type": "text", "text": "C"}]},
        {"type": "tool_result", "tool_use_id": "t2", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t3"},
        {"type": "text", "text": "and now?"},
    )
    assert messages == (
        Message(role="tool", parts=(ToolResult(id="t1", text="12 \nC"), Image("https://x.test/a.png"))),
        Message(role="tool", parts=(ToolResult(id="t2", text="no such city", failed=True),)),
        Message(role="tool", parts=(ToolResult(id="t3", text=""),)),
        Message(role="user", parts=(Text("and now?"),)),
    )


def test_what_only_this_dialect_can_put_into_a_tool_result_names_its_place() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "document"}]}
    request = asked(messages=[{"role": "user", "content": [result]}])
    assert request.foreign == ("messages[0].content[0].content[0]",)
    assert request.messages[0].parts == (ToolResult(id="t1", text=""), Foreign("document"))


def test_a_conversation_that_ends_with_the_assistant_is_a_beginning_that_others_cannot_go_on_from() -> None:
    messages = [HI, {"role": "assistant", "content": "The answer is ("}]
    assert asked(messages=messages).foreign == ("messages[1]",)
    assert asked(messages=[*messages, HI]).foreign == ()


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([HI, {"role": "user"}], "messages[1].content"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content[0].source"),
        ([{"role": "user", "content": [{"type": "image", "source": {}}]}], "messages[0].content[0].source.type"),
        (
            [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png"}}]}],
            "messages[0].content[0].source.data",
        ),
        (
            [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}],
            "messages[0].content[0].source.url",
        ),
        ([{"role": "user", "content": [{"type": "tool_result"}]}], "messages[0].content[0].tool_use_id"),
        ([{"role": "user", "content": [{"type": "tool_use"}]}], "messages[0].content[0]"),
        ([{"role": "assistant", "content": [{"type": "tool_result"}]}], "messages[0].content[0]"),
        ([{"role": "assistant", "content": [{"type": "tool_use"}]}], "messages[0].content[0].input"),
        ([{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}], "messages[0].content[0].id"),
        (
            [{"role": "assistant", "content": [{"type": "tool_use", "input": {}, "id": "t"}]}],
            "messages[0].content[0].name",
        ),
        ([{"role": "assistant", "content": [{"type": "tool_use", "input": "{}"}]}], "messages[0].content[0].input"),
    ],
)
def test_messages_that_make_no_sense_name_the_place(messages: object, param: str) -> None:
    sentence, named = refused(messages=messages)
    assert named == param
    assert sentence.startswith(param)
    assert sentence.endswith(".")


# --------------------------------------------------------------------------------------------------- wishes


def test_a_limit_is_insisted_on_unless_tokens_are_only_counted() -> None:
    sentence = "max_tokens is missing; say how many tokens the answer may have."
    assert refused(max_tokens=None) == (sentence, "max_tokens")
    body = json.dumps({"model": "m", "messages": [HI], "tools": [WEATHER]}).encode()
    counted = parse_count(body, (("a", "b"),))
    assert (counted.max_tokens, counted.headers, counted.raw) == (None, (("a", "b"),), body)
    assert [tool.name for tool in counted.tools] == ["weather"]


def test_a_limit_of_nothing_only_fills_a_cache_of_this_dialects_clouds() -> None:
    request = asked(max_tokens=0)
    assert (request.max_tokens, request.foreign) == (0, ("max_tokens",))


def test_sampling_stops_and_streaming_are_read() -> None:
    request = asked(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END", "\n"], stream=True)
    assert request.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=40)
    assert (request.stop, request.stream, request.unsaid) == (("END", "\n"), True, ("top_k",))


def test_tools_of_the_client_are_read_and_those_of_the_cloud_are_foreign() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    request = asked(
        tools=[
            {"name": "a", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search"},
            {"type": "custom", "name": "b", "input_schema": {}, "strict": True},
        ]
    )
    assert request.tools == (
        Tool(name="a", description="d", parameters=schema),
        Tool(name="b", parameters={}, strict=True),
    )
    assert (request.foreign, request.needs) == (("tools[1]",), frozenset({"tools"}))
    assert asked(tools=[{"type": "bash_20250124", "name": "bash"}]).needs == {"tools"}
    assert asked(tools=[]).needs == frozenset()


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "weather"}, ToolChoice("named", "weather"), None),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "auto", "disable_parallel_tool_use": False}, ToolChoice("auto"), True),
    ],
)
def test_every_choice_of_tools_has_a_word(given: dict[str, Any], choice: ToolChoice, parallel: bool | None) -> None:
    request = asked(tools=[WEATHER], tool_choice=given)
    assert (request.tool_choice, request.parallel_tools, request.foreign) == (choice, parallel, ())


def test_a_choice_of_another_kind_is_the_clouds_affair() -> None:
    request = asked(tools=[WEATHER], tool_choice={"type": "of_tomorrow"})
    assert (request.tool_choice, request.foreign) == (None, ("tool_choice",))


@pytest.mark.parametrize(
    ("body", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4095}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 16383}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384}}, "high"),
        ({"output_config": {"effort": "max"}}, "max"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "xhigh"}}, "xhigh"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none"),
    ],
)
def test_how_much_to_think_is_one_word(body: dict[str, Any], effort: str | None) -> None:
    request = asked(**body)
    assert (request.effort, request.unsaid) == (effort, ())


@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_a_form_of_the_answer_is_a_schema_in_the_new_place_or_the_old(where: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    request = asked(**({where: {"format": wanted}} if where == "output_config" else {where: wanted}))
    assert request.format == JsonFormat(schema={"type": "object"})
    assert (request.needs, request.foreign, request.unsaid) == (frozenset({"json"}), (), ())


def test_a_form_of_another_kind_is_the_clouds_affair() -> None:
    assert asked(output_config={"format": {"type": "grammar"}}).foreign == ("output_config.format",)
    assert asked(output_format={"type": "grammar"}).foreign == ("output_format",)


def test_who_asks_is_read() -> None:
    assert asked(metadata={"user_id": "u-1"}).user == "u-1"


@pytest.mark.parametrize(
    "body",
    [
        {"mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}]},
        {"container": "container_1"},
        {"thread": {"id": "t"}},
        {"inference_geo": "us"},
    ],
)
def test_fields_the_answer_hangs_on_are_foreign(body: dict[str, Any]) -> None:
    request = asked(**body)
    assert (request.foreign, request.unsaid) == (tuple(body), ())


def test_a_thread_that_is_only_begun_holds_nothing_that_the_request_does_not() -> None:
    request = asked(thread={"type": "create"})
    assert (request.foreign, request.unsaid, "thread" in request.needs) == ((), ("thread",), False)
    assert "thread" in asked(thread={"type": "continue", "id": "msg_1"}).needs


def test_fields_the_answer_can_do_without_are_unsaid_in_the_order_written() -> None:
    request = asked(
        service_tier="auto", context_management={"edits": []}, of_tomorrow=1, cache_control={"type": "ephemeral"}
    )
    assert request.unsaid == ("service_tier", "context_management", "of_tomorrow", "cache_control")
    assert request.foreign == ()
    assert asked(service_tier=None, container=None, mcp_servers=[]).unsaid == ()
    assert asked(service_tier=None, container=None, mcp_servers=[]).foreign == ()


def test_what_is_new_inside_a_field_we_know_is_unsaid_too() -> None:
    assert asked(output_config={"effort": "low", "task_budget": {"total": 9}}).unsaid == ("output_config",)
    assert asked(thinking={"type": "between_tools"}).unsaid == ("thinking",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 1}, "model"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"system": 1}, "system"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": True}, "top_k"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [WEATHER, {"name": "x"}]}, "tools[1].input_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any", "disable_parallel_tool_use": 1}}, "tool_choice.disable_parallel_tool_use"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "9"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_config": {"format": {}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
        ({"metadata": {"user_id": 1}}, "metadata.user_id"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(body: dict[str, Any], param: str) -> None:
    sentence, named = refused(**body)
    assert named == param
    assert sentence.startswith(param)
    assert sentence.count(".") - param.count(".") <= 1
    assert sentence.endswith(".")


def test_every_field_is_either_said_or_matters() -> None:
    assert not anthropic_in.SAID & set(anthropic_in.MATTERS)


def test_the_request_of_a_coding_agent_can_be_said_in_any_dialect() -> None:
    cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    system = [
        {"type": "text", "text": "You are an agent."},
        {"type": "text", "text": "Be careful with other people's files. " * 1000, **cached},
        {"type": "text", "text": "The working directory is clean. " * 1100, **cached},
    ]
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}}
    tools = [{"name": f"Tool{n}", "description": "Does a thing. " * 180, "input_schema": schema} for n in range(24)]
    call = {"type": "tool_use", "id": "toolu_01", "name": "Tool3", "input": {}}
    body = json.dumps(
        {
            "model": "claude-opus-4-8",
            "max_tokens": 64000,
            "stream": True,
            "system": system,
            "tools": tools,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "medium"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": '{"device_id":"d","session_id":"s"}'},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "<reminder/>"}, {"type": "text", "text": "go"}]},
                {"role": "system", "content": "The user opened a file."},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "Eq"}, call]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01", "content": "ok"}]},
            ],
        }
    ).encode()
    request = parse(body, (("anthropic-beta", "a,b,c"),))
    assert (request.foreign, request.unsaid, request.needs) == ((), ("context_management",), frozenset({"tools"}))
    assert [message.role for message in request.messages] == ["system", "user", "system", "assistant", "tool"]
    assert request.messages[3].parts == (ToolCall(id="toolu_01", name="Tool3", arguments="{}"),)
    assert len(request.messages[0].text) > 70_000
    assert len(request.tools) == 24
    assert (request.effort, request.user) == ("medium", '{"device_id":"d","session_id":"s"}')
    assert (request.raw, request.stream) == (body, True)
