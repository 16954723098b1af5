"""How far is the long work? A bar with rate and time to go on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from appliance.core.size import in_words

if TYPE_CHECKING:
    from appliance.store.disk import Report, Step

QUARTERS = 4
LONG = 60.0
"""Seconds after which even without a terminal something should be heard."""
_BAR = "{desc} {percentage:3.0f} % |{bar}| {n_fmt}{unit}/{total_fmt}{unit}  {rate_fmt}  {remaining}"


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
    with ExitStack() as stack:
        bar: Any = None  # until there is something to draw

        def report(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(_bar(label, unit=unit))
            bar.total = total
            bar.update(done - bar.n)

        yield report


def say(line: str, file: TextIO | None = None) -> None:
    """A line on stdout, or in `file`, which does not run into a bar that is drawn at this moment."""
    if not sys.stderr.isatty():
        print(line, file=file, flush=True)
        return
    from tqdm import tqdm

    tqdm.write(line, file=file)


def _bar(label: str, *, unit: str = "B", **options: Any) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own for a bar of seconds
    return tqdm(
        desc=label,
        unit=unit,
        unit_scale=unit == "B",
        leave=False,
        file=sys.stderr,
        **options,
    )


# -------------------------------------------------------------------------------------------- several files


@contextmanager
def steps() -> Iterator[Report]:
    """Gives the function that is told of each step of an installation; each file has a bar of its own."""
    if not sys.stderr.isatty():
        yield told(lambda line: print(line, file=sys.stderr, flush=True), time.monotonic)
        return
    bar: Any = None
    label = ""

    def report(step: Step) -> None:
        nonlocal bar, label
        if bar is None or label != f"{step.status} {step.file}" or step.completed < bar.n:
            if bar is not None:
                bar.close()
            label = f"{step.status} {step.file}"
            bar = _bar(label, total=step.total, initial=step.completed, unit_divisor=1000, bar_format=_BAR)
        bar.update(step.completed - bar.n)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()


def told(print_line: Callable[[str], None], clock: Callable[[], float]) -> Report:
    """Steps as plain lines: one for each quarter, and one a minute."""
    label, began, heard, first, reached = "", 0.0, 0.0, 0, 0

    def report(step: Step) -> None:
        nonlocal label, began, heard, first, reached
        now = clock()
        quarter = step.completed * QUARTERS // step.total if step.total else 0
        if label != f"{step.status} {step.file}" or step.completed < first:
            label, began, heard, first, reached = f"{step.status} {step.file}", now, now, step.completed, quarter
        if quarter <= reached and now - heard < LONG:
            return
        heard, reached = now, max(quarter, reached)
        print_line(_line(label, step, (step.completed - first) / (now - began) if now > began else 0.0))

    return report


def _line(label: str, step: Step, rate: float) -> str:
    share = f"{100 * step.completed // step.total} %" if step.total else in_words(step.completed)
    speed = f", {rate / 1e6:,.1f} MB/s" if rate else ""
    left = (step.total or step.completed) - step.completed
    return f"{label}: {share}{speed}" + (f", {left / rate:,.0f} s to go" if rate and left else "")
