"""The real engine with the starter model calls tools and writes documents, asked by the official clients. The model is
too small for sense: what it says must only be what was asked for, in form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field

from appliance.config import LocalConfig, TimeoutConfig
from appliance.drills.cloud import Act, Call, Exchange, Script
from tests.fakes import Stage, real_stage

pytestmark = pytest.mark.live

DIALECTS = ("openai", "anthropic")
QUESTION: list[Any] = [{"role": "user", "content": "The ship waits. Call a tool."}]
LONG = 400
MANY = 120
"""Tokens of an answer that may go on with one call after the other: room for some, and for one that is cut."""
TIMEOUTS = TimeoutConfig(connect=2.0, first_content=120.0, stall=120.0, total=120.0)
"""Other programs use the processor too."""


class move(BaseModel):
    """Moves the ship."""

    model_config = ConfigDict(extra="forbid")
    to: Literal["north", "south"]
    miles: int = Field(ge=0, le=99)


class note(BaseModel):
    """Writes into the book."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=16)
    metres: list[float] = Field(max_length=3)
    kind: Literal["wind", "ship"] | None


class Report(BaseModel):
    model_config = ConfigDict(extra="forbid")
    town: Literal["Brest", "Lorient", "caf\u00e9 \U0001f30a"]
    warm: bool


