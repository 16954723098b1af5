"""How long an upstream takes to begin: conversations about its last answers."""

import pytest

from appliance.core.first_words import BRISK, LATELY, SLOW, FirstWords, sentence


def begun(*seconds):
    """First contents that came one every second, the first of them at 0, and the time of the last."""
    words = FirstWords()
    for index, wait in enumerate(seconds):
        words.began(wait, float(index))
    return words, len(seconds) - 1.0


def test_an_upstream_whose_first_words_take_over_five_seconds_in_the_median_is_slow():
    words, now = begun(1.0, 1.0, 6.2, 7.0, 30.0)
    assert words.slow(now) == 6.2


@pytest.mark.parametrize("waits", [(), (30.0,) * 4, (5.0,) * 20, (1.0, 1.0, 1.0, 30.0, 30.0)])
def test_few_answers_or_usual_ones_are_no_warning(waits):
    words, now = begun(*waits)
    assert words.slow(now) is None


def test_only_the_last_twenty_count():
    words, now = begun(*[9.0] * 20, *[1.0] * 11)
    assert words.slow(now) is None
    words, now = begun(*[1.0] * 20, *[9.0] * 11)
    assert words.slow(now) == 9.0


def test_the_warning_ends_when_its_answers_are_long_ago():
    words, now = begun(*[9.0] * 5)
    assert words.slow(LATELY) == 9.0
    assert words.slow(LATELY + 0.1) is None  # four are too few
    assert words.slow(now) == 9.0  # asking changes nothing


def test_the_warning_does_not_come_and_go_with_every_answer():
    words, _ = begun(*[4.5] * 20)
    assert words.slow(19.0) is None
    for index in range(11):
        words.began(5.5, 20.0 + index)
    assert words.slow(30.0) == 5.5
    for index in range(11):
        words.began(4.5, 31.0 + index)
    assert words.slow(41.0) == 4.5
    for index in range(11):
        words.began(BRISK, 42.0 + index)
    assert words.slow(52.0) is None
    for index in range(11):
        words.began(SLOW, 53.0 + index)
    assert words.slow(63.0) is None


def test_a_new_warning_after_a_while_without_answers_begins_above_the_higher_mark():
    words, _ = begun(*[9.0] * 5)
    for index in range(5):
        words.began(4.5, 2000.0 + index)
    assert words.slow(2004.0) is None


def test_the_median_is_known_of_usual_upstreams_too():
    words, now = begun(*[0.3] * 5)
    assert words.usual(now) == 0.3
    assert words.usual(now + LATELY + 1.0) is None
    assert begun(*[0.3] * 4)[0].usual(3.0) is None


def test_it_says_when_it_will_know_too_little():
    words, _ = begun(*[9.0] * 7)
    assert words.fades_at == 2.0 + LATELY
    assert words.slow(words.fades_at) == 9.0
    assert words.slow(words.fades_at + 0.1) is None
    assert FirstWords().fades_at == float("-inf")


def test_the_warning_is_a_sentence():
    assert sentence(6.249) == "slow: the first word takes 6.2 s in the median"


def test_when_the_slow_ones_are_long_ago_the_quick_ones_are_what_counts():
    words, _ = begun(*[9.0] * 5)
    for index in range(5):
        words.began(1.0, 300.0 + index)
    assert words.slow(304.0) == 5.0
    assert words.slow(304.0 + LATELY - 299.0) is None


def test_a_warning_that_faded_is_over_even_if_the_next_answer_finds_enough_of_the_old_ones():
    words = FirstWords()
    for at, wait in [(0, 9.0), (0, 9.0), (0, 9.0), (500, 4.5), (500, 4.5), (550, 4.5), (550, 4.5)]:
        words.began(wait, at)
    assert words.slow(550) == 4.5
    assert words.slow(601) is None
    words.began(4.5, 602)
    assert (words.usual(602), words.slow(602)) == (4.5, None)
