"""What happened: a frozen record of every leg that was tried, and one of every request.

Rules of this file:

1. An `Attempt` is told as soon as a leg's part is over: to the log, to the metrics, to a short memory for ``status``.
   The log also hears when a cloud begins to be slow and when it no longer is, with the answer that tells it.
2. A `Record` is made once per request, at its end, of its attempts and of what `Answered` says; it may be kept for
   months, so it is stricter than the log: of a sentence it keeps our own words only, of a name what a name looks like.
3. Of requests that were turned away before anybody was asked only so many are kept, of the refused and of the failed
   each: a client in a loop must not push out what is worth knowing. The others are counted (`Counts.unrecorded`).
4. No text of a prompt or an answer ever comes here; a record knows lengths, faults and times.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.core.fault import NOBODYS, Fault
from appliance.core.first_words import NAME as SLOW
from appliance.core.first_words import sentence
from appliance.core.route import LOCAL

log = logging.getLogger("appliance.journal")

Ending = Literal["answered", "failed", "refused", "left"]
Outcome = Literal["answered", "taken over", "fell back", "refused", "failed", "left"]
OUTCOMES: tuple[Outcome, ...] = ("answered", "taken over", "fell back", "refused", "failed", "left")
GIVEN: tuple[Outcome, ...] = ("answered", "taken over", "fell back")
"""Those in which the client has a whole answer."""

REMEMBERED = 200
UNFINISHED = 10_000
"""Requests whose attempts are held until they end; there is no room for more than half as many connections."""
TURNED_AWAY = 60
"""Requests kept of those a minute that ended in the same way before anybody was asked."""
MOST_DEGRADED = 16
"""So many names of what was done less well are told, and kept."""
NOBODY = "nobody"
BLAMELESS = frozenset(fault.value for fault in NOBODYS | {Fault.REQUEST, Fault.TOO_LONG})
"""What went wrong and says nothing about whoever was asked: it was the caller, or we."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One leg's part in one answer. `at` is Unix time, `seconds` how long it took, `characters` what it gave.

    `model` is what the client asked for, in its own words, and `leg_model` what this leg calls it. `continued`: this
    leg went on from words that were there, another's or its own; `takeover` and `silence_s`: how long there was no
    content in between. `patient`: what was asked takes long to begin; `slow_s`: how long this leg lately takes to
    begin, if that is worth a warning. `blameless`: the fault proves nothing against the leg.
    """

    at: float
    request_id: str
    leg: str
    fault: Fault | None
    reason: str
    characters: int
    seconds: float
    continued: bool
    model: str = ""
    stream: bool = False
    first_content_s: float | None = None
    takeover: bool = False
    silence_s: float | None = None
    leg_model: str = ""
    patient: bool = False
    slow_s: float | None = None
    blameless: bool = False

    def fields(self) -> dict[str, object]:
        """What a structured log line says of it, by name."""
        known = {
            "request_id": self.request_id,
            "upstream": self.leg,
            "fault": self.fault.value if self.fault else None,
            "seconds": round(self.seconds, 4),
            "characters": self.characters,
            "model": self.model or None,
            "stream": self.stream,
            "first_content_s": _rounded(self.first_content_s),
            "takeover": self.takeover,
            "silence_s": _rounded(self.silence_s),
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request is over, in the words of whoever answered it.

    `at` is Unix time at its beginning, `seconds` how long it took. `taken_over`: another leg went on in mid-answer;
    `fallback`: why the first choice did not answer, if so. `passed_over` are the legs that were not even asked, because
    their breaker is open or they are offline. `degraded` is what `x-appliance-degraded` says.
    """

    at: float
    request_id: str
    ending: Ending
    served_by: str
    seconds: float
    dialect: str
    stream: bool
    model: str
    taken_over: bool = False
    fallback: str | None = None
    passed_over: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        if self.ending != "answered":
            return self.ending
        return "taken over" if self.taken_over else "fell back" if self.fallback is not None else "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One leg of a `Record`: an `Attempt` as it is kept. `at` is when its part was over. `fault` is a word and no
    `Fault`, because a file of records outlives our vocabulary."""

    name: str
    model: str
    at: float
    fault: str | None
    reason: str
    seconds: float
    first_content: float | None
    characters: int
    continued: bool
    silence: float | None
    patient: bool = False
    blameless: bool = False

    @property
    def failed(self) -> bool:
        """Did the leg fail, by its own fault?"""
        return self.fault is not None and not self.blameless and self.fault not in BLAMELESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request: what was asked, who was tried, who answered, how it ended."""

    at: float
    request_id: str
    outcome: Outcome
    dialect: str
    stream: bool
    model: str
    served_by: str
    seconds: float
    degraded: tuple[str, ...]
    passed_over: tuple[str, ...]
    legs: tuple[Asked, ...]

    @property
    def silence(self) -> float | None:
        """The longest time without content at a seam, if there was one."""
        return max((leg.silence for leg in self.legs if leg.silence is not None), default=None)

    @property
    def characters(self) -> Mapping[str, int]:
        """Of what the client has: how many characters came from whom? A leg that begins from the start makes what was
        there before void, and of a whole answer there is nothing before its end."""
        found: dict[str, int] = {}
        if self.outcome not in GIVEN and not self.stream:
            return found
        for leg in self.legs:
            if not leg.continued:
                found.clear()
            if leg.characters:
                found[leg.name] = found.get(leg.name, 0) + leg.characters
        return found


