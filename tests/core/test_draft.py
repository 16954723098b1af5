"""What there is of an answer, what of it waits, and whose bytes go with what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.core.draft import Draft
from appliance.core.events import (
    BlockStart,
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallStart,
    Usage,
    Wire,
)

FIRST = Started(id="a", model="m", created=1)
BYTES, REST = Wire("openai", b"data: {...}\n\n"), Wire("openai", b"")
SECOND = Started(id="b", model="n", created=2, wire=BYTES)


def drafted(*events: Event) -> Draft:
    draft = Draft()
    for event in events:
        draft.add(event)
    return draft


@pytest.mark.parametrize(
    "event",
    [
        TextDelta(text="a", choice=1),
        ReasoningDelta(text="a", choice=1),
        ToolCallStart(index=0, id="c", name="f", choice=1),
    ],
)
def test_content_is_of_its_choice(event: Event) -> None:
    draft = drafted(event)
    assert (draft.content, draft.seen, draft.ended, draft.over) == (True, {1}, set(), False)


@pytest.mark.parametrize("event", [Opaque(content=True), BlockStart(index=0, kind="other")])
def test_content_that_names_no_choice_is_of_the_first(event: Event) -> None:
    assert drafted(event).seen == {0}


@pytest.mark.parametrize("event", [FIRST, TextDelta(text=""), Usage(prompt_tokens=1, completion_tokens=1)])
def test_what_is_no_content_waits_and_is_none(event: Event) -> None:
    draft = drafted(event)
    assert (draft.content, draft.seen, draft.held) == (False, set(), [event])


def test_it_knows_who_has_ended_and_whether_the_stream_is_over() -> None:
    draft = drafted(Finish(reason="stop", choice=2))
    assert (draft.ended, draft.over, draft.content) == ({2}, False, False)
    draft.add(Opaque(content=False, over=True))
    assert (draft.over, draft.content) == (True, False)


def test_what_was_let_go_waits_no_longer() -> None:
    draft = drafted(FIRST, TextDelta(text="a"))
    assert draft.release() == (FIRST, TextDelta(text="a"))
    assert (draft.release(), draft.given.characters) == ((), 1)


def test_an_answer_begins_once_and_no_byte_of_its_content_is_lost_with_the_second_beginning() -> None:
    text, unknown = TextDelta(text="a", wire=REST), Opaque(content=True, wire=REST)
    assert drafted(FIRST, SECOND, text, unknown).held == [FIRST, replace(text, wire=BYTES), unknown]


@pytest.mark.parametrize("wire", [None, Wire("anthropic", b""), Wire("openai", b"data: {}\n\n")])
def test_bytes_of_a_second_beginning_are_no_others(wire: Wire | None) -> None:
    text, behind = TextDelta(text="a", wire=wire), TextDelta(text="b", wire=REST)
    assert drafted(FIRST, SECOND, text, behind).held == [FIRST, text, behind]
