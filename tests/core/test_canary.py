"""The questions, what counts as an answer, and whose turn it is to be asked one."""

import random
from itertools import pairwise

import pytest

from appliance.core.canary import EFFORT, OK, QUESTIONS, ROOM, CanaryReport, Question, Turns, judge, question
from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.fault import BackendError, Fault
from appliance.core.scopes import LATELY, Breakers, scope

SUM = Question(text="What is 5 plus 7?", answers=("12", "twelve"))


def verdict(text, finished="stop", asked=SUM):
    return judge(asked, text, finished, name="claude")


# ----------------------------------------------------------------------------------------------- the questions


def test_there_are_many_questions_each_once_and_none_holds_its_own_answer():
    assert len(QUESTIONS) >= 80
    assert len({one.text for one in QUESTIONS}) == len(QUESTIONS)
    assert [one.text for one in QUESTIONS if verdict(one.text, asked=one) is None] == []


def test_every_answer_of_a_question_is_good_and_is_written_in_lower_case():
    for one in QUESTIONS:
        assert one.answers == tuple(answer.lower() for answer in one.answers)
        assert [verdict(answer, asked=one) for answer in one.answers] == [None] * len(one.answers)


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("What is 2 plus 2? Answer with the number only.", ("4", "four")),
        ("What is 7 plus 4? Answer with the number only.", ("11", "eleven")),
        ("What is 9 plus 9? Answer with the number only.", ("18", "eighteen")),
        ("Which day of the week comes after Sunday? Answer with one word.", ("monday",)),
        ("Which month comes after February? Answer with one word.", ("march",)),
        ("What is the capital of Norway? Answer with one word.", ("oslo",)),
    ],
)
def test_the_answers_are_right(text, answers):
    assert Question(text=text, answers=answers) in QUESTIONS


def test_any_number_is_a_questions():
    assert question(0) == question(len(QUESTIONS)) == QUESTIONS[0]
    assert question(2**32 - 1) in QUESTIONS
    dice = random.Random(7)
    assert len({question(dice.getrandbits(32)).text for _ in range(50)}) > 30


def test_a_question_is_one_turn_of_the_user_with_room_to_think():
    assert SUM.request(dialect="anthropic", model="claude-x") == ChatRequest(
        dialect="anthropic",
        model="claude-x",
        messages=(Message(role="user", parts=(Text("What is 5 plus 7?"),)),),
        max_tokens=ROOM,
        effort=EFFORT,
    )


# -------------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    "text",
    [
        "12",
        " 12.\n",
        "TWELVE!",
        "The answer is 12.",
        "**12**",
        "5 + 7 = 12",
        "_twelve_",
        "\uff11\uff12",  # full-width digits
        "\u7b54\u6848\u662f12\u3002",  # a sentence without spaces
        "<think>5 and 7, that is 12.</think>\n\n12",
    ],
)
def test_an_answer_is_good_however_it_is_written(text):
    assert verdict(text) is None


@pytest.mark.parametrize("text", ["13", "112", "1 2", "Sorry, I cannot help with that.", "twelves", "5 plus 7"])
def test_another_answer_is_bad(text):
    error = verdict(text)
    assert (error.fault, error.message) == (Fault.QUALITY, "Asked something easy, claude gave a wrong answer.")
    assert scope(error) == "model"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ended its answer without a visible character"),
        (" \n\t", "ended its answer without a visible character"),
        ("12" + "\ufffd" * 40, "sent 40 characters among 2,048 that are none"),
        ("12 " + "over and over and on " * 60, "repeated a passage of 21 characters"),
    ],
)
def test_what_no_answer_may_be_is_bad_even_with_the_right_word_in_it(text, says):
    error = verdict(text)
    assert error.fault is Fault.QUALITY
    assert error.message.startswith(f"Asked something easy, claude {says}")
    assert error.message.endswith(".")


@pytest.mark.parametrize("text", ["quokka", "quokka " * 300])
def test_nothing_of_the_text_is_told(text):
    assert "quokka" not in verdict(text).message


def test_who_was_still_thinking_when_the_room_was_used_up_has_said_nothing_bad():
    assert verdict("", "length") is None
    assert verdict("", "content_filter").fault is Fault.QUALITY
    assert verdict("", "tool_calls").fault is Fault.QUALITY
    assert verdict("Well, let me see", "length").fault is Fault.QUALITY


# -------------------------------------------------------------------------------------------------- the report


def test_a_report_counts_what_was_asked_and_what_was_well():
    report = None
    for at, last in enumerate([OK, "quality", OK, "silent"]):
        report = CanaryReport.of(report, "haiku", last, float(at))
    assert report == CanaryReport(model="haiku", last="silent", at=3.0, asked=4, well=2)
    assert CanaryReport.of(report, "sonnet", OK, 4.0) == CanaryReport(model="sonnet", last=OK, at=4.0, asked=1, well=1)


# -------------------------------------------------------------------------------------------------- whose turn

KEY = ("claude", "haiku")


