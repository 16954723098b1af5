"""Days of random outages: many requests at once, three clouds that fail in every way, and the box.

The relay is told whatever could happen, in any order that a driver could tell it; a witness who only sees what it
answers checks the promises. Nothing here knows how the relay decides.
"""

import json
import random
from collections import Counter

import pytest

from appliance.core.actions import Call, Done, Emit
from appliance.core.attempt import Tried
from appliance.core.chat import ChatRequest, Message, Reasoning, Text, ToolCall
from appliance.core.events import (
    CONTENT,
    Degraded,
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
    carries_content,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import Offer, legs
from appliance.core.scopes import Breakers

pytestmark = pytest.mark.long

OFFERS = (Offer(name="claude"), Offer(name="openai", prefill=True), Offer(name="gemini"))
LIMITS = Timeouts(first_content=5.0, stall=8.0, whole=20.0, total=60.0)
QUESTION = (Message(role="user", parts=(Text("Why?"),)),)
CLOUD_FAULTS = [
    *[(fault, None) for fault in Fault if fault not in (Fault.GONE, Fault.CRASHED, Fault.STOPPED)],
    *[(Fault.BUSY, 30.0), (Fault.SERVER, None), (Fault.BROKEN, None)],
]


class WatchedBreaker(Breakers):
    """Breakers that know which passes are out, and protest when one comes back twice or trials overlap."""

    def __init__(self):
        super().__init__(failures=3, cooldown=10.0)
        self.out = {}
        self.trials = 0

    def begin(self, now, model=""):
        admitted = self.admits(now, model)
        leave = super().begin(now, model)
        assert leave is not None or not admitted
        if leave is not None:
            self.out[id(leave)] = leave
            self.trials += leave.trial
            for scope in ("upstream", "model"):
                mine = getattr(leave, scope)
                others = [p for p in self.out.values() if scope == "upstream" or p.breaker is leave.breaker]
                running = [p for p in others if getattr(p, scope).trial and getattr(p, scope).era == mine.era]
                assert not mine.trial or len(running) == 1
        return leave

    def succeed(self, leave, now):
        self._back(leave)
        super().succeed(leave, now)

    def fail(self, leave, now, error, *, jitter):
        self._back(leave)
        assert error.fault is not Fault.GONE
        super().fail(leave, now, error, jitter=jitter)
        # `fail` may itself abandon: that pass is back already.

    def abandon(self, leave):
        self.out.pop(id(leave), None)
        super().abandon(leave)

    def _back(self, leave):
        assert self.out.pop(id(leave), None) is leave, "a pass came back twice"


class Witness:
    """One request, from the outside: what it was told, what went to the client."""

    def __init__(self, request, relay, breakers):
        self.request, self.relay, self.breakers = request, relay, breakers
        self.leg = None
        self.ended = set()  # choices that the running leg has finished, in an earlier batch than this one
        self.seen = set()  # choices it has said something in
        self.left = False
        self.over = False
        self.torn = False  # a whole answer with content and no end
        self.sent = []
        self.calls = self.tried = 0
        self.inside = False  # somebody was asked to go on from a call

    def tell(self, what, now, world):
        """Tell the relay one thing and look at everything it answers."""
        assert not self.over, "told after Done"
        admitted = {name: breaker.admits(now) for name, breaker in self.breakers.items()}
        leg_before, finished, may_end = self.leg, self.finished, bool(self.ended) and self.ended >= self.seen
        actions = getattr(self.relay, what[0])(*what[1:], now)
        for place, action in enumerate(actions):
            assert not self.over, "something came after Done"
            match action:
                case Call(leg, request):
                    assert leg.local or admitted[leg.name], "called though its breaker does not admit"
                    self.call(leg, request)
                case Emit(events):
                    if not self.request.stream:
                        assert isinstance(actions[place + 1], Done), "a whole answer went out in pieces"
                    self.sent += events
                case Tried(leg=leg, error=error):
                    self.tried += 1
                    assert leg == self.leg.name
                    if not self.left:
                        assert error is not None or finished or may_end, "an end that nobody meant"
                        assert error is None or not finished, "an end that was meant was not believed"
                    world[f"{leg} {error.fault.value if error else 'fine'}"] += 1
                case Done(error):
                    self.over = True
                    assert error is not None or finished or may_end or self.left, "a clean end without a Finish"
                    world["left" if self.left else "failed" if error else "answered"] += 1
                    self.check(error)
        if what[0] == "receive" and self.leg is leg_before:
            self.ended |= {event.choice for event in what[1] if isinstance(event, Finish)}
            self.seen |= {getattr(event, "choice", 0) for event in what[1] if carries_content(event)}

    @property
    def finished(self):
        return len(self.ended) >= self.request.n

    def call(self, leg, request):
        self.leg, self.ended, self.seen = leg, set(), set()
        self.calls += 1
        had = [event for event in self.sent if carries_content(event)]
        if had:
            assert leg.continues and self.request.n == 1, "called after content though it cannot continue"
            assert all(isinstance(event, CONTENT) for event in had), "goes on from what nobody here knows"
            assert request.committed is not None and request.committed.text == self.text()
            thought = [part.text for part in request.committed.parts if isinstance(part, Reasoning)]
            called = [part for part in request.committed.parts if isinstance(part, ToolCall)]
            assert leg.local or not called, "a cloud was asked to go on from a call"
            assert [(part.id, part.arguments) for part in called] == self.called()
            for part in request.committed.parts[:-1]:
                if isinstance(part, ToolCall) and part.arguments:
                    assert isinstance(json.loads(part.arguments), dict), "goes on behind half a call"
            self.inside = bool(called)
            assert "".join(thought) == "".join(e.text for e in had if isinstance(e, ReasoningDelta))
        elif self.request.stream:
            assert request.committed is None, "goes on from what nobody has"
            assert all(isinstance(event, Degraded) for event in self.sent), "a failed leg's events went out"
        assert (request.messages, request.dialect, request.stream) == (QUESTION, "openai", self.request.stream)

    def called(self):
        begun = [event for event in self.sent if isinstance(event, ToolCallStart)]
        pieces = [event for event in self.sent if isinstance(event, ToolCallDelta)]
        return [(e.id, "".join(piece.arguments for piece in pieces if piece.index == e.index)) for e in begun]

    def text(self):
        return "".join(event.text for event in self.sent if isinstance(event, TextDelta))

    def check(self, error):
        assert self.tried == self.calls or (self.calls == 0 and error is not None), "a call without its Tried"
        kinds = Counter(type(event) for event in self.sent)
        assert kinds[Started] <= 1, "an answer began twice"
        if error is None and not self.left:
            assert kinds[Finish] >= 1, "a clean end that the client did not get"
        if error is not None:
            assert kinds[Finish] < self.request.n, "an error after the end"
            assert self.request.stream or self.sent == []
        words = [event.text for event in self.sent if isinstance(event, TextDelta) and event.text]
        assert len(words) == len(set(words)), "a word went out twice"
        if not self.request.stream:
            assert len({word[:3] for word in words}) <= 1, "a whole answer of two legs"


class Clouds:
    """What could come next from the leg that is being asked: never the same word twice."""

    def __init__(self, dice, *, torn):
        self.dice, self.torn, self.word = dice, torn, 0

    def events(self, witness):
        if not witness.request.stream and not witness.leg.local:
            return self.whole(witness)
        count = self.dice.choice((0, 1, 1, 2, 4))
        found, ended = [], set(witness.ended)
        for _ in range(count):
            event = self.one(witness)
            if isinstance(event, Finish):
                if event.choice in ended:
                    continue
                ended.add(event.choice)
            found.append(event)
        return found

    def whole(self, witness):
        content = [self.content(witness) for _ in range(self.dice.choice((0, 1, 3)))]
        events = [Opened(headers=()), Started(id="x", model="m", created=1), *content]
        if self.torn and self.dice.random() < 0.3:
            return events
        return events + [Finish(reason="stop", choice=choice) for choice in range(witness.request.n)]

    def one(self, witness):
        roll = self.dice.random()
        if roll < 0.08:
            return Started(id=str(self.word), model=witness.leg.model, created=1)
        if roll < 0.16:
            return self.dice.choice((Opened(headers=()), Opaque(content=False), TextDelta(text="")))
        if roll < 0.22:
            return Usage(prompt_tokens=1, completion_tokens=1)
        if roll < 0.36:
            reason = self.dice.choice(("stop", "length", "tool_calls", "content_filter"))
            return Finish(reason=reason, choice=self.choice(witness))
        return self.content(witness)

    def choice(self, witness):
        """The box gives one answer, however many were asked for."""
        return 0 if witness.leg.local else self.dice.randrange(witness.request.n)

    def content(self, witness):
        self.word += 1
        words = f"{witness.leg.name[:3]}{self.word} "
        roll = self.dice.random()
        if roll < 0.85 or witness.leg.local:
            return TextDelta(text=words, choice=self.choice(witness))
        if roll < 0.93:
            return ReasoningDelta(text=words, choice=self.choice(witness))
        index = len(witness.called())
        if roll > 0.99:
            return Opaque(content=True)
        if index and self.dice.random() < 0.7:
            piece = self.dice.choice(('{"a', '":1}', "{}"))
            return ToolCallDelta(index=self.dice.randrange(index), arguments=piece, choice=self.choice(witness))
        return ToolCallStart(index=index, id=words, name="look", choice=self.choice(witness))

    def happening(self, witness, now):
        """What to tell the relay, and when."""
        roll = self.dice.random()
        if now >= witness.relay.deadline:
            return ("expire",)
        if roll < 0.02:
            witness.left = True
            return ("cancel",)
        if witness.torn:
            return ("end",)  # one body has come, and there is no more
        if roll < (0.3 if witness.ended else 0.04):
            return ("end",)
        if roll < 0.08 + 0.06 * (witness.leg.name == "claude"):
            if witness.leg.local:
                fault = self.dice.choice((Fault.CRASHED, Fault.CRASHED, Fault.BUSY, Fault.TOO_LONG, Fault.SERVER))
                return ("fail", BackendError(fault, f"local: {fault.value}"))
            fault, wait = self.dice.choice(CLOUD_FAULTS)
            status = self.dice.choice((401, 404)) if fault is Fault.CONFIG else None
            return ("fail", BackendError(fault, f"cloud: {fault.value}", status=status, retry_after=wait))
        return ("receive", self.events(witness))


def live(seed, requests, *, torn=False):
    """Live through `requests` requests, up to eight at once, and give what happened, counted."""
    dice = random.Random(seed)
    breakers = {offer.name: WatchedBreaker() for offer in OFFERS}
    clouds = Clouds(dice, torn=torn)
    running, begun, now, world = [], 0, 0.0, Counter()
    while begun < requests or running:
        now += dice.choice((0.0, 0.05, 0.2, 0.5))
        if dice.random() < 0.004:
            now += dice.choice((6.0, 6.0, 70.0, 1000.0))
        if begun < requests and len(running) < 8 and dice.random() < 0.3:
            begun += 1
            request = ChatRequest(
                dialect="openai",
                model="m",
                messages=QUESTION,
                stream=dice.random() < 0.7,
                n=2 if dice.random() < 0.05 else 1,
                trim=True,
            )
            wish = dice.choice(("auto",) * 8 + ("cloud", "local", "openai"))
            asked = legs(request, OFFERS, wish=wish, box_model="starter")
            relay = Relay(request, asked, breakers, limits=LIMITS, jitter=dice.random())
            witness = Witness(request, relay, breakers)
            witness.tell(("start",), now, world)
            running.append(witness)
        elif running:
            witness = dice.choice(running)
            what = clouds.happening(witness, now)
            if what[0] == "receive":
                leg = witness.leg
                witness.tell(what, now, world)
                witness.torn = witness.leg is leg and not leg.local and not witness.request.stream
            else:
                witness.torn = False
                witness.tell(what, now, world)
            if witness.over:
                world["calls taken over"] += witness.inside
                world["taken over"] += any(isinstance(event, Takeover) for event in witness.sent)
        running = [witness for witness in running if not witness.over]
    world["trials"] = sum(breaker.trials for breaker in breakers.values())
    for breaker in breakers.values():
        assert breaker.out == {}, "a pass was never given back"
        assert breaker.admits(now + 10_000.0), "a trial that nobody ran keeps the breaker shut"
    return world


@pytest.mark.parametrize("seed", range(6))
def test_a_day_of_outages_keeps_every_promise(seed):
    world = live(seed, 1000)
    assert world["answered"] + world["failed"] + world["left"] == 1000
    # The day must have had something to see.
    unseen = {
        "answered",
        "failed",
        "left",
        "taken over",
        "calls taken over",
        "trials",
        "local fine",
        "local crashed",
    } - set(+world)
    assert unseen == set()


def test_in_a_few_days_every_cloud_ends_in_every_way():
    world = sum((live(seed, 500) for seed in range(100, 108)), Counter())
    ways = ("fine", "gone", "silent", "broken", "busy", "server", "config", "request", "too_long", "unreachable")
    assert {f"{offer.name} {way}" for offer in OFFERS for way in ways} - set(world) == set()


def test_a_day_of_torn_whole_answers_keeps_every_promise():
    live(1, 700, torn=True)


def test_the_same_day_goes_the_same_way():
    assert live(3, 200) == live(3, 200)


def test_content_is_what_this_file_takes_for_it():
    assert set(CONTENT) == {TextDelta, ReasoningDelta, ToolCallStart, ToolCallDelta}
