"""The command line. Says how every command ends: its exit code, and one sentence if it did not end well."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from appliance import __version__
from appliance.cli import bench, bundle, chat, doctor, drill, incidents, models, report, serve, service, status
from appliance.cli.outcome import FINE, INTERNAL, INTERRUPTED, USAGE, WRONG_SETUP, Unwell, complain
from appliance.config import ConfigError, debugging
from appliance.store.catalog import StoreError


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="appliance",
        description="A local-first LLM fallback appliance: an application that talks to it always gets its answer.",
        epilog="example:\n  appliance models pull starter && appliance serve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--version", action="version", version=f"appliance {__version__}")
    commands = found.add_subparsers(dest="command", metavar="COMMAND")
    for group in (serve, chat, status, incidents, report, doctor, drill, bench, models, bundle, service):
        group.add(commands)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code."""
    asked = parser()
    try:
        args = asked.parse_args(argv)
    except SystemExit as end:  # --help, --version, or a usage error that argparse has explained
        return end.code if isinstance(end.code, int) else FINE
    if args.command is None:
        asked.print_help(sys.stderr)
        return USAGE
    try:
        code: int = args.run(args, os.environ)
        sys.stdout.flush()
    except (ConfigError, StoreError) as error:
        return _sorry(str(error), WRONG_SETUP)
    except Unwell as error:
        return _sorry(str(error), error.code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FINE
    except Exception as error:  # the last resort, on purpose
        if debugging(os.environ):
            traceback.print_exc()
        return _sorry(_internal(error), INTERNAL)
    return code


def _internal(error: BaseException) -> str:
    """Which of our lines made the mistake? Not the exception's own words: they may hold what somebody wrote."""
    frames = list(traceback.extract_tb(error.__traceback__))
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        frames += traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}appliance{os.sep}" in frame.filename] or frames
    place = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"
    return f"internal error ({type(error).__name__} at {place}); set APPLIANCE_DEBUG=1 to see where it comes from."


def _sorry(sentence: str, code: int) -> int:
    complain(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main())
