"""Is it worth computing a conversation that a cloud is answering, so that the box could go on at once?

The cost of a takeover on a CPU is prefill. A standby pays it beforehand, at low priority. `cold` never does, `hot`
always, `auto` when it is cheap or when the cloud has become suspicious. Pure: everything it knows is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Mode = Literal["cold", "auto", "hot"]

CHEAP_IDLE = 20.0
CHEAP_BUSY = 1.0
"""Seconds of prefill that nobody misses: on a box that has nothing else to do, and on one that has."""
SUSPICIOUS = 1.0


class Following(Protocol):
    """A conversation the box was told of. Nothing here waits or fails."""

    def feed(self, text: str) -> None: ...

    def suspect(self, level: float) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about one conversation.

    `delta` counts the tokens that are not computed yet; `prefill_speed` is measured, in tokens per second, or `None`
    before the first measurement; `idle` says that no real request is running or waiting; `suspicion` is 0 for a cloud
    that behaves as usual and `SUSPICIOUS` or more for one that may be about to fail.
    """

    delta: int
    prefill_speed: float | None
    idle: bool
    suspicion: float


def worthwhile(mode: Mode, facts: Facts) -> bool:
    """Should this conversation be computed now?"""
    if mode == "cold":
        return False
    if mode == "hot" or facts.suspicion >= SUSPICIOUS:
        return True
    if facts.prefill_speed is None:
        return facts.idle
    return facts.delta / facts.prefill_speed <= (CHEAP_IDLE if facts.idle else CHEAP_BUSY)
