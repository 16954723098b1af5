"""Between OpenAI and Anthropic nothing that is meant gets lost: requests there and back, answers here and there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import ContentBlockParam
from anthropic.types import Message as TheirMessage
from anthropic.types.message_create_params import MessageCreateParamsBase as TheirParams
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as OpenAIParams
from pydantic import TypeAdapter

from appliance.core.chat import ChatRequest, Image, Message, Text, ToolCall, ToolChoice, ToolResult
from appliance.core.events import (
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.seams import Dialect, Quirks
from appliance.dialects import anthropic_in, openai_chat_fields
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.anthropic_reader import read

DOC = (Path(__file__).parent.parent.parent / "docs" / "translation.md").read_text()
CLAUDE, GPT = "claude-3-opus", "gpt-4o"
CAN_BE_TOLD = Quirks(effort=("*",))
# A busy machine is no failure.
SLOW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

# ------------------------------------------------------------------------------------------------- requests

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
NAMES = st.text("abc_-", min_size=1, max_size=8)
OBJECTS = st.dictionaries(NAMES, WORDS | st.integers(0, 9) | st.booleans(), max_size=2)
SCHEMAS = OBJECTS.map(lambda properties: {"type": "object", "properties": properties})
PICTURES = st.sampled_from(["https://example.org/a.png", "data:image/png;base64,aGk="])
CALLS = st.lists(st.tuples(NAMES, OBJECTS, WORDS, st.lists(PICTURES, max_size=1)), max_size=3)
"""Calls with what they gave: name, arguments, text, images."""
TURNS = st.lists(st.tuples(st.lists(WORDS | st.tuples(PICTURES), min_size=1, max_size=3), WORDS, CALLS), max_size=3)
"""What the user says in texts and images, what the assistant answers, and the calls it makes behind it."""
TOOLS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "description": WORDS, "schema": SCHEMAS, "strict": st.sampled_from([True])}),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: str(tool["name"]),
)


@st.composite
def wishes(draw: st.DrawFn) -> dict[str, Any]:
    """What both dialects can say, in the words of neither."""
    return {
        "system": draw(st.lists(WORDS, max_size=2)),
        "turns": draw(TURNS),
        "last": draw(WORDS),
        "tools": draw(TOOLS),
        "choice": draw(st.sampled_from([None, "auto", "none", "required", "named"])),
        "parallel": draw(st.sampled_from([None, True, False])),
        "stop": draw(st.lists(WORDS, max_size=4)),
        "limit": draw(st.integers(1, 99)),
        "temperature": draw(st.none() | st.floats(0, 0.9)),
        "stream": draw(st.booleans()),
        "schema": draw(st.none() | SCHEMAS),
        "effort": draw(st.sampled_from([None, "low", "medium", "high"])),
        "user": draw(st.none() | WORDS),
    }


def from_openai(wish: dict[str, Any]) -> bytes:
    messages: list[dict[str, Any]] = [{"role": "system", "content": text} for text in wish["system"]]
    for at, (said, answer, calls) in enumerate(wish["turns"]):
        parts = [
            {"type": "text", "text": one}
            if isinstance(one, str)
            else {"type": "image_url", "image_url": {"url": one[0]}}
            for one in said
        ]
        made = [
            {
                "id": f"call {at}.{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for number, (name, given, _, _) in enumerate(calls)
        ]
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": answer, "tool_calls": made or None})
        for number, (_, _, text, pictures) in enumerate(calls):
            content = [{"type": "text", "text": text}]
            content += [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
            messages.append({"role": "tool", "tool_call_id": f"call {at}.{number}", "content": content})
    messages.append({"role": "user", "content": wish["last"]})
    named = {"type": "function", "function": {"name": wish["tools"][0]["name"]}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": wish["schema"]}}
    body = {
        "model": GPT,
        "messages": messages,
        "tools": [
            {
                "type": "function",
                "function": {key: tool[key] for key in ("name", "description", "strict")}
                | {"parameters": tool["schema"]},
            }
            for tool in wish["tools"]
        ],
        "tool_choice": named if wish["choice"] == "named" else wish["choice"],
        "parallel_tool_calls": wish["parallel"],
        "stop": wish["stop"],
        "max_tokens": wish["limit"],
        "temperature": wish["temperature"],
        "stream": wish["stream"],
        "response_format": form if wish["schema"] else None,
        "reasoning_effort": wish["effort"],
        "user": wish["user"],
    }
    return json.dumps(body).encode()


def from_anthropic(wish: dict[str, Any]) -> bytes:
    def image(url: str) -> dict[str, Any]:
        kind, _, base64 = url.removeprefix("data:").partition(";base64,")
        inline = {"type": "base64", "media_type": kind, "data": base64}
        return {"type": "image", "source": inline if base64 else {"type": "url", "url": url}}

    messages: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for at, (said, answer, calls) in enumerate(wish["turns"]):
        blocks = [{"type": "text", "text": one} if isinstance(one, str) else image(one[0]) for one in said]
        made = [
            {"type": "tool_use", "id": f"toolu_{'x' * 50}{at}{number}", "name": name, "input": given}
            for number, (name, given, _, _) in enumerate(calls)
        ]
        thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
        messages.append({"role": "user", "content": results + blocks})
        messages.append({"role": "assistant", "content": [thought, {"type": "text", "text": answer}, *made]})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": f"toolu_{'x' * 50}{at}{number}",
                "content": [{"type": "text", "text": text}, *map(image, pictures)],
            }
            for number, (_, _, text, pictures) in enumerate(calls)
        ]
    messages.append({"role": "user", "content": [*results, {"type": "text", "text": wish["last"]}]})
    choice: dict[str, Any] = {
        "type": {"required": "any", "named": "tool", None: "auto"}.get(wish["choice"], wish["choice"])
    }
    if wish["choice"] == "named":
        choice["name"] = wish["tools"][0]["name"]
    if wish["parallel"] is not None:
        choice["disable_parallel_tool_use"] = not wish["parallel"]
    config = {"effort": wish["effort"]} if wish["effort"] else {}
    body = {
        "model": CLAUDE,
        "system": [{"type": "text", "text": text} for text in wish["system"]],
        "messages": messages,
        "tools": [
            {key: tool[key] for key in ("name", "description", "strict")} | {"input_schema": tool["schema"]}
            for tool in wish["tools"]
        ],
        "tool_choice": choice,
        "stop_sequences": wish["stop"],
        "max_tokens": wish["limit"],
        "temperature": wish["temperature"],
        "stream": wish["stream"],
        "output_config": config
        | ({"format": {"type": "json_schema", "schema": wish["schema"]}} if wish["schema"] else {}),
        "metadata": {"user_id": wish["user"]},
    }
    return json.dumps(body).encode()


def meant(request: ChatRequest) -> dict[str, Any]:
    """What a request means, however it is divided into messages and whatever its calls are called."""
    ids: dict[str, int] = {}  # calls by number; a result without its call is an error
    told: list[tuple[str, Any]] = []
    shown: list[tuple[str, Any]] = []  # what tools showed besides their text: the user shows it behind the results
    for message in request.messages:
        if message.role not in ("tool", "system"):
            told, shown = told + shown, []
        for kind, what in [item for part in message.parts for item in _told(message, part, ids)]:
            (shown if message.role == "tool" and kind == "image" else told).append((kind, what))
    choice = request.tool_choice or ToolChoice("auto")
    return {
        "told": _joined(told + shown),
        "tools": [(tool.name, tool.description, dict(tool.parameters), tool.strict) for tool in request.tools],
        "choice": choice,
        "parallel": None if choice.kind == "none" else request.parallel_tools,
        "stop": request.stop,
        "limit": request.max_tokens,
        "temperature": request.sampling.temperature,
        "stream": request.stream,
        "schema": request.format and request.format.schema,
        "effort": request.effort,
        "user": request.user,
    }


def _told(message: Message, part: object, ids: dict[str, int]) -> Iterable[tuple[str, Any]]:
    match part:
        case Text(text=text):
            yield message.role, text
        case Image(url=url):
            yield "image", url
        case ToolCall(id=id, name=name, arguments=arguments):
            yield "call", (ids.setdefault(id, len(ids)), name, json.loads(arguments))
        case ToolResult(id=id, text=text):
            yield "result", (ids[id], text)


def _joined(told: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Texts that follow each other are one, with a line's end between if it is not the assistant who speaks."""
    found: list[tuple[str, Any]] = []
    for kind, what in told:
        if found and found[-1][0] == kind and kind in ("system", "user", "assistant"):
            found[-1] = (kind, found[-1][1] + ("" if kind == "assistant" else "\n") + what)
        else:
            found.append((kind, what))
    return found


