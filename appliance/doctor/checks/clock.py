"""Is this box's clock right? By it certificates expire, and logs tell their story."""

from __future__ import annotations

from datetime import timedelta

from appliance.doctor.checks.tls import CLOCK_FIX, CLOCK_WRONG
from appliance.doctor.finding import Finding, ok, skipped, warn, wrong
from appliance.doctor.words import ago

LAYER = "clock"
ODD = timedelta(minutes=2)


def verdict(off: timedelta | None) -> Finding:
    """``off``: how far it is ahead of the clocks of those who answered."""
    if off is None:
        return skipped(LAYER, "nobody answered whose clock could be compared")
    side = f"{ago(off)} {'ahead of' if off > timedelta() else 'behind'} others'"
    if abs(off) > CLOCK_WRONG:
        return wrong(LAYER, side, who="box", fix=CLOCK_FIX)
    if abs(off) > ODD:
        return warn(LAYER, side, who="box", fix=CLOCK_FIX)
    return ok(LAYER, "agrees with others'")
