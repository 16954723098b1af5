"""`appliance doctor`: what is wrong, from the bottom up, and whose is it?"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from appliance.cli.outcome import FINE, NOT_WELL, command
from appliance.cli.progress import progress
from appliance.cli.reach import chosen

if TYPE_CHECKING:
    from appliance.doctor.examine import Examination
    from appliance.doctor.finding import Section

MARKS = {"ok": "ok", "warn": "warn", "wrong": "WRONG", "skipped": "-"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "doctor",
        run,
        about="look for what is wrong, with this box and on the way to each cloud, and say whose it is",
        example="appliance doctor",
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON, for programs")
    parser.add_argument(
        "--deep", action="store_true", help="also read every byte of a large model and have it answer; takes longer"
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.doctor.examine import examine

    with progress("reading the model") if args.deep else nullcontext() as report:
        found = asyncio.run(examine(chosen(args.config), environ, deep=report))
    print(json.dumps(as_json(found), indent=2) if args.as_json else "\n".join(lines(found.sections, found.whose)))
    return FINE if found.well else NOT_WELL


def as_json(found: Examination) -> dict[str, Any]:
    """For programs: the same, without the marks."""
    return {
        "well": found.well,
        "sections": [
            {
                "of": section.of,
                "about": section.about,
                "findings": [
                    {"layer": one.layer, "state": one.state, "who": one.who, "said": one.said, "fix": one.fix}
                    for one in section.findings
                ],
            }
            for section in found.sections
        ],
        "whose": list(found.whose),
    }


def lines(sections: Sequence[Section], whose: Sequence[str]) -> Iterator[str]:
    """For people: a block for each thing that was looked at, and whose it is."""
    width = max((len(one.layer) for section in sections for one in section.findings), default=0)
    for section in sections:
        yield f"{section.of}  {section.about}"
        for one in section.findings:
            yield f"  {MARKS[one.state]:<5}  {one.layer:<{width}}  {one.said}"
            if one.fix is not None:
                yield f"  {'':<5}  {'':<{width}}  -> {one.fix}"
        yield ""
    yield from whose
