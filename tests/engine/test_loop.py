"""The loop on a model made of paper: every request ends once, whatever happens to the others."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from appliance.core.frames import Frame
from appliance.engine.job import Refusal
from appliance.engine.loop import Ready
from appliance.engine.sampling import Logits

from .fakes import END, Bench, Paper

TEXT = "The weather in Paris is fine."


def ends(frames: list[Frame]) -> list[str]:
    return [frame["op"] for frame in frames if frame["op"] in ("finish", "error")]


def test_an_answer_begins_comes_in_pieces_and_finishes() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1)
    bench.run()
    frames = bench.of(1)
    assert [frames[0]["op"], *{frame["op"] for frame in frames[1:-1]}, frames[-1]["op"]] == ["begun", "text", "finish"]
    assert bench.text(1) == TEXT
    finish = bench.last(1)
    assert (finish["reason"], finish["completion_tokens"]) == ("stop", len(bench.model.tokenize(TEXT)))
    assert finish["prompt_tokens"] == frames[0]["prompt_tokens"]
    assert finish["timings"]["predicted_n"] == finish["completion_tokens"]


def test_more_requests_than_slots_are_answered_one_after_the_other() -> None:
    bench = Bench(Paper(TEXT, slots=2))
    for id in range(1, 7):
        bench.ask(id, content="Hello " * id)
    bench.run()
    assert {bench.text(id) for id in range(1, 7)} == {TEXT}
    assert all(ends(bench.of(id)) == ["finish"] for id in range(1, 7))


def test_one_request_too_many_is_busy_and_the_others_are_not_disturbed() -> None:
    bench = Bench(Paper(TEXT, slots=1), queue_limit=2)
    for id in range(1, 6):
        bench.ask(id)
    bench.run()
    assert [bench.last(id).get("fault") for id in range(1, 6)] == [None, None, None, "busy", "busy"]
    assert ends(bench.said).count("finish") == 3


def test_max_tokens_ends_the_answer_with_length() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, max_tokens=3)
    bench.run()
    assert bench.text(1) == "The weather in"
    assert (bench.last(1)["reason"], bench.last(1)["completion_tokens"]) == ("length", 3)


def test_the_committed_tokens_count_against_max_tokens() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed="The weather", max_tokens=3)
    bench.run()
    assert (bench.text(1), bench.last(1)["reason"]) == (" in", "length")


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_if_nothing_is_left_of_max_tokens_the_answer_ends_at_once(limit: int) -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed="The weather", max_tokens=limit)
    bench.run()
    assert [frame["op"] for frame in bench.of(1)] == ["begun", "finish"]
    assert (bench.last(1)["reason"], bench.last(1)["completion_tokens"]) == ("length", 2)
    assert bench.model.steps == []


def test_max_tokens_beyond_the_room_is_clamped() -> None:
    paper = Paper("#" * 400, context=64)
    bench = Bench(paper)
    bench.ask(1, max_tokens=10_000)
    bench.run()
    finish = bench.last(1)
    assert (finish["reason"], finish["prompt_tokens"] + finish["completion_tokens"]) == ("length", 64)


def test_a_stop_string_ends_the_answer_and_is_not_in_it() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, stop=["nothing like it", "aris is"])
    bench.run()
    assert (bench.text(1), bench.last(1)["reason"]) == ("The weather in P", "stop")


def test_a_stop_string_reaches_across_the_seam() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed="The weather in Pa", stop=["Paris"])
    bench.run()
    assert (bench.text(1), bench.last(1)["reason"]) == ("", "stop")


def test_the_stop_string_it_ran_into_is_in_the_finish() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, stop=["nothing like it", "aris is"])
    bench.ask(2, stop=["nothing like it"])
    bench.run()
    assert (bench.last(1)["stop"], bench.last(2)["stop"]) == ("aris is", None)


PREFILL = "The weather"


def test_the_clients_own_beginning_is_gone_on_with_and_not_repeated() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed=PREFILL, prefill=len(PREFILL), first=False)
    bench.ask(2)
    bench.run()
    assert bench.text(1) == " in Paris is fine."
    one, whole = bench.last(1), bench.last(2)
    assert one["prompt_tokens"] == whole["prompt_tokens"] + 2 == bench.of(1)[0]["prompt_tokens"]
    assert one["completion_tokens"] == whole["completion_tokens"] - 2
    assert bench.of(1)[0]["committed_tokens"] == 0


@pytest.mark.parametrize(("committed", "rest"), [("The weather", " in Paris is"), ("The weather in", " Paris is")])
def test_the_clients_own_beginning_does_not_count_against_max_tokens(committed: str, rest: str) -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed=committed, prefill=len(PREFILL), max_tokens=3)
    bench.run()
    assert (bench.text(1), bench.last(1)["reason"], bench.last(1)["completion_tokens"]) == (rest, "length", 3)


def test_the_clients_own_beginning_alone_can_be_all_there_is() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed=PREFILL, prefill=len(PREFILL), max_tokens=0)
    bench.run()
    assert (bench.text(1), bench.last(1)["reason"], bench.last(1)["completion_tokens"]) == ("", "length", 0)


def test_a_stop_string_does_not_begin_in_the_clients_own_words() -> None:
    bench = Bench(Paper(TEXT))
    bench.ask(1, committed="The weather in Pa", prefill=len("The weather in P"), stop=["Paris", "The weather", "aris"])
    bench.run()
    assert (bench.text(1), bench.last(1)["stop"]) == ("", "aris")
    bench.ask(2, committed="The weather in Pa", prefill=len("The weather in Pa"), stop=["Paris", "The weather"])
    bench.run()
    assert (bench.text(2), bench.last(2)["stop"]) == ("ris is fine.", None)


def test_a_prefill_computed_before_counts_as_cached_input() -> None:
    bench = Bench(Paper(TEXT))
    committed = "The weather in Paris is"
    for id in (1, 2):
        bench.ask(id, committed=committed, prefill=len(committed))
        bench.run()
    finish = bench.last(2)
    assert finish["prompt_tokens"] - 2 <= finish["cached_tokens"] < finish["prompt_tokens"]


@pytest.mark.parametrize(("prefill", "same"), [(len("The weather in"), True), (0, False)])
def test_penalties_count_what_the_model_said_and_not_what_the_client_did(prefill: int, same: bool) -> None:
    bench = Bench(Paper("The weather in The weather"))
    sampling = {"temperature": 0, "presence_penalty": 100}
    bench.ask(1, committed="The weather in", prefill=prefill, sampling=sampling, max_tokens=6)
    bench.run()
    assert (bench.text(1) == " The weather") is same


def test_a_request_given_up_while_it_catches_up_computes_no_more() -> None:
    bench = Bench(Paper(TEXT, slots=1))
    bench.ask(1, content="long " * 60)
    bench.ask(2)
    bench.step()
    computed = len(bench.model.memory[0])
    assert 0 < computed < 200
    bench.commands.put({"op": "cancel", "id": 1})
    bench.run()
    assert [frame["op"] for frame in bench.of(1)] == ["begun"]
    assert bench.text(2) == TEXT
    assert sum(len(row.tokens) for step in bench.model.steps for row in step) < computed + 100


def test_a_waiting_request_given_up_is_never_begun() -> None:
    bench = Bench(Paper(TEXT, slots=1))
    bench.ask(1)
    bench.ask(2)
    bench.step()
    bench.commands.put({"op": "cancel", "id": 2})
    bench.commands.put({"op": "cancel", "id": 99})
    bench.run()
    assert bench.of(2) == []
    assert ends(bench.of(1)) == ["finish"]


def test_a_refused_prompt_is_an_error_frame_with_its_numbers() -> None:
    bench = Bench(Paper(TEXT))
    bench.commands.put(Ready(1, refusal=Refusal("too_long", "Too long.", prompt_tokens=9, context=8)))
    bench.run()
    assert bench.of(1) == [
        {"op": "error", "id": 1, "fault": "too_long", "message": "Too long.", "prompt_tokens": 9, "context": 8}
    ]


def test_a_step_that_cannot_be_computed_ends_its_requests_and_the_engine_lives() -> None:
    paper = Paper(TEXT, slots=1)
    bench = Bench(paper)
    paper.breaks_at = 3
    bench.ask(1)
    bench.ask(2)
    bench.run()
    assert (bench.last(1)["op"], bench.last(1)["fault"]) == ("error", "server")
    assert bench.text(2) == TEXT
    assert bench.last(2)["cached_tokens"] == 0, "nobody knows what a failed step left behind"


class Moody(Paper):
    """Computes numbers that are none for whoever says "sad"."""

    def _logits(self, memory: list[int]) -> Logits:
        logits = super()._logits(memory)
        return logits * np.float32(np.nan) if b"sad" in self.vocabulary.bytes(memory) else logits


def test_what_goes_wrong_with_one_request_does_not_end_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench(Moody(TEXT))
    bench.ask(1, content="sad")
    bench.ask(2)
    bench.run()
    assert (bench.last(1)["op"], bench.last(1)["fault"]) == ("error", "server")
    assert bench.text(2) == TEXT


def test_an_exception_nobody_thought_of_ends_one_request_and_its_text_is_not_logged(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(Paper(TEXT))

    def broken(self: Any, piece: bytes) -> str:
        raise RuntimeError("the secret prompt")

    bench.ask(1)
    bench.step()
    monkeypatch.setattr(type(bench.loop._answers[1].voice), "hear", broken)
    bench.run()
    assert bench.last(1)["fault"] == "server"
    printed = capfd.readouterr().err
    assert "RuntimeError" in printed
    assert "secret" not in printed + bench.last(1)["message"]


def test_the_stats_say_how_busy_it_is() -> None:
    bench = Bench(Paper(TEXT, slots=1))
    bench.ask(1)
    bench.ask(2)
    bench.step()
    stats = bench.stats()
    assert (stats["busy"], stats["waiting"]) == (1, 1)


def test_a_bias_can_forbid_the_end() -> None:
    bench = Bench(Paper("The"))
    bench.ask(1, max_tokens=4, sampling={"temperature": 0, "logit_bias": [[END, -100.0]]})
    bench.run()
    assert bench.last(1)["reason"] == "length"


def test_a_takeover_is_not_refused_by_a_full_queue_and_does_not_wait_behind_it() -> None:
    one = Bench(Paper("The weather is fine.", slots=1), queue_limit=1)
    one.ask(1)
    one.step()
    one.ask(2)
    one.ask(3, committed="The weather ")
    one.run()
    assert one.text(3) == "is fine."
    ends = [frame["id"] for frame in one.said if frame["op"] == "finish"]
    assert ends == [1, 3, 2]


LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"const": "x"}}, "required": ["at"]}}


@pytest.mark.parametrize("limit", [1, 12, 13, 30, 44, 45, 60, 90, 91, 92, 400])
def test_what_is_given_without_being_drawn_counts_against_max_tokens_too(limit: int) -> None:
    bench = Bench(Paper(TEXT, context=2048))
    bench.ask(1, tools=[LOOK], choice="required", parallel=False, max_tokens=limit)
    bench.run()
    finish = bench.last(1)
    arguments = "".join(frame["text"] for frame in bench.of(1) if frame["op"] == "arguments")
    assert (finish["op"], finish["completion_tokens"] <= limit) == ("finish", True)
    whole = arguments.endswith("}")
    assert finish["reason"] == ("tool_calls" if whole else "length")
    if whole:
        assert json.loads(arguments) == {"at": "x"}
    else:
        assert finish["completion_tokens"] == limit


def test_what_nobody_here_can_keep_to_is_told_of_when_the_answer_begins() -> None:
    bench = Bench(Paper(TEXT, context=2048))
    tools = [LOOK, {"name": "a<b"}, {"name": "sloppy", "parameters": {"type": "STRING"}}]
    bench.ask(1, tools=tools, lenient=True)
    bench.ask(2, tools=tools)
    bench.ask(3, tools=[LOOK])
    bench.run()
    assert bench.of(1)[0]["lost"] == ["tools.a_b", "tools.sloppy"]
    assert bench.last(2)["param"] == "tools[1].name"
    assert bench.of(3)[0]["lost"] == []
