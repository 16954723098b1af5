"""A cloud dies inside a call of a tool, and the box finishes it, over real sockets, for each dialect of the client and
of the cloud. The official clients read the answer: what they get are the cloud's half and the box's, and one end.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import anthropic
import openai
import pytest

from appliance.core.chat import ToolCall
from appliance.core.fault import BackendError, Fault
from appliance.drills.cloud import Act, Call, Exchange, Script
from appliance.drills.faults import FAULTS
from tests.fakes import BODIES, Stage

pytestmark = pytest.mark.live

DIALECTS = ("openai", "anthropic")
PAIRS = pytest.mark.parametrize(("client", "cloud"), list(product(DIALECTS, DIALECTS)))
ENDS = {"openai": "tool_calls", "anthropic": "tool_use"}

LOOK = Call(name="look", arguments='{"at": "caf\\u00e9 \\"\U0001f30a\\"", "n": [-1.5e3]}')
WAIT = Call(name="wait", arguments="{}")
AGAIN = Call(name="look", arguments='{"at":"sea"}')
WORDS, THOUGHT = "I look.", "So, so."
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOLS: dict[str, list[Any]] = {
    "openai": [
        {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in (LOOK.name, WAIT.name)
    ],
    "anthropic": [{"name": name, "input_schema": SCHEMA} for name in (LOOK.name, WAIT.name)],
}
DIED = BackendError(Fault.CRASHED, "The local model's engine died.", status=500)
REFUSED = BackendError(Fault.REQUEST, "What was written fits no tool.", status=400)


# ------------------------------------------------------------------------------------------- clouds that die somewhere


async def reset(exchange: Exchange) -> None:
    await exchange.reset()


async def hang_up(exchange: Exchange) -> None:
    await exchange.hang_up()


async def say_so(exchange: Exchange) -> None:
    await exchange.event(exchange.voice.broke())
    await exchange.end()


async def end_without_a_word(exchange: Exchange) -> None:
    await exchange.end()


DEATHS: dict[str, Callable[[Exchange], Awaitable[None]]] = {
    "reset": reset,
    "closed": hang_up,
    "an error": say_so,
    "no end": end_without_a_word,
}


def dying(scripts: Sequence[Script], death: Callable[[Exchange], Awaitable[None]]) -> Act:
    """A cloud that says one of these, the one whose number stands in the question, up to its last piece of content, and
    dies. Half of twenty failures open a breaker: nobody fails before all have been let in."""
    crowd = 0
    crowded = asyncio.Event()

    async def act(exchange: Exchange) -> None:
        nonlocal crowd
        found = re.search(rb"Number (\d+)\.", exchange.asked.body)
        assert found is not None
        script = scripts[int(found[1])]
        story = exchange.voice.story(script, exchange.id, usage=False)
        last = max(at for at, said in enumerate(story) if said.piece)
        await exchange.open()
        for said in story[: last + 1]:
            await exchange.put(said.data)
        crowd += 1
        if crowd == len(scripts):
            crowded.set()
        await crowded.wait()
        await death(exchange)

    return act


# --------------------------------------------------------------------------------------------- the official clients


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an official client makes of a streamed answer."""

    ids: tuple[str, ...]
    text: str
    thinking: str
    calls: tuple[tuple[str, str, str], ...]
    """Of each call the id, the name and the JSON text."""
    parsed: tuple[Any, ...] = field(repr=False)
    ends: tuple[str | None, ...]


