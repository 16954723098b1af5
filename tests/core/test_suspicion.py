"""What is odd, told by history: conversations with the detector."""

import math

import pytest

from appliance.core.suspicion import ENOUGH, LATE, LIMITS, WARNINGS, WINDOW, Suspicion, Waits


def taught(kind, *waits):
    suspicion = Suspicion()
    for wait in waits:
        suspicion.heard(kind, wait)
    return suspicion


def varied(middle, count=200, spread=1.5):
    """Waits around `middle` whose logarithms are spread evenly."""
    return [middle * spread ** (2 * index / (count - 1) - 1) for index in range(count)]


@pytest.mark.parametrize("kind", LIMITS)
def test_before_there_is_history_the_starting_values_hold(kind):
    suspicion = taught(kind, *[0.1] * (ENOUGH - 1))
    assert (suspicion.warning(kind), suspicion.limit(kind)) == (WARNINGS[kind].start, LIMITS[kind].start)
    assert suspicion.phi(kind, 5.0) is None
    suspicion.heard(kind, 0.1)
    assert suspicion.phi(kind, 5.0) > 3.0


def test_the_starting_values_are_these():
    suspicion = Suspicion()
    assert [suspicion.limit(kind) for kind in ("first", "text", "thinking", "tools")] == [12.0, 20.0, 60.0, 60.0]
    assert [suspicion.warning(kind) for kind in ("first", "text")] == [4.0, 8.0]


def test_the_limit_for_the_first_content_is_twice_what_one_in_twenty_exceeds():
    waits = varied(6.0)
    suspicion = taught("first", *waits)
    slow = Waits()
    for wait in waits:
        slow.add(wait)
    one_in_twenty = slow.reaches(-math.log10(0.05))
    assert 6.0 < one_in_twenty < 10.0
    assert suspicion.limit("first") == pytest.approx(2 * one_in_twenty)


@pytest.mark.parametrize("bound", [*WARNINGS.values(), *LIMITS.values(), LATE])
def test_what_holds_at_the_start_is_within_what_history_may_say(bound):
    assert bound.floor <= bound.start <= bound.ceiling


@pytest.mark.parametrize("kind", ["text", "thinking", "tools"])
def test_a_limit_that_no_history_changes_does_not_ask_it(kind, monkeypatch):
    suspicion = taught(kind, *varied(40.0))
    monkeypatch.setattr(Waits, "reaches", lambda self, phi: pytest.fail("asked"))
    assert suspicion.limit(kind) == LIMITS[kind].start


@pytest.mark.parametrize("usual", [0.01, 0.3, 1.0, 3.0, 9.0, 30.0])
@pytest.mark.parametrize("spread", [1.1, 3.0])
def test_another_is_asked_after_the_standby_has_begun_and_before_the_upstream_is_given_up(usual, spread):
    suspicion = taught("first", *varied(usual, spread=spread))
    assert suspicion.warning("first") <= suspicion.late() < suspicion.limit("first")


def test_another_is_asked_when_nineteen_of_twenty_would_have_answered():
    waits = varied(1.0, spread=3.0)
    late = taught("first", *waits).late()
    assert sum(wait < late for wait in waits) / 200 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("usual", "limit"), [(0.05, 12.0), (60.0, 20.0)])
def test_nobody_is_held_to_less_than_the_floor_and_none_is_given_more_than_the_ceiling(usual, limit):
    assert taught("first", *varied(usual)).limit("first") == limit


def test_the_standby_begins_when_three_of_four_would_have_answered():
    suspicion = taught("first", *varied(2.0))
    warning = suspicion.warning("first")
    assert sum(wait < warning for wait in varied(2.0)) / 200 == pytest.approx(0.75, abs=0.06)


def test_phi_of_a_usual_wait_is_small_and_grows_with_the_silence():
    suspicion = taught("text", *varied(0.02))
    levels = [suspicion.phi("text", seconds) for seconds in (0.01, 0.02, 0.05, 0.2, 1.0)]
    assert levels == sorted(levels)
    assert levels[1] == pytest.approx(0.3, abs=0.05)
    assert levels[-1] > 8.0
    assert suspicion.phi("text", 1e9) == math.inf


def test_equal_waits_do_not_make_a_slightly_longer_one_an_alarm():
    assert taught("text", *[0.02] * 100).phi("text", 0.03) < 2.0


def test_what_phi_says_of_a_wait_and_when_phi_is_reached_agree():
    waits = Waits()
    for wait in varied(0.3):
        waits.add(wait)
    for phi in (0.6, 1.0, 3.0, 8.0):
        assert waits.phi(waits.reaches(phi)) == pytest.approx(phi, rel=1e-6)


def test_the_history_is_bounded_and_the_old_is_forgotten():
    suspicion = taught("first", *[10.0] * WINDOW, *[1.0] * WINDOW)
    assert suspicion.limit("first") == 12.0
    assert suspicion.phi("first", 10.0) > 8.0


def test_kinds_have_histories_of_their_own():
    suspicion = taught("text", *varied(0.02))
    assert suspicion.limit("thinking") == LIMITS["thinking"].start
    assert suspicion.limit("text") == LIMITS["text"].floor


def test_pieces_that_come_together_do_not_spoil_the_sum():
    suspicion = taught("text", *[0.0] * 100)
    assert suspicion.warning("text") == WARNINGS["text"].floor
