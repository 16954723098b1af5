"""The relay as conversations: told this, it answers that. Rule by rule, as its file lists them."""

import dataclasses

import pytest

from appliance.core.actions import Call, Done, Emit
from appliance.core.chat import Message, Reasoning, Text
from appliance.core.events import (
    Finish,
    Opaque,
    Opened,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.pulse import LINGER
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, GEMINI, LIMITS, OPENAI, START, ask, begin, broke, told, verdict

OPENED = Opened(headers=(("x-request-id", "q1"),))
USAGE = Usage(prompt_tokens=5, completion_tokens=2)


def text(words, choice=0):
    return TextDelta(text=words, choice=choice)


def said(words):
    return Message(role="assistant", parts=(Text(words),))


# ------------------------------------------------------------------------------------------- it goes well


def test_a_healthy_answer_passes_through_and_ends_when_its_leg_ends():
    relay, actions = begin(CLAUDE, BOX)
    assert actions == [Call(CLAUDE, ask())]
    assert relay.receive([OPENED, START], 1.0) == []
    assert relay.receive([text("Be")], 2.0) == [Emit((OPENED, START, text("Be")))]
    assert relay.receive([text("cause")], 3.0) == [Emit((text("cause"),))]
    assert relay.receive([ENDED, USAGE], 4.0) == [Emit((ENDED, USAGE))]
    [tried, done] = relay.end(5.0)
    assert (tried.leg, tried.error, tried.characters, tried.seconds) == ("claude", None, 7, 5.0)
    assert (done, relay.fallback, relay.leg) == (Done(None), None, CLAUDE)


def test_every_event_of_a_leg_goes_out_once_and_in_order():
    relay, _ = begin(CLAUDE)
    events = [
        OPENED, START, Opaque(content=False), text(""), ReasoningDelta(text="hm"), text("a"), Opaque(content=True),
        ToolCallStart(index=0, id="t", name="look"), ToolCallDelta(index=0, arguments="{}"), ENDED, USAGE,
    ]  # fmt: skip
    out = []
    for event in events:
        for action in relay.receive([event], 1.0):
            out += action.events
    assert out == events
    assert told(relay.end(1.0)) == [("tried", "claude", None), ("done", None)]


def test_an_empty_batch_is_nothing():
    relay, _ = begin(CLAUDE)
    assert relay.receive([], 1.0) == []
    relay.receive([text("a")], 1.0)
    assert relay.receive([], 1.0) == []


@pytest.mark.parametrize("reason", ["length", "tool_calls", "content_filter", "other"])
def test_an_end_that_is_not_stop_needs_no_content(reason):
    relay, _ = begin(CLAUDE, BOX)
    finish = Finish(reason=reason)
    assert told(relay.receive([START, finish], 1.0)) == [("emit", START, finish)]
    assert told(relay.end(1.0)) == [("tried", "claude", None), ("done", None)]


def test_the_box_may_end_without_any_content():
    relay, _ = begin(BOX)
    assert told(relay.receive([START, ENDED], 1.0)) == [("emit", START, ENDED)]
    assert told(relay.end(1.0)) == [("tried", "local", None), ("done", None)]


# ------------------------------------------------------------- rule 1: before content a failure is invisible


OTHERWISE = (Fault.REQUEST, Fault.CRASHED, Fault.STOPPED)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in OTHERWISE])
def test_before_any_content_the_next_leg_answers_from_the_start(fault):
    relay, _ = begin(CLAUDE, BOX)
    assert relay.receive([OPENED, START, text(""), Opaque(content=False)], 1.0) == []
    assert told(relay.fail(broke(fault), 2.0)) == [("tried", "claude", fault), ("call", "local", None)]
    assert (relay.fallback, relay.leg) == (fault.value, BOX)
    mine = Started(id="l1", model="starter", created=8)
    assert relay.receive([mine, text("Hi")], 3.0) == [Emit((mine, text("Hi")))]


@pytest.mark.parametrize("stream", [True, False])
def test_one_empty_choice_of_two_is_no_failure_and_two_are(stream):
    first, second = ENDED, dataclasses.replace(ENDED, choice=1)
    relay, _ = begin(CLAUDE, BOX, request=ask(n=2, stream=stream))
    relay.receive([START, first], 1.0)
    relay.receive([TextDelta(text="a", choice=1), second], 2.0)
    assert told(relay.end(3.0))[0] == ("tried", "claude", None)
    relay, _ = begin(CLAUDE, BOX, request=ask(n=2, stream=stream))
    relay.receive([START, first], 1.0)
    assert told(relay.receive([second], 2.0)) == [("tried", "claude", Fault.BROKEN), ("call", "local", None)]


