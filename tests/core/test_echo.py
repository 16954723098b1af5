"""A second answer counts only if it begins as the first one did: conversations with the echo."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.chat import Message, Reasoning, Text
from appliance.core.echo import Echo
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Finish,
    Opaque,
    Opened,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.given import Given

START = Started(id="c2", model="m", created=7)
USED = Usage(prompt_tokens=9, completion_tokens=3)
ENDED = Finish(reason="stop")
PING = Opaque(content=False, wire=Wire("anthropic", b": ping"))


def text(words, **more):
    return TextDelta(text=words, **more)


def thought(words, **more):
    return ReasoningDelta(text=words, **more)


def has(*parts):
    return Message(role="assistant", parts=parts)


HELLO = has(Text("Hello wor"))
THOUGHTFUL = has(Reasoning("Hm. So."), Text("It is"))


def heard(committed, *events):
    echo = Echo(committed, name="claude")
    return [event for each in events for event in echo.feed([each])]


def refused(committed, *events):
    """Which of the events made it another answer?"""
    echo = Echo(committed, name="claude")
    for index, event in enumerate(events):
        try:
            echo.feed([event])
        except BackendError as error:
            assert (error.fault, error.message) == (Fault.BROKEN, "claude gave another answer the second time.")
            return index
    return None


def test_what_repeats_is_kept_back_and_the_rest_is_heard():
    assert heard(HELLO, text("Hello "), text("wor"), text("ld!"), ENDED) == [text("ld!"), ENDED]


def test_a_piece_that_reaches_across_is_cut_and_loses_its_bytes():
    whole = text("Hello world!", wire=Wire("openai", b"data: ..."))
    assert heard(HELLO, whole) == [text("ld!")]


def test_what_comes_behind_keeps_its_bytes():
    later = text("ld!", wire=Wire("openai", b"data: ..."))
    assert heard(HELLO, text("Hello wor"), later) == [later]


def test_one_batch_is_as_good_as_many():
    echo = Echo(HELLO)
    assert echo.feed([START, text("Hel"), text("lo world"), text("!"), ENDED]) == [START, text("ld"), text("!"), ENDED]


def test_who_has_nothing_hears_everything():
    signed = Opaque(content=False, wire=Wire("anthropic", b"signature"))
    everything = [START, BlockStart(index=0, kind="text"), text("a"), signed, ENDED]
    for nothing in (has(), has(Text(""))):
        assert heard(nothing, *everything) == everything


def test_to_end_where_the_first_was_cut_is_an_end():
    assert heard(HELLO, text("Hello wor"), ENDED) == [ENDED]


def test_reasoning_is_repeated_before_the_text():
    assert heard(THOUGHTFUL, thought("Hm. "), thought("So."), text("It is so.")) == [text(" so.")]


def test_reasoning_may_be_what_goes_on():
    assert heard(has(Reasoning("Hm.")), thought("Hm. So."), text("Yes.")) == [thought(" So."), text("Yes.")]


def test_text_may_begin_where_the_reasoning_was_cut():
    assert heard(has(Reasoning("Hm.")), thought("Hm."), text("Yes.")) == [text("Yes.")]


@pytest.mark.parametrize(
    ("committed", "events", "index"),
    [
        (HELLO, [text("Hello "), text("Wor")], 1),
        (HELLO, [text("Hello wOrld")], 0),
        (HELLO, [text(" Hello wor")], 0),
        (HELLO, [thought("Hello wor")], 0),
        (HELLO, [text("Hello wo"), text("r", choice=1)], 1),
        (HELLO, [text("Hello wo"), ENDED], 1),
        (HELLO, [ENDED], 0),
        (HELLO, [START, text("Hello "), ToolCallStart(index=0, id="c", name="look")], 2),
        (HELLO, [ToolCallDelta(index=0, arguments="{")], 0),
        (HELLO, [text("Hello "), Opaque(content=True, closed=True)], 1),
        (HELLO, [BlockStart(index=0, kind="other")], 0),
        (HELLO, [BlockStart(index=0, kind="tool_call")], 0),
        (THOUGHTFUL, [thought("Hm. So. But")], 0),
        (THOUGHTFUL, [thought("Hm. "), text("It is")], 1),
        (THOUGHTFUL, [thought("Hm. So."), thought("It is")], 1),
        (THOUGHTFUL, [text("It is")], 0),
        (THOUGHTFUL, [thought("Hm. So."), ENDED], 1),
    ],
)
def test_this_is_another_answer(committed, events, index):
    assert refused(committed, *events) == index


def test_what_is_of_the_answer_as_a_whole_goes_through_at_once():
    opened = Opened(headers=(("request-id", "r"),))
    assert heard(HELLO, opened, START, USED, text("Hello"), USED) == [opened, START, USED, USED]


def test_pings_and_empty_pieces_are_nothing():
    assert heard(HELLO, PING, text(""), thought(""), text("Hello"), PING, text(" world")) == [text("ld")]


def test_of_the_blocks_only_the_one_is_told_in_which_it_goes_on():
    blocks = [
        BlockStart(index=0, kind="reasoning", wire=Wire("anthropic", b"start")),
        thought("Hm. So."),
        Opaque(content=False, wire=Wire("anthropic", b"signature")),
        BlockStop(index=0),
        BlockStart(index=1, kind="text", wire=Wire("anthropic", b"start")),
        text("It is"),
        text(" so."),
        BlockStop(index=1),
    ]
    assert heard(THOUGHTFUL, *blocks) == [BlockStart(index=1, kind="text"), text(" so."), BlockStop(index=1)]


def test_a_block_that_ended_before_is_not_told():
    blocks = [BlockStart(index=0, kind="text"), text("Hello "), BlockStop(index=0), text("wor"), text("ld")]
    assert heard(HELLO, *blocks) == [text("ld")]


def test_a_signature_of_thinking_that_was_begun_by_the_first_answer_is_not_told_and_later_ones_are():
    signature = Opaque(content=False, wire=Wire("anthropic", b"signature"))
    first, second = BlockStart(index=0, kind="reasoning"), BlockStart(index=1, kind="reasoning")
    events = [first, thought("Hm."), signature, BlockStop(index=0), second, thought("So."), signature]
    assert heard(has(Reasoning("Hm.")), *events) == [first, BlockStop(index=0), second, thought("So."), signature]


def test_it_tells_when_everything_was_repeated():
    echo = Echo(THOUGHTFUL)
    echo.feed([thought("Hm. "), thought("So.")])
    assert not echo.repeated
    echo.feed([text("It is")])
    assert echo.repeated


# ------------------------------------------------------------------------------------- whatever is said, however cut

WORDS = st.text(alphabet="ab é🌊\n", max_size=6)
SAYINGS = st.lists(st.tuples(st.sampled_from([TextDelta, ReasoningDelta]), WORDS), max_size=8)


def events_of(sayings):
    return [kind(text=words) for kind, words in sayings]


def message_of(events):
    given = Given()
    for event in events:
        given.note(event)
    return given.message()


def letters(events):
    """An answer as its letters, each with its kind."""
    return [(type(event), letter) for event in events for letter in event.text]


@pytest.mark.long
@given(SAYINGS, st.data())
def test_any_answer_cut_anywhere_is_gone_on_with_from_exactly_there(sayings, data):
    said = letters(events_of(sayings))
    cut = data.draw(st.integers(0, len(said)))
    committed = message_of([kind(text=letter) for kind, letter in said[:cut]])
    assert letters(heard(committed, *events_of(sayings))) == said[cut:]


@pytest.mark.long
@given(SAYINGS, SAYINGS)
def test_what_is_heard_continues_what_there_was_or_it_is_another_answer(first, second):
    had, says = letters(events_of(first)), letters(events_of(second))
    committed, answer = message_of(events_of(first)), [*events_of(second), ENDED]
    if says[: len(had)] == had:
        assert had + letters(heard(committed, *answer)[:-1]) == says
    else:
        assert refused(committed, *answer) is not None
