"""`appliance drill`: rehearse an outage on this very configuration.

The rehearsal has its own port, breakers and journal. Every cloud of the configuration is replaced by one that fails on
demand, without the real one's key, so no provider and no running service is ever touched. The model on the box is
the real one, loaded once for all rehearsals.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from appliance.appliance import Appliance
from appliance.config import Config
from appliance.drills import counting
from appliance.drills.doors import DOORS
from appliance.drills.faults import FAULTS, FLAWS, CloudFault
from appliance.drills.flood import FLOODS
from appliance.drills.own import own
from appliance.drills.rehearse import EngineFailed, rehearse
from appliance.drills.report import as_json_text, as_table, listing
from appliance.store.store import StoreError, resolve

AS_EXPECTED, NOT_WELL, USAGE, WRONG_MODEL = 0, 1, 2, 64
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


def main(config: Config, names: Sequence[str], list_only: bool, every: bool, as_json: bool) -> int:
    """Rehearse `names`, a handful if there are none, or `every` drill there is; returns the exit code."""
    if list_only:
        print(listing(DRILLS, as_json=as_json))
        return AS_EXPECTED
    try:
        wanted = chosen(names, every=every)
        model = resolve(config.local.model, config)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return USAGE
    except StoreError as error:
        print(f"No rehearsal without the local model: {error}", file=sys.stderr)
        return WRONG_MODEL
    with _quiet_log(), tempfile.TemporaryDirectory(prefix="appliance-drill-") as state:
        try:
            report = asyncio.run(rehearse(own(config, Path(state)), model, wanted, say=_progress, make=Appliance))
        except EngineFailed as error:
            print(f"No rehearsal without the local model: {error}", file=sys.stderr)
            return WRONG_MODEL
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(as_json_text(report) if as_json else as_table(report))
    return AS_EXPECTED if report.fine else NOT_WELL


def chosen(names: Sequence[str], *, every: bool = False) -> tuple[str, ...]:
    """The drills to run. Raises `KeyError` with one sentence for a name that there is not."""
    for name in names:
        if name not in DRILLS:
            near = difflib.get_close_matches(name, DRILLS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see appliance drill --list."
            raise KeyError(f"There is no drill {name[:40]!r}; {hint}")
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


def _progress(what: str) -> None:
    """One line that is written over, on a terminal; without one, a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[Kdrill: {what}", end="", file=sys.stderr, flush=True)
    else:
        print(f"drill: {what}", file=sys.stderr, flush=True)
