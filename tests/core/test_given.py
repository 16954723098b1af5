"""What a next leg is told the client has, and when nobody else can go on from it."""

import pytest

from appliance.core.chat import Message, Reasoning, Text, ToolCall
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Finish,
    Opaque,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
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
        ToolCallDelta(index=0, arguments="{"),
        ToolCallDelta(index=-1, arguments="{"),
        ToolCallStart(index=0, id="c", name=""),
        ToolCallStart(index=1, id="c", name="look"),
        ToolCallStart(index=0, id="c", name="look", choice=1),
        ToolCallDelta(index=0, arguments="{", choice=1),
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
        ToolCallStart(index=0, id="c", name="look"),
    ],
    ids=repr,
)
def test_behind_this_others_can_go_on(event):
    assert noted(TextDelta(text="a"), event).continuable


# ------------------------------------------------------------------------------------------------------------ calls


def begins(index, id="c"):
    return ToolCallStart(index=index, id=id, name="look")


def argues(index, arguments):
    return ToolCallDelta(index=index, arguments=arguments)


def test_calls_are_parts_in_their_order_and_the_last_is_perhaps_half_written():
    given = noted(
        ReasoningDelta(text="hm"),
        TextDelta(text="I look."),
        begins(0, "c1"),
        argues(0, '{"a"'),
        argues(0, ":1}"),
        TextDelta(text="And."),
        begins(1, ""),
        argues(1, '{"b": "\\u00'),
    )
    assert parts(given) == (
        Reasoning("hm"),
        Text("I look."),
        ToolCall(id="c1", name="look", arguments='{"a":1}'),
        Text("And."),
        ToolCall(id="", name="look", arguments='{"b": "\\u00'),
    )
    assert (given.continuable, given.called, given.spoken) == (True, True, False)


def test_arguments_are_characters_and_names_are_none():
    given = Given()
    said = [given.note(event) for event in (TextDelta(text="é"), begins(0), argues(0, '{"a'), argues(0, ""))]
    assert (said, given.characters) == ([1, 0, 3, 0], 4)


def test_words_alone_hold_no_call():
    assert not noted(TextDelta(text="a")).called
    assert noted(begins(0)).called


@pytest.mark.parametrize("behind", [TextDelta(text="a"), ReasoningDelta(text="a"), begins(1)], ids=repr)
@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        ('{"a":1}', True),
        (" {} ", True),
        ("", True),
        (" ", True),
        ('{"a":1', False),
        ("{}}", False),
        ("[" * 9999, False),
    ],
)
def test_what_is_not_last_must_be_whole(arguments, whole, behind):
    given = noted(begins(0), argues(0, arguments))
    assert given.continuable
    given.note(behind)
    assert given.continuable == whole


def test_calls_that_are_told_in_turns_can_be_gone_on_with_once_only_the_last_is_open():
    given = noted(begins(0), argues(0, '{"a'), begins(1))
    seen = [given.continuable]
    for event in (argues(1, '{"b'), argues(0, '":1}'), argues(1, '":2}')):
        given.note(event)
        seen.append(given.continuable)
    assert seen == [False, False, True, True]
    assert [part.arguments for part in parts(given)] == ['{"a":1}', '{"b":2}']


def test_what_cannot_be_continued_never_can():
    assert not noted(begins(1), begins(2), argues(2, "{}")).continuable


def test_several_choices_are_never_gone_on_with():
    assert not noted(choices=2).continuable


@pytest.mark.parametrize(("dialect", "continuable"), [("anthropic", False), ("openai", True)])
def test_nobody_adds_to_a_block_that_the_client_knows_to_be_complete(dialect, continuable):
    given = Given(1, dialect)
    for event in (
        ToolCallStart(index=0, id="1", name="f"),
        ToolCallDelta(index=0, arguments='{"a'),
        BlockStop(index=0, wire=Wire("anthropic", b"x")),
    ):
        given.note(event)
    assert given.continuable is continuable


def test_behind_a_whole_call_whose_block_is_complete_others_go_on():
    given = Given(1, "anthropic")
    for event in (
        ToolCallStart(index=0, id="1", name="f"),
        ToolCallDelta(index=0, arguments='{"a": 1}'),
        BlockStop(index=0, wire=Wire("anthropic", b"x")),
        TextDelta(text="So"),
        BlockStop(index=1, wire=Wire("anthropic", b"x")),
    ):
        given.note(event)
    assert given.continuable


def test_a_name_that_comes_in_pieces_is_one():
    given = noted(
        ToolCallStart(index=0, id="1", name="get_"),
        ToolCallDelta(index=0, arguments="", name="weather"),
        ToolCallDelta(index=0, arguments='{"a'),
    )
    assert (parts(given), given.characters) == ((ToolCall(id="1", name="get_weather", arguments='{"a'),), 3)


@pytest.mark.parametrize(
    ("events", "half"),
    [
        ([ToolCallStart(index=0, id="1", name="get_", wire=Wire("openai", b"x"))], True),
        ([ToolCallStart(index=0, id="1", name="get_", wire=Wire("openai", b"x")), argues(0, "")], True),
        ([ToolCallStart(index=0, id="1", name="get_", wire=Wire("openai", b"x")), argues(0, " ")], False),
        ([begins(0)], False),
        (
            [
                BlockStart(index=0, kind="tool_call", wire=Wire("anthropic", b"x")),
                ToolCallStart(index=0, id="1", name="get_", wire=Wire("anthropic", b"")),
            ],
            False,
        ),
    ],
)
def test_a_clouds_name_may_not_be_whole_until_an_argument_comes_and_where_blocks_begin_it_is(events, half):
    given = noted(*events)
    [call] = parts(given)
    assert (call.half, given.continuable) == (half, True)
