"""The relay's corners: several choices, torn whole answers, deaths in odd places, and what reviews have found."""

import pytest

from appliance.core.actions import Done
from appliance.core.chat import Message, Sampling, Text
from appliance.core.events import Degraded, Finish, Opaque, ReasoningDelta, Takeover, TextDelta, ToolCallStart, Usage
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.pulse import Timeouts
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, OPENAI, START, A, B, ask, begin, broke, opened, told, verdict

FULL = BackendError(Fault.BUSY, "All slots of the box are taken.", status=503, retry_after=7.0)


# ------------------------------------------------------------------------------------- once found wrong


def test_an_answer_of_two_choices_has_ended_when_both_have():
    relay, _ = begin(CLAUDE, request=ask(n=2))
    relay.receive([A, Finish(reason="stop", choice=0), TextDelta(text="b", choice=1)], 1.0)
    assert relay.deadline == 21.0
    assert told(relay.end(2.0)) == [("tried", "claude", Fault.BROKEN), ("done", Fault.BROKEN)]


@pytest.mark.parametrize("torn", [A, ToolCallStart(index=0, id="t", name="look")])
def test_a_whole_answer_without_its_end_is_started_again(torn):
    relay, _ = begin(CLAUDE, BOX, request=ask(stream=False))
    relay.receive([START, torn], 1.0)
    assert told(relay.end(2.0))[1:] == [("call", "local", None)]
    relay.receive([START, B, ENDED], 3.0)
    assert told(relay.end(3.0))[1:] == [("emit", START, B, ENDED), ("done", None)]


def test_a_refusal_in_mid_answer_goes_back_too():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([A], 1.0)
    refusal = broke(Fault.REQUEST, "The content policy says no.")
    assert relay.fail(refusal, 2.0)[1:] == [Done(refusal)]


def test_what_the_box_refuses_as_a_stand_in_is_not_the_callers_mistake():
    relay, _ = begin(CLAUDE, BOX)
    relay.fail(broke(Fault.SERVER, "claude said 500.", status=500), 1.0)
    actions = relay.fail(broke(Fault.REQUEST, "The template takes no second system turn.", status=400), 2.0)
    assert verdict(actions)[:2] == (Fault.SERVER, 503)


def test_the_box_is_not_blamed_when_it_was_not_asked():
    relay, _ = begin(CLAUDE, OPENAI)
    relay.fail(broke(Fault.SERVER, "claude said 500.", status=500), 1.0)
    actions = relay.fail(broke(Fault.BUSY, "openai: slow down.", status=429), 2.0)
    assert "box" not in verdict(actions)[2]


def test_a_box_that_was_asked_alone_stands_in_for_nobody():
    relay, _ = begin(BOX)
    relay.fail(broke(Fault.CRASHED, "The engine died."), 1.0)
    assert relay.fail(FULL, 2.0)[-1] == Done(FULL)


def test_the_reply_to_one_client_is_not_given_to_another():
    error = broke(Fault.BUSY, "claude: slow down.", retry_after=30.0, reply=Reply(status=429, body=b'{"user":"other"}'))
    _, actions = begin(CLAUDE, now=20.0, claude=opened(error))
    heard = actions[-1].error
    assert (heard.fault, heard.message, heard.reply, heard.retry_after) == (Fault.BUSY, error.message, None, 10.0)
    assert heard is not error  # raised again and again, its traceback would hold every request it met


def test_a_client_that_leaves_after_the_finish_had_its_answer():
    breaker = opened()
    for now in (10.0, 11.0):
        relay, _ = begin(CLAUDE, now=now, claude=breaker)
        relay.receive([A, ENDED], now)
        assert told(relay.cancel(now)) == [("tried", "claude", None), ("done", None)]
    assert breaker.state(11.0) == "closed"


def test_a_second_finish_loses_nothing():
    relay, _ = begin(CLAUDE)
    relay.receive([START, Finish(reason="length")], 1.0)
    usage = Usage(prompt_tokens=5, completion_tokens=0)
    assert told(relay.receive([ENDED, usage], 1.0)) == [("emit", ENDED, usage)]


