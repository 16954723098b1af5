"""Does the proxy let us through?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, wrong
from appliance.doctor.words import milliseconds

LAYER = "proxy"
WANTS_CREDENTIALS, FORBIDDEN = 407, 403
CREDENTIALS_FIX = 'Write them into the address: proxy = "http://USER:PASSWORD@HOST:PORT".'


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """What the proxy ``at`` said when it was asked for a way to ``host``. Without a ``status`` it said nothing that can
    be understood; ``trouble`` says what instead."""

    at: str
    host: str
    status: int | None
    seconds: float
    trouble: str = ""


def verdict(tunnel: Tunnel) -> Finding:
    status = tunnel.status
    if status is not None and 200 <= status < 300:
        return ok(LAYER, f"{tunnel.at} leads to {tunnel.host} ({milliseconds(tunnel.seconds)})")
    if status == WANTS_CREDENTIALS:
        return wrong(LAYER, f"{tunnel.at} wants other credentials (407)", who="you", fix=CREDENTIALS_FIX)
    if status == FORBIDDEN:
        said = f"{tunnel.at} forbids {tunnel.host} (403)"
        return wrong(LAYER, said, who="you", fix=f"Have {tunnel.host} allowed on the proxy.")
    if status is not None:
        said = f"{tunnel.at} finds no way to {tunnel.host} ({status})"
        return wrong(LAYER, said, who="you", fix="Ask whoever runs the proxy; its own network or DNS may be broken.")
    said = f"{tunnel.at} {tunnel.trouble or 'does not answer as a proxy does'}"
    return wrong(LAYER, said, who="you", fix="Correct `proxy` (or HTTPS_PROXY), or start the proxy.")
