"""The driver with two calls at a time: both are read, the slower one is closed at once, and nothing is left behind."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from appliance.core.budget import Budget
from appliance.core.fault import BackendError, Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.scopes import Breakers
from appliance.drive import drive
from tests.test_drive import BOX, CLAUDE, ENDED, A, B, Script, ask, at_once, faults, read

pytestmark = pytest.mark.long

SECOND = Leg(name="second", model="opus", continues=False)
LEGS = {"claude": replace(CLAUDE, hedge=True), "second": SECOND, "local": BOX}
LATE = 4.0
BROKE = BackendError(Fault.BROKEN, "It broke.")


def race(*scripts, limits=None):
    """A driven relay whose first cloud is late after `LATE` seconds; what it records, with the time."""
    breakers = {name: Breakers(failures=1) for name in ("claude", "second")}
    relay = Relay(
        ask(),
        [LEGS[script.name] for script in scripts],
        breakers,
        limits=limits or Timeouts(),
        budgets={name: Budget() for name in breakers},
    )
    recorded = []
    return drive(relay, {script.name: script for script in scripts}, recorded.append), recorded, relay


def run(*scripts, **more):
    async def scene():
        clock = asyncio.get_running_loop().time
        began = clock()
        batches, recorded, relay = race(*scripts, **more)
        found, error = await read(batches)
        return [event for batch in found for event in batch], error, faults(recorded), clock() - began, relay

    return at_once(scene())


def test_the_second_is_asked_when_the_first_is_late_and_answers_if_it_is_quicker():
    book = []
    first = Script("claude", 9, [A, ENDED], book=book)
    second = Script("second", 1, [B], 1, [B, ENDED], book=book)
    events, error, recorded, seconds, relay = run(first, second, Script("local", [A, ENDED], book=book))
    assert (events, error, seconds) == ([B, B, ENDED], None, LATE + 2.0)
    assert recorded == [("claude", Fault.GONE), ("second", None)]
    assert book == ["claude opens", "second opens", "claude closes", "second closes"]
    assert (relay.leg, relay.fallback) == (SECOND, "hedge")


def test_the_first_goes_on_undisturbed_by_its_company():
    book = []
    first = Script("claude", 5, [A], 30, [B, ENDED], book=book)
    second = Script("second", 9, [B, ENDED], book=book)
    events, error, recorded, seconds, _ = run(first, second, limits=Timeouts(stall=60.0))
    assert (events, error, seconds) == ([A, B, ENDED], None, 35.0)
    assert recorded == [("second", Fault.GONE), ("claude", None)]
    assert book == ["claude opens", "second opens", "second closes", "claude closes"]


def test_one_in_time_has_no_company():
    second = Script("second", [B, ENDED])
    events, *_ = run(Script("claude", 3, [A], 9, [ENDED]), second)
    assert (events, second.asked) == ([A, ENDED], [])


@pytest.mark.parametrize("dies", ["claude", "second"])
def test_one_that_breaks_leaves_it_to_the_other(dies):
    lines = {"claude": [8, [A, ENDED]], "second": [8, [A, ENDED]], dies: [5 if dies == "claude" else 2, BROKE]}
    events, error, recorded, *_ = run(*(Script(name, *said) for name, said in lines.items()))
    assert (events, error) == ([A, ENDED], None)
    assert recorded == [(dies, Fault.BROKEN), ("second" if dies == "claude" else "claude", None)]


def test_two_silent_ones_are_given_up_each_in_its_time_and_the_box_answers():
    local = Script("local", [A, ENDED])
    events, error, recorded, seconds, _ = run(Script("claude", 99), Script("second", 99), local)
    assert (events[-2:], error, seconds) == ([A, ENDED], None, LATE + 12.0)
    assert recorded == [("claude", Fault.SILENT), ("second", Fault.SILENT), ("local", None)]


def test_a_client_that_leaves_closes_both():
    book = []

    async def scene():
        batches, recorded, _ = race(Script("claude", 99, book=book), Script("second", 99, book=book))
        async with aclosing(batches):
            waiting = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(LATE + 1.0)
            waiting.cancel()
            await asyncio.wait([waiting])
        return faults(recorded)

    assert at_once(scene()) == [("claude", Fault.GONE), ("second", Fault.GONE)]
    assert sorted(book) == ["claude closes", "claude opens", "second closes", "second opens"]


def test_both_may_speak_in_the_same_moment():
    first, second = Script("claude", LATE + 1.0, [A], 1, [ENDED]), Script("second", 1, [B], 1, [ENDED])
    events, error, recorded, *_ = run(first, second)
    assert (events, error, recorded) == ([A, ENDED], None, [("second", Fault.GONE), ("claude", None)])


@pytest.mark.parametrize("dies", ["claude", "second"])
def test_a_backends_own_timeout_is_not_taken_for_our_deadline(dies):
    lines = {"claude": [8, [A, ENDED]], "second": [8, [A, ENDED]], dies: [5 if dies == "claude" else 2, TimeoutError()]}
    events, error, recorded, *_ = run(*(Script(name, *said) for name, said in lines.items()))
    assert (events, error) == ([A, ENDED], None)
    assert recorded == [(dies, Fault.BROKEN), ("second" if dies == "claude" else "claude", None)]
