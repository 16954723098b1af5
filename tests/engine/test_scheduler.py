"""Random days at the counter: every slot comes back, everybody ends once, nobody takes more than the budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appliance.engine.scheduler import Scheduler, Share, pace, small_pace


class Day(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 4), queue=st.integers(0, 4))
    def open(self, slots: int, queue: int) -> None:
        self.slots, self.queue = slots, queue
        self.scheduler = Scheduler(slots=slots, queue=queue)
        self.known: dict[int, int] = {}
        self.computed: dict[int, int] = {}
        self.slot_of: dict[int, int] = {}
        self.waiting: list[int] = []
        self.next = 1

    @rule(tokens=st.integers(1, 100))
    def come(self, tokens: int) -> None:
        id, self.next = self.next, self.next + 1
        taken = self.scheduler.admit(id, tokens)
        free = self.slots - len(self.slot_of)
        assert taken == (len(self.waiting) < self.queue + free)
        if taken:
            self.waiting.append(id)
            self.known[id], self.computed[id] = tokens, 0

    @precondition(lambda self: self.waiting)
    @rule(pick=st.randoms(use_true_random=False))
    def seat(self, pick: random.Random) -> None:
        id = self.scheduler.next
        assert id == self.waiting[0], "first come, first served"
        free = sorted(set(range(self.slots)) - set(self.slot_of.values()))
        if not free:
            with pytest.raises(ValueError, match="is taken"):
                self.scheduler.seat(id, 0)
            return
        slot, reused = pick.choice(free), pick.randrange(self.known[id])
        self.scheduler.seat(id, slot, reused)
        del self.waiting[0]
        self.slot_of[id], self.computed[id] = slot, reused

    @rule(extra=st.integers(1, 40), grow=st.booleans())
    def work(self, extra: int, grow: bool) -> None:
        budget = self.slots + extra
        plan = self.scheduler.plan(budget)
        assert sum(share.count for share in plan) <= budget
        behind = {id: self.known[id] - self.computed[id] for id in self.slot_of}
        assert {share.id for share in plan} >= {id for id, late in behind.items() if late == 1}, "somebody reads along"
        wanted = sum(1 if late == 1 else budget for late in behind.values() if late)
        assert bool(plan) == bool(wanted)
        for share in plan:
            assert share.slot == self.slot_of[share.id]
            assert share.start == self.computed[share.id]
            assert 1 <= share.count <= behind[share.id]
            self.scheduler.computed(share.id, share.count)
            self.computed[share.id] += share.count
            if grow and self.computed[share.id] == self.known[share.id]:
                self.known[share.id] += 1
                self.scheduler.know(share.id, self.known[share.id])

    @precondition(lambda self: self.slot_of)
    @rule(pick=st.randoms(use_true_random=False))
    def roll_back(self, pick: random.Random) -> None:
        id = pick.choice(sorted(self.slot_of))
        to = pick.randint(1, self.known[id])
        self.known[id], self.computed[id] = to, min(self.computed[id], to)
        self.scheduler.know(id, to)

    @precondition(lambda self: self.known)
    @rule(pick=st.randoms(use_true_random=False))
    def end(self, pick: random.Random) -> None:
        id = pick.choice(sorted(self.known))
        assert self.scheduler.end(id) == self.slot_of.pop(id, None)
        if id in self.waiting:
            self.waiting.remove(id)
        del self.known[id], self.computed[id]
        with pytest.raises(KeyError):
            self.scheduler.end(id)

    @invariant()
    def counts_are_right(self) -> None:
        if hasattr(self, "scheduler"):
            assert (self.scheduler.busy, self.scheduler.waiting) == (len(self.slot_of), len(self.waiting))
            assert set(self.scheduler) == set(self.known)
            assert self.scheduler.idle == (not self.known)
            assert self.scheduler.next == (self.waiting[0] if self.waiting else None)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for id in list(self.scheduler):
            self.scheduler.end(id)
        for id in range(10_000, 10_000 + self.slots):
            assert self.scheduler.admit(id, 1)
            self.scheduler.seat(id, id - 10_000)
        assert self.scheduler.busy == self.slots, "every slot came back"


TestDay = Day.TestCase
TestDay.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def seated(slots: int, *tokens: int) -> Scheduler:
    scheduler = Scheduler(slots=slots, queue=0)
    for id, count in enumerate(tokens):
        assert scheduler.admit(id, count)
        scheduler.seat(id, id)
    return scheduler


def shares(plan: list[Share]) -> dict[int, int]:
    return {share.id: share.count for share in plan}


def test_who_is_one_token_behind_comes_before_who_is_many() -> None:
    assert shares(seated(4, 500, 1, 1, 500).plan(12)) == {0: 10, 1: 1, 2: 1}


def test_the_shortest_is_done_first_and_what_it_leaves_is_the_next_ones() -> None:
    assert shares(seated(3, 60, 40, 50).plan(68)) == {1: 40, 2: 28}


def test_nobody_is_passed_over_for_ever() -> None:
    scheduler = Scheduler(slots=2, queue=0)
    for id, tokens in ((0, 1000), (1, 400)):
        assert scheduler.admit(id, tokens)
        scheduler.seat(id, id)
    turns = []
    for _ in range(10):
        [share] = scheduler.plan(16)
        scheduler.computed(share.id, share.count)
        turns.append(share.id)
    assert turns == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0]


def test_shares_are_in_the_order_of_slots() -> None:
    scheduler = Scheduler(slots=4, queue=0)
    for id, slot, tokens in ((0, 3, 1), (1, 1, 1), (2, 2, 50), (3, 0, 50)):
        assert scheduler.admit(id, tokens)
        scheduler.seat(id, slot)
    assert [(share.slot, share.id) for share in scheduler.plan(90)] == [(0, 3), (1, 1), (2, 2), (3, 0)]


def test_what_is_computed_already_is_not_planned_again() -> None:
    scheduler = Scheduler(slots=1, queue=0)
    assert scheduler.admit(0, 100)
    with pytest.raises(ValueError, match="no more tokens"):
        scheduler.seat(0, 0, 101)
    scheduler.seat(0, 0, 97)
    assert scheduler.plan(20) == [Share(id=0, slot=0, start=97, count=3)]


def test_a_share_ends_at_the_boundary_and_goes_on_behind_it() -> None:
    scheduler = Scheduler(slots=1, queue=0)
    assert scheduler.admit(0, 30, boundary=25)
    scheduler.seat(0, 0, 10)
    assert scheduler.plan(100) == [Share(id=0, slot=0, start=10, count=15)]
    scheduler.computed(0, 15)
    assert scheduler.plan(100) == [Share(id=0, slot=0, start=25, count=5)]


def test_a_short_prompt_is_not_delayed_by_a_long_one() -> None:
    assert shares(seated(2, 4000, 20).plan(66)) == {0: 46, 1: 20}


def test_a_request_that_is_fully_computed_is_left_alone() -> None:
    scheduler = seated(1, 5)
    scheduler.computed(0, 5)
    assert scheduler.plan(10) == []


def test_a_budget_that_could_starve_somebody_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than the number of slots"):
        seated(2, 1, 1).plan(2)


def test_what_was_not_planned_cannot_be_computed() -> None:
    with pytest.raises(ValueError, match="5 tokens behind"):
        seated(1, 5).computed(0, 6)


@given(st.none() | st.floats(0, 1e9))
def test_the_pace_stays_within_its_bounds(speed: float | None) -> None:
    assert 16 <= pace(speed) <= 512


@pytest.mark.parametrize(
    ("speed", "tokens"),
    [(None, 32), (10.0, 16), (127.0, 16), (128.0, 32), (300.0, 32), (511.0, 32), (1000.0, 128), (1e6, 512)],
)
def test_the_pace_is_a_quarter_of_a_second_and_never_just_a_tile(speed: float | None, tokens: int) -> None:
    assert pace(speed) == tokens


@pytest.mark.parametrize(("speed", "tokens"), [(None, 32), (10.0, 16), (400.0, 32), (1e6, 256)])
def test_a_standbys_step_is_smaller(speed: float | None, tokens: int) -> None:
    assert small_pace(speed) == tokens


def test_an_answer_that_is_being_read_goes_before_all_that_wait_and_is_never_refused() -> None:
    scheduler = Scheduler(slots=1, queue=2)
    for id in range(3):
        assert scheduler.admit(id, 10)
        if not id:
            scheduler.seat(0, 0)
    assert not scheduler.admit(3, 10)
    assert scheduler.admit(4, 10, first=True)
    assert scheduler.admit(5, 10, first=True)
    order = []
    while (id := scheduler.next) is not None:
        order.append(id)
        scheduler.end(id)
    assert order == [4, 5, 1, 2]
