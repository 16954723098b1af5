"""Asks the kernel for routes and the resolver for names, and tells each upstream's breakers whether there is a way.

Rules of this file:

1. Nothing is sent but the resolver's own questions: connecting a UDP socket only makes the kernel choose a route.
2. Names are asked for rarely while all is well, and at every look while they are missing, or when the route has
   changed, or when the upstream has failed.
3. The resolver may block for long, in a thread that nobody can stop: one question at a time for each name, and
   `LOOKUPS` at a time for all, so that clouds can still be looked up.
4. Upstreams that nobody has asked for lately are left alone. What a fact means is judged in `core/offline.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance.core.offline import (
    Address,
    Facts,
    Missing,
    Place,
    Route,
    address_of,
    judge,
    missing,
    near,
    read_ipv4,
    read_ipv6,
    wired,
)
from appliance.core.scopes import Breakers

log = logging.getLogger("appliance")

LOOK_SECONDS = 2.0
LOOKUP_SECONDS = 2.0
LOOKUPS = 2
LOOK_UP_AGAIN = 60.0
"""Seconds for which a name that was found is believed."""
SETTLED = 1.0
"""Seconds after something went missing in which answers may still end with what had been received before."""
FAR = tuple(filter(None, map(address_of, ("192.0.2.1", "2001:db8::1"))))
"""Addresses that belong to nobody (RFC 5737, RFC 3849), for the question whether there is a route to anywhere."""
TABLE_LIMIT = 64 * 1024
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40


class Kernel(Protocol):
    def source(self, address: Address, port: int) -> str | None:
        """The address of ours from which it would be reached; ``None`` without a route."""
        ...

    def routes(self) -> Sequence[Route]:
        """The table, as far as it is known."""
        ...

    def dead(self, interfaces: Iterable[str]) -> set[str]:
        """Those of the interfaces that have no carrier."""
        ...


class ThisKernel:
    """The one we run on. Where it does not tell, everything has a route and every interface a carrier."""

    def source(self, address: Address, port: int) -> str | None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            asking = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            # Without IPv6 in the kernel there is no way there; without a free file descriptor we know nothing.
            return None if error.errno == _NO_FAMILY else ""
        with asking:
            try:
                asking.connect((str(address), port))
                return str(asking.getsockname()[0])
            except OSError:
                return None

    def routes(self) -> Sequence[Route]:
        return [*read_ipv4(_read("/proc/net/route")), *read_ipv6(_read("/proc/net/ipv6_route"))]

    def dead(self, interfaces: Iterable[str]) -> set[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            return {name for name in interfaces if not _running(asking, name)}


class Resolver(Protocol):
    async def __call__(self, host: str, port: int) -> list[str]:
        """Its addresses. Raises `OSError` if there is no answer, or none with an address in it."""
        ...


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(slots=True)
class _Way:
    """What is known of the way to one place."""

    addresses: tuple[Address, ...] = ()
    near: bool = False
    source: str | None = None
    routed: bool = True
    unresolved: int = 0
    found_at: float = float("-inf")
    lookup: asyncio.Task[list[str]] | None = None
    missing_since: float | None = None


class Lookout:
    """Looks at places, one look after the other, and remembers what it saw."""

    def __init__(self, kernel: Kernel | None = None, resolver: Resolver = resolve) -> None:
        self._kernel = kernel or ThisKernel()
        self._resolver = resolver
        self._ways: dict[Place, _Way] = {}

    async def look(
        self, watched: Iterable[tuple[Place, Breakers]], now: float
    ) -> list[tuple[Breakers, Missing | None]]:
        """What is missing on the way to each. Takes `LOOKUP_SECONDS` at most."""
        places: dict[Place, list[Breakers]] = {}
        for place, breakers in watched:
            places.setdefault(place, []).append(breakers)
        for place in self._ways.keys() - places.keys():
            self._forget(place)
        await self._look_up(places, now)
        routes, dead = self._table() if places else ((), set())
        seen = []
        for place, asked_for in places.items():
            way = self._ways[place]
            self._follow(place, way, routes, dead)
            facts = Facts(addresses=bool(way.addresses), unresolved=way.unresolved, routed=way.routed, near=way.near)
            what = missing(facts)
            if what is None:
                way.missing_since = None
            elif way.missing_since is None:
                way.missing_since = now
            seen += [(one, what if judge(_told(facts, way, one)) else None) for one in asked_for]
        return seen

    def aclose(self) -> None:
        for place in list(self._ways):
            self._forget(place)

    # ---------------------------------------------------------------------------------------------- names

    async def _look_up(self, places: dict[Place, list[Breakers]], now: float) -> None:
        """Ask for the names that it is time for, and wait for the answers for a while."""
        for place, asked_for in places.items():
            way = self._ways.setdefault(place, _Way())
            literal = address_of(place.host)
            if literal is not None:
                way.addresses = (literal,)
            elif way.lookup is None and self._is_due(place, way, asked_for, now) and self._asking() < LOOKUPS:
                way.lookup = asyncio.create_task(self._resolver(*place), name=f"look up {place.host}")
        asking = [way.lookup for way in self._ways.values() if way.lookup is not None]
        if asking:
            await asyncio.wait(asking, timeout=LOOKUP_SECONDS)
        for way in self._ways.values():
            if way.lookup is None:
                continue
            if not way.lookup.done():
                way.unresolved += 1
                continue
            found = _answer(way.lookup)
            way.lookup = None
            if found:
                way.addresses, way.unresolved, way.found_at = found, 0, now
            else:
                way.unresolved += 1

    def _is_due(self, place: Place, way: _Way, asked_for: list[Breakers], now: float) -> bool:
        if way.unresolved or not way.addresses or now - way.found_at >= LOOK_UP_AGAIN:
            # Without a route to it there is nobody to ask, either.
            return way.routed or not way.addresses
        moved = self._kernel.source(way.addresses[0], place.port) != way.source
        return moved or any(one.failures for one in asked_for)

    def _asking(self) -> int:
        return sum(way.lookup is not None for way in self._ways.values())

    def _forget(self, place: Place) -> None:
        way = self._ways.pop(place)
        if way.lookup is not None:
            way.lookup.cancel()

    # --------------------------------------------------------------------------------------------- routes

    def _table(self) -> tuple[Sequence[Route], set[str]]:
        routes = self._kernel.routes()
        return routes, self._kernel.dead({route.interface for route in routes})

    def _follow(self, place: Place, way: _Way, routes: Sequence[Route], dead: set[str]) -> None:
        """Which way would a connection go now?"""
        asked = way.addresses or FAR
        way.routed = False
        for address in asked:
            source = self._kernel.source(address, place.port)
            if source is None or not wired(address, routes, dead):
                continue
            if not way.routed:
                way.routed, way.source = True, source
        if way.routed and way.addresses:
            # What was near stays so while it is out of reach: then the table says nothing of it.
            way.near = any(near(address, routes) for address in way.addresses)


def _told(facts: Facts, way: _Way, breakers: Breakers) -> Facts:
    """The facts as this upstream's own answers show them."""
    answered, since = breakers.answered_at, way.missing_since
    disproved = answered is not None and since is not None and answered > since + SETTLED
    return Facts(
        addresses=facts.addresses,
        unresolved=facts.unresolved,
        routed=facts.routed,
        near=facts.near,
        disproved=disproved,
    )


async def watch(
    upstreams: Callable[[], Iterable[tuple[str, Place | None, Breakers]]], lookout: Lookout | None = None
) -> None:
    """Look every two seconds, and tell the breakers. Never ends by itself, and never raises."""
