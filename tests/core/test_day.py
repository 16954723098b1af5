"""One day with three clouds and their outages, 30,000 requests, in seconds: what did the applications see?

`world` is what happens; this is the driver that lives through it (as `drive` and `health` would, with a queue of what
is due in place of a clock) and looks at every promise. `test_histories` is its cousin: anything in any order.

    APPLIANCE_DAYS=20 .venv/bin/pytest tests/core/test_day.py    # more days
"""

import heapq
import itertools
import math
import os
import random
from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest

from appliance.backends.health import LOOK_SECONDS, PROBE_SECONDS, Plan
from appliance.backends.network import LOOK_SECONDS as NETWORK_SECONDS
from appliance.core.actions import Call, Done, Drop, Emit, Pause, Race
from appliance.core.attempt import Tried
from appliance.core.breaker import LONGEST_COOLDOWN, SHORT_RETRY_AFTER
from appliance.core.budget import Budget
from appliance.core.events import Finish, ReasoningDelta, Takeover, TextDelta, ToolCallStart, carries_content
from appliance.core.fault import Fault
from appliance.core.habits import Habits
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import legs
from appliance.core.scopes import Breakers
from tests.core.world import DAY, NEVER, OFFERS, SIGNED, Box, Cloud, outages, requests

pytestmark = pytest.mark.long

REQUESTS = 30_000
DAYS = int(os.environ.get("APPLIANCE_DAYS", "3"))
COOLDOWN, INTERVAL = 10.0, 30.0
SHORTEST = 0.8 * COOLDOWN  # with its jitter
FIRST_EXTRAS = 6
BACK = 30.0
"""Seconds after its return in which a cloud is asked again: a probe's turn comes, and brings the trial forward."""


@dataclass(slots=True)
class Toll:
    """What one outage cost, for each breaker that it is the matter of: `known` is when that first let nobody through,
    `calls` how many it let through all the same, but for those whose client left before they could prove anything."""

    known: float = NEVER
    calls: int = 0


class Watched(Breakers):
    """Breakers of which is written down who was let through, and when."""

    def __init__(self, cloud):
        super().__init__(failures=3, cooldown=COOLDOWN)
        self.cloud = cloud
        self.out = {}
        self.tolls = defaultdict(Toll)
        self.probes = Counter()
        self.told = {}  # by model: until when the cloud itself said that it should be left alone
        self.stale = {}  # by model: when the last call failed that had begun in an outage which is over by now
        self.kept = {}
        """By (outage that is over, model): for how long nobody was let through after it, though somebody asked. A trial
        is an answer to that, one from before the return has to end first, and when the cloud said that it should be
        left alone that holds."""
        self._back = set()

    def begin(self, now, model=""):
        leave = super().begin(now, model)
        if leave is not None:
            for other, its, _ in self.out.values():
                same = other.upstream.era == leave.upstream.era
                assert not (leave.upstream.trial and other.upstream.trial and same), "two trials at a time"
                same = its == model and other.model.era == leave.model.era
                assert not (leave.model.trial and other.model.trial and same), "two trials at a time"
            assert now >= self.told.get(model, 0.0), "asked before the time that it named itself"
            self.out[id(leave)] = leave, model, now
        wrong, since = self.cloud.wrong(now, model), self.cloud.well_since(now, model)
        if wrong is not None:
            toll = self.tolls[wrong, wrong.matter(model)]
            toll.calls += leave is not None and toll.known <= now
            toll.known = toll.known if leave is not None else min(toll.known, now)
        elif since is not None:
            self._wanted(since, since.matter(model), leave, model, now)
        return leave

    def _wanted(self, since, of, leave, model, now):
        """Somebody asks again after an outage."""
        if leave is not None:
            self._back.add((since, of))
            return
        on_trial = any(other.upstream.trial or (other.trial and its == model) for other, its, _ in self.out.values())
        if (since, of) not in self._back and now >= self.told.get(model, 0.0) and not on_trial:
            self.kept[since, of] = now - max(since.end, self.stale.get(model, 0.0), self.told.get(model, 0.0))

    def succeed(self, leave, now):
        del self.out[id(leave)]
        super().succeed(leave, now)

    def fail(self, leave, now, error, *, jitter):
        _, model, began = self.out[id(leave)]
        super().fail(leave, now, error, jitter=jitter)
        self.out.pop(id(leave), None)  # unless it was found to prove nothing
        wrong, since = self.cloud.wrong(now, model), self.cloud.well_since(now, model)
        if wrong is not None and self.state(now, model) != "closed":
            toll = self.tolls[wrong, wrong.matter(model)]
            toll.known = min(toll.known, now)
        if wrong is None and since is not None and began < since.end:
            self.stale[model] = now
        if (error.retry_after or 0.0) > SHORT_RETRY_AFTER and now >= self.told.get(model, 0.0):
            self.told[model] = now + error.retry_after

    def abandon(self, leave):
        _, model, began = self.out.pop(id(leave))
        super().abandon(leave)
        wrong = self.cloud.wrong(began, model)
        if wrong is not None and self.tolls[wrong, wrong.matter(model)].known <= began:
            self.tolls[wrong, wrong.matter(model)].calls -= 1


