"""Is it worth asking the same cloud once more, and after how long?

What failed at once may have been an accident, and the preferred cloud is worth two seconds. Silence never is, also if
somebody on the way breaks it with a 504: whoever waited once would wait twice. Nor is what is certain, like a network
without a route.
"""

from __future__ import annotations

from appliance.core.fault import BackendError, Fault

BACK_OFF = 0.5  # seconds, give or take a half
WORTH_WAITING = 2.0  # seconds
AT_ONCE = 5.0  # seconds
TIMED_OUT = 504


def pause_before(error: BackendError, jitter: float, waited: float = 0.0) -> float | None:
    """Seconds to wait before another try, or ``None`` if it is not worth one. `jitter` is in [0, 1); `waited` is how
    many seconds the failure took to come."""
    if waited > AT_ONCE or error.certain:
        return None
    match error.fault:
        case Fault.SERVER:
            return BACK_OFF * (0.5 + jitter)
        case Fault.UNREACHABLE if error.status != TIMED_OUT:
            return BACK_OFF * (0.5 + jitter)
        case Fault.BUSY if error.retry_after is not None and error.retry_after <= WORTH_WAITING:
            return error.retry_after
        case _:
            return None