def test_what_follows_a_finish_has_two_seconds_together():
    relay, _ = begin(CLAUDE)
    relay.receive([A, ENDED], 100.0)
    relay.receive([TextDelta(text="")], 101.5)
    assert relay.deadline == 102.0


def test_the_first_leg_continued_nothing():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([A], 1.0)
    assert relay.end(2.0)[0].continued is False


def test_a_takeover_names_the_failure_that_caused_it():
    relay, _ = begin(CLAUDE, OPENAI, BOX, now=5.0, openai=opened())
    relay.receive([A], 6.0)
    assert told(relay.end(7.0))[1] == ("emit", Takeover(source="claude", target="local", after=1, reason="broken"))


def test_a_leg_that_was_cut_at_the_total_limit_did_not_stop():
    relay, _ = begin(CLAUDE)
    for second in range(1, 601):
        relay.receive([A], float(second))
    assert relay.deadline == 600.0
    assert "stopped" not in str(relay.expire(600.0)[0].error)


def test_what_the_box_leaves_out_is_said_once():
    relay, _ = begin(CLAUDE, BOX, request=ask(needs=frozenset({"tools"})))
    relay.fail(broke(), 1.0)
    relay.receive([START, A], 2.0)
    assert told(relay.fail(broke(Fault.CRASHED), 3.0)) == [("tried", "local", Fault.CRASHED), ("call", "local", "a")]


@pytest.mark.parametrize("stands_in", [True, False])
def test_biases_of_a_clouds_vocabulary_do_not_reach_the_box_but_its_own_do(stands_in):
    biased = Sampling(temperature=0.5, logit_bias=((7, 1.0),))
    relay, actions = begin(*((CLAUDE, BOX) if stands_in else (BOX,)), request=ask(sampling=biased))
    call = relay.fail(broke(), 1.0)[-1] if stands_in else actions[-1]
    assert call.request.sampling == (Sampling(temperature=0.5) if stands_in else biased)


# --------------------------------------------------------------------------------------- several choices


def test_the_end_of_one_choice_is_not_the_end_of_the_other():
    relay, _ = begin(CLAUDE, request=ask(n=2))
    relay.receive([A, TextDelta(text="b", choice=1)], 1.0)
    relay.receive([Finish(reason="stop", choice=0)], 5.0)
    assert relay.deadline == 21.0
    relay.receive([Finish(reason="stop", choice=1)], 6.0)
    assert relay.deadline == 8.0
    assert told(relay.expire(8.0)) == [("tried", "claude", None), ("done", None)]


def test_a_cloud_that_gives_fewer_choices_than_asked_for_has_ended_when_those_have():
    relay, _ = begin(CLAUDE, request=ask(n=2))
    relay.receive([A, Finish(reason="stop", choice=0), Opaque(content=False, over=True)], 1.0)
    assert told(relay.end(2.0)) == [("tried", "claude", None), ("done", None)]


def test_a_stream_that_breaks_off_between_its_choices_has_not_ended():
    relay, _ = begin(CLAUDE, request=ask(n=2))
    relay.receive([A, Finish(reason="stop", choice=0)], 1.0)
    assert told(relay.end(2.0))[0] == ("tried", "claude", Fault.BROKEN)


def test_several_choices_that_never_began_are_told_like_any_failure():
    relay, _ = begin(CLAUDE, request=ask(n=2))
    error = broke(Fault.SERVER, "claude said 500.")
    assert relay.fail(error, 1.0)[1:] == [Done(error)]


# ------------------------------------------------------------------------------- what a torn whole answer leaves


def whole(**changes):
    """A whole answer of claude's that has come without its end; now it is the next leg's turn."""
    request = ask(stream=False, **changes)
    return begin(CLAUDE, OPENAI, BOX, request=request)[0]


