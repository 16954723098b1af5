"""What clouds of Anthropic's dialect answer, read from recorded bytes cut anywhere."""

from __future__ import annotations

import itertools

import anthropic
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Event,
    Finish,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
    carries_content,
)
from appliance.core.fault import BackendError
from appliance.dialects.anthropic_out import REASONS, AnthropicDecoder
from tests.dialects.anthropic_events import OVER, PASSED, SEEN, WIRE, bare, decoded

STREAMS = sorted(path.name for path in WIRE.glob("*.sse"))


def recorded(name: str) -> list[Event]:
    return bare(decoded((WIRE / name).read_bytes()))


def outcome(pieces: list[bytes]) -> tuple[list[Event], str | None]:
    """The events, and what was wrong then. Events come before the error, whichever call raises it."""
    decoder = AnthropicDecoder()
    events: list[Event] = []
    try:
        for part in pieces:
            events += decoder.feed(part)
        events += decoder.close()
    except BackendError as error:
        return events, f"{error.fault.value}: {error}"
    return events, None


# --------------------------------------------------------------------------------------------------- the bytes


def dressed(stream: bytes, way: str) -> bytes:
    """The same stream as another server could write it."""
    match way:
        case "crlf":
            return stream.replace(b"\n", b"\r\n")
        case "bom":
            return b"\xef\xbb\xbf" + stream
        case "comments":
            return b": hello\n\n" + stream.replace(b"event: content", b": still here\nevent: content")
        case "several lines":
            return stream.replace(b'","', b'",\ndata: "')
        case "no names":
            return b"".join(line for line in stream.splitlines(keepends=True) if not line.startswith(b"event:"))
        case "wrong names":
            return stream.replace(b"event: content_block_delta", b"event: ping").replace(
                b"event: ping", b"event: error"
            )
    return stream


WAYS = ["as it is", "crlf", "bom", "comments", "several lines", "no names", "wrong names"]


@pytest.mark.parametrize("name", STREAMS)
@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(places=st.lists(st.integers(min_value=0), max_size=12), way=st.sampled_from(WAYS))
def test_where_the_network_cut_a_stream_changes_nothing(name: str, places: list[int], way: str) -> None:
    stream = dressed((WIRE / name).read_bytes(), way)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    at_once = outcome([stream])
    assert outcome([stream[start:stop] for start, stop in itertools.pairwise(edges)]) == at_once
    if at_once[1] is None:
        wires = [event.wire for event in at_once[0]]
        assert all(isinstance(wire, Wire) and wire.dialect == "anthropic" for wire in wires)
        assert b"".join(wire.data for wire in wires if wire) == stream


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("way", WAYS)
def test_however_a_server_writes_its_events_they_are_the_same(name: str, way: str) -> None:
    plain, error = outcome([(WIRE / name).read_bytes()])
    other, same = outcome([dressed((WIRE / name).read_bytes(), way)])
    assert same == error
    kept = [event for event in bare(other) if event != PASSED]
    assert kept == [event for event in bare(plain) if event != PASSED]


@pytest.mark.parametrize("name", STREAMS)
def test_every_byte_alone_gives_the_same_events(name: str) -> None:
    stream = (WIRE / name).read_bytes()
    assert outcome([bytes((byte,)) for byte in stream]) == outcome([stream])


# ----------------------------------------------------------------------------------------------- what was said


def test_a_stream_of_text() -> None:
    assert recorded("text.sse") == [
        Started(id="msg_01TextOfTheBox0000000001", model="claude-opus-5-5", created=0),
        Usage(prompt_tokens=25, completion_tokens=1),
        BlockStart(index=0, kind="text"),
        PASSED,
        TextDelta(text="Hello"),
        TextDelta(text=" – wörld 🙂"),  # noqa: RUF001
        BlockStop(index=0),
        Finish(reason="stop"),
        Usage(prompt_tokens=25, completion_tokens=15),
        OVER,
    ]


def test_a_stream_of_two_tool_calls_one_without_arguments() -> None:
    events = recorded("tools.sse")
    assert events[7:] == [
        BlockStart(index=1, kind="tool_call"),
        ToolCallStart(index=0, id="toolu_01BoxWeather000000000001", name="get_weather"),
        PASSED,
        ToolCallDelta(index=0, arguments='{"location":'),
        ToolCallDelta(index=0, arguments=' "Köln"}'),
        BlockStop(index=1),
        BlockStart(index=2, kind="tool_call"),
        ToolCallStart(index=1, id="toolu_01BoxTime00000000000002", name="get_time"),
        PASSED,
        ToolCallDelta(index=1, arguments="{}"),
        BlockStop(index=2),
        Finish(reason="tool_calls"),
        Usage(prompt_tokens=472, completion_tokens=89),
        OVER,
    ]


def test_a_stream_of_thinking_with_its_signature() -> None:
    assert recorded("thinking.sse")[2:9] == [
        BlockStart(index=0, kind="reasoning"),
        PASSED,
        ReasoningDelta(text="Divide"),
        ReasoningDelta(text=" until nothing is left."),
        PASSED,
        BlockStop(index=0),
        BlockStart(index=1, kind="text"),
    ]
    assert recorded("thinking.sse")[-2] == Usage(prompt_tokens=47, completion_tokens=373, reasoning_tokens=62)


