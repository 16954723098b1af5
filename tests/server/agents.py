"""An agent's errand in three rounds of tools, the clouds and the box that know it, and the official clients that run
it.

The errand is known beforehand: what the cloud says in each round, and what its tools answer. So whoever dies wherever,
what the application gets must be what an undisturbed cloud would have said, letter by letter.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import anthropic
import openai
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict

from appliance.core.chat import ChatRequest, ToolCall
from appliance.core.events import Event, Finish, Started, TextDelta, ToolCallDelta, ToolCallStart, Usage
from appliance.drills.cloud import Act, Call, Exchange, Script
from tests.fakes import ScriptedLocal, Stage

MODEL = {"openai": "gpt-x", "anthropic": "claude-x"}
QUESTION = "Look after the lighthouse."


# ------------------------------------------------------------------------------------------------------- the tools


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class look(Strict):
    """Looks at a place."""

    at: str
    metres: list[float]


class wait(Strict):
    """Waits."""

    seconds: int


class note(Strict):
    """Writes into the book."""

    kind: Literal["wind", "ship"]
    text: str
    again: bool | None


class Report(Strict):
    """What the errand came to."""

    done: bool
    words: str


TOOLS: tuple[type[Strict], ...] = (look, wait, note)
SCHEMAS = {tool.__name__: tool.model_json_schema() for tool in TOOLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    text: str = ""
    calls: tuple[Call, ...] = ()


def _call(at: str, tool: Strict, **layout: Any) -> Call:
    written = json.dumps(tool.model_dump(), **layout)
    return Call(name=type(tool).__name__, arguments=written, id=at)


SPOKEN = (
    Round(
        text="I look at it.",
        calls=(_call("toolu_00", look(at='caf\u00e9 "\U0001f30a"', metres=[-1500.0, 0.25]), indent=1),),
    ),
    Round(
        text="Two things.",
        calls=(
            _call("toolu_10", wait(seconds=12), separators=(",", ":")),
            _call("toolu_11", look(at="the sea", metres=[]), ensure_ascii=False),
        ),
    ),
    Round(calls=(_call("toolu_20", note(kind="ship", text="a \\ and \u2028 \U0001f6a2", again=None)),)),
    Round(text="All is well: the lamp burns."),
)
"""The errand: three rounds of tools, and what is said at the end."""
DOCUMENT = Report(done=True, words="the lamp burns, caf\u00e9")
FORMAL = (*(replace(each, text="") for each in SPOKEN[:3]), Round(text=DOCUMENT.model_dump_json()))
"""The same with nothing beside the calls, and a document at the end."""
MADE = [[(call.name, json.loads(call.arguments)) for call in each.calls] for each in SPOKEN[:3]]
"""What the application is to be asked to do, round by round."""


@dataclass(slots=True)
class Desk:
    """The application: it does what it is asked to do, and writes it down."""

    done: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def do(self, name: str, arguments: dict[str, Any]) -> str:
        Draft202012Validator(SCHEMAS[name]).validate(arguments)
        self.done.append((name, arguments))
        return f"result {len(self.done)} of {name}"


# ----------------------------------------------------------------------------------------------- who knows the errand


def turn(messages: Sequence[Any]) -> int:
    """The round that is to come, by a conversation in the words of either wire."""
    return sum(message["role"] == "assistant" for message in messages)


@dataclass(frozen=True, slots=True)
class Cut:
    """In which round the cloud dies, and after how many pieces of content; `None`: before its head."""

    round: int
    pieces: int | None


def pieces(said: Round) -> list[str]:
    """Where a cloud can die in this round, in words, by the number of pieces it has said."""
    script = Script(text=said.text, calls=said.calls)
    places = ["before the first token", *("in the text" for _ in script.pieces)]
    for call in said.calls:
        fragments = len(call.fragments)
        places += ["behind the name", *("in the arguments" for _ in range(fragments - 1)), "behind the arguments"]
    return places


def cuts(errand: Sequence[Round], *, every: bool = False) -> list[Cut]:
    """Each place of each round: one of a run of like ones, or every single one."""
    found = [Cut(round, None) for round in range(len(errand))]
    for round, said in enumerate(errand):
        places = pieces(said)
        for at, place in enumerate(places):
            # The last of a run is the one before another begins; there are at least two pieces in each text.
            if every or at + 1 == len(places) or places[at + 1] != place:
                found.append(Cut(round, at))
    return found


def dying(errand: Sequence[Round], cut: Cut | None) -> Act:
    """A cloud that knows the errand, and dies in one of its rounds."""

    async def act(exchange: Exchange) -> None:
        at = turn(exchange.asked.fields["messages"])
        said = errand[at]
        exchange.script = script = Script(text=said.text, calls=said.calls)
        if cut is None or cut.round != at:
            await whole(exchange, script)
            return
        if cut.pieces is None:
            await exchange.reset()
        elif not exchange.asked.streams:
            body = exchange.whole()
            await exchange.half(200, body, cut.pieces * len(body) // len(pieces(said)))
            await exchange.reset()
        else:
            await exchange.open()
            left = cut.pieces
            for event in exchange.voice.story(script, exchange.id, usage=False):
                if left == 0 and (event.piece or event.stage in ("end", "done")):
                    break
                left -= event.piece
                await exchange.put(event.data)
            await exchange.reset()

    return act


async def whole(exchange: Exchange, script: Script) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, exchange.whole(), headers=exchange.voice.headers)
        return
    await exchange.open()
    for event in exchange.voice.story(script, exchange.id, usage=True):
        await exchange.put(event.data)
    await exchange.end()


class Knowing(ScriptedLocal):
    """A box that knows the errand too, and says what is left of the round that somebody else began."""

    errand: Sequence[Round] = SPOKEN

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        self.asked.append(request)
        said = self.errand[sum(message.role == "assistant" for message in request.messages)]
        begun = request.committed.parts if request.committed is not None else ()
        made = [part for part in begun if isinstance(part, ToolCall)]
        text = request.committed.text if request.committed is not None else ""
        assert said.text.startswith(text)
        yield [Started(id="", model=model, created=0)]
        if not made:
            yield [TextDelta(text=piece) for piece in Script(text=said.text[len(text) :]).pieces]
        for index, call in enumerate(said.calls):
            known = ""
            if index < len(made):
                assert (made[index].name, call.arguments.startswith(made[index].arguments)) == (call.name, True)
                known = made[index].arguments
            else:
                yield [ToolCallStart(index=index, id="", name=call.name)]
            for piece in replace(call, arguments=call.arguments[len(known) :]).fragments:
                yield [ToolCallDelta(index=index, arguments=piece)]
        yield [Finish(reason="tool_calls" if said.calls else "stop"), Usage(prompt_tokens=9, completion_tokens=9)]


# ----------------------------------------------------------------------------------------------- the official clients

OPENAI_TOOLS: list[Any] = [openai.pydantic_function_tool(tool) for tool in TOOLS]
ANTHROPIC_TOOLS: list[Any] = [
    {"name": tool.__name__, "description": tool.__doc__, "input_schema": SCHEMAS[tool.__name__]} for tool in TOOLS
]
Client = Callable[[str, Desk], Any]
"""Runs the errand at this address, and gives what is said at the end."""


def _openai(url: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="x", base_url=f"{url}/v1", max_retries=0)


def _anthropic(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="x", base_url=url, max_retries=0)


def _looping(url: str, desk: Desk, answer: Callable[[openai.OpenAI, list[Any]], dict[str, Any]]) -> str:
    """The loop that everybody writes around OpenAI's client."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with _openai(url) as sdk:
        while (message := answer(sdk, messages)).get("tool_calls"):
            messages.append(message)
            for call in message["tool_calls"]:
                result = desk.do(call["function"]["name"], json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return str(message["content"])


def openai_create(url: str, desk: Desk) -> str:
    def answer(sdk: openai.OpenAI, messages: list[Any]) -> dict[str, Any]:
        said = sdk.chat.completions.create(model=MODEL["openai"], messages=messages, tools=OPENAI_TOOLS)
        (choice,) = said.choices
        assert choice.finish_reason == ("tool_calls" if choice.message.tool_calls else "stop")
        return choice.message.model_dump(exclude_none=True)

    return _looping(url, desk, answer)


def openai_create_streamed(url: str, desk: Desk) -> str:
    """The chunks put together by hand, by the index of each call."""

    def answer(sdk: openai.OpenAI, messages: list[Any]) -> dict[str, Any]:
        text, calls, ends = "", dict[int, dict[str, Any]](), list[str]()
        stream = sdk.chat.completions.create(
            model=MODEL["openai"], messages=messages, tools=OPENAI_TOOLS, stream=True, parallel_tool_calls=True
        )
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                ends += [choice.finish_reason] if choice.finish_reason else []
                for part in choice.delta.tool_calls or ():
                    assert part.function is not None
                    if part.index not in calls:
                        function = {"name": part.function.name, "arguments": ""}
                        calls[part.index] = {"id": part.id, "type": "function", "function": function}
                    calls[part.index]["function"]["arguments"] += part.function.arguments or ""
        assert ends == ["tool_calls" if calls else "stop"]
        assert list(calls) == list(range(len(calls)))
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        return message | ({"tool_calls": list(calls.values())} if calls else {})

    return _looping(url, desk, answer)


def _parsing(url: str, desk: Desk, *, streamed: bool) -> Report:
    """The helpers, with models of pydantic for the tools and for the end."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    asked: dict[str, Any] = {"model": MODEL["openai"], "tools": OPENAI_TOOLS, "response_format": Report}
    with _openai(url) as sdk:
        while True:
            if streamed:
                with sdk.chat.completions.stream(messages=messages, **asked) as stream:
                    done = [event.name for event in stream if event.type == "tool_calls.function.arguments.done"]
                    message = stream.get_final_completion().choices[0].message
                assert done == [call.function.name for call in message.tool_calls or ()]
            else:
                message = sdk.chat.completions.parse(messages=messages, **asked).choices[0].message
            if not message.tool_calls:
                assert isinstance(message.parsed, Report)
                return message.parsed
            messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
            for call in message.tool_calls:
                parsed = call.function.parsed_arguments
                assert isinstance(parsed, Strict)
                result = desk.do(call.function.name, parsed.model_dump())
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def _messages(url: str, desk: Desk, *, streamed: bool) -> str:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    asked: dict[str, Any] = {"model": MODEL["anthropic"], "max_tokens": 256, "tools": ANTHROPIC_TOOLS}
    with _anthropic(url) as sdk:
        while True:
            if streamed:
                with sdk.messages.stream(messages=messages, **asked) as stream:
                    message: Any = stream.get_final_message()
            else:
                message = sdk.messages.create(messages=messages, **asked)
            used = [block for block in message.content if block.type == "tool_use"]
            assert message.stop_reason == ("tool_use" if used else "end_turn")
            if not used:
                return "".join(block.text for block in message.content)
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": desk.do(block.name, block.input)}
                for block in used
            ]
            messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]


def runnable(desk: Desk) -> list[Any]:
    """The tools as functions, as Anthropic's runner wants them; it checks what they are given against their types."""

    @anthropic.beta_tool(name="look", description="Looks at a place.", input_schema=SCHEMAS["look"])
    def looking(at: str, metres: list[float]) -> str:
        return desk.do("look", {"at": at, "metres": metres})

    @anthropic.beta_tool(name="wait", description="Waits.", input_schema=SCHEMAS["wait"])
    def waiting(seconds: int) -> str:
        return desk.do("wait", {"seconds": seconds})

    @anthropic.beta_tool(name="note", description="Writes into the book.", input_schema=SCHEMAS["note"])
    def noting(kind: Literal["wind", "ship"], text: str, again: bool | None) -> str:
        return desk.do("note", {"kind": kind, "text": text, "again": again})

    return [looking, waiting, noting]


def anthropic_runner(url: str, desk: Desk, *, threaded: bool = False, **more: Any) -> str:
    """The runner of tools: over the whole history in each turn or, as it does by itself, over a conversation that the
    cloud keeps."""
    with _anthropic(url) as sdk:
        runner = sdk.beta.messages.tool_runner(
            model=MODEL["anthropic"],
            max_tokens=256,
            tools=runnable(desk),
            messages=[{"role": "user", "content": QUESTION}],
            **({} if threaded else {"thread": False}),
            **more,
        )
        last = runner.until_done()
    assert last.stop_reason == "end_turn"
    return "".join(block.text for block in last.content if block.type == "text")


CLIENTS: dict[str, Client] = {
    "openai create, whole": openai_create,
    "openai create, streamed": openai_create_streamed,
    "openai stream, parsed": partial(_parsing, streamed=True),
    "openai parse": partial(_parsing, streamed=False),
    "anthropic create, whole": partial(_messages, streamed=False),
    "anthropic stream": partial(_messages, streamed=True),
    "anthropic runner, whole": anthropic_runner,
    "anthropic runner, streamed": partial(anthropic_runner, stream=True),
    # It does not wait for the end of an answer, and calls a tool as soon as its block has ended.
    "anthropic runner, eager": partial(anthropic_runner, stream=True, run_tools_eagerly=True),
}
PARSED = ("openai stream, parsed", "openai parse")
"""Those that want a document at the end."""
WHOLE = ("openai create, whole", "openai parse", "anthropic create, whole", "anthropic runner, whole")


# -------------------------------------------------------------------------------------------------------- what is shown


def is_well_kept(asked: dict[str, Any], api: str) -> None:
    """Each result in a request stands directly behind the turn that called for it, under its id; none is missing."""
    open_calls: list[str] = []
    seen: set[str] = set()
    for message in asked["messages"]:
        called, answered = _ids(message, api)
        if answered:
            assert set(answered) <= set(open_calls)
            open_calls = [id for id in open_calls if id not in answered]
        else:
            assert not open_calls
        assert not seen & set(called)
        seen |= set(called)
        open_calls += called
    assert not open_calls


def _ids(message: dict[str, Any], api: str) -> tuple[list[str], list[str]]:
    if api == "openai":
        results = [message["tool_call_id"]] if message["role"] == "tool" else []
        return [call["id"] for call in message.get("tool_calls") or ()], results
    blocks = message["content"] if isinstance(message["content"], list) else []
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return called, [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]


def runs(box: Stage, client: str, cloud: str, cut: Cut | None, **changes: Any) -> Desk:
    """The errand with a cloud that dies there: what the application was asked to do, after all that must hold of it."""
    errand = FORMAL if client in PARSED else SPOKEN
    local = box.local
    assert isinstance(local, Knowing)
    local.errand = errand
    local.asked.clear()
    box.play(dying(errand, cut), api=cloud, **changes)
    desk = Desk()
    end = CLIENTS[client](box.url, desk)
    assert end == (DOCUMENT if client in PARSED else SPOKEN[-1].text), (client, cloud, cut)
    assert desk.done == [called for each in MADE for called in each], (client, cloud, cut)
    for exchange in box.cloud.chats:
        is_well_kept(json.loads(exchange.asked.body), cloud)
    return desk
