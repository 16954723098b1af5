"""In which ways does a cloud fail, and what should the application in front of the box see?

One row per way, found in the wild; `acts` says what happens on the wire. Until the first piece of content the box
answers alone. After it, a stream is continued, while a whole answer, of which nothing has gone out yet, starts again.
What is bad rather than dead reaches the application as it is, and counts against the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from appliance.core.fault import Fault
from appliance.drills import acts
from appliance.drills.cloud import Act

Outcome = Literal["cloud", "box", "continued", "caller"]

OUTCOMES: Mapping[Outcome, str] = MappingProxyType(
    {
        "cloud": "answered by the cloud",
        "box": "answered by the box",
        "continued": "begun by the cloud, continued by the box",
        "caller": "the caller's own mistake, returned as it is",
    }
)


@dataclass(frozen=True, slots=True)
class CloudFault:
    """One way to fail. `act` is absent where nobody even opens the door; `reason` is what the box should call it, and
    `in_anthropic` what it should call it there, if that wire says more.

    `flaw`: the answer is the cloud's, and bad. `lessons`: so many healthy answers of each cloud come first, so that it
    is known how fast it usually is; `within` is the time in seconds that a stream may then take with each that is
    asked. `slow`: a connection is waited for. `also` are words for it that are as right as the `reason`.
    """

    name: str
    says: str
    act: Act | None
    streamed: Outcome
    whole: Outcome
    reason: Fault | None = None
    in_anthropic: Fault | None = None
    flaw: Fault | None = None
    lessons: int = 0
    within: float | None = None
    slow: bool = False
    also: tuple[str, ...] = ()

    def reason_in(self, api: str) -> Fault | None:
        return (self.in_anthropic if api == "anthropic" else None) or self.reason

    @property
    def silent(self) -> bool:
        """Can only waiting for words tell?"""
        return self.reason is Fault.SILENT

    @property
    def waited_out(self) -> bool:
        """Can only waiting tell, for whatever?"""
        return self.silent or self.slow

    def outcome(self, *, stream: bool) -> Outcome:
        return self.streamed if stream else self.whole


def _refused(name: str, says: str, outcome: Outcome, reason: Fault) -> CloudFault:
    """A clear answer, in each wire's own words."""
    return CloudFault(name, says, acts.refuses(name), outcome, outcome, reason)


def _unusable(name: str, says: str, act: Act | None, reason: Fault) -> CloudFault:
    """Nothing of it was content."""
    return CloudFault(name, says, act, "box", "box", reason)


def _cut(name: str, says: str, act: Act, reason: Fault = Fault.BROKEN, **more: Any) -> CloudFault:
    """Some of it was content."""
    return CloudFault(name, says, act, "continued", "box", reason, **more)


def _ends(name: str, says: str, act: Act, flaw: Fault | None = None) -> CloudFault:
    """An end is an end."""
    return CloudFault(name, says, act, "cloud", "cloud", flaw=flaw)


