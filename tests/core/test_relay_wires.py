"""What the relay makes of answers in blocks: silent thinking, early counts, ends without a word, a caller's own key."""

import pytest

from appliance.core.chat import Message, Text
from appliance.core.events import BlockStart, BlockStop, Finish, Opaque, ReasoningDelta, TextDelta, Usage
from appliance.core.fault import Fault
from appliance.core.pulse import PATIENT_FIRST, Timeouts
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, GEMINI, LIMITS, OPENAI, START, A, ask, begin, broke, told

LEARNED = Timeouts()


def sent(actions):
    """The events that go out, flat."""
    return [event for action in told(actions) if action[0] == "emit" for event in action[1:]]


def test_what_is_closed_in_itself_is_no_obstacle_to_a_takeover():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive(
        [START, BlockStart(index=0, kind="other"), Opaque(content=True, closed=True), BlockStop(index=0), A], 1.0
    )
    assert told(relay.fail(broke(), 2.0))[-1] == ("call", "local", "a")


def test_kinds_of_words_keep_their_order():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([START, ReasoningDelta(text="Hm."), A, ReasoningDelta(text="So."), TextDelta(text="b")], 1.0)
    committed = relay.fail(broke(), 2.0)[-1].request.committed
    assert [type(part).__name__ for part in committed.parts] == ["Reasoning", "Text", "Reasoning", "Text"]
    assert committed.text == "ab"


def test_thinking_that_is_not_shown_is_given_its_time():
    relay, _ = begin(CLAUDE, BOX, limits=LEARNED)
    relay.receive([START, BlockStart(index=0, kind="reasoning")], 1.0)
    assert relay.deadline == 1.0 + PATIENT_FIRST
    relay.receive([A, BlockStop(index=0)], 5.0)
    in_text = relay.deadline
    relay.receive([BlockStart(index=1, kind="reasoning")], 6.0)
    assert relay.deadline >= in_text + 30
    relay.receive([BlockStop(index=1), A], 50.0)
    assert relay.deadline == 50.0 + (in_text - 5.0)


def test_a_limit_that_was_written_holds_for_thinking_too():
    relay, _ = begin(CLAUDE, BOX, limits=LIMITS)
    relay.receive([START, BlockStart(index=0, kind="reasoning")], 1.0)
    assert relay.deadline == LIMITS.first_content


def test_half_an_answer_that_a_second_cloud_read_counts_as_output():
    relay, _ = begin(CLAUDE, OPENAI, BOX, request=ask(max_tokens=50))
    relay.receive([START, Usage(prompt_tokens=100, completion_tokens=1), TextDelta(text="x" * 80)], 1.0)
    (*_, call) = relay.fail(broke(), 2.0)
    assert call.request.max_tokens == 30
    ended = relay.receive([A, ENDED, Usage(prompt_tokens=140, completion_tokens=9)], 3.0)
    assert sent(ended)[-1] == Usage(prompt_tokens=120, completion_tokens=29)


def test_the_box_counts_what_it_was_given_by_itself():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([START, Usage(prompt_tokens=100, completion_tokens=1), A], 1.0)
    relay.fail(broke(), 2.0)
    ended = relay.receive([A, ENDED, Usage(prompt_tokens=140, completion_tokens=9)], 3.0)
    assert sent(ended)[-1] == Usage(prompt_tokens=140, completion_tokens=9)


def test_an_answer_from_the_start_is_counted_as_it_says():
    relay, _ = begin(CLAUDE, GEMINI, BOX)
    relay.receive([START, Usage(prompt_tokens=100, completion_tokens=0)], 1.0)
    relay.fail(broke(), 2.0)
    ended = relay.receive([A, ENDED, Usage(prompt_tokens=140, completion_tokens=9)], 3.0)
    assert sent(ended)[-1] == Usage(prompt_tokens=140, completion_tokens=9)


PREFILLED = (Message(role="user", parts=(Text("Why?"),)), Message(role="assistant", parts=(Text("Because"),)))


@pytest.mark.parametrize(
    ("request_", "end"),
    [(ask(), Finish(reason="stop", stop="END")), (ask(messages=PREFILLED), Finish(reason="stop"))],
    ids=["stop string", "prefill"],
)
def test_an_end_without_a_word_that_somebody_meant_is_an_end(request_, end):
    relay, _ = begin(CLAUDE, BOX, request=request_)
    relay.receive([START, end], 1.0)
    assert told(relay.end(2.0)) == [("tried", "claude", None), ("done", None)]


def test_a_bare_empty_answer_is_none():
    relay, _ = begin(CLAUDE, BOX)
    assert told(relay.receive([START, ENDED], 1.0))[-1] == ("call", "local", None)


@pytest.mark.parametrize("fault", [Fault.CONFIG, Fault.BUSY])
def test_what_is_between_a_caller_and_the_cloud_counts_for_nobody_else(fault):
    breaker = Breakers(failures=1, cooldown=10.0)
    relay, _ = begin(CLAUDE, BOX, claude=breaker)
    assert told(relay.fail(broke(fault, status=429, retry_after=60.0, private=True), 1.0))[-1][:2] == ("call", "local")
    assert (breaker.state(1.0), breaker.alarm, breaker.failures) == ("closed", None, 0)
