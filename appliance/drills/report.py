"""What would an application have seen? For an operator as a table, for a program as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.drills.application import Heard
from appliance.drills.faults import OUTCOMES, CloudFault


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One request in front of one failing cloud. No complaints: the application saw what it should."""

    fault: CloudFault
    stream: bool
    heard: Heard
    cloud_characters: int
    complaints: tuple[str, ...]

    @property
    def outcome(self) -> str:
        return OUTCOMES[self.fault.outcome(stream=self.stream)]

    @property
    def box_characters(self) -> int:
        return max(0, len(self.heard.text) - self.cloud_characters)

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
            "cloud_characters": self.cloud_characters,
            "box_characters": self.box_characters,
            "finish_reasons": list(heard.finishes),
            "silence_ms": None if self.silence_ms is None else round(self.silence_ms, 1),
            "waited_out": self.fault.silent,
            "takeovers": list(heard.takeovers),
            "headers": {name: value for name, value in heard.headers.items() if name.startswith("x-appliance-")},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rehearsals of one run. `waits`: the shortened limits for first content, stall and the whole answer."""

    model: str
    clouds: tuple[str, ...]
    made_up: bool
    waits: tuple[float | str, float | str, float]
    rehearsals: tuple[Rehearsal, ...]

    @property
    def fine(self) -> bool:
        return not any(rehearsal.complaints for rehearsal in self.rehearsals)


def as_json_text(report: Report) -> str:
    first, stall, total = report.waits
    found = {
        "as_expected": report.fine,
        "model": report.model,
        "clouds": list(report.clouds),
        "clouds_made_up": report.made_up,
        "shortened_timeouts": {"first_content": first, "stall": stall, "total": total},
        "rehearsals": [rehearsal.to_json() for rehearsal in report.rehearsals],
    }
    return json.dumps(found, ensure_ascii=False, indent=2)


def as_table(report: Report) -> str:
    """The table, what went wrong, and one line that sums it up."""
    head = ("drill", "wire", "asked", "what the application saw", "cloud", "box", "ends", "silence", "why", "")
    rows = [head, *(_row(rehearsal) for rehearsal in report.rehearsals)]
    if all(rehearsal.heard.api == "openai" for rehearsal in report.rehearsals):
        rows = [(row[0], *row[2:]) for row in rows]  # the wire is worth a column only where there is another
    return "\n".join([*_aligned(rows), "", *_notes(report), _summary(report)])


def _row(rehearsal: Rehearsal) -> tuple[str, ...]:
    heard, silence = rehearsal.heard, rehearsal.silence_ms
    reason = heard.headers.get("x-appliance-fallback", "")
    if heard.takeovers:
        reason = heard.takeovers[-1].rpartition("reason=")[2]
    return (
        rehearsal.fault.name,
        heard.api,
        "streamed" if rehearsal.stream else "whole",
        "; ".join(rehearsal.complaints) or rehearsal.outcome,
        f"{rehearsal.cloud_characters} ch",
        f"{rehearsal.box_characters} ch",
        str(len(heard.finishes)),
        "-" if silence is None else f"{silence:.0f} ms" + ("*" if rehearsal.fault.silent else ""),
        reason or "-",
        "WRONG" if rehearsal.complaints else "ok",
    )


def _notes(report: Report) -> list[str]:
    notes = []
    if report.made_up:
        notes.append("No cloud is configured; one was made up for the rehearsal.")
    if any(rehearsal.fault.silent for rehearsal in report.rehearsals):
        first, stall, total = report.waits
        notes.append(
            f"* The limits for silence are shortened in a rehearsal: first content {_seconds(first)}, "
            f"in mid-answer {_seconds(stall)}, whole answers {_seconds(total)}."
        )
    return notes


def _seconds(wait: float | str) -> str:
    return wait if isinstance(wait, str) else f"{wait:.1f} s"


def _summary(report: Report) -> str:
    count = len(report.rehearsals)
    wrong = [rehearsal for rehearsal in report.rehearsals if rehearsal.complaints]
    who = f"{report.model} in place of {', '.join(report.clouds)}"
    if wrong:
        names = ", ".join(dict.fromkeys(rehearsal.fault.name for rehearsal in wrong))
        return f"{len(wrong)} of {count} answers were not what an application should see ({names}); {who}."
    streams = [one for one in report.rehearsals if one.stream and not one.fault.silent]
    quick = [one.silence_ms for one in streams if one.silence_ms is not None]
    longest = f"; longest silence in a stream {max(quick):.0f} ms, where nothing had to be waited out" if quick else ""
    return f"All {count} answers were what an application should see{longest}; {who}."


def listing(faults: Iterable[CloudFault], *, as_json: bool) -> str:
    """The drills there are."""
    faults = list(faults)
    if as_json:
        found = [
            {
                "name": fault.name,
                "says": fault.says,
                "streamed": OUTCOMES[fault.streamed],
                "whole": OUTCOMES[fault.whole],
            }
            for fault in faults
        ]
        return json.dumps(found, ensure_ascii=False, indent=2)
    head = ("drill", "what the cloud does", "what a streaming application should see")
    return "\n".join(_aligned([head, *((fault.name, fault.says, OUTCOMES[fault.streamed]) for fault in faults)]))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