async def by_openai(url: str, question: str) -> Answer:
    async with openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0) as sdk:
        messages: list[Any] = [{"role": "user", "content": question}]
        async with sdk.chat.completions.stream(model="gpt-x", messages=messages, tools=TOOLS["openai"]) as stream:
            chunks = [event.chunk async for event in stream if event.type == "chunk"]
            completion = await stream.get_final_completion()
    (choice,) = completion.choices
    said = [choice for chunk in chunks for choice in chunk.choices]
    functions = [call for call in choice.message.tool_calls or () if call.type == "function"]
    return Answer(
        ids=tuple(dict.fromkeys(chunk.id for chunk in chunks)),
        text=choice.message.content or "",
        thinking="".join(getattr(one.delta, "reasoning_content", None) or "" for one in said),
        calls=tuple((call.id, call.function.name, call.function.arguments) for call in functions),
        parsed=tuple(json.loads(call.function.arguments) for call in functions),
        ends=tuple(one.finish_reason for one in said if one.finish_reason),
    )


async def by_anthropic(url: str, question: str) -> Answer:
    async with (
        anthropic.AsyncAnthropic(api_key="x", base_url=url, max_retries=0) as sdk,
        sdk.messages.stream(
            model="claude-x",
            max_tokens=64,
            messages=[{"role": "user", "content": question}],
            tools=TOOLS["anthropic"],
        ) as stream,
    ):
        events = [event async for event in stream]
        message = await stream.get_final_message()
    written: dict[int, str] = {}
    for event in events:
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            written[event.index] = written.get(event.index, "") + event.delta.partial_json
    blocks = [(at, block) for at, block in enumerate(message.content) if block.type == "tool_use"]
    assert set(written) == {at for at, _ in blocks}
    return Answer(
        ids=tuple(event.message.id for event in events if event.type == "message_start"),
        text="".join(block.text for block in message.content if block.type == "text"),
        thinking="".join(block.thinking for block in message.content if block.type == "thinking"),
        calls=tuple((block.id, block.name, written[at]) for at, block in blocks),
        parsed=tuple(block.input for _, block in blocks),
        ends=tuple(event.delta.stop_reason for event in events if event.type == "message_delta"),
    )


CLIENTS = {"openai": by_openai, "anthropic": by_anthropic}


def answers(box: Stage, client: str, cloud: str, scripts: Sequence[Script], death: str = "reset") -> list[Answer]:
    """What the client gets, all at once, of a cloud that says one of `scripts` to each and dies."""
    box.play(dying(scripts, DEATHS[death]), api=cloud)

    async def all_of_them() -> list[Answer]:
        asked = (CLIENTS[client](box.url, f"Number {number}.") for number in range(len(scripts)))
        return await asyncio.gather(*asked)

    found = box.call(all_of_them())
    assert len(box.cloud.chats) == len(box.local.asked) == len(scripts)  # beside them, an open breaker probes
    return found


def is_one_answer(answer: Answer, client: str, calls: Sequence[Call], text: str = WORDS) -> None:
    assert [call[1:] for call in answer.calls] == [(call.name, call.arguments) for call in calls]
    assert answer.parsed == tuple(json.loads(call.arguments) for call in calls)
    assert (answer.text, answer.ends, len(answer.ids)) == (text, (ENDS[client],), 1)
    named = [call[0] for call in answer.calls]
    assert len(set(named)) == len(calls)
    assert all(named)


def committed(box: Stage) -> dict[int, tuple[tuple[str, ...], str]]:
    """By the number in the question: the arguments of the calls that the box was to go on from, and the text."""
    found = {}
    for request in box.local.asked:
        assert request.committed is not None
        number = int(request.messages[-1].text.removeprefix("Number ").removesuffix("."))
        calls = tuple(part.arguments for part in request.committed.parts if isinstance(part, ToolCall))
        found[number] = (calls, request.committed.text)
    return found


# ------------------------------------------------------------------------------------------------------- every place


@PAIRS
@pytest.mark.parametrize("death", DEATHS)
def test_at_every_character_of_the_arguments(box: Stage, client: str, cloud: str, death: str) -> None:
    halves = [LOOK.arguments[:at] for at in range(len(LOOK.arguments) + 1)]
    box.local.calls = (LOOK, WAIT)
    scripts = [Script(text=WORDS, calls=(replace(LOOK, arguments=half),)) for half in halves]
    found = answers(box, client, cloud, scripts, death)
    for answer in found:
        is_one_answer(answer, client, (LOOK, WAIT))
        assert answer.calls[0][0].startswith("toolu_drill" if cloud == "anthropic" else "call_drill")
    assert committed(box) == {at: ((half,), WORDS) for at, half in enumerate(halves)}


