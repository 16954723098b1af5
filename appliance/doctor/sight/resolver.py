"""Asks for a name: the system's resolver as every program does, and each name server by itself."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.resolver

from appliance.core.offline import address_of
from appliance.doctor.checks.names import Lookup, Server, Trouble
from appliance.doctor.sight.aside import aside

SECONDS = 2.5
NO_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
NOBODY = "invalid"
"""A top level under which no name will ever exist (RFC 6761, 6.4)."""
RESOLV, HOSTS = "etc/resolv.conf", "etc/hosts"
LOCAL_SERVERS = 3  # as many as the system's resolver asks


async def look_up(host: str, port: int, *, public: bool, root: Path = Path("/")) -> Lookup:
    """Everything there is to know of the name."""
    if (literal := address_of(host)) is not None:
        return Lookup(host=host, found=(str(literal),), literal=True)
    nobody = f"{secrets.token_hex(8)}.{NOBODY}."  # with its dot, or it would be looked for in this network's own names
    (found, trouble, seconds), (invented, *_), servers = await asyncio.gather(
        _resolve(host, port), _resolve(nobody, port), _ask_all(name_servers(root), host)
    )
    return Lookup(
        host=host,
        found=found,
        trouble=trouble,
        seconds=seconds,
        written=_is_written(host, root),
        public=public,
        invented=invented,
        servers=servers,
    )


async def _resolve(host: str, port: int) -> tuple[tuple[str, ...], Trouble, float]:
    """The addresses, or why there are none, and after how long."""
    clock = asyncio.get_running_loop().time
    began = clock()
    found: tuple[str, ...] = ()
    trouble: Trouble = ""
    try:
        answers = await aside(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), seconds=SECONDS, name=f"look up {host}"
        )
        found = tuple(dict.fromkeys(str(address[0]) for *_, address in answers))
    except TimeoutError:
        trouble = "too slow"
    except socket.gaierror as error:
        trouble = "no such name" if error.errno in NO_NAME else "no answer"
    except (OSError, UnicodeError):
        trouble = "no such name"
    return found, trouble, clock() - began


async def _ask_all(servers: Sequence[str], host: str) -> tuple[Server, ...]:
    return tuple(await asyncio.gather(*(_ask(server, host) for server in servers)))


async def _ask(server: str, host: str) -> Server:
    """What this one says; only whether it answers matters, and how."""
    try:
        question = dns.message.make_query(host, "A")
        answer, _ = await dns.asyncquery.udp_with_fallback(question, server, timeout=SECONDS)
        said = dns.rcode.to_text(answer.rcode())
    except (TimeoutError, dns.exception.Timeout, ConnectionError):
        said = "silence"
    except (OSError, dns.exception.DNSException):
        said = "nonsense"
    return Server(address=server, said=said)


def name_servers(root: Path) -> Sequence[str]:
    """Those in the resolver's own file."""
    try:
        found = dns.resolver.Resolver(filename=str(root / RESOLV)).nameservers
    except (OSError, dns.exception.DNSException):
        return ()
    return [str(server) for server in found][:LOCAL_SERVERS]


def _is_written(host: str, root: Path) -> bool:
    try:
        lines = (root / HOSTS).read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(host.lower() in line.partition("#")[0].lower().split()[1:] for line in lines)
