"""Through which proxy is this address reached, if the environment is asked?

Rules of this file:

1. The environment is an argument. Names in lower case come before upper case, as curl, Python and most others have it.
2. A name in lower case that is set to nothing means: none.
3. What is on this very box is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


class Found(NamedTuple):
    """A proxy of the environment and the variable it stands in."""

    variable: str
    url: str


def of_environment(base_url: str, environ: Mapping[str, str]) -> Found | None:
    """The proxy for `base_url`, if a variable names one and none excepts the address."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    if on_this_box(host) or excepted(host, parts.port or PORTS[parts.scheme], _said(environ, "no_proxy")[1]):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, written = _said(environ, name)
        if variable:
            return Found(variable, written if "://" in written else f"http://{written}") if written else None
    return None


def on_this_box(host: str) -> bool:
    """Is it a name or an address of the loopback interface?"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def excepted(host: str, port: int, no_proxy: str) -> bool:
    """Does NO_PROXY name this host? ``example.org`` stands for itself and all below it, ``.example.org`` and
    ``*.example.org`` likewise, ``*`` for everybody; addresses may be networks, and each may have a port."""
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        name, only_port = _entry(entry)
        if name == "*":
            return True
        name = name.removeprefix("*").removeprefix(".").rstrip(".")
        if name and only_port in (None, port) and (host == name or host.endswith(f".{name}") or _within(host, name)):
            return True
    return False


def _said(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable that speaks, or "", and what it says."""
    if name in environ:
        return name, environ[name].strip()
    spoken = environ.get(name.upper(), "").strip()
    return (name.upper(), spoken) if spoken else ("", "")


def _entry(entry: str) -> tuple[str, int | None]:
    """An entry of NO_PROXY as name and port."""
    found = re.fullmatch(r"\[?([^\]]*?)\]?(?::(\d+))?", entry) if entry.count(":") <= 1 or "[" in entry else None
    return (found[1], int(found[2]) if found[2] else None) if found else (entry, None)


def _within(host: str, network: str) -> bool:
    address = _address(host)
    try:
        return address is not None and address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
