"""Requests become the engine's words, and its frames become events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from appliance.backends.local import UNREAD_DOCUMENT, UNSEEN_IMAGE, LocalBackend, declared, job
from appliance.core.chat import (
    BackendError,
    ChatRequest,
    Degraded,
    Event,
    Fault,
    Finish,
    Foreign,
    Image,
    Message,
    Part,
    Reasoning,
    Role,
    Sampling,
    Started,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
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
            "tools": ['{"name": "weather", "description": "Ask für it.", "parameters": {"type": "object"}}'],
        }
    ]
    assert declared(tool) == engine.jobs[0]["tools"][0]


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


def test_a_request_is_told_with_everything_that_matters() -> None:
    request = asked(
        said("system", Text("Be"), Text("kind.")),
        said("user", Text("Hi")),
        max_tokens=5,
        stop=("END",),
        trim=True,
        sampling=Sampling(temperature=0.0, seed=3, logit_bias=((1, 2.0),)),
        committed=said("assistant", Reasoning("hm"), Text("Hel")),
    )
    assert job(request) == {
        "messages": [{"role": "system", "content": "Be\nkind."}, {"role": "user", "content": "Hi"}],
        "committed": "Hel",
        "prefill": 0,
        "first": True,
        "max_tokens": 5,
        "stop": ["END"],
        "trim": True,
        "sampling": {"temperature": 0.0, "seed": 3, "logit_bias": [[1, 2.0]]},
    }


def test_tools_are_told_as_text_and_reasoning_is_left_out() -> None:
    call = ToolCall(id="1", name="weather", arguments='{"city":"Paris"}')
    request = asked(
        said("assistant", Reasoning("Let me think."), Text("I look it up."), call),
        said("tool", ToolResult(id="1", text="sunny")),
    )
    assert [message["content"] for message in job(request)["messages"]] == [
        'I look it up.\n[Called the tool weather with {"city":"Paris"}]',
        "[The tool answered: sunny]",
    ]


@pytest.mark.parametrize("role", ["user", "system"])
def test_the_parts_of_what_somebody_says_stand_on_lines_of_their_own(role: Role) -> None:
    request = asked(said(role, Text("<reminder>"), Text("Next?"), Image("data:..."), Text("And why?")))
    assert job(request)["messages"][0]["content"] == f"<reminder>\nNext?\n{UNSEEN_IMAGE}\nAnd why?"


HIDDEN = Foreign("redacted_thinking")
CALL = ToolCall(id="1", name="f", arguments="{}")


@pytest.mark.parametrize("thought", [Reasoning("hm"), HIDDEN])
@pytest.mark.parametrize(
    ("parts", "read"),
    [
        ((Text("a"), Text("b")), "ab"),
        ((Text("a"), CALL, Text("b"), Text("c")), "a\n[Called the tool f with {}]\nbc"),
        ((), ""),
    ],
)
async def test_earlier_thinking_changes_nothing_that_is_read(thought: Part, parts: tuple[Part, ...], read: str) -> None:
    for at in range(len(parts) + 1):
        engine = Scripted([begun(), FINISH])
        request = asked(said("assistant", *parts[:at], thought, *parts[at:]), said("user", Text("z")))
        assert await answer(engine, request) == [[STARTED, READ, Finish(reason="stop"), USED]], (
            "nothing is done less well"
        )
        assert engine.jobs[0]["messages"][0] == {"role": "assistant", "content": read}


def test_a_tool_that_failed_is_told_as_such() -> None:
    request = asked(said("tool", ToolResult(id="1", text="no such city", failed=True)))
    assert job(request)["messages"][0]["content"] == "[The tool failed: no such city]"


def test_without_committed_text_nothing_is_committed() -> None:
    told = job(asked())
    assert (told["committed"], told["prefill"], told["first"]) == (None, 0, False)


def test_of_reasoning_and_text_in_any_order_the_text_is_gone_on_from() -> None:
    begun = said("assistant", Reasoning("hm"), Text("Hel"), Reasoning("yes"), Text("lo"))
    assert job(asked(committed=begun))["committed"] == "Hello"


def test_who_was_cut_while_thinking_is_answered_from_the_start_before_those_who_wait() -> None:
    told = job(asked(committed=said("assistant", Reasoning("hm"))))
    assert (told["committed"], told["first"]) == ("", True)


HALF = (said("user", Text("Hi")), said("assistant", Text("Well, "), Text("I")))


@pytest.mark.parametrize(
    ("committed", "whole", "first"),
    [(None, "Well, I", False), (" think", "Well, I think", True), ("", "Well, I", True)],
)
def test_an_anthropic_clients_half_answer_is_gone_on_with(committed: str | None, whole: str, first: bool) -> None:
    begun = None if committed is None else said("assistant", Text(committed))
    told = job(replace(asked(*HALF, committed=begun), dialect="anthropic"))
    assert told["messages"] == [{"role": "user", "content": "Hi"}]
    assert (told["committed"], told["prefill"], told["first"]) == (whole, 7, first)


@pytest.mark.parametrize("thought", [Reasoning("hm"), HIDDEN])
@pytest.mark.parametrize(
    ("committed", "whole"), [(None, "Well, I"), ((Text(" th"), Reasoning("so"), Text("ink")), "Well, I think")]
)
def test_what_an_anthropic_client_lets_it_think_before_its_half_answer_is_no_part_of_it(
    thought: Part, committed: tuple[Part, ...] | None, whole: str
) -> None:
    begun = None if committed is None else said("assistant", *committed)
    last = said("assistant", thought, Text("Well, "), thought, Text("I"))
    told = job(replace(asked(HALF[0], last, committed=begun), dialect="anthropic"))
    assert told["messages"] == [{"role": "user", "content": "Hi"}]
    assert (told["committed"], told["prefill"]) == (whole, 7)


def test_only_text_is_gone_on_with_and_only_in_that_dialect() -> None:
    call = ToolCall(id="1", name="weather", arguments="{}")
    for request in (
        asked(*HALF),
        replace(asked(HALF[0], said("assistant", Text("I"), call)), dialect="anthropic"),
        replace(asked(HALF[0]), dialect="anthropic"),
        replace(asked(), messages=(), dialect="anthropic"),
    ):
        told = job(request)
        assert (told["committed"], told["prefill"], len(told["messages"])) == (None, 0, len(request.messages))
