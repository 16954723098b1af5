"""The rhythm of answers, as conversations."""

import math
from dataclasses import replace

import pytest

from appliance.core.chat import Text, ToolCall
from appliance.core.drip import ENOUGH as KNOWN
from appliance.core.drip import PAUSE
from appliance.core.events import Opaque, Progress, ReasoningDelta, Started, TextDelta, ToolCallDelta, ToolCallStart
from appliance.core.fault import Fault
from appliance.core.habits import Habits
from appliance.core.pulse import LINGER, Pulse, Timeouts
from appliance.core.suspicion import ENOUGH
from tests.core.scenes import BOX, CLAUDE, ENDED, OPENAI, A, B, ask, begin, broke, opened, told

LEARNED = Timeouts()
THINKING = ReasoningDelta(text="hm")
CALL = ToolCallStart(index=0, id="t", name="look")


def pulse(limits=LEARNED, habits=None, leg=CLAUDE, request=None, **call):
    """A pulse whose leg was called at 100, and the list of what was heard."""
    heard = []
    listen = lambda *what: heard.append(what)  # noqa: E731
    return Pulse(leg, request or ask(), 100.0, limits=limits, habits=habits, heard=listen, **call), heard


def experienced(kind, seconds):
    habits = Habits()
    for _ in range(ENOUGH):
        habits.suspicion.heard(kind, seconds)
    return habits


def test_a_cloud_is_held_to_the_first_content_and_then_to_the_time_between_pieces():
    one, _ = pulse(Timeouts(first_content=3.0, stall=5.0))
    assert one.deadline == 103.0
    one.content([A], 102.0)
    assert one.deadline == 107.0
    one.content([B], 106.0)
    assert (one.deadline, one.first_content) == (111.0, 2.0)


def test_no_wait_is_longer_than_the_whole_may_take():
    one, _ = pulse(Timeouts(first_content=50.0, stall=50.0, total=10.0))
    assert one.deadline == 110.0
    one.content([A], 109.0)
    assert one.deadline == 110.0
    assert one.overdue(110.0) == "was not done after 10 s"


@pytest.mark.parametrize(
    ("events", "limit"),
    [
        ([A], 20.0),
        ([THINKING], 60.0),
        ([CALL], 60.0),
        ([ToolCallDelta(index=0, arguments="{")], 60.0),
        ([THINKING, A], 20.0),
        ([A, CALL], 60.0),
        ([A, Started(id="", model="m", created=0)], 20.0),
        ([Opaque(content=True)], 20.0),
        ([A, ReasoningDelta(text="")], 20.0),
    ],
)
def test_thinking_and_tool_arguments_may_be_silent_for_longer_than_text(events, limit):
    one, _ = pulse()
    one.content(events, 101.0)
    assert one.deadline == 101.0 + limit


def test_what_an_upstream_usually_needs_takes_the_place_of_the_starting_values():
    one, _ = pulse(habits=experienced("first", 0.4))
    assert one.deadline == 112.0
    assert 100.4 < one.warning < 101.0
    assert one.warning < one.late < 101.0
    slow, _ = pulse(habits=experienced("first", 8.0))
    assert slow.deadline == 120.0
    other, _ = pulse()
    assert (other.deadline, other.warning, other.late) == (112.0, 104.0, 104.0)


def test_a_limit_that_was_given_is_not_learned_but_the_warning_is():
    one, _ = pulse(Timeouts(first_content=30.0), experienced("first", 0.4))
    assert one.deadline == 130.0
    assert one.warning < 101.0


def test_what_was_heard_goes_into_the_history_and_to_whoever_listens():
    habits = Habits()
    one, heard = pulse(habits=habits)
    for at in range(ENOUGH + 1):
        one.content([A], 102.0 + 0.25 * at)
    assert heard == [("claude", "first", 2.0)] + [("claude", "text", 0.25)] * ENOUGH
    assert habits.suspicion.phi("text", 8.0) > 8.0


def test_the_wait_between_two_kinds_of_content_belongs_to_neither():
    one, heard = pulse()
    one.content([THINKING], 101.0)
    one.content([A], 109.0)
    one.content([B], 109.5)
    assert heard == [("claude", "first", 1.0), ("claude", "text", 0.5)]


