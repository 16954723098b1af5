"""Looks after upstreams: free probes of those set aside, canaries for those in use, and is there a way to them at all?

Rules of this file:

1. A probe is a question that costs nothing: `GET` of the list of models. Any answer of the cloud's own shows that
   somebody is there, also one that refuses us; a failure, a redirect and a login page do not.
2. Nobody is probed who is well, who said when to come back, or to whom there is no way.
3. What a probe means is the breakers' to decide. It never closes one.
4. A canary is a question that costs something (`core.canary`); only who has one in the configuration is asked.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from appliance.backends import canary, network
from appliance.backends.network import Watched
from appliance.core.canary import CanaryReport, Turns, question
from appliance.core.seams import Backend

log = logging.getLogger("appliance")

PROBE_SECONDS = 3.0
"""After so long without an answer nobody is there."""
LOOK_SECONDS = 1.0
JITTER = 0.2
ALIVE = frozenset({200, 401, 403, 404, 405, 429})


def lives(status: int, content_type: str) -> bool:
    """Does this answer to a probe come from the cloud itself? A page is for people, and somebody else's."""
    return status in ALIVE and content_type.partition(";")[0].strip().lower() != "text/html"


class Cloud(Backend, Protocol):
    async def alive(self) -> bool:
        """Is somebody there? Raises nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient(Watched):
    """An upstream to look after, and whom to ask. `canary` is the model to be asked something now and then, as the
    cloud knows it, in `dialect`."""

    cloud: Cloud
    canary: str | None = None
    dialect: str = "openai"


class Plan:
    """Whose turn is it to be probed? Told who is set aside and what time it is; it has no clock and asks nobody.

    The first probe comes within a fifth of the interval after the opening, each further one within an interval, up to a
    fifth earlier, so that boxes behind one cloud do not ask in step.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}

    def due(self, aside: Collection[str], now: float, *, interval: float, jitter: Callable[[], float]) -> list[str]:
        """Those to be probed now. `jitter` draws from [0, 1)."""
        self._turns = {name: turn for name, turn in self._turns.items() if name in aside or turn > now}
        due = []
        for name in aside:
            if name not in self._turns:
                self._turns[name] = now + interval * JITTER * jitter()
            if self._turns[name] <= now:
                due.append(name)
                self._turns[name] = now + interval * (1.0 - JITTER * jitter())
        return due


async def probe(patients: Sequence[Patient], plan: Plan, now: float, *, interval: float, dice: random.Random) -> None:
    """Ask those whose turn it is, all at once, and tell their breakers."""
    aside = {one.name: one for one in patients if one.breakers.wants_probe(now)}
    due = [aside[name] for name in plan.due(aside, now, interval=interval, jitter=dice.random)]
    if due:
        await asyncio.gather(*(_ask(one) for one in due))


async def _ask(one: Patient) -> None:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            well = await one.cloud.alive()
    except TimeoutError:
        well = False
    except Exception:
        log.exception("probing %s failed", one.name)
        well = False
    one.breakers.probed(well, asyncio.get_running_loop().time())


async def watch(patients: Callable[[], Sequence[Patient]], *, interval: Callable[[], float]) -> None:
    """Probe whoever is set aside, when it is its turn. Never ends by itself, and never raises."""
    plan, dice, loop = Plan(), random.Random(), asyncio.get_running_loop()
    while True:
        try:
            await probe(patients(), plan, loop.time(), interval=interval(), dice=dice)
        except Exception:
            log.exception("probing failed")
        await asyncio.sleep(LOOK_SECONDS)


class Canaries:
    """Who has a canary, and how it is."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._reports: dict[str, CanaryReport] = {}

    @property
    def reports(self) -> Mapping[str, CanaryReport]:
        """Of each upstream whose canary was asked, by its name."""
        return MappingProxyType(self._reports)

    async def look(self, patients: Sequence[Patient], now: float, *, interval: float, dice: random.Random) -> None:
        """Ask those whose turn it is, all at once, and tell their breakers."""
        kept = {(one.name, one.canary): one for one in patients if one.canary is not None}
        self._reports = {name: said for name, said in self._reports.items() if (name, said.model) in kept}
        breakers = {key: one.breakers for key, one in kept.items()}
        due = self._turns.due(breakers, now, interval=interval, jitter=dice.random)
        if due:
            await asyncio.gather(*(self._ask(kept[key], model=key[1], dice=dice) for key in due))

    async def _ask(self, one: Patient, *, model: str, dice: random.Random) -> None:
        asked, jitter = question(dice.getrandbits(32)), dice.random()
        last = await canary.ask(one.cloud, one.breakers, asked, dialect=one.dialect, model=model, jitter=jitter)
        if last is not None:
            before = self._reports.get(one.name)
            self._reports[one.name] = CanaryReport.of(before, model, last, time.time())

    async def watch(self, patients: Callable[[], Sequence[Patient]], *, interval: Callable[[], float]) -> None:
        """Ask whoever has one, when it is its turn. Never ends by itself, and never raises."""
        dice, loop = random.Random(), asyncio.get_running_loop()
        while True:
            try:
                await self.look(patients(), loop.time(), interval=interval(), dice=dice)
            except Exception:
                log.exception("asking canaries failed")
            await asyncio.sleep(LOOK_SECONDS)


class Health:
    """All three tasks, from `start` to `aclose`. `patients` and the intervals are asked at every look: a reload comes
    true."""

    def __init__(
        self,
        patients: Callable[[], Sequence[Patient]],
        *,
        interval: Callable[[], float],
        canary_interval: Callable[[], float],
    ) -> None:
        self._patients = patients
        self._interval = interval
        self._canary_interval = canary_interval
        self._canaries = Canaries()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def canaries(self) -> Mapping[str, CanaryReport]:
        """How the canaries are, by their upstreams' names; who was not asked yet has no report."""
        return self._canaries.reports

    def start(self) -> None:
        """Begin to look after them. Needs a running loop."""
        if not self._tasks:
            asking = self._canaries.watch(self._patients, interval=self._canary_interval)
            self._tasks = [
                asyncio.create_task(watch(self._patients, interval=self._interval), name="probes"),
                asyncio.create_task(network.watch(self._patients), name="network"),
                asyncio.create_task(asking, name="canaries"),
            ]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