def test_fewer_choices_than_asked_for_may_not_be_empty_either():
    relay, _ = begin(CLAUDE, BOX, request=ask(n=2, stream=False))
    relay.receive([START, ENDED], 1.0)
    assert told(relay.end(2.0)) == [("tried", "claude", Fault.BROKEN), ("call", "local", None)]


def test_an_empty_200_is_a_failure_and_the_next_leg_answers():
    relay, _ = begin(CLAUDE, BOX)
    actions = relay.receive([OPENED, START, text(""), ENDED, USAGE], 1.0)
    assert told(actions) == [("tried", "claude", Fault.BROKEN), ("call", "local", None)]
    assert str(actions[0].error) == "claude ended its answer without any content."
    assert told(relay.receive([text("Hi")], 2.0)) == [("emit", text("Hi"))]


def test_a_stream_that_closes_before_its_first_event_is_a_failure():
    relay, _ = begin(CLAUDE, BOX)
    actions = relay.end(1.0)
    assert told(actions) == [("tried", "claude", Fault.BROKEN), ("call", "local", None)]
    assert str(actions[0].error) == "claude closed the answer before its end."


def test_a_silent_cloud_is_left_for_the_next_leg():
    relay, _ = begin(CLAUDE, BOX, now=100.0)
    assert relay.deadline == 112.0
    relay.receive([OPENED, START], 105.0)  # signs of life are not content
    assert relay.deadline == 112.0
    actions = relay.expire(112.0)
    assert told(actions) == [("tried", "claude", Fault.SILENT), ("call", "local", None)]
    assert (str(actions[0].error), actions[0].error.status) == ("claude said nothing for 12 s.", 504)


def test_every_leg_is_asked_once_in_order_and_then_the_last_failure_is_told():
    relay, _ = begin(CLAUDE, OPENAI, BOX)
    assert told(relay.fail(broke(Fault.UNREACHABLE), 1.0))[1:] == [("call", "openai", None)]
    assert told(relay.fail(broke(Fault.SILENT), 2.0))[1:] == [("call", "local", None)]
    last = broke(Fault.SERVER, "The engine is gone.", status=500)
    actions = relay.fail(last, 3.0)
    assert told(actions) == [("tried", "local", Fault.SERVER), ("done", Fault.SERVER)]
    assert (actions[-1].error, relay.fallback) == (last, "unreachable")


# --------------------------------------------------------------- rule 2: after content the answer continues


@pytest.mark.parametrize(
    ("fails", "fault"),
    [
        (lambda relay: relay.fail(broke(Fault.SERVER), 22.0), Fault.SERVER),
        (lambda relay: relay.end(22.0), Fault.BROKEN),
        (lambda relay: relay.expire(22.0), Fault.SILENT),
    ],
)
def test_after_content_the_box_goes_on_from_exactly_there(fails, fault):
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([START, text("The quick ")], 1.0)
    relay.receive([text("bro")], 2.0)
    takeover = Takeover(source="claude", target="local", after=13, reason=fault.value)
    actions = fails(relay)
    assert told(actions) == [("tried", "claude", fault), ("emit", takeover), ("call", "local", "The quick bro")]
    assert actions[-1].request == ask(lenient=True).continuing(said("The quick bro"))
    assert relay.fallback == fault.value
    assert relay.receive([Started(id="l1", model="starter", created=9), text("wn")], 23.0) == [Emit((text("wn"),))]
    assert told(relay.receive([ENDED], 24.0)) == [("emit", ENDED)]
    [tried, done] = relay.end(24.0)
    assert (tried.characters, tried.seconds, tried.continued, done) == (2, 2.0, True, Done())


def test_a_leg_that_goes_on_may_stop_at_once():
    relay, _ = begin(CLAUDE, OPENAI)
    relay.receive([text("All of it.")], 1.0)
    relay.end(2.0)
    assert told(relay.receive([START, ENDED], 3.0)) == [("emit", START, ENDED)]
    assert told(relay.end(3.0)) == [("tried", "openai", None), ("done", None)]


def test_reasoning_is_committed_before_the_text_and_counted():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([ReasoningDelta(text="hm"), ReasoningDelta(text="m"), text("So")], 1.0)
    [_, emit, call] = relay.end(2.0)
    assert emit.events == (Takeover(source="claude", target="local", after=5, reason="broken"),)
    assert call.request.committed == Message(role="assistant", parts=(Reasoning("hmm"), Text("So")))


def test_a_leg_that_cannot_continue_is_passed_over():
    relay, _ = begin(OPENAI, CLAUDE, GEMINI, BOX)
    relay.receive([text("a")], 1.0)
    assert told(relay.end(2.0))[2:] == [("call", "gemini", "a")]