def test_the_end_of_a_whole_answer_says_nothing_about_streamed_ones():
    one, heard = pulse(request=ask(stream=False))
    assert (one.deadline, one.warning) == (160.0, 108.0)
    one.content([A], 130.0)
    assert (heard, one.first_content, one.warning) == ([], 30.0, math.inf)


def test_the_box_may_be_silent_as_long_as_it_likes():
    one, heard = pulse(leg=BOX, wary=True)
    assert (one.deadline, one.warning) == (700.0, math.inf)
    one.content([A], 400.0)
    assert (one.deadline, one.warning) == (700.0, math.inf)
    assert heard == [("local", "first", 300.0)]


def test_after_the_end_there_is_little_patience_left():
    one, _ = pulse()
    one.content([A], 101.0)
    one.ended(102.0)
    assert (one.deadline, one.warning) == (102.0 + LINGER, math.inf)


def test_the_silence_at_the_seam_is_counted_from_the_last_word_of_the_leg_before():
    one, _ = pulse(leg=BOX, left_off=81.0)
    assert one.silence is None
    one.content([B], 100.5)
    assert (one.first_content, one.silence) == (0.5, None)  # it may only repeat
    one.went_on(101.0)
    assert one.silence == 20.0
    other, _ = pulse(leg=BOX)
    other.content([B], 101.0)
    assert other.silence is None


@pytest.mark.parametrize("fields", [{}, {"thinking": {}}], ids=["plain", "it thinks"])
def test_what_takes_long_by_nature_makes_no_upstream_slow(fields):
    habits = Habits()
    for _ in range(5):
        one, _ = pulse(request=ask(fields=fields), habits=habits)
        one.content([B], 130.0)
        assert one.patient is bool(fields)
    assert habits.slow(130.0) == (None if fields else 30.0)


def test_a_slow_client_is_not_the_legs_fault():
    one, heard = pulse()
    one.held_up(30.0)
    assert (one.deadline, one.warning) == (142.0, 134.0)
    one.content([A], 131.0)
    assert heard == [("claude", "first", 1.0)]


def test_an_upstream_that_has_just_failed_or_is_on_trial_is_suspicious_at_once():
    assert pulse(wary=True)[0].warning == 100.0
    breaker = opened()
    relay, _ = begin(CLAUDE, BOX, now=10.0, claude=breaker)
    assert relay.warning == 10.0
    relay, _ = begin(CLAUDE, BOX, now=10.0)
    assert relay.warning == 14.0


def test_the_relay_tells_how_long_the_seam_was_silent():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([A], 1.0)
    assert relay.fail(broke(), 3.0)[0].silence is None
    relay.receive([B, ENDED], 3.5)
    tried = relay.end(4.0)[0]
    assert (tried.leg, tried.continued, tried.first_content, tried.silence) == ("local", True, 0.5, 2.5)


def test_the_box_stands_by_only_where_it_would_be_asked():
    relay, _ = begin(CLAUDE, BOX)
    assert relay.standby().messages == ask().messages
    assert begin(CLAUDE)[0].standby() is None
    assert begin(BOX)[0].standby() is None
    assert begin(CLAUDE, OPENAI, BOX)[0].standby() is not None
    assert begin(CLAUDE, BOX, request=ask(n=2))[0].standby() is None
    relay.fail(broke(), 1.0)
    assert relay.standby() is None


@pytest.mark.parametrize("request_", [ask(fields={"reasoning_effort": "high"}), ask(raw=b" " * 200_001)])
def test_who_thinks_or_reads_for_long_may_be_silent_for_a_minute(request_):
    relay, _ = begin(CLAUDE, BOX, request=request_, limits=LEARNED)
    assert relay.deadline == 60.0
    assert begin(CLAUDE, BOX, limits=LEARNED)[0].deadline == 12.0


def test_a_restart_of_the_same_leg_is_no_seam():
    relay, _ = begin(BOX)
    relay.receive([A], 1.0)
    relay.fail(broke(Fault.CRASHED), 3.0)
    relay.receive([B, ENDED], 4.0)
    assert relay.end(4.0)[0].silence is None


def test_what_the_box_would_be_asked_has_what_was_said_so_far():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([A], 1.0)
    assert relay.standby().committed.text == "a"
    relay.receive([CALL], 2.0)
    assert relay.standby().committed.parts == (Text("a"), ToolCall(id="t", name="look", arguments=""))
    relay.receive([Opaque(content=True)], 3.0)
    assert relay.standby() is None
    assert not relay.continuable


