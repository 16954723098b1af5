"""The official OpenAI SDK in front of the real model, and of a cloud that dies: an application notices nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.config import LocalConfig
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import Stage, real_stage

pytestmark = pytest.mark.live

CONTEXT = 512
ASKED: list[Any] = [{"role": "user", "content": "Write a short story about a lighthouse keeper and the sea."}]
PATIENCE = 120.0  # seconds; an outermost limit, on a busy machine with two cores


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Stage]:
    local = LocalConfig(model=str(starter_gguf), context=CONTEXT, slots=2)
    with real_stage(tmp_path_factory.mktemp("stage"), starter_gguf, local=local) as running:
        yield running


@pytest.fixture
def sdk(box: Stage) -> Iterator[openai.OpenAI]:
    box.play()
    with openai.OpenAI(base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE) as client:
        yield client


def whole(sdk: openai.OpenAI, **asked: Any) -> Any:
    return sdk.chat.completions.create(**{"model": "local", "messages": ASKED, "max_tokens": 24, **asked})


class Streamed:
    """What an application has after a stream."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self.text, self.finishes, self.ids, self.roles, self.usage = "", [], set(), [], None
        for chunk in chunks:
            self.take(chunk)

    def take(self, chunk: Any) -> None:
        self.ids.add(chunk.id)
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            if choice.delta.role:
                self.roles.append(choice.delta.role)
            if choice.finish_reason:
                self.finishes.append(choice.finish_reason)


def streamed(sdk: openai.OpenAI, **asked: Any) -> Streamed:
    with whole(sdk, stream=True, **asked) as chunks:
        return Streamed(chunks)


# ------------------------------------------------------------------------------------------ the box by itself


def test_a_whole_answer(sdk: openai.OpenAI) -> None:
    answer = whole(sdk)
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_a_streamed_answer_says_the_same_as_the_whole_one(sdk: openai.OpenAI) -> None:
    answer = streamed(sdk, temperature=0)
    assert answer.text == whole(sdk, temperature=0).choices[0].message.content
    assert answer.finishes == ["length"]
    assert answer.roles == ["assistant"]
    assert len(answer.ids) == 1
    assert answer.usage is None


def test_usage_comes_with_a_stream_if_it_was_asked_for(sdk: openai.OpenAI) -> None:
    usage = streamed(sdk, stream_options={"include_usage": True}).usage
    assert usage is not None
    assert usage.completion_tokens == 24
    assert usage.total_tokens == usage.prompt_tokens + 24
    assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(sdk: openai.OpenAI, stream: bool) -> None:
    text = whole(sdk, temperature=0).choices[0].message.content
    word = text.split()[6]
    if stream:
        answer = streamed(sdk, temperature=0, stop=[word])
        found, finish = answer.text, answer.finishes
    else:
        (choice,) = whole(sdk, temperature=0, stop=[word]).choices
        found, finish = choice.message.content, [choice.finish_reason]
    assert (found, finish) == (text.partition(word)[0], ["stop"])


def test_the_same_seed_gives_the_same_answer_and_others_give_others(sdk: openai.OpenAI) -> None:
    def said(seed: int) -> str:
        return str(whole(sdk, temperature=1.2, seed=seed, max_tokens=16).choices[0].message.content)

    assert said(7) == said(7)
    assert len({said(seed) for seed in range(4)}) > 1