class Running:
    """One call that runs: what comes next of it, and when."""

    __slots__ = ("_steps", "at", "leg", "what")

    def __init__(self, leg, steps):
        self.leg, self._steps = leg, steps
        self.at, self.what = next(steps)

    def go_on(self, now):
        self.at, self.what = self._steps.send(now)


class Application:
    """One request from outside: what it got, and whether that was right."""

    def __init__(self, asked, legs, relay, day):
        self.asked, self.relay, self.day = asked, relay, day
        self.clouds = [day.clouds[leg.name] for leg in legs if not leg.local]
        self.turn = 0
        self.running = {}  # by leg: what will come of its call, and what comes next
        self.sent = []
        self.called = Counter()
        self.tried = 0
        self.over = False
        self.mistaken = False  # said a cloud that was asked by itself: a rival's refusal may be its own
        self.rival = self.author = None
        self.first = None
        self.helpless = self._helpless(asked.at)

    def _helpless(self, now):
        """Is everybody down who could be asked, but the box?"""
        wrong = [cloud.wrong(now, self.asked.request.model) for cloud in self.clouds]
        return all(one is not None and one.way not in ("slow", "limits", "breaks") for one in wrong)

    def tell(self, what, now, by=None):
        """Tell the relay one thing; `by` is the call that it comes from."""
        assert not self.over, "something came after the end"
        late = 0.0
        for action in getattr(self.relay, what[0])(*what[1:], now, *([by.leg.name] if by else [])):
            assert not self.over, "something came after the end"
            match action:
                case Pause(seconds):
                    late += seconds
                case Call(leg, request):
                    self.running.clear()
                    cause = self.author if self._repeats(leg) else leg.name if self.called[leg.name] else None
                    self._call(leg, request, now + late, cause=cause)
                case Race(leg, request):
                    assert self.sent == [] and len(self.running) == 1, "a race after the first word"
                    self.rival = leg.name
                    self._call(leg, request, now, cause=next(iter(self.running)))
                case Drop(leg):
                    del self.running[leg.name]
                case Emit(events):
                    self.sent += events
                    self.author = by.leg.name if by is not None and any(map(carries_content, events)) else self.author
                    self.first = now if self.first is None else self.first
                    if self.asked.slow:
                        self.relay.held_up(self.asked.slow)
                        late += self.asked.slow
                case Tried(leg=leg, error=error, flaw=flaw, continued=continued):
                    self.tried += 1
                    if error is not None and error.fault is Fault.REQUEST and leg != self.rival:
                        self.mistaken = not continued
                    self.day.seen[f"{leg}: {error.fault.value if error else 'flawed' if flaw else 'fine'}"] += 1
                    self.day.answered[leg] += error is None
                case Done(error):
                    self.over = True
                    self.judge(error, left=what[0] == "cancel", now=now)
        if self.over:
            return
        if by is not None and self.running.get(by.leg.name) is by:
            by.go_on(now + late)
        self.turn += 1
        self.day.put(min(self.relay.deadline, *(call.at for call in self.running.values())), self._go_on, self.turn)

    def leave(self, now, _):
        if not self.over:
            self.tell(("cancel",), now)

    def _go_on(self, now, turn):
        if self.over or turn != self.turn:
            return
        call = min(self.running.values(), key=lambda call: call.at)
        if call.at <= now:
            self.tell(call.what, now, call)
        else:
            self.tell(("expire",), now)

    def _call(self, leg, request, now, *, cause):
        """`cause` is the cloud on whose account it is asked, if that makes one call more than the application's own."""
        self.called[leg.name] += 1
        self.day.seen[f"{leg.name}: called"] += 1
        if cause is not None and not leg.local:
            self.day.extra(cause)
        who = self.day.box if leg.local else self.day.clouds[leg.name]
        self.running[leg.name] = Running(leg, who.answer(self.asked, request, leg, now))

    def _repeats(self, leg):
        """Is it asked for all of an answer, of which the client has some?"""
        return not leg.continues and any(map(carries_content, self.sent))

    # ------------------------------------------------------------------------------------------------ promises

    def judge(self, error, *, left, now):
        paused = left and self.tried == self.called.total() - 1
        assert self.tried == self.called.total() or paused, "a call without an end"
        assert not self.mistaken or (error is not None and error.fault is Fault.REQUEST), "it fell back"
        self.check_words()
        if left:
            self.day.seen["left"] += 1
        elif error is not None:
            self.day.seen[self.excuse(error)] += 1
        else:
            self.check_end()
            assert not self.helpless or self.sent_by_box() or self.revived(now)
            self.day.seen["answered"] += 1
            self.day.seen["answered by the box"] += self.sent_by_box()
            self.day.seen["taken over"] += any(isinstance(event, Takeover) for event in self.sent)
        if self.first is not None:
            self.day.waits.append(self.first - self.asked.at)

    def excuse(self, error):
        """Why this could not be answered. Nothing else is a reason."""
        if error.fault is Fault.REQUEST:
            assert self.asked.mistaken and error.message == "Your own mistake.", error.message
            return "the caller's own mistake"
        if self.asked.wish == "cloud":
            return "failed: the box was not wanted"
        assert any(isinstance(event, ToolCallStart) for event in self.sent), f"an application saw: {error.message}"
        return "failed: half a tool call"

    def revived(self, now):
        """Did a cloud that was down when this was asked come back before it was answered?"""
        model = self.asked.request.model
        return any(cloud.well_since(now, model) is not cloud.well_since(self.asked.at, model) for cloud in self.clouds)

    def sent_by_box(self):
        words = SIGNED.findall(self.text())
        return bool(words) and words[-1][0] == "local"

    def text(self):
        return "".join(event.text for event in self.sent if isinstance(event, TextDelta))

    def check_words(self):
        """Each word once and in its place; another author only where a takeover says so."""
        author, heir, count, characters, thoughts = None, None, 0, 0, 0
        for event in self.sent:
            match event:
                case Takeover(source=source, target=target, after=after):
                    assert self.asked.request.stream and source == author and after == characters
                    heir = target
                case TextDelta(text=text):
                    who, number, place = SIGNED.fullmatch(text).groups()
                    assert who == heir or author is None or (who == author and heir is None), "nobody named this author"
                    assert (int(number), int(place)) == (self.asked.number, count), "not the next word of this answer"
                    author, heir, count, characters = who, None, count + 1, characters + len(text)
                case ReasoningDelta(text=text):
                    who, _, place = SIGNED.fullmatch(text).groups()
                    assert (who == author or author is None) and (int(place), count) == (thoughts, 0)
                    author, thoughts, characters = who, thoughts + 1, characters + len(text)
        self.words = count

    def check_end(self):
        assert self.words == self.asked.length, "an end that is none"
        last = [event for event in self.sent if carries_content(event) or isinstance(event, Finish)]
        assert isinstance(last[-1], Finish) and sum(isinstance(event, Finish) for event in last) == 1


