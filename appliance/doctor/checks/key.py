"""Does the cloud accept our key?"""

from __future__ import annotations

from appliance.core.fault import Fault
from appliance.doctor.checks.http import NOT_FOUND, OK, Reply
from appliance.doctor.finding import Finding, ok, wrong

LAYER = "key"
REFUSES = "The cloud refuses us"
"""How the dialects' sentence begins; its status and code follow, and behind a semicolon why and what to look at."""


def verdict(reply: Reply, *, key_from: str, has_key: bool, of_callers: bool, name: str) -> Finding:
    """``key_from`` as in the configuration: "env:NAME", "file:PATH", or nothing for plain text."""
    if of_callers:
        return ok(LAYER, "the callers bring their own")
    where = f"the key from {key_from}" if key_from else "the key in appliance.toml"
    error = reply.error
    if error is None or error.fault is not Fault.CONFIG or reply.status in NOT_FOUND:
        if not has_key:
            return ok(LAYER, "none is set, and none was asked for")
        return ok(LAYER, f"{where} is accepted" if reply.status == OK else f"{where} was not refused")
    if not has_key:
        fix = f'Write key = "env:NAME" at [[upstream]] {name}, and export that variable.'
        return wrong(LAYER, f"it wants a key ({reply.status}), and none is set", who="key", fix=fix)
    status, _, reason = error.message.removeprefix(REFUSES).rstrip(".").partition("; ")
    why, _, look = reason.partition(": ")
    said = f"{where} is refused{status}{f'; {why}' if why else ''}"
    if "country" in why:
        return wrong(
            LAYER, said, who="you", fix="Leave by a country that it serves (`proxy`), or do without this cloud."
        )
    if "billing" in look:
        return wrong(LAYER, said, who="key", fix="Look at the billing page of its account.")
    place = key_from.partition(":")[2] or "appliance.toml"
    return wrong(LAYER, said, who="key", fix=f"Put a valid key of {name} into {place}, and start the service again.")
