"""How long is the way?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, warn
from appliance.doctor.words import milliseconds

LAYER = "latency"
SLOW_WAY, SLOW_CLOUD = 0.8, 2.5
"""Seconds: for a round trip, and from the question to the first byte of a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """In seconds. What is not on this way is zero."""

    connect: float
    tls: float
    first_byte: float


def verdict(times: Times) -> Finding:
    parts = [f"connect {milliseconds(times.connect)}"]
    parts += [f"TLS {milliseconds(times.tls)}"] if times.tls else []
    said = f"{', '.join(parts)}, first byte {milliseconds(times.first_byte)}"
    if times.connect > SLOW_WAY:
        return warn(
            LAYER, f"{said}: a slow line", who="you", fix="Look for what else uses this line, or for a nearer proxy."
        )
    if times.first_byte > SLOW_CLOUD:
        return warn(LAYER, f"{said}: a slow cloud", who="them")
    return ok(LAYER, said)