@PAIRS
def test_inside_the_second_of_two_calls_and_between_them(box: Stage, client: str, cloud: str) -> None:
    halves = [AGAIN.arguments[:at] for at in range(len(AGAIN.arguments) + 1)]
    box.local.calls = (LOOK, AGAIN, WAIT)
    scripts = [Script(text="", calls=(LOOK, replace(AGAIN, arguments=half))) for half in halves]
    scripts += [Script(text="", calls=(LOOK,)), Script(text="", calls=(LOOK, AGAIN, WAIT))]
    for answer in answers(box, client, cloud, scripts):
        is_one_answer(answer, client, (LOOK, AGAIN, WAIT), text="")


@PAIRS
def test_after_reasoning(box: Stage, client: str, cloud: str) -> None:
    """What was thought stays with the client, and the call goes on."""
    box.local.calls = (LOOK,)
    halves = ["", '{"', LOOK.arguments[:15], LOOK.arguments]
    scripts = [Script(thinking=THOUGHT, text="", calls=(replace(LOOK, arguments=half),)) for half in halves]
    for answer in answers(box, client, cloud, scripts):
        is_one_answer(answer, client, (LOOK,), text="")
        assert answer.thinking == THOUGHT


@PAIRS
def test_a_cloud_that_dies_while_it_thinks_or_speaks_leaves_the_calls_to_the_box(
    box: Stage, client: str, cloud: str
) -> None:
    box.local.calls = (LOOK, WAIT)
    for answer in answers(box, client, cloud, [Script(thinking=THOUGHT, text=""), Script(text=WORDS)]):
        is_one_answer(answer, client, (LOOK, WAIT), text=answer.text)
        assert answer.text.endswith(box.local.text)


@pytest.mark.parametrize("client", DIALECTS)
def test_an_anthropic_cloud_that_dies_behind_the_end_of_a_calls_block(box: Stage, client: str) -> None:
    async def act(exchange: Exchange) -> None:
        await exchange.open()
        for said in exchange.voice.story(script, exchange.id, usage=False):
            if said.stage == "end":
                break
            await exchange.put(said.data)
        await exchange.reset()

    script = Script(text="", calls=(LOOK, WAIT))
    box.local.calls = (LOOK, WAIT)
    box.play(act, api="anthropic")
    is_one_answer(box.call(CLIENTS[client](box.url, "Number 0.")), client, (LOOK, WAIT), text="")
    assert committed(box) == {0: ((LOOK.arguments, WAIT.arguments), "")}


# --------------------------------------------------------------------------------------------- who goes on, and who not


@PAIRS
def test_no_second_cloud_is_asked_to_go_on_from_half_a_call(box: Stage, client: str, cloud: str) -> None:
    script = Script(text="", calls=(replace(LOOK, arguments='{"at'),))
    box.play(dying([script], reset), FAULTS["refused"].act, api=cloud, prefill=True)
    box.local.calls = (LOOK,)
    is_one_answer(box.call(CLIENTS[client](box.url, "Number 0.")), client, (LOOK,), text="")
    heard = box.ask(api=client, messages=[{"role": "user", "content": "Number 0."}], tools=TOOLS[client])
    assert heard.takeovers == ("cloud->local after=4 reason=broken",)
    assert (heard.calls, heard.finishes, heard.dones) == (((LOOK.name, LOOK.arguments),), (ENDS[client],), 1)
    assert heard.headers["x-appliance-served-by"] == "cloud"
    assert "x-appliance-degraded" not in heard.headers


