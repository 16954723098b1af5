"""What does the client hear when nobody can answer? The first failure, and what stood in the way of the rest."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.core.fault import BackendError, Fault
from appliance.core.route import Leg
from appliance.core.scopes import Breakers


def verdict(errors: Sequence[tuple[Leg, BackendError]], *, stands_in: bool, stuck: bool) -> BackendError:
    """Nobody is left: the cloud's failure, and then what the box lacked (room in its queue, in its context) as the
    second half of the sentence. `stands_in`: the box was asked in a cloud's stead; `stuck`: there is an answer under
    way that nobody can continue."""
    if not errors:
        return BackendError(Fault.BUSY, "Nobody can go on with this answer.", status=503)
    (_, first), (leg, last) = errors[0], errors[-1]
    if stuck:
        return BackendError(last.fault, f"{last.message} What was under way cannot be continued by another.")
    if first.fault is Fault.TOO_LONG:
        return first
    if leg.local and stands_in and last.fault is Fault.BUSY:
        # Nothing was spent on it, and there will be room soon: whoever comes back is right to.
        message = f"{first.message} The box could not stand in: {last.message}"
        return BackendError(Fault.BUSY, message, status=503, retry_after=last.retry_after)
    refused = last.fault in (Fault.TOO_LONG, Fault.REQUEST)
    if leg.local and stands_in and refused:
        return BackendError(
            first.fault if first.fault is not Fault.CONFIG else Fault.SERVER,
            f"{first.message} The box could not stand in: {last.message}",
            status=503,
            retry_after=last.retry_after,
        )
    return last


def set_aside(leg: Leg, breakers: Breakers, now: float) -> BackendError:
    """Why the breakers let nobody through, told anew: the first error was another client's, and so is its reply."""
    last, wait = breakers.why(now, leg.model), breakers.reopens_in(now, leg.model)
    if last is None:
        return BackendError(Fault.BUSY, f"{leg.name} is set aside.", status=503, retry_after=wait)
    return BackendError(last.fault, last.message, status=last.status, code=last.code, retry_after=wait)


def refused_after(deaths: int) -> BackendError:
    return BackendError(
        Fault.SERVER, f"The engine died {deaths} times under this request; it is not tried again.", status=500
    )


def stopping() -> BackendError:
    """For the client of an answer that the end of the service breaks off."""
    return BackendError(Fault.BUSY, "The appliance is stopping; ask again.", status=503, retry_after=5.0)


def stopped() -> BackendError:
    """For the record of it."""
    return BackendError(Fault.STOPPED, "The appliance was stopped.", status=503)
