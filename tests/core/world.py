"""A world in which a day can be lived through: three clouds that are down now and then, the box, and who asks them.

Rules of this file:

1. Everything follows from one seed. Times are seconds since midnight, and nobody waits for them.
2. What a cloud does depends on the time alone: whatever it is asked during an outage goes wrong in that outage's way,
   and an answer that is under way when it begins goes wrong with it.
3. Every word is signed: who wrote it, in which answer, and where in it. Whoever goes on reads where the other left off.
4. Nothing here knows how the relay, or a breaker, decides.
"""

import bisect
import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from appliance.core.chat import ChatRequest, Message, Text
from appliance.core.events import (
    Finish,
    Opened,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError, Fault
from appliance.core.route import Offer

DAY = 86_400.0
MODELS = ("large", "small")
OFFERS = (
    Offer(name="claude", models=(*MODELS, "claude-*"), hedge=True),
    Offer(name="openai", models=(*MODELS, "openai-*"), prefill=True),
    Offer(name="gemini", models=(*MODELS, "gemini-*"), watch_whole=True),
)
NEVER = math.inf
QUESTION = (Message(role="user", parts=(Text("Why?"),)),)
SIGNED = re.compile(r"([a-z]+)(\d+)\.(\d+) ")
WISHES = ("auto",) * 38 + ("cloud", "local")
WAYS = ("errors", "refuses", "silent", "breaks", "limits", "offline", "slow")
OF_A_MODEL = ("errors", "silent", "breaks", "limits")
SHOWS_LIFE = ("breaks", "limits", "slow")
"""Ways to be down in which the list of models is still given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """`way` is how; with a `model` only that one is down."""

    cloud: str
    way: str
    start: float
    end: float
    model: str | None = None

    def hits(self, model):
        return self.model is None or self.model == model

    @property
    def shows_life(self):
        return self.model is not None or self.way in SHOWS_LIFE

    def matter(self, model):
        """Whose matter is it? A model's that was asked for; "" for the cloud's own, which is down as a whole."""
        return "" if self.model is None and self.way in ("errors", "refuses", "offline") else model


def outages(dice):
    """A day's outages of each cloud, one after the other; five times all are down, once because a cable is out."""
    common = [(at + dice.uniform(0, 3000.0), dice.uniform(120.0, 1500.0)) for at in range(14_000, 84_000, 16_000)]
    cable = dice.randrange(len(common))
    found = {}
    for offer in OFFERS:
        times = [(at, at + length, True) for at, length in common]
        while len(times) < 24:
            start = dice.uniform(600.0, DAY - 4000.0)
            end = start + math.exp(dice.uniform(math.log(40.0), math.log(9000.0)))
            if end < DAY - 600.0 and all(end + 60.0 < other[0] or start > other[1] + 60.0 for other in times):
                times.append((start, end, False))
        found[offer.name] = []
        for start, end, shared in sorted(times):
            way, model = dice.choice(WAYS), None
            if shared:
                way = "offline" if start == common[cable][0] else dice.choice(("errors", "refuses", "silent", "breaks"))
            elif way in OF_A_MODEL and dice.random() < 0.3:
                model = dice.choice(MODELS)
            found[offer.name].append(Outage(cloud=offer.name, way=way, start=start, end=end, model=model))
    return found


class Asked(NamedTuple):
    """One request as its client means it. `mistaken`: a cloud that reads it refuses it; `leaves`: when its client
    does."""

    number: int
    at: float
    request: ChatRequest
    wish: str
    length: int
    tool: bool
    thinks: bool
    mistaken: bool
    leaves: float
    slow: float

    @property
    def word(self):
        return f"{self.number}."


def requests(dice, count):
    """What is asked in a day, in its order: little at night, much at noon, and bursts of one minute."""
    times = []
    bursts = [dice.uniform(0.0, DAY - 60.0) for _ in range(24)]
    while len(times) < count:
        at = dice.uniform(0.0, DAY)
        if dice.random() < 0.15:
            times.append(dice.choice(bursts) + dice.uniform(0.0, 60.0))
        elif dice.random() < 0.1 + 0.9 * math.sin(math.pi * at / DAY) ** 2:
            times.append(at)
    for number, at in enumerate(sorted(times)):
        own = dice.choice(("claude-1", "openai-1", "gemini-1")) if dice.random() < 0.15 else None
        slow = 0.5 if dice.random() < 0.01 else 0.0
        request = ChatRequest(
            dialect="openai", model=own or dice.choice(MODELS), messages=QUESTION, stream=dice.random() < 0.7, trim=True
        )
        yield Asked(
            number=number,
            at=at,
            request=request,
            wish=dice.choice(WISHES),
            length=dice.randint(2, 7),
            tool=dice.random() < 0.03,
            thinks=dice.random() < 0.1,
            mistaken=dice.random() < 0.005,
            leaves=at + dice.expovariate(0.5) if not slow and dice.random() < 0.04 else NEVER,
            slow=slow,
        )


# --------------------------------------------------------------------------------------------------- who answers


def failed(fault, message, **more):
    return ("fail", BackendError(fault, message, **more))


def left_off(request):
    """At which word does an answer go on?"""
    if request.committed is None:
        return 0
    words = SIGNED.findall(request.committed.text)
    return int(words[-1][2]) + 1 if words else 0


def pieces(name, asked, request, dice, *, tool):
    """An answer from where it goes on, as batches of events, without its end."""
    at, sign = left_off(request), name + asked.word
    opening = [Opened(headers=()), Started(id=sign, model=request.model, created=1)]
    if asked.thinks and request.committed is None and name != "local":
        yield [*opening, ReasoningDelta(text=sign + "0 ")]
        opening = [ReasoningDelta(text=sign + "1 ")]
    while at < asked.length:
        count = min(asked.length - at, dice.choice((2, 3, 4)))
        yield [*opening, *(TextDelta(text=f"{sign}{at + more} ") for more in range(count))]
        opening, at = [], at + count
    if tool:
        yield [*opening, ToolCallStart(index=0, id="c1", name="look")]
        yield [ToolCallDelta(index=0, arguments="{}")]


def ending(tool):
    return [
        Finish(reason="tool_calls" if tool else "stop"),
        Usage(prompt_tokens=9, completion_tokens=9),
    ]


class Cloud:
    """One cloud on one day. `answer` gives what comes of a call, one thing after the other: it yields when and what,
    and is sent the time at which that was heard."""

    def __init__(self, name, outages, seed):
        self.name = name
        self.outages = outages
        self._starts = [outage.start for outage in outages]
        self._dice = random.Random(f"{seed} {name}")
        self.calls = Counter()
        """Real calls, by the outage they fell into; ``None`` for those while it was well."""

    def any_wrong(self, now):
        """The outage that it is in, wholly or with one of its models."""
        at = bisect.bisect_right(self._starts, now) - 1
        found = self.outages[at] if at >= 0 else None
        return found if found is not None and now < found.end else None

    def wrong(self, now, model):
        """The outage that this model is in."""
        found = self.any_wrong(now)
        return found if found is not None and found.hits(model) else None

    def well_since(self, now, model):
        """The outage of this model that ended last."""
        at = bisect.bisect_right(self._starts, now)
        return next((found for found in reversed(self.outages[:at]) if found.end <= now and found.hits(model)), None)

    def alive(self, now):
        """Would it answer a probe?"""
        found = self.wrong(now, None)
        return found is None or found.shows_life

    def limited_until(self, outage, now):
        """When its limit is lifted for a moment, as it says itself: each 20 to 60 s, whoever comes."""
        lasts = 20.0 + outage.start % 40.0
        return outage.start + lasts * (1.0 + (now - outage.start) // lasts)

    def answer(self, asked, request, leg, now):
        model = leg.model
        wrong = self.wrong(now, model)
        dice = self._dice
        self.calls[wrong] += 1
        match wrong.way if wrong else "":
            case "refuses" | "offline":
                yield now + 0.02, failed(Fault.UNREACHABLE, "It refuses connections.")
            case "errors":
                status = 529 if wrong.model else dice.choice((500, 502, 503, 504))
                yield now + dice.uniform(0.05, 0.4), failed(Fault.SERVER, "It said 5xx.", status=status)
            case "limits":
                wait = self.limited_until(wrong, now) - now
                yield now + 0.05, failed(Fault.BUSY, "Slow down.", status=429, retry_after=wait)
            case "silent":
                yield NEVER, None
        if wrong is None and dice.random() < 0.003:
            yield now + 0.1, failed(Fault.SERVER, "An accident.", status=500)
        if asked.mistaken:
            yield now + 0.1, failed(Fault.REQUEST, "Your own mistake.", status=400)
        batches = list(pieces(self.name, asked, request, dice, tool=asked.tool))
        pace = dice.uniform(0.02, 0.3)
        first = dice.lognormvariate(-0.5, 0.5)
        if wrong is not None and wrong.way == "slow":
            first, pace = dice.choice(((dice.uniform(13.0, 50.0), pace), (first, dice.uniform(3.0, 15.0))))
        if not request.stream:
            whole = [event for batch in batches for event in batch]
            grown = [[Progress(kind="text", characters=9)] for _ in batches] if leg.watched else []
            batches = [*grown, whole]
            first += 0.0 if leg.watched else pace * asked.length
        breaks = dice.randrange(len(batches) or 1) if self._torn(wrong) else None
        for place, batch in enumerate(batches):
            at = now + (pace if place else first)
            yield from self._overtaken(now, at, model)
            if place == breaks:
                yield at, dice.choice((failed(Fault.BROKEN, "It broke."), ("end",)))
            last = not request.stream and place == len(batches) - 1
            now = yield at, ("receive", batch + ending(asked.tool) if last else batch)
        if request.stream:
            yield from self._overtaken(now, now + pace, model)
            now = yield now + pace, ("receive", ending(asked.tool))
        yield now, ("end",)

    def _torn(self, wrong):
        """Does an answer break in which nothing happens from outside?"""
        return wrong.way == "breaks" if wrong is not None else self._dice.random() < 0.002

    def _overtaken(self, now, at, model):
        """Does an outage begin between these times that ends what is under way?"""
        found, before = self.wrong(at, model), self.wrong(now, model)
        if found is None or found is before:
            return
        if found.way in ("errors", "refuses", "breaks"):
            yield max(now, found.start), failed(Fault.BROKEN, "It broke.")
        elif found.way in ("silent", "offline"):
            yield NEVER, None


class Box:
    """Always there, but that its engine dies a few times a day and is back a second later."""

    def __init__(self, seed):
        self._dice = random.Random(f"{seed} local")
        self.deaths = sorted(self._dice.uniform(0.0, DAY) for _ in range(12))

    def answer(self, asked, request, leg, now):
        death = self.deaths[bisect.bisect_right(self.deaths, now) - 1]
        ready = death + 1.0 if death <= now < death + 1.0 else now
        at = ready + self._dice.uniform(0.1, 0.8)
        dies = next((death for death in self.deaths if death > now), NEVER)
        whole = []
        for batch in pieces("local", asked, request, self._dice, tool=False):
            if at >= dies:
                yield dies, failed(Fault.CRASHED, "The engine died.")
            if request.stream:
                now = yield at, ("receive", batch)
            whole += batch
            at = max(at, now) + 0.1
        if at >= dies:
            yield dies, failed(Fault.CRASHED, "The engine died.")
        now = yield at, ("receive", ending(False) if request.stream else whole + ending(False))
        yield now, ("end",)