@PAIRS
def test_where_the_box_cannot_go_on_the_dialect_says_that_it_failed(box: Stage, client: str, cloud: str) -> None:
    half = replace(LOOK, arguments='{"at": "ca')
    box.play(dying([Script(text=WORDS, calls=(half,))], reset), api=cloud)
    for calls, fails in (((LOOK,), [(0, REFUSED)]), ((), []), ((LOOK,), [(1, REFUSED)])):
        box.local.calls, box.local.fails = calls, list(fails)
        heard = box.ask(api=client, messages=[{"role": "user", "content": "Number 0."}], tools=TOOLS[client])
        assert (heard.status, heard.finishes, heard.dones, len(heard.errors)) == (200, (), 0, 1)
        assert heard.text == WORDS
        ((name, arguments),) = heard.calls
        assert (name, arguments[: len(half.arguments)]) == (LOOK.name, half.arguments)
        last = heard.body.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
        assert (b"event: error" in last) == (client == "anthropic")
        assert "error" in json.loads(last.partition(b"data: ")[2])


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_when_the_engine_dies_inside_its_own_call_the_box_goes_on(box: Stage, client: str, stream: bool) -> None:
    box.play()
    box.local.calls = (LOOK, WAIT)
    words = len(box.local.pieces)
    for pieces in (words + 1, words + 2, words + 8, words + 13, words + 14, words + 15):
        box.local.asked.clear()
        box.local.fails = [(pieces, DIED)]
        heard = box.ask(stream=stream, api=client, tools=TOOLS[client])
        assert (heard.status, heard.errors, heard.finishes) == (200, (), (ENDS[client],))
        assert heard.text == box.local.text
        assert [(name, json.loads(text)) for name, text in heard.calls] == [
            (call.name, json.loads(call.arguments)) for call in (LOOK, WAIT)
        ]
        assert len(box.local.asked) == 2
        second = box.local.asked[1].committed
        assert second is not None
        assert any(isinstance(part, ToolCall) for part in second.parts)


@PAIRS
def test_a_whole_answer_with_half_a_call_begins_anew(box: Stage, client: str, cloud: str) -> None:
    box.local.calls = (WAIT,)
    box.play(FAULTS["cut-reset"].act, api=cloud, script=Script(calls=(LOOK,)))
    heard = box.ask(stream=False, api=client, tools=TOOLS[client])
    assert (heard.status, heard.text, heard.finishes) == (200, box.local.text, (ENDS[client],))
    assert [(name, json.loads(text)) for name, text in heard.calls] == [(WAIT.name, {})]
    assert box.local.asked[-1].committed is None


# ---------------------------------------------------------------------------------------------- asked of the box itself


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_box_itself_can_be_asked_with_tools(box: Stage, client: str, stream: bool) -> None:
    box.play()
    box.local.calls = (LOOK,)
    heard = box.ask(stream=stream, api=client, model="local", tools=TOOLS[client])
    assert (heard.status, heard.finishes, len(heard.calls)) == (200, (ENDS[client],), 1)
    assert [tool.name for tool in box.local.asked[-1].tools] == [LOOK.name, WAIT.name]
    assert "x-appliance-degraded" not in heard.headers


def test_tools_that_nobody_but_their_cloud_knows_are_still_refused_there_and_left_out_elsewhere(box: Stage) -> None:
    bash = {"type": "bash_20250124", "name": "bash"}
    box.play()
    refused = box.ask(api="anthropic", model="local", tools=[bash])
    assert (refused.status, box.local.asked) == (400, [])
    assert "tools" in refused.errors[0]
    box.play(FAULTS["server-error"].act, api="anthropic")
    heard = box.ask(api="anthropic", tools=[bash, *TOOLS["anthropic"]])
    assert heard.status == 200
    assert heard.headers["x-appliance-degraded"] == "tools"
    assert BODIES["anthropic"]["model"] not in ("local",)
