"""One request, from the first call to the last event. The takeover lives here.

Rules of this file:

1. Until the first piece of content has gone to the client, a failure is invisible: what came is thrown away and
   the next leg answers from the start.
2. After it, the answer continues. What the client has is *committed*, and only a leg that can go on from exactly
   there is called. What cannot be continued (a tool call, unknown content, several choices) ends in an error.
3. An end is an end only if somebody meant it: without a `Finish` every end is a failure. After one, whatever
   goes wrong no longer matters.
4. The caller's own mistake goes back to the caller, and nobody else is asked.
5. A whole answer goes out whole: nothing is sent before its end, so every failure of a cloud restarts it. Only
   what the box itself had written before its engine died is kept.
6. When the engine's process dies, the box itself goes on after its restart; a request that was alive at two
   such deaths is refused, so that one poisoned request cannot take everybody down.

The machine is told what happened (`start`, `receive`, `end`, `fail`, `expire`, `cancel`) and answers what to do, in
order: `Emit`, `Tried`, `Call`, `Done`. Carry the list out before telling it more. It has no clock (`now` is an
argument, in seconds, monotonic) and no randomness (`jitter` is given at birth); it acts on the breakers it was
given, which it shares with the other requests of this thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from appliance.core.again import pause_before
from appliance.core.budget import Budget
from appliance.core.chat import (
    BackendError,
    BlockStart,
    ChatRequest,
    Degraded,
    Event,
    Fault,
    Finish,
    Opaque,
    Started,
    Takeover,
    Usage,
    carries_content,
)
from appliance.core.given import Given
from appliance.core.pulse import Heard, Limits, Pulse, nobody, takes_long
from appliance.core.route import Leg, stops_for_box
from appliance.core.scopes import Breakers, Leave
from appliance.core.suspicion import Suspicion
from appliance.core.verdict import refused_after, set_aside, verdict

DEATHS_TO_REFUSE = 2
LETTERS_PER_TOKEN = 4
SKIPPED = "breaker-open"
OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Call:
    """Ask this leg; an earlier call that still runs is to be closed first."""

    leg: Leg
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds: what comes next is asked of the same leg again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Send these on to the client."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One leg's part in this answer is over. ``error`` is ``None`` if it reached its end. ``first_content`` and
    ``silence`` (at the seam, if it went on from another's words) are in seconds, ``None`` without content."""

    leg: str
    error: BackendError | None
    characters: int
    seconds: float
    continued: bool
    first_content: float | None = None
    silence: float | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more will come; with an error, the client is told so."""

    error: BackendError | None = None


Action = Call | Emit | Pause | Tried | Done


class Relay:
    def __init__(
        self,
        request: ChatRequest,
        legs: Sequence[Leg],
        breakers: Mapping[str, Breakers],
        *,
        limits: Limits,
        jitter: float = 0.5,
        suspicions: Mapping[str, Suspicion] | None = None,
        heard: Heard = nobody,
        budgets: Mapping[str, Budget] | None = None,
    ) -> None:
        self._request = request
        self._waiting = list(legs)
        self._stands_in = any(not leg.local for leg in legs)  # for the box: is it a cloud's conversation?
        self._breakers = breakers
        self._pulse = Pulse(limits, suspicions or {}, heard)
        self._jitter = jitter
        self._leg: Leg | None = None
        self._running = False  # a call is out and its end was not told yet
        self._budgets = budgets or {}
        self._again: set[str] = set()  # legs that were asked twice
        self._pass: Leave | None = None
        self._continuing = False  # the running call goes on from what another leg began
        self._leg_characters = 0
        self._leg_has_content = False
        self._over = False  # the stream said that it is complete
        self._held: list[Event] = []  # what waits: for the first content, or for the end of a whole answer
        self._content = False  # there is something that a next leg has to go on from
        self._given = Given(request.n)
        self._begun = 0  # characters that the running leg goes on from
        self._started = False
        self._seen: set[int] = set()  # choices, by number
        self._ended: set[int] = set()
        self._left_out: set[str] = set()
        self._deaths = 0
        self._errors: list[tuple[Leg, BackendError]] = []
        self._cut = SKIPPED  # why the last leg that was called did not end its answer
        self.passed_over: list[str] = []
        """Who was not even asked, because he is known to be down."""
        self.fallback: str | None = None
        """Why the first choice did not answer, once that is so: a fault's word, or ``breaker-open``."""

    @property
    def leg(self) -> Leg | None:
        """Who is being asked now, or was last."""
        return self._leg

    @property
    def deadline(self) -> float:
        """When `expire` is to be called, if nothing else has happened by then."""
        return self._pulse.deadline

    @property
    def warning(self) -> float:
        """When the running leg's silence becomes odd, if nothing else has happened by then."""
        return self._pulse.warning

    def phi(self, now: float) -> float | None:
        """How odd the running leg's silence is by now, if its history tells."""
        return self._pulse.phi(now) if self._running and not self._finished else None

    @property
    def left_out(self) -> frozenset[str]:
        """What was asked for and the box cannot do, once it is the box that is asked."""
        return frozenset(self._left_out)

    @property
    def continuable(self) -> bool:
        """Could somebody else go on with what there is?"""
        return self._given.continuable

    def standby(self) -> ChatRequest | None:
        """What the box would be asked if the running leg failed now; ``None`` if nobody would ask it, or if it could
        not go on from what there is."""
        if self._leg is None or self._leg.local or self._request.n != 1:
            return None
        if not any(leg.local for leg in self._waiting) or (self._content and not self._given.continuable):
            return None
        request = self._for_the_box(self._request)
        return request.continuing(self._given.message()) if self._content and request.stream else request

    # -------------------------------------------------------------------------------------------- what came

    def start(self, now: float) -> list[Action]:
        return self._call_next(now)

    def receive(self, events: Sequence[Event], now: float) -> list[Action]:
        """Events came from the leg that was called last."""
        progress, over = False, self._finished
        for event in events:
            if isinstance(event, Finish) and self._ended_empty(event):
                return self.fail(BackendError(Fault.BROKEN, f"{self._name} ended its answer without any content."), now)
            if isinstance(event, Started):
                if self._started:
                    continue
                self._started = True
            elif isinstance(event, BlockStart) and event.kind == "reasoning":
                self._pulse.thinks(now)
            elif isinstance(event, Usage):
                event = self._counted(event)
            self._note(event)
            progress = progress or carries_content(event)
            self._held.append(event)
        self._content = self._content or progress
        if progress and not over:
            self._pulse.content(events, now)
        if self._finished and not over:
            self._pulse.ended(now)
        if (self._content or self._finished) and self._request.stream and self._held:
            return [self._release()]
        return []

    def end(self, now: float) -> list[Action]:
        """The leg's events are over."""
        # A cloud may give fewer choices than it was asked for; that a stream of them is complete it has to say.
        complete = self._over or not self._request.stream
        if self._finished or (complete and self._ended and self._ended >= self._seen):
            return self._finish(now)
        return self.fail(BackendError(Fault.BROKEN, f"{self._name} closed the answer before its end."), now)

    def fail(self, error: BackendError, now: float) -> list[Action]:
        """The leg failed, or refused."""
        if self._finished:
            return self._finish(now)
        assert self._leg is not None
        pause = self._worth_another_try(error, now)
        tried = self._tried(error, now, counts=pause is None)
        self._errors.append((self._leg, error))
        self._cut = error.fault.value
        crashed = error.fault is Fault.CRASHED
        if not (self._content and (self._request.stream or (crashed and self._given.continuable))):
            self._forget()
        if crashed:
            self._deaths += 1
            if self._deaths >= DEATHS_TO_REFUSE:
                return [tried, Done(refused_after(self._deaths))]
            self._waiting.insert(0, self._leg)
        elif error.fault is Fault.REQUEST and not self._ours_to_answer_for:
            return [tried, Done(error)]
        elif pause is not None:
            self._again.add(self._leg.name)
            breakers = self._breakers.get(self._leg.name)
            leave = breakers.begin(now, self._leg.model) if breakers else None
            if leave is not None or breakers is None:  # else somebody else's trial has begun meanwhile
                return [tried, Pause(pause), *self._enter(self._leg, leave, None, now + pause)]
            self.fallback = self.fallback or error.fault.value
        else:
            self.fallback = self.fallback or error.fault.value
        return [tried, *self._call_next(now)]

    def expire(self, now: float) -> list[Action]:
        """The deadline passed."""
        return self.fail(BackendError(Fault.SILENT, f"{self._name} {self._pulse.overdue(now)}.", status=504), now)

    def cancel(self, now: float) -> list[Action]:
        """The client left: nobody's failure. If it had its whole answer by then, that is an answer."""
        if not self._running:
            return [Done()]
        gone = None if self._finished else BackendError(Fault.GONE, "The client left.")
        return [self._tried(gone, now), Done()]

    def held_up(self, seconds: float) -> None:
        """The client was slow to take what it was given; that time is not the leg's."""
        self._pulse.held_up(seconds)

    # --------------------------------------------------------------------------------------------- decisions

    @property
    def _name(self) -> str:
        return self._leg.name if self._leg else "nobody"

    @property
    def _finished(self) -> bool:
        return len(self._ended) >= self._choices

    @property
    def _choices(self) -> int:
        """How many ends make the answer's end. The box gives one answer, however many were asked for."""
        return 1 if self._leg is not None and self._leg.local else self._request.n

    @property
    def _ours_to_answer_for(self) -> bool:
        """Is a refusal by the running leg not the caller's mistake? The box in a cloud's stead was not asked by the
        caller, and half an answer to go on from is our addition to the request."""
        assert self._leg is not None
        return self._continuing or (self._leg.local and self._stands_in)

    def _call_next(self, now: float) -> list[Action]:
        source = self._leg
        while self._waiting:
            leg = self._waiting.pop(0)
            if self._content and not (self._given.continuable and leg.continues):
                continue
            breakers = self._breakers.get(leg.name)
            leave = breakers.begin(now, leg.model) if breakers else None
            if breakers and leave is None:
                self._errors.append((leg, set_aside(leg, breakers, now)))
                self.fallback = self.fallback or (OFFLINE if breakers.offline else SKIPPED)
                self.passed_over.append(leg.name)
                continue
            return self._enter(leg, leave, source, now)
        stuck = self._content and not self._given.continuable
        return [Done(verdict(self._errors, stands_in=self._stands_in, stuck=stuck))]

    def _enter(self, leg: Leg, leave: Leave | None, source: Leg | None, now: float) -> list[Action]:
        self._leg, self._pass, self._running = leg, leave, True
        self._leg_characters, self._leg_has_content = 0, False
        self._continuing = self._content
        request = self._request
        if leg.local:
            request = self._for_the_box(request)
            missing = [what for what in leg.lacks(self._request) if what not in self._left_out]
            self._left_out.update(missing)
            self._held += [Degraded(what=what) for what in missing]
        actions: list[Action] = []
        if self._content:
            assert source is not None
            if leg.name != source.name:
                after = self._given.characters
                self._held.append(Takeover(source=source.name, target=leg.name, after=after, reason=self._cut))
            self._begun = self._given.characters
            request = request.continuing(self._given.message())
            if request.max_tokens is not None and not leg.local:
                # The box counts what it was given exactly, a cloud does not count it at all.
                request = replace(request, max_tokens=max(1, request.max_tokens - self._begun // LETTERS_PER_TOKEN))
            if request.stream and self._held:
                actions.append(self._release())
        breakers = self._breakers.get(leg.name)
        wary = leave is not None and (leave.wary or (breakers is not None and breakers.failures > 0))
        self._pulse.begin(
            leg.name,
            now,
            box=leg.local,
            stream=request.stream,
            goes_on=self._continuing,
            wary=wary,
            patient=takes_long(request),
            fresh=leave is not None and leave.wary and not leave.trial,
        )
        return [*actions, Call(leg, request)]

    def _worth_another_try(self, error: BackendError, now: float) -> float | None:
        """Seconds to wait before the same cloud is asked once more, if that is better than the next leg."""
        leg = self._leg
        assert leg is not None
        if leg.local or self._content or leg.name in self._again:
            return None
        breakers, budget = self._breakers.get(leg.name), self._budgets.get(leg.name)
        pause = pause_before(error, self._jitter)
        if pause is None or budget is None or (breakers is not None and breakers.offline):
            return None
        return pause if budget.spend(now) else None

    def _for_the_box(self, request: ChatRequest) -> ChatRequest:
        """A cloud's request as the box can take it: biases name tokens of another vocabulary, and old turns may be
        dropped, unless a cloud that can hold more found the conversation too long. What was asked of the box itself
        is left as it is."""
        if not self._stands_in:
            return replace(request, trim=False)
        too_long = any(error.fault is Fault.TOO_LONG for _, error in self._errors)
        sampling = replace(request.sampling, logit_bias=())
        stop = stops_for_box(request.stop)
        return replace(request, trim=request.trim and not too_long, sampling=sampling, stop=stop)

    def _note(self, event: Event) -> None:
        """Keep account of what the client will have."""
        self._leg_characters += self._given.note(event)
        if isinstance(event, Finish):
            self._ended.add(event.choice)
        elif isinstance(event, Opaque) and event.over:
            self._over = True
        elif carries_content(event):
            self._leg_has_content = True
            self._seen.add(getattr(event, "choice", 0))

    def _forget(self) -> None:
        """Nothing of it has gone out: the next leg answers from the start."""
        self._held.clear()
        self._given.clear()
        self._seen.clear()
        self._ended.clear()
        self._left_out.clear()
        self._content = self._started = self._over = False

    def _counted(self, usage: Usage) -> Usage:
        """A cloud that goes on from half an answer counts that as part of its prompt: here it is output, and estimated,
        because the two clouds count by different vocabularies. The box tells the two apart by itself."""
        if not self._continuing or (self._leg is not None and self._leg.local):
            return usage
        given = self._begun // LETTERS_PER_TOKEN
        return replace(
            usage,
            prompt_tokens=max(0, usage.prompt_tokens - given),
            completion_tokens=usage.completion_tokens + given,
            wire=None,
        )

    def _ended_empty(self, finish: Finish) -> bool:
        """An empty 200 is a failure of a cloud's. The box may stop at once, and so may whoever goes on from another's
        words or from the caller's own, or runs into a stop string."""
        box = self._leg is not None and self._leg.local
        nothing = not (self._content or self._leg_has_content or self._ended)
        meant = finish.stop is not None or self._request.messages[-1].role == "assistant"
        return not box and finish.reason == "stop" and nothing and not meant

    def _release(self) -> Emit:
        emit = Emit(tuple(self._held))
        self._held.clear()
        return emit

    def _finish(self, now: float) -> list[Action]:
        actions: list[Action] = [self._tried(None, now)]
        if self._held:
            actions.append(self._release())
        return [*actions, Done()]

    def _tried(self, error: BackendError | None, now: float, *, counts: bool = True) -> Tried:
        breakers = self._breakers.get(self._name)
        if breakers and self._pass:
            if error is None:
                breakers.succeed(self._pass, now)
            elif error.fault is Fault.GONE or not counts:
                breakers.abandon(self._pass)
            else:
                breakers.fail(self._pass, now, error, jitter=self._jitter)
        if error is None and self._name in self._budgets:
            self._budgets[self._name].earn()
        self._pass, self._running = None, False
        return Tried(
            leg=self._name,
            error=error,
            characters=self._leg_characters,
            seconds=now - self._pulse.called_at,
            continued=self._continuing,
            first_content=self._pulse.first_content,
            silence=self._pulse.silence,
            model=self._leg.model if self._leg else "",
        )