SCHEMAS = {tool.__name__: tool.model_json_schema() for tool in (move, note)}
TOOLS: dict[str, list[Any]] = {
    "openai": [openai.pydantic_function_tool(tool) for tool in (move, note)],
    "anthropic": [
        {"name": tool.__name__, "description": tool.__doc__, "input_schema": SCHEMAS[tool.__name__]}
        for tool in (move, note)
    ],
}
CHOICES: dict[str, dict[str, Any]] = {
    "openai": {
        "auto": "auto",
        "none": "none",
        "any": "required",
        "named": {"type": "function", "function": {"name": "move"}},
    },
    "anthropic": {
        "auto": {"type": "auto"},
        "none": {"type": "none"},
        "any": {"type": "any"},
        "named": {"type": "tool", "name": "move"},
    },
}
Said = tuple[str, str, list[tuple[str, Any]]]
"""The reason of the end in OpenAI's words, the text, and of each call what it was given, `None` if it is no JSON."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Stage]:
    local = LocalConfig(model=str(starter_gguf), context=1536, slots=2, standby="cold")
    with real_stage(tmp_path_factory.mktemp("stage"), starter_gguf, local=local, timeouts=TIMEOUTS) as running:
        yield running


def by_openai(box: Stage, model: str = "local", messages: Sequence[Any] = QUESTION, **asked: Any) -> Said:
    asked = {"max_tokens": LONG, "temperature": 0.0} | asked
    text, reason, calls = "", "", dict[int, list[str]]()
    with openai.OpenAI(api_key="x", base_url=f"{box.url}/v1", max_retries=0) as sdk:
        for chunk in sdk.chat.completions.create(model=model, messages=list(messages), stream=True, **asked):
            for choice in chunk.choices:
                text, reason = text + (choice.delta.content or ""), choice.finish_reason or reason
                for part in choice.delta.tool_calls or ():
                    assert part.function is not None
                    written = calls.setdefault(part.index, ["", ""])
                    written[0] += part.function.name or ""
                    written[1] += part.function.arguments or ""
    return reason, text, [(name, _read(arguments)) for name, arguments in calls.values()]


def by_anthropic(box: Stage, model: str = "local", messages: Sequence[Any] = QUESTION, **asked: Any) -> Said:
    asked = {"max_tokens": LONG, "extra_body": {"temperature": 0.0}} | asked
    written: dict[int, str] = {}
    with (
        anthropic.Anthropic(api_key="x", base_url=box.url, max_retries=0) as sdk,
        sdk.messages.stream(model=model, messages=messages, **asked) as stream,
    ):
        for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                written[event.index] = written.get(event.index, "") + event.delta.partial_json
        message = stream.get_final_message()
    ends = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(at, block) for at, block in enumerate(message.content) if block.type == "tool_use"]
    return ends[str(message.stop_reason)], text, [(block.name, _read(written[at])) for at, block in calls]


CLIENTS: dict[str, Callable[..., Said]] = {"openai": by_openai, "anthropic": by_anthropic}


def _read(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return None


def are_calls(said: Said, names: Sequence[str] = tuple(SCHEMAS), *, most: int = 99) -> None:
    """Every call is one of these tools', and what it was given is valid, but for the last one of an answer that was cut
    by its limit."""
    reason, _, calls = said
    assert 1 <= len(calls) <= most
    for at, (name, given) in enumerate(calls):
        assert name in names
        if given is None:
            assert (reason, at) == ("length", len(calls) - 1)
        else:
            Draft202012Validator(SCHEMAS[name]).validate(given)
    assert reason in ("tool_calls", "length")


# ---------------------------------------------------------------------------------------------------- who may call what


def asked(client: str, choice: str, *, single: bool = False) -> dict[str, Any]:
    wish = CHOICES[client][choice]
    if client == "openai":
        return {"tools": TOOLS[client], "tool_choice": wish} | ({"parallel_tool_calls": False} if single else {})
    return {"tools": TOOLS[client], "tool_choice": wish | ({"disable_parallel_tool_use": True} if single else {})}


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("choice", "names"), [("any", ("move", "note")), ("named", ("move",))])
def test_a_call_that_has_to_come_comes(box: Stage, client: str, choice: str, names: tuple[str, ...]) -> None:
    box.play()
    said = CLIENTS[client](box, **asked(client, choice), max_tokens=MANY)
    are_calls(said, names)
    assert said[1] == ""


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("choice", ["any", "named"])
def test_where_one_call_may_come_one_comes(box: Stage, client: str, choice: str) -> None:
    box.play()
    said = CLIENTS[client](box, **asked(client, choice, single=True))
    are_calls(said, most=1)
    assert said[0] == "tool_calls"


@pytest.mark.parametrize("client", DIALECTS)
def test_where_none_may_come_none_comes(box: Stage, client: str) -> None:
    box.play()
    reason, text, calls = CLIENTS[client](box, **asked(client, "none"), max_tokens=32)
    assert (reason in ("stop", "length"), bool(text), calls) == (True, True, [])


@pytest.mark.parametrize("client", DIALECTS)
def test_where_a_call_may_come_there_is_an_answer(box: Stage, client: str) -> None:
    box.play()
    said = CLIENTS[client](box, **asked(client, "auto"), max_tokens=64)
    if said[2]:
        are_calls(said)
    assert said[1] or said[2]


def test_the_helpers_of_openai_read_the_boxes_calls(box: Stage) -> None:
    box.play()
    with openai.OpenAI(api_key="x", base_url=f"{box.url}/v1", max_retries=0) as sdk:
        completion = sdk.chat.completions.parse(
            model="local",
            messages=QUESTION,
            tools=TOOLS["openai"],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=LONG,
        )
    (call,) = completion.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, move | note)


@pytest.mark.parametrize("stream", [True, False])
def test_the_runner_of_anthropic_calls_what_the_box_wants(box: Stage, stream: bool) -> None:
    box.play()
    done: list[Any] = []

    @anthropic.beta_tool(name="move", description="Moves the ship.", input_schema=SCHEMAS["move"])
    def moving(to: Literal["north", "south"], miles: int) -> str:
        done.append(move(to=to, miles=miles))
        return "The ship is there."

    with anthropic.Anthropic(api_key="x", base_url=box.url, max_retries=0) as sdk:
        runner: Any = sdk.beta.messages.tool_runner(
            model="local",
            max_tokens=LONG,
            tools=[moving],
            messages=QUESTION,
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            max_iterations=3,
            stream=stream,
            thread=False,
        )
        last = runner.until_done()
    assert len(done) == 3
    assert last.stop_reason == "tool_use"


# ---------------------------------------------------------------------------------------------------------- documents


def test_json_mode_gives_an_object(box: Stage) -> None:
    box.play()
    reason, text, _ = by_openai(box, response_format={"type": "json_object"}, max_tokens=128)
    assert text.lstrip().startswith("{")
    if reason != "length":
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_openais_client_gets_the_document_it_asked_for(box: Stage, streamed: bool) -> None:
    box.play()
    wish: dict[str, Any] = {"model": "local", "messages": QUESTION, "response_format": Report, "max_tokens": LONG}
    with openai.OpenAI(api_key="x", base_url=f"{box.url}/v1", max_retries=0) as sdk:
        if streamed:
            with sdk.chat.completions.stream(**wish) as stream:
                (choice,) = stream.get_final_completion().choices
        else:
            (choice,) = sdk.chat.completions.parse(**wish).choices
    assert (choice.finish_reason, isinstance(choice.message.parsed, Report)) == ("stop", True)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_anthropics_client_gets_the_document_it_asked_for(box: Stage, streamed: bool) -> None:
    box.play()
    wish: dict[str, Any] = {"model": "local", "messages": QUESTION, "output_format": Report, "max_tokens": LONG}
    with anthropic.Anthropic(api_key="x", base_url=box.url, max_retries=0) as sdk:
        if streamed:
            with sdk.messages.stream(**wish) as stream:
                message: Any = stream.get_final_message()
        else:
            message = sdk.messages.parse(**wish)
    assert (message.stop_reason, isinstance(message.parsed_output, Report)) == ("end_turn", True)


def test_where_a_call_has_to_come_and_a_document_at_the_end_a_call_comes(box: Stage) -> None:
    box.play()
    schema = {"name": "report", "strict": True, "schema": Report.model_json_schema()}
    wish = {"response_format": {"type": "json_schema", "json_schema": schema}}
    are_calls(by_openai(box, **asked("openai", "any", single=True), **wish), most=1)


# ------------------------------------------------------------------------------------------------------------ takeovers

BEGUN = r'{ "te\u0078t" :"caf\u00e9 \ud83c\udf0a \"\n", "kind": null,"metres":[-12.5e1, 0.25' + "\n"
DOCUMENT = r'{ "warm" : true, "t\u006fwn":"caf\u00e9 \ud83c\udf0a'


def places(written: str) -> dict[str, str]:
    """Halves of a document, cut where it hurts."""
    marks = {
        "before all": "",
        "in a key": '"te',
        "in an escape of a key": r"\u00",
        "behind a key": '" ',
        "behind a colon": ":",
        "in a string": "caf",
        "behind a backslash": "\\",
        "in a letter's number": r"\u00e",
        "between two surrogates": r"\ud83c",
        "behind the second backslash": "\\ud83c\\",
        "in the second surrogate": r"\ud83c\udf",
        "behind the wave": r"\udf0a",
        "behind an escaped quote": r"\"",
        "in a literal": "nul",
        "behind a minus": "-",
        "behind a point": "-12.",
        "behind an e": "5e",
        "in a number": "0.2",
        "behind a blank in an array": "0.25\n",
    }
    ends = {place: written.index(mark) + len(mark) for place, mark in marks.items() if mark in written}
    return {place: written[:end] for place, end in ends.items()}


def rotated(written: str) -> list[tuple[str, str, str]]:
    """Each place once, with one pair of dialects after the other."""
    pairs = cycle(product(DIALECTS, DIALECTS))
    return [(place, *next(pairs)) for place in places(written)]


def dying(script: Script) -> Act:
    """It says this, and dies."""

    async def act(exchange: Exchange) -> None:
        await exchange.open()
        for said in exchange.voice.story(script, exchange.id, usage=False):
            if said.stage in ("end", "done"):
                break
            if b"content_block_stop" not in said.data:
                await exchange.put(said.data)
        await exchange.reset()

    return act


@pytest.mark.parametrize(("place", "client", "cloud"), rotated(BEGUN))
def test_a_call_that_a_cloud_began_is_finished(box: Stage, place: str, client: str, cloud: str) -> None:
    half = places(BEGUN)[place]
    whole = Call(name="note", arguments="{}")
    box.play(dying(Script(text="I write.", calls=(replace(whole, arguments=half),))), api=cloud)
    reason, text, calls = CLIENTS[client](box, model="model-x", **asked(client, "auto", single=True))
    are_calls((reason, text, calls), ["note"], most=1)
    assert (reason, text) == ("tool_calls", "I write.")
    if "caf\\u00e9" in half:
        assert calls[0][1]["text"].startswith("caf\u00e9")
    if r"\udf0a" in half:
        assert calls[0][1]["text"].startswith("caf\u00e9 \U0001f30a")


@pytest.mark.parametrize(("client", "cloud"), list(product(DIALECTS, DIALECTS)))
def test_between_two_calls_the_box_goes_on(box: Stage, client: str, cloud: str) -> None:
    first = Call(name="move", arguments='{"miles": 3,"to":"south"}')
    for arguments in ("", '{"to": "nor'):
        calls = (first, Call(name="move", arguments=arguments))
        box.play(dying(Script(text="", calls=calls)), api=cloud)
        said = CLIENTS[client](box, model="model-x", **asked(client, "auto"), max_tokens=MANY)
        are_calls(said)
        assert said[2][0] == ("move", {"miles": 3, "to": "south"})
        assert said[2][1][0] == "move"


@pytest.mark.parametrize("client", DIALECTS)
def test_a_name_that_a_cloud_began_becomes_that_of_a_tool(box: Stage, client: str) -> None:
    box.play(dying(Script(text="I write.", calls=(Call(name="no", arguments=""),))), api="openai")
    said = CLIENTS[client](box, model="model-x", **asked(client, "auto", single=True))
    are_calls(said, ["note"], most=1)
    assert said[:2] == ("tool_calls", "I write.")


def test_a_name_that_is_the_beginning_of_no_tools_ends_in_an_error(box: Stage) -> None:
    for client in DIALECTS:
        box.play(dying(Script(calls=(Call(name="nota", arguments=""),))), api="openai")
        with pytest.raises((openai.APIError, anthropic.APIError), match="cannot go on from what was written"):
            CLIENTS[client](box, model="model-x", **asked(client, "auto"))


@pytest.mark.parametrize(("place", "client", "cloud"), rotated(DOCUMENT))
def test_a_document_that_a_cloud_began_is_finished(box: Stage, place: str, client: str, cloud: str) -> None:
    half = places(DOCUMENT)[place]
    box.play(dying(Script(text=half or " ")), api=cloud)
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "report", "strict": True, "schema": Report.model_json_schema()},
    }
    wish = {"response_format": schema} if client == "openai" else {"output_format": Report}
    reason, text, _ = CLIENTS[client](box, model="model-x", **wish)
    assert (reason, text[: len(half)]) == ("stop", half)
    assert Report.model_validate_json(text)


# ------------------------------------------------------------------------------------------------ what is read but once

BIG = [
    {
        "type": "function",
        "function": {"name": f"tool_{at}", "description": "Looks at it. " * 12, "parameters": SCHEMAS["note"]},
    }
    for at in range(3)
]


def read(box: Stage, messages: list[Any], *, max_tokens: int = 1) -> tuple[Any, int, int]:
    """The answer's turn, the tokens of the prompt, and how many of them nobody had to compute."""
    with openai.OpenAI(api_key="x", base_url=f"{box.url}/v1", max_retries=0) as sdk:
        completion = sdk.chat.completions.create(
            model="local",
            messages=messages,
            tools=BIG,
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=max_tokens,
            temperature=0.0,
        )
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    message = completion.choices[0].message.model_dump(exclude_none=True)
    return message, usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens or 0


