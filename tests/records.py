"""Made-up records of the journal."""

from __future__ import annotations

from typing import Any

from appliance.journal import Asked, Record


def asked(name: str = "openai", fault: str | None = None, *, at: float = 0.0, **changes: Any) -> Asked:
    """One leg, tried for a second that was over at `at`."""
    made: dict[str, Any] = {"model": "m", "reason": "", "seconds": 1.0, "first_content": None, "characters": 0}
    return Asked(name=name, fault=fault, at=at, **{**made, "continued": False, "silence": None, **changes})


def record(*legs: Asked, outcome: str = "answered", **changes: Any) -> Record:
    """One request that began when its first leg did, and was answered by its last."""
    made: dict[str, Any] = {
        "at": legs[0].at - legs[0].seconds if legs else 0.0,
        "request_id": "r",
        "dialect": "openai",
        "stream": True,
        "model": "gpt-x",
        "served_by": legs[-1].name if legs else "nobody",
        "seconds": 1.0,
        "degraded": (),
        "passed_over": (),
    }
    return Record(outcome=outcome, legs=legs, **{**made, **changes})  # type: ignore[arg-type]
