"""`appliance incidents`: what failed or was slow, when, how long, and who answered meanwhile."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from appliance.cli.outcome import FINE, Unwell, command
from appliance.cli.reach import address, ask, chosen, client
from appliance.cli.status import STATUS, columns, span
from appliance.config import Config, load_config

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.incidents import Incident
    from appliance.journal import Record

WIDTH = 80
SHOWN = 20


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "incidents",
        run,
        about="show what failed or was slow, when, how long, and who answered meanwhile; the newest first",
        example="appliance incidents 5",
    )
    parser.add_argument("count", nargs="?", metavar="N", type=positive, default=SHOWN, help=f"how many ({SHOWN})")
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON, for programs")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    from appliance.incidents import incidents

    now = time.time()
    with reading(config) as (path, records):
        found = incidents(records, now=now)[: -args.count - 1 : -1]
        if args.as_json:
            print(json.dumps([to_json(incident, now) for incident in found], indent=2))
        else:
            print(table(found, now) if found else f"No incidents in {path}")
    return FINE


def positive(written: str) -> int:
    """A number of things, from 1. Raises `argparse.ArgumentTypeError` with a sentence."""
    if not written.isascii() or not written.isdigit() or int(written[:9]) < 1:
        raise argparse.ArgumentTypeError(f"{written!r} must be a whole number from 1")
    return int(written[:9])


@contextmanager
def reading(config: Config, *, since: float = -math.inf) -> Iterator[tuple[Path, Iterator[Record]]]:
    """The journal's file and the records in it. Raises `Unwell` if there is none, and afterwards if there should be
    more in it: one that nobody could write shall not look as if nothing had happened."""
    from appliance.ledger import FILE, Missing, Unreadable, records

    path = config.paths.state / FILE
    trouble = _trouble(config, path)
    try:
        yield path, records(path, since=since)
    except Missing:
        if trouble is None:
            raise Unwell(
                f'there is no journal {path}, so nothing is known of what happened; "appliance serve" keeps one there, '
                'and "appliance doctor" says whether it can.'
            ) from None
    except Unreadable as error:
        raise Unwell(f'the journal {path} cannot be read: {error}; "appliance doctor" says what to do.') from None
    if trouble is not None:
        raise Unwell(
            f"the service cannot write the journal {path} ({trouble}), so what happens now is not in it; "
            '"appliance doctor" says what to do.'
        )


def _trouble(config: Config, path: Path) -> str | None:
    """Why the service that runs can keep nothing in this file, if there is one and it cannot."""
    try:
        with client(address(config)) as to:
            journal = ask(to, "GET", STATUS).get("journal") or {}
    except Unwell:
        return None
    return journal.get("trouble") if journal.get("file") == str(path) else None


def to_json(incident: Incident, now: float) -> dict[str, object]:
    lasted = (now if incident.end is None else incident.end) - incident.begin
    return {**asdict(incident), "open": incident.end is None, "lasted_s": round(lasted, 3)}


def table(found: Sequence[Incident], now: float) -> str:
    """For a person, at most `WIDTH` wide: a line for each with when and how long, and below it what and who."""
    title, *lines = columns(
        ("UPSTREAM", "BEGAN", "LASTED", "REQUESTS"), [_fixed(incident, now) for incident in found]
    ).splitlines()
    indent = " " * title.index("BEGAN")
    rows = [title]
    for line, incident in zip(lines, found, strict=True):
        said = f"{_what(incident)}; answered by {counted(incident.answered_by) or 'nobody yet'}"
        rows += [line, textwrap.fill(said, WIDTH, initial_indent=indent, subsequent_indent=indent)]
    return "\n".join(rows)


def _what(incident: Incident) -> str:
    if incident.first_content_s is not None:
        return f"{incident.kind}: the first word took up to {incident.first_content_s:.1f} s in the median"
    return counted(dict(incident.faults) | ({"not even asked": incident.passed_over} if incident.passed_over else {}))


def counted(words: Mapping[str, int]) -> str:
    """ "server 3, silent 1" """
    return ", ".join(f"{word} {count:,}" for word, count in words.items())


def cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _fixed(incident: Incident, now: float) -> tuple[str, ...]:
    began = datetime.fromtimestamp(incident.begin).strftime("%Y-%m-%d %H:%M")
    lasted = f"{span(now - incident.begin)}, open" if incident.end is None else span(incident.end - incident.begin)
    return (cut(incident.upstream, 12), began, lasted, f"{incident.requests:,}")
