"""What the engine's refusals mean for whoever asked, and what is said when there is no engine to refuse."""

from __future__ import annotations

from appliance.core.fault import BackendError, Fault
from appliance.core.frames import Frame, FrameError, encode

CRASHED = "The local model's engine died."
STOPPED = "The local model's engine was stopped."
FAILING = "The local model's engine dies again and again; it is started again after a pause."
FULL = "The local model answers one request at a time now, and too many wait already."
NOT_YET = "The local model is being loaded, and too many requests wait for it already; try again soon."
UNREADY = "The local model is not ready, so it cannot count tokens now."
UNCOUNTED = "The local model's engine is too busy to count tokens; try again soon."
TOO_LARGE = "The conversation is too large for the local model."


def busy(message: str, retry_after: float = 1.0) -> BackendError:
    """Not now, but perhaps soon."""
    return BackendError(Fault.BUSY, message, status=503, retry_after=retry_after)


def crashed(reason: str | None = None, *, innocent: bool = False) -> BackendError:
    """The process ended under what was asked. `innocent`: it did not die of that."""
    return BackendError(Fault.CRASHED, reason or CRASHED, status=500, innocent=innocent)


def stopped(reason: str) -> BackendError:
    """We ended the process, and another comes in its place."""
    return BackendError(Fault.STOPPED, reason, status=500, innocent=True)


def over(reason: str | None = None) -> BackendError:
    """There is no engine, and there will be none."""
    return BackendError(Fault.SERVER, reason or STOPPED, status=500)


def failure(frame: Frame) -> BackendError:
    """An error frame, sorted by what we do next."""
    message = frame["message"]
    match frame["fault"]:
        case "busy":
            return busy(message)
        case "too_long":
            return BackendError(Fault.TOO_LONG, message, status=400, code="context_length_exceeded", param="messages")
        case "request":
            return BackendError(Fault.REQUEST, message, status=400, param=frame.get("param"))
        case _:
            return BackendError(Fault.SERVER, message, status=500)


def written(request: Frame) -> bytes:
    """A request that holds a conversation as bytes. Raises `BackendError` if it is larger than a frame may be."""
    try:
        return encode(request)
    except FrameError as error:
        raise BackendError(Fault.REQUEST, TOO_LARGE, status=413) from error
