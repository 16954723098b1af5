"""Asking the same cloud once more: when it is worth it, how long it takes, and when nobody does."""

import pytest

from appliance.core.actions import Call, Pause
from appliance.core.again import BACK_OFF
from appliance.core.budget import QUIET, Budget
from appliance.core.fault import Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, OPENAI, START, A, ask, broke, told


def begin(*legs, budget=None, now=0.0, **breakers):
    """A relay whose first cloud may be asked again."""
    relay = Relay(
        ask(), legs, breakers, limits=Timeouts(), jitter=0.5, budgets={CLAUDE.name: budget if budget else Budget()}
    )
    relay.start(now)
    return relay


def pauses(actions):
    return [action.seconds for action in actions if isinstance(action, Pause)]


def called(actions):
    return [action.leg.name for action in actions if isinstance(action, Call)]


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (broke(Fault.SERVER, status=500), BACK_OFF),
        (broke(Fault.UNREACHABLE, status=502), BACK_OFF),
        (broke(Fault.BUSY, status=429, retry_after=1.5), 1.5),
        (broke(Fault.BUSY, status=503, retry_after=0.0), 0.0),
    ],
    ids=["500", "refused", "429", "503"],
)
def test_an_accident_is_worth_one_more_try_on_the_same_cloud(error, pause):
    relay = begin(CLAUDE, BOX)
    actions = relay.fail(error, 1.0)
    assert (pauses(actions), called(actions)) == ([pause], ["claude"])
    assert relay.fallback is None
    again = relay.fail(error, 3.0)
    assert (pauses(again), called(again)) == ([], ["local"])
    assert relay.fallback == error.fault.value


@pytest.mark.parametrize(
    "error",
    [
        broke(Fault.SILENT, status=504),
        broke(Fault.UNREACHABLE, status=504),
        broke(Fault.UNREACHABLE, status=502, certain=True),
        broke(Fault.BUSY, status=429, retry_after=2.5),
        broke(Fault.BUSY, status=529),
        broke(Fault.BROKEN),
        broke(Fault.CONFIG, status=401),
        broke(Fault.TOO_LONG, status=400),
    ],
    ids=[
        "silence",
        "no connection in time",
        "no route",
        "a long wait",
        "no word of a wait",
        "broken",
        "key",
        "too long",
    ],
)
def test_nothing_else_is(error):
    relay = begin(CLAUDE, BOX)
    actions = relay.fail(error, 1.0)
    assert (pauses(actions), called(actions)) == ([], ["local"])


def test_half_an_answer_is_gone_on_with_and_not_asked_for_again():
    relay = begin(CLAUDE, BOX)
    relay.receive([START, A], 1.0)
    assert called(relay.fail(broke(Fault.SERVER, status=500), 2.0)) == ["local"]


def test_the_silence_of_the_second_try_is_counted_from_its_own_call():
    relay = begin(CLAUDE, BOX)
    before = relay.deadline
    relay.fail(broke(Fault.SERVER, status=500), 1.0)
    assert relay.deadline == before + 1.0 + BACK_OFF


def test_a_second_try_that_answers_is_the_clouds_answer():
    relay = begin(CLAUDE, BOX)
    relay.fail(broke(Fault.SERVER, status=500), 1.0)
    relay.receive([START, A, ENDED], 2.0)
    assert told(relay.end(3.0)) == [("tried", "claude", None), ("done", None)]


def test_both_tries_count_as_one_failure():
    breakers = Breakers(failures=2)
    relay = begin(CLAUDE, OPENAI, claude=breakers)
    assert called(relay.fail(broke(Fault.SERVER, status=500), 1.0)) == ["claude"]
    assert breakers.failures == 0
    assert called(relay.fail(broke(Fault.SERVER, status=500), 2.0)) == ["openai"]
    assert (breakers.failures, breakers.state(2.0)) == (1, "closed")


def test_the_budget_of_a_cloud_is_shared_by_all_requests():
    budget = Budget()
    tries = [
        len(pauses(begin(CLAUDE, BOX, budget=budget, now=at).fail(broke(Fault.SERVER, status=500), at)))
        for at in (QUIET * turn for turn in range(9))
    ]
    assert tries == [1, 1, 1, 1, 1, 0, 0, 0, 0]


def test_the_box_is_not_asked_again():
    relay = begin(BOX)
    assert pauses(relay.fail(broke(Fault.SERVER, status=500), 1.0)) == []


def test_without_a_way_to_it_a_cloud_is_not_asked_again():
    breakers = Breakers()
    relay = begin(CLAUDE, BOX, claude=breakers)
    breakers.lose("route", 0.0)
    actions = relay.fail(broke(Fault.UNREACHABLE, status=502), 1.0)
    assert (pauses(actions), called(actions)) == ([], ["local"])


def test_a_failure_that_was_long_in_coming_is_as_good_as_silence():
    relay = begin(CLAUDE, BOX)
    actions = relay.fail(broke(Fault.SERVER, status=504), 5.5)
    assert (pauses(actions), called(actions)) == ([], ["local"])


@pytest.mark.parametrize("trial", [False, True])
def test_where_the_breaker_lets_nobody_through_nothing_is_spent_on_another_try(trial):
    breakers, budget = Breakers(failures=1), Budget()
    if trial:
        breakers.fail(breakers.begin(-10.0, CLAUDE.model), -10.0, broke(Fault.SERVER, status=500), jitter=0.5)
    relay = begin(CLAUDE, BOX, budget=budget, claude=breakers)
    if not trial:
        breakers.fail(breakers.begin(0.5, CLAUDE.model), 0.5, broke(Fault.SERVER, status=500), jitter=0.5)
    actions = relay.fail(broke(Fault.SERVER, status=500), 1.0)
    assert (pauses(actions), called(actions)) == ([], ["local"])
    assert breakers.state(1.0) == "open"
    assert [budget.spend(QUIET * turn) for turn in range(6)] == [True] * 5 + [False]


def test_a_client_that_leaves_before_the_second_try_ends_none():
    relay = begin(CLAUDE, BOX, claude=Breakers())
    [tried, *_] = relay.fail(broke(Fault.SERVER, status=500), 1.0)
    assert tried.seconds == 1.0
    assert told(relay.cancel(1.0 + BACK_OFF / 2)) == [("done", None)]


# ----------------------------------------------------------------------------------------- the way to it is lost


def test_who_is_under_way_when_the_way_is_lost_gets_two_seconds_more():
    breakers = Breakers()
    relay = begin(CLAUDE, BOX, claude=breakers)
    relay.receive([START, A], 3.0)
    assert relay.deadline == 23.0
    breakers.lose("route", 4.0)
    assert relay.deadline == 6.0
    assert relay.expire(6.0)[0].error.message == "This box is offline: it has no route to the cloud's address."
    assert relay.leg == BOX
    assert relay.deadline > 500.0


def test_a_way_that_is_back_at_once_changes_nothing():
    breakers = Breakers()
    relay = begin(CLAUDE, BOX, claude=breakers)
    breakers.lose("route", 4.0)
    breakers.lose("name", 5.0)
    assert relay.deadline == 6.0
    breakers.find(5.5)
    assert relay.deadline == 12.0
