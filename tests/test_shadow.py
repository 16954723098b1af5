"""While a cloud answers, the box is told: what is asked, what the cloud says, and when its silence is odd."""

import asyncio
from contextlib import aclosing

import pytest

from appliance.core.budget import Budget
from appliance.core.events import Finish, Opaque, ReasoningDelta, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.habits import Habits
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.suspicion import ENOUGH
from appliance.drive import drive
from tests.test_drive import BOX, CLAUDE, ENDED, A, B, Script, ask, at_once, read

pytestmark = pytest.mark.long


class Book:
    """A standby that writes down what it is told, with the time."""

    def __init__(self, patience=0.0):
        self.patience = patience
        self.lines = []

    def follow(self, request, *, suspicion):
        self.note("follow", request.committed.text if request.committed else "", suspicion)
        return self

    def feed(self, text):
        self.note("feed", text)

    def suspect(self, level):
        self.note("suspect", level)

    def close(self):
        self.note("close")

    def note(self, *line):
        self.lines.append((round(asyncio.get_running_loop().time() - 1000.0, 3), *line))


def conduct(standby, *scripts, request=None, limits=None, habits=None):
    legs = {"claude": CLAUDE, "local": BOX}
    relay = Relay(request or ask(), [legs[s.name] for s in scripts], {}, limits=limits or Timeouts(), habits=habits)
    return drive(relay, {script.name: script for script in scripts}, lambda _: None, standby)


def told(book, *scripts, **more):
    async def scene():
        return await read(conduct(book, *scripts, **more))

    at_once(scene())
    return book.lines


def box():
    return Script("local", [TextDelta(text="c"), ENDED])


def test_the_words_of_the_cloud_are_fed_as_they_pass():
    cloud = Script("claude", 1, [A], 1, [ReasoningDelta(text="hm"), B], 1, [ENDED])
    assert told(Book(), cloud, box()) == [
        (0.0, "follow", "", 0.0),
        (1.0, "feed", "a"),
        (2.0, "feed", "b"),
        (3.0, "close"),
    ]


def test_a_short_answer_is_not_worth_telling():
    assert told(Book(patience=0.25), Script("claude", 0.1, [A, ENDED]), box()) == []


def test_what_was_said_before_the_box_was_told_is_told_first():
    cloud = Script("claude", 0.1, [A], 0.1, [B], 1, [A, ENDED])
    assert told(Book(patience=0.25), cloud, box()) == [
        (0.25, "follow", "ab", 0.0), (1.2, "feed", "a"), (1.2, "close")
    ]  # fmt: skip


def test_an_odd_silence_is_told_once_it_is_odd():
    lines = told(Book(), Script("claude", 1, [A], 10, [B, ENDED]), box())
    assert lines == [
        (0.0, "follow", "", 0.0), (1.0, "feed", "a"), (9.0, "suspect", 1.0), (11.0, "feed", "b"), (11.0, "close")
    ]  # fmt: skip


def test_a_silence_that_is_odd_for_this_upstream_is_told_sooner():
    quick = Habits()
    for _ in range(ENOUGH):
        quick.suspicion.heard("first", 0.5)
    lines = told(Book(), Script("claude", 3, [A, ENDED]), box(), habits={"claude": quick})
    [_, suspect, feed, close] = lines
    assert suspect[1:] == ("suspect", 1.0)
    assert 0.5 < suspect[0] < 1.0
    assert (feed[0], close[0]) == (3.0, 3.0)


def test_the_standby_ends_before_the_box_is_asked():
    book = Book()
    cloud = Script("claude", 1, [A], BackendError(Fault.BROKEN, "It broke."))
    local = Script("local", [TextDelta(text="c"), ENDED], book=book.lines)
    assert told(book, cloud, local)[-3:] == [(1.0, "close"), "local opens", "local closes"]


def test_a_client_that_leaves_ends_the_standby():
    book = Book()

    async def scene():
        async with aclosing(conduct(book, Script("claude", [A], 60, [B, ENDED]), box())) as batches:
            await anext(batches)

    at_once(scene())
    assert [line[1] for line in book.lines[-1:]] == ["close"] or book.lines == []


@pytest.mark.parametrize("legs", [("claude",), ("local",)])
def test_nobody_is_told_when_the_box_would_not_be_asked_later(legs):
    scripts = [Script(name, 1, [A, ENDED]) for name in legs]
    assert told(Book(), *scripts) == []


def test_a_whole_answer_is_followed_by_its_prompt():
    lines = told(Book(), Script("claude", 12, [A, ENDED]), box(), request=ask(stream=False))
    assert [line[:2] for line in lines] == [(0.0, "follow"), (8.0, "suspect"), (12.0, "feed"), (12.0, "close")]


def test_after_the_end_of_the_answer_nothing_is_suspicious():
    lines = told(Book(), Script("claude", [A], 1, [Finish(reason="stop")], 1.5), box(), limits=Timeouts(stall=1.5))
    assert "suspect" not in [line[1] for line in lines]


def test_the_warning_may_come_earlier_than_it_was():
    quick = Habits()
    for _ in range(ENOUGH):
        quick.suspicion.heard("text", 0.02)
    cloud = Script("claude", 1, [ReasoningDelta(text="hm")], 1, [A], 10, [B, ENDED])
    lines = told(Book(), cloud, box(), habits={"claude": quick})
    assert lines[:3] == [(0.0, "follow", "", 0.0), (2.0, "feed", "a"), (3.0, "suspect", 1.0)]


def test_what_cannot_be_continued_is_not_followed_any_longer():
    cloud = Script("claude", 1, [Opaque(content=True)], 30, [ENDED])
    assert told(Book(), cloud, box()) == [(0.0, "follow", "", 0.0), (1.0, "close")]


def test_what_a_second_cloud_repeats_is_not_fed_twice():
    second = Leg(name="second", model="opus", continues=False)
    scripts = [
        Script("claude", 1, [A], 1, BackendError(Fault.BROKEN, "It broke.")),
        Script("second", 1, [A], 1, [B], 1, [ENDED]),
        box(),
    ]
    relay = Relay(ask(), [CLAUDE, second, BOX], {}, limits=Timeouts(), budgets={CLAUDE.name: Budget()})
    book = Book()

    async def scene():
        return await read(drive(relay, {script.name: script for script in scripts}, lambda _: None, book))

    batches, error = at_once(scene())
    assert error is None
    assert "".join(e.text for batch in batches for e in batch if isinstance(e, TextDelta)) == "ab"
    assert [line[1:] for line in book.lines] == [
        ("follow", "", 0.0), ("feed", "a"), ("close",), ("follow", "a", 0.0), ("feed", "b"), ("close",)
    ]  # fmt: skip
