"""What the engine is told of a cloud's answer, how it is told, and what it is spared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.backends import following as module
from appliance.backends.following import Following, Followings, inert
from appliance.core.frames import Decoder, Frame
from appliance.core.keeper import Keeper
from tests.backends.engines import ask, job, running, text, until

JOB: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Why?"}],
    "committed": None,
    "trim": True,
    "stop": ["END"],
    "sampling": {},
}


class Process:
    def __init__(self) -> None:
        self.backlog = 0
        self.heard: list[Frame] = []
        self._decoder = Decoder()

    def write(self, data: bytes) -> None:
        self.heard += self._decoder.feed(data)

    def said(self) -> list[tuple[str, Any]]:
        told = {"follow": "committed", "fed": "text", "suspect": "level", "cancel": "id"}
        return [(frame["op"], frame[told[frame["op"]]]) for frame in self.heard]


class House(Followings):
    def __init__(self, limit: int = 4) -> None:
        self.woken = self.changes = 0
        super().__init__(limit, self.count_wake, self.count_change)

    def count_wake(self) -> None:
        self.woken += 1

    def count_change(self) -> None:
        self.changes += 1


def begun(house: House, id: int = 7) -> Following:
    return house.begin(id, JOB, "auto", 0.0)


def test_it_begins_feeds_suspects_and_ends_in_order() -> None:
    house, process = House(), Process()
    house.listen(process)
    following = begun(house)
    following.feed("Because ")
    following.suspect(0.5)
    following.feed("so.")
    following.close()
    assert process.heard[0] == {
        "op": "follow", "id": 7, "messages": JOB["messages"], "committed": "", "trim": True, "mode": "auto",
        "suspicion": 0.0,
    }  # fmt: skip
    assert process.said()[1:] == [("fed", "Because "), ("suspect", 0.5), ("fed", "so."), ("cancel", 7)]
    assert {frame["id"] for frame in process.heard} == {7}


def test_what_was_committed_before_is_the_beginning() -> None:
    house, process = House(), Process()
    house.listen(process)
    house.begin(1, {**JOB, "committed": "Half "}, "auto", 0.0).feed("more")
    assert process.said() == [("follow", "Half "), ("fed", "more")]


def test_a_process_that_comes_later_hears_all_of_it_at_once_and_then_the_rest() -> None:
    house, process = House(), Process()
    following = begun(house)
    following.feed("one ")
    following.feed("two ")
    following.suspect(0.25)
    house.listen(process)
    following.feed("three")
    assert process.said() == [("follow", "one two "), ("fed", "three")]
    assert process.heard[0]["suspicion"] == 0.25


def test_the_next_process_hears_all_of_it_again() -> None:
    house, first, second = House(), Process(), Process()
    house.listen(first)
    following = begun(house)
    following.feed("one ")
    house.silence(died=True)
    following.feed("two ")
    house.listen(second)
    following.feed("three")
    assert first.said() == [("follow", ""), ("fed", "one ")]
    assert second.said() == [("follow", "one two "), ("fed", "three")]


def test_what_was_closed_in_between_is_forgotten() -> None:
    house, process = House(), Process()
    begun(house).close()
    house.listen(process)
    assert process.heard == []
    assert len(house) == 0


def test_after_its_end_nothing_is_said_any_more() -> None:
    house, process = House(), Process()
    house.listen(process)
    following = begun(house)
    following.close()
    following.feed("more")
    following.suspect(9.0)
    following.close()
    assert process.said() == [("follow", ""), ("cancel", 7)]


def test_while_the_pipe_is_full_words_wait_here_and_go_on_as_one() -> None:
    house, process = House(), Process()
    house.listen(process)
    following = begun(house)
    process.backlog = module.BACKLOG + 1
    for word in ("one ", "two ", "three "):
        following.feed(word)
    assert process.said() == [("follow", "")]
    process.backlog = module.BACKLOG
    house.catch_up()
    house.catch_up()
    assert process.said() == [("follow", ""), ("fed", "one two three ")]


def test_one_that_begins_while_the_pipe_is_full_begins_later() -> None:
    house, process = House(), Process()
    process.backlog = module.BACKLOG + 1
    house.listen(process)
    following = begun(house)
    following.feed("one")
    following.suspect(0.5)
    assert process.heard == []
    process.backlog = 0
    house.catch_up()
    assert process.said() == [("follow", "one")]


def test_there_are_as_many_as_there_is_room_for_and_the_others_stay_inert() -> None:
    house, process = House(limit=2), Process()
    house.listen(process)
    followings = [begun(house, id) for id in range(3)]
    assert [following.inert for following in followings] == [False, False, True]
    followings[0].close()
    followings[2].feed("no")
    assert not begun(house, 9).inert
    assert [frame["id"] for frame in process.heard] == [0, 1, 0, 9]


def test_there_is_room_for_one_at_least() -> None:
    assert not begun(House(limit=0)).inert


def test_one_too_large_for_a_frame_or_too_long_for_any_context_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    house, process = House(), Process()
    house.listen(process)
    large = {**JOB, "messages": [{"role": "user", "content": "x" * (65 << 20)}]}
    assert house.begin(1, large, "hot", 0.0).inert
    monkeypatch.setattr(module, "LONGEST", 10)
    following = begun(house)
    following.feed("x" * 11)
    assert following.inert
    assert process.said() == [("follow", ""), ("cancel", 7)]
    assert (len(house), house.woken) == (0, 0)


def test_what_was_followed_at_two_deaths_is_not_followed_again() -> None:
    house, deaf = House(), Process()
    deaf.backlog = module.BACKLOG + 1
    house.listen(Process())
    poison = begun(house, 1)
    house.silence(died=True)
    late = begun(house, 2)
    house.listen(deaf)
    house.silence(died=True)  # this one knew of neither
    assert not poison.inert
    house.listen(Process())
    house.silence(died=True)
    assert (poison.inert, late.inert) == (True, False)


def test_sleep_is_not_a_death() -> None:
    house = House()
    following = begun(house)
    for _ in range(5):
        house.listen(Process())
        house.silence(died=False)
    assert not following.inert


@pytest.mark.parametrize(
    ("level", "told"), [(float("inf"), 1e6), (float("nan"), 0.0), (-1.0, 0.0), (2.5, 2.5), (1e300, 1e6)]
)
def test_no_level_of_suspicion_breaks_a_frame(level: float, told: float) -> None:
    house, process = House(), Process()
    house.listen(process)
    house.begin(1, JOB, "auto", level)
    house.begin(2, JOB, "auto", 0.5).suspect(level)
    assert process.heard[0]["suspicion"] == told
    assert process.said()[-1] == ("suspect", told)


def test_only_what_is_urgent_wakes() -> None:
    house = House()
    following = begun(house)
    assert house.woken == 0
    following.suspect(0.9)
    assert house.woken == 0
    following.suspect(1.0)
    assert house.woken == 1
    house.begin(8, JOB, "hot", 0.0)
    assert house.woken == 2
    inert(3).suspect(5.0)
    assert house.woken == 2


# ------------------------------------------------------------------------------------- with a process


@pytest.mark.anyio
async def test_a_real_process_hears_of_it_and_hears_again_after_its_death(python: str) -> None:
    async with running(python) as engine:
        following = engine.follow(job("Why?"), mode="hot", suspicion=0.0)
        following.feed("Because ")
        await engine.wait_ready(10)
        following.feed("so.")
        heard = json.loads(text(await ask(engine, "followed")))
        assert [(frame["op"], frame.get("committed"), frame.get("text")) for frame in heard] == [
            ("follow", "Because ", None),
            ("fed", None, "so."),
        ]
        with pytest.raises(Exception, match="died"):
            await ask(engine, "crash")
        heard = json.loads(text(await ask(engine, "followed")))
        assert [(frame["op"], frame["committed"]) for frame in heard] == [("follow", "Because so.")]
        following.close()
        assert json.loads(text(await ask(engine, "followed")))[-1]["op"] == "cancel"


@pytest.mark.anyio
async def test_an_engine_handled_with_care_follows_nobody_until_it_is_well(python: str) -> None:
    async with running(python, keeper=Keeper(deaths=1, minute=0.2)) as engine:
        before = engine.follow(job("Why?"), mode="hot", suspicion=0.0)
        with pytest.raises(Exception, match="died"):
            await ask(engine, "crash")
        await engine.wait_ready(10)
        assert before.inert
        if engine.state == "careful":
            assert engine.follow(job("Why?"), mode="hot", suspicion=0.0).inert
        await until(lambda: engine.state == "ready")
        assert not engine.follow(job("Why?"), mode="hot", suspicion=0.0).inert
        assert [frame["op"] for frame in json.loads(text(await ask(engine, "followed")))] == ["follow"]


@pytest.mark.anyio
async def test_to_follow_after_the_end_is_nothing(python: str) -> None:
    async with running(python) as engine:
        following = engine.follow(job("Why?"), mode="hot", suspicion=0.0)
    assert following.inert
    assert engine.follow(job("Why?"), mode="hot", suspicion=0.0).inert
