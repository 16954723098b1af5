"""An answer that is bad rather than dead: the client has it to its end, and the cloud's model is the worse for it."""

import pytest

from appliance.core.events import TextDelta, ToolCallDelta, ToolCallStart
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, START, begin, told

ENDLESS = TextDelta(text="I am sorry, but I cannot do that right now. " * 100)
MANGLED = TextDelta(text="\ufffd" * 40)
BLANK = TextDelta(text=" \n ")


@pytest.mark.parametrize("text", [ENDLESS, MANGLED, BLANK], ids=["endless", "mangled", "blank"])
def test_a_bad_answer_goes_out_whole_and_counts_against_the_model(text):
    breakers = Breakers(failures=1)
    relay, _ = begin(CLAUDE, BOX, claude=breakers)
    assert told(relay.receive([START, text, ENDED], 1.0)) == [("emit", START, text, ENDED)]
    assert told(relay.end(2.0)) == [("tried", "claude", None), ("done", None)]
    assert breakers.state(2.0, CLAUDE.model) == "open"
    assert breakers.state(2.0, "another") == "closed"
    assert "sorry" not in breakers.why(2.0, CLAUDE.model).message


def test_what_a_sane_answer_says_is_no_flaw():
    relay, _ = begin(CLAUDE, BOX)
    relay.receive([START, TextDelta(text="It is so. " * 5), ENDED], 1.0)
    assert told(relay.end(2.0)) == [("tried", "claude", None), ("done", None)]


def test_an_answer_of_calls_alone_is_not_empty():
    relay, _ = begin(CLAUDE, BOX)
    call = [ToolCallStart(index=0, id="c", name="f"), ToolCallDelta(index=0, arguments="{}")]
    relay.receive([START, TextDelta(text=" "), *call, ENDED], 1.0)
    assert told(relay.end(2.0))[0] == ("tried", "claude", None)


def test_the_box_is_not_judged():
    relay, _ = begin(BOX)
    relay.receive([START, ENDLESS, ENDED], 1.0)
    assert told(relay.end(2.0))[0] == ("tried", "local", None)
