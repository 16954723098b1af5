"""How a command ends: an exit code, or one sentence and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

FINE = 0
NOT_WELL = 1
USAGE = 2
WRONG_SETUP = 64
"""Configuration or model is wrong: starting again will not help, and a service file can say so."""
INTERNAL = 70
INTERRUPTED = 130

Run = Callable[[argparse.Namespace, Mapping[str, str]], int]


class Unwell(Exception):
    """The thing asked about is not well; `str()` is the sentence that says so, and what to do."""

    code = NOT_WELL


class Misused(Unwell):
    """It was asked for in a way that has no meaning."""

    code = USAGE


def complain(sentence: str) -> None:
    """Say what is not well, as all commands do."""
    print(f"appliance: {sentence}", file=sys.stderr)


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Run,
    *,
    about: str,
    example: str,
    config: bool = True,
) -> argparse.ArgumentParser:
    """Add a command with its promise, an example and `--config`."""
    parser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if config:
        parser.add_argument("--config", metavar="FILE", help="the appliance.toml to use")
    parser.set_defaults(run=run)
    return parser


def group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, *, about: str, verbs: str, example: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Add a command that has only commands of its own, and shows them when none is given."""
    parser = commands.add_parser(
        name,
        help=f"{about}: {verbs}",
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
        parser.print_help(sys.stderr)
        return USAGE

    parser.set_defaults(run=show)
    return parser.add_subparsers(dest="verb", metavar="VERB")
