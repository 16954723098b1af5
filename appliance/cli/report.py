"""`appliance report`: how available was each cloud, and what did the applications see?"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from appliance.cli.incidents import WIDTH, counted, cut, positive, reading
from appliance.cli.outcome import FINE, command
from appliance.cli.reach import chosen
from appliance.cli.status import columns
from appliance.config import load_config

if TYPE_CHECKING:
    from appliance.availability import Report, Share, Silence

DAYS = 30
_DAY = 86400.0
_CALLED = 14  # characters of a name
MEANING = {"refused": "refused (the caller's mistake)", "left": "left (the client went away)"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "report",
        run,
        about="show how available each cloud was, and what the applications saw of it",
        example="appliance report --days 7",
    )
    parser.add_argument("--days", type=positive, default=DAYS, help=f"how far back ({DAYS}; records are kept for 90)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON, for programs")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    from appliance.availability import report

    with reading(config, since=time.time() - args.days * _DAY) as (_, records):
        found = report(records, day=lambda at: datetime.fromtimestamp(at).date().isoformat())
        print(json.dumps(to_json(found, args.days), indent=2) if args.as_json else words(found, args.days))
    return FINE


def to_json(report: Report, days: int) -> dict[str, Any]:
    """The report as plain values; beside the two numbers of each share, the share itself."""

    def shared(share: Share) -> dict[str, Any]:
        return asdict(share) | {"share": share.value}

    return {
        **asdict(report),
        "asked_for_days": days,
        "seen": shared(report.seen),
        "clouds": [asdict(leg) | {"share": shared(leg.share)} for leg in report.clouds],
        "box": asdict(report.box) | {"share": shared(report.box.share)},
        "days": [
            asdict(day)
            | {"seen": shared(day.seen), "clouds": {name: shared(share) for name, share in day.clouds.items()}}
            for day in report.days
        ],
    }


def words(report: Report, days: int) -> str:
    """For a person, at most `WIDTH` wide."""
    asked_for = "the last day" if days == 1 else f"the last {days} days"
    if not report.requests:
        return f"No requests are recorded for {asked_for}."
    assert report.first is not None and report.last is not None
    first, last = (datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M") for at in (report.first, report.last))
    count = "1 request" if report.requests == 1 else f"{report.requests:,} requests"
    blocks = [f"{count} in {asked_for}, from {first} to {last}", _availability(report)]
    ends = [f"{number:,} {MEANING.get(outcome, outcome)}" for outcome, number in report.outcomes.items() if number]
    answered = counted(report.answered_by) or "nobody"
    blocks += [_filled(f"Requests: {', '.join(ends)}"), _filled(f"Answered by: {answered}")]
    blocks.append(_silence(report.silence))
    faults = [
        (cut(leg.name, _CALLED), fault, f"{number:,}")
        for leg in (*report.clouds, report.box)
        for fault, number in leg.faults.items()
    ]
    if faults:
        blocks.append(columns(("UPSTREAM", "FAULT", "TIMES"), faults))
    return "\n\n".join([*blocks, *_by_day(report)])


def percent(share: Share) -> str:
    """Rounded down, so that 100 % is all of them."""
    if not share.asked:
        return "-"
    thousandths = share.well * 100_000 // share.asked
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}{f'.{rest:03d}'.rstrip('0').rstrip('.') if rest else ''} %"


def _availability(report: Report) -> str:
    seen = report.seen
    rows = [("applications saw", percent(seen), f"{seen.asked:,}", f"{seen.asked - seen.well:,}", "-")]
    for leg in (*report.clouds, report.box):
        name = cut(leg.name, _CALLED) if leg is not report.box else "the box"
        share = leg.share
        rows.append((name, percent(share), f"{share.asked:,}", f"{share.asked - share.well:,}", f"{leg.passed_over:,}"))
    return columns(("", "AVAILABLE", "REQUESTS", "NOT ANSWERED", "NOT EVEN ASKED"), rows)


def _silence(silence: Silence) -> str:
    if silence.p50 is None or silence.p95 is None or silence.p99 is None:
        return "No answer was taken over in the middle."
    found = [
        f"{_seconds(at)} ({rank})" for rank, at in (("p50", silence.p50), ("p95", silence.p95), ("p99", silence.p99))
    ]
    return f"Silence at {silence.seams:,} takeover{'s' * (silence.seams != 1)}: {', '.join(found)}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _by_day(report: Report) -> Iterator[str]:
    """A table, or as many as the clouds need beside each other."""
    names = [leg.name for leg in report.clouds]
    while True:
        width, here = len("2026-11-21   REQUESTS   APPLICATIONS"), 0
        while here < len(names) and (width := width + 3 + max(8, len(cut(names[here], _CALLED)))) <= WIDTH:
            here += 1
        yield columns(
            ("DAY", "REQUESTS", "APPLICATIONS", *(cut(name, _CALLED) for name in names[:here])),
            [
                _day(day.name, day.requests, day.seen, [day.clouds.get(name) for name in names[:here]])
                for day in report.days
            ],
        )
        names = names[here:]
        if not names:
            return


def _day(name: str, requests: int, seen: Share, clouds: Sequence[Share | None]) -> tuple[str, ...]:
    return (name, f"{requests:,}", percent(seen), *("-" if share is None else percent(share) for share in clouds))


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")
