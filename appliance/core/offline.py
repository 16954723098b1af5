"""Is there a way to this upstream at all: a name for its address, or its proxy's, and a route to it?

Rules of this file:

1. Judged per upstream. There is no such thing as "the internet": a box may have a way to one cloud and not to another.
2. What is on this very box or on a network the box itself is part of is never offline, only well or not.
3. No route is certain at once. A name is missing when two questions in a row had no answer: one may get lost.
4. An answer that reached its end after something went missing shows that it was not needed (a proxy below us, a
   connection still open): what is missing then counts for nothing until it is found again.
5. A route is what the kernel says, and a wire behind it: an interface that lost its carrier keeps its routes.
6. A login page in between cannot be seen from here; a probe sees it.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Missing = Literal["route", "name"]

LOOKUPS_TO_BELIEVE = 2
SMALLEST_PREFIX = 8
_PORTS = {"http": 80, "https": 443}
_SENTENCES: dict[Missing, str] = {
    "route": "This box is offline: it has no route to the cloud's address.",
    "name": "This box is offline: the name of the cloud's address cannot be resolved.",
}


class Place(NamedTuple):
    """Where connections for an upstream go first."""

    host: str
    port: int


def place(base_url: str, proxy: str | None = None) -> Place | None:
    """The first stop on the way to `base_url`. ``None`` if it needs no network, or is no address at all."""
    try:
        parts = urlsplit(proxy or base_url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 443)
    except ValueError:
        return None
    if not host or host == "localhost" or host.endswith(".localhost"):
        return None
    literal = address_of(host)
    return None if literal is not None and literal.is_loopback else Place(host, port)


def address_of(host: str) -> Address | None:
    """The address that `host` is, if it is no name. A zone ("%eth0") is no part of it."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the way to one place.

    ``addresses``: is any known, from now or from before? ``unresolved``: how many questions for its name in a row had
    no answer. ``routed``: is there a route to any of its addresses; if none is known, to anywhere far away? ``near``:
    is one of them on this box or on a network the box is part of? ``disproved``: an answer came all the same.
    """

    addresses: bool
    unresolved: int = 0
    routed: bool = True
    near: bool = False
    disproved: bool = False


def missing(facts: Facts) -> Missing | None:
    """What stands in the way, if anything does that is certain."""
    if facts.near:
        return None
    if not facts.routed and (facts.addresses or facts.unresolved):
        return "route"
    return "name" if facts.unresolved >= LOOKUPS_TO_BELIEVE else None


def judge(facts: Facts) -> bool:
    """Is it offline?"""
    return missing(facts) is not None and not facts.disproved


def sentence(what: Missing) -> str:
    return _SENTENCES[what]


# ----------------------------------------------------------------------------------------------------- routes


class Route(NamedTuple):
    """A row of the kernel's table."""

    network: Network
    gateway: bool
    interface: str


def matching(address: Address, routes: Sequence[Route]) -> list[Route]:
    """The rows that hold for this address: those of the smallest network that has it."""
    found = [route for route in routes if route.network.version == address.version and address in route.network]
    longest = max((route.network.prefixlen for route in found), default=0)
    return [route for route in found if route.network.prefixlen == longest]


def near(address: Address, routes: Sequence[Route]) -> bool:
    """Is it on this box, or on a network that the box is part of? Everything behind a gateway is far, and so is
    everything that only a default route leads to, or one of the halves in which tunnels write it."""
    if address.is_loopback or address.is_link_local:
        return True
    rows = matching(address, routes)
    return bool(rows) and rows[0].network.prefixlen >= SMALLEST_PREFIX and not any(row.gateway for row in rows)


def wired(address: Address, routes: Sequence[Route], dead: Collection[str]) -> bool:
    """Has any interface that leads there a carrier? `dead` are those without. Yes where the table does not tell."""
    rows = matching(address, routes)
    return not rows or any(row.interface not in dead for row in rows)


RTF_UP, RTF_GATEWAY, RTF_REJECT = 0x1, 0x2, 0x200


def read_ipv4(table: str) -> list[Route]:
    """The rows of /proc/net/route. Addresses in it are numbers in the machine's own order of bytes."""
    rows = []
    for line in table.splitlines()[1:]:
        words = line.split()
        try:
            flags = int(words[3], 16)
            network = ipaddress.IPv4Network((_octets(words[1]), int(words[7], 16).bit_count()))
        except (ValueError, IndexError):
            continue
        if flags & RTF_UP and not flags & RTF_REJECT:
            rows.append(Route(network, bool(flags & RTF_GATEWAY), words[0]))
    return rows


def read_ipv6(table: str) -> list[Route]:
    """The rows of /proc/net/ipv6_route but for those of single addresses, which are the box's own."""
    rows = []
    for line in table.splitlines():
        words = line.split()
        try:
            flags, bits = int(words[8], 16), int(words[1], 16)
            network = ipaddress.IPv6Network((bytes.fromhex(words[0]), bits))
        except (ValueError, IndexError):
            continue
        if flags & RTF_UP and not flags & RTF_REJECT and bits < 128:
            rows.append(Route(network, bool(flags & RTF_GATEWAY), words[9]))
    return rows


def _octets(number: str) -> bytes:
    return int(number, 16).to_bytes(4, sys.byteorder)