# ------------------------------------------------------------------------------------------------------- the drip


def quick(rate=1000.0):
    """An upstream whose model writes so many characters per second."""
    habits = Habits()
    for _ in range(KNOWN):
        habits.pace(CLAUDE.model).learn(rate)
    return habits


def test_text_that_only_drips_has_stopped_long_before_it_is_silent():
    one, _ = pulse(habits=quick())
    now = 101.0
    one.content([TextDelta(text="x" * 200)], now)
    while now < one.deadline:
        now += 1.0
        one.content([TextDelta(text="x" * 5)], now)
        assert now < 130.0, "nobody gave it up"
    assert one.overdue(now) == "wrote less than a tenth as fast as usual"
    assert one.deadline < now + 20.0


def test_at_its_usual_speed_nothing_is_given_up_and_of_an_unknown_speed_nothing_is_held():
    one, _ = pulse(habits=quick())
    other, _ = pulse(habits=Habits())
    for second in range(60):
        now = 101.0 + second
        one.content([TextDelta(text="x" * 900)], now)
        other.content([TextDelta(text="x")], now)
        assert one.deadline > now + PAUSE - 1e-9
        assert other.deadline == now + 20.0


def test_how_fast_an_answer_was_is_learned_when_it_ended_and_not_before():
    habits = Habits()
    for answer in range(KNOWN):
        assert habits.pace(CLAUDE.model).rate is None, answer
        one, _ = pulse(habits=habits)
        for tenth in range(10):
            one.content([TextDelta(text="x" * 30)], 101.0 + tenth / 10)
        one.learn(102.0)
    assert habits.pace(CLAUDE.model).rate == pytest.approx(300.0)


# --------------------------------------------------------------------------------------------------- whole answers


def test_a_whole_answer_gets_the_time_that_such_answers_take():
    habits = Habits()
    whole = ask(stream=False, max_tokens=100)
    assert pulse(habits=habits, request=whole)[0].deadline == 160.0
    for _ in range(ENOUGH):
        one, _ = pulse(habits=habits, request=whole)
        one.learn(102.0)
    assert pulse(habits=habits, request=whole)[0].deadline == 120.0
    assert pulse(habits=habits, request=ask(stream=False))[0].deadline == 160.0
    assert pulse(Timeouts(whole=7.0), habits, request=whole)[0].deadline == 107.0


def test_one_that_was_given_up_may_only_have_been_slow():
    habits = Habits()
    one, _ = pulse(habits=habits, request=ask(stream=False))
    one.gave_up(one.deadline)
    assert pulse(habits=habits, request=ask(stream=False))[0].deadline == 220.0


@pytest.mark.parametrize("limits", [Timeouts(whole=30.0), Timeouts(total=60.0)])
def test_a_limit_that_was_given_is_none_to_learn_from(limits):
    habits = Habits()
    one, _ = pulse(limits, habits, request=ask(stream=False))
    one.gave_up(one.deadline)
    assert pulse(habits=habits, request=ask(stream=False))[0].deadline == 160.0


def test_a_whole_answer_that_is_watched_is_held_to_what_a_streamed_one_is():
    watched = replace(CLAUDE, watched=True)
    one, heard = pulse(leg=watched, request=ask(stream=False))
    assert (one.deadline, one.warning) == (112.0, 104.0)
    one.content([Progress(kind="text", characters=5)], 101.0)
    assert (one.deadline, one.first_content) == (121.0, 1.0)
    one.content([Progress(kind="thinking", characters=5)], 102.0)
    assert one.deadline == 162.0
    assert heard == [("claude", "first", 1.0)]


def test_whoever_works_unseen_may_be_silent_for_a_minute():
    relay, _ = begin(replace(CLAUDE, watched=True), BOX, request=ask(stream=False), limits=LEARNED)
    assert relay.deadline == 12.0
    assert relay.receive([Progress(kind="thinking", characters=0)], 2.0) == []
    assert relay.deadline == 62.0
    assert relay.receive([Progress(kind="text", characters=3)], 3.0) == []
    assert relay.deadline == 23.0
    assert told(relay.receive([A, ENDED], 4.0)) == []
    assert told(relay.end(4.0))[1:] == [("emit", A, ENDED), ("done", None)]
