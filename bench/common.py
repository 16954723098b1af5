"""What the measurements share: a box on a free port, words nobody has asked about, and sums.

Times are seconds of `time.monotonic`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import psutil

from appliance.bench.figures import lower_bound, median  # noqa: F401 - for those that measure

# Words that are one token each, so that a number of words is about a number of tokens.
WORDS = (
    "the house water light table garden river mountain winter summer morning evening letter story music window door "
    "street city village school teacher student doctor farmer horse bird fish tree flower stone metal paper glass "
    "bread milk sugar salt apple orange green blue red white black small large long short early late warm cold new "
    "old young good great little high low open close left right north south east west one two three four five six "
    "seven eight nine ten first second third last next many few some any each every other same different people man "
    "woman child friend family mother father sister brother king queen ship train road bridge field forest island "
    "ocean sun moon star wind rain snow fire earth sky day night week month year time work play read write speak "
    "listen walk run sleep wake eat drink buy sell give take make find keep hold move turn begin end"
).split()

STORY = (
    "The keeper of the lighthouse climbed the stairs every evening, lit the lamp and wrote one line into his book "
    "about the wind, the ships he had seen, and what the people by the harbour had told him that day. In winter the "
    "waves reached up to the lower windows, and he could hear the stones rolling under the water all night long. "
) * 4


def prose(words: int, chance: random.Random) -> str:
    """So many words that nobody has asked about before."""
    return " ".join(chance.choice(WORDS) for _ in range(words))


# -------------------------------------------------------------------------------------------------------- the box


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configured(*, cloud: str | None = None, **local: str | int) -> str:
    """A configuration: the keys of [local], and one cloud that may be silent for as long as it likes."""
    lines = ["[local]", *(f"{key} = {json.dumps(value)}" for key, value in local.items())]
    if cloud is not None:
        lines += ["[timeouts]", "first_content = 900", "stall = 900", "total = 1800"]
        lines += ["[[upstream]]", 'name = "other"', 'api = "openai"', f'base_url = "{cloud}"']
    return "\n".join([*lines, ""])


class Box:
    """One appliance as a process of its own."""

    def __init__(self, port: int, config: str, folder: Path) -> None:
        self.port = port
        self._config = folder / f"appliance-{port}.toml"
        self._config.write_text(config)
        self._log = (folder / f"appliance-{port}.log").open("ab")
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [sys.executable, "-m", "appliance", "serve", "--config", str(self._config), "--port", str(self.port)]
        self.process = await asyncio.create_subprocess_exec(*command, stdout=self._log, stderr=self._log)
        await self.ready()

    async def ready(self) -> None:
        """Wait until the box's own model answers."""
        async with httpx.AsyncClient(timeout=5) as client:
            for _ in range(600):
                if self.process is not None and self.process.returncode is not None:
                    break
                try:
                    status = (await client.get(f"{self.url}/appliance/status")).json()
                    if status["engine"]["state"] == "ready":
                        return
                except (httpx.TransportError, ValueError):
                    pass
                await asyncio.sleep(0.1)
        raise RuntimeError(f"the appliance on port {self.port} did not become ready; it said:\n{self._said()}")

    async def status(self) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=30) as client:
            found: dict[str, Any] = (await client.get(f"{self.url}/appliance/status")).json()
        return found

    async def engine(self, *wanted: str) -> dict[str, Any]:
        """What status tells of the engine; ends the measurement if something wanted is not told."""
        found: dict[str, Any] = (await self.status())["engine"]
        if missing := [name for name in wanted if name not in found]:
            raise SystemExit(f"/appliance/status does not tell engine.{', engine.'.join(missing)}")
        return found

    async def reset(self) -> None:
        """Forget what the cloud has done."""
        async with httpx.AsyncClient(timeout=30) as client:
            (await client.post(f"{self.url}/appliance/reset", json={})).raise_for_status()

    async def caught_up(self, limit: float = 600.0) -> float:
        """Wait until the standby has computed all it knows; gives the seconds it took."""
        began = time.monotonic()
        while not (await self.engine("standby_ready"))["standby_ready"]:
            if time.monotonic() - began > limit:
                raise SystemExit(f"the standby did not catch up within {limit:.0f} s")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    def _said(self) -> str:
        return Path(self._log.name).read_text()

    async def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        await self.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a process holds now."""

    rss: float  # MB
    threads: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        process = psutil.Process(pid)
        rss = process.memory_info().rss / 1e6
        return cls(rss=rss, threads=process.num_threads(), descriptors=process.num_fds())

    def __str__(self) -> str:
        return f"{self.rss:.1f} MB, {self.threads} threads, {self.descriptors} descriptors"


# ----------------------------------------------------------------------------------------------------------- sums


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def table(rows: Sequence[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)).rstrip() for row in cells)


def command() -> str:
    return "python " + " ".join(sys.argv)
