"""Asks the kernel for routes and the resolver for names, and tells each upstream's breakers whether there is a way.

Rules of this file:

1. Nothing is sent but the resolver's own questions: connecting a UDP socket only makes the kernel choose a route.
2. Names are asked for rarely while all is well, and at every look while they are missing, or when the route has
   changed, or now and then while the upstream fails.
3. The resolver may block for long, in a thread that nobody can stop: one question at a time for each name, and
   `LOOKUPS` at a time for all, so that clouds can still be looked up. No look waits for it to the end.
4. Upstreams that nobody has asked for lately are left alone. What a fact means is judged in `core/offline.py`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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
"""After so long a question counts as unanswered, for this look and each that follows."""
LOOKUP_WAIT = 0.3
"""Seconds that a look waits for the resolver. Routes are known without it."""
LOOKUPS = 2
BELIEVED, DOUBTED = 60.0, 10.0
"""Seconds for which a name that was found is believed: while all is well, and while the upstream fails."""
SETTLED = 1.0
"""Seconds after something went missing in which answers may still end with what had been received before."""
FAR = ("192.0.2.1", "2001:db8::1")
"""Addresses that belong to nobody (RFC 5737, RFC 3849), for the question whether there is a route to anywhere."""
TABLE_LIMIT = 64 * 1024
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """An upstream, where connections for it go first (if that needs a network), and whom to tell."""

    name: str
    place: Place | None
    breakers: Breakers


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
    """The one we run on. Where it does not tell, there is a route and every interface has a carrier."""

    def source(self, address: Address, port: int) -> str | None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            asking = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            # No IPv6 in the kernel means no way there; no free file descriptor means nothing.
            return None if error.errno == errno.EAFNOSUPPORT else ""
        with asking:
            try:
                asking.connect((str(address), port))
                return str(asking.getsockname()[0])
            except OSError:
                return None

    def routes(self) -> Sequence[Route]:
        return [*read_ipv4(_read("/proc/net/route")), *read_ipv6(_read("/proc/net/ipv6_route"))]

    def dead(self, interfaces: Iterable[str]) -> set[str]:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                return {name for name in interfaces if not _running(asking, name)}
        except OSError:
            return set()


class Resolver(Protocol):
    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Its addresses. Raises `OSError` if there is no answer, or none with an address in it."""
        ...


async def resolve(host: str, port: int) -> Sequence[str]:
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
    found_at: float = 0.0
    lookup: asyncio.Task[Sequence[str]] | None = None
    lookup_since: float = 0.0
    missing_since: float | None = None

    @property
    def facts(self) -> Facts:
        known = bool(self.addresses)
        return Facts(addresses=known, unresolved=self.unresolved, routed=self.routed, near=self.near)


class Lookout:
    """Looks at places, one look after the other, and remembers what it saw."""

    def __init__(self, kernel: Kernel | None = None, resolver: Resolver = resolve) -> None:
        self._kernel = kernel or ThisKernel()
        self._resolver = resolver
        self._ways: dict[Place, _Way] = {}

    async def look(self, places: Sequence[tuple[Place, Breakers]], now: float) -> list[Missing | None]:
        """What is missing on the way to each, as far as its answers do not show that it is not needed."""
        by_place: dict[Place, list[Breakers]] = {}
        for place, breakers in places:
            by_place.setdefault(place, []).append(breakers)
        for place in self._ways.keys() - by_place.keys():
            self._forget(place)
        if not places:
            return []
        await self._look_up(by_place, now)
        routes = self._kernel.routes()
        dead = self._kernel.dead({route.interface for route in routes})
        for place in by_place:
            self._follow(place, self._ways[place], routes, dead, now)
        return [_missing(self._ways[place], breakers) for place, breakers in places]

    def close(self) -> None:
        for place in list(self._ways):
            self._forget(place)

    def _forget(self, place: Place) -> None:
        way = self._ways.pop(place)
        if way.lookup is not None:
            way.lookup.cancel()

    # ---------------------------------------------------------------------------------------------- names

    async def _look_up(self, places: dict[Place, list[Breakers]], now: float) -> None:
        """Ask for the names that it is time for, and take the answers that have come."""
        for place, asked_for in places.items():
            way = self._ways.setdefault(place, _Way())
            literal = address_of(place.host)
            if literal is not None:
                way.addresses = (literal,)
            elif way.lookup is None and self._is_due(place, way, asked_for, now) and self._asking() < LOOKUPS:
                way.lookup = asyncio.create_task(_ask(self._resolver, place), name=f"look up {place.host}")
                way.lookup_since = now
        if asking := [way.lookup for way in self._ways.values() if way.lookup is not None]:
            await asyncio.wait(asking, timeout=LOOKUP_WAIT)
        for way in self._ways.values():
            if way.lookup is None:
                continue
            if not way.lookup.done():
                way.unresolved += now - way.lookup_since >= LOOKUP_SECONDS
                continue
            found = _addresses(way.lookup)
            way.lookup = None
            if found:
                way.addresses, way.unresolved, way.found_at = found, 0, now
            else:
                way.unresolved += 1

    def _is_due(self, place: Place, way: _Way, asked_for: Sequence[Breakers], now: float) -> bool:
        if not way.addresses:
            return True
        if not way.routed:
            return False  # nor is there a route to whoever could be asked
        believed = DOUBTED if any(one.failures for one in asked_for) else BELIEVED
        moved = self._kernel.source(way.addresses[0], place.port) not in (None, way.source)
        return moved or way.unresolved > 0 or now - way.found_at >= believed

    def _asking(self) -> int:
        return sum(way.lookup is not None for way in self._ways.values())

    # --------------------------------------------------------------------------------------------- routes

    def _follow(self, place: Place, way: _Way, routes: Sequence[Route], dead: set[str], now: float) -> None:
        """Which way would a connection go now?"""
        asked = way.addresses or [address for address in map(address_of, FAR) if address is not None]
        sources = [self._kernel.source(address, place.port) for address in asked if wired(address, routes, dead)]
        way.routed = any(source is not None for source in sources)
        if way.routed and way.addresses:
            # These stay as they were while it is out of reach: then the kernel says nothing of it.
            way.source = self._kernel.source(way.addresses[0], place.port)
            way.near = any(near(address, routes) for address in way.addresses)
        if not judge(way.facts):
            way.missing_since = None
        elif way.missing_since is None:
            way.missing_since = now