def test_a_web_search_is_content_that_others_can_go_on_behind() -> None:
    events = recorded("web_search.sse")
    at = events.index(BlockStart(index=1, kind="other"))
    assert events[at : at + 9] == [
        BlockStart(index=1, kind="other"),
        PASSED,
        SEEN,
        SEEN,
        SEEN,
        BlockStop(index=1),
        BlockStart(index=2, kind="other"),
        BlockStop(index=2),
        BlockStart(index=3, kind="text"),
    ]
    assert events[at + 9 : at + 11] == [SEEN, TextDelta(text="It answers when the cloud does not.")]
    assert not any(isinstance(event, ToolCallStart) for event in events)


@pytest.mark.parametrize(("name", "kind"), [("redacted.sse", "other"), ("fallback.sse", "other")])
def test_a_block_we_have_no_word_for_is_content(name: str, kind: str) -> None:
    block = recorded(name)[2]
    assert isinstance(block, BlockStart)
    assert (block.kind, carries_content(block)) == (kind, True)
    assert recorded(name)[3] == BlockStop(index=0)


def test_an_answer_cut_by_its_limit_leaves_a_call_open() -> None:
    assert recorded("max_tokens.sse")[-5:] == [
        ToolCallDelta(index=0, arguments='{"filename": "taxes.txt'),
        ToolCallDelta(index=0, arguments='", "lines": ["Filing'),
        Finish(reason="length"),
        Usage(prompt_tokens=450, completion_tokens=124),
        OVER,
    ]


def test_the_stop_string_and_the_cache_are_told() -> None:
    events = recorded("stop_sequence.sse")
    assert events[-3:-1] == [
        Finish(reason="stop", stop=", three"),
        Usage(prompt_tokens=18529, completion_tokens=6, cached_tokens=18014, cache_written_tokens=512),
    ]


def test_a_refusal_is_an_end_and_no_error() -> None:
    assert recorded("refusal.sse")[-3:-1] == [
        Finish(reason="content_filter"),
        Usage(prompt_tokens=20, completion_tokens=120, reasoning_tokens=67),
    ]


def test_an_error_after_a_200_comes_after_the_events_before_it() -> None:
    events, error = outcome([(WIRE / "error.sse").read_bytes()])
    assert bare(events)[-1] == TextDelta(text="Half a sen")
    assert error == "busy: The cloud is busy: overloaded_error."


def test_blocks_and_the_end_may_stand_in_the_first_event() -> None:
    assert recorded("content_at_start.sse") == [
        Started(id="msg_01StartOfTheBox00000001", model="claude-sonnet-5", created=0),
        BlockStart(index=0, kind="other"),
        BlockStop(index=0),
        BlockStart(index=1, kind="tool_call"),
        ToolCallStart(index=0, id="toolu_01BoxFollow", name="look_up"),
        ToolCallDelta(index=0, arguments='{"id":"c_123"}'),
        BlockStop(index=1),
        Finish(reason="tool_calls"),
        Usage(prompt_tokens=0, completion_tokens=0),
        OVER,
    ]


def test_llama_server_keeps_several_blocks_open_and_gives_no_input() -> None:
    assert recorded("llama_server.sse")[1:] == [
        Usage(prompt_tokens=42, completion_tokens=0, cached_tokens=30),
        BlockStart(index=0, kind="reasoning"),
        ReasoningDelta(text="A file"),
        BlockStart(index=1, kind="text"),
        TextDelta(text="Reading."),
        BlockStart(index=2, kind="tool_call"),
        ToolCallStart(index=0, id="kQ7dV2", name="read"),
        ToolCallDelta(index=0, arguments='{"path":'),
        ToolCallDelta(index=0, arguments='"a.txt"}'),
        PASSED,
        BlockStop(index=0),
        BlockStop(index=1),
        BlockStop(index=2),
        Finish(reason="tool_calls"),
        Usage(prompt_tokens=42, completion_tokens=31, cached_tokens=30),
        OVER,
    ]


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("ollama.sse", Usage(prompt_tokens=160, completion_tokens=24)),
        ("zai.sse", Usage(prompt_tokens=142, completion_tokens=2, cached_tokens=128)),
    ],
)
def test_counts_that_come_only_at_the_end_count(name: str, usage: Usage) -> None:
    assert recorded(name)[-2] == usage


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in ("error.sse", "content_at_start.sse")])
def test_the_official_client_understands_the_same(name: str) -> None:
    stream = (WIRE / name).read_bytes()
    answer = httpx2.Response(200, content=stream, headers={"content-type": "text/event-stream"})
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: answer)) as http:
        client = anthropic.Anthropic(api_key="x", base_url="http://box", http_client=http, max_retries=0)
        with client.messages.stream(max_tokens=1, model="m", messages=[{"role": "user", "content": "x"}]) as reader:
            message = reader.get_final_message()
    events = recorded(name)
    finish = next(event for event in events if isinstance(event, Finish))
    usage = [event for event in events if isinstance(event, Usage)][-1]
    assert REASONS[message.stop_reason or ""] == finish.reason
    assert message.stop_sequence == finish.stop
    assert message.usage.output_tokens == usage.completion_tokens
    assert (message.usage.cache_read_input_tokens or 0) == usage.cached_tokens
    texts = "".join(block.text for block in message.content if block.type == "text")
    assert texts == "".join(event.text for event in events if isinstance(event, TextDelta))
    thoughts = "".join(block.thinking for block in message.content if block.type == "thinking")
    assert thoughts == "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    calls = [(block.id, block.name) for block in message.content if block.type == "tool_use"]
    assert calls == [(event.id, event.name) for event in events if isinstance(event, ToolCallStart)]
    kinds = {"text": "text", "thinking": "reasoning", "tool_use": "tool_call"}
    starts = [event.kind for event in events if isinstance(event, BlockStart)]
    assert [kinds.get(block.type, "other") for block in message.content] == starts
