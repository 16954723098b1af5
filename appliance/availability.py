"""How available was each cloud, and what did the applications see? Computed from the journal's records.

Rules of this file:

1. A cloud is measured by what an application that talks to it alone would have seen: for each request that went its
   way, its first try. Down and therefore not even asked counts as down; a second try that ends well does not make the
   first one well.
2. Applications see whole requests: answered, by whomever, or failed.
3. What the caller got wrong, and a caller who left, count on neither side; nor does what proves nothing against a leg.
4. A share is exact, as two numbers; whoever shows it rounds down. Of nothing there is no share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.core.route import LOCAL
from appliance.journal import GIVEN, OUTCOMES, Record


@dataclass(frozen=True, slots=True)
class Share:
    """`well` of `asked`."""

    well: int
    asked: int

    @property
    def value(self) -> float | None:
        return self.well / self.asked if self.asked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One upstream, or the box. `faults` counts every failed try by its word, `passed_over` the requests that it was
    not even asked because it was known to be down."""

    name: str
    share: Share
    faults: Mapping[str, int]
    passed_over: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """`name` is what `day` made of the time."""

    name: str
    requests: int
    seen: Share
    clouds: Mapping[str, Share]


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Seconds without content at the seams; nearest rank, so each of them was really measured. ``None`` of nothing."""

    seams: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`first` and `last`: when the first and the last request began, Unix time. `outcomes` has every outcome."""

    requests: int
    first: float | None
    last: float | None
    seen: Share
    clouds: tuple[Leg, ...]
    box: Leg
    outcomes: Mapping[str, int]
    answered_by: Mapping[str, int]
    silence: Silence
    days: tuple[Day, ...]


def report(records: Iterable[Record], *, day: Callable[[float], str]) -> Report:
    """`day` names the day of a time, so that names sort like days: "2026-11-21"."""
    whole = _Span()
    days: dict[str, _Span] = {}
    for record in records:
        whole.add(record)
        name = day(record.at)
        if name not in days:
            days[name] = _Span()
        days[name].add(record)
    legs = {name: tally.leg(name) for name, tally in sorted(whole.legs.items())}
    return Report(
        requests=whole.requests,
        first=whole.first,
        last=whole.last,
        seen=whole.seen,
        clouds=tuple(leg for name, leg in legs.items() if name != LOCAL),
        box=legs.get(LOCAL) or _Tally().leg(LOCAL),
        outcomes={outcome: whole.outcomes[outcome] for outcome in OUTCOMES},
        answered_by=dict(whole.answered_by.most_common()),
        silence=_silence(whole.silences),
        days=tuple(
            Day(
                name=name,
                requests=span.requests,
                seen=span.seen,
                clouds={leg: tally.share for leg, tally in sorted(span.legs.items()) if leg != LOCAL},
            )
            for name, span in sorted(days.items())
        ),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of them that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def _silence(silences: Sequence[float]) -> Silence:
    p50, p95, p99 = (percentile(silences, share) for share in (0.5, 0.95, 0.99))
    return Silence(seams=len(silences), p50=p50, p95=p95, p99=p99)


@dataclass(slots=True)
class _Tally:
    """What one leg did."""

    well: int = 0
    asked: int = 0
    passed_over: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> Share:
        return Share(self.well, self.asked)

    def leg(self, name: str) -> Leg:
        return Leg(name=name, share=self.share, faults=dict(self.faults.most_common()), passed_over=self.passed_over)


@dataclass(slots=True)
class _Span:
    """What happened in some time."""

    requests: int = 0
    first: float | None = None
    last: float | None = None
    legs: dict[str, _Tally] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    silences: list[float] = field(default_factory=list)

    @property
    def seen(self) -> Share:
        given = sum(self.outcomes[outcome] for outcome in GIVEN)
        return Share(given, given + self.outcomes["failed"])

    def add(self, record: Record) -> None:
        self.requests += 1
        self.first = record.at if self.first is None else min(self.first, record.at)
        self.last = record.at if self.last is None else max(self.last, record.at)
        self.outcomes[record.outcome] += 1
        if record.outcome in GIVEN:
            self.answered_by[record.served_by] += 1
        judged = set(record.passed_over)
        for name in judged:
            self._of(name).asked += 1
            self._of(name).passed_over += 1
        for leg in record.legs:
            tally = self._of(leg.name)
            if leg.failed:
                assert leg.fault is not None
                tally.faults[leg.fault] += 1
            if leg.name not in judged:
                tally.asked += leg.failed or leg.fault is None
                tally.well += leg.fault is None
            judged.add(leg.name)
            if leg.silence is not None:
                self.silences.append(leg.silence)

    def _of(self, name: str) -> _Tally:
        if name not in self.legs:
            self.legs[name] = _Tally()
        return self.legs[name]
