"""Is it the cloud's own interface that answers, and is it well?"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

from appliance.core.fault import BackendError, Fault
from appliance.doctor.checks.proxy import CREDENTIALS_FIX, WANTS_CREDENTIALS
from appliance.doctor.finding import Finding, ok, warn, wrong
from appliance.doctor.words import milliseconds, plain

LAYER = "HTTP"
PAGE, JSON = "text/html", "application/json"
OK, CALLED_WRONG, NOT_FOUND, TOO_MANY, PORTAL = 200, 400, (404, 405), 429, 511
REFUSED = (401, 402, 403)
IN_BETWEEN = "a captive portal is in between"
LOG_IN = "Open any page in a browser and log in to this network."
OVERLOADED = {503: "unavailable", 529: "overloaded", 502: "bad gateway", 504: "gateway timeout", 500: "error"}

Trouble = Literal["", "silence", "hung up", "no HTTP"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to the free question. ``error`` is what it means for us, if it is none; ``body`` its beginning.
    ``seconds`` until its first byte."""

    url: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.0
    trouble: Trouble = ""
    error: BackendError | None = None

    def header(self, name: str) -> str:
        return next((value for said, value in self.headers if said == name), "")

    @property
    def kind(self) -> str:
        return plain(self.header("content-type").partition(";")[0].lower(), longest=40)

    @property
    def at(self) -> float | None:
        """When, by the clock of whoever answered."""
        try:
            return parsedate_to_datetime(self.header("date")).timestamp()
        except ValueError:
            return None

    @property
    def elsewhere(self) -> str | None:
        """The host that it sends us to, if that is another one."""
        try:
            host = urlsplit(self.header("location")).hostname if 300 <= self.status < 400 else None
        except ValueError:
            return None
        return plain(host) if host and host != urlsplit(self.url).hostname else None


def verdict(reply: Reply, *, proven: bool, public: bool) -> Finding:
    """``proven``: whoever answers has proved to be the cloud, so nobody is in between."""
    match reply.trouble:
        case "silence":
            return wrong(
                LAYER, "it took the question and said nothing", who="them", fix="Wait; the box answers meanwhile."
            )
        case "hung up":
            return wrong(LAYER, "it hung up without an answer", who="them", fix="Wait; the box answers meanwhile.")
        case "no HTTP":
            said = "what answers there speaks no HTTP"
            return wrong(LAYER, said, who="you", fix="Correct base_url: it is the address of something else.")
    if not proven and (how := portal(reply)):
        return wrong(LAYER, f"{IN_BETWEEN}: {how}", who="you", fix=LOG_IN)
    if reply.status == WANTS_CREDENTIALS:
        return wrong(LAYER, "its proxy wants other credentials (407)", who="you", fix=CREDENTIALS_FIX)
    if 300 <= reply.status < 400:
        said = f"it sends us on to {reply.elsewhere or plain(reply.header('location')) or 'nowhere'} ({reply.status})"
        return wrong(
            LAYER, said, who="you", fix="Correct base_url; the box follows no redirects with a key in its hand."
        )
    if reply.status >= 500:
        word = OVERLOADED.get(reply.status)
        said = f"it answers {reply.status}{f' ({word})' if word else ''}"
        return wrong(LAYER, said, who="them", fix="Wait for them; the box answers meanwhile.")
    if reply.error is not None and reply.error.fault is Fault.BUSY:
        after = reply.header("retry-after")
        wait = f"Wait {after} s" if after.isdecimal() else "Wait"
        said = f"it answers {reply.status}: too many requests with this key"
        return wrong(LAYER, said, who="key", fix=f"{wait}, or raise the limit of the key; the box answers meanwhile.")
    if reply.status in REFUSED and reply.kind == PAGE:
        said = f"its gate turns us away with a page ({reply.status}{_gate(reply)})"
        return wrong(
            LAYER, said, who="you", fix="Try from another network: such gates refuse regions, VPNs and data centres."
        )
    if reply.status in NOT_FOUND:
        said = f"there is no list of models at {reply.url} ({reply.status})"
        if public:
            return wrong(LAYER, said, who="you", fix="Correct base_url; docs/providers.md has the right one.")
        return warn(
            LAYER, said, who="you", fix="Fine if that server has none; else correct base_url (is /v1 missing?)."
        )
    if reply.status == OK and (reply.kind != JSON or reply.body.lstrip()[:1] not in (b"{", b"[")):
        what = (
            "what it calls JSON is none" if reply.kind == JSON else f"it answers with {reply.kind or 'no content type'}"
        )
        fix = "Correct base_url: that is not the address of its interface."
        return wrong(LAYER, what, who="you", fix=fix)
    return ok(LAYER, f"answers {reply.status} ({milliseconds(reply.seconds)})")


def portal(reply: Reply | None) -> str | None:
    """What makes this answer of an unproven somebody look like a login page, if it does."""
    if reply is None:
        return None
    if reply.status == PORTAL:
        return "it says that the network wants a login (511)"
    if reply.elsewhere is not None:
        return f"we are sent on to {reply.elsewhere} ({reply.status})"
    if reply.kind == PAGE and reply.status == OK:
        return "a page for people answers"
    return None


def _gate(reply: Reply) -> str:
    server = plain(reply.header("server"), longest=30)
    return f", {server}" if server else ""
