"""Is there a way out of this box, to that very address?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, wrong
from appliance.doctor.words import listed

LAYER = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """``here``: it is on this box; ``near``: or on a network that the box is part of. ``address`` is where to; ``None``
    if no name was found, and then ``source`` is about anywhere far away: the address of ours that would be used, and
    ``None`` without a route. ``up`` and ``down`` are interfaces, the loopback not counted."""

    here: bool = False
    near: bool = False
    address: str | None = None
    source: str | None = None
    interface: str | None = None
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


def verdict(way: Way) -> Finding:
    if way.source:
        if way.here:
            return ok(LAYER, "it is on this very box")
        by = f" by {way.interface}" if way.interface else ""
        return ok(LAYER, f"a route{by} from {way.source}{', to a network this box is part of' if way.near else ''}")
    if way.here:
        return wrong(LAYER, "the loopback interface is down", who="you", fix="Run: ip link set lo up")
    if not way.up:
        off = f" ({listed(way.down)} {'is' if len(way.down) == 1 else 'are'} down or without a carrier)"
        said = f"no network interface is up{off if way.down else ', and there is none but the loopback'}"
        return wrong(LAYER, said, who="you", fix="Plug in the cable or join the Wi-Fi; `ip link` shows the interfaces.")
    to = way.address or "anywhere outside"
    said = f"{listed(way.up)} {'is' if len(way.up) == 1 else 'are'} up, but there is no route to {to}"
    fix = "Bring up the default gateway or the VPN (renew the DHCP lease); `ip route` shows what there is."
    return wrong(LAYER, said, who="you", fix=fix)
