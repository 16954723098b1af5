"""May this caller speak to us at all? A web page is not a client.

A browser can be made to send requests to a loopback service by any page it shows (DNS rebinding, cross-site
POSTs). So the `Host` must be one of ours, and an `Origin` must be ours or listed in the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    status: int
    message: str


def hostname(host_header: str) -> str | None:
    """The name in a Host header, without its port, in lower case; ``None`` if it is no such header."""
    found = _HOST.fullmatch(host_header.strip())
    return (found["v6"] or found["name"]).lower() if found else None


def admit(
    host: str | None, origin: str | None, *, own_names: Collection[str], origins: Collection[str]
) -> Refusal | None:
    """``None`` if the caller is welcome, else why not.

    `host` and `origin` are the header values as they came, `own_names` what we are reached under besides the
    loopback names, `origins` the web pages the configuration lists (``https://app.example``).
    """
    name = hostname(host) if host else None
    own_names = {own.lower() for own in own_names}
    if name is None or not (name in LOOPBACK_NAMES or name in own_names or name.endswith(".localhost")):
        return Refusal(status=403, message="The Host header does not name this appliance; use its own address.")
    if origin is None or origin in origins or _same(origin, host):
        return None
    return Refusal(
        status=403,
        message="Web pages may not call this appliance; list the page's origin under server.origins to allow it.",
    )


def _same(origin: str, host: str | None) -> bool:
    """Is the page one of ours: same host and port as it was asked from?"""
    try:
        return host is not None and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def is_json(content_type: str | None) -> bool:
    """A page can send a form or plain text across origins without asking; it cannot send this."""
    return content_type is not None and content_type.partition(";")[0].strip().lower() == "application/json"
