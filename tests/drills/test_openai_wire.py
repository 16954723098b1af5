"""The failing cloud in OpenAI's wire, seen by OpenAI's own client: thinking, calls and what is odd and allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import openai
import pytest

from appliance.drills.cloud import Call, FailingCloud, Script
from appliance.drills.faults import HEALTHY

pytestmark = pytest.mark.live

T = TypeVar("T")
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Go on."}]}
TOOLS = (Call(name="weather", arguments='{"place": "Zürich", "days": 3}'), Call(name="tide", arguments="{}", id="own"))
RICH = Script(thinking="The harbour, then the lamp.", calls=TOOLS, cached=5)


def with_client(talk: Callable[[openai.AsyncOpenAI], Awaitable[T]], script: Script) -> tuple[T, FailingCloud]:
    async def play() -> tuple[T, FailingCloud]:
        async with (
            FailingCloud(HEALTHY.act, script=script) as cloud,
            openai.AsyncOpenAI(api_key="sk-drill", base_url=cloud.base_url, max_retries=0) as client,
        ):
            return await talk(client), cloud

    return asyncio.run(play())


async def streamed(client: openai.AsyncOpenAI) -> Any:
    async with client.chat.completions.stream(**ASKED, stream_options={"include_usage": True}) as stream:
        return await stream.get_final_completion()


async def whole(client: openai.AsyncOpenAI) -> Any:
    return await client.chat.completions.create(**ASKED)


@pytest.mark.parametrize("talk", [streamed, whole])
def test_thinking_and_calls_are_what_the_client_makes_of_them(talk: Callable[..., Awaitable[Any]]) -> None:
    answer, cloud = with_client(talk, RICH)
    message = answer.choices[0].message
    assert message.content == RICH.text
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [
        (call.name, call.arguments) for call in TOOLS
    ]
    assert [call.id for call in message.tool_calls] == ["call_drill0", "own"]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.prompt_tokens_details.cached_tokens == 5
    assert answer.usage.completion_tokens_details.reasoning_tokens == len(RICH.thoughts)
    exchange = cloud.exchanges[0]
    assert (exchange.text, exchange.thinking) == (RICH.text, RICH.thinking)
    assert exchange.arguments == {0: TOOLS[0].arguments, 1: TOOLS[1].arguments}
    if talk is whole:
        assert message.reasoning_content == RICH.thinking


@pytest.mark.parametrize(
    "script",
    [
        Script(crlf=True),
        Script(comments=True),
        Script(multiline=True),
        Script(gzip=True),
        Script(text="Crème brûlée 🌊", cut=1),
        Script(text="Crème 🌊", crlf=True, comments=True, multiline=True, gzip=True, cut=3),
    ],
    ids=["crlf", "comments", "multiline", "gzip", "byte by byte", "all of it"],
)
@pytest.mark.parametrize("talk", [streamed, whole])
def test_what_is_odd_and_allowed_does_not_trouble_the_client(
    talk: Callable[..., Awaitable[Any]], script: Script
) -> None:
    answer, cloud = with_client(talk, script)
    assert answer.choices[0].message.content == script.text == cloud.exchanges[0].text
    assert answer.choices[0].finish_reason == "stop"


def test_novelties_are_on_the_wire() -> None:
    async def pieces(client: openai.AsyncOpenAI) -> str:
        said = ""
        async for chunk in await client.chat.completions.create(stream=True, **ASKED):
            said += "".join(choice.delta.content or "" for choice in chunk.choices or ())
        return said

    said, cloud = with_client(pieces, Script(novelties=True))
    assert said == Script().text
    assert b'event: x_weather\ndata: {"object":"x.weather"' in cloud.exchanges[0].body
    assert b'"x_note"' in cloud.exchanges[0].body
