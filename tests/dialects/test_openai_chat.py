"""What a client of OpenAI's dialect sees: a cloud's own bytes, and ours where those end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
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
from appliance.core.seams import Dialect
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.openai_reader import REQUEST, STARTED, TAKEOVER, WIRE, bare, chunks, encoder

ENDED = ["error.sse", "openrouter_error.sse"]
WHOLE_STREAMS = sorted(path.name for path in WIRE.glob("*.sse") if path.name not in ENDED)


def test_it_is_a_dialect() -> None:
    dialect: Dialect = OPENAI
    assert (dialect.name, dialect.path) == ("openai", "chat/completions")


# --------------------------------------------------------------------------------------------------- passing


@pytest.mark.parametrize("name", WHOLE_STREAMS)
@settings(deadline=None)  # a busy machine is no failure
@given(places=st.lists(st.integers(min_value=0), max_size=10), end=st.sampled_from([b"\n", b"\r\n"]))
def test_a_clouds_stream_is_given_back_byte_for_byte(name: str, places: list[int], end: bytes) -> None:
    stream = (WIRE / name).read_bytes().replace(b"\n", end)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    decoder, client = OPENAI.decoder(), encoder(include_usage=True)
    out = b""
    for start, stop in itertools.pairwise(edges):
        out += client.encode(decoder.feed(stream[start:stop]))
    assert out + client.encode(decoder.close()) + client.close() == stream


def test_a_missing_end_mark_is_added() -> None:
    stream = (WIRE / "text.sse").read_bytes().removesuffix(b"data: [DONE]\n\n")
    client = encoder()
    assert client.encode(OPENAI.decoder().feed(stream)) == stream
    assert client.close() == b"data: [DONE]\n\n"
    assert client.close() == b""


def test_a_missing_count_is_added_for_a_client_that_asked() -> None:
    stream = (WIRE / "text.sse").read_bytes().removesuffix(b"data: [DONE]\n\n")
    client = encoder(include_usage=True)
    assert client.encode([*OPENAI.decoder().feed(stream), Usage(prompt_tokens=3, completion_tokens=4)]) == stream
    (counted,) = chunks(client.close())
    assert counted["usage"]["total_tokens"] == 7
    assert counted["id"] == "chatcmpl-123"


def test_a_count_that_the_cloud_gave_is_not_given_again() -> None:
    stream = (WIRE / "usage.sse").read_bytes().removesuffix(b"data: [DONE]\n\n")
    client = encoder(include_usage=True)
    client.encode([*OPENAI.decoder().feed(stream), Usage(prompt_tokens=3, completion_tokens=4)])
    assert client.close() == b"data: [DONE]\n\n"


# -------------------------------------------------------------------------------------------------- speaking


def test_an_answer_of_ours_is_role_text_finish_and_end_mark() -> None:
    client = encoder()
    out = client.encode([STARTED, Degraded(what="context"), TextDelta(text="Hé"), TextDelta(text="")])
    out += client.encode([Finish(reason="stop"), Usage(prompt_tokens=1, completion_tokens=2)]) + client.close()
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"box","choices":[{"index":0,'
    assert out == (
        head
        + b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
        + b": appliance degraded context\n\n"
        + head
        + '"delta":{"content":"Hé"},"logprobs":null,"finish_reason":null}]}\n\n'.encode()
        + head
        + b'"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        + b"data: [DONE]\n\n"
    )


def test_the_token_counts_go_to_who_asked_behind_the_finish() -> None:
    client = encoder(include_usage=True)
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=3)
    out = client.encode([STARTED, usage, TextDelta(text="a"), Finish(reason="length")]) + client.close()
    *before, last = chunks(out)
    assert [chunk["usage"] for chunk in before] == [None] * 3
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def test_without_a_name_of_the_cloud_it_is_ours() -> None:
    client = encoder()
    (chunk,) = chunks(client.encode([TextDelta(text="a")]))
    assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-ours", 1, "asked")
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": "a"}


def test_each_choice_has_one_role_and_one_finish() -> None:
    client = encoder(n=2)
    events: list[Event] = [STARTED, TextDelta(text="a"), TextDelta(text="b", choice=1), TextDelta(text="c", choice=1)]
    events += [Finish(reason="stop"), Finish(reason="stop"), Finish(reason="other", choice=1)]
    found = [chunk["choices"][0] for chunk in chunks(client.encode(events))]
    assert [(choice["index"], "role" in choice["delta"], choice["finish_reason"]) for choice in found] == [
        (0, True, None),
        (0, False, None),
        (1, True, None),
        (1, False, None),
        (0, False, "stop"),
        (1, False, "stop"),
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
BODIES = st.lists(
    st.builds(TextDelta, text=TEXT)
    | st.builds(ReasoningDelta, text=TEXT)
    | st.builds(ToolCallDelta, index=st.integers(0, 1), arguments=TEXT),
    max_size=8,
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    started=st.builds(Started, id=TEXT, model=TEXT, created=st.integers(1, 2**40)),
    body=BODIES,
    calls=st.lists(st.tuples(st.text("abc123_-", min_size=1, max_size=40), TEXT, TEXT), min_size=2, max_size=2),
    finish=st.builds(Finish, reason=st.sampled_from(["length", "tool_calls", "content_filter"])),
    usage=st.builds(
        Usage,
        prompt_tokens=st.integers(0, 9),
        completion_tokens=st.integers(0, 9),
        cached_tokens=st.integers(0, 9),
        cache_written_tokens=st.integers(0, 9),
        reasoning_tokens=st.integers(0, 9),
    ),
    places=st.lists(st.integers(min_value=0), max_size=10),
)
def test_what_is_encoded_is_decoded_back(
    started: Started,
    body: list[Event],
    calls: list[tuple[str, str, str]],
    finish: Finish,
    usage: Usage,
    places: list[int],
) -> None:
    begun: list[Event] = []
    for at, (id, name, arguments) in enumerate(calls):
        begun += [ToolCallStart(index=at, id=id, name=name), ToolCallDelta(index=at, arguments=arguments)]
    events: list[Event] = [started, *begun, *body, finish, usage]
    client = encoder(include_usage=True)
    stream = client.encode(events) + client.close()
    chunks(stream)
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    decoder = OPENAI.decoder()
    back = [event for start, stop in itertools.pairwise(edges) for event in decoder.feed(stream[start:stop])]
    assert bare(back + decoder.close()) == [*events, Opaque(content=False, over=True)]

    whole = OPENAI.encode_whole(REQUEST, events, id="x", created=1)
    ChatCompletion.model_validate_json(whole, strict=True)
    assert said(OPENAI.decode_whole(whole)) == said(events)


def said(events: Sequence[Event]) -> tuple[Any, ...]:
    """An answer as a reader sums it up."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    calls = {event.index: [event.id, event.name, ""] for event in events if isinstance(event, ToolCallStart)}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.index][2] += event.arguments
    rest = [event for event in bare(events) if isinstance(event, Started | Finish | Usage)]
    return text, thought, calls, rest


