"""What a client of Anthropic's dialect sees: a cloud's own bytes, and ours where those end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import anthropic
import pytest
from anthropic.types import ToolUseBlock

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    FinishReason,
    Opaque,
    Opened,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import Dialect
from appliance.dialects import anthropic_blocks
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.anthropic_body import UNSIGNED
from tests.dialects.anthropic_cloud import (
    BEGUN,
    ENDED,
    REQUEST,
    STARTED,
    STOP,
    TAKEOVER,
    block,
    call,
    decoded,
    encoder,
    streamed,
    text,
    thinking,
    tool,
    wire,
)
from tests.dialects.anthropic_reader import events, official, read

WIRE = Path(__file__).parent.parent / "wire" / "anthropic"
RECORDED = sorted(path.name for path in WIRE.iterdir() if path.suffix in (".sse", ".json") and path.stem != "error")


def test_it_is_a_dialect() -> None:
    dialect: Dialect = ANTHROPIC
    assert (dialect.name, dialect.path, dialect.models_path) == ("anthropic", "v1/messages", "v1/models")
    assert (dialect.id_prefix, dialect.key_header) == ("msg_", "x-api-key")
    assert dialect.said_anyway == (("anthropic-version", "2023-06-01"),)


# --------------------------------------------------------------------------------------------------- passing

CLOUD = wire(
    [
        {"type": "ping"},
        BEGUN,
        *thinking(0, "hm", signature="sig"),
        {"type": "ping", "new": 1},
        *block(1, {"type": "server_tool_use", "id": "s", "name": "web", "input": {}}, {"type": "odd_delta", "x": []}),
        *text(2, "Hé", ' "message_stop"'),
        {"type": "brand_new", "x": 1},
        *tool(3, "toolu_1", '{"a":', "1}"),
        *ENDED,
    ]
)


def test_a_clouds_stream_is_given_back_byte_for_byte_however_it_is_cut() -> None:
    for ends in (b"\n", b"\r\n"):
        stream = (b": hello\n\n" + CLOUD + b"data: [DONE]\n\n").replace(b"\n", ends)
        for size in (1, 7, 100, 10_000):
            decoder, client = ANTHROPIC.decoder(), encoder()
            cuts = [stream[at : at + size] for at in range(0, len(stream), size)]
            out = b"".join(client.encode(decoder.feed(cut)) for cut in cuts)
            assert out + client.encode(decoder.close()) + client.close() == stream


@pytest.mark.parametrize("name", RECORDED)
def test_what_real_clouds_sent_is_given_back_byte_for_byte(name: str) -> None:
    recorded = (WIRE / name).read_bytes()
    if name.endswith(".json"):
        assert ANTHROPIC.encode_whole(REQUEST, ANTHROPIC.decode_whole(recorded), id="x", created=1) == recorded
        return
    for size in (50, 100_000):
        decoder, client = ANTHROPIC.decoder(), encoder()
        cuts = [recorded[at : at + size] for at in range(0, len(recorded), size)]
        out = b"".join(client.encode(decoder.feed(cut)) for cut in cuts)
        assert out + client.encode(decoder.close()) + client.close() == recorded


@pytest.mark.parametrize("name", [name for name in RECORDED if name.endswith(".sse")])
def test_what_a_real_cloud_began_is_ended_by_another_wherever_it_is_cut(name: str) -> None:
    given = ANTHROPIC.decoder().feed((WIRE / name).read_bytes())
    edges = [at for at, event in enumerate(given) if event.wire is not None and event.wire.data]
    ends = next(at for at, event in enumerate(given) if isinstance(event, Finish))
    for edge in [at for at in edges if 0 < at <= ends]:
        client = encoder()
        out = client.encode(given[:edge]) + client.encode([TAKEOVER, TextDelta(text="!"), STOP]) + client.close()
        back = ANTHROPIC.decoder().feed(out)
        opened = [event.index for event in back if isinstance(event, BlockStart)]
        assert opened == list(range(len(opened)))
        assert sorted(event.index for event in back if isinstance(event, BlockStop)) == opened
        assert [event.reason for event in back if isinstance(event, Finish)] in (["stop"], ["tool_calls"])
        assert texts(back) == texts(given[:edge]) + "!"


def texts(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_missing_end_mark_is_added_and_nothing_else() -> None:
    stream = wire([BEGUN, *text(0, "a"), ENDED[0]])
    client = encoder()
    assert client.encode(ANTHROPIC.decoder().feed(stream)) == stream
    assert client.close() == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert (client.close(), client.keepalive(), client.encode([TextDelta(text="late")])) == (b"", b"", b"")


def test_the_name_of_the_end_mark_may_stand_in_a_stop_sequence() -> None:
    delta = {"stop_reason": "stop_sequence", "stop_sequence": "message_stop"}
    client = encoder()
    odd = block(0, {"type": "new_kind"}, {"type": "new_delta", "x": "message_stop"})
    client.encode(decoded(BEGUN, *odd, {**ENDED[0], "delta": delta}))
    assert client.close() == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def test_a_whole_answer_of_a_cloud_is_given_back_byte_for_byte() -> None:
    body = b' {"id": "m", "type":"message","role":"assistant","model":"c","content":[{"type":"text","text":"a"},'
    body += b'{"type":"new"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,"odd":2}}'
    given = [Opened(headers=()), Degraded(what="context"), *ANTHROPIC.decode_whole(body)]
    assert ANTHROPIC.encode_whole(REQUEST, given, id="x", created=1) == body


# -------------------------------------------------------------------------------------------------- speaking


def test_an_answer_of_ours_has_the_exact_grammar() -> None:
    client = encoder()
    started = client.encode([STARTED, Usage(prompt_tokens=9, completion_tokens=0, cached_tokens=4)])
    out = client.encode([Degraded(what="context"), TextDelta(text="Hé"), TextDelta(text="")])
    out += client.encode([STOP]) + client.encode([Usage(prompt_tokens=9, completion_tokens=2, cached_tokens=4)])
    assert started == (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
        b'"role":"assistant","model":"box","content":[],"stop_reason":null,"stop_sequence":null,"usage":{'
        b'"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":0}}}\n\n'
    )
    assert out == (
        b": appliance degraded context\n\n"
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        + '"delta":{"type":"text_delta","text":"Hé"}}\n\n'.encode()
        + b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    )
    assert client.close() == (
        b'event: message_delta\ndata: {"type":"message_delta",'
        b'"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{'
        b'"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_without_a_name_of_the_cloud_it_is_ours() -> None:
    found = streamed([TextDelta(text="a"), STOP])
    assert (found.message["id"], found.message["model"]) == ("msg_ours", "asked")


def test_an_answer_of_nothing_is_legal() -> None:
    found = streamed([STARTED, TextDelta(text=""), ReasoningDelta(text=""), STOP])
    assert (found.blocks, found.delta["stop_reason"], found.usage["output_tokens"]) == ([], "end_turn", 0)
    assert streamed([STOP]).message["id"] == "msg_ours"


def test_thinking_of_another_dialect_is_a_block_with_our_mark() -> None:
    found = streamed([STARTED, ReasoningDelta(text="h"), ReasoningDelta(text="m"), TextDelta(text="a"), STOP])
    assert [(one.kind, one.text, one.signature) for one in found.blocks] == [
        ("thinking", "hm", UNSIGNED),
        ("text", "a", ""),
    ]


def test_a_call_begins_with_no_input_and_an_empty_piece() -> None:
    found = streamed(
        [
            STARTED,
            TextDelta(text="a"),
            ToolCallStart(index=0, id="call_1", name="f"),
            ToolCallDelta(index=0, arguments=""),
            ToolCallDelta(index=0, arguments='{"a":'),
            ToolCallDelta(index=0, arguments="1}"),
            Finish(reason="tool_calls"),
        ]
    )
    assert found.blocks[1].head == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    assert found.blocks[1].pieces == ["", '{"a":', "1}"]
    assert found.delta == {"stop_reason": "tool_use", "stop_sequence": None}


def test_ids_are_valid_here_and_each_its_own() -> None:
    given = [*call(0, "call 1", "{}"), *call(1, "", "{}"), *call(2, "", "{}"), *call(3, "a", "{}"), *call(4, "a", "{}")]
    ids = [one.head["id"] for one in streamed([STARTED, *given, STOP]).blocks]
    assert len(set(ids)) == 5
    assert ids[3] == "a"
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") for one in ids)
    assert ids == [one.head["id"] for one in streamed([STARTED, *given, STOP]).blocks]
    whole = json.loads(ANTHROPIC.encode_whole(REQUEST, [STARTED, *given, STOP], id="x", created=1))
    assert [one["id"] for one in whole["content"]] == ids


def test_the_next_call_is_told_as_soon_as_the_one_before_is_complete() -> None:
    client = encoder()
    client.encode([STARTED, *call(0, "a", '{"x":', "{}}")])
    out = client.encode(call(1, "b", "{"))
    assert [(event["type"], event["index"]) for event in events(out)] == [
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
    ]


def test_calls_whose_pieces_come_in_turn_are_sorted_out() -> None:
    given = [*call(0, "a"), *call(1, "b"), TextDelta(text="t")]
    for first, second in (('{"x"', '{"y"'), (':"}', ":"), ('"', "2}"), ("}", " ")):
        given += [ToolCallDelta(index=0, arguments=first), ToolCallDelta(index=1, arguments=second)]
    found = streamed([STARTED, *given, Finish(reason="tool_calls")])
    assert [(one.kind, "".join(one.pieces)) for one in found.blocks] == [
        ("tool_use", '{"x":"}"}'),
        ("tool_use", '{"y":2}'),
        ("text", ""),
    ]
    assert found.blocks[2].text == "t"


@pytest.mark.parametrize(
    "arguments",
    ['{}', '{"a": {"b": ["}", "{"]}}', r'{"\"}": "\\", "\\\"}": "{"}', '{"a": [{}, "\\u007d"]}'],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 2, 3, 99])
def test_what_waits_behind_a_call_comes_with_the_last_piece_of_its_json(arguments: str, size: int) -> None:
    client = encoder()
    client.encode([STARTED, *call(0, "a"), TextDelta(text="next")])
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    told = [b"next" in client.encode([ToolCallDelta(index=0, arguments=piece)]) for piece in pieces]
    assert told == [False] * (len(pieces) - 1) + [True]


def test_arguments_are_looked_at_once_however_long_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    class Counting:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            nonlocal looked_at
            looked_at += len(text)
            return marks.finditer(text)

    marks = anthropic_blocks._MARKS
    monkeypatch.setattr(anthropic_blocks, "_MARKS", Counting())
    given = [*call(0, "a", '{"a":"'), *call(1, "b", "{"), *[ToolCallDelta(index=0, arguments="b}") for _ in range(99)]]
    streamed([STARTED, *given, Finish(reason="length")])
    assert 0 < looked_at <= 2 * (6 + 2 * 99)  # it is streamed twice


def test_a_call_that_never_completes_holds_the_others_back_only_to_the_end() -> None:
    found = streamed([STARTED, *call(0, "a", '{"x'), *call(1, "b", "{}"), Finish(reason="length")])
    assert [one.pieces for one in found.blocks] == [["", '{"x'], ["", "{}"]]
    assert found.delta["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("finish", "called", "reason", "stop"),
    [
        (Finish(reason="stop"), False, "end_turn", None),
        (Finish(reason="stop"), True, "tool_use", None),
        (Finish(reason="stop", stop="END"), False, "stop_sequence", "END"),
        (Finish(reason="length"), True, "max_tokens", None),
        (Finish(reason="tool_calls"), True, "tool_use", None),
        (Finish(reason="content_filter"), False, "refusal", None),
        (Finish(reason="other"), False, "end_turn", None),
    ],
)
def test_why_it_ended_in_the_words_of_the_dialect(finish: Finish, called: bool, reason: str, stop: str | None) -> None:
    given: list[Event] = [STARTED, *(call(0, "a", "{}") if called else [TextDelta(text="a")]), finish, STOP]
    assert streamed(given).delta == {"stop_reason": reason, "stop_sequence": stop}
    whole = json.loads(ANTHROPIC.encode_whole(REQUEST, given, id="x", created=1))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, stop)


def test_every_reason_has_a_word_that_the_official_types_know() -> None:
    reasons: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter", "other")
    for reason in reasons:
        streamed([STARTED, TextDelta(text="a"), Finish(reason=reason)])


def test_the_counts_are_told_apart_at_the_end() -> None:
    usage = Usage(
        prompt_tokens=100, completion_tokens=20, cached_tokens=60, cache_written_tokens=30, reasoning_tokens=5
    )
    assert streamed([STARTED, TextDelta(text="a"), STOP, usage]).usage == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 60,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 5},
    }


def test_what_another_dialect_shows_beside_the_text_is_text() -> None:
    refusal = Opaque(content=True, text="I can't.", wire=Wire("openai", b"data: {}\n\n"))
    silent = Opaque(content=False, wire=Wire("openai", b": x\n\n"))
    found = streamed([replace(STARTED, wire=Wire("openai", b"data: {}\n\n")), silent, refusal, STOP])
    assert found.joined("text") == "I can't."


def test_blocks_that_end_by_name_are_not_joined() -> None:
    given: list[Event] = []
    for index in range(2):
        given += [BlockStart(index=index, kind="text"), TextDelta(text=str(index)), BlockStop(index=index)]
    assert [one.text for one in streamed([STARTED, *given, STOP]).blocks] == ["0", "1"]
    whole = json.loads(ANTHROPIC.encode_whole(REQUEST, [STARTED, *given, STOP], id="x", created=1))
    assert [one["text"] for one in whole["content"]] == ["0", "1"]


def test_other_choices_have_no_place_here() -> None:
    given: list[Event] = [STARTED, TextDelta(text="a"), TextDelta(text="b", choice=1), Finish(reason="stop", choice=1)]
    given += [ToolCallStart(index=0, id="i", name="f", choice=1), ReasoningDelta(text="b", choice=1)]
    found = streamed([*given, Finish(reason="length")])
    assert ([one.text for one in found.blocks], found.delta["stop_reason"]) == (["a"], "max_tokens")


# ------------------------------------------------------------------------------------------------- side words


def test_still_here_is_a_ping_which_the_official_client_takes_anywhere() -> None:
    client = encoder()
    assert client.keepalive() == b'event: ping\ndata: {"type":"ping"}\n\n'
    out = client.keepalive()
    for event in (STARTED, TextDelta(text="a"), TAKEOVER, TextDelta(text="b"), STOP):
        out += client.encode([event]) + client.keepalive()
    out += client.close()
    assert read(out).pings == 6
    assert [one.to_dict() for one in official(out).content] == [{"type": "text", "text": "ab"}]
    assert encoder().content_type == "text/event-stream"


def test_after_an_error_nothing_follows_and_the_official_client_raises_it() -> None:
    client = encoder()
    out = client.encode([STARTED, TextDelta(text="a")])
    out += client.error(BackendError(Fault.BROKEN, "It broke."))
    assert events(out)[-1] == {"type": "error", "error": events(out)[-1]["error"]}
    assert (client.close(), client.keepalive(), client.encode([TextDelta(text="b")])) == (b"", b"", b"")
    with pytest.raises(anthropic.APIStatusError, match="It broke") as raised:
        official(out)
    assert raised.value.type == "api_error"


def test_the_official_client_does_not_notice_a_takeover() -> None:
    client = encoder()
    out = client.encode(decoded(BEGUN, *text(0, "Half a ", stopped=False))) + client.keepalive()
    out += client.encode([TAKEOVER, TextDelta(text="sentence."), *call(0, "c", '{"a":', '"b"}'), STOP])
    message = official(out + client.close())
    assert [one.type for one in message.content] == ["text", "tool_use"]
    assert isinstance(message.content[1], ToolUseBlock)
    assert message.content[1].input == {"a": "b"}
    assert (message.id, message.stop_reason, message.usage.input_tokens) == ("msg_cloud", "tool_use", 10)


def test_a_name_that_comes_in_pieces_is_told_when_it_is_whole() -> None:
    given = [
        TextDelta(text="So"),
        ToolCallStart(index=0, id="a", name="get_"),
        ToolCallDelta(index=0, arguments="", name="weather"),
        ToolCallDelta(index=0, arguments=" "),
        ToolCallDelta(index=0, arguments='{"a": 1}'),
        ToolCallStart(index=1, id="b", name="get"),
        ToolCallDelta(index=1, arguments="", name="_time"),
        Finish(reason="tool_calls"),
    ]
    found = streamed([STARTED, *given])
    assert [one.head.get("name") for one in found.blocks] == [None, "get_weather", "get_time"]
    assert found.blocks[1].pieces == ["", '{"a": 1}'], "a buffer of white space breaks the SDK"
    body = json.loads(ANTHROPIC.encode_whole(REQUEST, [STARTED, *given], id="msg_1", created=7))
    assert [block.get("name") for block in body["content"]] == [None, "get_weather", "get_time"]


def test_a_call_is_told_of_when_something_else_begins() -> None:
    given = [ToolCallStart(index=0, id="a", name="get"), TextDelta(text="So"), Finish(reason="tool_calls")]
    assert [one.kind for one in streamed([STARTED, *given]).blocks] == ["tool_use", "text"]


def test_white_space_in_front_of_arguments_is_left_out_of_a_call_that_waited_its_turn_too() -> None:
    given = [*call(0, "a", '{"a": '), *call(1, "b", " "), ToolCallDelta(index=0, arguments="1}")]
    given += [ToolCallDelta(index=1, arguments=one) for one in ("\n", " {", "}")]
    found = streamed([STARTED, *given, Finish(reason="tool_calls")])
    assert [one.pieces for one in found.blocks] == [["", '{"a": ', "1}"], ["", "{", "}"]]