def test_no_word_of_it_is_committed():
    relay = whole()
    relay.receive([START, ReasoningDelta(text="hm"), A], 1.0)
    relay.end(2.0)
    relay.fail(broke(), 3.0)
    relay.receive([START, B], 4.0)
    [_, call] = relay.fail(broke(Fault.CRASHED), 5.0)
    assert call.request.committed == Message(role="assistant", parts=(Text("b"),))
    relay.receive([START, A, ENDED], 6.0)
    assert told(relay.end(7.0))[1:] == [("emit", START, B, A, ENDED), ("done", None)]


def test_its_tool_call_does_not_keep_the_box_from_going_on_after_a_crash():
    relay = whole()
    relay.receive([START, ToolCallStart(index=0, id="t", name="look")], 1.0)
    relay.end(2.0)
    relay.fail(broke(), 3.0)
    relay.receive([START, B], 4.0)
    assert told(relay.fail(broke(Fault.CRASHED), 5.0))[1:] == [("call", "local", "b")]


def test_its_choices_neither_end_nor_prolong_the_next_answer():
    both = [A, TextDelta(text="b", choice=1)]
    relay = whole(n=2)
    relay.receive([*both, Finish(reason="stop", choice=0)], 1.0)
    relay.end(2.0)
    relay.receive([A], 3.0)
    assert told(relay.end(4.0))[0] == ("tried", "openai", Fault.BROKEN)
    relay = whole(n=2)
    relay.receive(both, 1.0)
    relay.end(2.0)
    relay.receive([A, Finish(reason="stop", choice=0)], 3.0)
    assert told(relay.end(4.0))[0] == ("tried", "openai", None)


def test_what_the_box_leaves_out_is_said_again_if_it_was_never_sent():
    relay, _ = begin(CLAUDE, BOX, request=ask(needs=frozenset({"tools"})))
    relay.fail(broke(), 1.0)
    relay.receive([START], 2.0)
    relay.fail(broke(Fault.CRASHED), 3.0)
    assert told(relay.receive([START, A], 4.0)) == [("emit", Degraded(what="tools"), START, A)]


# ------------------------------------------------------------------------------------------------- and more


def test_a_refusal_of_our_prefill_is_ours_and_the_next_leg_goes_on():
    relay, _ = begin(CLAUDE, OPENAI, BOX)
    relay.receive([A], 1.0)
    relay.end(2.0)
    refusal = broke(Fault.REQUEST, "The last turn must be the user's.", status=400)
    assert told(relay.fail(refusal, 3.0))[0::2] == [("tried", "openai", Fault.REQUEST), ("call", "local", "a")]


def test_what_the_box_refuses_when_it_was_asked_itself_is_the_callers_mistake():
    relay, _ = begin(BOX)
    refusal = broke(Fault.REQUEST, "The template takes no second system turn.", status=400)
    assert (relay.fail(refusal, 1.0)[1:], relay.fallback) == ([Done(refusal)], None)


def test_a_leg_passed_over_later_does_not_change_the_reason():
    relay, _ = begin(CLAUDE, OPENAI, BOX, now=5.0, openai=opened())
    assert told(relay.fail(broke(Fault.SILENT), 6.0))[1:] == [("call", "local", None)]
    assert relay.fallback == "silent"


def test_content_counts_wherever_in_its_batch_and_history_it_stands():
    relay, _ = begin(CLAUDE, BOX)
    nothing = TextDelta(text="")
    assert told(relay.receive([A, nothing], 1.0)) == [("emit", A, nothing)]
    assert relay.deadline == 21.0
    assert told(relay.receive([nothing], 2.0)) == [("emit", nothing)]
    assert told(relay.end(3.0))[2:] == [("call", "local", "a")]


def test_a_second_finish_gives_no_more_time():
    relay, _ = begin(CLAUDE)
    relay.receive([A, ENDED], 100.0)
    relay.receive([ENDED], 101.5)
    assert relay.deadline == 102.0


def test_reasoning_counts_among_the_characters():
    relay, _ = begin(CLAUDE)
    relay.receive([ReasoningDelta(text="hmm"), A, ENDED], 1.0)
    assert relay.end(1.0)[0].characters == 4


