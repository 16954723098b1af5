"""Tools, reasoning and what follows from them, in every pair of dialects, with the official SDKs and their readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from appliance.dialects.anthropic_body import UNSIGNED
from appliance.drills.cloud import Call, Script
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import COUNTED, Stage, stage

pytestmark = pytest.mark.live

WIRES = ("openai", "anthropic")
MODEL = "model-x"
PATIENCE = 30.0
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place"],
}
CALLS = (
    Call(name="weather", arguments='{"place": "Brest, port", "days": 3}'),
    Call(name="tide", arguments='{"place":"caf\\u00e9 🌊"}'),
)
ARGUMENTS = [json.loads(call.arguments) for call in CALLS]
SCRIPT = Script(text="Let me look.", calls=CALLS)
THOUGHTS = "The keeper would know. Let me think about the sea and the wind."


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest.fixture
def openai_client(box: Stage) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def anthropic_client(box: Stage) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=box.url, api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client


OPENAI_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"Asks for the {name}.", "parameters": SCHEMA}}
    for name in ("weather", "tide")
]
ANTHROPIC_TOOLS: list[Any] = [
    {"name": name, "description": f"Asks for the {name}.", "input_schema": SCHEMA} for name in ("weather", "tide")
]
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather in Brest?"}]


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("stream", [True, False])
def test_an_openai_client_calls_tools_and_answers_them(
    box: Stage, openai_client: openai.OpenAI, api: str, stream: bool
) -> None:
    box.play(HEALTHY.act, api=api, script=SCRIPT)
    asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "tools": OPENAI_TOOLS, "tool_choice": "required"}
    if stream:
        with openai_client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            (choice,) = events.get_final_completion().choices
    else:
        (choice,) = openai_client.chat.completions.create(**asked).choices
    message = choice.message
    assert choice.finish_reason == "tool_calls"
    assert message.content == SCRIPT.text
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["weather", "tide"]
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == ARGUMENTS
    assert len({call.id for call in message.tool_calls}) == 2

    results = [{"role": "tool", "tool_call_id": call.id, "content": "fine"} for call in message.tool_calls]
    turn = {"role": "assistant", "content": message.content, "tool_calls": [c.model_dump() for c in message.tool_calls]}
    box.play(HEALTHY.act, api=api)
    openai_client.chat.completions.create(**{**asked, "messages": [*QUESTION, turn, *results]})
    _assert_linked(box, api)


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("stream", [True, False])
def test_an_anthropic_client_calls_tools_and_answers_them(
    box: Stage, anthropic_client: anthropic.Anthropic, api: str, stream: bool
) -> None:
    box.play(HEALTHY.act, api=api, script=SCRIPT)
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": QUESTION,
        "tools": ANTHROPIC_TOOLS,
        "tool_choice": {"type": "any"},
    }
    if stream:
        with anthropic_client.messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = anthropic_client.messages.create(**asked)
    assert message.stop_reason == "tool_use"
    text, *calls = message.content
    assert text.type == "text"
    assert text.text == SCRIPT.text
    assert [(call.type, call.name, call.input) for call in calls if call.type == "tool_use"] == [
        ("tool_use", "weather", ARGUMENTS[0]),
        ("tool_use", "tide", ARGUMENTS[1]),
    ]

    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "fine"} for call in calls]  # type: ignore[union-attr]
    turn = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
    box.play(HEALTHY.act, api=api)
    anthropic_client.messages.create(**{**asked, "messages": [*QUESTION, turn, {"role": "user", "content": results}]})
    _assert_linked(box, api)


def _assert_linked(box: Stage, api: str) -> None:
    """Both results reached the cloud in its own words, each under the id of its call."""
    messages = box.cloud.chats[-1].asked.fields["messages"]
    if api == "openai":
        (turn,) = [message for message in messages if message["role"] == "assistant"]
        called = [call["id"] for call in turn["tool_calls"]]
        answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
        found = [json.loads(call["function"]["arguments"]) for call in turn["tool_calls"]]
    else:
        blocks = [block for message in messages for block in message["content"] if isinstance(block, dict)]
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        found = [block["input"] for block in blocks if block["type"] == "tool_use"]
    assert called == answered
    assert len(set(called)) == 2
    assert found == ARGUMENTS


class Weather(BaseModel):
    place: str
    days: int


@pytest.mark.parametrize("api", WIRES)
def test_the_sdks_parse_structured_answers(
    box: Stage, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, api: str
) -> None:
    box.play(HEALTHY.act, api=api, script=Script(text='{"place": "Brest", "days": 3}'))
    parsed = openai_client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Weather)
    assert parsed.choices[0].message.parsed == Weather(place="Brest", days=3)
    answer = anthropic_client.messages.parse(model=MODEL, max_tokens=64, messages=QUESTION, output_format=Weather)
    assert answer.parsed_output == Weather(place="Brest", days=3)
    for exchange in box.cloud.chats:
        fields = exchange.asked.fields
        if api == "openai":
            schema = fields["response_format"]["json_schema"]["schema"]
        else:
            schema = (fields.get("output_config") or {}).get("format", fields.get("output_format"))["schema"]
        assert set(schema["properties"]) == {"place", "days"}


@pytest.mark.parametrize("api", WIRES)
def test_count_tokens(box: Stage, anthropic_client: anthropic.Anthropic, api: str) -> None:
    box.play(HEALTHY.act, api=api)
    found = anthropic_client.messages.count_tokens(model=MODEL, messages=QUESTION, tools=ANTHROPIC_TOOLS)
    said = COUNTED if api == "openai" else json.loads(bytes(box.cloud.exchanges[0].sent))["input_tokens"]
    assert found.input_tokens == said


# ------------------------------------------------------------------------------------------------- reasoning


@pytest.mark.parametrize("api", WIRES)
def test_reasoning_is_told_from_the_answer(
    box: Stage, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, api: str
) -> None:
    box.play(HEALTHY.act, api=api, script=Script(thinking=THOUGHTS))
    thought = said = ""
    for chunk in openai_client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
        for choice in chunk.choices:
            thought += getattr(choice.delta, "reasoning_content", None) or ""
            said += choice.delta.content or ""
    assert (thought, said) == (THOUGHTS, Script().text)
    with anthropic_client.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as events:
        thinking, text = events.get_final_message().content
    assert thinking.type == "thinking"
    assert text.type == "text"
    assert (thinking.thinking, text.text) == (THOUGHTS, Script().text)
    assert thinking.signature == (UNSIGNED if api == "openai" else Script().signature)


@pytest.mark.parametrize("api", WIRES)
def test_a_thinking_block_closed_by_the_box_does_not_go_back_to_anthropic(
    box: Stage, anthropic_client: anthropic.Anthropic, api: str
) -> None:
    box.play(FAULTS["cut-reset"].act, api=api, script=Script(thinking=THOUGHTS, after=3))
    with anthropic_client.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as events:
        message = events.get_final_message()
    thinking, text = message.content
    assert thinking.type == "thinking"
    assert text.type == "text"
    assert (thinking.thinking, text.text) == (box.cloud.chats[0].thinking, box.local.text)
    assert 0 < len(thinking.thinking) < len(THOUGHTS)
    assert thinking.signature == UNSIGNED

    turn = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
    box.play(HEALTHY.act, api="anthropic")
    more: list[Any] = [*QUESTION, turn, {"role": "user", "content": "Go on."}]
    anthropic_client.messages.create(model=MODEL, max_tokens=64, messages=more)
    sent = box.cloud.chats[0].asked.fields["messages"][1]["content"]
    assert [block["type"] for block in sent] == ["text"]
    assert sent[0]["text"] == box.local.text


@pytest.mark.parametrize("api", WIRES)
def test_a_cut_behind_the_reasoning_goes_on_in_the_text(
    box: Stage, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, api: str
) -> None:
    script = Script(thinking="Hm. So.", after=8)
    box.play(FAULTS["cut-reset"].act, api=api, script=script)
    with anthropic_client.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as events:
        thinking, text = events.get_final_message().content
    assert thinking.type == "thinking"
    assert text.type == "text"
    begun = box.cloud.chats[0].text
    assert begun
    assert (thinking.thinking, text.text) == (script.thinking, begun + box.local.text)
    committed = box.local.asked[-1].committed
    assert committed is not None
    assert committed.text == begun

    said = ""
    for chunk in openai_client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert said == box.cloud.chats[1].text + box.local.text


# ------------------------------------------------------------------------------------- what cannot be continued


@pytest.mark.parametrize("api", WIRES)
def test_half_a_tool_call_ends_in_the_error_of_the_clients_own_dialect(
    box: Stage, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, api: str
) -> None:
    box.play(FAULTS["cut-reset"].act, api=api, script=Script(text="", calls=CALLS, after=3))
    with pytest.raises(openai.APIError):
        list(openai_client.chat.completions.create(model=MODEL, messages=QUESTION, tools=OPENAI_TOOLS, stream=True))
    with pytest.raises(anthropic.APIStatusError) as refused:
        list(
            anthropic_client.messages.create(
                model=MODEL, max_tokens=64, messages=QUESTION, tools=ANTHROPIC_TOOLS, stream=True
            )
        )
    assert refused.value.type == "api_error"