def test_a_second_takeover_commits_what_both_wrote():
    relay, _ = begin(CLAUDE, OPENAI, BOX)
    relay.receive([START, text("a")], 1.0)
    relay.end(2.0)
    relay.receive([text("b")], 3.0)
    takeover = Takeover(source="openai", target="local", after=2, reason="server")
    assert told(relay.fail(broke(Fault.SERVER), 4.0))[1:] == [("emit", takeover), ("call", "local", "ab")]


@pytest.mark.parametrize(
    ("event", "request_"),
    [
        (ToolCallStart(index=0, id="t", name=""), ask()),
        (ToolCallDelta(index=0, arguments="{"), ask()),
        (ToolCallStart(index=0, id="t", name="look"), ask(n=2)),
        (Opaque(content=True), ask()),
        (text("b", choice=1), ask(n=2)),
    ],
)
def test_what_cannot_be_continued_ends_in_an_error(event, request_):
    relay, _ = begin(CLAUDE, OPENAI, BOX, request=request_)
    relay.receive([text("a"), event], 1.0)
    actions = relay.fail(broke(), 2.0)
    assert told(actions) == [("tried", "claude", Fault.BROKEN), ("done", Fault.BROKEN)]
    assert verdict(actions)[2] == "It broke. What was under way cannot be continued by another."


def test_several_choices_restart_before_their_first_content():
    relay, _ = begin(CLAUDE, OPENAI, request=ask(n=2))
    assert told(relay.end(1.0))[1:] == [("call", "openai", None)]


def test_when_nobody_can_go_on_the_client_hears_why_it_broke():
    relay, _ = begin(OPENAI, CLAUDE)
    relay.receive([text("a")], 1.0)
    error = broke(Fault.SERVER, "openai said 500.")
    assert relay.fail(error, 2.0)[1:] == [Done(error)]


# ---------------------------------------------------------- rule 3: an end is an end if somebody meant it


@pytest.mark.parametrize(
    "ends",
    [
        lambda relay: relay.end(3.0),
        lambda relay: relay.fail(broke(), 3.0),
        lambda relay: relay.fail(broke(Fault.CRASHED), 3.0),
        lambda relay: relay.expire(3.0),
    ],
)
def test_after_a_finish_whatever_goes_wrong_no_longer_matters(ends):
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([text("a"), ENDED], 1.0)
    assert told(ends(relay)) == [("tried", "claude", None), ("done", None)]
    assert relay.fallback is None


def test_what_follows_a_finish_has_two_seconds():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([text("a"), ENDED], 100.0)
    assert (relay.deadline, LINGER) == (102.0, 2.0)


def test_what_follows_the_finish_of_the_box_has_two_seconds_too():
    relay, _ = begin(BOX)
    relay.receive([text("a"), ENDED], 100.0)
    assert relay.deadline == 102.0


# ------------------------------------------------------------- rule 4: the caller's own mistake is the caller's


def test_the_callers_own_mistake_goes_back_as_it_is_and_nobody_else_is_asked():
    breaker = Breakers(failures=1)
    relay, _ = begin(CLAUDE, BOX, claude=breaker)
    error = broke(Fault.REQUEST, "No such field.", status=400, reply=Reply(status=400, body=b"{}"))
    actions = relay.fail(error, 1.0)
    assert told(actions) == [("tried", "claude", Fault.REQUEST), ("done", Fault.REQUEST)]
    assert (actions[-1].error, relay.fallback, breaker.failures) == (error, None, 0)


def test_a_conversation_too_long_for_the_cloud_goes_to_the_box_untrimmed_and_else_back():
    relay, _ = begin(CLAUDE, BOX, request=ask(trim=True))
    first = broke(Fault.TOO_LONG, "Too long.", status=400)
    [_, call] = relay.fail(first, 1.0)
    assert (call.leg, call.request) == (BOX, ask(trim=False, lenient=True))
    assert relay.fail(broke(Fault.TOO_LONG, "Too long here too."), 2.0)[1:] == [Done(first)]


# ------------------------------------------------------------------------- rule 5: a whole answer goes out whole


def test_a_whole_answer_goes_out_in_one_piece_at_its_end():
    relay, actions = begin(CLAUDE, BOX, request=ask(stream=False))
    assert (told(actions), relay.deadline) == ([("call", "claude", None)], 60.0)
    assert relay.receive([OPENED, START, text("a"), ENDED, USAGE], 1.0) == []
    assert told(relay.end(2.0)) == [
        ("tried", "claude", None),
        ("emit", OPENED, START, text("a"), ENDED, USAGE),
        ("done", None),
    ]


