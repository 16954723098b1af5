"""Standbys beside requests, on a model made of paper: they follow, give way, and hand over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from appliance.core.frames import Frame
from appliance.engine.following import Following, Standby
from appliance.engine.job import Job
from appliance.engine.scheduler import LARGEST_STANDBY_PACE
from appliance.engine.standing import Followed

from .fakes import Bench, Paper, user

TEXT = "The weather in Paris is fine."
LONG = "long " * 60


@pytest.fixture(params=[True, False], ids=["rewinds", "does not rewind"])
def rewinds(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def bench(*, slots: int = 2, rewinds: bool = True, **more: Any) -> Bench:
    return Bench(Paper(TEXT, slots=slots, context=1024, rewinds=rewinds), **more)


def cut_short(bench: Bench, at: str) -> Frame:
    """The cloud that standby 1 follows fails here: the finish frame of the takeover."""
    bench.run()
    bench.tell({"op": "cancel", "id": 1})
    bench.ask(2, content=LONG, committed=at)
    bench.run()
    assert at + bench.text(2) == TEXT
    return bench.last(2)


@pytest.mark.parametrize("at", ["", "The", "The wea", "The weather in Paris is"])
def test_a_takeover_computes_only_what_was_given_back(rewinds: bool, at: str) -> None:
    one = bench(rewinds=rewinds)
    one.follow(1, content=LONG, committed=at)
    finish = cut_short(one, at)
    prompt = finish["prompt_tokens"]
    assert finish["cached_tokens"] == prompt, "what follows the last token is known already"
    assert finish["timings"]["prompt_n"] <= 3
    assert finish["timings"]["cache_n"] + finish["timings"]["prompt_n"] == prompt + len(one.model.tokenize(at))


def test_the_words_of_the_cloud_are_computed_as_they_come(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.follow(1, content=LONG)
    one.run()
    for word in ("The wea", "ther", " in", " Paris", " is"):
        one.feed(1, word)
        one.run()
    assert one.stats()["standby_ready"] == 1
    steps = len(one.model.steps)
    finish = cut_short(one, "The weather in Paris is")
    assert finish["timings"]["prompt_n"] == 1
    assert len(one.model.steps) - steps <= 5, "two words, the full stop and the end"


def test_a_takeover_that_says_something_else_goes_back_to_where_they_agree(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.follow(1, content=LONG, committed="The weather in is ")
    one.run()
    finish = cut_short(one, "The weather in Paris")
    assert finish["cached_tokens"] >= finish["prompt_tokens"] - 16


def test_the_first_word_of_a_takeover_needs_no_step(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.ask(7, content=LONG)
    one.run()
    one.follow(1, content=LONG)
    one.run()
    steps = len(one.model.steps)
    one.tell({"op": "cancel", "id": 1})
    one.ask(2, content=LONG)
    one.step()
    assert one.of(2)[1]["op"] == "text"
    assert len(one.model.steps) == steps + 1, "the first word came before it, from what the standby left"
    one.run()
    assert one.text(2) == one.text(7)


def test_what_the_standby_left_is_good_for_exactly_its_tokens(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.follow(1, content=LONG, committed="The weather in Paris ")
    cut_short(one, "The weather in Paris ")
    one.ask(3, content=LONG, committed="The weather in Paris ")
    one.run()
    assert one.text(3) == "is fine."
    assert one.last(3)["timings"]["prompt_n"] >= 1, "the answer changed the sequence: its end is no longer known"


def test_a_standby_says_nothing_at_all() -> None:
    one = bench()
    one.follow(1, content=LONG)
    one.run()
    one.feed(1, "The weather")
    one.run()
    one.tell({"op": "cancel", "id": 1})
    one.run()
    assert one.said == []


def test_a_standby_gets_nothing_while_a_request_is_answered() -> None:
    one = bench()
    one.ask(1, content="Hello")
    one.step()
    one.follow(2, content=LONG)
    while one.last(1)["op"] != "finish":
        one.step()
        assert {row.slot for row in one.model.steps[-1]} == {0}
    one.run()
    assert one.stats()["standby_ready"] == 1


def test_a_new_request_waits_for_one_small_step_at_most() -> None:
    one = bench()
    one.follow(1, content=LONG)
    one.step()
    assert len(one.model.steps) == 1
    assert sum(len(row.tokens) for row in one.model.steps[0]) <= LARGEST_STANDBY_PACE
    one.ask(2)
    one.step()
    assert [row.slot for row in one.model.steps[1]] == [0], "the standby began from the other end"


def test_a_request_takes_a_standbys_sequence_and_the_standby_comes_back_when_there_is_room() -> None:
    one = bench(slots=1)
    one.follow(1, content=LONG)
    one.run()
    one.ask(2)
    one.step()
    assert one.stats()["standby_ready"] == 0
    one.run()
    assert one.text(2) == TEXT
    assert (one.stats()["standbys"], one.stats()["standby_ready"]) == (1, 1)
    one.tell({"op": "cancel", "id": 1})
    one.ask(3, content=LONG)
    one.run()
    assert one.last(3)["cached_tokens"] == one.last(3)["prompt_tokens"]


def test_a_standby_waits_as_long_as_there_is_no_sequence_for_it() -> None:
    one = bench(slots=1)
    one.follow(1, content="other " * 60)
    one.run()
    one.follow(2, content=LONG)
    one.run()
    assert (one.stats()["standbys"], one.stats()["standby_ready"]) == (2, 1)
    one.tell({"op": "cancel", "id": 1})
    assert not one.step(), "its takeover is on the way"
    one.time += 2
    one.run()
    assert one.stats()["standby_ready"] == 1


def test_a_suspicious_cloud_comes_first() -> None:
    one = bench(slots=1)
    one.follow(1)
    one.run()
    one.follow(2, content=LONG, mode="auto")
    one.run()
    one.tell({"op": "suspect", "id": 2, "level": 1.0})
    one.run()
    one.tell({"op": "cancel", "id": 2})
    one.ask(3, content=LONG)
    one.run()
    assert one.last(3)["cached_tokens"] == one.last(3)["prompt_tokens"]


def test_what_is_not_worth_it_is_computed_only_when_the_cloud_is_suspicious() -> None:
    one = bench()
    one.loop._meter.prefill_speed = 1.0  # a token per second
    one.follow(1, content=LONG, mode="auto")
    assert one.run() == []
    assert one.model.steps == []
    one.tell({"op": "suspect", "id": 1, "level": 2.0})
    one.run()
    assert one.stats()["standby_ready"] == 1


def test_a_standby_that_does_not_fit_or_cannot_be_computed_just_ends() -> None:
    one = bench()
    one.follow(1, content="word " * 400)
    one.follow(2, content=LONG)
    one.run()
    one.feed(2, "word " * 400)
    one.run()
    assert one.stats()["standbys"] == 0
    one.model.breaks_at = len(one.model.steps) + 1
    one.follow(3, content="Another")
    one.run()
    assert [frame for frame in one.said if frame["op"] != "stats"] == []
    assert one.stats()["standbys"] == 0
    one.ask(4)
    one.run()
    assert one.text(4) == TEXT


def test_words_for_a_standby_that_is_gone_begin_no_new_one() -> None:
    one = bench()
    one.follow(1)
    one.tell({"op": "cancel", "id": 1})
    one.feed(1, "The")
    one.tell({"op": "suspect", "id": 1, "level": 3.0})
    assert one.stats()["standbys"] == 0


def test_words_that_come_late_begin_no_new_standby() -> None:
    one = bench()
    prompt = one.writer.write(Job(id=1, messages=tuple(user("Hello"))))
    one.commands.put(Followed(id=1, prompt=prompt))
    assert one.stats()["standbys"] == 0


def test_an_answer_that_pushes_old_turns_out_takes_the_standby_back_to_what_is_still_true(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    turns = [*user("old " * 60), {"role": "assistant", "content": "Yes."}, *user(LONG)]
    one.follow(1, messages=turns, trim=True)
    one.run()
    words = "The weather " * 240
    one.feed(1, words)
    one.run()
    one.tell({"op": "cancel", "id": 1})
    one.ask(2, messages=turns, trim=True, committed=words)
    one.step()
    begun = one.of(2)[0]
    assert (begun["trimmed"], begun["cached_tokens"]) == (2, begun["prompt_tokens"])


def test_what_a_model_that_does_not_rewind_computed_is_never_thrown_away_for_a_draft() -> None:
    one = bench(rewinds=False)
    one.follow(1, content=LONG, committed="The weather in Pa")
    one.run()
    before = one.computed()
    cut_short(one, "The weather in Pa")
    assert one.computed() - before <= 8


def test_the_more_suspicious_and_the_hot_come_first() -> None:
    following = Following()
    for id, mode, suspicion in (
        (1, "auto", 0.0),
        (2, "hot", 0.0),
        (3, "auto", 1.5),
        (4, "auto", 3.0),
        (5, "auto", 0.9),
    ):
        tokens = np.arange(9, dtype=np.int32)
        following.add(Standby(id=id, mode=mode, tokens=tokens, boundary=0, suspicion=suspicion))  # type: ignore[arg-type]
    assert [one.id for one in following] == [4, 3, 2, 5, 1]


def test_the_stats_tell_what_standbys_cost() -> None:
    one = bench()
    one.follow(1, content=LONG)
    one.run()
    stats = one.stats()
    assert stats["standby_tokens"] == stats["computed"] == one.computed() > 300
    assert 0 < stats["standby_s"] == pytest.approx(stats["busy_s"])
    assert (stats["prompt_tokens"], stats["prompt_s"], stats["predicted_s"]) == (0, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------------- reuse


def test_the_next_turn_computes_only_what_is_new(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.ask(1, content=LONG)
    one.run()
    one.ask(2, messages=[*user(LONG), {"role": "assistant", "content": TEXT}, *user("And in Rome?")])
    one.run()
    first, second = one.last(1), one.last(2)
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] >= first["prompt_tokens"] + first["completion_tokens"]
    stats = one.stats()
    assert stats["reused_tokens"] == second["timings"]["cache_n"]
    assert stats["prompt_tokens"] == first["timings"]["prompt_n"] + second["timings"]["prompt_n"]
    assert stats["kept"] == 1


def test_the_same_once_more_computes_at_least_one_token(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    for id in (1, 2, 3):
        one.ask(id, content=LONG)
        one.run()
        assert one.text(id) == TEXT
    assert one.last(3)["prompt_tokens"] - 16 < one.last(3)["cached_tokens"] < one.last(3)["prompt_tokens"]


def test_a_shared_beginning_is_copied_from_a_conversation_that_is_being_answered() -> None:
    one = bench(slots=3)
    system = {"role": "system", "content": LONG}
    one.ask(1, messages=[system, *user("Hello")])
    while not one.text(1):
        one.step()
    one.ask(2, messages=[system, *user("Good evening")])
    one.run()
    assert (one.text(1), one.text(2)) == (TEXT, TEXT)
    assert one.model.copies == [(0, 1)]
    assert one.last(2)["cached_tokens"] > len(LONG) // 2


def test_a_request_given_up_in_its_prompt_leaves_what_was_computed() -> None:
    one = bench(slots=1)
    one.ask(1, content=LONG)
    one.step()
    one.tell({"op": "cancel", "id": 1})
    one.ask(2, content=LONG)
    one.step()
    assert one.of(2)[0]["cached_tokens"] == sum(len(row.tokens) for row in one.model.steps[0])
    one.run()
    assert one.text(2) == TEXT


# ------------------------------------------------------------------------------------------------------- probes


def test_a_probe_that_finds_no_empty_sequence_leaves_no_lie_behind(rewinds: bool) -> None:
    one = bench(rewinds=rewinds, slots=1)
    one.ask(1, content=LONG)
    one.run()
    one.tell({"op": "probe", "id": 9})
    one.run()
    assert one.of(9) == [{"op": "alive", "id": 9}]
    one.ask(2, content=LONG)
    one.run()
    assert one.text(2) == TEXT
    assert one.last(2)["cached_tokens"] > 0


def test_a_probe_of_an_idle_engine_computes_one_token_and_takes_it_back(rewinds: bool) -> None:
    one = bench(rewinds=rewinds)
    one.ask(1)
    one.run()
    before = [list(memory) for memory in one.model.memory]
    steps = len(one.model.steps)
    one.tell({"op": "probe", "id": 9})
    one.run()
    assert one.of(9) == [{"op": "alive", "id": 9}]
    assert len(one.model.steps) == steps + 1
    assert one.model.memory == before


def test_a_probe_of_a_busy_engine_is_answered_by_its_next_step() -> None:
    one = bench()
    one.ask(1)
    one.step()
    one.tell({"op": "probe", "id": 9})
    one.step()
    assert one.of(9) == [{"op": "alive", "id": 9}]
    assert [len(step) for step in one.model.steps] == [1, 1]


def test_a_probe_that_fails_is_not_answered_and_nothing_hangs() -> None:
    one = bench()
    one.model.breaks_at = 1
    one.tell({"op": "probe", "id": 9})
    one.run()
    assert one.said == []
    one.tell({"op": "probe", "id": 10})
    one.run()
    assert one.of(10) == [{"op": "alive", "id": 10}]


def test_a_probe_where_every_sequence_is_full_is_answered() -> None:
    one = Bench(Paper("#" * 400, slots=1, context=64))
    one.ask(1)
    one.run()
    assert len(one.model.memory[0]) == 63
    one.follow(2, content="x")
    one.tell({"op": "probe", "id": 9})
    one.run()
    assert one.of(9) == [{"op": "alive", "id": 9}]
