"""Does the name lead to an address, and to the right one?

Rules of this file:

1. Whoever proved by a certificate to be who the name says is right, at whatever address: private links, transparent
   proxies and filters that mean well are no spoofing.
2. An address that cannot be right (this box itself, nobody's, the one that is given for names that cannot exist; for a
   public cloud a private one) is spoofed unless it was proven.
3. A name server that says nothing, fails or refuses is broken; who says that a public cloud does not exist, blocks it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.core.offline import address_of
from appliance.doctor.finding import Finding, ok, warn, wrong
from appliance.doctor.words import listed, milliseconds

LAYER = "DNS"
RESOLV = "/etc/resolv.conf"
INNER = tuple(
    ipaddress.ip_network(network)
    for network in "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 169.254.0.0/16 fc00::/7 fe80::/10".split()
)
"""Where nobody outside can be (RFC 1918, 6598, 3927, 4193, 4291)."""

Trouble = Literal["", "no such name", "no answer", "too slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A name server of this box, asked directly. ``said`` is DNS's own word for its answer ("NXDOMAIN"), or
    "silence"."""

    address: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What the system's resolver found, and why it found nothing. ``literal``: it was an address already. ``invented``
    are the addresses it gives for a name that cannot exist. ``written``: the name stands in /etc/hosts. ``public``: it
    is the name of a provider that everybody reaches."""

    host: str
    found: tuple[str, ...] = ()
    trouble: Trouble = ""
    seconds: float = 0.0
    literal: bool = False
    written: bool = False
    public: bool = False
    invented: tuple[str, ...] = ()
    servers: tuple[Server, ...] = ()


def verdict(lookup: Lookup, *, proven: bool, whose: str, here: bool = False) -> Finding:
    """``proven``: who was found there could prove to have this name. ``whose``: "upstream "x"" or its proxy."""
    if lookup.literal or here:
        return ok(LAYER, "an address, no name to look up" if lookup.literal else "a name of this box")
    if not lookup.found:
        return _nothing_found(lookup, whose)
    found = f"{lookup.host} is {listed(lookup.found)}"
    if not proven and (odd := _odd(lookup)) is not None:
        where, fix = _source(lookup)
        return wrong(LAYER, f"spoofed: {found} {where}, {odd}", who="you", fix=fix)
    said = f"{found} ({milliseconds(lookup.seconds)})"
    if lookup.invented and not proven:
        fix = f"Use a name server that tells the truth, in {RESOLV}; your provider's may redirect you to its own pages."
        said += f"; but names that do not exist are answered too, with {listed(lookup.invented)}"
        return warn(LAYER, said, who="you", fix=fix)
    return ok(LAYER, said + (", from /etc/hosts" if lookup.written else ""))


def _nothing_found(lookup: Lookup, whose: str) -> Finding:
    host = lookup.host
    answers = {server.said for server in lookup.servers}
    silent = [server.address for server in lookup.servers if server.said == "silence"]
    failing = [server for server in lookup.servers if server.said not in ("silence", "NXDOMAIN", "NOERROR")]
    other = f"Set a name server that works in {RESOLV} (your router's, or a public one), or mend this one."
    if not lookup.servers:
        said = f"{host} has no address: no name server is configured"
        return wrong(LAYER, said, who="you", fix=f"Write one into {RESOLV}: nameserver ADDRESS.")
    if silent and len(silent) == len(lookup.servers):
        do = "does not answer" if len(silent) == 1 else "do not answer"
        return wrong(LAYER, f"broken: the name server {listed(silent)} {do}", who="you", fix=other)
    if failing:
        said = f"broken: the name server {failing[0].address} answers {failing[0].said} for {host}"
        return wrong(LAYER, said, who="you", fix=other)
    if lookup.public and answers & {"NXDOMAIN", "NOERROR"}:
        teller = next(server for server in lookup.servers if server.said in ("NXDOMAIN", "NOERROR"))
        said = f"blocked: the name server {teller.address} says that {host} has no address"
        return wrong(LAYER, said, who="you", fix="Allow the name in your DNS filter, or use another name server.")
    if "NXDOMAIN" in answers or lookup.trouble == "no such name":
        said = f"there is no such name as {host}"
        return wrong(LAYER, said, who="you", fix=f"Correct the address of {whose} in appliance.toml.")
    return wrong(LAYER, f"broken: {host} could not be looked up ({lookup.trouble})", who="you", fix=other)


def _odd(lookup: Lookup) -> str | None:
    """Why these addresses cannot be right."""
    addresses = [found for found in map(address_of, lookup.found) if found is not None]
    if shared := [address for address in lookup.found if address in lookup.invented]:
        return f"and so is every name that does not exist ({shared[0]})"
    if any(address.is_unspecified for address in addresses):
        return "an address of nobody"
    if any(address.is_loopback for address in addresses):
        return "which is this very box"
    if lookup.public and addresses and all(any(address in network for network in INNER) for address in addresses):
        return "which is a private address"
    return None


def _source(lookup: Lookup) -> tuple[str, str]:
    """Where that comes from, and what to do about it."""
    if lookup.written:
        return "in /etc/hosts", f"Delete the line of {lookup.host} from /etc/hosts."
    servers = by(lookup.servers)
    fix = "Log in if this network has a login page; else use another name server, or allow the name in your filter."
    return f"by the name server {servers}" if servers else "by this box's resolver", fix


def by(servers: Sequence[Server]) -> str:
    return listed([server.address for server in servers if server.said == "NOERROR"])