def _missing(way: _Way, breakers: Breakers) -> Missing | None:
    answered, since = breakers.answered_at, way.missing_since
    disproved = answered is not None and since is not None and answered > since + SETTLED
    facts = replace(way.facts, disproved=disproved)
    return missing(facts) if judge(facts) else None


async def _ask(resolver: Resolver, place: Place) -> Sequence[str]:
    return await resolver(place.host, place.port)


def _addresses(lookup: asyncio.Task[Sequence[str]]) -> tuple[Address, ...]:
    """What it found; nothing if there was no answer."""
    if lookup.cancelled():
        return ()
    if (error := lookup.exception()) is not None:
        if not isinstance(error, OSError | UnicodeError):  # the latter: a name that cannot even be asked for
            log.error("looking up a name failed: %s", type(error).__name__)
        return ()
    found = dict.fromkeys(address_of(address) for address in lookup.result())
    return tuple(address for address in found if address is not None)


def _read(path: str) -> str:
    """A table of the kernel's; nothing where there is none, or one too long to be read again and again."""
    try:
        with open(path, encoding="ascii", errors="replace") as table:
            text = table.read(TABLE_LIMIT + 1)
    except OSError:
        return ""
    return text if len(text) <= TABLE_LIMIT else ""


def _running(asking: socket.socket, interface: str) -> bool:
    """Has it a carrier? Yes if nobody knows."""
    try:
        said = fcntl.ioctl(asking, SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
    except (OSError, struct.error):
        return True
    return bool(struct.unpack("16xH14x", said)[0] & IFF_RUNNING)


async def watch(watched: Callable[[], Iterable[Watched]], lookout: Lookout | None = None) -> None:
    """Look every two seconds and tell the breakers. Never ends by itself, and never raises."""
    lookout = lookout or Lookout()
    loop = asyncio.get_running_loop()
    try:
        while True:
            again = loop.time() + LOOK_SECONDS
            try:
                await look(watched(), lookout, loop.time())
            except Exception:
                log.exception("looking at the network failed")
            await asyncio.sleep(again - loop.time())
    finally:
        lookout.close()


async def look(watched: Iterable[Watched], lookout: Lookout, now: float) -> None:
    """One look at the ways to all that somebody wants an answer of."""
    wanted = [(one, one.place) for one in watched if one.place is not None and one.breakers.in_use(now)]
    found = await lookout.look([(place, one.breakers) for one, place in wanted], now)
    for (one, _), what in zip(wanted, found, strict=True):
        before = one.breakers.offline
        if what is not None and what != before:
            log.warning("%s is offline: no %s", one.name, what)
            one.breakers.lose(what, now)
        elif what is None and before is not None:
            log.warning("%s is online again", one.name)
            one.breakers.find(asyncio.get_running_loop().time())