@dataclass(slots=True, kw_only=True)
class Counts:
    """Requests since the start. `fell_back`: answered by another than the first choice, before any content;
    `taken_over`: gone on with in mid-answer; `unrecorded`: counted here, but too many of a kind to make a record."""

    total: int = 0
    running: int = 0
    taken_over: int = 0
    fell_back: int = 0
    failed: int = 0
    unrecorded: int = 0


class Journal:
    def __init__(self, *told: Callable[[Attempt], None], keep: Callable[[Record], None] | None = None) -> None:
        """`told` hear of every attempt as well; `keep` gets the record of every request, and must not wait."""
        self.counts = Counts()
        self._told = told
        self._keep = keep
        self._recent: deque[Attempt] = deque(maxlen=REMEMBERED)
        self._unfinished: dict[str, list[Attempt]] = {}
        self._slow: set[str] = set()
        self._turned_away: defaultdict[Ending, deque[float]] = defaultdict(lambda: deque(maxlen=TURNED_AWAY))

    def turned_away(self, answered: Answered) -> None:
        """A request is over before anybody was asked to answer it."""
        self.counts.total += 1
        self.counts.failed += answered.ending == "failed"
        alike = self._turned_away[answered.ending]
        if len(alike) == TURNED_AWAY and abs(answered.at - alike[0]) < 60.0:
            self.counts.unrecorded += 1
            return
        alike.append(answered.at)
        self.finished(answered)

    def finished(self, answered: Answered) -> Record:
        """A request is over, after all its attempts; once for each request."""
        attempts = self._unfinished.pop(answered.request_id, ())
        record = Record(
            at=answered.at,
            request_id=answered.request_id,
            outcome=answered.outcome,
            dialect=answered.dialect,
            stream=answered.stream,
            model=name(answered.model),
            served_by=answered.served_by,
            seconds=answered.seconds,
            degraded=tuple(dict.fromkeys(map(name, answered.degraded)))[:MOST_DEGRADED],
            passed_over=tuple(dict.fromkeys(answered.passed_over)),
            legs=tuple(map(_asked, attempts)),
        )
        if self._keep is not None:
            self._keep(record)
        return record

    def record(self, attempt: Attempt) -> None:
        self._unfinished.setdefault(attempt.request_id, []).append(attempt)
        if len(self._unfinished) > UNFINISHED:
            del self._unfinished[next(iter(self._unfinished))]
        for tell in self._told:
            tell(attempt)
        if judged(attempt.leg, stream=attempt.stream) and attempt.first_content_s is not None:
            self._watch(attempt.leg, attempt.slow_s)
        after = "" if attempt.silence_s is None else f", gone on with after {attempt.silence_s:.3f} s of silence"
        if attempt.fault is None:
            log.info(
                "%s %s answered %d characters in %.2f s%s",
                attempt.request_id,
                attempt.leg,
                attempt.characters,
                attempt.seconds,
                after,
                extra=attempt.fields(),
            )
            return
        self._recent.append(attempt)
        # Somebody must fix a configuration; everything else heals or is the caller's.
        level = logging.ERROR if attempt.fault is Fault.CONFIG else logging.WARNING
        if attempt.fault is Fault.REQUEST or attempt.fault in NOBODYS or attempt.blameless:
            level = logging.INFO
        log.log(
            level,
            "%s %s failed (%s) after %d characters, %.2f s%s: %s",
            attempt.request_id,
            attempt.leg,
            attempt.fault.value,
            attempt.characters,
            attempt.seconds,
            after,
            attempt.reason,
            extra=attempt.fields(),
        )

    def _watch(self, leg: str, usual: float | None) -> None:
        """Is it slow now, and was not before, or the other way round?"""
        if (usual is not None) == (leg in self._slow):
            return
        self._slow ^= {leg}
        if usual is None:
            log.warning("%s is no longer %s", leg, SLOW, extra={"upstream": leg})
        else:
            log.warning("%s is %s", leg, sentence(usual), extra={"upstream": leg, "first_content_s": _rounded(usual)})

    def recent(self, count: int = 20) -> Sequence[Attempt]:
        """The last failed attempts, newest first."""
        return list(reversed(self._recent))[:count]