class Day:
    """All of it, and the queue of what is due."""

    def __init__(self, seed, count):
        dice = random.Random(seed)
        self._dice = random.Random(f"{seed} jitter")
        self._queue, self._order = [], itertools.count()
        self.clouds = {name: Cloud(name, found, seed) for name, found in outages(dice).items()}
        self.box = Box(seed)
        self.breakers = {name: Watched(cloud) for name, cloud in self.clouds.items()}
        self.budgets = {name: Budget() for name in self.clouds}
        self.habits = {name: Habits() for name in self.clouds}
        self.answered, self.extras = Counter(), Counter()
        self.seen, self.waits = Counter(), []
        self.applications = 0
        self._plan = Plan()
        self._legs = {}
        for asked in requests(dice, count):
            self.put(asked.at, self._ask, asked)
        for cloud in self.clouds.values():
            for outage in cloud.outages:
                if outage.way == "offline":
                    self.put(_next_look(outage.start), self._look, outage)
        self.put(0.0, self._probe, None)

    def put(self, at, what, whom):
        heapq.heappush(self._queue, (at, next(self._order), what, whom))

    def live(self):
        while self._queue:
            now, _, what, whom = heapq.heappop(self._queue)
            what(now, whom)
        return self

    def _ask(self, now, asked):
        model, wish = asked.request.model, asked.wish
        if (model, wish) not in self._legs:
            self._legs[model, wish] = legs(asked.request, OFFERS, wish=wish, box_model="starter")
        candidates = self._legs[model, wish]
        relay = Relay(
            asked.request,
            candidates,
            self.breakers,
            limits=Timeouts(),
            jitter=self._dice.random(),
            habits=self.habits,
            budgets=self.budgets,
        )
        application = Application(asked, candidates, relay, self)
        self.applications += 1
        if asked.leaves < NEVER:
            self.put(asked.leaves, application.leave, None)
        application.tell(("start",), now)

    def _look(self, now, outage):
        """As every two seconds: is there a way to it?"""
        breakers = self.breakers[outage.cloud]
        if now >= outage.end:
            breakers.find(now)
        elif breakers.in_use(now):
            breakers.lose("route", now)
            self.put(_next_look(outage.end), self._look, outage)
        else:
            self.put(now + NETWORK_SECONDS, self._look, outage)

    def _probe(self, now, _):
        """As every second: whom is it time to probe?"""
        aside = [name for name, breakers in self.breakers.items() if breakers.wants_probe(now)]
        for name in self._plan.due(aside, now, interval=INTERVAL, jitter=self._dice.random):
            cloud, breakers = self.clouds[name], self.breakers[name]
            wrong = cloud.any_wrong(now)
            silent = wrong is not None and wrong.way == "silent" and wrong.model is None
            self.seen[f"{name}: probed"] += 1
            assert breakers.offline is None, "probed where there is no way"
            if wrong is not None:
                breakers.probes[wrong] += 1
            self.put(now + (PROBE_SECONDS if silent else 0.2), self._probed, (name, cloud.alive(now)))
        if now < DAY + 700.0:
            self.put(now + LOOK_SECONDS, self._probe, None)

    def _probed(self, now, found):
        name, well = found
        self.breakers[name].probed(well, now)

    def extra(self, name):
        self.extras[name] += 1
        assert self.extras[name] < FIRST_EXTRAS + self.answered[name] / 10, "more extras than the budget allows"


