"""How can an answer go wrong? `Fault` has the words for it.

`BackendError` is the only exception that crosses the seam between us and whoever answers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from appliance.core.chat import Headers


class Fault(enum.Enum):
    """One word for each thing *we do differently*."""

    UNREACHABLE = "unreachable"  # no connection, no name, bad TLS: nothing was asked yet
    SERVER = "server"  # it said 5xx
    BROKEN = "broken"  # it began and died, ended without an end, or spoke nonsense
    SILENT = "silent"  # nothing came in time
    BUSY = "busy"  # 429, 529, a full queue: it may have said when to come back
    CONFIG = "config"  # key, quota, unknown model: the next leg answers and somebody must fix it
    REQUEST = "request"  # the caller's own mistake: goes back as it is, counts against nobody
    TOO_LONG = "too_long"  # more tokens than it can hold: the next leg may be able to
    CRASHED = "crashed"  # the engine process died under the answer: the same leg goes on after a restart
    QUALITY = "quality"  # it answered to the end, and badly: the client keeps it, and it is counted
    GONE = "gone"  # the client left: nobody's failure
    STOPPED = "stopped"  # we ended it, to exchange the model or to end the service: nobody's failure either


NOBODYS = frozenset({Fault.GONE, Fault.STOPPED})
"""What says nothing against whoever was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP answer, ready to send, in the words of `dialect`."""

    status: int
    body: bytes
    headers: Headers = ()
    dialect: str = ""


class BackendError(Exception):
    """The one exception that crosses the seam. ``str()`` is one clear sentence without prompt text or secrets.

    ``reply`` is the cloud's own answer in the cloud's dialect, kept so that a caller's mistake goes back unchanged;
    ``words`` is the sentence in it, for a caller of another dialect: it may repeat the request, so nobody else sees it.
    ``retry_after`` is in seconds. ``param`` names the request field at fault, for `Fault.REQUEST`. ``private``: it is
    between this caller and the cloud (a credential of the caller's own), and tells nothing for others. ``certain``: the
    next moment will not be different. ``innocent``: the engine ended, and this request cannot have been the reason.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        reply: Reply | None = None,
        words: str | None = None,
        code: str | None = None,
        param: str | None = None,
        private: bool = False,
        certain: bool = False,
        innocent: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.reply = reply
        self.words = words
        self.code = code
        self.param = param
        self.private = private
        self.certain = certain
        self.innocent = innocent