def test_the_models_can_be_listed_and_looked_up(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["local"]
    assert sdk.models.retrieve("local").owned_by == "appliance"


def test_the_asynchronous_client_gets_answers_too_many_at_once(box: Stage) -> None:
    async def play() -> list[tuple[str, list[str]]]:
        async with openai.AsyncOpenAI(
            base_url=f"{box.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE
        ) as client:

            async def one() -> tuple[str, list[str]]:
                found = Streamed(iter(()))
                stream = await client.chat.completions.create(
                    model="local", messages=ASKED, max_tokens=16, temperature=0, stream=True
                )
                async with stream as chunks:
                    async for chunk in chunks:
                        found.take(chunk)
                return found.text, found.finishes

            answer = await client.chat.completions.create(model="local", messages=ASKED, max_tokens=16, temperature=0)
            several = await asyncio.gather(*(one() for _ in range(4)))
            return [*several, (answer.choices[0].message.content or "", ["length"])]

    box.play()
    texts = asyncio.run(play())
    assert all(text and finishes == ["length"] for text, finishes in texts)


# ----------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": 7}, "stop"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"n": 9}, "n"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": {"type": "?"}}}},
            "response_format",
        ),
    ],
)
def test_bad_input_is_a_bad_request_that_names_the_field(sdk: openai.OpenAI, asked: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        whole(sdk, **asked)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert caught.value.message


@pytest.mark.parametrize("stream", [True, False])
def test_a_conversation_too_long_for_the_box_is_a_bad_request_with_both_numbers(
    sdk: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        whole(sdk, messages=[{"role": "user", "content": "the sea " * 1000}], stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT) in caught.value.message
    numbers = [int(word) for word in caught.value.message.replace(",", " ").split() if word.isdigit()]
    assert max(numbers) > 2000


def test_what_is_not_there_is_not_found(box: Stage, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("none")
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="local", input="x")
    box.play(HEALTHY.act, models=("gpt-*",))
    with pytest.raises(openai.NotFoundError) as caught:
        whole(sdk, model="opus")
    assert caught.value.code == "model_not_found"


def test_a_web_page_is_not_permitted(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        whole(sdk, extra_headers={"origin": "https://evil.example"})


def test_a_body_that_is_too_large_has_its_status(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        whole(sdk, messages=[{"role": "user", "content": "x" * 40_000_000}])
    assert caught.value.status_code == 413


def test_a_mistake_of_the_clouds_caller_is_the_clouds_own_error(box: Stage, sdk: openai.OpenAI) -> None:
    box.play(FAULTS["bad-request"].act)
    with pytest.raises(openai.BadRequestError) as caught:
        whole(sdk, model="gpt")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "max_tokens")


# ---------------------------------------------------------------------------------------------- takeovers


@pytest.mark.parametrize(
    "name", ["cut-reset", "cut-close", "no-finish", "half-event", "half-character", "garbage", "error-event"]
)
def test_when_the_cloud_dies_in_mid_text_the_real_model_goes_on(box: Stage, sdk: openai.OpenAI, name: str) -> None:
    box.play(FAULTS[name].act)
    answer = streamed(sdk, model="gpt", temperature=0, max_tokens=32)
    said = box.cloud.exchanges[0].text
    assert len(said) > 20
    assert answer.text.startswith(said)
    assert len(answer.text) > len(said)
    assert len(answer.finishes) == 1
    assert answer.roles == ["assistant"]
    assert answer.ids == {box.cloud.exchanges[0].id}


@pytest.mark.parametrize("name", ["refused", "reset", "server-error", "quota", "captive-portal", "empty"])
@pytest.mark.parametrize("stream", [True, False])
def test_when_the_cloud_does_not_answer_the_real_model_does(
    box: Stage, sdk: openai.OpenAI, name: str, stream: bool
) -> None:
    box.play(FAULTS[name].act)
    if stream:
        answer = streamed(sdk, model="gpt", temperature=0)
        text, finishes = answer.text, answer.finishes
    else:
        found = whole(sdk, model="gpt", temperature=0)
        text, finishes = found.choices[0].message.content, [found.choices[0].finish_reason]
    assert text
    assert finishes == ["length"]


def test_the_sdk_can_read_who_answered(box: Stage, sdk: openai.OpenAI) -> None:
    box.play(FAULTS["server-error"].act)
    raw = sdk.chat.completions.with_raw_response.create(model="gpt", messages=ASKED, max_tokens=4)
    assert raw.headers["x-appliance-served-by"] == "local"
    assert raw.headers["x-appliance-fallback"] == "server"


def test_when_the_engine_is_killed_in_mid_answer_the_answer_goes_on(box: Stage, sdk: openai.OpenAI) -> None:
    engine = box.appliance.engine
    before, restarts = engine.pid, engine.restarts
    assert before is not None
    uncut = whole(sdk, temperature=0, max_tokens=60).choices[0].message.content
    answer = Streamed(iter(()))
    with whole(sdk, temperature=0, max_tokens=60, stream=True) as chunks:
        for chunk in chunks:
            answer.take(chunk)
            if len(answer.text) > 20 and engine.pid == before:
                said = answer.text
                os.kill(before, signal.SIGKILL)
                box.until(lambda: engine.restarts > restarts)
    assert engine.restarts == restarts + 1
    assert engine.pid != before
    assert answer.text.startswith(said)
    assert len(answer.finishes) == 1
    # Neither a word too many nor one too few at the seam.
    assert answer.text[: len(said) + 12] == uncut[: len(said) + 12]
