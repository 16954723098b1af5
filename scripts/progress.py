"""pip's long story in, a few lines out; the whole story goes into a log.

Usage: pip install --verbose ... | python progress.py LOG

On a terminal one line is written over and over; elsewhere there is one line for each tenth of the compilation.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

COMPILED = re.compile(r"^\s*\[\s*(?:(\d+)/(\d+)|(\d+)%)\]")  # ninja: [16/193], make: [ 8%]
STEPS = (  # the first that matches is shown; the groups fill the braces
    (re.compile(r"^\s*Downloading (\S+\.(?:tar\.gz|whl)) \((\d+(?:\.\d+)? [MG]B)\)"), "downloading {} ({})"),
    (re.compile(r"^\s*Building wheel for (llama-cpp-python) .*: started"), "compiling {}"),
    (re.compile(r"^Installing collected packages: (.*)"), "installing {}"),
)
BAR = 30


def percent(line: str) -> int | None:
    """How much is compiled, if this line tells."""
    found = COMPILED.match(line)
    if not found:
        return None
    done, of, share = found.groups()
    return int(share) if share else 100 * int(done) // max(1, int(of))


def step(line: str) -> str | None:
    """A line worth showing, in our words; the packages only counted."""
    for pattern, words in STEPS:
        if found := pattern.match(line):
            if words == "installing {}":
                return f"installing {len(found[1].split(', '))} packages"
            return words.format(*found.groups())
    return None


def follow(lines: Iterable[str], log: TextIO, screen: TextIO) -> None:
    """Everything to the log, what matters to the screen."""
    live, began, shown = screen.isatty(), time.monotonic(), 0
    pending = ""  # what is needed to leave the line that is being written over
    for line in lines:
        log.write(line)
        now = percent(line)
        if now is not None:
            seconds = int(time.monotonic() - began)
            spent = f"{seconds // 60}:{seconds % 60:02}"
            if live:
                full = BAR * now // 100
                print(f"\r  compiling [{'#' * full:.<{BAR}}] {now:3} %  {spent} ", end="", file=screen, flush=True)
                pending = "\n"
            elif now // 10 > shown // 10:
                print(f"  compiling {now // 10 * 10:3} %  {spent}", file=screen, flush=True)
            shown = now
        elif words := step(line):
            print(f"{pending}  {words}", file=screen, flush=True)
            pending, began, shown = "", time.monotonic(), 0
    print(pending, end="", file=screen, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pip; the story ends when pip does
    with (
        open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as story,
        Path(sys.argv[1]).open("w", encoding="utf-8", errors="replace") as log,
    ):
        follow(story, log, sys.stderr)
