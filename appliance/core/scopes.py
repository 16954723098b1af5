"""Is it sensible to ask this upstream for this model now? One breaker for the upstream, one for each of its models.

Rules of this file:

1. What is wrong with the way, the key or the servers is the upstream's; what is wrong with an answer, or with asking
   too much, is the model's. `scope` is the table.
2. A call needs leave from both. How it ended counts in the one that it tells about; to the other it proved nothing,
   unless it was that one's trial: a trial that was not answered has failed. An answer that reached its end speaks
   for both, and one that was bad all the same for the upstream.
3. A model the upstream does not know is remembered for a quarter of an hour, and says nothing about its other models.
4. Offline is no failure of anybody's. Nothing is asked meanwhile and nothing counted; afterwards a trial goes at once.
5. Models come from callers: of those that were not asked for lately only so many are remembered.
6. No clock and no randomness: `now` (seconds, monotonic) and `jitter` (in [0, 1)) are arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from appliance.core.breaker import CONFIG_COOLDOWN, Breaker, Pass, State
from appliance.core.fault import BackendError, Fault
from appliance.core.offline import Missing, sentence

MODELS = 256
LONGEST_NAME = 200  # characters by which a model is remembered
LATELY = 3600.0
_NEVER = float("inf")
_UNANSWERED = frozenset({Fault.UNREACHABLE, Fault.SERVER, Fault.SILENT, Fault.BROKEN})
"""Ways to end that are no answer at all. A cloud that is busy, or refuses, is there."""
_UNKNOWN = ("model_not_found", "not_found_error")
_UNAVAILABLE, _OVERLOADED = 503, 529  # 529 is the one 5xx that clouds say of a model

Scope = Literal["upstream", "model"]


def scope(error: BackendError) -> Scope:
    """Whom does this failure tell about?"""
    match error.fault:
        case Fault.UNREACHABLE:
            return "upstream"
        case Fault.SERVER:
            return "upstream" if error.status != _OVERLOADED else "model"
        case Fault.BUSY:
            return "upstream" if error.status == _UNAVAILABLE else "model"
        case Fault.CONFIG:
            return "upstream" if not unknown_model(error) else "model"
        case _:
            return "model"


def unknown_model(error: BackendError) -> bool:
    """Does the upstream say that it has no such model?"""
    return error.fault is Fault.CONFIG and (error.status == 404 or error.code in _UNKNOWN)


@dataclass(frozen=True, slots=True)
class Leave:
    """Leave to call, from the upstream and from the model; void for each of them in its next state."""

    upstream: Pass
    model: Pass
    breaker: Breaker = field(repr=False)  # the model's own, which may be forgotten meanwhile

    @property
    def trial(self) -> bool:
        return self.upstream.trial or self.model.trial

    @property
    def wary(self) -> bool:
        """Should the call be watched more closely than others?"""
        return self.upstream.wary or self.model.wary


@dataclass(slots=True)
class _Known:
    breaker: Breaker
    asked_at: float


class Breakers:
    """One upstream's health. Without a model, the questions are about whatever was asked for lately."""

    def __init__(self, *, failures: int = 3, cooldown: float = 10.0) -> None:
        self._failures = failures
        self._cooldown = cooldown
        self._upstream = self._breaker()
        self._models: OrderedDict[str, _Known] = OrderedDict()  # the one asked for last stands last
        self._missing: Missing | None = None
        self.lost_at: float | None = None
        """Since when there is no way to it."""
        self._forget_at = _NEVER  # when the first of the unknown models may be asked for again
        self.asked_at: float | None = None
        """When somebody last wanted an answer of it, whether or not it was let through."""
        self.answered_at: float | None = None
        """When an answer of it last reached its end."""

    # ------------------------------------------------------------------------------------------- questions

    @property
    def offline(self) -> Missing | None:
        """What is missing on the way to it, if anything."""
        return self._missing

    def state(self, now: float, model: str | None = None) -> State:
        """With a model, the sterner of the two scopes. Without one, what the luckiest of its models would meet."""
        if self._missing is not None:
            return "offline"
        states = [breaker.state(now) for breaker in self._asked_of(now, model)]
        mildest: State = min(states, key=_STERNNESS.index, default="closed")
        return max((self._upstream.state(now), mildest), key=_STERNNESS.index)

    def admits(self, now: float, model: str | None = None) -> bool:
        if self._missing is not None or not self._upstream.admits(now):
            return False
        asked = self._asked_of(now, model)
        return not asked or any(breaker.admits(now) for breaker in asked)

    def reopens_in(self, now: float, model: str | None = None) -> float | None:
        """Seconds until a trial may go; ``None`` unless open."""
        if self.state(now, model) != "open":
            return None
        of_models = [breaker.reopens_in(now) or 0.0 for breaker in self._asked_of(now, model)]
        return max(self._upstream.reopens_in(now) or 0.0, min(of_models, default=0.0))

    @property
    def failures(self) -> int:
        """Counted failures in a row, in whichever scope there are most."""
        return max(breaker.failures for breaker in self._all())

    @property
    def last(self) -> BackendError | None:
        """What last went wrong: the upstream's before a model's, the latest asked for first."""
        if self._missing is not None:
            return BackendError(Fault.UNREACHABLE, sentence(self._missing), status=502)
        return next((breaker.last for breaker in self._all() if breaker.last is not None), None)

    def why(self, now: float, model: str) -> BackendError | None:
        """What went wrong in the scope that lets nobody through to this model."""
        if self._missing is not None:
            return self.last
        own = self._find(model)
        if own is not None and self._upstream.admits(now) and not own.admits(now):
            return own.last
        return self._upstream.last

    @property
    def alarm(self) -> str | None:
        """What somebody must mend."""
        return next((breaker.alarm for breaker in self._all() if breaker.alarm is not None), None)

    def fresh(self, now: float, model: str = "") -> bool:
        """Has either scope closed so lately that the next call is to be watched more closely?"""
        own = self._find(model)
        return self._upstream.fresh(now) or (own is not None and own.fresh(now))

    def aside(self, now: float) -> dict[str, Breaker]:
        """The models that are not answered as usual, with their own breakers."""
        return {name: known.breaker for name, known in self._models.items() if known.breaker.state(now) != "closed"}

    def wants_probe(self, now: float) -> bool:
        """Would a free probe tell anything? Not while there is no way to it."""
        return self._missing is None and any(breaker.wants_probe(now) for breaker in self._all())

    def in_use(self, now: float) -> bool:
        """Does anybody care whether there is a way to it?"""
        lately = self.asked_at is not None and now - self.asked_at <= LATELY
        return lately or self._missing is not None or any(breaker.state(now) != "closed" for breaker in self._all())

    # -------------------------------------------------------------------------------------------- what came

    def begin(self, now: float, model: str = "", *, wanted: bool = True) -> Leave | None:
        """Leave to call now, or ``None``. Whoever gets it must give it back by `succeed`, `fail` or `abandon`.
        `wanted`: somebody wants the answer; else it is asked to find out only, and that is not use of it."""
        self.asked_at = now if wanted else self.asked_at
        if now >= self._forget_at:
            self._forget(now)
        own = self._own(model, now, wanted=wanted)
        if self._missing is not None or not own.admits(now):
            return None
        upstream = self._upstream.begin(now)
        if upstream is None:
            return None
        of_model = own.begin(now)
        assert of_model is not None
        return Leave(upstream, of_model, own)

    def succeed(self, leave: Leave, now: float) -> None:
        """The answer reached its terminal event."""
        self.answered_at = now
        self._upstream.succeed(leave.upstream, now)
        leave.breaker.succeed(leave.model, now)

    def fail(self, leave: Leave, now: float, error: BackendError, *, jitter: float) -> None:
        """The answer ended by `error`."""
        if self._missing is not None and error.fault is not Fault.CONFIG:
            self.abandon(leave)
            return
        upstream = scope(error) == "upstream"
        unanswered = error.fault in _UNANSWERED
        if upstream or (unanswered and leave.upstream.trial):
            self._upstream.fail(leave.upstream, now, error, jitter=jitter)
        elif error.fault is Fault.QUALITY:
            self.answered_at = now
            self._upstream.succeed(leave.upstream, now)
        else:
            self._upstream.abandon(leave.upstream)
        if not upstream or (unanswered and leave.model.trial):
            leave.breaker.fail(leave.model, now, error, jitter=jitter)
        else:
            leave.breaker.abandon(leave.model)
        if unknown_model(error):
            self._forget_at = min(self._forget_at, now + CONFIG_COOLDOWN)

    def abandon(self, leave: Leave) -> None:
        """The call proved nothing: the client left, or the mistake was the caller's own."""
        self._upstream.abandon(leave.upstream)
        leave.breaker.abandon(leave.model)

    def trip(self, now: float, error: BackendError, wait: float, model: str = "") -> None:
        """Open, in the scope that `error` tells about, for `wait` seconds."""
        (self._upstream if scope(error) == "upstream" else self._own(model, now)).trip(now, error, wait)

    def probed(self, well: bool, now: float) -> None:
        """A free probe says whether somebody is there."""
        for breaker in self._all():
            breaker.probed(well, now)

    def lose(self, missing: Missing, now: float) -> None:
        """There is no way to it: nobody is let through."""
        self.lost_at = now if self._missing is None else self.lost_at
        self._missing = missing

    def find(self, now: float) -> None:
        """There is a way again: a trial may go at once."""
        if self._missing is None:
            return
        self._missing = self.lost_at = None
        self._upstream.recover(now)
        for known in self._models.values():
            if known.breaker.state(now) != "closed":
                known.breaker.recover(now)

    def reset(self) -> None:
        """Closed, by hand; whatever runs under an older pass no longer counts."""
        self._missing = self.lost_at = None
        self._upstream.reset()
        for known in self._models.values():
            known.breaker.reset()

    # --------------------------------------------------------------------------------------------- decisions

    def _breaker(self) -> Breaker:
        return Breaker(failures=self._failures, cooldown=self._cooldown)

    def _all(self) -> Iterator[Breaker]:
        yield self._upstream
        for known in reversed(self._models.values()):
            yield known.breaker

    def _find(self, model: str) -> Breaker | None:
        known = self._models.get(model[:LONGEST_NAME])
        return known.breaker if known is not None else None

    def _own(self, model: str, now: float, *, wanted: bool = True) -> Breaker:
        """The model's breaker, from now on the one asked for last, if that was somebody's wish."""
        name = model[:LONGEST_NAME]
        known = self._models.get(name)
        if known is None:
            if len(self._models) >= MODELS:
                del self._models[self._dispensable(now)]
            known = self._models[name] = _Known(self._breaker(), asked_at=-_NEVER)
            self._models.move_to_end(name, last=False)
        if wanted:
            self._models.move_to_end(name)
            known.asked_at = now
        return known.breaker

    def _forget(self, now: float) -> None:
        """The unknown models whose time is over are strangers again, and no alarm to anybody."""
        unknown = {name: known.breaker for name, known in self._models.items() if _unknown(known.breaker)}
        for name, breaker in unknown.items():
            if breaker.state(now) != "open":
                del self._models[name]
        waits = [breaker.reopens_in(now) for breaker in unknown.values()]
        self._forget_at = now + min((wait for wait in waits if wait is not None), default=_NEVER)

    def _dispensable(self, now: float) -> str:
        """The model whose being forgotten is missed least."""
        names = iter(self._models)
        oldest = next(names)
        return next((name for name in self._models if self._models[name].breaker.state(now) == "closed"), oldest)

    def _asked_of(self, now: float, model: str | None) -> list[Breaker]:
        """The breakers of this model, or of those it has that were asked for lately."""
        if model is not None:
            own = self._find(model)
            return [own] if own is not None else []
        had = [known for known in self._models.values() if not _unknown(known.breaker)]
        return [known.breaker for known in had if now - known.asked_at <= LATELY] or [one.breaker for one in had[-1:]]


_STERNNESS: tuple[State, ...] = ("closed", "half-open", "open")


def _unknown(breaker: Breaker) -> bool:
    return breaker.last is not None and unknown_model(breaker.last)
