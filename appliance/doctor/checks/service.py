"""What does the appliance that is running say of itself?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.doctor.finding import Finding, ok, warn, wrong
from appliance.doctor.words import listed

LAYER = "service"
WELL, COMING = ("ready", "asleep"), ("starting", "loading")


def verdict(status: Mapping[str, Any]) -> Finding:
    """`status` is the page of ``/appliance/status``."""
    engine = status.get("engine") or {}
    state = str(engine.get("state"))
    serving = f"serving {status.get('serving') or 'nobody'}"
    said = f"{serving}; the engine is {state}"
    if engine.get("tok_s"):
        said += f" ({engine['tok_s']:.0f} tok/s)"
    if state not in (*WELL, *COMING, "careful"):
        why = engine.get("failure") or engine.get("last_death") or "its log says why"
        fix = "Read the log of the service, then restart it."
        return wrong(LAYER, f"{said}: {str(why).rstrip('.')}", who="box", fix=fix)
    if not status.get("serving"):
        return wrong(LAYER, said, who="box", fix="Wait until the model is loaded: `appliance status --watch`.")
    if engine.get("refused"):
        fix = "Choose another model (`appliance models fit`), then `systemctl reload appliance`."
        return warn(LAYER, f"{said}; {str(engine['refused']).rstrip('.')}", who="box", fix=fix)
    if trouble := (status.get("journal") or {}).get("trouble"):
        fix = "Make its state folder writable for whoever serves, with room on its disk; it is tried again by itself."
        return wrong(LAYER, f"{said}; its journal cannot be written: {trouble}", who="box", fix=fix)
    aside = [one for one in status.get("upstreams") or () if one.get("state") != "closed" or one.get("alarm")]
    if aside:
        said += f"; set aside: {listed([str(one.get('name')) for one in aside])}"
        alarms = [str(one["alarm"]) for one in aside if one.get("alarm")]
        return warn(LAYER, said, who="key" if alarms else "them", fix=alarms[0] if alarms else None)
    if state == "careful":
        return warn(LAYER, f"{said}: its engine died three times within a minute", who="box", fix="Read the log.")
    return ok(LAYER, said)
