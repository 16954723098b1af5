"""What does the provider itself say about how it is?"""

from __future__ import annotations

import json
from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, skipped, warn
from appliance.doctor.words import listed, plain

LAYER = "status page"
SUMMARY = "api/v2/summary.json"
"""Where Statuspage, and others in its manner, say the same as on their page."""
WELL = "none"
OVER = ("resolved", "postmortem", "completed", "scheduled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``indicator`` is Statuspage's word: none, minor, major, critical, maintenance. ``unread`` says why there is
    none."""

    url: str
    indicator: str = ""
    description: str = ""
    incidents: tuple[str, ...] = ()
    unread: str = ""

    @property
    def ailing(self) -> bool:
        return bool(self.indicator) and self.indicator != WELL


def read(url: str, body: bytes) -> Page:
    """A page's JSON. Those of others in Statuspage's manner may leave the judgement out, and list what is over."""
    try:
        said = json.loads(body)
        incidents = [one for one in said["incidents"] if plain(one.get("status")) not in OVER]
        judged = said.get("status") or {}
        indicator = plain(judged.get("indicator")) or ("minor" if incidents else WELL)
        return Page(
            url=url,
            indicator=indicator,
            description=plain(judged.get("description")) or ("incidents" if incidents else "no incidents"),
            incidents=tuple(plain(one["name"]) for one in incidents),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Page(url=url, unread="it has nothing for programs to read")


def verdict(page: Page) -> Finding:
    if page.unread:
        return skipped(LAYER, f"not read ({page.unread}); look at {page.url}")
    said = page.description or page.indicator
    if not page.ailing:
        return ok(LAYER, said)
    if page.incidents:
        said += f": {listed(page.incidents, most=2)}"
    return warn(LAYER, f"{said} ({page.url})", who="them")