_FAULTS = (
    _unusable("refused", "the port is closed", None, Fault.UNREACHABLE),
    _unusable("black-hole", "it accepts the connection and never says a word", acts.silence, Fault.SILENT),
    _unusable("reset", "the connection is reset before there is an answer", acts.reset, Fault.BROKEN),
    _unusable("stray-close", "it closes the connection inside the headers", acts.stray_close, Fault.BROKEN),
    _unusable("half-headers", "half of the headers, then silence", acts.half_headers, Fault.SILENT),
    _refused("server-error", "500", "box", Fault.SERVER),
    _unusable("bad-gateway", "502 with the page of a proxy in front of it", acts.bad_gateway, Fault.SERVER),
    _unusable("html-503", "503 with the page of a load balancer", acts.html_503, Fault.SERVER),
    _refused("gateway-timeout", "504", "box", Fault.SERVER),
    _refused("overloaded", "503, or Anthropic's 529, with Retry-After", "box", Fault.BUSY),
    _refused("rate-limit", "429 with Retry-After", "box", Fault.BUSY),
    _refused("quota", "the money is spent: 429, Anthropic 400", "box", Fault.CONFIG),
    _refused("payment-required", "402", "box", Fault.CONFIG),
    _refused("spend-limit", "a limit of spending is reached: 429, Anthropic 400", "box", Fault.CONFIG),
    _refused("spend-cap", "the tier's limit of spending is reached: 429 without Retry-After", "box", Fault.CONFIG),
    _refused("wrong-key", "401", "box", Fault.CONFIG),
    _refused("forbidden", "403, not from this country", "box", Fault.CONFIG),
    _refused("unknown-model", "404, it does not know the model", "box", Fault.CONFIG),
    _refused("bad-request", "400, a parameter is wrong", "caller", Fault.REQUEST),
    _refused("content-policy", "400, its safety system refuses", "caller", Fault.REQUEST),
    _refused("too-large", "413, more bytes than it takes", "caller", Fault.REQUEST),
    _refused("too-long", "400, more tokens than it can hold", "box", Fault.TOO_LONG),
    _unusable("captive-portal", "200 with the login page of a hotel", acts.captive_portal, Fault.BROKEN),
    _unusable("redirect", "302 to a login page", acts.redirect, Fault.BROKEN),
    _unusable("wrong-type", "200 with plain text", acts.wrong_type, Fault.BROKEN),
    _unusable("empty", "200 and nothing in it", acts.empty, Fault.BROKEN),
    _unusable("empty-answer", "a complete answer without a word", acts.empty_answer, Fault.BROKEN),
    _unusable("truncated-json", "half of the JSON, sent as the whole", acts.truncated_json, Fault.BROKEN),
    _unusable("pings", "signs of life for ever and no word", acts.pings, Fault.SILENT),
    _unusable("cut-headers", "a reset after the headers", acts.cut_headers, Fault.BROKEN),
    _unusable("role-then-death", "a reset after the first event", acts.role_then_death, Fault.BROKEN),
    _cut("cut-reset", "a reset in mid-answer", acts.cut_reset),
    _cut("cut-close", "the connection closes in mid-answer", acts.cut_close),
    _cut("no-finish", "a clean end without a finish_reason", acts.no_finish),
    _cut("done-too-early", "[DONE] and a clean end in mid-answer", acts.done_too_early),
    _cut("stall", "silence in mid-answer", acts.stall, Fault.SILENT),
    _cut("late-pings", "signs of life and no further word", acts.late_pings, Fault.SILENT),
    _cut("drip", "a few letters now and then, for ever", acts.drip, Fault.SILENT, lessons=8, within=30.0),
    _cut("half-event", "a reset inside an event", acts.half_event),
    _cut("half-character", "a reset inside a character", acts.half_character),
    _cut("garbage", "an event that is not JSON", acts.garbage),
    _cut("error-event", "an error in mid-answer, after the 200", acts.error_event, in_anthropic=Fault.BUSY),
    _ends("no-done", "an answer without [DONE]", acts.no_done),
    _ends("reset-after-finish", "a reset after the finish_reason", acts.reset_after_finish),
)

_FLAWS = (
    _ends("repetition", "it repeats a passage, and ends", acts.repetition, Fault.QUALITY),
    _ends("mangled", "every letter beyond ASCII in a wrong encoding", acts.mangled, Fault.QUALITY),
)


def _by_name(faults: Sequence[CloudFault]) -> Mapping[str, CloudFault]:
    return MappingProxyType({fault.name: fault for fault in faults})


FAULTS: Mapping[str, CloudFault] = _by_name(_FAULTS)

FLAWS: Mapping[str, CloudFault] = _by_name(_FLAWS)
"""Answers that are bad rather than dead, and have text of their own."""

HEALTHY = CloudFault("healthy", "nothing is wrong", acts.healthy, "cloud", "cloud")
