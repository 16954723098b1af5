"""When was who down, how long, and who answered meanwhile? Computed from the journal's records.

Rules of this file:

1. An incident of an upstream begins with its first failure after it was well, and ends with the first answer that it
   brought to its end and that was asked of it after that failure. One that was under way already tells of before.
2. What the caller got wrong, and a caller who left, are neither a failure nor an answer (`journal.BLAMELESS`).
3. Requests that were not even asked of it, because it was known to be down, are affected by the incident too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from appliance.journal import GIVEN, Record

NOBODY = "nobody"
"""Answered a request that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Times are Unix time; `end` is ``None`` while it lasts. `faults` counts the failures by word; `requests` is how
    many were affected, of which `passed_over` were not even asked; `answered_by` says who gave the answers in the end,
    without those of clients that left."""

    upstream: str
    begin: float
    end: float | None
    faults: Mapping[str, int]
    requests: int
    passed_over: int
    answered_by: Mapping[str, int]


def incidents(records: Iterable[Record]) -> tuple[Incident, ...]:
    """The incidents of all upstreams, the box among them, in the order in which they began."""
    found: list[Incident] = []
    running: dict[str, _Running] = {}
    sights = [sight for record in records for sight in _sights(record)]
    for sight in sorted(sights, key=lambda sight: sight.at):
        one = running.get(sight.upstream)
        if sight.fault is not None:
            if one is None:
                one = running[sight.upstream] = _Running(sight.upstream, sight.at)
            one.faults[sight.fault] += 1
            one.touch(sight)
        elif one is None:
            continue
        elif sight.passed_over:
            one.passed_over += 1
            one.touch(sight)
        elif sight.asked_at >= one.begin:
            found.append(one.over(sight.at))
            del running[sight.upstream]
    found += [one.over(None) for one in running.values()]
    return tuple(sorted(found, key=lambda incident: (incident.begin, incident.upstream)))


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
    by = record.served_by if record.outcome in GIVEN else NOBODY if record.outcome == "failed" else ""
    for upstream in record.passed_over:
        yield _Sight(record.at, upstream, record.at, None, True, record.request_id, by)
    for leg in record.legs:
        if leg.failed or leg.fault is None:
            yield _Sight(leg.at, leg.name, leg.at - leg.seconds, leg.fault, False, record.request_id, by)


@dataclass(slots=True)
class _Running:
    """An incident that goes on."""

    upstream: str
    begin: float
    faults: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    answered_by: dict[str, str] = field(default_factory=dict)  # by request: two tries of it are still one

    def touch(self, sight: _Sight) -> None:
        self.answered_by[sight.request_id] = sight.answered_by

    def over(self, end: float | None) -> Incident:
        return Incident(
            upstream=self.upstream,
            begin=self.begin,
            end=end,
            faults=dict(self.faults.most_common()),
            requests=len(self.answered_by),
            passed_over=self.passed_over,
            answered_by=dict(Counter(name for name in self.answered_by.values() if name).most_common()),
        )
