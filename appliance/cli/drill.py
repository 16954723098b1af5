"""`appliance drill`: rehearse an outage."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from appliance.cli.outcome import Misused, command
from appliance.cli.reach import chosen
from appliance.config import load_config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "drill",
        run,
        about="rehearse an outage with this configuration, on a listener of its own and without any real provider",
        example="appliance drill --all",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="the drills to run; see --list")
    parser.add_argument("--list", action="store_true", dest="list_only", help="show the drills there are")
    parser.add_argument("--all", action="store_true", dest="every", help="run all of them")
    parser.add_argument("--json", action="store_true", dest="as_json", help="the report as JSON")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    from appliance.drills.run import NoDrill, main

    try:
        return main(config, args.names, args.list_only, args.every, args.as_json)
    except NoDrill as error:
        raise Misused(str(error)) from None