MESSAGE: TypeAdapter[Any] = TypeAdapter(ChatCompletionMessageParam)
BLOCK: TypeAdapter[Any] = TypeAdapter(ContentBlockParam)


def valid_openai(body: bytes) -> None:
    found = json.loads(body)
    assert found.keys() <= OpenAIParams.__annotations__.keys() | {"stream"}
    for message in found["messages"]:
        MESSAGE.validate_python(message)


def valid_anthropic(body: bytes) -> None:
    found = json.loads(body)
    assert found.keys() <= TheirParams.__annotations__.keys() | {"stream", "temperature"}  # older models take it
    assert [message["role"] for message in found["messages"]][::2] == ["user"] * (len(found["messages"]) // 2 + 1)
    for message in found["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            BLOCK.validate_python(block)


@SLOW
@given(wish=wishes())
def test_what_a_client_of_openai_means_is_what_it_meant_after_a_way_through_anthropic(wish: dict[str, Any]) -> None:
    request = OPENAI.parse(from_openai(wish))
    assert (request.foreign, request.unsaid, ANTHROPIC.objection(request)) == ((), (), None)
    there = ANTHROPIC.render(request, CLAUDE, CAN_BE_TOLD)
    valid_anthropic(there)
    back = OPENAI.render(ANTHROPIC.parse(there), GPT, CAN_BE_TOLD)
    valid_openai(back)
    assert meant(ANTHROPIC.parse(there)) == meant(request)
    assert meant(OPENAI.parse(back)) == meant(request)


@SLOW
@given(wish=wishes())
def test_what_a_client_of_anthropic_means_is_what_it_meant_after_a_way_through_openai(wish: dict[str, Any]) -> None:
    request = ANTHROPIC.parse(from_anthropic(wish))
    assert (request.foreign, request.unsaid, OPENAI.objection(request)) == ((), (), None)
    there = OPENAI.render(request, GPT, CAN_BE_TOLD)
    valid_openai(there)
    back = ANTHROPIC.render(OPENAI.parse(there), CLAUDE, CAN_BE_TOLD)
    valid_anthropic(back)
    assert meant(OPENAI.parse(there)) == meant(request)
    assert meant(ANTHROPIC.parse(back)) == meant(request)


# -------------------------------------------------------------------------------------------------- answers

PIECES = st.lists(WORDS, min_size=1, max_size=4)
COUNTS = st.tuples(*[st.integers(0, 50)] * 5)
SAID = st.lists(st.tuples(st.sampled_from(["text", "reasoning"]), PIECES), max_size=4)
MADE = st.lists(
    st.tuples(st.text("abcXYZ123", min_size=9, max_size=9), NAMES, OBJECTS), max_size=3, unique_by=lambda c: c[0]
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """An answer of a cloud, with its calls one behind the other or, as some do it, all at once."""
    fresh, read_, written, said, thought = draw(COUNTS)
    usage = Usage(
        prompt_tokens=fresh + read_ + written,
        completion_tokens=said + thought,
        cached_tokens=read_,
        cache_written_tokens=written,
        reasoning_tokens=thought,
    )
    events: list[Event] = [Started(id="answer-1", model="m", created=7)]
    for kind, pieces in draw(SAID):
        events += [TextDelta(text=one) if kind == "text" else ReasoningDelta(text=one) for one in pieces]
    calls = draw(MADE)
    starts: list[Event] = [ToolCallStart(index=at, id=id, name=name) for at, (id, name, _) in enumerate(calls)]
    deltas: list[list[Event]] = []
    for at, (_, _, given_) in enumerate(calls):
        text = json.dumps(given_) if given_ else ""
        cut = draw(st.integers(0, len(text)))
        deltas.append([ToolCallDelta(index=at, arguments=piece) for piece in (text[:cut], text[cut:]) if piece])
    if draw(st.booleans()):
        events += starts + [one for row in itertools.zip_longest(*deltas) for one in row if one is not None]
    else:
        events += [one for start, rest in zip(starts, deltas, strict=True) for one in (start, *rest)]
    reasons = ["tool_calls"] if calls else ["stop", "length", "content_filter"]
    return [*events, Finish(reason=draw(st.sampled_from(reasons))), usage]


def summed_up(events: Sequence[Event]) -> dict[str, Any]:
    """An answer as a reader sums it up."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, ToolCallStart):
            calls[event.index] = [event.id, event.name, ""]
        elif isinstance(event, ToolCallDelta):
            calls[event.index][2] += event.arguments
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "reasoning": "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "calls": [(id, name, json.loads(arguments or "{}")) for id, name, arguments in calls.values()],
        "named": [(event.id, event.model) for event in events if isinstance(event, Started)],
        "finish": [event.reason for event in events if isinstance(event, Finish)],
        "usage": [replace(event, wire=None) for event in events if isinstance(event, Usage)][-1:],
    }


def asked_by(dialect: Dialect) -> ChatRequest:
    message = Message(role="user", parts=(Text("hi"),))
    return ChatRequest(dialect=dialect.name, model="m", messages=(message,), stream=True, include_usage=True)


def streamed(dialect: Dialect, batches: Iterable[Sequence[Event]]) -> bytes:
    encoder = dialect.encoder(asked_by(dialect), id="ours", created=1)
    return b"".join(encoder.encode(batch) for batch in batches) + encoder.close()


def batches(dialect: Dialect, stream: bytes, places: list[int]) -> list[list[Event]]:
    """The stream's events, as they come out when it is cut there."""
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    decoder = dialect.decoder()
    return [*[decoder.feed(stream[start:stop]) for start, stop in itertools.pairwise(edges)], decoder.close()]


def chunks(stream: bytes) -> list[dict[str, Any]]:
    blocks = [block.removeprefix("data: ") for block in stream.decode().split("\n\n") if block]
    assert blocks.pop() == "[DONE]"
    found = [json.loads(block) for block in blocks]
    for chunk in found:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return found


VALID: dict[str, Callable[[bytes], object]] = {"openai": chunks, "anthropic": read}
TYPES: dict[str, Any] = {"openai": ChatCompletion, "anthropic": TheirMessage}
PAIRS = [(OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI)]
PLACES = st.lists(st.integers(min_value=0), max_size=10)


@pytest.mark.parametrize(("cloud", "client"), PAIRS, ids=["openai cloud", "anthropic cloud"])
@SLOW
@given(events=answers(), cuts=PLACES, more_cuts=PLACES)
def test_a_streamed_answer_says_the_same_in_the_other_dialect(
    cloud: Dialect, client: Dialect, events: list[Event], cuts: list[int], more_cuts: list[int]
) -> None:
    theirs = streamed(cloud, [events])
    VALID[cloud.name](theirs)
    ours = streamed(client, batches(cloud, theirs, cuts))
    VALID[client.name](ours)
    back = [event for batch in batches(client, ours, more_cuts) for event in batch]
    assert summed_up(back) == summed_up(events)


@pytest.mark.parametrize(("cloud", "client"), PAIRS, ids=["openai cloud", "anthropic cloud"])
@SLOW
@given(events=answers())
def test_a_whole_answer_says_the_same_in_the_other_dialect(
    cloud: Dialect, client: Dialect, events: list[Event]
) -> None:
    theirs = cloud.encode_whole(asked_by(cloud), events, id="x", created=1)
    ours = client.encode_whole(asked_by(client), cloud.decode_whole(theirs), id="x", created=1)
    for dialect, body in ((cloud, theirs), (client, ours)):
        TYPES[dialect.name].model_validate_json(body, strict=True)
    assert summed_up(client.decode_whole(ours)) == summed_up(events)


def test_a_refusal_of_openai_is_read_as_text_by_a_client_of_anthropic() -> None:
    refusing: list[Event] = [
        *OPENAI.decoder().feed(b'data: {"id":"a","choices":[{"index":0,"delta":{"refusal":"I will not."}}]}\n\n'),
        Finish(reason="stop"),
    ]
    assert Opaque(content=True, text="I will not.") in [replace(event, wire=None) for event in refusing]
    assert read(streamed(ANTHROPIC, [refusing])).joined("text") == "I will not."


def test_two_texts_of_one_anthropic_answer_are_one_content() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"id": "m", "type": "message", "model": "c", "content": blocks, "stop_reason": "end_turn"}
    events = ANTHROPIC.decode_whole(json.dumps(body).encode())
    whole = json.loads(OPENAI.encode_whole(asked_by(OPENAI), events, id="x", created=1))
    assert whole["choices"][0]["message"]["content"] == "ab"


# ------------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(
    "name",
    sorted(
        openai_chat_fields.SAID
        | openai_chat_fields.EFFORT_FIELDS
        | openai_chat_fields.FOREIGN.keys()
        | openai_chat_fields.UNSAID.keys()
    ),
)
def test_what_becomes_of_a_field_of_openai_is_told(name: str) -> None:
    section = DOC.partition("## A client of OpenAI")[2].partition("\n## ")[0]
    assert f"`{name}`" in section


@pytest.mark.parametrize("name", sorted(anthropic_in.SAID | {*anthropic_in.MATTERS, "top_k", "cache_control"}))
def test_what_becomes_of_a_field_of_anthropic_is_told(name: str) -> None:
    section = DOC.partition("## A client of Anthropic")[2].partition("\n## ")[0]
    assert f"`{name}`" in section
