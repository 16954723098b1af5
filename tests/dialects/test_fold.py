"""A streamed answer becomes the whole one that the cloud would have given, and the one that official clients make."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.core import sse
from appliance.core.events import Event, Progress, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.known import DIALECTS
from appliance.dialects.openai_chat import OPENAI
from tests.dialects.folded import (
    CUTS,
    WIRE,
    anthropic_client,
    anthropic_stream,
    begins,
    chunk,
    chunks,
    completions,
    delta,
    ends,
    folded,
    happenings,
    known,
    messages,
    openai_client,
    openai_stream,
    opens,
)

ERRORS = ("error.sse", "openrouter_error.sse")
STREAMS = sorted(path for path in WIRE.rglob("*.sse") if path.name not in ERRORS)
SIZES = (1, 7, 64, 1 << 20)


def dialect_of(path: Any) -> Dialect:
    return DIALECTS[path.parent.name]


# --------------------------------------------------------------------------------------- what it ought to be


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(odd=st.lists(st.fixed_dictionaries({"choices": st.lists(ODD, max_size=2), "usage": ODD}), max_size=3))
def test_whatever_a_cloud_of_openais_sends_it_is_an_answer_or_one_of_our_sentences(odd: list[Any]) -> None:
    try:
        body = folded(OPENAI, openai_stream([*odd, chunk({"content": "a"}, "stop")]))
    except BackendError:
        return
    assert body["choices"]


# --------------------------------------------------------------------------------------------------- long answers

LONG = "wave " * 100_000


def thought(text: str) -> dict[str, Any]:
    return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}


def argument(text: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": text}}]}


def detail(text: str) -> dict[str, Any]:
    return {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": text}]}


def streamed(deltas: list[dict[str, Any]]) -> tuple[Dialect, bytes, bytes]:
    """In OpenAI's words: the long beginning of an answer, and one piece more."""
    *begun, more = (sse.encode(json.dumps(chunk(delta))) for delta in deltas)
    return OPENAI, b"".join(begun), more


def told(block: dict[str, Any], deltas: list[dict[str, Any]]) -> tuple[Dialect, bytes, bytes]:
    """The same in Anthropic's."""
    return ANTHROPIC, anthropic_stream([begins(), opens(0, **block), *deltas[:-1]]), anthropic_stream(deltas[-1:])


@pytest.mark.parametrize(
    ("dialect", "begun", "more"),
    [
        streamed([{"content": text} for text in (LONG, "a", "b")]),
        streamed([{"reasoning_content": text} for text in (LONG, "a", "b")]),
        streamed([argument(text) for text in (LONG, "a", "b")]),
        streamed([thought(text) for text in (LONG, "a", "b")]),
        streamed([detail(text) for text in (LONG, "a", "b")]),
        streamed([{"content": [{"type": "text", "text": LONG}]}, {"content": "a"}, {"content": "b"}]),
        told({"type": "text", "text": ""}, [delta(0, "text_delta", text=text) for text in (LONG, "a", "b")]),
        told({"type": "thinking"}, [delta(0, "thinking_delta", thinking=text) for text in (LONG, "a", "b")]),
        told({"type": "text"}, [delta(0, "citations_delta", citation={"at": at}) for at in range(10_000)]),
    ],
    ids="content reasoning arguments thought detail part text thinking citations".split(),
)
def test_a_piece_costs_what_it_is_long_and_not_what_came_before_it(dialect: Dialect, begun: bytes, more: bytes) -> None:
    fold = dialect.fold()
    fold.feed(begun)
    tracemalloc.start()
    try:
        assert fold.feed(more)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 50_000
