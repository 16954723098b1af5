"""A cloud's half answer and what others say behind it: to a client of Anthropic's dialect it is one message."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from anthropic.types import ContentBlock, ServerToolUseBlock
from pydantic import TypeAdapter

from appliance.core.events import Event, Finish, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.anthropic_body import UNSIGNED
from tests.dialects.anthropic_cloud import (
    BEGUN,
    COMMENT,
    ENDED,
    STARTED,
    STOP,
    TAKEOVER,
    block,
    call,
    decoded,
    encoder,
    later,
    streamed,
    text,
    thinking,
    tool,
    wire,
)
from tests.dialects.anthropic_reader import Read, events, read


def taken(first: list[Event], second: list[Event], *, known: bool = True) -> Read:
    """What a client reads of a cloud's stream that another leg went on with; the cloud's bytes come as they were."""
    client = encoder()
    out = client.encode(first)
    assert out == b"".join(event.wire.data for event in first if event.wire is not None)
    ours = client.encode([TAKEOVER, *second]) + client.close()
    assert ours.count(COMMENT) == 1
    return read(out + ours, known=known)


def test_text_goes_on_in_the_block_that_is_open() -> None:
    first = decoded(BEGUN, *text(0, "Half a ", stopped=False))
    found = taken(first, [TextDelta(text="sentence."), STOP, Usage(prompt_tokens=140, completion_tokens=9)])
    assert [one.text for one in found.blocks] == ["Half a sentence."]
    assert found.message["id"] == "msg_cloud"
    assert found.usage == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 90,
        "output_tokens": 9,
    }


def test_the_second_legs_input_counts_if_the_first_gave_none() -> None:
    found = streamed([STARTED, TextDelta(text="a"), TAKEOVER, STOP, Usage(prompt_tokens=3, completion_tokens=4)])
    assert (found.usage["input_tokens"], found.usage["output_tokens"]) == (3, 4)


def test_half_a_thought_is_closed_with_our_mark() -> None:
    found = taken(decoded(BEGUN, *thinking(0, "hm", stopped=False)), [TextDelta(text="a"), STOP])
    assert [(one.kind, one.text, one.signature) for one in found.blocks] == [
        ("thinking", "hm", UNSIGNED),
        ("text", "a", ""),
    ]


def test_a_thought_that_its_cloud_had_signed_keeps_its_signature() -> None:
    first = decoded(BEGUN, *thinking(0, "hm", signature="sig", stopped=False))
    for second in (TextDelta(text="a"), ReasoningDelta(text="so")):
        found = taken(first, [second, STOP])
        assert (found.blocks[0].text, found.blocks[0].signature, found.blocks[1].text) == ("hm", "sig", second.text)


def test_half_a_block_nobody_knows_is_closed_and_text_goes_on_behind_it() -> None:
    server = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    odd = {"type": "new_delta", "x": "message_stop"}  # the name of the end mark is no end
    first = decoded(BEGUN, *text(0, "a"), *block(1, server, odd, stopped=False))
    found = taken(first, [TextDelta(text="b"), STOP], known=False)
    assert [one.kind for one in found.blocks] == ["text", "server_tool_use", "web_search_tool_result", "text"]


SERVER_TOOLS = [name for name in get_args(ServerToolUseBlock.model_fields["name"].annotation)]


@pytest.mark.parametrize("name", SERVER_TOOLS)
def test_a_clouds_own_tool_that_it_did_not_live_to_answer_for_was_not_available(name: str) -> None:
    server = {"type": "server_tool_use", "id": "s2", "name": name, "input": {}}
    first = [*block(0, {**server, "id": "s1"}), *block(1, server)]
    answered = block(2, {"type": "x_result", "tool_use_id": "s1", "content": []}, stopped=False)
    found = taken(decoded(BEGUN, *first, *answered), [TextDelta(text="b"), STOP], known=False)
    result = found.blocks[3].head
    assert (result["tool_use_id"], [one.kind for one in found.blocks[4:]]) == ("s2", ["text"])
    TypeAdapter(ContentBlock).validate_python(result, strict=True)
    assert result["content"]["error_code"] == "unavailable"


def test_a_second_clouds_own_tools_are_answered_for_too_and_each_once() -> None:
    server = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    client = encoder()
    out = client.encode(decoded(BEGUN, *text(0, "a")))
    out += client.encode([TAKEOVER, *later(*text(0, "b"), *block(1, server, stopped=False))])
    out += client.encode([TAKEOVER, TextDelta(text="c"), TAKEOVER, TextDelta(text="d"), STOP]) + client.close()
    kinds = [one.kind for one in read(out, known=False).blocks]
    assert kinds == ["text", "text", "server_tool_use", "web_search_tool_result", "text"]


def test_a_tool_that_nobody_here_knows_stays_without_a_result() -> None:
    server = {"type": "server_tool_use", "id": "s", "name": "fortune_teller", "input": {}}
    found = taken(decoded(BEGUN, *block(0, server)), [TextDelta(text="b"), STOP], known=False)
    assert [one.kind for one in found.blocks] == ["server_tool_use", "text"]


def test_half_a_call_goes_on_in_its_block() -> None:
    first = decoded(BEGUN, *tool(0, "toolu_0", "{}"), *tool(1, "toolu_1", '{"a', stopped=False))
    found = taken(first, [ToolCallDelta(index=1, arguments='":1}'), *call(2, "c", "{}"), Finish(reason="stop")])
    assert ["".join(one.pieces) for one in found.blocks] == ["{}", '{"a":1}', "{}"]
    assert found.delta["stop_reason"] == "tool_use"


def test_white_space_in_front_of_arguments_is_not_said_alone_by_whoever_goes_on() -> None:
    first = decoded(BEGUN, *tool(0, "a", stopped=False))
    found = taken(first, [*(ToolCallDelta(index=0, arguments=one) for one in (" ", "\n", ' {"a": ', " 1}")), STOP])
    assert found.blocks[0].pieces[-2:] == ['{"a": ', " 1}"]
    assert not any(piece and not piece.strip() for piece in found.blocks[0].pieces)


def test_whoever_has_more_to_say_behind_a_call_says_it_at_once() -> None:
    """Its JSON was complete, or it is over because its leg is."""
    complete, half = tool(0, "t", '{"a":', "1}", stopped=False), tool(0, "t", '{"a', stopped=False)
    cases: list[tuple[list[dict[str, Any]], list[Event]]] = [
        (complete, [TextDelta(text="b")]),
        (half, later(*text(0, "b"))),
        (half, call(0, "c", "{}")),
    ]
    for first, second in cases:
        client = encoder()
        client.encode(decoded(BEGUN, *first))
        said = [(event["type"], event["index"]) for event in events(client.encode([TAKEOVER, *second]))[1:]]
        assert said[:3] == [("content_block_stop", 0), ("content_block_start", 1), ("content_block_delta", 1)]


def test_a_second_leg_may_count_its_calls_anew() -> None:
    first = decoded(BEGUN, *tool(0, "toolu_1", '{"a', stopped=False))
    found = taken(first, [*call(0, "toolu_1", '{"b":2}'), STOP])
    assert ["".join(one.pieces) for one in found.blocks] == ['{"a', '{"b":2}']
    assert found.blocks[0].head["id"] != found.blocks[1].head["id"]


def test_a_leg_that_is_the_first_to_begin_passes_untouched_even_after_a_takeover_mark() -> None:
    stream = wire([BEGUN, *text(0, "a"), {"type": "brand_new"}, *ENDED])
    client = encoder()
    out = client.encode([TAKEOVER, *ANTHROPIC.decoder().feed(stream)]) + client.close()
    assert out == COMMENT + stream


def test_blocks_that_a_cloud_had_left_open_are_all_closed() -> None:
    client = encoder()
    first = [BEGUN, *thinking(0, "hm", stopped=False), *text(1, "a", stopped=False), *text(2, "b", stopped=False)]
    client.encode(decoded(*first, {"type": "content_block_stop", "index": 1}))
    out = client.encode([TAKEOVER, TextDelta(text="c"), STOP])
    assert [(event.get("type"), event.get("index")) for event in events(out)] == [
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        (None, None),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ]


def test_a_second_cloud_of_the_dialect_speaks_under_the_numbers_of_the_first() -> None:
    first = decoded(BEGUN, *text(0, "a"), *text(1, "b", stopped=False))
    cited = {"type": "citations_delta", "citation": CITATION}
    found = taken(
        first,
        later(
            *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "c"}, cited),
            *thinking(1, "hm", signature="real"),
            *block(2, {"type": "redacted_thinking", "data": "x"}),
            *text(3, "d"),
            *tool(4, "toolu_1", '{"a":', "1}"),
            *tool(5, "toolu_2"),
            {"type": "ping"},
            {"type": "brand_new", "index": 9},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 30}},
            {"type": "message_stop"},
        ),
    )
    assert [(one.kind, one.text or "".join(one.pieces), one.signature) for one in found.blocks] == [
        ("text", "a", ""),
        ("text", "bc", ""),
        ("thinking", "hm", "real"),
        ("redacted_thinking", "", ""),
        ("text", "d", ""),
        ("tool_use", '{"a":1}', ""),
        ("tool_use", "{}", ""),
    ]
    assert found.blocks[1].others == [cited]
    assert found.blocks[3].head == {"type": "redacted_thinking", "data": "x"}
    assert (found.usage["input_tokens"], found.usage["output_tokens"]) == (10, 30)
    assert found.pings == 0


CITATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": None,
    "file_id": None,
    "start_char_index": 0,
    "end_char_index": 1,
}


def test_pieces_nobody_knows_are_passed_on_from_a_second_cloud_too() -> None:
    odd = {"type": "odd_delta", "x": [1]}
    found = taken(
        decoded(BEGUN, *thinking(0, "hm", stopped=False)),
        later(
            *thinking(0, "", signature="s"),
            *block(1, {"type": "text", "text": ""}, odd),
            *block(2, {"type": "thinking", "thinking": "", "signature": ""}, odd),
            *block(3, {"type": "tool_use", "id": "t", "name": "f", "input": {}}, odd),
            *block(4, {"type": "new_kind", "y": 2}, odd),
            *ENDED,
        ),
        known=False,
    )
    assert [(one.kind, one.signature, one.others) for one in found.blocks] == [
        ("thinking", UNSIGNED, []),  # the second's signature is not for the words of the first
        ("text", "", [odd]),
        ("thinking", UNSIGNED, [odd]),
        ("tool_use", "", [odd]),
        ("new_kind", "", [odd]),
    ]


def test_a_second_cloud_may_stop_its_blocks_all_at_the_end() -> None:
    stops = [{"type": "content_block_stop", "index": index} for index in range(2)]
    half, rest = text(1, "b", "c", stopped=False)[:2], text(1, "b", "c", stopped=False)[2:]
    second = later(*thinking(0, "hm", stopped=False), *half, stops[0], *rest, stops[1], *ENDED)
    found = taken(decoded(BEGUN, *text(0, "a", stopped=False)), second)
    assert [(one.kind, one.text) for one in found.blocks] == [("text", "a"), ("thinking", "hm"), ("text", "bc")]


def test_behind_a_clouds_last_words_nobody_says_anything() -> None:
    client = encoder()
    client.encode(decoded(BEGUN, *text(0, "a"), ENDED[0]))
    assert client.encode([TAKEOVER, TextDelta(text="b"), *call(0, "c", "{}"), STOP]) == b""
    assert len(events(client.close())) == 1


def test_bytes_of_the_dialect_do_not_pass_behind_a_beginning_of_ours() -> None:
    client = encoder()
    out = client.encode([STARTED, *decoded(BEGUN, *text(0, "a"), *ENDED)]) + client.close()
    assert (read(out).message["id"], read(out).joined("text")) == ("msg_1", "a")


def test_an_id_we_make_is_made_of_the_answers() -> None:
    found = set()
    for named in ("msg_a", "msg_b"):
        begun = {**BEGUN, "message": {**BEGUN["message"], "id": named}}
        found.add(taken(decoded(begun), [*call(0, "", "{}"), STOP]).blocks[0].head["id"])
    assert len(found) == 2


def test_a_second_clouds_silent_thought_does_not_break_the_text_in_two() -> None:
    found = taken(decoded(BEGUN, *text(0, "a", stopped=False)), later(*thinking(0, ""), *text(1, "b"), *ENDED))
    assert [one.text for one in found.blocks] == ["ab"]
