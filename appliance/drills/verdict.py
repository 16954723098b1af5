"""Did the application see what it should? Every complaint is a sentence; none means all is well."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from appliance.core.breaker import State
from appliance.core.fault import Fault
from appliance.drills.application import LAST_WORDS, Heard
from appliance.drills.exchange import Exchange
from appliance.drills.faults import CloudFault

OK = 200
COME_BACK = (429, 503, 529)
"""What tells a client that it may ask again."""
OVERLOADED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "openai": ("rate_limit_error", "service_unavailable_error"),
        "anthropic": ("rate_limit_error", "overloaded_error"),
    }
)
"""How each dialect calls that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the breakers of one cloud made of it."""

    cloud: str
    state: State = "closed"
    failures: int = 0
    reopens_in: float | None = None

    @property
    def untouched(self) -> bool:
        return self.state == "closed" and self.failures == 0

    def __str__(self) -> str:
        if self.state == "open":
            return f"open {self.reopens_in or 0:.0f} s"
        return self.state if self.state != "closed" else "counted" if self.failures else "-"


def judge(fault: CloudFault, heard: Heard, exchanges: Sequence[Exchange], *, stream: bool) -> tuple[str, ...]:
    """`exchanges` are those of all clouds, in the order in which they were asked."""
    if fault.outcome(stream=stream) == "caller":
        return tuple(_callers(heard, exchanges))
    return tuple([*trouble_of(heard, stream=stream), *_whose(fault, heard, exchanges, stream=stream)])


def judge_standing(fault: CloudFault, standings: Sequence[Standing], *, stream: bool, private: bool) -> tuple[str, ...]:
    """Did the breakers of those who were asked count what they should? `private`: the credential was the caller's own,
    and so are his money and his limits."""
    touched = [standing for standing in standings if not standing.untouched]
    if fault.flaw is None and (fault.outcome(stream=stream) in ("caller", "cloud") or fault.reason is Fault.TOO_LONG):
        return tuple(f"the breaker of {standing.cloud} counted it" for standing in touched)
    if private and fault.reason in (Fault.CONFIG, Fault.BUSY):
        return ()
    if not touched:
        return ("no breaker counted it",)
    if fault.reason is Fault.CONFIG and all(standing.state == "closed" for standing in touched):
        return ("no breaker opened at once",)
    return ()


def judge_refusal(heard: Heard, *, api: str) -> tuple[str, ...]:
    """Was somebody for whom there is no room told so as `api` tells it, and when to come back?"""
    return tuple(_refusal(heard, api))


def _refusal(heard: Heard, api: str) -> Iterator[str]:
    if heard.status not in COME_BACK:
        yield f"the status is {heard.status}" if heard.status else "; ".join(heard.errors) or "there was no answer"
        return
    if not heard.headers.get("retry-after", "").isdigit():
        yield f"{heard.status} without Retry-After"
    try:
        error = json.loads(heard.body)["error"]
        known = error["type"] in OVERLOADED[api] and bool(error["message"])
    except (ValueError, LookupError, TypeError):
        known = False
    if not known:
        yield f"{heard.status} not in the words of {api}"


def _callers(heard: Heard, exchanges: Sequence[Exchange]) -> Iterator[str]:
    if len(exchanges) != 1:
        yield f"{len(exchanges)} clouds were asked instead of one"
    elif exchanges[0].asked.api != heard.api:
        yield from () if heard.errors else ("the caller was not told what is wrong",)
    elif heard.body != exchanges[0].body:
        yield "the cloud's words were changed on the way"
    if not 400 <= heard.status < 500:
        yield f"the status is {heard.status}"
    if heard.headers.get("x-appliance-fallback"):
        yield "somebody else was asked"


def trouble_of(heard: Heard, *, stream: bool) -> Iterator[str]:
    """What holds for every answer, whoever gave it."""
    if heard.status != OK:
        yield f"the status is {heard.status}" if heard.status else "there was no answer"
    yield from heard.errors
    if len(heard.finishes) != 1:
        yield f"the answer ended {len(heard.finishes)} times"
    if stream and heard.dones != 1:
        yield f"{LAST_WORDS[heard.api]} came {heard.dones} times"
    if len(heard.ids) > 1:
        yield "the answer changed its id"
    if not heard.text:
        yield "the answer is empty"
    if not heard.headers.get("x-appliance-request-id"):
        yield "the answer has no x-appliance-request-id"


def _whose(fault: CloudFault, heard: Heard, exchanges: Sequence[Exchange], *, stream: bool) -> Iterator[str]:
    clouds = said_by(exchanges)
    by, fallback = heard.headers.get("x-appliance-served-by"), heard.headers.get("x-appliance-fallback")
    wires = dict.fromkeys(exchange.asked.api for exchange in exchanges) or (heard.api,)
    faults = dict.fromkeys(fault.reason_in(api) for api in wires)
    reasons = [*(reason.value for reason in faults if reason is not None), *fault.also]
    match fault.outcome(stream=stream):
        case "cloud":
            if heard.text != clouds or fallback or by == "local":
                yield "it is not the cloud's answer"
        case "box":
            if by != "local":
                yield f"served by {by}"
            if fallback not in reasons:
                yield f"the reason is {fallback} instead of {' or '.join(reasons)}"
        case "continued":
            if not clouds:
                yield "the cloud had said nothing"
            if not heard.text.startswith(clouds):
                kept = _common(heard.text, clouds)
                yield f"of the cloud's {len(clouds)} characters only the first {kept} arrived as they were"
            last = heard.takeovers[-1] if heard.takeovers else ""
            if not last.endswith(tuple(f"->local after={len(clouds)} reason={reason}" for reason in reasons)):
                yield f"the takeover is announced as {last!r}"


def said_by(exchanges: Sequence[Exchange]) -> str:
    """What the clouds said together. One that was given the half-written turn goes on from it; another begins from the
    start, and is of use as far as it says the same again and more."""
    said = ""
    for exchange in exchanges:
        if not said or _goes_on(exchange):
            said += exchange.text
        elif exchange.text.startswith(said):
            said = exchange.text
    return said


def _goes_on(exchange: Exchange) -> bool:
    messages = exchange.asked.fields.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get("role") == "assistant"


def _common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
