"""What a next leg is told the client has, and when nobody else can go on from it."""

import pytest

from appliance.core.chat import (
    BlockStart,
    BlockStop,
    Finish,
    Message,
    Opaque,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.given import Given


def noted(*events, choices=1):
    given = Given(choices)
    for event in events:
        given.note(event)
    return given


def parts(given):
    return given.message().parts


def test_words_of_one_kind_are_one_part_and_kinds_keep_their_order():
    given = noted(
        ReasoningDelta(text="Let me "),
        ReasoningDelta(text="think."),
        TextDelta(text="It is "),
        TextDelta(text="so."),
        ReasoningDelta(text="Is it?"),
        TextDelta(text=" Yes."),
    )
    assert given.message() == Message(
        role="assistant", parts=(Reasoning("Let me think."), Text("It is so."), Reasoning("Is it?"), Text(" Yes."))
    )
    assert given.characters == sum(map(len, ("Let me think.", "It is so.", "Is it?", " Yes.")))


def test_each_event_says_how_many_characters_it_is():
    given = Given()
    assert [
        given.note(event) for event in (TextDelta(text="é🌊"), ReasoningDelta(text="a"), Finish(reason="stop"))
    ] == [
        2,
        1,
        0,
    ]


def test_empty_words_are_no_part():
    assert parts(noted(TextDelta(text=""), ReasoningDelta(text=""), TextDelta(text=""))) == ()


@pytest.mark.parametrize(
    "event",
    [
        ToolCallStart(index=0, id="c", name="look"),
        ToolCallDelta(index=0, arguments="{"),
        Opaque(content=True),
        TextDelta(text="a", choice=1),
    ],
    ids=repr,
)
def test_nobody_else_can_go_on_from_this(event):
    assert not noted(TextDelta(text="a"), event).continuable


@pytest.mark.parametrize(
    "event",
    [
        Opaque(content=False),
        Opaque(content=True, closed=True),
        BlockStart(index=0, kind="other"),
        BlockStop(index=0),
        Usage(prompt_tokens=1, completion_tokens=1),
        TextDelta(text="", choice=1),
    ],
    ids=repr,
)
def test_behind_this_others_can_go_on(event):
    assert noted(TextDelta(text="a"), event).continuable


def test_several_choices_are_never_gone_on_with():
    assert not noted(choices=2).continuable