def _next_look(at):
    return math.ceil(at / NETWORK_SECONDS) * NETWORK_SECONDS


def most_trials(outage, known):
    """How many calls the breaker's waits leave room for while an outage that is known lasts."""
    left, wait, count = outage.end - known, SHORTEST, 3  # the first waits may still be short, from the time before
    while left > 0:
        left -= wait
        count += 1
        wait = wait if outage.shows_life else min(2 * wait, 0.8 * LONGEST_COOLDOWN)
    return count + FIRST_EXTRAS


@pytest.mark.parametrize("seed", range(1, DAYS + 1))
def test_a_day_of_outages_is_one_that_no_application_notices(seed):
    day = Day(seed, REQUESTS).live()
    ends = (
        "answered",
        "left",
        "the caller's own mistake",
        "failed: the box was not wanted",
        "failed: half a tool call",
    )
    assert day.applications == sum(day.seen[end] for end in ends) == REQUESTS
    for name, breakers in day.breakers.items():
        assert breakers.out == {}, "a trial that was not given back"
        assert breakers.admits(2 * DAY), "a trial that nobody runs keeps it shut"
        assert sum(day.clouds[name].calls.values()) == day.seen[f"{name}: called"]
        for (outage, _), toll in breakers.tolls.items():
            if outage.way != "slow":  # that is a cloud which answers now and then
                assert toll.calls <= most_trials(outage, toll.known), (outage, toll)
            assert outage.way != "offline" or toll.calls == 0
        for outage, probes in breakers.probes.items():
            trials = sum(toll.calls for (which, _), toll in breakers.tolls.items() if which is outage)
            assert probes <= 2 + trials + (outage.end - outage.start) / (INTERVAL * 0.8), (outage, probes)
        assert max(breakers.kept.values(), default=0.0) <= BACK, breakers.kept
    # The day must have had something to see.
    assert day.seen["taken over"] > 30 and day.seen["answered by the box"] > 300
    ways = ("fine", "gone", "silent", "broken", "server", "unreachable", "request")
    assert {f"claude: {way}" for way in ways} - set(day.seen) == set()


def test_the_same_day_goes_the_same_way():
    assert Day(9, 1500).live().seen == Day(9, 1500).live().seen
