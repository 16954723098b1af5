"""Is our port free, or is it ourselves who listen there?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from appliance.doctor.finding import Finding, ok, warn, wrong

LAYER = "port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """``version`` is that of the appliance that listens; ``ours`` the version that asks. ``program`` and ``pid`` are of
    whoever else does, if the kernel tells us. ``mute``: that one says nothing at all."""

    host: str
    port: int
    state: Literal["free", "appliance", "taken", "denied", "not here"]
    ours: str = ""
    version: str = ""
    program: str = ""
    pid: int | None = None
    mute: bool = False


def verdict(port: Port) -> Finding:
    at = f"{port.host}:{port.port}"
    match port.state:
        case "free":
            return ok(LAYER, f"{at} is free; no appliance is running")
        case "appliance" if port.version != port.ours:
            said = f"at {at} runs version {port.version}, and {port.ours} is installed"
            return warn(LAYER, said, who="you", fix="Restart the service to run what is installed.")
        case "appliance":
            return ok(LAYER, f"an appliance of version {port.version} listens at {at}")
        case "denied":
            said = f"{at} may not be listened at by this user"
            return wrong(LAYER, said, who="you", fix="Choose a port above 1023 in [server] port.")
        case "not here":
            said = f"{port.host} is no address of this box"
            return wrong(LAYER, said, who="you", fix='Write host = "127.0.0.1" in [server].')
    by = f"{port.program or 'another program'}{f' (pid {port.pid})' if port.pid else ''}"
    fix = "Stop it, or choose another [server] port."
    what = "which does not answer" if port.mute else "which is no appliance"
    return wrong(LAYER, f"{at} is taken by {by}, {what}", who="you", fix=fix)
