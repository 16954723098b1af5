"""The rhythm of answers, as conversations."""

import math

import pytest

from appliance.core.chat import Opaque, ReasoningDelta, Started, ToolCallDelta, ToolCallStart
from appliance.core.pulse import LINGER, Limits, Pulse
from appliance.core.suspicion import ENOUGH, Suspicion
from tests.core.scenes import BOX, CLAUDE, ENDED, OPENAI, A, B, ask, begin, broke, opened

LEARNED = Limits()
THINKING = ReasoningDelta(text="hm")
CALL = ToolCallStart(index=0, id="t", name="look")


def pulse(limits=LEARNED, suspicions=None, **call):
    """A pulse whose leg was called at 100, and the list of what was heard."""
    heard = []
    one = Pulse(limits, suspicions or {}, lambda *what: heard.append(what))
    one.begin("claude", 100.0, **{"box": False, "stream": True, "goes_on": False, "wary": False, **call})
    return one, heard


def experienced(kind, seconds):
    suspicion = Suspicion()
    for _ in range(ENOUGH):
        suspicion.heard(kind, seconds)
    return suspicion


def test_a_cloud_is_held_to_the_first_content_and_then_to_the_time_between_pieces():
    one, _ = pulse(Limits(first_content=3.0, stall=5.0))
    assert one.deadline == 103.0
    one.content([A], 102.0)
    assert one.deadline == 107.0
    one.content([B], 106.0)
    assert (one.deadline, one.first_content) == (111.0, 2.0)


def test_no_wait_is_longer_than_the_whole_may_take():
    one, _ = pulse(Limits(first_content=50.0, stall=50.0, total=10.0))
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
    one, _ = pulse(suspicions={"claude": experienced("first", 0.4)})
    assert one.deadline == 112.0
    assert 100.4 < one.warning < 101.0
    slow, _ = pulse(suspicions={"claude": experienced("first", 8.0)})
    assert slow.deadline == 120.0
    other, _ = pulse(suspicions={"openai": experienced("first", 0.4)})
    assert (other.deadline, other.warning) == (112.0, 104.0)


def test_a_limit_that_was_given_is_not_learned_but_the_warning_is():
    one, _ = pulse(Limits(first_content=30.0), suspicions={"claude": experienced("first", 0.4)})
    assert one.deadline == 130.0
    assert one.warning < 101.0


def test_what_was_heard_goes_into_the_history_and_to_whoever_listens():
    suspicion = Suspicion()
    one, heard = pulse(suspicions={"claude": suspicion})
    for at in range(ENOUGH + 1):
        one.content([A], 102.0 + 0.25 * at)
    assert heard == [("claude", "first", 2.0)] + [("claude", "text", 0.25)] * ENOUGH
    assert suspicion.phi("text", 8.0) > 8.0


def test_the_wait_between_two_kinds_of_content_belongs_to_neither():
    one, heard = pulse()
    one.content([THINKING], 101.0)
    one.content([A], 109.0)
    one.content([B], 109.5)
    assert heard == [("claude", "first", 1.0), ("claude", "text", 0.5)]


def test_the_end_of_a_whole_answer_says_nothing_about_streamed_ones():
    one, heard = pulse(stream=False)
    assert (one.deadline, one.warning) == (160.0, 108.0)
    one.content([A], 130.0)
    assert (heard, one.first_content, one.warning) == ([], 30.0, math.inf)


def test_the_box_may_be_silent_as_long_as_it_likes():
    one, heard = pulse(box=True, wary=True)
    assert (one.deadline, one.warning) == (700.0, math.inf)
    one.content([A], 400.0)
    assert (one.deadline, one.warning) == (700.0, math.inf)
    assert heard == [("claude", "first", 300.0)]


def test_after_the_end_there_is_little_patience_left():
    one, _ = pulse()
    one.content([A], 101.0)
    one.ended(102.0)
    assert (one.deadline, one.warning) == (102.0 + LINGER, math.inf)


def test_the_silence_at_the_seam_is_counted_from_the_last_word_of_the_leg_before():
    one, _ = pulse()
    one.content([A], 101.0)
    one.begin("local", 121.0, box=True, stream=True, goes_on=True, wary=False)
    assert one.silence is None
    one.content([B], 121.5)
    assert (one.first_content, one.silence) == (0.5, 20.5)
    one.begin("local", 130.0, box=True, stream=True, goes_on=False, wary=False)
    one.content([B], 131.0)
    assert one.silence is None


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
    one, _ = pulse(box=True)
    one.content([A], 101.0)
    one.begin("claude", 103.0, box=True, stream=True, goes_on=True, wary=False)
    one.content([B], 104.0)
    assert one.silence is None


def test_what_the_box_would_be_asked_has_what_was_said_so_far():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([A], 1.0)
    assert relay.standby().committed.text == "a"
    relay.receive([CALL], 2.0)
    assert relay.standby() is None
    assert not relay.continuable
