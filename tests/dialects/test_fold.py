"""A streamed answer becomes the whole one that the cloud would have given, and the one that official clients make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core import sse
from appliance.core.chat import BackendError, Event, Fault, Progress, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from appliance.core.seams import Dialect, Unfoldable
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.folded import (
    CUTS,
    WIRE,
    anthropic_client,
    anthropic_stream,
    chunks,
    completions,
    folded,
    happenings,
    known,
    messages,
    openai_client,
    openai_stream,
)

DIALECTS: dict[str, Dialect] = {"openai": OPENAI, "anthropic": ANTHROPIC}
ERRORS = ("error.sse", "openrouter_error.sse")
STREAMS = sorted(path for path in WIRE.rglob("*.sse") if path.name not in ERRORS)
SIZES = (1, 7, 64, 1 << 20)


def dialect_of(path: Any) -> Dialect:
    return DIALECTS[path.parent.name]


def begins(**message: Any) -> dict[str, Any]:
    given = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    return {"type": "message_start", "message": {**given, "usage": {"input_tokens": 5, "output_tokens": 1}, **message}}


def opens(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def ends(reason: str | None = "end_turn", usage: dict[str, Any] | None = None, **more: Any) -> list[dict[str, Any]]:
    last = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage or {"output_tokens": 7}, **more}
    return [last, {"type": "message_stop"}]


def message(*parts: dict[str, Any]) -> Any:
    return folded(ANTHROPIC, anthropic_stream([begins(), *parts]))


def chunk(
    delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **rest: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **rest}


def completion(*parts: dict[str, Any], reason: str = "stop") -> Any:
    return folded(OPENAI, openai_stream([*parts, chunk(reason=reason)]))


def said(*deltas: dict[str, Any], reason: str = "stop") -> Any:
    return completion(*map(chunk, deltas), reason=reason)["choices"][0]["message"]


# --------------------------------------------------------------------------------------- what it ought to be


@settings(max_examples=60, deadline=None)
@given(whole=completions(), cuts=CUTS, size=st.sampled_from(SIZES))
def test_a_completion_that_is_streamed_is_itself_again_and_what_the_official_client_makes(
    whole: dict[str, Any], cuts: Sequence[int], size: int
) -> None:
    stream = openai_stream(chunks(whole, cuts))
    found = folded(OPENAI, stream, choices=len(whole["choices"]), size=size)
    assert found == whole
    made = openai_client(stream)
    for choice in made["choices"]:
        # It makes one empty text of one that was begun and left empty.
        if not choice["message"].get("content") and not _spoken(whole, choice["index"]):
            choice["message"].pop("content", None)
    assert known(made) == known(found)


def _spoken(whole: dict[str, Any], index: int) -> bool:
    return whole["choices"][index]["message"]["content"] is not None


@settings(max_examples=60, deadline=None)
@given(whole=messages(), cuts=CUTS, size=st.sampled_from(SIZES))
def test_a_message_that_is_streamed_is_itself_again_and_what_the_official_client_makes(
    whole: dict[str, Any], cuts: Sequence[int], size: int
) -> None:
    stream = anthropic_stream(happenings(whole, cuts))
    found = folded(ANTHROPIC, stream, size=size)
    assert found == whole
    assert known(anthropic_client(stream)) == known(found)


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("size", SIZES)
def test_a_recorded_stream_folds_to_the_same_however_it_is_cut(path: Any, size: int) -> None:
    dialect, stream = dialect_of(path), path.read_bytes()
    assert folded(dialect, stream, size=size) == folded(dialect, stream)


def better(name: str, made: Any) -> Any:
    """What the official client makes, but for what it does not keep or makes up."""
    match name:
        case "azure":
            verdict = {"filtered": False, "severity": "safe"}
            made["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": {"hate": verdict}}]
        case "max_tokens":  # it mends what was cut, which no application may run
            made["content"][0]["input"] = {}
        case "zai":
            made["usage"]["service_tier"] = "standard"
    return made


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_stream_folds_to_what_the_official_client_makes(path: Any) -> None:
    stream = path.read_bytes()
    made = openai_client(stream) if path.parent.name == "openai" else anthropic_client(stream)
    assert known(folded(dialect_of(path), stream)) == better(path.stem, known(made))


def heard(events: Sequence[Event]) -> dict[str, Any]:
    """What a reader of the events has in the end."""
    kinds: tuple[type[TextDelta | ReasoningDelta], ...] = (TextDelta, ReasoningDelta)
    texts = {kind.__name__: "".join(one.text for one in events if isinstance(one, kind)) for kind in kinds}
    calls = "".join(one.arguments for one in events if isinstance(one, ToolCallDelta))
    counted = [replace(one, wire=None) for one in events if isinstance(one, Usage)]
    return {**texts, "calls": calls.replace(" ", ""), "usage": counted[-1:]}


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_whole_answer_says_what_the_stream_says(path: Any) -> None:
    dialect, stream = dialect_of(path), path.read_bytes()
    decoder, fold = dialect.decoder(), dialect.fold()
    events = decoder.feed(stream)
    fold.feed(stream)
    whole = heard(dialect.decode_whole(fold.close()))
    if path.stem == "max_tokens":
        whole["calls"] = heard(events)["calls"]  # half an object there, an empty one here
    assert whole == heard(events)


# --------------------------------------------------------------------------------------------------- progress


def test_it_says_by_how_much_the_answer_has_grown() -> None:
    fold = OPENAI.fold()
    assert fold.feed(openai_stream([chunk({"role": "assistant", "content": ""})])[:-14]) == []
    assert fold.feed(sse.encode(json.dumps(chunk({"content": "four"}))) * 2) == [Progress(kind="text", characters=8)]
    call = {"index": 0, "id": "c", "function": {"name": "see", "arguments": '{"'}}
    mixed = [chunk({"reasoning": "hm"}), chunk({"content": "."}), chunk({"tool_calls": [call]})]
    assert fold.feed(b"".join(sse.encode(json.dumps(one)) for one in mixed)) == [
        Progress(kind="thinking", characters=2),
        Progress(kind="text", characters=1),
        Progress(kind="tools", characters=5),
    ]
    assert fold.feed(b": ping\n\n") == []


def test_thoughts_and_searches_of_the_clouds_own_are_progress_without_letters() -> None:
    fold = ANTHROPIC.fold()
    assert fold.feed(anthropic_stream([begins(), {"type": "ping"}])) == []
    assert fold.feed(anthropic_stream([opens(0, type="thinking", thinking="")])) == [
        Progress(kind="thinking", characters=0)
    ]
    assert fold.feed(anthropic_stream([opens(1, type="server_tool_use", id="s", name="n", input={})])) == [
        Progress(kind="text", characters=0)
    ]


def test_it_knows_when_the_answer_has_ended_and_when_the_stream_is_over() -> None:
    fold = OPENAI.fold(2)
    stages = []
    for part in (
        chunk({"content": "a"}),
        chunk(reason="stop"),
        chunk({"content": "b"}, index=1),
        chunk(None, "stop", 1),
    ):
        fold.feed(sse.encode(json.dumps(part)))
        stages.append(fold.ended)
    assert stages == [False, False, False, True]
    assert not fold.over
    fold.feed(b"data: [DONE]\n\n")
    assert fold.over


def test_fewer_choices_than_were_asked_for_are_an_answer_only_if_the_stream_says_that_it_is_complete() -> None:
    one = sse.encode(json.dumps(chunk({"content": "a"}, "stop")))
    fold = OPENAI.fold(2)
    fold.feed(one)
    with pytest.raises(BackendError, match=r"^The cloud closed the answer before its end\.$") as caught:
        fold.close()
    assert caught.value.fault is Fault.BROKEN
    assert len(folded(OPENAI, one + b"data: [DONE]\n\n", choices=2)["choices"]) == 1


# ------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_cut_before_its_end_it_is_no_answer_and_behind_it_it_is(path: Any) -> None:
    dialect, stream = dialect_of(path), path.read_bytes()
    ended = 0
    for end in range(0, len(stream), 23):
        fold = dialect.fold()
        fold.feed(stream[:end])
        before = fold.ended
        try:
            body = fold.close()
        except BackendError as error:
            assert error.fault is Fault.BROKEN
            assert not before
        else:
            assert dialect.decode_whole(body)
            ended += 1
    assert 0 < ended < len(stream) // 23


@pytest.mark.parametrize("name", ["openai/error.sse", "openai/openrouter_error.sse", "anthropic/error.sse"])
def test_an_error_in_the_stream_is_what_it_is_in_a_streamed_answer(name: str) -> None:
    path = WIRE / name
    outcomes = []
    for reader in (dialect_of(path).decoder(), dialect_of(path).fold()):
        with pytest.raises(BackendError) as caught:
            for at in range(0, len(path.read_bytes()), 40):
                reader.feed(path.read_bytes()[at : at + 40])
        outcomes.append((caught.value.fault, caught.value.message, caught.value.status))
    assert outcomes[0] == outcomes[1]


def test_an_error_behind_the_end_does_not_matter_any_more() -> None:
    done = openai_stream([chunk({"content": "a"}, "stop")])
    fold = OPENAI.fold()
    fold.feed(done + b'data: {"error":{"message":"late"}}\n\n')
    assert json.loads(fold.close())["choices"][0]["message"]["content"] == "a"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a", "text", "text_delta", "tool_use", "{"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                "index type id delta content_block message content text input citations usage input_tokens function"
                " tool_calls name arguments choices logprobs custom to model partial_json thinking".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
MEMBERS = st.dictionaries(st.sampled_from("delta message content_block index usage".split()), ODD, max_size=4)
KINDS = st.sampled_from("message_start content_block_start content_block_delta message_delta ping".split())


@settings(max_examples=300, deadline=None)
@given(odd=st.lists(st.tuples(KINDS, MEMBERS), max_size=4))
def test_whatever_a_cloud_of_anthropics_sends_it_is_an_answer_or_one_of_our_sentences(odd: list[Any]) -> None:
    parts = [{**more, "type": kind} for kind, more in odd]
    start = [] if parts and parts[0]["type"] == "message_start" else [begins()]
    try:
        body = folded(ANTHROPIC, anthropic_stream([*start, *parts, *ends()]))
    except BackendError:
        return
    assert body["content"] is not None


@settings(max_examples=300, deadline=None)
@given(odd=st.lists(st.fixed_dictionaries({"choices": st.lists(ODD, max_size=2), "usage": ODD}), max_size=3))
def test_whatever_a_cloud_of_openais_sends_it_is_an_answer_or_one_of_our_sentences(odd: list[Any]) -> None:
    try:
        body = folded(OPENAI, openai_stream([*odd, chunk({"content": "a"}, "stop")]))
    except BackendError:
        return
    assert body["choices"]


# ---------------------------------------------------------------------------------------------- OpenAI's deltas


def test_nothing_said_is_null_and_an_empty_text_is_empty() -> None:
    assert said({"role": "assistant"}) == {"role": "assistant", "content": None, "refusal": None}
    assert said({"content": ""})["content"] == ""
    assert said({"content": "", "refusal": "N"}, {"refusal": "o"}) == {
        "role": "assistant",
        "content": None,
        "refusal": "No",
    }


def test_what_names_something_is_said_once_and_every_other_string_is_a_piece() -> None:
    details = [{"type": "reasoning.text", "text": word, "format": "f", "index": 0, "id": "r"} for word in ("a", "b")]
    details.append({"type": "reasoning.encrypted", "data": "x", "format": "f", "index": 0})
    deltas = [{"role": "assistant", "of_tomorrow": "x", "reasoning_details": [one]} for one in details]
    assert said(*deltas) | {"content": "any"} == {
        "role": "assistant",
        "content": "any",
        "refusal": None,
        "of_tomorrow": "xxx",
        "reasoning_details": [{**details[0], "text": "ab"}, details[2]],
    }


def test_lists_without_numbers_grow_and_objects_are_merged() -> None:
    notes = [{"type": "url_citation", "url_citation": {"url": url}} for url in "ab"]
    thing = [{"annotations": notes[:1], "extra": {"a": 1, "t": "x"}}, {"annotations": notes[1:], "extra": {"t": "y"}}]
    message = said(*thing)
    assert (message["annotations"], message["extra"]) == (notes, {"a": 1, "t": "xy"})


def test_mistrals_parts_become_whole_parts() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    assert said({"content": ""}, thought("a"), thought("b"), {"content": "Hel"}, {"content": "lo"})["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]},
        {"type": "text", "text": "Hello"},
    ]


@pytest.mark.parametrize(
    ("fragments", "calls"),
    [
        # all under the same number, as Gemini sends them
        (
            [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}},
                {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "2"}},
            ],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        # without numbers, without a type, the arguments as an object
        (
            [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"arguments": " "}}],
            [("a", "f", '{"x": 1} ')],
        ),
        # a new id and the name for each piece
        (
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "1"}},
                {"index": 0, "id": "z", "function": {"name": None, "arguments": "2"}},
            ],
            [("a", "f", "12")],
        ),
        ([{"index": 3, "id": None, "function": {"name": "f", "arguments": None}}], [("", "f", "")]),
    ],
)
def test_calls_are_told_apart_as_in_a_stream(fragments: list[Any], calls: list[tuple[str, str, str]]) -> None:
    message = said(*({"tool_calls": [one]} for one in fragments), reason="tool_calls")
    assert message["tool_calls"] == [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in calls
    ]


def test_a_custom_call_has_its_input() -> None:
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "sel"}}
    more = {"index": 0, "custom": {"input": "ect"}}
    assert said({"tool_calls": [first]}, {"tool_calls": [more]}, reason="tool_calls")["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select"}}
    ]


def test_outside_of_the_deltas_the_last_word_counts_and_nothing_takes_nothing_back() -> None:
    found = completion(
        {**chunk(), "id": "", "model": "", "created": 0, "choices": [], "citations": ["a"]},
        chunk({"content": "x"}, citations=["a", "b"], service_tier="auto", usage={"prompt_tokens": 1}),
        chunk(service_tier=None, usage=None, obfuscation="zzz"),
    )
    assert found == {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "x", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "citations": ["a", "b"],
        "service_tier": "auto",
        "usage": {"prompt_tokens": 1},
    }


def test_what_stands_beside_a_delta_is_kept() -> None:
    parts = [chunk({"content": "x"}), chunk({"content": "y"})]
    for part, token, reason in zip(parts, "xy", (None, "STOP"), strict=True):
        part["choices"][0] |= {"token_ids": [ord(token)], "native_finish_reason": reason}
        part["choices"][0]["logprobs"] = {"content": [{"token": token}]}
    [choice] = completion(*parts)["choices"]
    assert (choice["token_ids"], choice["native_finish_reason"]) == ([120, 121], "STOP")
    assert choice["logprobs"] == {"content": [{"token": "x"}, {"token": "y"}]}


# ------------------------------------------------------------------------------------------- Anthropic's deltas


def test_a_piece_of_a_kind_of_tomorrow_cannot_be_put_together() -> None:
    with pytest.raises(Unfoldable, match=r"^The cloud sent a piece of an answer that cannot be put together\.$"):
        message(opens(0, type="text", text=""), delta(0, "smell_delta", smell="rose"), *ends())


def test_a_block_of_tomorrow_is_kept_as_it_came() -> None:
    block = {"type": "smell", "smell": "rose"}
    assert message(opens(0, **block), *ends())["content"] == [block]


def test_a_compaction_is_what_its_piece_says() -> None:
    block = {"type": "compaction", "content": None}
    found = message(opens(0, **block), delta(0, "compaction_delta", content="brief", encrypted_content="e"), *ends())
    assert found["content"] == [{"type": "compaction", "content": "brief", "encrypted_content": "e"}]


@pytest.mark.parametrize(
    ("given", "written", "found"),
    [
        ({}, ['{"a"', ": 1}"], {"a": 1}),
        ({"b": 2}, [], {"b": 2}),
        ({"b": 2}, [""], {"b": 2}),
        ("", [""], {}),
        (None, [], {}),
        ({}, ['{"a": "cu'], {}),
        ({}, ["[1]"], {}),
        ({}, [{"a": 1}], {"a": 1}),
    ],
)
def test_a_calls_input_is_an_object(given: Any, written: list[Any], found: Any) -> None:
    opened = {"type": "tool_use", "id": "t", "name": "n"} | ({} if given is None else {"input": given})
    parts = [delta(0, "input_json_delta", partial_json=piece) for piece in written]
    assert message(opens(0, **opened), *parts, *ends("tool_use"))["content"][0]["input"] == found


def test_counts_are_totals_and_zeros_take_nothing_back() -> None:
    first = begins(usage={"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1, "service_tier": "s"})
    last = {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0, "service_tier": None, "speed": "fast"}
    found = folded(ANTHROPIC, anthropic_stream([first, *ends(usage=last)]))
    assert found["usage"] == {**first["message"]["usage"], "speed": "fast"}
    last = {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 3}
    found = folded(ANTHROPIC, anthropic_stream([first, *ends(usage=last)]))
    assert found["usage"] == {**last, "service_tier": "s"}


def test_what_stands_beside_the_last_delta_is_the_messages() -> None:
    found = message(*ends(context_management={"applied_edits": []}, input_transformations=None))
    assert found["context_management"] == {"applied_edits": []}


def test_a_cloud_that_gives_no_reason_has_ended_its_turn_or_calls_a_tool() -> None:
    stop = {"type": "message_stop"}
    assert message(opens(0, type="text", text="a"), stop)["stop_reason"] == "end_turn"
    assert message(opens(0, type="tool_use", id="t", name="n", input={}), stop)["stop_reason"] == "tool_use"


def test_the_model_is_the_one_that_answered_in_the_end() -> None:
    found = message(opens(0, type="fallback", **{"from": {"model": "m"}, "to": {"model": "small"}}), *ends())
    assert found["model"] == "small"


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([begins(content="a"), *ends()], []),
        ([begins(), opens(0, type="smell", text=5), delta(0, "text_delta", text="a"), *ends()], "a"),
        ([begins(), opens(0, type="smell"), delta(0, "thinking_delta", thinking=5), *ends()], None),
        ([begins(), opens(0, type=["smell"]), {**ends()[0], "delta": ["end"]}, *ends()], None),
    ],
)
def test_what_is_of_no_type_that_it_ought_to_be_says_nothing(parts: list[Any], found: Any) -> None:
    content = folded(ANTHROPIC, anthropic_stream(parts))["content"]
    assert (content[0].get("text") if content else content) == found


def test_a_kind_that_is_no_word_cannot_be_put_together_either() -> None:
    with pytest.raises(Unfoldable):
        message(opens(0, type="text", text=""), {**delta(0, ""), "delta": {"type": ["text_delta"]}}, *ends())
