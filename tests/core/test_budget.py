"""How many requests more than were asked for a cloud may be sent: conversations with the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.budget import FULL, QUIET, WINDOW, Budget


def spent(budget, times, *, start=0.0, every=QUIET):
    """How many of so many wishes were granted."""
    return sum(budget.spend(start + index * every) for index in range(times))


def earned(budget, times):
    for _ in range(times):
        budget.earn()


def test_the_first_is_always_granted():
    assert Budget().spend(0.0)


def test_five_in_a_row_and_then_none_however_long_one_waits():
    budget = Budget()
    assert spent(budget, 20) == 5
    assert not budget.spend(1e9)


def test_after_that_ten_answers_pay_for_one():
    budget = Budget()
    spent(budget, 5)
    grants = []
    for turn in range(60):
        budget.earn()
        grants.append(budget.spend(1000.0 + QUIET * turn))
    assert [turn for turn, granted in enumerate(grants) if granted] == [0, 10, 20, 30, 40, 50]


def test_the_bucket_does_not_run_over():
    budget = Budget()
    earned(budget, 1000)
    assert spent(budget, 20) == 5


def test_a_refused_one_costs_nothing():
    refused, left_alone = Budget(), Budget()
    for budget in (refused, left_alone):
        spent(budget, 5)
    assert spent(refused, 50, start=1000.0) == 0
    for budget in (refused, left_alone):
        budget.earn()
    assert refused.spend(5000.0)
    assert left_alone.spend(5000.0)


def test_in_a_rush_one_in_ten_is_an_extra():
    budget = Budget()
    earned(budget, 30)
    assert [budget.spend(0.0) for _ in range(5)] == [True, True, True, False, False]


def test_a_rush_at_the_very_start_gets_one():
    budget = Budget()
    assert [budget.spend(0.001 * index) for index in range(100)].count(True) == 1


def test_a_quiet_time_grants_one_that_the_share_would_not():
    budget = Budget()
    budget.earn()
    assert budget.spend(0.0)
    assert not budget.spend(QUIET - 0.01)
    assert budget.spend(QUIET)
    assert not budget.spend(QUIET + 0.01)


def test_what_is_long_ago_no_longer_counts_against_the_share():
    budget = Budget()
    for _ in range(4):
        earned(budget, WINDOW)  # then the five before are out of the window, and paid for
        assert [budget.spend(0.0) for _ in range(5)] == [True] * 5


@given(st.lists(st.tuples(st.booleans(), st.floats(min_value=0.0, max_value=QUIET / 200)), max_size=400))
def test_no_hundred_requests_in_a_rush_have_more_than_ten_extras_and_the_first(steps):
    budget, sent, now = Budget(), [], 0.0
    for answered, passed in steps:
        now += passed
        if answered:
            budget.earn()
            sent.append(False)
        elif budget.spend(now):
            sent.append(True)
    for start in range(len(sent)):
        assert sum(sent[start : start + WINDOW]) <= 11


@given(st.lists(st.one_of(st.none(), st.floats(min_value=0.0, max_value=100.0)), max_size=500))
def test_over_any_time_extras_are_hardly_more_than_five_and_a_tenth_of_the_answers(steps):
    budget, extras, answers, now = Budget(), 0, 0, 0.0
    for passed in steps:
        if passed is None:
            budget.earn()
            answers += 1
        else:
            now += passed
            extras += budget.spend(now)
    assert 10 * extras <= 59 + answers  # the last one may be paid from 5.1 tokens


@pytest.mark.parametrize("failing", [1.0, 0.5, 0.2])
def test_a_cloud_that_fails_often_is_soon_asked_once(failing):
    """Every second try fails too, in the first case."""
    budget, asked, second = Budget(), 2000, 0
    for number in range(asked):
        fails = (number * 7919 % 100) < failing * 100
        second += fails and budget.spend(0.1 * number)
        if not fails:
            budget.earn()
    assert second <= asked // 10 + FULL // 20 if failing < 1.0 else second == 5
