"""Two clouds asked at a time: when, for how long, and what becomes of the slower one."""

from dataclasses import replace

import pytest

from appliance.core.actions import Drop, Race
from appliance.core.budget import Budget
from appliance.core.events import BlockStart
from appliance.core.fault import Fault
from appliance.core.habits import Habits
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, START, A, B, ask, broke, opened, told

HEDGED = replace(CLAUDE, hedge=True)
SECOND = Leg(name="second", model="opus", continues=False)
LATE = 4.0


def spent():
    budget = Budget()
    while budget.spend(0.0):
        pass
    return budget


def begin(*legs, request=None, budget=None, habits=None, now=0.0, **breakers):
    known = {leg.name: Breakers(failures=2) for leg in (HEDGED, SECOND)} | breakers
    budgets = {HEDGED.name: budget or Budget(), SECOND.name: spent()}  # who is late pays, not who is asked for it
    relay = Relay(request or ask(), legs, known, limits=Timeouts(), budgets=budgets, habits=habits)
    relay.start(now)
    return relay, known


def racing(*legs, **more):
    relay, known = begin(*(legs or (HEDGED, SECOND, BOX)), **more)
    assert relay.deadline == LATE
    assert relay.wants_company
    assert relay.expire(LATE) == [Race(SECOND, ask())]
    return relay, known


def named(actions):
    return [("drop", a.leg.name) if isinstance(a, Drop) else told([a])[0] for a in actions]


def test_a_late_cloud_gets_company_and_both_have_their_time():
    relay, _ = racing()
    assert relay.deadline == 12.0
    assert relay.leg == HEDGED
    assert relay.fallback is None


def test_whoever_speaks_first_answers_and_the_other_is_nobodys_failure():
    relay, known = racing()
    relay.receive([START], 5.0, "claude")
    assert named(relay.receive([START, A], 5.0, "second")) == [
        ("tried", "claude", Fault.GONE),
        ("drop", "claude"),
        ("emit", START, A),
    ]
    assert (relay.leg, relay.fallback, relay.wants_company) == (SECOND, "hedge", False)
    relay.receive([ENDED], 6.0, "second")
    assert told(relay.end(6.0, "second")) == [("tried", "second", None), ("done", None)]
    assert {breakers.state(6.0) for breakers in known.values()} == {"closed"}
    assert [known[name].failures for name in ("claude", "second")] == [1, 0]


def test_the_late_one_may_still_be_first():
    relay, _ = racing()
    assert named(relay.receive([START, A], 5.0, "claude")) == [
        ("tried", "second", Fault.GONE),
        ("drop", "second"),
        ("emit", START, A),
    ]
    assert (relay.leg, relay.fallback) == (HEDGED, None)


def test_the_loser_of_a_race_can_still_take_over():
    relay, _ = racing()
    relay.receive([START, A], 5.0, "second")
    assert told(relay.fail(broke(), 6.0, "second"))[-1] == ("call", "local", "a")


@pytest.mark.parametrize(("dies", "lives"), [("claude", "second"), ("second", "claude")])
def test_one_that_fails_leaves_it_to_the_other(dies, lives):
    relay, known = racing()
    actions = relay.fail(broke(Fault.SERVER, status=500), 5.0, dies)
    assert named(actions) == [("tried", dies, Fault.SERVER), ("drop", dies)]
    assert known[dies].failures == 1
    assert relay.leg.name == lives
    assert relay.fallback == ("server" if dies == "claude" else None)
    assert named(relay.receive([START, B, ENDED], 6.0, lives)) == [("emit", START, B, ENDED)]


def test_silence_is_counted_from_each_ones_own_call():
    relay, _ = racing()
    assert named(relay.expire(12.0)) == [("tried", "claude", Fault.SILENT), ("drop", "claude")]
    assert relay.deadline == LATE + 12.0
    assert told(relay.expire(LATE + 12.0))[-1] == ("call", "local", None)


