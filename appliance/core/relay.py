"""One request, from the first call to the last event. The takeover lives here.

Rules of this file:

1. Until the first piece of content has gone to the client, a failure is invisible: what came is thrown away and
   the next leg answers from the start.
2. After it, the answer continues. What the client has is *committed*, and only a leg that can go on from exactly
   there is called: inside a tool call, or behind one, that is the box, because no cloud takes half a call back. What
   cannot be continued (unknown content, several choices) ends in an error.
3. An end is an end only if somebody meant it: without a `Finish` every end is a failure. After one, whatever
   goes wrong no longer matters.
4. The caller's own mistake goes back to the caller, and nobody else is asked.
5. A whole answer goes out whole: nothing is sent before its end, so every failure of a cloud restarts it. Only
   what the box itself had written before its engine died is kept.
6. A cloud that takes no half-written turn is asked for the whole answer, once, and goes on only if that begins with
   what the client has (`echo`).
7. Two clouds are asked at a time only while neither has said a word; whoever speaks first answers.
8. When the engine's process dies, the box itself goes on after its restart; a request that was at work at two
   such deaths, and not just in line, is refused, so that one poisoned request cannot take everybody down.

The machine is told what happened (`start`, `receive`, `end`, `fail`, `expire`, `cancel`) and answers what to do, in
order (`actions`). Carry the list out before telling it more. It has no clock (`now` is an argument, in seconds,
monotonic) and no randomness (`jitter` is given at birth); it acts on the breakers it was given, which it shares with
the other requests of this thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from appliance.core.accounts import Accounts, silence
from appliance.core.actions import Action, Call, Done, Drop, Emit, Pause, Race
from appliance.core.attempt import LETTERS_PER_TOKEN, Attempt
from appliance.core.budget import Budget
from appliance.core.chat import ChatRequest
from appliance.core.draft import Draft
from appliance.core.events import Degraded, Event, Progress, Takeover
from appliance.core.fault import BackendError, Fault
from appliance.core.habits import Habits
from appliance.core.pulse import NEVER, Heard, Timeouts, moves_on, nobody, thinks
from appliance.core.route import KEPT, Leg, for_the_box, forgotten
from appliance.core.scopes import Breakers, Leave
from appliance.core.verdict import refused_after, stopped, stopping, verdict

DEATHS_TO_REFUSE = 2
SKIPPED = "breaker-open"
OFFLINE = "offline"
HEDGED = "hedge"


class Relay:
    def __init__(
        self,
        request: ChatRequest,
        legs: Sequence[Leg],
        breakers: Mapping[str, Breakers],
        *,
        limits: Timeouts,
        jitter: float = 0.5,
        habits: Mapping[str, Habits] | None = None,
        heard: Heard = nobody,
        budgets: Mapping[str, Budget] | None = None,
    ) -> None:
        self._request = request
        self._waiting = list(legs)
        self._stands_in = any(not leg.local for leg in legs)  # for the box: is it a cloud's conversation?
        self._accounts = Accounts(breakers, habits or {}, budgets or {}, limits=limits, jitter=jitter, heard=heard)
        self._one: Attempt | None = None  # the attempt whose answer it is to be, or that was the last one
        self._rival: Attempt | None = None  # another that runs beside it, while neither has said a word
        self._draft = Draft(request.n, request.dialect)
        self._again: set[str] = set()  # legs that were asked twice
        self._deaths = 0
        self.stopped: BackendError | None = None
        """What the client hears, once it is we who break the answer off."""
        self._errors: list[tuple[Leg, BackendError]] = []
        self._author: Attempt | None = None  # whose words came last,
        self._cut = SKIPPED  # and why there were no more of them
        self._repeated = False  # a cloud was asked to say again what the client has
        self.passed_over: list[str] = []
        """Who was not even asked, because he is known to be down."""
        self.fallback: str | None = None
        """Why the first choice did not answer, once that is so: a fault's word, ``breaker-open``, ``offline`` or
        ``hedge``."""

    @property
    def leg(self) -> Leg | None:
        """Who is being asked now, or was last."""
        return self._one.leg if self._one else None

    @property
    def deadline(self) -> float:
        """When `expire` is to be called, if nothing else has happened by then."""
        if self.stopped is not None:
            return 0.0
        deadline = self._accounts.given_up_at(self._one) if self._one else NEVER
        other = self._accounts.given_up_at(self._rival) if self._rival is not None else self._late
        return deadline if deadline < other else other

    @property
    def warning(self) -> float:
        """When the running leg's silence becomes odd, if nothing else has happened by then."""
        return self._one.pulse.warning if self._one else NEVER

    def phi(self, now: float) -> float | None:
        """How odd the running leg's silence is by now, if its history tells."""
        one = self._one
        return one.pulse.phi(now) if one is not None and one.running and not one.finished else None

    @property
    def left_out(self) -> frozenset[str]:
        """What was asked for and the box cannot do, once it is the box that is asked."""
        return frozenset(self._draft.left_out)

    @property
    def continuable(self) -> bool:
        """Could somebody else go on with what there is?"""
        return self._draft.continuable

    def standby(self) -> ChatRequest | None:
        """What the box would be asked if the running leg failed now; ``None`` if nobody would ask it, or if it could
        not go on from what there is."""
        draft = self._draft
        if self._one is None or self._one.leg.local or self._request.n != 1:
            return None
        if not any(leg.local for leg in self._waiting) or (draft.content and not draft.continuable):
            return None
        request = self._for_the_box(self._request)
        return request.continuing(draft.message) if draft.content and request.stream else request

    # -------------------------------------------------------------------------------------------- what came

    def start(self, now: float) -> list[Action]:
        return self._call_next(now)

    def receive(self, events: Sequence[Event], now: float, leg: str = "") -> list[Action]:
        """Events came from `leg`; from the one that was called last, if only one is being asked."""
        one = self._who(leg)
        over, spoke = one.finished, one.spoke
        try:
            heard = one.hear(events)
        except BackendError as error:
            return self._failed(one, error, now, blameless=True)  # it would have been an answer, only not this one
        for event in heard:
            if thinks(event):
                one.pulse.thinks(now)
            if not isinstance(event, Progress):
                one.add(event)
        finished = one.finished
        if finished and not over and one.empty:
            return self._failed(one, _empty(one), now)
        progress = any(map(moves_on, events))
        actions = self._settled(one, now) if progress or finished else []
        if progress and not over:
            one.pulse.content(events, now)
        if one.spoke and not spoke:
            one.pulse.went_on(now)
        if finished and not over:
            one.pulse.ended(now)
        draft = one.draft
        if draft.held and self._request.stream and (draft.content or finished):
            actions.append(Emit(draft.release()))
        return actions

    def end(self, now: float, leg: str = "") -> list[Action]:
        """The leg's events are over."""
        one = self._who(leg)
        if one.finished or (one.complete and not one.empty):
            return [*self._settled(one, now), *self._finish(one, now)]
        if one.complete:
            return self._failed(one, _empty(one), now)
        return self._failed(one, BackendError(Fault.BROKEN, f"{one.leg.name} closed the answer before its end."), now)

    def fail(self, error: BackendError, now: float, leg: str = "") -> list[Action]:
        """The leg failed, or refused."""
        one = self._who(leg)
        return self._finish(one, now) if one.finished else self._failed(one, error, now)

    def _failed(self, one: Attempt, error: BackendError, now: float, *, blameless: bool = False) -> list[Action]:
        if self._rival is not None:
            return self._lost(one, error, now)
        pause = self._worth_another_try(one, error, now)
        tried = self._accounts.over(one, error, now, counts=pause is None, blameless=blameless)
        self._errors.append((one.leg, error))
        if one.spoke:
            self._author, self._cut = one, error.fault.value
        crashed = error.fault in (Fault.CRASHED, Fault.STOPPED)  # the next process goes on
        if not (one.draft.content and (self._request.stream or (crashed and one.draft.continuable))):
            # Nothing of it has gone out: the next leg answers from the start.
            self._draft = Draft(self._request.n, self._request.dialect)
        if crashed:
            self._deaths += not error.innocent
            if self._deaths >= DEATHS_TO_REFUSE:
                return [tried, Done(refused_after(self._deaths))]
            self._waiting.insert(0, one.leg)
        elif error.fault is Fault.REQUEST and not self._ours_to_answer_for(one):
            return [tried, Done(error)]
        elif pause is not None:
            self._again.add(one.leg.name)
            return [tried, Pause(pause), *self._enter(one.leg, self._accounts.leave(one.leg, now), now + pause)]
        else:
            self.fallback = self.fallback or error.fault.value
        return [tried, *self._call_next(now)]

    def expire(self, now: float) -> list[Action]:
        """The deadline passed."""
        assert self._one is not None
        if now < self.deadline:
            return []  # it has moved since: the way to a cloud is back
        if self.stopped is not None and not self._one.finished:
            return [*self.cancel(now)[:-1], Done(self.stopped)]
        if self._rival is None and now >= self._late:
            actions = self._race(now)
            if actions or now < self._accounts.given_up_at(self._one):
                return actions
        one = self._one
        if self._rival is not None and now < self._accounts.given_up_at(one):
            one = self._rival
        if one.finished:
            return self._finish(one, now)
        return self._failed(one, self._accounts.given_up(one, now), now)

    def cancel(self, now: float) -> list[Action]:
        """The client left, or is `stopped`: nobody's failure. If it had its whole answer by then, that is an answer."""
        if self._one is None or not self._one.running:
            return [Done()]
        gone = BackendError(Fault.GONE, "The client left.") if self.stopped is None else stopped()
        if now < self._one.pulse.called_at:  # between two tries: the second was never made
            self._accounts.unused(self._one.leg, self._one.leave)
            return [Done()]
        running = [one for one in (self._one, self._rival) if one is not None]
        self._rival = None
        return [*(self._accounts.over(one, None if one.finished else gone, now) for one in running), Done()]

    def stop(self) -> None:
        """The service ends, and cannot wait for this one: `expire` is due."""
        self.stopped = stopping()

    def held_up(self, seconds: float) -> None:
        """The client was slow to take what it was given; that time is not the leg's."""
        if self._one is not None:
            self._one.pulse.held_up(seconds)

    # ------------------------------------------------------------------------------------------------ a race

    @property
    def wants_company(self) -> bool:
        """Do two clouds race, or might they soon? Then a deadline may begin a call, and must not end one."""
        return self._rival is not None or self._late != NEVER

    @property
    def _late(self) -> float:
        """When another cloud is to be asked as well."""
        one = self._one
        if one is None or not one.leg.hedge or one.draft.content or not self._waiting or self._waiting[0].local:
            return NEVER
        on_trial = one.leave is not None and one.leave.trial  # which is to show whether that one answers
        return NEVER if on_trial else one.pulse.late

    def _race(self, now: float) -> list[Action]:
        """The next cloud is asked beside the late one, unless that would be a trial, or too many such."""
        assert self._one is not None
        self._one.pulse.late = NEVER
        leg = self._waiting[0]
        if not self._accounts.well(leg, now) or not self._accounts.affords(self._one, now):
            return []
        leave = self._accounts.leave(leg, now)
        assert leave is not None  # nobody is turned away from a closed one
        del self._waiting[0]
        self._rival = self._attempt(leg, leave, self._request, Draft(self._request.n, self._request.dialect), now)
        return [Race(leg, self._request)]

    def _settled(self, one: Attempt, now: float) -> list[Action]:
        """`one` has said a word: it is its answer, and the other's call is over."""
        other = self._other(one)
        if other is None:
            return []
        quicker = BackendError(Fault.GONE, f"{one.leg.name} was quicker.")
        silent = None
        if one is self._rival:
            self.fallback = self.fallback or HEDGED
            silent = silence(other, now) if other.pulse.outrun(now) else None
        return [self._accounts.over(other, quicker, now, against=silent), *self._alone(one, other)]

    def _lost(self, one: Attempt, error: BackendError, now: float) -> list[Action]:
        """Of two that run, `one` failed, and neither had said a word."""
        other = self._other(one)
        assert other is not None
        tried = self._accounts.over(one, error, now)
        if error.fault is Fault.REQUEST and one is self._one:
            gone = BackendError(Fault.GONE, "The request was the caller's mistake.")
            return [tried, self._accounts.over(other, gone, now), Drop(other.leg), Done(error)]
        if error.fault is Fault.REQUEST:
            self._waiting.insert(0, one.leg)  # it was asked out of turn: what it says counts when it is its own
        else:
            self._errors.append((one.leg, error))
        if one is self._one:
            self.fallback = self.fallback or error.fault.value
        return [tried, *self._alone(other, one)]

    def _alone(self, one: Attempt, other: Attempt) -> list[Action]:
        self._one, self._rival, self._draft = one, None, one.draft
        return [Drop(other.leg)]

    def _who(self, leg: str) -> Attempt:
        assert self._one is not None
        if self._rival is not None and self._rival.leg.name == leg:
            return self._rival
        return self._one

    def _other(self, one: Attempt) -> Attempt | None:
        return self._one if one is self._rival else self._rival

    # --------------------------------------------------------------------------------------------- decisions

    def _ours_to_answer_for(self, one: Attempt) -> bool:
        """Is a refusal by this leg not the caller's mistake? The box in a cloud's stead was not asked by the caller,
        and half an answer to go on from is our addition to the request."""
        return one.continuing or (one.leg.local and self._stands_in)

    def _call_next(self, now: float) -> list[Action]:
        while self._waiting:
            leg = self._waiting.pop(0)
            if self._draft.content and not (self._draft.continuable and self._can_go_on(leg)):
                continue
            leave = self._accounts.leave(leg, now)
            if self._accounts.refused(leg, leave):
                self._errors.append((leg, self._accounts.why(leg, now)))
                self.fallback = self.fallback or (OFFLINE if self._accounts.offline(leg) else SKIPPED)
                self.passed_over.append(leg.name)
                continue
            if self._draft.content and not leg.continues:
                assert self._one is not None
                if not self._accounts.affords(self._author or self._one, now):
                    self._accounts.unused(leg, leave)
                    continue
                self._repeated = True
            return self._enter(leg, leave, now)
        if KEPT in self._request.needs and not self._draft.content:
            return [Done(forgotten())]
        stuck = self._draft.content and not self._draft.continuable
        return [Done(verdict(self._errors, stands_in=self._stands_in, stuck=stuck))]

    def _can_go_on(self, leg: Leg) -> bool:
        """Can it be asked to go on from what the client has? With half a call only the box can be."""
        if self._draft.given.called:
            return leg.local
        return leg.continues or self._may_repeat(leg)

    def _may_repeat(self, leg: Leg) -> bool:
        """Is it worth asking a cloud that cannot go on from half an answer for the whole of it? Once, and it has to be
        words: what was thought before them nobody thinks twice."""
        return not (leg.local or self._repeated) and self._request.stream and self._draft.given.spoken

    def _enter(self, leg: Leg, leave: Leave | None, now: float) -> list[Action]:
        draft, request, seam = self._draft, self._request, None
        if leg.local:
            request = self._for_the_box(request)
            missing = [what for what in leg.lacks(self._request) if what not in draft.left_out]
            draft.left_out.update(missing)
            draft.held += [Degraded(what=what) for what in missing]
        if draft.content:
            assert self._one is not None
            begun = draft.given.characters
            if leg.name != self._one.leg.name:
                author = self._author or self._one
                seam = Takeover(source=author.leg.name, target=leg.name, after=begun, reason=self._cut)
            if leg.continues:
                draft.held += [seam] if seam else []
                seam = None
                request = request.continuing(draft.message)
                if request.max_tokens is not None and not leg.local:
                    # The box counts what it was given exactly, a cloud does not count it at all.
                    request = replace(request, max_tokens=max(1, request.max_tokens - begun // LETTERS_PER_TOKEN))
        actions: list[Action] = []
        if draft.content and request.stream and draft.held:
            actions.append(Emit(draft.release()))
        self._one = self._attempt(leg, leave, request, draft, now, seam)
        return [*actions, Call(leg, request)]

    def _attempt(
        self,
        leg: Leg,
        leave: Leave | None,
        request: ChatRequest,
        draft: Draft,
        now: float,
        seam: Takeover | None = None,
    ) -> Attempt:
        author = self._author if draft.content else None
        left_off = author.pulse.last if author is not None and author.leg.name != leg.name else None
        pulse = self._accounts.pulse(leg, request, leave, now, left_off=left_off)
        return Attempt(leg, leave, request, draft, pulse, seam=seam)

    def _worth_another_try(self, one: Attempt, error: BackendError, now: float) -> float | None:
        """Seconds to wait before the same cloud is asked once more, if that is better than the next leg."""
        if one.leg.local or one.draft.content or one.leg.name in self._again:
            return None
        return self._accounts.worth_another_try(one, error, now)

    def _for_the_box(self, request: ChatRequest) -> ChatRequest:
        too_long = any(error.fault is Fault.TOO_LONG for _, error in self._errors)
        return for_the_box(request, stands_in=self._stands_in, trim=not too_long)

    def _finish(self, one: Attempt, now: float) -> list[Action]:
        actions: list[Action] = [self._accounts.over(one, None, now)]
        if one.draft.held:
            actions.append(Emit(one.draft.release()))
        return [*actions, Done()]


def _empty(one: Attempt) -> BackendError:
    return BackendError(Fault.BROKEN, f"{one.leg.name} ended its answer without any content.")
