"""How far is the long work? A bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUARTERS = 4


def milestones(label: str, print_line: Callable[[str], None]) -> Callable[[int, int], None]:
    """Progress as plain lines: one for each quarter that is reached."""
    reached = 0

    def report(done: int, total: int) -> None:
        nonlocal reached
        quarter = done * QUARTERS // total if total else QUARTERS
        if quarter > reached:
            reached = quarter
            print_line(f"{label}: {quarter * 100 // QUARTERS} %")

    return report


@contextmanager
def progress(label: str, *, unit: str = "B") -> Iterator[Callable[[int, int], None]]:
    """Gives the function that is told how much of how much is done."""
    if not sys.stderr.isatty():
        yield milestones(label, lambda line: print(line, file=sys.stderr, flush=True))
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own for a bar of seconds
    with tqdm(desc=label, unit=unit, unit_scale=unit == "B", leave=False, file=sys.stderr) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report
