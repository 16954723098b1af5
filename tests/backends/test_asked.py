"""What the engine is asked, in its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.backends.asked import FAILED, UNSEEN_IMAGE, job
from appliance.core.chat import (
    ChatRequest,
    Foreign,
    Image,
    JsonFormat,
    Message,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

HIDDEN = Foreign("redacted_thinking")
CALL = ToolCall(id="1", name="f", arguments="{}")


def said(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def asked(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(dialect="openai", model="gpt", messages=messages or (said("user", Text("Hi")),), **more)


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
        "tools": [],
        "choice": "auto",
        "parallel": True,
        "format": None,
        "lenient": False,
        "effort": None,
        "max_tokens": 5,
        "stop": ["END"],
        "trim": True,
        "sampling": {"temperature": 0.0, "seed": 3, "logit_bias": [[1, 2.0]]},
        "logprobs": None,
    }


def test_each_of_several_answers_has_a_seed_of_its_own_if_there_is_one() -> None:
    request = asked(sampling=Sampling(seed=3), n=3, logprobs=2)
    assert [job(request, choice)["sampling"] for choice in range(3)] == [{"seed": 3}, {"seed": 4}, {"seed": 5}]
    assert job(request)["logprobs"] == 2
    assert job(asked(n=3), 2)["sampling"] == {}


def test_calls_and_their_results_are_told_apart_from_the_text_and_reasoning_is_left_out() -> None:
    call = ToolCall(id="1", name="weather", arguments='{"city":"Paris"}')
    request = asked(
        said("assistant", Reasoning("Let me think."), Text("I look it up."), call),
        said("tool", ToolResult(id="1", text="sunny")),
        said("tool", ToolResult(id="2", text="nobody asked")),
    )
    assert job(request)["messages"] == [
        {
            "role": "assistant",
            "content": "I look it up.",
            "tool_calls": [{"id": "1", "name": "weather", "arguments": '{"city":"Paris"}'}],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "1", "name": "weather"},
        {"role": "tool", "content": "nobody asked", "tool_call_id": "2"},
    ]


def test_each_result_is_a_turn_of_its_own_with_the_images_it_gave() -> None:
    parts = (Text("See:"), ToolResult(id="1", text="a"), Image("data:..."), ToolResult(id="2", text="", failed=True))
    assert [(turn["role"], turn["content"]) for turn in job(asked(said("user", *parts)))["messages"]] == [
        ("user", "See:"),
        ("tool", f"a\n{UNSEEN_IMAGE}"),
        ("tool", FAILED),
    ]


@pytest.mark.parametrize("role", ["user", "system"])
def test_the_parts_of_what_somebody_says_stand_on_lines_of_their_own(role: Role) -> None:
    request = asked(said(role, Text("<reminder>"), Text("Next?"), Image("data:..."), Text("And why?")))
    assert job(request)["messages"][0]["content"] == f"<reminder>\nNext?\n{UNSEEN_IMAGE}\nAnd why?"


def test_a_tool_that_failed_is_told_as_such() -> None:
    request = asked(said("tool", ToolResult(id="1", text="no such city", failed=True)))
    assert job(request)["messages"][0]["content"] == f"{FAILED}\nno such city"


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


# ------------------------------------------------------------------------------------------------ tools and forms

LOOK = Tool(name="look", description="Where?", parameters={"type": "object"}, strict=True)


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ({}, {"tools": [], "choice": "auto", "parallel": True, "format": None}),
        (
            {"tools": (LOOK,)},
            {
                "tools": [{"name": "look", "description": "Where?", "parameters": {"type": "object"}, "strict": True}],
                "choice": "auto",
                "lenient": False,
            },
        ),
        *[({"tool_choice": ToolChoice(kind)}, {"choice": kind}) for kind in ("auto", "none", "required")],
        ({"tool_choice": ToolChoice("named", "look")}, {"choice": {"name": "look"}}),
        ({"parallel_tools": True}, {"parallel": True}),
        ({"parallel_tools": False}, {"parallel": False}),
        ({"format": JsonFormat()}, {"format": {"schema": None, "strict": False}}),
        ({"lenient": True}, {"lenient": True}),
        ({"format": JsonFormat(schema={"a": 1}, name="n")}, {"format": {"schema": {"a": 1}, "strict": False}}),
        ({"format": JsonFormat(schema={"a": 1}, strict=True)}, {"format": {"schema": {"a": 1}, "strict": True}}),
        ({"effort": "low"}, {"effort": "low"}),
        ({"grammar": 'root ::= "a"'}, {"format": {"grammar": 'root ::= "a"'}}),
    ],
)
def test_tools_and_forms_are_told_as_they_were_asked_for(asks: dict[str, Any], told: dict[str, Any]) -> None:
    found = job(asked(**asks))
    assert {name: found[name] for name in told} == told


# ------------------------------------------------------------------------------------------------- half a call

HALF_CALL = ToolCall(id="1", name="look", arguments='{"a')
HALF_NAME = ToolCall(id="1", name="lo", arguments="", half=True)
CALLED = {"call": {"name": "look", "arguments": '{"a'}}
WHOLE_CALL = ToolCall(id="0", name="find", arguments='{"b":1}')
FOUND = {"call": {"name": "find", "arguments": '{"b":1}'}}


@pytest.mark.parametrize(
    ("parts", "committed"),
    [
        ((HALF_CALL,), [CALLED]),
        ((Reasoning("hm"), HALF_CALL), [CALLED]),
        ((Text("I "), Reasoning("hm"), Text("look."), WHOLE_CALL, HALF_CALL), [{"text": "I look."}, FOUND, CALLED]),
        ((WHOLE_CALL, Text("And?")), [FOUND, {"text": "And?"}]),
        ((replace(WHOLE_CALL, arguments=""),), [{"call": {"name": "find", "arguments": ""}}]),
        ((HALF_NAME,), [{"call": {"name": "lo", "arguments": "", "half": True}}]),
        ((HALF_NAME, HALF_CALL), [{"call": {"name": "lo", "arguments": "{}"}}, CALLED]),
        ((replace(WHOLE_CALL, arguments=" "), HALF_CALL), [{"call": {"name": "find", "arguments": "{}"}}, CALLED]),
    ],
)
def test_what_holds_a_call_is_committed_in_parts(parts: tuple[Part, ...], committed: list[dict[str, Any]]) -> None:
    told = job(asked(committed=said("assistant", *parts)))
    assert (told["committed"], told["first"]) == (committed, True)


@pytest.mark.parametrize(
    ("parts", "committed"),
    [
        ((HALF_CALL,), [{"text": "Well, I"}, CALLED]),
        ((Text(" look."), HALF_CALL), [{"text": "Well, I look."}, CALLED]),
    ],
)
def test_a_clients_own_beginning_stands_before_the_call(
    parts: tuple[Part, ...], committed: list[dict[str, Any]]
) -> None:
    told = job(replace(asked(*HALF, committed=said("assistant", *parts)), dialect="anthropic"))
    assert (told["committed"], told["prefill"], len(told["messages"])) == (committed, 7, 1)


@pytest.mark.parametrize("thought", [Reasoning("hm"), HIDDEN])
@pytest.mark.parametrize(
    ("parts", "read"), [((Text("a"), Text("b")), "ab"), ((Text("a"), CALL, Text("b"), Text("c")), "a\nbc"), ((), "")]
)
def test_earlier_thinking_changes_nothing_that_is_read(thought: Part, parts: tuple[Part, ...], read: str) -> None:
    for at in range(len(parts) + 1):
        turn = job(asked(said("assistant", *parts[:at], thought, *parts[at:])))["messages"][0]
        assert (turn["role"], turn["content"]) == ("assistant", read)
