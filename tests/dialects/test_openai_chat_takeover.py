"""A client of OpenAI's dialect sees one answer, though two legs wrote it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from appliance.core.events import Event, Finish, Opaque, TextDelta, ToolCallDelta, Usage, Wire
from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.folded import anthropic_client, openai_client
from tests.dialects.openai_reader import REQUEST, STARTED, TAKEOVER, WIRE, bare, chunks, encoder


def test_after_a_takeover_it_is_still_one_answer() -> None:
    client = encoder(include_usage=True)
    first = (WIRE / "error.sse").read_bytes()
    events = OPENAI.decoder().feed(first)
    out = client.encode(events)
    assert out == first.partition(b'data: {"error"')[0]
    ours = client.encode([TAKEOVER])
    assert ours == b": appliance takeover claude->local after=4 reason=broken\n\n"
    ours += client.encode([STARTED, TextDelta(text="tence."), Finish(reason="stop")])
    ours += client.encode([Usage(prompt_tokens=3, completion_tokens=9)]) + client.close()
    found = chunks(ours)
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in found} == {
        ("chatcmpl-123", 1694268190, "gpt-4o-mini")
    }
    assert [chunk["choices"][0]["delta"] for chunk in found[:-1]] == [{"content": "tence."}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None, "stop"]
    assert found[-1]["usage"]["total_tokens"] == 12
    assert ours.endswith(b"\n\ndata: [DONE]\n\n")


def test_a_second_cloud_of_the_dialect_speaks_under_the_names_of_the_first() -> None:
    client = encoder(include_usage=True)
    client.encode(OPENAI.decoder().feed((WIRE / "error.sse").read_bytes()))
    second = OPENAI.decoder().feed((WIRE / "usage.sse").read_bytes())
    out = client.encode([TAKEOVER, *second]) + client.close()
    found = chunks(out)
    assert {chunk["id"] for chunk in found} == {"chatcmpl-123"}
    assert not any("role" in choice["delta"] for chunk in found for choice in chunk["choices"])
    assert [choice["finish_reason"] for chunk in found for choice in chunk["choices"]] == [None, None, "length"]
    assert [chunk["usage"] and chunk["usage"]["total_tokens"] for chunk in found] == [None, None, None, 1119]
    assert out.count(b"[DONE]") == 1


def test_a_chunk_without_a_word_from_a_second_cloud_is_renamed_too() -> None:
    client = encoder()
    client.encode([STARTED, TAKEOVER])
    delta = {"role": "assistant", "annotations": [{"type": "url_citation"}]}
    theirs = {"id": "b", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}], "usage": None}
    raw = b"data: " + json.dumps({**theirs, "choices": [{**theirs["choices"][0], "finish_reason": "stop"}]}).encode()
    events = OPENAI.decoder().feed(raw + b"\n\n")
    assert bare(events)[1:] == [Opaque(content=True), Finish(reason="stop")]
    (chunk,) = chunks(client.encode([*events, Finish(reason="stop")]))
    assert (chunk["id"], chunk["model"], chunk["created"]) == ("chatcmpl-1", "box", 7)
    assert chunk["choices"] == [
        {"index": 0, "delta": {"annotations": [{"type": "url_citation"}]}, "finish_reason": "stop"}
    ]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "b", "smell": "rose"},
        {"reasoning": "hm", "content": "b", "audio": {"id": "a"}},
        {"content": [{"type": "text", "text": "b"}, {"type": "smell", "smell": "rose"}]},
        {"content": "b", "refusal": "No."},
        {"smell": "rose", "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]},
    ],
)
def test_what_we_have_no_word_for_is_not_lost_behind_what_we_have_one_for(delta: dict[str, Any]) -> None:
    client, decoder = encoder(), OPENAI.decoder()
    client.encode([STARTED, TextDelta(text="a"), TAKEOVER])
    for begun in ({"role": "assistant", **delta}, delta):  # the first chunk names the answer as well
        theirs = {"id": "b", "choices": [{"index": 0, "delta": begun, "finish_reason": None}], "usage": None}
        out = client.encode(decoder.feed(b"data: " + json.dumps(theirs).encode() + b"\n\n"))
        assert json.loads(out.removeprefix(b"data: ")) == {
            "id": "chatcmpl-1",
            "created": 7,
            "model": "box",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
            "usage": None,
        }
    (plain,) = chunks(client.encode([TextDelta(text="c", wire=Wire("openai", b"data: {}"))]))
    assert plain["choices"][0]["delta"] == {"content": "c"}


def test_the_counts_of_a_chunk_that_goes_on_are_told_once_at_the_end() -> None:
    client = encoder(include_usage=True)
    client.encode([STARTED, Usage(prompt_tokens=3, completion_tokens=1), TextDelta(text="a"), TAKEOVER])
    usage = {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
    theirs = {"id": "b", "choices": [{"index": 0, "delta": {"smell": "rose"}, "finish_reason": "stop"}], "usage": usage}
    events = OPENAI.decoder().feed(b"data: " + json.dumps(theirs).encode() + b"\n\n")
    out = json.loads(client.encode(events).removeprefix(b"data: "))
    assert (out["choices"][0]["finish_reason"], out["usage"]) == ("stop", None)
    (counted,) = chunks(client.close())
    assert (counted["usage"]["prompt_tokens"], counted["usage"]["completion_tokens"]) == (3, 4)


def test_after_a_takeover_the_input_is_the_first_legs_and_the_output_the_last_total() -> None:
    client = encoder(include_usage=True)
    early = Usage(prompt_tokens=30, completion_tokens=1, cached_tokens=20, cache_written_tokens=4)
    late = Usage(prompt_tokens=44, completion_tokens=9, reasoning_tokens=2)
    events: list[Event] = [STARTED, early, TextDelta(text="a"), TAKEOVER, TextDelta(text="b"), Finish(reason="stop")]
    events += [late, replace(late, completion_tokens=10)]
    counted = {
        "prompt_tokens": 30,
        "completion_tokens": 10,
        "total_tokens": 40,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert chunks(client.encode(events) + client.close())[-1]["usage"] == counted
    assert json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))["usage"] == counted
    unknown = [replace(event, prompt_tokens=0) if event is early else event for event in events]
    assert json.loads(OPENAI.encode_whole(REQUEST, unknown, id="x", created=1))["usage"]["prompt_tokens"] == 44


def test_a_count_within_the_first_leg_is_not_the_answers() -> None:
    client = encoder(include_usage=True)
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    said = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}], "usage": usage}
    client.encode(OPENAI.decoder().feed(b"data: " + json.dumps(said).encode() + b"\n\n"))
    client.encode([TAKEOVER, Finish(reason="stop"), Usage(prompt_tokens=5, completion_tokens=2)])
    (counted,) = chunks(client.close())
    assert (counted["usage"]["prompt_tokens"], counted["usage"]["completion_tokens"]) == (3, 2)


def test_a_leg_that_is_the_first_to_begin_passes_untouched_even_after_a_takeover_mark() -> None:
    stream = (WIRE / "text.sse").read_bytes()
    client = encoder()
    out = client.encode([replace(TAKEOVER, after=0), *OPENAI.decoder().feed(stream)]) + client.close()
    assert out == b": appliance takeover claude->local after=0 reason=broken\n\n" + stream


@pytest.mark.parametrize("named", [False, True])
def test_a_call_that_was_cut_before_its_id_came_gets_one_of_ours(named: bool) -> None:
    said: list[dict[str, Any]] = [{"index": 0, "type": "function", "function": {"name": "look", "arguments": ""}}]
    said += [{"index": 0, "id": "call_9"}] * named
    chunks_of = [{"id": "a", "choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in said]
    client = encoder()
    for chunk in chunks_of:
        client.encode(OPENAI.decoder().feed(b"data: " + json.dumps(chunk).encode() + b"\n\n"))
    ours = [ToolCallDelta(index=0, arguments='{"a"'), ToolCallDelta(index=0, arguments=": 1}")]
    first, second, _ = chunks(client.encode([TAKEOVER, *ours, Finish(reason="tool_calls")]))
    begun, more = (chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in (first, second))
    assert ("id" in begun, begun.get("type")) == ((False, None) if named else (True, "function"))
    assert not begun.get("id", "call_").isspace() and "id" not in more


@pytest.mark.parametrize("client", [OPENAI, ANTHROPIC], ids=lambda one: one.name)
def test_a_name_that_was_cut_is_gone_on_with(client: Dialect) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "get_", "arguments": ""}}
    said = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}], "object": "chat.completion.chunk"}
    events = OPENAI.decoder().feed(
        b"data: " + json.dumps({"id": "x", "created": 7, "model": "m", **said}).encode() + b"\n\n"
    )
    out = client.encoder(REQUEST, id="a-1", created=7)
    stream = out.encode(events)
    assert (b"get_" in stream) is (client is OPENAI)
    ours: list[Event] = [ToolCallDelta(index=0, arguments="", name="weather"), ToolCallDelta(index=0, arguments="{}")]
    stream += out.encode([TAKEOVER, *ours, Finish(reason="tool_calls")]) + out.close()
    if client is OPENAI:
        [made] = openai_client(stream)["choices"][0]["message"]["tool_calls"]
        assert (made["id"], made["function"]["name"], made["function"]["arguments"]) == ("c", "get_weather", "{}")
    else:
        [block] = anthropic_client(stream)["content"]
        assert (block["id"], block["name"], block["input"]) == ("c", "get_weather", {})
