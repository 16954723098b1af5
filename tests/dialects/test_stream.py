"""What the dialects have in common: the end mark, errors in the place of events, and counting over several legs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.core.events import Degraded, Event, Finish, Opaque, Started, TextDelta, Usage, Wire
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from appliance.dialects.stream import Batch, Counts, count, whole_body
from tests.dialects.anthropic_events import BEGUN, TEXT, ended, piece
from tests.dialects.test_openai_chat_out import chunk

DONE = b"data: [DONE]\n\n"
HALF = {"openai": chunk({"content": "a"}), "anthropic": BEGUN + TEXT + piece({"type": "text_delta", "text": "a"})}
END = {"openai": chunk({}, "stop"), "anthropic": ended()}

both = pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)


@both
def test_an_end_mark_behind_the_end_is_passed_on(dialect: Dialect) -> None:
    events = dialect.decoder().feed(HALF[dialect.name] + END[dialect.name] + DONE)
    assert isinstance(events[-2], Finish)
    assert events[-1] == Opaque(content=False, over=True, wire=Wire(dialect.name, DONE))


@both
@pytest.mark.parametrize("mark", [DONE, b"data:[DONE] \r\n\r\n", b"data: [DONE]"])
def test_an_end_mark_in_mid_answer_is_never_given_on(dialect: Dialect, mark: bytes) -> None:
    """Gateways write it after the cloud behind them has died."""
    decoder = dialect.decoder()
    assert TextDelta in map(type, decoder.feed(HALF[dialect.name]))
    with pytest.raises(BackendError) as caught:
        decoder.feed(mark)
        decoder.close()
    assert caught.value.fault is Fault.BROKEN


@both
def test_an_end_mark_alone_is_no_answer(dialect: Dialect) -> None:
    with pytest.raises(BackendError, match="end mark") as caught:
        dialect.decoder().feed(DONE)
    assert caught.value.fault is Fault.BROKEN


def test_an_end_mark_does_not_stand_for_a_choice_that_had_begun() -> None:
    decoder = OPENAI.decoder()
    decoder.feed(chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({}, "stop", index=1))
    with pytest.raises(BackendError, match="end mark"):
        decoder.feed(DONE)


@both
@pytest.mark.parametrize("shape", ["{}", "[{}]"])
def test_an_error_that_is_no_event_is_read_in_a_list_too(dialect: Dialect, shape: str) -> None:
    error = json.dumps({"type": "error", "error": {"code": 429, "message": "Too many."}})
    with pytest.raises(BackendError) as caught:
        dialect.decoder().feed(shape.replace("{}", error).encode() + b"\n\n")
    assert caught.value.fault is Fault.BUSY


@both
def test_the_name_of_an_event_at_the_end_is_half_an_event(dialect: Dialect) -> None:
    decoder = dialect.decoder()
    decoder.feed(HALF[dialect.name] + b"event: message\n")
    with pytest.raises(BackendError, match="half an event"):
        decoder.close()


def test_the_first_of_a_batch_carries_its_bytes() -> None:
    batch = Batch("x", b"abc")
    assert [batch.wire(), batch.wire(), batch.wire()] == [Wire("x", b"abc"), Wire("x", b""), Wire("x", b"")]


@pytest.mark.parametrize(("said", "meant"), [(3, 3), (True, 0), ("3", 0), (None, 0), (1.5, 0)])
def test_a_count_is_a_whole_number(said: Any, meant: int) -> None:
    assert count(said) == meant


def test_the_input_is_the_first_legs_that_told_it_and_the_output_the_last_total() -> None:
    counts = Counts()
    assert counts.total is None
    counts.taken_over()
    counts.note(Usage(prompt_tokens=0, completion_tokens=1))
    counts.taken_over()
    first = Usage(prompt_tokens=100, completion_tokens=4, cached_tokens=60, cache_written_tokens=30)
    counts.note(first)
    assert counts.total == first
    counts.taken_over()
    assert counts.total == first
    counts.note(Usage(prompt_tokens=140, completion_tokens=9, cached_tokens=7, reasoning_tokens=2))
    counts.taken_over()
    counts.note(Usage(prompt_tokens=150, completion_tokens=12, reasoning_tokens=2))
    assert counts.total == Usage(
        prompt_tokens=100, completion_tokens=12, cached_tokens=60, cache_written_tokens=30, reasoning_tokens=2
    )


BODY, REST = Wire("x", b' {"a": 1}'), Wire("x", b"")


@pytest.mark.parametrize(
    ("events", "body"),
    [
        ([Degraded(what="tools"), Started(id="", model="", created=0, wire=BODY), Finish(reason="stop", wire=REST)], 1),
        ([Started(id="", model="", created=0, wire=BODY), Finish(reason="stop", wire=BODY)], 0),
        ([Started(id="", model="", created=0, wire=BODY), Finish(reason="stop")], 0),
        ([Started(id="", model="", created=0, wire=Wire("y", b"{}"))], 0),
        ([Started(id="", model="", created=0, wire=Wire("x", b"data: {}\n\n"))], 0),
        ([], 0),
    ],
)
def test_a_whole_body_is_one_that_all_events_came_out_of(events: list[Event], body: bool) -> None:
    assert whole_body(events, "x") == (BODY.data if body else None)


SPLIT = {
    "openai": (chunk({"content": "b\ud83d"}), chunk({"content": "\ude00c"})),
    "anthropic": tuple(piece({"type": "text_delta", "text": text}) for text in ("b\ud83d", "\ude00c")),
}


@both
def test_half_a_character_waits_for_its_other_half(dialect: Dialect) -> None:
    """If the cloud dies in between, nobody else has that half, and the client must not have the first."""
    first, second = SPLIT[dialect.name]
    decoder = dialect.decoder()
    assert b"\\ud83d" in first
    assert "b" not in "".join(getattr(event, "text", "") for event in decoder.feed(HALF[dialect.name] + first))
    events = decoder.feed(second)
    assert "".join(getattr(event, "text", "") for event in events) == "b\ud83d\ude00c"
    assert b"".join(event.wire.data for event in events if event.wire) == first + second
    decoder = dialect.decoder()
    decoder.feed(HALF[dialect.name] + first)
    with pytest.raises(BackendError):
        decoder.feed(b"data: nonsense\n\n")
    assert not any(isinstance(event, TextDelta) for event in dialect.decoder().close())