def test_a_whole_answer_that_fails_is_started_again_by_the_next_leg():
    relay, _ = begin(CLAUDE, BOX, request=ask(stream=False))
    assert told(relay.fail(broke(Fault.SERVER), 1.0)) == [("tried", "claude", Fault.SERVER), ("call", "local", None)]
    relay.receive([START, text("a")], 2.0)
    relay.receive([text("b"), ENDED], 3.0)
    assert told(relay.end(4.0))[1:] == [("emit", START, text("a"), text("b"), ENDED), ("done", None)]


def test_a_whole_answer_without_content_is_started_again_by_the_next_leg():
    relay, _ = begin(CLAUDE, BOX, request=ask(stream=False))
    assert told(relay.receive([OPENED, START, ENDED], 1.0)) == [
        ("tried", "claude", Fault.BROKEN),
        ("call", "local", None),
    ]


# ----------------------------------------------------------------- rule 6: the engine's process dies


def test_when_the_engine_dies_the_box_itself_goes_on_without_a_takeover():
    relay, _ = begin(BOX)
    relay.receive([START, text("a")], 1.0)
    assert told(relay.fail(broke(Fault.CRASHED), 2.0)) == [("tried", "local", Fault.CRASHED), ("call", "local", "a")]
    assert (relay.fallback, relay.deadline) == (None, 602.0)


def test_when_the_engine_dies_before_content_the_box_starts_again():
    relay, _ = begin(BOX)
    relay.receive([START], 1.0)
    assert told(relay.fail(broke(Fault.CRASHED), 2.0))[1:] == [("call", "local", None)]
    assert relay.receive([START, text("a")], 3.0) == [Emit((START, text("a")))]


def test_a_request_that_was_alive_at_two_deaths_is_refused():
    relay, _ = begin(CLAUDE, BOX)
    relay.fail(broke(), 1.0)
    relay.fail(broke(Fault.CRASHED), 2.0)
    actions = relay.fail(broke(Fault.CRASHED), 3.0)
    assert told(actions) == [("tried", "local", Fault.CRASHED), ("done", Fault.SERVER)]
    assert verdict(actions)[1:] == (500, "The engine died 2 times under this request; it is not tried again.")


def test_a_request_that_only_waited_in_line_is_not_one_that_kills():
    relay, _ = begin(BOX)
    waited = BackendError(Fault.CRASHED, "It died.", innocent=True)
    for time in (1.0, 2.0, 3.0):
        assert told(relay.fail(waited, time))[1:] == [("call", "local", None)]
    relay.fail(broke(Fault.CRASHED), 4.0)
    assert told(relay.fail(broke(Fault.CRASHED), 5.0))[1:] == [("done", Fault.SERVER)]


def test_an_answer_whose_engine_was_taken_away_goes_on_however_often_that_happens():
    relay, _ = begin(BOX)
    exchanged = BackendError(Fault.CRASHED, "It was exchanged.", innocent=True)
    for time, said in ((1.0, "a"), (2.0, "ab"), (3.0, "abc")):
        relay.receive([START, text(said[-1])], time)
        assert told(relay.fail(exchanged, time))[1:] == [("call", "local", said)]


# -------------------------------------------------------------------------------------------- deadlines


def test_content_gives_a_cloud_its_stall_time_and_nothing_else_does():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([text("a")], 3.0)
    assert relay.deadline == 23.0
    relay.receive([text(""), Opaque(content=False)], 10.0)
    assert relay.deadline == 23.0
    relay.receive([Opaque(content=True)], 11.0)
    assert relay.deadline == 31.0


def test_a_cloud_in_mid_answer_stopped_rather_than_said_nothing():
    relay, _ = begin(CLAUDE)
    relay.receive([text("a")], 1.0)
    assert verdict(relay.expire(21.0)) == (Fault.SILENT, 504, "claude stopped in mid-answer.")


def test_a_cloud_that_goes_on_for_another_has_its_own_time_for_first_content():
    relay, _ = begin(CLAUDE, OPENAI)
    relay.receive([text("a")], 1.0)
    relay.end(50.0)
    assert relay.deadline == 62.0
    assert verdict(relay.expire(62.0))[2] == "openai said nothing for 12 s."


def test_the_box_has_the_total_only_because_its_silence_is_work():
    relay, _ = begin(CLAUDE, BOX)
    relay.fail(broke(), 5.0)
    assert relay.deadline == 605.0
    relay.receive([text("a")], 300.0)
    assert relay.deadline == 605.0


def test_no_deadline_goes_past_the_total():
    relay, _ = begin(CLAUDE, limits=dataclasses.replace(LIMITS, total=10.0))
    assert relay.deadline == 10.0
    relay.receive([text("a")], 5.0)
    assert relay.deadline == 10.0
    relay.receive([ENDED], 9.5)
    assert relay.deadline == 10.0