def judged(leg: str, *, stream: bool) -> bool:
    """Does its first content tell whether a cloud is slow to begin? That of a whole answer is its end."""
    return stream and leg != LOCAL


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


# ------------------------------------------------------------------------------------------ what may be kept

LONGEST_REASON = 200
_NAME = re.compile(r"[\w.:/@+\[\]-]{1,100}", re.ASCII)
_QUOTED = re.compile(r"""(?<![\w])(['"]).*?\1(?!\w)""")
_SECRET = re.compile(
    r"\b(?:Bearer|Basic)\s+\S+"
    r"|\b(?:sk|pk|rk|gsk|xai|key|hf|csk|pplx|nvapi)[-_][\w-]{6,}"
    r"|(?=[\w+/=-]*\d)[\w+/=-]{28,}",
    re.IGNORECASE,
)


def name(written: str) -> str:
    """A name that a client wrote, if it looks like one; whatever else it wrote there is not kept."""
    return written if not written or _NAME.fullmatch(written) else "?"


def own_words(fault: Fault | None, reason: str) -> str:
    """The sentence for a failure without what is quoted in it, and without what looks like a key. Sentences are ours
    (`core.chat.BackendError`), so this is the second lock on that door. A caller's mistake is told to the caller only:
    the sentence for it may name what was written."""
    if fault is Fault.REQUEST:
        return ""
    ours = _SECRET.sub("***", _QUOTED.sub("'...'", " ".join(reason.split())))[:LONGEST_REASON]
    return ours.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored


def _asked(attempt: Attempt) -> Asked:
    return Asked(
        name=attempt.leg,
        model=name(attempt.leg_model),  # where nothing is translated, it is what the client wrote
        at=attempt.at,
        fault=attempt.fault.value if attempt.fault else None,
        reason=own_words(attempt.fault, attempt.reason),
        seconds=attempt.seconds,
        first_content=attempt.first_content_s,
        characters=attempt.characters,
        continued=attempt.continued,
        silence=attempt.silence_s,
        patient=attempt.patient,
        blameless=attempt.blameless,
    )