def test_the_callers_mistake_is_the_first_clouds_to_tell():
    relay, _ = racing()
    mistake = broke(Fault.REQUEST, status=400)
    assert named(relay.fail(mistake, 5.0, "second")) == [("tried", "second", Fault.REQUEST), ("drop", "second")]
    relay, _ = racing()
    assert named(relay.fail(mistake, 5.0, "claude")) == [
        ("tried", "claude", Fault.REQUEST),
        ("tried", "second", Fault.GONE),
        ("drop", "second"),
        ("done", Fault.REQUEST),
    ]


def test_a_client_that_leaves_ends_both():
    relay, _ = racing()
    assert told(relay.cancel(5.0)) == [("tried", "claude", Fault.GONE), ("tried", "second", Fault.GONE), ("done", None)]


@pytest.mark.parametrize(
    ("legs", "more"),
    [
        ((HEDGED, BOX), {}),
        ((CLAUDE, SECOND, BOX), {}),
        ((HEDGED, SECOND, BOX), {"request": ask(stream=False)}),
        ((HEDGED, SECOND, BOX), {"request": ask(fields={"thinking": {}})}),
    ],
    ids=["only the box is left", "not asked for", "a whole answer", "it thinks"],
)
def test_nobody_is_asked_beside_it(legs, more):
    relay, _ = begin(*legs, **more)
    assert relay.deadline > LATE
    assert not relay.wants_company


@pytest.mark.parametrize("more", [{"budget": spent()}, {"second": opened()}], ids=["no budget", "not closed"])
def test_an_extra_that_cannot_be_had_is_not_asked_for_twice(more):
    relay, _ = begin(HEDGED, SECOND, BOX, **more)
    assert relay.expire(LATE) == []
    assert (relay.deadline, relay.wants_company) == (12.0, False)


def test_both_count_the_whole_time_of_a_slow_client():
    relay, _ = racing()
    relay.receive([START, A], 5.0, "second")
    relay.held_up(10.0)
    assert relay.deadline == 5.0 + 20.0 + 10.0


def test_one_that_never_says_a_word_is_soon_set_aside():
    """Though nobody ever waits for its deadline."""
    breakers = Breakers(failures=3)
    for turn in range(3):
        assert breakers.state(10.0 * turn) == "closed"
        relay, _ = racing(claude=breakers)
        relay.receive([START, A], 5.0, "second")
    assert breakers.state(10.0, "sonnet") == "open"
    assert breakers.last.message == "claude said nothing for 5 s."


def test_one_that_was_already_thinking_is_not_held_to_be_silent():
    relay, known = racing()
    relay.receive([BlockStart(index=0, kind="reasoning")], 4.5, "claude")
    assert relay.receive([START, A], 5.0, "second")[0].blameless
    assert known["claude"].failures == 0


def test_a_trial_has_no_company_so_that_it_ends():
    breakers = opened()
    relay, _ = begin(HEDGED, SECOND, BOX, claude=breakers, now=10.0)
    assert not relay.wants_company
    assert relay.deadline == 10.0 + 6.0
    assert told(relay.expire(16.0)) == [("tried", "claude", Fault.SILENT), ("call", "second", None)]
    assert breakers.state(16.0) == "open"


def test_how_long_the_slower_one_took_at_least_is_remembered():
    """Else only its quick answers would be known, and it would be late sooner and sooner."""
    habits = Habits()
    for _ in range(5):
        relay, _ = racing(habits={"claude": habits})
        relay.receive([START, A], 7.0, "second")
    assert habits.slow(7.0) == 7.0


def test_over_a_thousand_requests_a_tenth_have_company():
    """The second cloud is asked by nobody else, so that its own answers could not pay for them."""
    budgets = {name: Budget() for name in ("claude", "second")}
    races = 0
    for turn in range(1000):
        now = 20.0 * turn
        relay = Relay(ask(), (HEDGED, SECOND, BOX), {"second": Breakers()}, limits=Timeouts(), budgets=budgets)
        relay.start(now)
        if turn % 10 == 0:
            races += len(relay.expire(now + LATE))
        who = relay.leg.name
        relay.receive([START, A, ENDED], now + LATE + 1.0, who)
        relay.end(now + LATE + 1.0, who)
    assert races == 100
