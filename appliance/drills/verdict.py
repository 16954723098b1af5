"""Did the application see what it should? Every complaint is a sentence; none means all is well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from appliance.drills.application import LAST_WORDS, Heard
from appliance.drills.exchange import Exchange
from appliance.drills.faults import CloudFault

OK = 200


def judge(fault: CloudFault, heard: Heard, exchanges: Sequence[Exchange], *, stream: bool) -> tuple[str, ...]:
    """`exchanges` are those of all clouds, in the order in which they were asked."""
    if fault.outcome(stream=stream) == "caller":
        return tuple(_callers(heard, exchanges))
    return tuple([*_an_answer(heard, stream=stream), *_whose(fault, heard, exchanges, stream=stream)])


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


def _an_answer(heard: Heard, *, stream: bool) -> Iterator[str]:
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
    clouds = "".join(exchange.text for exchange in exchanges)
    by, fallback = heard.headers.get("x-appliance-served-by"), heard.headers.get("x-appliance-fallback")
    wires = dict.fromkeys(exchange.asked.api for exchange in exchanges) or (heard.api,)
    faults = dict.fromkeys(fault.reason_in(api) for api in wires)
    reasons = [reason.value for reason in faults if reason is not None]
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


def _common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
