"""The official SDKs in front of every pair of dialects: the same application, the same words, whatever happens behind.

A client of either dialect, a cloud of either dialect that is well, that dies before its first word, or in mid-text;
streamed and whole. The box is scripted, so that every character can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import Stage, stage

pytestmark = pytest.mark.live

QUESTION: list[Any] = [{"role": "user", "content": "Tell me about the lighthouse."}]
MODEL = "model-x"
PATIENCE = 30.0
WIRES = ("openai", "anthropic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an application has in the end, in words of no dialect."""

    text: str
    ended: str
    ids: frozenset[str]
    models: frozenset[str]
    input_tokens: int
    output_tokens: int
    served_by: str


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


# ------------------------------------------------------------------------------------------------ the clients


def openai_whole(box: Stage) -> Said:
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=64)
        answer = raw.parse()
    (choice,) = answer.choices
    assert answer.usage is not None
    return Said(
        text=choice.message.content or "",
        ended={"stop": "end"}[choice.finish_reason],
        ids=frozenset((answer.id,)),
        models=frozenset((answer.model,)),
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        served_by=raw.headers["x-appliance-served-by"],
    )


def openai_streamed(box: Stage) -> Said:
    chunks: list[ChatCompletionChunk] = []
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=QUESTION, max_tokens=64, stream=True, stream_options={"include_usage": True}
        )
        for chunk in raw.parse():
            ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True), strict=True)
            chunks.append(chunk)
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == ["stop"]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    return Said(
        text="".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices),
        ended="end",
        ids=frozenset(chunk.id for chunk in chunks),
        models=frozenset(chunk.model for chunk in chunks),
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        served_by=raw.headers["x-appliance-served-by"],
    )


def openai_helper(box: Stage) -> Said:
    with (
        openai.OpenAI(base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client,
        client.chat.completions.stream(
            model=MODEL, messages=QUESTION, max_tokens=64, stream_options={"include_usage": True}
        ) as stream,
    ):
        for _ in stream:
            pass
        answer = stream.get_final_completion()
        served_by = stream._response.headers["x-appliance-served-by"]
    (choice,) = answer.choices
    assert answer.usage is not None
    return Said(
        text=choice.message.content or "",
        ended={"stop": "end"}[choice.finish_reason],
        ids=frozenset((answer.id,)),
        models=frozenset((answer.model,)),
        input_tokens=answer.usage.prompt_tokens,
        output_tokens=answer.usage.completion_tokens,
        served_by=served_by,
    )


def _message(answer: Any, served_by: str) -> Said:
    return Said(
        text="".join(block.text for block in answer.content if block.type == "text"),
        ended={"end_turn": "end"}[answer.stop_reason],
        ids=frozenset((answer.id,)),
        models=frozenset((answer.model,)),
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        served_by=served_by,
    )


def anthropic_client(box: Stage) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=box.url, api_key="unused", max_retries=0, timeout=PATIENCE)


def anthropic_whole(box: Stage) -> Said:
    with anthropic_client(box) as client:
        raw = client.messages.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=64)
        return _message(raw.parse(), raw.headers["x-appliance-served-by"])


def anthropic_streamed(box: Stage) -> Said:
    """The bare stream: every event is one of the SDK's own types, and they come in the one order there is."""
    event_of: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    order, text, ids, models, usage = [], "", set(), set(), {}
    with anthropic_client(box) as client:
        raw = client.messages.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=64, stream=True)
        for event in raw.parse():
            event_of.validate_python(event.model_dump(exclude_unset=True))
            order.append(event.type)
            match event.type:
                case "message_start":
                    ids.add(event.message.id)
                    models.add(event.message.model)
                    usage = event.message.usage.model_dump(exclude_none=True)
                case "content_block_delta":
                    text += getattr(event.delta, "text", "")
                case "message_delta":
                    usage |= event.usage.model_dump(exclude_none=True)
                    assert event.delta.stop_reason == "end_turn"
    assert order[0] == "message_start"
    assert order[-2:] == ["message_delta", "message_stop"]
    assert order.count("content_block_start") == order.count("content_block_stop")
    return Said(
        text=text,
        ended="end",
        ids=frozenset(ids),
        models=frozenset(models),
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        served_by=raw.headers["x-appliance-served-by"],
    )


def anthropic_helper(box: Stage) -> Said:
    with (
        anthropic_client(box) as client,
        client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=64) as stream,
    ):
        text = "".join(stream.text_stream)
        said = _message(stream.get_final_message(), stream.response.headers["x-appliance-served-by"])
    assert text == said.text
    return said


STREAMED: dict[str, Callable[[Stage], Said]] = {
    "openai": openai_streamed,
    "openai-helper": openai_helper,
    "anthropic": anthropic_streamed,
    "anthropic-helper": anthropic_helper,
}
WHOLE: dict[str, Callable[[Stage], Said]] = {"openai": openai_whole, "anthropic": anthropic_whole}
CLIENTS = [pytest.param(ask, id=name) for name, ask in STREAMED.items()] + [
    pytest.param(ask, id=f"{name}-whole") for name, ask in WHOLE.items()
]


# --------------------------------------------------------------------------------------------------- the pairs


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("ask", CLIENTS)
def test_a_healthy_cloud_answers(box: Stage, ask: Callable[[Stage], Said], api: str) -> None:
    box.play(HEALTHY.act, api=api)
    said = ask(box)
    exchange = box.cloud.exchanges[-1]
    assert said.text == exchange.text == exchange.script.text
    assert (said.served_by, said.ids) == ("cloud", {exchange.id})
    assert said.input_tokens > 0
    assert said.output_tokens > 0


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("ask", CLIENTS)
def test_a_cloud_dies_before_its_first_word(box: Stage, ask: Callable[[Stage], Said], api: str) -> None:
    box.play(FAULTS["role-then-death"].act, api=api)
    said = ask(box)
    assert said.text == box.local.text
    assert said.served_by == "local"
    assert len(said.ids) == len(said.models) == 1
    assert (said.input_tokens, said.output_tokens) == (9, len(box.local.pieces))


@pytest.mark.parametrize("fault", ["cut-reset", "cut-close", "half-character", "error-event", "no-finish"])
@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in STREAMED.items()])
def test_a_cloud_dies_in_mid_text(box: Stage, ask: Callable[[Stage], Said], api: str, fault: str) -> None:
    box.play(FAULTS[fault].act, api=api)
    said = ask(box)
    exchange = box.cloud.exchanges[-1]
    assert exchange.text
    assert said.text == exchange.text + box.local.text
    assert (said.served_by, said.ids) == ("cloud", {exchange.id})
    assert said.models == {exchange.script.model}
    assert said.output_tokens == len(box.local.pieces)  # the box counts what it was given to go on from


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("ask", [pytest.param(ask, id=name) for name, ask in WHOLE.items()])
def test_a_cloud_dies_in_the_middle_of_a_whole_answer(box: Stage, ask: Callable[[Stage], Said], api: str) -> None:
    box.play(FAULTS["cut-reset"].act, api=api)
    assert ask(box).text == box.local.text
