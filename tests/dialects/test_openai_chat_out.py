"""What clouds of OpenAI's dialect answer, read from bytes cut anywhere."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Wire,
)
from appliance.core.fault import BackendError, Fault
from appliance.dialects.openai_chat import OPENAI

WIRE = Path(__file__).parent.parent / "wire" / "openai"
STREAMS = sorted(path.name for path in WIRE.glob("*.sse"))


def bare(events: list[Event]) -> list[Event]:
    return [replace(event, wire=None) for event in events]


def decoded(*pieces: bytes, close: bool = True) -> list[Event]:
    decoder = OPENAI.decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close() if close else events


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return (
        b"data: " + json.dumps({"id": "c", "model": "m", "created": 1, "choices": [choice], **more}).encode() + b"\n\n"
    )


STARTED = Started(id="c", model="m", created=1)
PASSED = Opaque(content=False)
OVER = Opaque(content=False, over=True)
SEEN = Opaque(content=True)


def outcome(pieces: list[bytes]) -> tuple[list[Event], str | None]:
    """The events, and what was wrong then. Events come before the error, whichever call raises it."""
    decoder = OPENAI.decoder()
    events: list[Event] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.close()
    except BackendError as error:
        return events, f"{error.fault.value}: {error}"
    return events, None


@pytest.mark.parametrize("name", STREAMS)
@settings(deadline=None)  # a busy machine is no failure
@given(places=st.lists(st.integers(min_value=0), max_size=10), end=st.sampled_from([b"\n", b"\r\n"]))
def test_where_the_network_cut_a_stream_changes_nothing(name: str, places: list[int], end: bytes) -> None:
    stream = (WIRE / name).read_bytes().replace(b"\n", end)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(edges)]
    at_once = outcome([stream])
    assert outcome(pieces) == at_once
    if at_once[1] is None:
        wires = [event.wire for event in at_once[0]]
        assert all(isinstance(wire, Wire) and wire.dialect == "openai" for wire in wires)
        assert b"".join(wire.data for wire in wires if wire) == stream


def test_a_stream_of_text() -> None:
    events = decoded((WIRE / "text.sse").read_bytes())
    assert bare(events) == [
        Started(id="chatcmpl-123", model="gpt-4o-mini", created=1694268190),
        TextDelta(text="Hello"),
        TextDelta(text=" – wörld 🙂"),  # noqa: RUF001
        Finish(reason="stop"),
        OVER,
    ]


def test_a_stream_with_usage() -> None:
    events = bare(decoded((WIRE / "usage.sse").read_bytes()))
    assert events[-3:] == [
        Finish(reason="length"),
        Usage(prompt_tokens=1117, completion_tokens=2, cached_tokens=1024),
        OVER,
    ]


def test_every_count_that_a_cloud_gives_is_read() -> None:
    counted = {
        "prompt_tokens": 30,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    usage = Usage(prompt_tokens=30, completion_tokens=9, cached_tokens=20, cache_written_tokens=4, reasoning_tokens=5)
    assert bare(decoded(chunk({}, "stop", usage=counted)))[-1] == usage
    nonsense = {**counted, "prompt_tokens_details": None, "completion_tokens_details": []}
    assert bare(decoded(chunk({}, "stop", usage=nonsense)))[-1] == Usage(prompt_tokens=30, completion_tokens=9)


def test_a_stream_of_two_tool_calls() -> None:
    events = decoded((WIRE / "tools.sse").read_bytes())
    assert bare(events)[:2] == [
        Started(id="chatcmpl-BQb0iSFzE1zz1OVhaqg3u2Yqn1Ezf", model="gpt-4.1-nano-2025-04-14", created=1745678496),
        ToolCallStart(index=0, id="call_DdmO9pD3xa9XTPNJ32zg2hcA", name="get_weather"),
    ]
    assert events[1].wire == Wire("openai", b"")
    arguments = {0: "", 1: ""}
    for event in events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] += event.arguments
    assert arguments == {0: '{"location":"Paris"}', 1: '{"zone":"Europe/Paris"}'}
    assert bare(events)[-2:] == [Finish(reason="tool_calls"), OVER]


def test_a_stream_of_reasoning() -> None:
    assert bare(decoded((WIRE / "deepseek_reasoning.sse").read_bytes())) == [
        PASSED,
        Started(id="f4c9b1de-3f0a-4a53-9c2b-7d1f0a6c2e11", model="deepseek-reasoner", created=1748488521),
        ReasoningDelta(text="9.11 is"),
        ReasoningDelta(text=" smaller."),
        TextDelta(text="9.8"),
        Finish(reason="stop"),
        Usage(prompt_tokens=14, completion_tokens=9, cached_tokens=8),
        OVER,
    ]


def test_azures_first_chunk_begins_nothing() -> None:
    events = bare(decoded((WIRE / "azure.sse").read_bytes()))
    assert events[:2] == [PASSED, Started(id="chatcmpl-azure1", model="gpt-4o-2024-11-20", created=1748488522)]


def test_an_error_in_the_place_of_a_chunk_comes_after_the_events_before_it() -> None:
    events, error = outcome([(WIRE / "error.sse").read_bytes()])
    assert bare(events)[-1] == TextDelta(text="Half a sen")
    assert error == "broken: The cloud answered with something that is no answer: server_error."


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "network_error", "abort", "aborted"])
def test_a_reason_that_says_the_answer_died_is_no_end(reason: str) -> None:
    events, error = outcome([chunk({"content": "a"}), chunk({}, reason)])
    assert (bare(events), error) == (
        [STARTED, TextDelta(text="a")],
        "broken: The cloud sent a finish_reason that says the answer died.",
    )


def test_an_end_is_one_only_if_it_has_a_reason() -> None:
    words = [chunk({"content": piece}, "") for piece in "ab"]
    assert bare(decoded(*words, chunk({}, "stop"))) == [
        *(STARTED, TextDelta(text="a"), TextDelta(text="b")),
        Finish(reason="stop"),
    ]


def test_several_calls_may_share_a_number_if_each_has_its_own_name_and_id() -> None:
    def piece(index: int, id: str = "", **function: str) -> bytes:
        return chunk({"tool_calls": [{"index": index, "id": id, "function": function}]})

    gemini = [piece(0, id=one, name="f", arguments="{}") for one in ("a", "b")]
    assert bare(decoded(*gemini, piece(0, arguments=" ")))[1:] == [
        ToolCallStart(index=0, id="a", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
        ToolCallStart(index=1, id="b", name="f"),
        ToolCallDelta(index=1, arguments="{}"),
        ToolCallDelta(index=1, arguments=" "),
    ]
    # Some make up an id for every piece, and some repeat the name.
    one = [piece(4, id="a", name="f"), piece(4, id="b", arguments="{"), piece(4, name="f", arguments="}")]
    assert bare(decoded(*one))[1:] == [
        ToolCallStart(index=0, id="a", name="f"),
        ToolCallDelta(index=0, arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
    ]


def test_an_answer_that_openrouter_says_died_is_broken() -> None:
    events, error = outcome([(WIRE / "openrouter_error.sse").read_bytes()])
    assert bare(events) == [
        PASSED,
        PASSED,
        Started(id="gen-1748488520-aBcDeFgHiJkLmNoPqRsT", model="openai/gpt-4o", created=1748488520),
        ReasoningDelta(text="Think"),
        TextDelta(text="Some text"),
        PASSED,
    ]
    assert error == "broken: The cloud answered with something that is no answer: server_error."


@pytest.mark.parametrize(
    ("delta", "events"),
    [
        ({"role": "assistant", "content": ""}, []),
        ({"content": None}, []),
        ({"content": "a", "reasoning": "b"}, [ReasoningDelta(text="b"), TextDelta(text="a")]),
        ({"reasoning_content": "b", "reasoning": "b"}, [ReasoningDelta(text="b")]),
        ({"content": [{"type": "thinking"}]}, [SEEN]),
        ({"refusal": "I will not"}, [Opaque(content=True, text="I will not")]),
        ({"refusal": "no", "content": "a"}, [TextDelta(text="a"), Opaque(content=True, text="no")]),
        ({"refusal": {"why": "x"}}, [SEEN]),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            [ReasoningDelta(text="hm"), TextDelta(text="a")],
        ),
        ({"content": [{"type": "text", "text": "a"}, {"type": "reference"}]}, [TextDelta(text="a"), SEEN]),
        ({"refusal": None, "annotations": [], "audio": {}}, []),
        ({"content": "a", "audio": {"data": "x"}}, [TextDelta(text="a"), SEEN]),
        ({"function_call": {"name": "f"}}, [ToolCallStart(index=0, id="", name="f")]),
        (
            {"function_call": {"arguments": "{}"}},
            [ToolCallStart(index=0, id="", name=""), ToolCallDelta(index=0, arguments="{}")],
        ),
        ({"function_call": None}, []),
        ({"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh"}}]}, [SEEN]),
        (
            {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]},
            [ToolCallStart(index=0, id="a", name="f"), ToolCallDelta(index=0, arguments='{"x": 1}')],
        ),
        (
            {"tool_calls": [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g"}}]},
            [ToolCallStart(index=0, id="a", name="f"), ToolCallStart(index=1, id="b", name="g")],
        ),
    ],
)
def test_a_delta_is_the_events_in_it(delta: dict[str, Any], events: list[Event]) -> None:
    assert bare(decoded(chunk(delta))) == [STARTED, *events]


@pytest.mark.parametrize(
    "passed",
    [
        b": OPENROUTER PROCESSING\n\n",
        b"data:\n\n",
        b"\n\n",
        b"data: {}\n\n",
        b"event: ping\n\n",
        b"id: 7\n\n",
        chunk({}),
        chunk({}, ""),
        b'data: {"id":"c","choices":[],"usage":null}\n\n',
    ],
)
def test_what_says_nothing_is_passed_on(passed: bytes) -> None:
    assert decoded(chunk(), passed)[1:] == [Opaque(content=False, wire=Wire("openai", passed))]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
        ("model_context_window_exceeded", "length"),
        ("eos", "other"),
    ],
)
def test_every_reason_to_stop_has_a_word(said: str, meant: Any) -> None:
    assert bare(decoded(chunk(), chunk({}, said, index=2)))[1:] == [Finish(reason=meant, choice=2)]


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b'data: "x"\n\n',
        b'data: {"choices": {}}\n\n',
        b'data: {"choices": [1]}\n\n',
        b'data: {"choices": [{"delta": []}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": {"a": 1}}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [1]}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
        b"<html><body>Log in</body></html>\n\n",
        b"event: error\ndata: {}\n\n",
        b'data: {"object":"error","message":"out of memory"}\n\n',
        b'data: {"error":"out of memory"}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        chunk({"content": "x"}, "error"),
    ],
)
def test_nonsense_is_broken_once_the_events_before_it_were_given(bad: bytes) -> None:
    decoder = OPENAI.decoder()
    assert bare(decoder.feed(chunk({"content": "a"}) + bad + chunk({"content": "b"}))) == [STARTED, TextDelta(text="a")]
    for again in (lambda: decoder.feed(b""), decoder.close):
        with pytest.raises(BackendError) as caught:
            again()
        assert caught.value.fault is Fault.BROKEN
    with pytest.raises(BackendError, match="The cloud"):
        OPENAI.decoder().feed(bad)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"type": "server_error"}, Fault.BROKEN),
        ({"code": "rate_limit_exceeded"}, Fault.BUSY),
        ({"code": 429}, Fault.BUSY),
        ({"code": 502, "message": "rate limit"}, Fault.BROKEN),
        ({"code": 402}, Fault.CONFIG),
        ({"type": "insufficient_quota"}, Fault.CONFIG),
        ({"message": "insufficient credits"}, Fault.CONFIG),
        ({"type": "server_error", "message": "insufficient credits"}, Fault.BROKEN),
        ({"code": "context_length_exceeded"}, Fault.TOO_LONG),
        ({"type": "invalid_request_error"}, Fault.REQUEST),
        ({"code": "content_filter"}, Fault.REQUEST),
        ({"message": "?"}, Fault.BROKEN),
    ],
)
def test_an_error_in_a_stream_is_sorted_by_its_words(error: dict[str, Any], fault: Fault) -> None:
    with pytest.raises(BackendError) as caught:
        decoded(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    assert caught.value.fault is fault
    if fault in (Fault.REQUEST, Fault.TOO_LONG):
        assert caught.value.reply is not None
        assert json.loads(caught.value.reply.body) == {"error": error}


def test_googles_bare_json_in_the_place_of_events_is_an_error_with_its_own_words() -> None:
    said = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34s"}]}}
    for body in (json.dumps([said], indent=1).encode(), json.dumps(said).encode() + b"\n\n"):
        with pytest.raises(BackendError) as caught:
            decoded(body)
        assert (caught.value.fault, caught.value.retry_after) == (Fault.BUSY, 34.0)


def test_half_an_event_at_the_end_is_broken() -> None:
    whole = chunk({"content": "a"})
    for left in (whole[:-20], b"da", b"<html>", b"data: {"):
        decoder = OPENAI.decoder()
        assert bare(decoder.feed(whole + left)) == [STARTED, TextDelta(text="a")]
        with pytest.raises(BackendError, match="half an event") as caught:
            decoder.close()
        assert caught.value.fault is Fault.BROKEN


def test_half_an_event_after_every_choice_has_ended_is_dropped() -> None:
    ended = chunk({}, "stop") + chunk({}, "stop", index=1)
    assert bare(decoded(ended, b"data: [DO")) == [STARTED, Finish(reason="stop"), Finish(reason="stop", choice=1)]
    with pytest.raises(BackendError):
        decoded(chunk({}, "stop"), chunk({"content": "b"}, index=1), b"data: [DO")


def test_a_last_event_without_its_blank_line_is_an_event_and_gets_one() -> None:
    last = chunk({}, "stop")
    for ending in (b"", b"\n"):
        (_, finish) = decoded(chunk(), last.rstrip(b"\n") + ending)
        assert finish == Finish(reason="stop", wire=Wire("openai", last))


def test_an_end_without_a_finish_is_left_to_the_relay() -> None:
    assert bare(decoded(chunk({"content": "a"}))) == [STARTED, TextDelta(text="a")]


def test_an_event_without_an_end_is_broken() -> None:
    decoder = OPENAI.decoder()
    with pytest.raises(BackendError, match="too much at once") as caught:
        for _ in range(18):
            decoder.feed(b"x" * 1024 * 1024)
    assert caught.value.fault is Fault.BROKEN


# ----------------------------------------------------------------------------------------------------- whole


def test_a_whole_answer_is_the_same_events() -> None:
    body = (WIRE / "whole.json").read_bytes()
    events = OPENAI.decode_whole(body)
    assert bare(events) == [
        Started(id="chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", model="gpt-4.1-2025-04-14", created=1741569952),
        TextDelta(text="Hello! How can I assist you today?"),
        Finish(reason="stop"),
        Usage(prompt_tokens=19, completion_tokens=10),
    ]
    assert [event.wire for event in events] == [Wire("openai", body), *[Wire("openai", b"")] * 3]


def test_a_whole_answer_of_a_tool_call() -> None:
    assert bare(OPENAI.decode_whole((WIRE / "whole_tools.json").read_bytes()))[1:3] == [
        ToolCallStart(index=0, id="call_abc123", name="get_current_weather"),
        ToolCallDelta(index=0, arguments='{\n"location": "Boston, MA"\n}'),
    ]


@pytest.mark.parametrize("reason", ["", None])
def test_a_whole_answer_without_a_reason_has_no_end(reason: str | None) -> None:
    choice = {"message": {"content": "Half an"}, "finish_reason": reason}
    events = OPENAI.decode_whole(json.dumps({"choices": [choice]}).encode())
    assert bare(events) == [Started(id="", model="", created=0), TextDelta(text="Half an")]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.BROKEN),
        (b"<html>", Fault.BROKEN),
        (b"[]", Fault.BROKEN),
        (b"{}", Fault.BROKEN),
        (b'{"choices": []}', Fault.BROKEN),
        (b'{"choices": [{"index": 0}]}', Fault.BROKEN),
        (b'{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}', Fault.BROKEN),
        (b'{"error": {"message": "boom", "type": "server_error"}}', Fault.BROKEN),
        (b'{"error": {"code": 429}}', Fault.BUSY),
        (b'[{"error": {"code": 403}}]', Fault.CONFIG),
    ],
)
def test_a_whole_answer_that_is_none_is_a_failure(body: bytes, fault: Fault) -> None:
    with pytest.raises(BackendError) as caught:
        OPENAI.decode_whole(body)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("pieces", "more"),
    [(["get_", "weather"], ["weather"]), (["get_weather", "get_weather"], []), (["a", "b", "c"], ["b", "c"])],
)
def test_a_name_comes_in_pieces_or_again_and_again(pieces: list[str], more: list[str]) -> None:
    calls = [{"index": 0, "id": "x", "function": {"name": piece}} for piece in pieces]
    said = [{"id": "a", "choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in calls]
    decoder = OPENAI.decoder()
    events = [event for one in said for event in decoder.feed(b"data: " + json.dumps(one).encode() + b"\n\n")]
    found = [event for event in bare(events) if isinstance(event, ToolCallStart | ToolCallDelta)]
    assert found == [
        ToolCallStart(index=0, id="x", name=pieces[0]),
        *(ToolCallDelta(index=0, arguments="", name=one) for one in more),
    ]
