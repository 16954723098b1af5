"""What the box says about itself: the page for `/appliance/status`, and the one for `/metrics`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from appliance import __version__
from appliance.appliance import Appliance
from appliance.core.fault import BackendError
from appliance.core.first_words import sentence
from appliance.metrics import Reading


async def status(appliance: Appliance) -> dict[str, Any]:
    now = asyncio.get_running_loop().time()
    counts = appliance.journal.counts
    return {
        "version": __version__,
        "serving": appliance.serving,
        "ready": appliance.serving is not None,
        "uptime_s": time.time() - appliance.started_at,
        "engine": await _engine_status(appliance),
        "upstreams": [
            {
                "name": upstream.name,
                "api": upstream.api,
                "base_url": upstream.base_url,
                "state": (breaker := appliance.breakers[upstream.name]).state(now),
                "failures": breaker.failures,
                "reopens_in_s": breaker.reopens_in(now),
                "offline": breaker.offline,
                "models_aside": {
                    model: {"state": aside.state(now), "reason": aside.last.message if aside.last else None}
                    for model, aside in breaker.aside(now).items()
                },
                "last_fault": breaker.last.fault.value if breaker.last else None,
                "last_fault_message": breaker.last.message if breaker.last else None,
                "alarm": breaker.alarm,
                "warnings": [sentence(slow)] if (slow := appliance.habits[upstream.name].slow(now)) is not None else [],
                "canary": asdict(canary) if (canary := appliance.health.canaries.get(upstream.name)) else None,
                "first_content_s": appliance.habits[upstream.name].first_content(now),
                "suspicious_after_s": appliance.habits[upstream.name].suspicion.warning("first"),
                "given_up_after_s": appliance.limits.first_content
                or appliance.habits[upstream.name].suspicion.limit("first"),
            }
            for upstream in appliance.config.upstreams
        ],
        "requests": asdict(counts),
        "journal": asdict(ledger.standing) | {"file": str(ledger.path)} if (ledger := appliance.ledger) else None,
        "recent": [
            {"at": attempt.at, "upstream": attempt.leg, "fault": attempt.fault.value, "reason": attempt.reason}
            for attempt in appliance.journal.recent()
            if attempt.fault is not None
        ],
    }


async def _engine_status(appliance: Appliance) -> dict[str, Any]:
    engine, ready = appliance.engine, appliance.engine.ready
    found: dict[str, Any] = {
        "state": engine.state,
        "model": appliance.model_name,
        "standby": appliance.config.local.standby,
        "pid": engine.pid,
        "restarts": engine.restarts,
        "deaths": engine.deaths,
        "last_death": engine.last_death,
        "progress": engine.progress,
        "failure": engine.failure,
        "refused": appliance.refused,
    }
    if ready is not None:
        found |= {name: value for name, value in asdict(ready).items() if name != "model"}
        found |= {name: value for name, value in (await _engine_stats(appliance)).items() if name != "op"}
    return found


async def _engine_stats(appliance: Appliance) -> Mapping[str, Any]:
    """What the engine counts; nothing if it does not say. A wedged one must not wedge the question how it is."""
    with suppress(BackendError, TimeoutError):
        async with asyncio.timeout(1):
            stats = await appliance.engine.stats()
            return {**stats, "waiting": stats["waiting"] + appliance.engine.line, "responding": True}
    return {"waiting": appliance.engine.line, "responding": False}


async def exposition(appliance: Appliance, accept: str) -> tuple[bytes, str]:
    """The page for /metrics, and its content type."""
    await _engine_stats(appliance)
    now = asyncio.get_running_loop().time()
    reading = Reading(
        version=__version__,
        engine_state=appliance.engine.state,
        engine_restarts=appliance.engine.restarts,
        slots=appliance.config.local.slots,
        running=appliance.journal.counts.running,
        breakers={name: breaker.state(now) for name, breaker in appliance.breakers.items()},
        suspicions=_phi(appliance, now),
        first_contents={
            name: usual for name, habits in appliance.habits.items() if (usual := habits.first_content(now)) is not None
        },
    )
    return appliance.metrics.exposition(reading, accept=accept)


def _phi(appliance: Appliance, now: float) -> dict[str, float]:
    """The oddest silence of each cloud at this moment."""
    odd = dict.fromkeys(appliance.clouds, 0.0)
    for relay in appliance.running:
        phi = relay.phi(now)
        if phi is not None and relay.leg is not None and relay.leg.name in odd:
            odd[relay.leg.name] = max(odd[relay.leg.name], phi)
    return odd
