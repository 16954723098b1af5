"""When was who down or slow, how long, and who answered meanwhile? Computed from the journal's records.

Rules of this file:

1. An incident of an upstream begins with its first failure after it was well, and ends with the first answer that it
   brought to its end and that was asked of it after that failure. One that was under way already tells of before.
2. What proves nothing against whoever was asked is neither a failure nor an answer (`journal.Asked.failed`): what the
   caller got wrong, a caller who left, another answer than the one that was to be repeated.
3. Requests that were not even asked of it, because it was known to be down, are affected by the incident too.
4. A cloud that was slow to begin, as `core.first_words` says it, has an entry of another kind: it was not down, and
   whoever is down need not have been slow. What counts for it is when its streamed answers were over, but for those
   to what takes long by its nature (`Asked.patient`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from appliance.core.first_words import FirstWords
from appliance.journal import GIVEN, NOBODY, Record, judged

Kind = Literal["down", "slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Times are Unix time; `end` is ``None`` while it lasts. `faults` counts the failures by word; `requests` is how
    many were affected, of which `passed_over` were not even asked; `answered_by` says who gave the answers in the end,
    without those of clients that left. One of the kind "slow" has no faults; `first_content_s` is how long the first
    word took at worst, in the median."""

    kind: Kind = "down"
    upstream: str
    begin: float
    end: float | None
    faults: Mapping[str, int]
    requests: int
    passed_over: int
    answered_by: Mapping[str, int]
    first_content_s: float | None = None


def incidents(records: Iterable[Record], *, now: float = -math.inf) -> tuple[Incident, ...]:
    """The incidents of all upstreams, the box among them, in the order in which they began. `now` is Unix time: who was
    slow and has not been asked since, is so no longer some time later."""
    sights: list[_Sight] = []
    words: list[_Word] = []
    for record in records:
        sights += _sights(record)
        words += _words(record)
    found = [*_down(sights), *_slow(words, now)]
    return tuple(sorted(found, key=lambda incident: (incident.begin, incident.upstream, incident.kind)))


def _down(sights: Iterable[_Sight]) -> Iterator[Incident]:
    running: dict[str, _Running] = {}
    for sight in sorted(sights, key=lambda sight: sight.at):
        one = running.get(sight.upstream)
        if sight.fault is not None:
            if one is None:
                one = running[sight.upstream] = _Running(sight.upstream, sight.at)
            one.faults[sight.fault] += 1
            one.touch(sight.request_id, sight.answered_by)
        elif one is None:
            continue
        elif sight.passed_over:
            one.passed_over += 1
            one.touch(sight.request_id, sight.answered_by)
        elif sight.asked_at >= one.begin:
            yield one.over(sight.at)
            del running[sight.upstream]
    for one in running.values():
        yield one.over(None)


def _slow(words: Iterable[_Word], now: float) -> Iterator[Incident]:
    heard: defaultdict[str, FirstWords] = defaultdict(FirstWords)
    running: dict[str, _Running] = {}
    for word in sorted(words, key=lambda word: word.at):
        upstream = heard[word.upstream]
        one = running.pop(word.upstream, None)
        if one is not None and upstream.fades_at < word.at:
            yield one.over(upstream.fades_at)
            one = None
        upstream.began(word.seconds, word.at)
        usual = upstream.slow(word.at)
        if usual is not None:
            one = running[word.upstream] = one or _Running(word.upstream, word.at, kind="slow")
            one.first_content_s = max(one.first_content_s or 0.0, usual)
            one.touch(word.request_id, word.answered_by)
        elif one is not None:
            yield one.over(word.at)
    for name, one in running.items():
        fades_at = heard[name].fades_at
        yield one.over(fades_at if fades_at < now else None)


class _Sight(NamedTuple):
    """One look at an upstream: it failed, or answered, or was passed over."""

    at: float
    upstream: str
    asked_at: float
    fault: str | None
    passed_over: bool
    request_id: str
    answered_by: str


def _sights(record: Record) -> Iterator[_Sight]:
    by = _answered_by(record)
    for upstream in record.passed_over:
        yield _Sight(record.at, upstream, record.at, None, True, record.request_id, by)
    for leg in record.legs:
        if leg.failed or leg.fault is None:
            yield _Sight(leg.at, leg.name, leg.at - leg.seconds, leg.fault, False, record.request_id, by)


class _Word(NamedTuple):
    """The first word of a streamed answer came after so many seconds."""

    at: float
    upstream: str
    seconds: float
    request_id: str
    answered_by: str


def _words(record: Record) -> Iterator[_Word]:
    by = _answered_by(record)
    for leg in record.legs:
        if judged(leg.name, stream=record.stream) and leg.first_content is not None and not leg.patient:
            yield _Word(leg.at, leg.name, leg.first_content, record.request_id, by)


def _answered_by(record: Record) -> str:
    return record.served_by if record.outcome in GIVEN else NOBODY if record.outcome == "failed" else ""


@dataclass(slots=True)
class _Running:
    """An incident that goes on."""

    upstream: str
    begin: float
    kind: Kind = "down"
    faults: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    first_content_s: float | None = None
    answered_by: dict[str, str] = field(default_factory=dict)  # by request: two tries of it are still one

    def touch(self, request_id: str, answered_by: str) -> None:
        self.answered_by[request_id] = answered_by

    def over(self, end: float | None) -> Incident:
        return Incident(
            kind=self.kind,
            upstream=self.upstream,
            begin=self.begin,
            end=end,
            faults=dict(self.faults.most_common()),
            requests=len(self.answered_by),
            passed_over=self.passed_over,
            answered_by=dict(Counter(name for name in self.answered_by.values() if name).most_common()),
            first_content_s=self.first_content_s,
        )
