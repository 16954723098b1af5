"""What was computed once is not computed again, and the words are the same: on every kind of memory llama.cpp has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from appliance.engine.load import Load
from appliance.engine.model import Model
from appliance.engine.sampling import Ids, Logits, Sampler

from . import tiny
from .fakes import Bench, user
from .test_architectures import CONTEXT, KINDS
from .test_architectures import _in_little_memory as in_little_memory

pytestmark = pytest.mark.live
FOLDER: list[Path] = []
LENGTH = 24
LONG = "What is the weather like in the capital of France, and how is it in Rome? " * 3


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    FOLDER.append(tmp_path_factory.mktemp("tiny"))
    yield
    model.cache_clear()


@cache
def model(kind: str, place: str = "warm") -> Model:
    """Loaded once; in a second `place` once more, so that the first keeps what it holds."""
    path = FOLDER[-1] / f"{kind}-{place}.gguf"
    write = tiny.KINDS["sliding" if kind == "window" else kind]
    load = Load(path=str(write(path)), context=CONTEXT, slots=3, threads=1)
    return in_little_memory(load) if kind == "window" else Model(load)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bench(kind: str) -> Bench:
    """An engine whose memory is empty."""
    one = model(kind)
    for slot in range(one.slots):
        one.forget(slot)
    return Bench(one)


def answer(bench: Bench, id: int, **more: object) -> str:
    bench.ask(id, **{"max_tokens": LENGTH + len(str(more.get("committed", ""))), **more})
    bench.run()
    assert bench.last(id)["op"] == "finish"
    return bench.text(id)


def cold(kind: str, **more: object) -> str:
    return answer(bench(kind), 1, **more)


def cached(bench: Bench, id: int) -> tuple[int, int]:
    """Of how many prompt tokens how many were not computed again."""
    return bench.last(id)["prompt_tokens"], bench.last(id)["cached_tokens"]


def test_only_dense_attention_and_full_windows_rewind() -> None:
    rewinding = [kind for kind in KINDS if model(kind).rewinds]
    assert rewinding == ["llama", "sliding"]


def test_the_same_question_again_is_hardly_computed_and_answered_the_same(kind: str) -> None:
    one = bench(kind)
    first = answer(one, 1, content=LONG)
    assert answer(one, 2, content=LONG) == first == cold(kind, content=LONG)
    prompt, reused = cached(one, 2)
    assert prompt - 16 <= reused < prompt


def test_the_next_turn_computes_only_what_is_new(kind: str) -> None:
    one = bench(kind)
    said = answer(one, 1, content=LONG)
    turns = [*user(LONG), {"role": "assistant", "content": said}, *user("And tomorrow?")]
    assert answer(one, 2, messages=turns) == cold(kind, messages=turns)
    assert one.last(2)["cached_tokens"] >= one.last(1)["prompt_tokens"] - 16


def test_a_longer_conversation_copies_the_beginning_it_shares_with_a_running_one(kind: str) -> None:
    one = bench(kind)
    system = {"role": "system", "content": LONG}
    one.ask(1, messages=[system, *user("Hello")], max_tokens=60)
    while not one.text(1):
        one.step()
    other = [system, *user("Good evening")]
    one.ask(2, messages=other, max_tokens=LENGTH)
    one.run()
    assert one.text(2) == cold(kind, messages=other)
    assert one.text(1) == answer(bench(kind), 1, messages=[system, *user("Hello")], max_tokens=60)
    if model(kind).rewinds:
        assert one.last(2)["cached_tokens"] > len(LONG)


@pytest.mark.parametrize("committed", ["", "The", "The weather is fine today, and it was fi", "A🎉B and then"])
def test_a_takeover_of_a_standby_computes_next_to_nothing_and_says_the_same(kind: str, committed: str) -> None:
    one = bench(kind)
    one.follow(1, content=LONG)
    one.run()
    for at in range(0, len(committed), 5):
        one.feed(1, committed[at : at + 5])
        one.run()
    assert one.stats()["standby_ready"] == 1
    before = one.stats()["computed"]
    one.tell({"op": "cancel", "id": 1})
    said = answer(one, 2, content=LONG, committed=committed)
    assert said == cold(kind, content=LONG, committed=committed)
    assert one.last(2)["timings"]["prompt_n"] <= 12
    assert one.stats()["computed"] - before <= 12 + LENGTH + len(committed)


def test_a_standby_whose_words_change_behind_its_back_goes_back_and_is_right(kind: str) -> None:
    one = bench(kind)
    one.follow(1, content=LONG, committed="The weather is fine and ")
    one.run()
    one.tell({"op": "cancel", "id": 1})
    assert answer(one, 2, content=LONG, committed="The wind is strong and ") == cold(
        kind, content=LONG, committed="The wind is strong and "
    )
    assert one.last(2)["cached_tokens"] >= one.last(2)["prompt_tokens"] - 16


def test_a_probe_leaves_everything_as_it_was(kind: str) -> None:
    one = bench(kind)
    first = answer(one, 1, content=LONG)
    one.tell({"op": "probe", "id": 7})
    one.run()
    assert one.of(7) == [{"op": "alive", "id": 7}]
    assert answer(one, 2, content=LONG) == first
    assert one.last(2)["cached_tokens"] >= one.last(2)["prompt_tokens"] - 16


def test_many_turns_in_few_sequences_are_answered_as_from_scratch(kind: str) -> None:
    one = bench(kind)
    names = ["Anna", "Bert", "Cleo", "Dora", "Emil"]
    turns: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    id, compared, of = 0, 0, 0
    for _ in range(3):
        for name in names:
            turns[name] += user(f"I am {name}. " + "Say a little more. " * 8)
            id += 1
            said = answer(one, id, messages=turns[name])
            scratch, decided = from_scratch(kind, turns[name])
            assert said[:decided] == scratch[:decided], name
            compared, of = compared + decided, of + len(scratch)
            turns[name] += [{"role": "assistant", "content": said}]
    assert compared > 0.5 * of


TIE = 0.001
"""Random weights rate many tokens alike. What was computed in other steps has other last digits, so two tokens whose
logits differ by less than this part of their whole range may change places."""


def from_scratch(kind: str, messages: list[dict[str, str]]) -> tuple[str, int]:
    """The answer of an engine that remembers nothing, and how many of its characters no tie had a part in."""
    one = model(kind, "cold")
    for slot in range(one.slots):
        one.forget(slot)
    bench, decided = Bench(one), -1
    draw = Sampler.draw

    def looking(sampler: Sampler, logits: Logits, allowed: Ids | None = None) -> int:
        nonlocal decided
        second, first = np.partition(logits, -2)[-2:]
        if decided < 0 and first - second < TIE * (first - logits.min()):
            decided = len(bench.text(1))
        return draw(sampler, logits, allowed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "draw", looking)
        said = answer(bench, 1, messages=messages)
    return said, len(said) if decided < 0 else decided
