"""Half an answer, and a cloud that cannot go on from it: it is asked anew, and heard only if it says the same."""

import pytest

from appliance.core.actions import Call
from appliance.core.budget import Budget
from appliance.core.events import ReasoningDelta, Takeover, TextDelta, ToolCallStart, Usage
from appliance.core.fault import Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, START, ask, broke, opened, told

SECOND = Leg(name="second", model="opus", continues=False)
THIRD = Leg(name="third", model="opus", continues=False)
THE_FOX = TextDelta(text="The fox")
SEAM = Takeover(source="claude", target="second", after=7, reason="broken")
TO_BOX = Takeover(source="claude", target="local", after=7, reason="broken")


def cut(*legs, said=(THE_FOX,), request=None, budget=None, **breakers):
    """A relay whose first cloud has said `said` and broke, and what it answered to that."""
    budgets = {CLAUDE.name: budget or Budget(), SECOND.name: spent()}  # who fails pays, not who is asked for it
    relay = Relay(request or ask(), (CLAUDE, *legs), breakers, limits=Timeouts(), budgets=budgets)
    relay.start(0.0)
    relay.receive([START, *said], 1.0)
    return relay, relay.fail(broke(), 2.0)


def spent():
    budget = Budget()
    while budget.spend(0.0):
        pass
    return budget


def test_it_is_asked_for_the_whole_and_goes_on_where_the_client_is():
    relay, actions = cut(SECOND, BOX)
    assert told(actions) == [("tried", "claude", Fault.BROKEN), ("call", "second", None)]
    assert actions[-1].request == ask()
    assert relay.receive([START, TextDelta(text="The ")], 3.0) == []
    assert told(relay.receive([TextDelta(text="fox jumps")], 4.0)) == [("emit", SEAM, TextDelta(text=" jumps"))]
    assert told(relay.receive([ENDED], 5.0)) == [("emit", ENDED)]
    tried, done = relay.end(5.0)
    assert (tried.leg, tried.error, tried.characters, tried.continued, tried.silence) == ("second", None, 6, True, 3.0)
    assert done.error is None


def test_another_answer_is_heard_by_nobody_and_held_against_nobody():
    breakers = Breakers(failures=1)
    relay, _ = cut(SECOND, BOX, second=breakers)
    actions = relay.receive([START, TextDelta(text="The dog")], 3.0)
    assert told(actions) == [("tried", "second", Fault.BROKEN), ("emit", TO_BOX), ("call", "local", "The fox")]
    assert actions[0].blameless
    assert breakers.state(3.0) == "closed"


def test_a_cloud_that_breaks_while_it_repeats_has_failed():
    breakers = Breakers(failures=1)
    relay, _ = cut(SECOND, BOX, second=breakers)
    relay.receive([START, TextDelta(text="The")], 3.0)
    actions = relay.fail(broke(), 4.0)
    assert told(actions)[1:] == [("emit", TO_BOX), ("call", "local", "The fox")]
    assert not actions[0].blameless
    assert breakers.state(4.0, SECOND.model) == "open"


def test_one_that_breaks_behind_the_seam_is_gone_on_from():
    relay, _ = cut(SECOND, BOX)
    relay.receive([START, TextDelta(text="The fox jumps")], 3.0)
    seam = Takeover(source="second", target="local", after=13, reason="silent")
    assert told(relay.fail(broke(Fault.SILENT), 4.0))[1:] == [("emit", seam), ("call", "local", "The fox jumps")]


@pytest.mark.parametrize("end", ["finish", "close"])
def test_an_end_before_everything_was_repeated_is_another_answer(end):
    relay, _ = cut(SECOND, BOX)
    relay.receive([START, TextDelta(text="The")], 3.0)
    actions = relay.receive([ENDED], 4.0) if end == "finish" else relay.end(4.0)
    assert told(actions)[-1] == ("call", "local", "The fox")


def test_its_silence_is_held_to_the_same_deadlines():
    relay, _ = cut(SECOND, BOX)
    assert relay.deadline == 14.0
    relay.receive([START, TextDelta(text="The")], 3.0)
    assert relay.deadline == 23.0
    assert told(relay.expire(23.0))[-1] == ("call", "local", "The fox")


def test_one_such_cloud_is_asked_and_no_second():
    relay, _ = cut(SECOND, THIRD, BOX)
    assert told(relay.fail(broke(), 3.0))[-1] == ("call", "local", "The fox")


def test_it_costs_an_extra_of_the_budget():
    budget = spent()
    breakers = Breakers(failures=1)
    _, actions = cut(SECOND, BOX, budget=budget, second=breakers)
    assert breakers.admits(2.0, SECOND.model)
    assert told(actions)[-1] == ("call", "local", "The fox")


@pytest.mark.parametrize(
    "said",
    [(ReasoningDelta(text="Hm."), THE_FOX), (ReasoningDelta(text="Hm."),)],
    ids=["thought", "only-thought"],
)
def test_nobody_thinks_the_same_twice(said):
    _, actions = cut(SECOND, BOX, said=said)
    assert [action.leg.name for action in actions if isinstance(action, Call)] == ["local"]


def test_half_a_call_is_not_asked_for_again():
    said = (THE_FOX, ToolCallStart(index=0, id="c", name="f"))
    assert told(cut(SECOND, said=said)[1])[-1] == ("done", Fault.BROKEN)
    assert told(cut(SECOND, BOX, said=said)[1])[1:] == [("emit", TO_BOX), ("call", "local", "The fox")]


def test_a_whole_answer_begins_anew_anyway():
    relay, actions = cut(SECOND, BOX, request=ask(stream=False))
    assert told(actions)[-1] == ("call", "second", None)
    assert told(relay.receive([START, TextDelta(text="A dog"), ENDED], 3.0)) == []


def test_what_it_counts_is_the_whole():
    relay, _ = cut(SECOND, BOX)
    usage = Usage(prompt_tokens=9, completion_tokens=3)
    (emit,) = relay.receive([START, TextDelta(text="The fox jumps"), usage, ENDED], 3.0)
    assert usage in emit.events


def test_one_that_could_not_be_paid_for_was_not_asked():
    budget = spent()
    relay, actions = cut(SECOND, THIRD, BOX, budget=budget)
    assert told(actions)[-1] == ("call", "local", "The fox")
    relay, _ = cut(SECOND, THIRD, budget=Budget(), second=opened())
    assert relay.leg == THIRD
