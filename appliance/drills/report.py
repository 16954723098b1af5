"""What would an application have seen? For an operator as a table, row by row, for a program as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from appliance.core.fault import Fault
from appliance.drills.application import Heard
from appliance.drills.counting import Count, Counting
from appliance.drills.faults import OUTCOMES, CloudFault
from appliance.drills.flood import Flooded
from appliance.drills.verdict import Standing

FINE, WRONG = "ok", "NOT ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One request in front of one failing cloud. No complaints: the application saw what it should, and the breakers
    counted what they should."""

    fault: CloudFault
    stream: bool
    heard: Heard
    seconds: float = 0.0
    cloud_characters: int = 0
    standings: tuple[Standing, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.fault.outcome(stream=self.stream)]

    @property
    def box_characters(self) -> int:
        return max(0, len(self.heard.text) - self.cloud_characters)

    @property
    def answered_by(self) -> tuple[str, ...]:
        """Whoever the answer is of, one after the other."""
        first = self.heard.headers.get("x-appliance-served-by")
        then = [takeover.partition("->")[2].rpartition(" after=")[0] for takeover in self.heard.takeovers]
        return (*([first] if first else []), *then)

    @property
    def reason(self) -> str | None:
        """Why it was not the first cloud to the end."""
        if self.heard.takeovers:
            return self.heard.takeovers[-1].rpartition("reason=")[2]
        return self.heard.headers.get("x-appliance-fallback")

    @property
    def silence_ms(self) -> float | None:
        """How long the application waited: at the seam, or for the first piece if there was none before it."""
        seconds = self.heard.first_content if self.heard.seam is None else self.heard.seam
        return None if seconds is None else seconds * 1000

    def to_json(self) -> dict[str, Any]:
        heard = self.heard
        return {
            "drill": self.fault.name,
            "says": self.fault.says,
            "api": heard.api,
            "asked": "streamed" if self.stream else "whole",
            "expected": self.outcome,
            "as_expected": not self.complaints,
            "complaints": list(self.complaints),
            "status": heard.status,
            "answered_by": list(self.answered_by),
            "reason": self.reason,
            "cloud_characters": self.cloud_characters,
            "box_characters": self.box_characters,
            "finish_reasons": list(heard.finishes),
            "silence_ms": None if self.silence_ms is None else round(self.silence_ms, 1),
            "seconds": round(self.seconds, 3),
            "waited_out": self.fault.waited_out,
            "takeovers": list(heard.takeovers),
            "breakers": [asdict(standing) for standing in self.standings],
            "headers": {name: value for name, value in heard.headers.items() if name.startswith("x-appliance-")},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rehearsals of one run. `waits`: the shortened limits for a connection, first content, stall and the whole
    answer; not known where it ended before the model was there. `interrupted`: it is not all that was asked for."""

    model: str
    clouds: tuple[str, ...]
    made_up: bool
    waits: tuple[float, float | str, float | str, float] | None = None
    rehearsals: tuple[Rehearsal, ...] = ()
    floods: tuple[Flooded, ...] = ()
    counting: Counting | None = None
    interrupted: bool = False

    def and_also(self, found: Finding) -> Report:
        match found:
            case Flooded():
                return replace(self, floods=(*self.floods, found))
            case Counting():
                return replace(self, counting=found)
            case Rehearsal():
                return replace(self, rehearsals=(*self.rehearsals, found))

    @property
    def wrong(self) -> list[str]:
        """The name of the drill, for each answer or crowd that was not as promised."""
        rehearsals = [one.fault.name for one in self.rehearsals if one.complaints]
        floods = [one.name for one in self.floods if one.complaints]
        return [*rehearsals, *floods, *(["count-tokens"] if self.counting and self.counting.complaints else [])]

    @property
    def fine(self) -> bool:
        return not self.wrong


Finding = Rehearsal | Flooded | Counting


def as_json_text(report: Report) -> str:
    names = ("connect", "first_content", "stall", "total")
    found = {
        "as_expected": report.fine and not report.interrupted,
        "interrupted": report.interrupted,
        "model": report.model,
        "clouds": list(report.clouds),
        "clouds_made_up": report.made_up,
        "shortened_timeouts": dict(zip(names, report.waits, strict=True)) if report.waits else None,
        "rehearsals": [rehearsal.to_json() for rehearsal in report.rehearsals],
        "floods": [{**asdict(one), "as_expected": not one.complaints} for one in report.floods],
        "counting": asdict(report.counting) if report.counting else None,
    }
    return json.dumps(found, ensure_ascii=False, indent=2)


class Table:
    """One line after the other, each as soon as it is known: whoever ends a rehearsal early has what it had found. So
    the columns are as wide as what may come, of these `drills`, `clouds` and `wires`."""

    def __init__(self, drills: Sequence[CloudFault | str], clouds: Sequence[str], wires: Collection[str]) -> None:
        faults = [drill for drill in drills if isinstance(drill, CloudFault)]
        seen = [OUTCOMES[outcome] for fault in faults for outcome in (fault.streamed, fault.whole)]
        self._wires = len(wires) > 1 or "openai" not in wires  # worth a column only where there is another
        self._begun = False
        self._widths = [
            max(map(len, column))
            for column in (
                ["drill", *(fault.name for fault in faults)],
                ["wire", *wires],
                ["streamed"],
                ["what the application saw", *seen],
                ["by", *(f"{cloud} > local" for cloud in clouds)],
                *(["9999 ch"],) * 2,
                ["ends"],
                ["silence", "99999 ms*"],
                ["why", *(fault.value for fault in Fault)],
                ["breaker", "open 900 s"],
                [WRONG],
            )
        ]

    def lines(self, found: Finding) -> Iterator[str]:
        match found:
            case Flooded():
                yield from _flooded(found)
            case Counting():
                yield from _counting(found)
            case Rehearsal():
                if not self._begun:
                    self._begun = True
                    yield self._line(_HEAD)
                yield self._line(_row(found))
                yield from _complaints(found)

    def _line(self, cells: Sequence[str]) -> str:
        columns = [*zip(cells, self._widths, strict=True)]
        return _aligned(columns if self._wires else [columns[0], *columns[2:]])


_HEAD = (
    *("drill", "wire", "asked", "what the application saw", "by", "cloud", "box", "ends", "silence", "why"),
    *("breaker", ""),
)


def summary(report: Report) -> str:
    """What is to be said at the end: one line that sums it up, after what has to be known to read the table."""
    return "\n".join([*_notes(report), _summary(report)])


def _row(rehearsal: Rehearsal) -> tuple[str, ...]:
    heard, silence = rehearsal.heard, rehearsal.silence_ms
    waited = "*" if rehearsal.fault.waited_out or rehearsal.fault.within else ""
    return (
        rehearsal.fault.name,
        heard.api,
        "streamed" if rehearsal.stream else "whole",
        "not what it should: see below" if rehearsal.complaints else rehearsal.outcome,
        " > ".join(rehearsal.answered_by) or "-",
        f"{rehearsal.cloud_characters} ch",
        f"{rehearsal.box_characters} ch",
        str(len(heard.finishes)),
        "-" if silence is None else f"{silence:.0f} ms{waited}",
        rehearsal.reason or "-",
        _breakers(rehearsal.standings),
        WRONG if rehearsal.complaints else FINE,
    )


def _breakers(standings: Sequence[Standing]) -> str:
    """One word where all of those that changed are alike."""
    touched = [standing for standing in standings if not standing.untouched]
    words = list(dict.fromkeys(map(str, touched)))
    if len(words) < 2:
        return words[0] if words else "-"
    return ", ".join(f"{standing.cloud} {standing}" for standing in touched)


def _complaints(one: Rehearsal) -> Iterator[str]:
    if one.complaints:
        asked = "streamed" if one.stream else "whole"
        yield f"{WRONG}: {one.fault.name}, {one.heard.api}, {asked}: {'; '.join(one.complaints)}."
        yield f"        It should have been {one.outcome}."


def _flooded(one: Flooded) -> Iterator[str]:
    what = "requests at once" if one.name == "flood" else "connections with a request at once"
    parts = [f"{one.by_cloud} answered by a cloud", f"{one.by_box} by the box"]
    parts += [f"{count} told to come back ({status})" for status, count in one.refused.items()]
    if one.idle:
        parts.append(f"{one.idle} idle connections gave way")
    yield f"{one.name}, {one.api}: {one.sent} {what}, in {one.seconds:.1f} s: {', '.join(parts)}."
    yield f"        The next request was answered by {one.after} in {one.after_ms:.0f} ms.  {_judged(one.complaints)}"


def _counting(counting: Counting) -> Iterator[str]:
    yield (
        f"count-tokens, anthropic: {_count(counting.well)}; when the cloud fails: {_count(counting.unwell)}."
        f"  {_judged(counting.complaints)}"
    )


def _count(count: Count) -> str:
    return f"{count.tokens} tokens {'guessed' if count.guessed else 'counted'} by {count.by}"


def _judged(complaints: Sequence[str]) -> str:
    return f"{WRONG}: {'; '.join(complaints)}" if complaints else FINE


def _notes(report: Report) -> list[str]:
    notes = []
    if report.made_up:
        notes.append("No cloud is configured; one was made up for the rehearsal.")
    if report.waits and any(rehearsal.fault.waited_out for rehearsal in report.rehearsals):
        connect, first, stall, total = report.waits
        notes.append(
            f"* The limits for silence are shortened in a rehearsal: connection {_seconds(connect)}, first content "
            f"{_seconds(first)}, in mid-answer {_seconds(stall)}, whole answers {_seconds(total)}."
        )
    return notes


def _seconds(wait: float | str) -> str:
    return wait if isinstance(wait, str) else f"{wait:.1f} s"


def _summary(report: Report) -> str:
    who = f"{report.model} in place of {', '.join(report.clouds)}"
    answers = len(report.rehearsals)
    crowds = len(report.floods) + (report.counting is not None)
    count = " and ".join(
        [*([_counted(answers, "answer")] if answers else []), *([_counted(crowds, "trial")] if crowds else [])]
    )
    so_far = "Interrupted: " if report.interrupted else ""
    if report.wrong:
        names = ", ".join(dict.fromkeys(report.wrong))
        return f"{so_far}{len(report.wrong)} of {count or 'nothing'} not as promised ({names}); {who}."
    streams = [one for one in report.rehearsals if one.stream and not one.fault.waited_out]
    quick = [one.silence_ms for one in streams if one.silence_ms is not None]
    longest = f"; longest silence in a stream {max(quick):.0f} ms, where nothing had to be waited out" if quick else ""
    if not count:
        nothing = "nothing is known yet" if so_far else "There was nothing to rehearse with this configuration"
        return f"{so_far}{nothing}; {who}."
    fine = f"{so_far}{count} as promised" if so_far else f"All {count} were as promised"
    return f"{fine}{longest}; {who}."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listing(drills: Mapping[str, CloudFault | str], *, as_json: bool) -> str:
    """The drills there are; one that is no fault of one cloud says what it is."""
    if as_json:
        return json.dumps([_listed(name, drill) for name, drill in drills.items()], ensure_ascii=False, indent=2)
    head = ("drill", "what the cloud does", "what a streaming application should see")
    rows = [head, *((name, *_said(drill)) for name, drill in drills.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_aligned(zip(row, widths, strict=True)) for row in rows)


def _said(drill: CloudFault | str) -> tuple[str, str]:
    return (drill, "-") if isinstance(drill, str) else (drill.says, OUTCOMES[drill.streamed])


def _listed(name: str, drill: CloudFault | str) -> dict[str, str | None]:
    if isinstance(drill, str):
        return {"name": name, "says": drill, "streamed": None, "whole": None}
    return {"name": name, "says": drill.says, "streamed": OUTCOMES[drill.streamed], "whole": OUTCOMES[drill.whole]}


def _aligned(columns: Iterable[tuple[str, int]]) -> str:
    """One line of cells, each in its width."""
    return "  ".join(cell.ljust(width) for cell, width in columns).rstrip()
