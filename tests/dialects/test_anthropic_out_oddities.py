"""What is new, what is left out, and what is nonsense in the answers of Anthropic's dialect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Event,
    Finish,
    Opaque,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.core.fault import BackendError, Fault
from appliance.dialects.anthropic_out import AnthropicDecoder
from tests.dialects.anthropic_events import (
    BEGUN,
    CALL,
    CALLED,
    OVER,
    PASSED,
    SEEN,
    STARTED,
    TEXT,
    bare,
    closed,
    decoded,
    ended,
    opened,
    piece,
    said,
)


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "other"),
        ("never_heard_of_it", "other"),
    ],
)
def test_every_reason_to_stop_has_a_word(reason: str, meant: Any) -> None:
    assert bare(decoded(BEGUN, ended(reason))) == [STARTED, Finish(reason=meant)]


@pytest.mark.parametrize(
    "passed",
    [
        b": a comment\n\n",
        b"\n\n",
        b"event: ping\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"event: ping\ndata: {}\n\n",
        b"data:\n\n",
        b"id: 7\n\n",
        said("never_heard_of_it", anything=[1]),
        b'data: {"no": "type"}\n\n',
        closed(9),
        ended(None),
        piece({"type": "text_delta", "text": ""}),
        piece({"type": "text_delta"}),
        piece({"type": "signature_delta", "signature": "s"}),
    ],
)
def test_what_says_nothing_is_passed_on(passed: bytes) -> None:
    assert decoded(BEGUN, TEXT, passed)[2:] == [Opaque(content=False, wire=Wire("anthropic", passed))]


@pytest.mark.parametrize(
    ("block", "delta", "event"),
    [
        ({"type": "text", "text": ""}, {"type": "never_heard_of_it"}, SEEN),
        ({"type": "text", "text": ""}, {"type": "citations_delta", "citation": {}}, SEEN),
        ({"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{"}, SEEN),
        ({"type": "text", "text": ""}, {}, SEEN),
        ({"type": "mcp_tool_use"}, {"type": "input_json_delta", "partial_json": "{"}, SEEN),
        ({"type": "compaction", "content": ""}, {"type": "compaction_delta", "content": "x"}, SEEN),
        ({"type": "aside"}, {"type": "text_delta", "text": "x"}, Opaque(content=True, closed=True, text="x")),
        ({}, {"type": "thinking_delta", "thinking": "x"}, SEEN),
        (CALL, {"type": "input_json_delta", "partial_json": {"a": 1}}, ToolCallDelta(index=0, arguments='{"a":1}')),
    ],
)
def test_a_piece_we_have_no_word_for_is_content(block: dict[str, Any], delta: dict[str, Any], event: Event) -> None:
    assert bare(decoded(BEGUN, opened(block), piece(delta)))[-1] == event


def test_a_start_may_hold_the_first_text() -> None:
    thought = opened({"type": "thinking", "thinking": "hm"}, 1)
    cited = opened({"type": "text", "text": "", "citations": [{}]}, 2)
    assert bare(decoded(BEGUN, opened({"type": "text", "text": "a"}), closed(), thought, closed(1), cited))[1:] == [
        BlockStart(index=0, kind="text"),
        TextDelta(text="a"),
        BlockStop(index=0),
        BlockStart(index=1, kind="reasoning"),
        ReasoningDelta(text="hm"),
        BlockStop(index=1),
        BlockStart(index=2, kind="text"),
        SEEN,
    ]


@pytest.mark.parametrize(("given", "text"), [({"a": "ü"}, '{"a":"ü"}'), ('{"a": 1}', '{"a": 1}'), ({}, "{}")])
def test_arguments_in_the_start_are_told_at_the_stop(given: Any, text: str) -> None:
    stop = closed()
    events = decoded(BEGUN, opened({**CALL, "input": given}), stop)
    told: list[Event] = [ToolCallDelta(index=0, arguments=text), BlockStop(index=0)]
    assert bare(events)[1:] == CALLED + told
    assert [event.wire for event in events[3:]] == [Wire("anthropic", stop), Wire("anthropic", b"")]


def test_arguments_in_the_start_give_way_to_pieces() -> None:
    part = piece({"type": "input_json_delta", "partial_json": "{}"})
    assert bare(decoded(BEGUN, opened({**CALL, "input": {"a": 1}}), part, closed()))[3:] == [
        ToolCallDelta(index=0, arguments="{}"),
        BlockStop(index=0),
    ]


def test_a_call_that_is_never_closed_tells_its_arguments_before_the_end_if_it_has_any() -> None:
    told: list[Event] = [ToolCallDelta(index=0, arguments='{"a":1}')]
    assert bare(decoded(BEGUN, opened({**CALL, "input": {"a": 1}}), ended("tool_use")))[3:-1] == told
    assert bare(decoded(BEGUN, opened(CALL), ended("max_tokens")))[3:] == [Finish(reason="length")]
    again = bare(decoded(BEGUN, opened({**CALL, "input": {"a": 1}}), opened(CALL)))
    assert again[3:] == [*told, BlockStart(index=0, kind="tool_call"), ToolCallStart(index=1, id="t", name="f")]


def test_indices_may_be_missing() -> None:
    text: dict[str, Any] = {"type": "text", "text": ""}
    part = {"type": "text_delta", "text": "a"}
    events = decoded(
        BEGUN, opened(text, None), piece(part, None), closed(None), opened(CALL, None), closed(None), ended("tool_use")
    )
    assert bare(events)[1:] == [
        BlockStart(index=0, kind="text"),
        TextDelta(text="a"),
        BlockStop(index=0),
        BlockStart(index=1, kind="tool_call"),
        ToolCallStart(index=0, id="t", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
        BlockStop(index=1),
        Finish(reason="tool_calls"),
    ]


def test_an_index_may_be_used_again_once_its_block_is_closed() -> None:
    again = decoded(BEGUN, TEXT, closed(), TEXT, piece({"type": "text_delta", "text": "a"}))
    assert bare(again)[-2:] == [BlockStart(index=0, kind="text"), TextDelta(text="a")]


@pytest.mark.parametrize("last", [(), (closed(),), (closed(), ended(None))], ids=["open", "closed", "no reason"])
def test_an_end_mark_without_a_reason_is_no_end(last: tuple[bytes, ...]) -> None:
    stop = said("message_stop")
    assert bare(decoded(BEGUN, ended("max_tokens"), stop))[1:] == [Finish(reason="length"), OVER]
    with pytest.raises(BackendError, match="an end without a reason to stop") as caught:
        decoded(BEGUN, TEXT, *last, stop)
    assert caught.value.fault is Fault.BROKEN


def test_an_answer_ends_once() -> None:
    assert bare(decoded(BEGUN, ended("tool_use"), ended("end_turn"))) == [STARTED, Finish(reason="tool_calls"), PASSED]


def test_an_end_without_a_reason_is_left_to_the_relay() -> None:
    for last in (b"", TEXT, closed(), ended(None)):
        assert not any(isinstance(event, Finish) for event in decoded(BEGUN, TEXT, last))


def test_counts_are_totals_and_zeros_take_nothing_back() -> None:
    details = {"thinking_tokens": 2}
    first = {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": details}
    more = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": None, "output_tokens_details": None}
    last = {"input_tokens": 2, "cache_read_input_tokens": 7, "output_tokens": "many", "output_tokens_details": {}}
    begun = said("message_start", message={"usage": first})
    assert bare(decoded(begun, ended(None, usage=more), ended(None, usage=last)))[1:] == [
        Usage(prompt_tokens=5, completion_tokens=3, reasoning_tokens=2),
        Usage(prompt_tokens=5, completion_tokens=3, reasoning_tokens=2),
        Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=7, reasoning_tokens=2),
    ]


# ---------------------------------------------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: "x"\n\n',
        b'data: {"type": "content_block_delta", "delta": {"text": "\xff"}}\n\n',
        b"data: {" + b"[" * 100_000 + b"\n\n",
        b"<html><body>Log in</body></html>\n\n",
        b"event: error\ndata: {}\n\n",
        b"event: error\ndata: it broke\n\n",
        b'data: {"error": {"type": "api_error", "message": "m"}}\n\n',
        b'{"type": "error", "error": {"type": "api_error", "message": "m"}}\n\n',
        said("error", error={"type": "api_error", "message": "m"}),
        BEGUN,
        piece({"type": "text_delta", "text": "x"}, 1),
        piece({"type": "text_delta", "text": 5}),
        said("content_block_delta", index=0),
        said("content_block_start", index=1),
        opened({"type": "text", "text": 5}, 1),
        opened({**CALL, "input": 5}, 1),
    ],
)
def test_nonsense_is_broken_once_the_events_before_it_were_given(bad: bytes) -> None:
    decoder = AnthropicDecoder()
    part = piece({"type": "text_delta", "text": "a"})
    assert bare(decoder.feed(BEGUN + TEXT + part + bad + part))[-1] == TextDelta(text="a")
    for again in (lambda: decoder.feed(b""), decoder.close):
        with pytest.raises(BackendError, match="The cloud") as caught:
            again()
        assert caught.value.fault is Fault.BROKEN


@pytest.mark.parametrize(
    "early",
    [TEXT, piece({"type": "text_delta", "text": "a"}), closed(), ended(), said("message_stop"), said("message_start")],
)
def test_an_answer_begins_with_its_beginning(early: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        decoded(early)
    assert caught.value.fault is Fault.BROKEN


def test_a_piece_of_a_closed_block_is_broken() -> None:
    with pytest.raises(BackendError, match="not open"):
        decoded(BEGUN, TEXT, closed(), piece({"type": "text_delta", "text": "a"}))


def test_half_an_event_at_the_end_is_broken_unless_the_answer_had_ended() -> None:
    for left in (b"event: pi", b"data: {", b"<html>", TEXT[:-20]):
        decoder = AnthropicDecoder()
        assert bare(decoder.feed(BEGUN + left)) == [STARTED]
        with pytest.raises(BackendError, match="half an event") as caught:
            decoder.close()
        assert caught.value.fault is Fault.BROKEN
        assert bare(decoded(BEGUN, ended(), left)) == [STARTED, Finish(reason="stop")]


def test_an_error_without_its_blank_line_keeps_its_meaning() -> None:
    with pytest.raises(BackendError) as caught:
        decoded(BEGUN, said("error", error={"type": "overloaded_error", "message": "m"}).rstrip())
    assert caught.value.fault is Fault.BUSY


def test_a_last_event_without_its_blank_line_is_an_event_and_gets_one() -> None:
    last = said("message_stop")
    for ending in (b"", b"\n"):
        assert decoded(BEGUN, ended(), last.rstrip() + ending)[-1] == replace(OVER, wire=Wire("anthropic", last))


def test_an_event_without_an_end_is_broken() -> None:
    decoder = AnthropicDecoder()
    with pytest.raises(BackendError, match="too much at once") as caught:
        for _ in range(18):
            decoder.feed(b"x" * 1024 * 1024)
    assert caught.value.fault is Fault.BROKEN
