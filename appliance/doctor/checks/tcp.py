"""Does anybody open the door at that address?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.core.address import authority
from appliance.doctor.finding import Finding, ok, warn, wrong
from appliance.doctor.words import milliseconds

LAYER = "TCP"

Outcome = Literal["connected", "refused", "silence", "unreachable", "reset", "forbidden", "failed"]
_FURTHEST: Sequence[Outcome] = ("connected", "refused", "reset", "silence", "forbidden", "failed", "unreachable")
_CLAUSES: dict[Outcome, str] = {
    "refused": "refuses the connection",
    "silence": "does not answer the knock",
    "unreachable": "cannot be reached: a router on the way says that there is no way",
    "reset": "hangs up before the connection stands",
    "forbidden": "may not be called: this box's own firewall forbids it",
    "failed": "cannot be connected to",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """One try at one address."""

    address: str
    port: int
    outcome: Outcome
    seconds: float

    @property
    def at(self) -> str:
        return authority(self.address, self.port)


def most_telling(knocks: Sequence[Knock]) -> Knock:
    """The one that got furthest: a box without IPv6 has no way to the half of a cloud's addresses."""
    return min(knocks, key=lambda knock: (_FURTHEST.index(knock.outcome), knock.seconds))


def verdict(knocks: Sequence[Knock], *, near: bool, elsewhere: bool) -> Finding:
    """``elsewhere``: has anybody else far away proved who he is in the meantime? Then the way out is open."""
    connected = [knock for knock in knocks if knock.outcome == "connected"]
    if connected:
        best = most_telling(connected)
        said = f"{best.at} in {milliseconds(best.seconds)}"
        deaf = [knock for knock in knocks if knock.outcome == "silence"]
        if deaf:
            said += f"; but {deaf[0].at} {_CLAUSES['silence']}"
            family = "IPv6" if ":" in deaf[0].address else "its address"
            return warn(LAYER, said, who="you", fix=f"Mend {family} on this network, or each new connection may wait.")
        return ok(LAYER, said)
    worst = most_telling(knocks)
    said = f"{worst.at} {_CLAUSES[worst.outcome]}"
    if near and worst.outcome == "refused":
        return wrong(LAYER, f"{said}: nothing listens there", who="you", fix="Start that server, or correct its port.")
    if near:
        return wrong(LAYER, said, who="you", fix="Start that machine, or open the port in its firewall.")
    if worst.outcome == "forbidden":
        return wrong(
            LAYER, said, who="you", fix=f"Allow port {worst.port} in the firewall; `nft list ruleset` shows it."
        )
    if elsewhere:
        said += ", while others out there answer"
        return wrong(LAYER, said, who="them", fix="Wait for them; the box answers meanwhile.")
    fix = f"Ask whoever runs this network whether port {worst.port} is open to the outside, or set `proxy`."
    return wrong(LAYER, f"{said}, and nobody else out there answered either", who="you", fix=fix)