def test_time_that_a_client_took_is_not_the_legs():
    relay, _ = begin(CLAUDE)
    relay.receive([A], 1.0)
    relay.held_up(30.0)
    assert relay.deadline == 51.0
    assert relay.end(40.0)[0].seconds == 10.0


def test_a_client_that_leaves_when_nobody_is_asked_leaves_nothing_to_tell():
    relay, _ = begin(CLAUDE, now=5.0, claude=opened())
    assert relay.cancel(6.0) == [Done()]


def test_a_client_that_leaves_after_the_last_failure_leaves_nothing_to_tell():
    relay, _ = begin(CLAUDE)
    relay.fail(broke(), 1.0)
    assert relay.cancel(2.0) == [Done()]


def test_without_history_these_are_the_limits():
    relay, _ = begin(CLAUDE, limits=Timeouts())
    assert (relay.deadline, relay.warning) == (12.0, 4.0)
    relay.receive([A], 1.0)
    assert (relay.deadline, relay.warning) == (21.0, 9.0)
    relay, _ = begin(CLAUDE, limits=Timeouts(), request=ask(stream=False))
    assert (relay.deadline, relay.warning) == (60.0, 8.0)
    relay, _ = begin(BOX, limits=Timeouts())
    assert (relay.deadline, relay.warning) == (600.0, float("inf"))


def test_in_a_clouds_stead_the_box_gives_as_many_answers_as_were_asked_for():
    relay, _ = begin(CLAUDE, BOX, request=ask(n=2, needs=frozenset({"n"})))
    relay.fail(broke(), 1.0)
    relay.receive([A, ENDED], 2.0)
    assert relay.deadline == 601.0
    relay.receive([TextDelta(text="b", choice=1), Finish(reason="stop", choice=1)], 2.0)
    assert relay.deadline == 4.0
    assert told(relay.fail(broke(Fault.CRASHED), 3.0)) == [("tried", "local", None), ("done", None)]


def test_half_of_several_answers_of_the_box_is_gone_on_with_by_nobody():
    relay, _ = begin(BOX, request=ask(n=2, needs=frozenset({"n"})))
    relay.receive([A, ENDED], 1.0)
    assert told(relay.fail(broke(Fault.CRASHED), 3.0))[0] == ("tried", "local", Fault.CRASHED)
    assert not relay.continuable


def test_a_whole_answer_that_cannot_be_continued_is_started_again_after_a_crash():
    relay, _ = begin(CLAUDE, BOX, request=ask(stream=False, n=2, needs=frozenset({"n"})))
    relay.fail(broke(), 1.0)
    relay.receive([A], 2.0)
    assert told(relay.fail(broke(Fault.CRASHED), 3.0))[1:] == [("call", "local", None)]


# ------------------------------------------------------------------------------------------- what we end ourselves


def test_what_we_break_off_is_neither_the_clients_doing_nor_the_legs():
    breakers = Breakers(failures=1, cooldown=10.0)
    relay, _ = begin(CLAUDE, BOX, claude=breakers)
    relay.receive([START, A], 1.0)
    relay.stop()
    assert relay.deadline <= 1.0
    [tried, done] = relay.expire(2.0)
    assert (tried.error.fault, tried.blameless, breakers.failures) == (Fault.STOPPED, True, 0)
    assert (done.error.fault, str(done.error)) == (Fault.BUSY, "The appliance is stopping; ask again.")
    assert relay.cancel(3.0) == [Done()]


def test_what_we_break_off_between_two_words_is_told_in_the_same_way():
    relay, _ = begin(CLAUDE, BOX)
    relay.stop()
    assert told(relay.cancel(2.0)) == [("tried", "claude", Fault.STOPPED), ("done", None)]


def test_an_exchanged_engine_is_no_death_and_the_next_one_goes_on():
    relay, _ = begin(BOX)
    for now in (1.0, 2.0, 3.0):
        [tried, call] = relay.fail(BackendError(Fault.STOPPED, "Exchanged.", innocent=True), now)
        assert (tried.blameless, call.leg) == (True, BOX)