# ------------------------------------------------------------------------------------------------ translation


def test_an_answer_of_another_dialect_is_translated_and_its_wire_left_behind() -> None:
    foreign, rest = Wire("anthropic", b"event: message_start\n\n"), Wire("anthropic", b"")
    client = encoder()
    out = client.encode(
        [
            replace(STARTED, wire=foreign),
            TextDelta(text="a", wire=foreign),
            Opaque(content=True, wire=foreign),
            ReasoningDelta(text="b", wire=rest),
            Finish(reason="stop", wire=foreign),
        ]
    )
    assert b"message_start" not in out
    assert [chunk["choices"][0]["delta"] for chunk in chunks(out)][1:] == [
        {"content": "a"},
        {"reasoning_content": "b"},
        {},
    ]


def test_what_another_dialect_may_show_is_content_and_a_refusal_is_one() -> None:
    other, own = Wire("anthropic", b"event: x\n\n"), Wire("openai", b"")
    events: list[Event] = [
        STARTED,
        BlockStart(index=0, kind="other", wire=other),
        Opaque(content=True, closed=True, text="as found on a page", wire=other),
        BlockStop(index=0, wire=other),
        Opaque(content=True, text="I will not.", wire=own),
        Finish(reason="stop"),
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(encoder().encode(events))]
    assert deltas[1:] == [{"content": "as found on a page"}, {"refusal": "I will not."}, {}]
    message = json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "as found on a page", "refusal": "I will not."}


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop", "tool_calls"),
        ("other", "tool_calls"),
        ("tool_calls", "tool_calls"),
        ("length", "length"),
        ("content_filter", "content_filter"),
    ],
)
def test_an_answer_with_calls_ends_so_that_the_client_makes_them(reason: Any, said: str) -> None:
    events: list[Event] = [STARTED, ToolCallStart(index=0, id="c", name="f"), Finish(reason=reason)]
    found = chunks(encoder().encode(events))
    assert found[-1]["choices"][0]["finish_reason"] == said
    whole = json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))["choices"][0]
    assert whole["finish_reason"] == said
    # A call that was meant without arguments has none in JSON; one that was cut keeps what there was.
    expected = "{}" if said == "tool_calls" else ""
    assert whole["message"]["tool_calls"][0]["function"]["arguments"] == expected
    calls = [call for chunk in found for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == expected


def test_every_call_has_an_id_that_fits_and_is_its_own() -> None:
    starts = [("", 0), ("", 1), ("x" * 41, 2), ("toolu_1", 3)]
    events: list[Event] = [STARTED, *[ToolCallStart(index=at, id=id, name="f") for id, at in starts]]
    found = [chunk["choices"][0]["delta"]["tool_calls"][0]["id"] for chunk in chunks(encoder().encode(events))[1:]]
    assert found[3] == "toolu_1"
    assert len(set(found)) == 4
    assert all(id.startswith("call_") and len(id) <= 40 for id in found[:3])
    whole = json.loads(OPENAI.encode_whole(REQUEST, events, id="x", created=1))
    assert [call["id"] for call in whole["choices"][0]["message"]["tool_calls"]] == found
    other = chunks(encoder().encode([replace(STARTED, id="chatcmpl-2"), events[1]]))
    assert other[1]["choices"][0]["delta"]["tool_calls"][0]["id"] != found[0]


# ------------------------------------------------------------------------------------------------- side words


def test_still_here_is_a_comment() -> None:
    assert encoder().keepalive() == b": keep-alive\n\n"
    assert encoder().content_type == "text/event-stream"


def test_after_an_error_nothing_follows() -> None:
    client = encoder()
    out = client.error(BackendError(Fault.BROKEN, "It broke."))
    assert out == (
        b'data: {"error":{"message":"It broke.","type":"server_error","param":null,"code":"upstream_broken"}}\n\n'
    )
    assert client.close() == b""


def read_by_the_official_client(stream: bytes) -> str:
    """The text that the openai package makes of a stream of ours."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=stream, headers=headers))
    with httpx.Client(transport=transport) as http:
        client = openai.OpenAI(api_key="x", base_url="http://box", http_client=http, max_retries=0)
        stream_of = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream_of if chunk.choices)


def test_the_official_client_does_not_notice_a_takeover() -> None:
    client = encoder()
    out = client.encode(OPENAI.decoder().feed((WIRE / "error.sse").read_bytes()))
    out += client.keepalive() + client.encode([TAKEOVER, STARTED, TextDelta(text="tence."), Finish(reason="stop")])
    assert read_by_the_official_client(out + client.close()) == "Half a sentence."


def test_the_official_client_notices_an_error() -> None:
    client = encoder()
    out = client.encode([STARTED, TextDelta(text="a")]) + client.error(BackendError(Fault.BROKEN, "It broke."))
    with pytest.raises(openai.APIError, match="It broke"):
        read_by_the_official_client(out)


def test_a_stream_with_ids_gets_no_comment_of_ours_for_the_official_sdk_stumbles_over_it():
    client, decoder = encoder(), OPENAI.decoder()
    said = {"choices": [{"index": 0, "delta": {"content": "Half a sen"}}], "id": "c1"}
    passed = b"id: 7\ndata: " + json.dumps(said).encode() + b"\n\n"
    out = client.encode(decoder.feed(passed))
    out += (
        client.keepalive() + client.encode([TAKEOVER, TextDelta(text="tence."), Finish(reason="stop")]) + client.close()
    )
    assert out.startswith(passed)
    assert b"\n:" not in out
    response = httpx.Response(200, content=out, headers={"content-type": "text/event-stream"})
    sdk = openai.OpenAI(api_key="x", http_client=httpx.Client(transport=httpx.MockTransport(lambda _: response)))
    chunks = sdk.chat.completions.create(model="m", messages=[], stream=True)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Half a sentence."
