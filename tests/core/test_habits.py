"""What an upstream usually does: conversations about its models, its whole answers and its first words."""

import pytest

from appliance.core.habits import ENOUGH, LEAST, START, WINDOW, Habits
from appliance.core.scopes import LONGEST_NAME, MODELS

M = "gpt-x"


def taught(*seconds, max_tokens=100, model=M):
    habits = Habits()
    for length in seconds:
        habits.took(model, max_tokens, length)
    return habits


# ------------------------------------------------------------------------------------------------------- models


def test_each_model_has_one_pace_of_its_own():
    habits = Habits()
    assert habits.pace("a") is habits.pace("a")
    assert habits.pace("a") is not habits.pace("b")


def test_each_upstream_has_one_suspicion():
    habits = Habits()
    assert habits.suspicion is habits.suspicion
    assert habits.suspicion.limit("first") == 12.0


def test_of_too_many_models_the_one_used_longest_ago_is_forgotten():
    habits = Habits()
    paces = [habits.pace(f"m{index}") for index in range(MODELS)]
    assert habits.pace("m0") is paces[0]  # used again
    habits.took("m2", None, 1.0)  # and this one, otherwise
    habits.pace("one more")
    assert habits.pace("m0") is paces[0]
    assert habits.pace("m2") is paces[2]
    assert habits.pace("m1") is not paces[1]


def test_asking_how_long_a_model_may_take_makes_nobody_forgotten():
    habits = Habits()
    paces = [habits.pace(f"m{index}") for index in range(MODELS)]
    for index in range(MODELS):
        habits.whole(f"stranger{index}", None)
    assert habits.pace("m0") is paces[0]


def test_a_name_is_known_by_its_beginning():
    habits = Habits()
    assert habits.pace("m" * LONGEST_NAME) is habits.pace("m" * 100_000)
    habits.took("m" * 100_000, None, 80.0)
    assert habits.whole("m" * LONGEST_NAME, None) == 120.0


# ------------------------------------------------------------------------------------------------ whole answers


@pytest.mark.parametrize("max_tokens", [None, 1, 256, 4096, 10**9])
def test_before_there_is_history_a_whole_answer_may_take_a_minute(max_tokens):
    assert Habits().whole(M, max_tokens) == START == 60.0
    assert taught(*[0.5] * (ENOUGH - 1), max_tokens=max_tokens).whole(M, max_tokens) == START


def test_short_answers_that_come_quickly_are_soon_waited_for_no_longer_than_twenty_seconds():
    assert taught(*[0.5] * ENOUGH).whole(M, 100) == LEAST == 20.0


def test_usually_it_is_three_times_what_one_in_twenty_exceeds():
    habits = taught(*range(1, 41))  # of 40, two are longer than 38
    assert habits.whole(M, 100) == 3 * 38


def test_a_long_answer_among_quick_ones_is_not_given_up():
    quick = taught(*[1.0] * WINDOW, max_tokens=None)
    assert quick.whole(M, None) == START  # nothing has been long yet, but anything may be
    quick.took(M, None, 58.0)
    assert quick.whole(M, None) == 1.5 * 58.0
    for _ in range(WINDOW - 1):
        quick.took(M, None, 1.0)
    assert quick.whole(M, None) == 1.5 * 58.0
    quick.took(M, None, 1.0)  # and now it is long ago
    assert quick.whole(M, None) == START


def test_one_long_answer_gives_more_time_at_once():
    assert taught(50.0).whole(M, 100) == 75.0


@pytest.mark.parametrize(("max_tokens", "least"), [(256, 20.0), (1024, 1024 / 35), (4096, 60.0), (10**6, 60.0)])
def test_quick_answers_leave_time_for_the_longest_of_their_class(max_tokens, least):
    assert taught(*[0.2] * WINDOW, max_tokens=max_tokens).whole(M, max_tokens) == least


def test_a_class_is_four_times_as_long_as_the_one_before():
    habits = taught(100.0, max_tokens=300)
    assert [habits.whole(M, tokens) for tokens in (256, 257, 1024, 1025, None)] == [60.0, 150.0, 150.0, 60.0, 60.0]
    assert taught(100.0, max_tokens=65_536).whole(M, 10**9) == 150.0


def test_what_one_model_takes_says_nothing_about_another():
    assert taught(100.0).whole("other", 100) == START


def test_a_model_slower_than_it_was_given_time_for_is_heard_out_the_second_time():
    habits = Habits()
    habits.gave_up(M, None, 60.0)
    assert habits.whole(M, None) == 120.0
    habits.took(M, None, 90.0)
    assert habits.whole(M, None) == 135.0


def test_a_silent_model_is_given_twice_the_time_only_once():
    habits = Habits()
    for seconds in (60.0, 60.0):  # two at the same time
        habits.gave_up(M, None, seconds)
    assert habits.whole(M, None) == 120.0
    habits.gave_up(M, None, 120.0)
    assert habits.whole(M, None) == START
    habits.gave_up(M, None, 60.0)
    assert habits.whole(M, None) == START
    habits.took(M, None, 10.0)  # it is back, and may be slow again
    habits.gave_up(M, None, 60.0)
    assert habits.whole(M, None) == 120.0


# ---------------------------------------------------------------------------------------------- the first words


def test_it_knows_how_long_the_first_words_take_and_warns_of_slow_ones():
    habits = Habits()
    for index in range(5):
        habits.began(6.2, float(index))
    assert (habits.first_content(4.0), habits.slow(4.0)) == (6.2, 6.2)
    for index in range(6):
        habits.began(0.3, 5.0 + index)
    assert (habits.first_content(10.0), habits.slow(10.0)) == (0.3, None)
