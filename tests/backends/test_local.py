"""Requests become the engine's words, and its frames become events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from appliance.backends.asked import UNREAD_DOCUMENT, UNSEEN_IMAGE
from appliance.backends.following import Following, inert
from appliance.backends.local import LocalBackend
from appliance.core.chat import ChatRequest, Foreign, Image, Message, Part, Reasoning, Role, Text, Tool, ToolCall
from appliance.core.events import (
    Degraded,
    Event,
    Finish,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.frames import Frame

pytestmark = pytest.mark.anyio


def said(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def asked(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(dialect="openai", model="gpt", messages=messages or (said("user", Text("Hi")),), **more)


def begun(trimmed: int = 0) -> Frame:
    return {"op": "begun", "id": 1, "prompt_tokens": 9, "cached_tokens": 0, "committed_tokens": 0, "trimmed": trimmed}


FINISH: Frame = {
    "op": "finish", "id": 1, "reason": "stop", "prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4,
}  # fmt: skip
STARTED = Started(id="", model="starter", created=0)
READ = Usage(prompt_tokens=9, completion_tokens=0)
USED = Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4)


class Scripted:
    def __init__(self, *batches: list[Frame]) -> None:
        self.batches = batches
        self.jobs: list[Mapping[str, Any]] = []
        self.closed = False

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]:
        self.jobs.append(job)
        try:
            for batch in self.batches:
                yield batch
        finally:
            self.closed = True

    async def count(self, job: Mapping[str, Any]) -> int:
        self.jobs.append(job)
        return 42

    def follow(self, job: Mapping[str, Any], *, mode: str, suspicion: float) -> Following:
        self.jobs.append(job)
        return inert(1)


async def answer(engine: Scripted, request: ChatRequest) -> list[Sequence[Event]]:
    return [list(events) async for events in LocalBackend(engine, "starter").stream(request, "gpt")]


async def test_frames_become_events_batch_by_batch() -> None:
    text = [{"op": "text", "id": 1, "text": "Hel"}, {"op": "text", "id": 1, "text": "lo"}]
    assert await answer(Scripted([begun()], text, [FINISH]), asked()) == [
        [STARTED, READ],
        [TextDelta(text="Hel"), TextDelta(text="lo")],
        [Finish(reason="stop"), USED],
    ]


async def test_a_full_answer_says_so() -> None:
    batches = await answer(Scripted([begun(), FINISH | {"reason": "length"}]), asked())
    assert Finish(reason="length") in batches[0]


async def test_what_the_engine_cannot_keep_to_is_said_to_be_degraded() -> None:
    lost = {**begun(), "lost": ["tools.look", "response_format"]}
    batches = await answer(Scripted([lost, FINISH]), asked())
    told = [event.what for batch in batches for event in batch if isinstance(event, Degraded)]
    assert told == ["tools.look", "response_format"]


async def test_a_trimmed_conversation_is_said_to_be_degraded() -> None:
    batches = await answer(Scripted([begun(trimmed=2), FINISH]), asked(trim=True))
    assert batches[0][:3] == [STARTED, READ, Degraded(what="context")]


async def test_an_image_is_said_to_be_unseen_and_a_line_stands_in_its_place() -> None:
    engine = Scripted([begun(), FINISH])
    batches = await answer(engine, asked(said("user", Text("What is this?"), Image("data:..."))))
    assert batches[0][:3] == [STARTED, READ, Degraded(what="images")]
    assert engine.jobs[0]["messages"] == [{"role": "user", "content": f"What is this?\n{UNSEEN_IMAGE}"}]


async def test_a_document_is_said_to_be_unread_and_a_line_stands_in_its_place() -> None:
    engine = Scripted([begun(trimmed=1), FINISH])
    batches = await answer(engine, asked(said("user", Foreign("document"), Text("Sum it up."), Image("data:..."))))
    assert batches[0][:5] == [STARTED, READ, *(Degraded(what=what) for what in ("images", "documents", "context"))]
    assert engine.jobs[0]["messages"][0]["content"] == f"{UNREAD_DOCUMENT}\nSum it up.\n{UNSEEN_IMAGE}"


async def test_the_stop_string_it_ran_into_is_told() -> None:
    batches = await answer(Scripted([begun(), FINISH | {"stop": "END"}]), asked(stop=("END",)))
    assert Finish(reason="stop", stop="END") in batches[0]


async def test_everything_the_model_would_read_is_counted_tools_and_its_own_beginning_too() -> None:
    engine = Scripted()
    tool = Tool(name="weather", description="Ask für it.", parameters={"type": "object"})
    request = asked(said("user", Text("Hi")), said("assistant", Text("Hel")), tools=(tool,))
    assert await LocalBackend(engine, "starter").count(replace(request, dialect="anthropic")) == 42
    assert engine.jobs == [
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "committed": "Hel",
            "prefill": 3,
            "tools": [
                {"name": "weather", "description": "Ask für it.", "parameters": {"type": "object"}, "strict": False}
            ],
            "choice": "auto",
            "parallel": True,
            "format": None,
            "effort": None,
            "lenient": True,
        }
    ]


@pytest.mark.parametrize(
    ("frame", "fault", "status", "more"),
    [
        ({"fault": "busy"}, Fault.BUSY, 503, {"retry_after": 1.0}),
        ({"fault": "too_long"}, Fault.TOO_LONG, 400, {"code": "context_length_exceeded"}),
        ({"fault": "request", "param": "logit_bias"}, Fault.REQUEST, 400, {"param": "logit_bias"}),
        ({"fault": "server"}, Fault.SERVER, 500, {}),
    ],
)
async def test_error_frames_are_sorted_by_what_we_do_next(
    frame: Frame, fault: Fault, status: int, more: dict[str, Any]
) -> None:
    engine = Scripted([{"op": "error", "id": 1, "message": "A sentence with 9 and 8.", **frame}])
    with pytest.raises(BackendError, match=r"A sentence with 9 and 8\.") as caught:
        await answer(engine, asked())
    assert (caught.value.fault, caught.value.status) == (fault, status)
    assert {name: getattr(caught.value, name) for name in more} == more


async def test_what_came_before_an_error_in_the_same_batch_is_given_out_first() -> None:
    text = {"op": "text", "id": 1, "text": "half"}
    error = {"op": "error", "id": 1, "fault": "server", "message": "Broken."}
    got: list[Event] = []
    with pytest.raises(BackendError):
        async for events in LocalBackend(Scripted([begun(), text, error]), "starter").stream(asked(), "gpt"):
            got += events
    assert got == [STARTED, READ, TextDelta(text="half")]


async def test_closing_the_answer_closes_the_engines() -> None:
    engine = Scripted([begun()], [FINISH])
    stream = LocalBackend(engine, "starter").stream(asked(), "gpt")
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        await anext(stream)
    assert engine.closed


@pytest.mark.parametrize("thought", [Reasoning("hm"), Foreign("redacted_thinking")])
async def test_earlier_thinking_is_nothing_that_is_done_less_well(thought: Part) -> None:
    request = asked(said("assistant", Text("a"), thought), said("user", Text("z")))
    assert await answer(Scripted([begun(), FINISH]), request) == [[STARTED, READ, Finish(reason="stop"), USED]]


# ---------------------------------------------------------------------------------------- what the engine says of calls


async def test_thoughts_and_calls_become_events_under_the_indices_the_engine_gives() -> None:
    frames: list[Frame] = [
        {"op": "reasoning", "id": 1, "text": "hm"},
        {"op": "call", "id": 1, "index": 2, "name": "look"},
        {"op": "arguments", "id": 1, "index": 2, "text": '{"a"'},
        {"op": "arguments", "id": 1, "index": 2, "text": ":1}"},
    ]
    assert await answer(Scripted([begun()], frames, [FINISH | {"reason": "tool_calls"}]), asked()) == [
        [STARTED, READ],
        [
            ReasoningDelta(text="hm"),
            ToolCallStart(index=2, id="", name="look"),
            ToolCallDelta(index=2, arguments='{"a"'),
            ToolCallDelta(index=2, arguments=":1}"),
        ],
        [Finish(reason="tool_calls"), USED],
    ]


async def test_half_a_call_goes_on_without_a_new_beginning() -> None:
    frames: list[Frame] = [begun(), {"op": "arguments", "id": 1, "index": 0, "text": "1}"}]
    [events] = await answer(Scripted(frames), asked())
    assert events == [STARTED, READ, ToolCallDelta(index=0, arguments="1}")]


async def test_the_rest_of_a_name_is_no_new_beginning() -> None:
    frames: list[Frame] = [begun(), {"op": "name", "id": 1, "index": 0, "name": "ok"}]
    [events] = await answer(Scripted(frames), asked())
    assert events == [STARTED, READ, ToolCallDelta(index=0, arguments="", name="ok")]


async def test_it_is_followed_with_its_tools_and_the_words_before_the_first_call() -> None:
    engine = Scripted()
    half = said("assistant", Reasoning("hm"), Text("I look."), ToolCall(id="1", name="look", arguments='{"a'))
    tool = Tool(name="look", description="", parameters={"type": "object"})
    request = asked(tools=(tool,), trim=True, max_tokens=3, committed=half)
    LocalBackend(engine, "starter").follow(request, suspicion=0.5)
    assert engine.jobs == [
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "committed": "I look.",
            "prefill": 0,
            "tools": [{"name": "look", "description": "", "parameters": {"type": "object"}, "strict": False}],
            "choice": "auto",
            "parallel": True,
            "format": None,
            "effort": None,
            "trim": True,
            "lenient": True,
        }
    ]