def used(*, now=0.0, **settings):
    """An upstream that somebody asked something at `now`, and that is well."""
    breakers = Breakers(failures=1, cooldown=10.0, **settings)
    breakers.succeed(breakers.begin(now, "sonnet"), now)
    return breakers


def turns(breakers, times, *, plan=None, interval=300.0, jitter=0.0):
    """When somebody was due, of these times."""
    plan = plan or Turns()
    return [now for now in times if plan.due({KEY: breakers}, now, interval=interval, jitter=lambda: jitter)]


def fail(breakers, model, now, fault=Fault.QUALITY):
    breakers.fail(breakers.begin(now, model), now, BackendError(fault, "no"), jitter=0.5)


def test_the_first_comes_soon_and_each_further_one_after_the_interval():
    assert turns(used(), range(1000)) == [0, 300, 600, 900]


@pytest.mark.parametrize(("jitter", "expected"), [(0.5, [30, 360, 690]), (0.99, [60, 420, 780])])
def test_jitter_moves_it_by_up_to_a_fifth_and_never_below_the_interval(jitter, expected):
    assert turns(used(), range(1000), jitter=jitter) == expected


def test_each_is_asked_in_its_own_time():
    plan, dice, kept = Turns(), random.Random(7), {("a", "x"): used(), ("b", "x"): used()}
    seen = [(now, plan.due(kept, now, interval=300.0, jitter=dice.random)) for now in range(3000)]
    of_a, of_b = ([now for now, due in seen if key in due] for key in kept)
    assert of_a != of_b
    for times in (of_a, of_b):
        assert times[0] <= 60
        assert all(300 <= later - sooner <= 361 for sooner, later in pairwise(times))


def test_who_is_not_in_use_is_not_asked():
    assert turns(Breakers(), range(1000)) == []
    assert turns(used(), [LATELY, LATELY + 1, LATELY + 1000]) == [LATELY]


def test_what_is_broken_elsewhere_does_not_make_it_used():
    breakers = used()
    fail(breakers, "opus", 0.0)
    assert breakers.in_use(LATELY + 1)
    assert turns(breakers, [LATELY + 1, LATELY + 1000]) == []


def test_who_comes_back_into_use_is_asked_at_once_but_never_twice_within_the_interval():
    plan, breakers = Turns(), used()
    assert turns(breakers, [0.0], plan=plan) == [0.0]
    assert turns(breakers, [LATELY + 500.0], plan=plan) == []
    breakers.begin(LATELY + 501.0, "sonnet")
    assert turns(breakers, [LATELY + 501.0, LATELY + 502.0], plan=plan) == [LATELY + 501.0]


def test_who_is_offline_is_not_asked():
    breakers = used()
    breakers.lose("route", 0.0)
    assert turns(breakers, range(1000)) == []


@pytest.mark.parametrize("model", ["haiku", "sonnet"])
def test_a_trial_is_left_to_the_users(model):
    """Whether it is the model that was set aside, or the upstream."""
    breakers = used()
    fail(breakers, model, 0.0, Fault.QUALITY if model == "haiku" else Fault.UNREACHABLE)
    assert breakers.state(100.0, "haiku") == "half-open"
    assert turns(breakers, range(300)) == []


def test_another_model_set_aside_is_in_nobodys_way():
    breakers = used()
    fail(breakers, "opus", 0.0)
    assert turns(breakers, range(301)) == [0, 300]


def test_where_no_user_comes_for_a_whole_interval_the_canary_is_the_trial():
    breakers = used()
    fail(breakers, "haiku", 0.0)
    opened = next(now for now in range(100) if breakers.state(now, "haiku") == "half-open")
    assert turns(breakers, range(1000)) == [opened + 300, opened + 600, opened + 900]


def test_a_user_who_came_meanwhile_has_the_next_trial_too():
    breakers, plan = used(), Turns()
    fail(breakers, "haiku", 0.0)
    assert turns(breakers, range(200), plan=plan) == []
    fail(breakers, "haiku", 200.0)  # a trial of theirs
    assert breakers.state(230.0, "haiku") == "half-open"
    assert turns(breakers, range(200, 520), plan=plan) == []


def test_another_interval_holds_from_the_next_look_on():
    plan, breakers = Turns(), used()
    assert turns(breakers, range(100), plan=plan) == [0]
    assert turns(breakers, range(100, 200), plan=plan, interval=60.0) == [100, 160]


def test_another_model_is_asked_in_a_time_of_its_own_and_a_canary_taken_away_is_forgotten():
    plan, breakers = Turns(), used()
    ask = {"interval": 300.0, "jitter": lambda: 0.0}
    assert plan.due({KEY: breakers}, 0.0, **ask) == [KEY]
    assert plan.due({("claude", "opus"): breakers}, 1.0, **ask) == [("claude", "opus")]
    assert plan.due({}, 2.0, **ask) == []
    assert plan.due({KEY: breakers}, 3.0, **ask) == [KEY]
