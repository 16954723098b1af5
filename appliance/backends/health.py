"""Looks after upstreams that are set aside: free probes, and whether there is a way to them at all.

Rules of this file:

1. A probe is a question that costs nothing: `GET` of the list of models. Any answer of the cloud's own shows that
   somebody is there, also one that refuses us; a failure, a redirect and a login page do not.
2. Nobody is probed who is well, who said when to come back, or to whom there is no way.
3. What a probe means is the breakers' to decide. It never closes one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.backends import network
from appliance.backends.network import Watched

log = logging.getLogger("appliance")

PROBE_SECONDS = 3.0
"""After so long without an answer nobody is there."""
LOOK_SECONDS = 1.0
JITTER = 0.2
ALIVE = frozenset({200, 401, 403, 404, 405, 429})


def lives(status: int, content_type: str) -> bool:
    """Does this answer to a probe come from the cloud itself? A page is for people, and somebody else's."""
    return status in ALIVE and content_type.partition(";")[0].strip().lower() != "text/html"


class Alive(Protocol):
    async def alive(self) -> bool:
        """Is somebody there? Raises nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient(Watched):
    """An upstream to look after, and whom to ask."""

    cloud: Alive


class Plan:
    """Whose turn is it to be probed? Told who is set aside and what time it is; it has no clock and asks nobody.

    The first probe comes within a fifth of the interval after the opening, each further one within an interval, up to a
    fifth earlier, so that boxes behind one cloud do not ask in step.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}

    def due(self, aside: Collection[str], now: float, *, interval: float, jitter: Callable[[], float]) -> list[str]:
        """Those to be probed now. `jitter` draws from [0, 1)."""
        self._turns = {name: turn for name, turn in self._turns.items() if name in aside}
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


class Health:
    """Both tasks, from `start` to `aclose`. `patients` and `interval` are asked at every look: a reload comes true."""

    def __init__(self, patients: Callable[[], Sequence[Patient]], *, interval: Callable[[], float]) -> None:
        self._patients = patients
        self._interval = interval
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look after them. Needs a running loop."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(watch(self._patients, interval=self._interval), name="probes"),
                asyncio.create_task(network.watch(self._patients), name="network"),
            ]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