def test_an_agents_tools_are_read_once(box: Stage) -> None:
    box.play()
    first: list[Any] = [{"role": "user", "content": "Look at the lamp, please."}]
    message, tokens, _ = read(box, first, max_tokens=LONG)
    (call,) = message["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "It burns."}
    _, longer, cached = read(box, [*first, message, result])
    print(f"the next round: {cached} of {longer} tokens were there")
    assert longer > tokens
    assert cached >= tokens - 8  # the turn that was open ends otherwise than a turn that is over
    _, other, shared = read(box, [{"role": "user", "content": "And what about the sea?"}])
    print(f"another conversation: {shared} of {other} tokens were there")
    assert shared >= other - 24


def test_an_agents_tools_are_read_while_the_cloud_answers(tmp_path: Path, starter_gguf: Path) -> None:
    """Standing by, the box reads them beside the cloud; taking over inside a call it has nothing to read."""
    script = Script(text="Hm. ", calls=(Call(name="tool_1", arguments='{"kind":"wi'),))

    async def act(exchange: Exchange) -> None:
        await exchange.open()
        story = exchange.voice.story(script, exchange.id, usage=False)
        for said in story[: max(at for at, said in enumerate(story) if said.piece) + 1]:
            await exchange.put(said.data)
            while said.text and not (await running.appliance.engine.stats())["standby_ready"]:
                await exchange.pause(0.05)
        await exchange.reset()

    local = LocalConfig(model=str(starter_gguf), context=1536, slots=1, standby="hot")
    with real_stage(tmp_path, starter_gguf, local=local, timeouts=TIMEOUTS) as running:
        running.play(act)
        with openai.OpenAI(api_key="x", base_url=f"{running.url}/v1", max_retries=0) as sdk:
            options: Any = {"include_usage": True}
            chunks = sdk.chat.completions.create(
                model="gpt-x", messages=QUESTION, tools=BIG, stream=True, max_tokens=32, stream_options=options
            )
            (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    print(f"at the takeover: {cached} of {usage.prompt_tokens} tokens were there")
    assert usage.prompt_tokens > 700
    assert cached == usage.prompt_tokens
