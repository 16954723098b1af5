"""Asks the kernel which way a connection would go. Nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from appliance.backends.network import FAR, ThisKernel
from appliance.core.offline import address_of, near, wired
from appliance.doctor.checks.link import Way

LOOPBACK = "lo"


def way_to(addresses: Sequence[str], port: int, *, here: bool) -> Way:
    """To the first of them that can be reached; to anywhere far away if there are none."""
    kernel = ThisKernel()
    routes = kernel.routes()
    dead = kernel.dead({route.interface for route in routes})
    wanted = [address for address in map(address_of, addresses or FAR) if address is not None]
    up, down = _interfaces()
    for address in wanted:
        source = kernel.source(address, port) if wired(address, routes, dead) else None
        if source is not None:
            return Way(
                here=here or address.is_loopback,
                near=bool(addresses) and near(address, routes),
                address=str(address) if addresses else None,
                source=source,
                interface=_interface_of(source),
                up=up,
                down=down,
            )
    return Way(here=here, address=str(wanted[0]) if addresses and wanted else None, up=up, down=down)


def _interfaces() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that are up and have a carrier, and those that are not."""
    up: list[str] = []
    down: list[str] = []
    try:
        seen = sorted(psutil.net_if_stats().items())
    except OSError:  # not told in here
        seen = []
    for name, found in seen:
        if "loopback" in found.flags.split(",") or name == LOOPBACK:
            continue
        (up if found.isup and "running" in found.flags.split(",") else down).append(name)
    return tuple(up), tuple(down)


def _interface_of(source: str) -> str | None:
    """Whose address is it?"""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == source for one in addresses):
            return str(name)
    return None
