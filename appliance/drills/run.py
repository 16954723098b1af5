"""`appliance drill`: rehearse an outage on this very configuration.

The rehearsal has its own port, breakers and journal. Every cloud of the configuration is replaced by one that fails on
demand, without the real one's key, so no provider and no running service is ever touched. The model on the box is
the real one, loaded once for all rehearsals.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.appliance import Appliance
from appliance.config import Config
from appliance.drills import counting
from appliance.drills.doors import DOORS
from appliance.drills.faults import FAULTS, FLAWS, CloudFault
from appliance.drills.flood import FLOODS
from appliance.drills.own import MADE_UP, own
from appliance.drills.rehearse import EngineFailed, rehearse
from appliance.drills.report import Finding, Report, Table, as_json_text, listing, summary
from appliance.store.store import StoreError, resolve

AS_EXPECTED, NOT_WELL, INTERRUPTED = 0, 1, 130
HANDFUL = ("refused", "black-hole", "server-error", "wrong-key", "bad-request", "cut-reset", "stall", "no-finish")

DRILLS: Mapping[str, CloudFault | str] = MappingProxyType(
    {
        **FAULTS,
        **FLAWS,
        **{name: door.fault for name, door in DOORS.items()},
        **FLOODS,
        counting.NAME: counting.SAYS,
    }
)
"""By name; what is no fault of one cloud says in a sentence what it is."""


class NoDrill(Exception):
    """There is none of that name; `str()` is the sentence that says so."""


def main(config: Config, names: Sequence[str], list_only: bool, every: bool, as_json: bool) -> int:
    """Rehearse `names`, a handful if there are none, or `every` drill there is; returns the exit code.

    Raises:
        NoDrill: one of the names is none.
        StoreError: there is no model on the box that answers.
    """
    if list_only:
        print(listing(DRILLS, as_json=as_json))
        return AS_EXPECTED
    wanted = chosen(names, every=every)
    model = resolve(config.local.model, config)
    screen = _Screen(None if as_json else _table(config, wanted))
    with _quiet_log(), tempfile.TemporaryDirectory(prefix="appliance-drill-") as state:
        rehearsing = rehearse(
            own(config, Path(state)), model, wanted, say=screen.progress, tell=screen.found, make=Appliance
        )
        try:
            report = asyncio.run(_until_told(rehearsing))
        except EngineFailed as error:
            raise StoreError(f"no rehearsal without the local model: {error}") from None
        finally:
            screen.clear()
    print(as_json_text(report) if as_json else summary(report))
    if report.interrupted:
        return INTERRUPTED
    return AS_EXPECTED if report.fine else NOT_WELL


async def _until_told(rehearsing: Coroutine[Any, Any, Report]) -> Report:
    """To its end, or to Ctrl-C or SIGTERM: then it is the report of what was found until then."""
    task = asyncio.current_task()
    assert task is not None
    for told in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(told, task.cancel)
    return await rehearsing


def _table(config: Config, names: Sequence[str]) -> Table:
    upstreams = config.upstreams or (MADE_UP,)
    clouds, wires = [upstream.name for upstream in upstreams], {upstream.api for upstream in upstreams}
    return Table([DRILLS[name] for name in names], clouds, wires)


def chosen(names: Sequence[str], *, every: bool = False) -> tuple[str, ...]:
    """The drills to run. Raises `NoDrill`."""
    for name in names:
        if name not in DRILLS:
            near = difflib.get_close_matches(name, DRILLS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see appliance drill --list."
            raise NoDrill(f"there is no drill {name[:40]!r}; {hint}")
    return tuple(DRILLS if every else names or HANDFUL)


@contextmanager
def _quiet_log() -> Iterator[None]:
    """The failures are on purpose; the report tells of them, not the log."""
    logger = logging.getLogger("appliance")
    silent, propagated = logging.NullHandler(), logger.propagate
    logger.addHandler(silent)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(silent)
        logger.propagate = propagated


class _Screen:
    """What is found goes out at once, line by line; what is being done is one line that is written over, on a terminal,
    and without one a line each. Without a table nothing is said of what was found."""

    def __init__(self, table: Table | None) -> None:
        self._table = table
        self._doing = ""

    def progress(self, what: str) -> None:
        self._doing = what
        if sys.stderr.isatty():
            print(f"\r\x1b[Kdrill: {what}", end="", file=sys.stderr, flush=True)
        else:
            print(f"drill: {what}", file=sys.stderr, flush=True)

    def found(self, one: Finding) -> None:
        if self._table is None:
            return
        self.clear()
        for line in self._table.lines(one):
            print(line, flush=True)
        if sys.stderr.isatty():
            self.progress(self._doing)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
