"""In which ways does a cloud fail, and what should the application in front of the box see?

One row per way, found in the wild; `act` says what happens on the wire. Until the first piece of content the box
answers alone. After it, a stream is continued, while a whole answer, of which nothing has gone out yet, starts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from appliance.core.chat import Fault
from appliance.drills.cloud import Act, Exchange

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
    `in_anthropic` what it should call it there, if that wire says more."""

    name: str
    says: str
    act: Act | None
    streamed: Outcome
    whole: Outcome
    reason: Fault | None = None
    in_anthropic: Fault | None = None

    def reason_in(self, api: str) -> Fault | None:
        return (self.in_anthropic if api == "anthropic" else None) or self.reason

    @property
    def silent(self) -> bool:
        """Can only waiting tell?"""
        return self.reason is Fault.SILENT

    def outcome(self, *, stream: bool) -> Outcome:
        return self.streamed if stream else self.whole


# --------------------------------------------------------------------------------------------------- healthy


async def _healthy(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
        return
    await _to_the_finish(exchange)
    await exchange.done()
    await exchange.end()


async def _to_the_finish(exchange: Exchange) -> None:
    await exchange.open()
    if exchange.voice.greeting:
        await exchange.put(exchange.voice.greeting)
    await exchange.role()
    await exchange.words()
    await exchange.finish()


# ------------------------------------------------------------------------------------ before there is a head


async def _silence(exchange: Exchange) -> None:
    await exchange.silence()


async def _reset(exchange: Exchange) -> None:
    await exchange.reset()


# --------------------------------------------------------------------------------------------- clear answers


def _refuses(name: str) -> Act:
    """Each wire has its own words for it."""

    async def act(exchange: Exchange) -> None:
        await exchange.refuse_as(name)

    return act


async def _bad_gateway(exchange: Exchange) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>\r\n"
    await exchange.reply(502, page, kind="text/html")


# ---------------------------------------------------------------------------------------- somebody in between


async def _captive_portal(exchange: Exchange) -> None:
    page = b"<!doctype html><html><title>Welcome to our WiFi</title><form>Please accept the terms.</form></html>\n"
    await exchange.reply(200, page, kind="text/html; charset=utf-8")


async def _redirect(exchange: Exchange) -> None:
    await exchange.reply(302, b"", kind="text/html", headers=(("location", "http://127.0.0.1:9/login"),))


async def _empty(exchange: Exchange) -> None:
    await exchange.reply(200, b"", kind="text/event-stream" if exchange.asked.streams else "application/json")


async def _truncated_json(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        body = exchange.whole()
        await exchange.reply(200, body[: len(body) // 2])
        return
    await exchange.open()
    data = exchange.piece("The").strip()
    await exchange.put(data[: len(data) * 2 // 3] + b"\n\n")
    await exchange.end()


# ------------------------------------------------------------------------------------------- in mid-answer


async def _role_then_death(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
        await exchange.role()
    else:
        await _half(exchange, 1)
    await exchange.reset()


async def _cut_reset(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.reset()


async def _cut_close(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.hang_up()


async def _no_finish(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
    else:
        await exchange.open("application/json")
        body = exchange.whole()
        await exchange.put(body[: len(body) // 2])
    await exchange.end()


async def _done_too_early(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await _no_finish(exchange)
        return
    await exchange.begin()
    await exchange.event(b"[DONE]")
    await exchange.end()


async def _stall(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.silence()


async def _half_event(exchange: Exchange) -> None:
    await _half_way(exchange)
    if exchange.asked.streams:
        data = exchange.piece(" lost")
        await exchange.put(data[: len(data) * 2 // 3])
    await exchange.reset()


async def _half_character(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
        data = exchange.piece(" caf\u00e9")
        await exchange.put(data[: data.index(b"\xc3") + 1])
    else:
        await _half(exchange, exchange.whole().index(b"\xc3") + 1)
    await exchange.reset()


async def _garbage(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, b"upstream connect error or disconnect/reset before headers")
        return
    await exchange.begin()
    await exchange.put(exchange.voice.nonsense(exchange.script))
    await exchange.silence()


async def _error_event(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, exchange.voice.broke())
        return
    await exchange.begin()
    await exchange.event(exchange.voice.broke())
    await exchange.end()


async def _pings(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
        await exchange.role()
    else:
        await exchange.open("application/json")
    while True:
        await exchange.put(exchange.voice.pulse if exchange.asked.streams else b"\n")
        await exchange.pause(0.05)


async def _late_pings(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await _pings(exchange)
    await exchange.begin()
    while True:
        await exchange.put(exchange.voice.pulse)
        await exchange.pause(0.05)


async def _half_way(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
    else:
        await _half(exchange, len(exchange.whole()) // 2)


async def _half(exchange: Exchange, count: int) -> None:
    """The first bytes of a whole answer that promised them all."""
    await exchange.half(200, exchange.whole(), count)


# ------------------------------------------------------------------------------------- an end is an end


async def _no_done(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
        return
    await _to_the_finish(exchange)
    await exchange.end()


async def _reset_after_finish(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
    else:
        await _to_the_finish(exchange)
    await exchange.reset()


_FAULTS = (
    CloudFault("refused", "the port is closed", None, "box", "box", Fault.UNREACHABLE),
    CloudFault("black-hole", "it accepts the connection and never says a word", _silence, "box", "box", Fault.SILENT),
    CloudFault("reset", "the connection is reset before there is an answer", _reset, "box", "box", Fault.BROKEN),
    CloudFault("server-error", "500", _refuses("server-error"), "box", "box", Fault.SERVER),
    CloudFault("bad-gateway", "502 with the page of a proxy in front of it", _bad_gateway, "box", "box", Fault.SERVER),
    CloudFault(
        "overloaded", "503, or Anthropic's 529, with Retry-After", _refuses("overloaded"), "box", "box", Fault.BUSY
    ),
    CloudFault("rate-limit", "429 with Retry-After", _refuses("rate-limit"), "box", "box", Fault.BUSY),
    CloudFault("quota", "the money is spent: 429, Anthropic 400", _refuses("quota"), "box", "box", Fault.CONFIG),
    CloudFault("wrong-key", "401", _refuses("wrong-key"), "box", "box", Fault.CONFIG),
    CloudFault(
        "unknown-model", "404, it does not know the model", _refuses("unknown-model"), "box", "box", Fault.CONFIG
    ),
    CloudFault("bad-request", "400, a parameter is wrong", _refuses("bad-request"), "caller", "caller", Fault.REQUEST),
    CloudFault(
        "content-policy",
        "400, its safety system refuses",
        _refuses("content-policy"),
        "caller",
        "caller",
        Fault.REQUEST,
    ),
    CloudFault("too-long", "400, more tokens than it can hold", _refuses("too-long"), "box", "box", Fault.TOO_LONG),
    CloudFault("captive-portal", "200 with the login page of a hotel", _captive_portal, "box", "box", Fault.BROKEN),
    CloudFault("redirect", "302 to a login page", _redirect, "box", "box", Fault.BROKEN),
    CloudFault("empty", "200 and nothing in it", _empty, "box", "box", Fault.BROKEN),
    CloudFault("truncated-json", "half of the JSON, sent as the whole", _truncated_json, "box", "box", Fault.BROKEN),
    CloudFault("pings", "signs of life for ever and no word", _pings, "box", "box", Fault.SILENT),
    CloudFault("role-then-death", "a reset after the first event", _role_then_death, "box", "box", Fault.BROKEN),
    CloudFault("cut-reset", "a reset in mid-answer", _cut_reset, "continued", "box", Fault.BROKEN),
    CloudFault("cut-close", "the connection closes in mid-answer", _cut_close, "continued", "box", Fault.BROKEN),
    CloudFault("no-finish", "a clean end without a finish_reason", _no_finish, "continued", "box", Fault.BROKEN),
    CloudFault(
        "done-too-early", "[DONE] and a clean end in mid-answer", _done_too_early, "continued", "box", Fault.BROKEN
    ),
    CloudFault("stall", "silence in mid-answer", _stall, "continued", "box", Fault.SILENT),
    CloudFault("late-pings", "signs of life and no further word", _late_pings, "continued", "box", Fault.SILENT),
    CloudFault("half-event", "a reset inside an event", _half_event, "continued", "box", Fault.BROKEN),
    CloudFault("half-character", "a reset inside a character", _half_character, "continued", "box", Fault.BROKEN),
    CloudFault("garbage", "an event that is not JSON", _garbage, "continued", "box", Fault.BROKEN),
    CloudFault(
        "error-event",
        "an error in mid-answer, after the 200",
        _error_event,
        "continued",
        "box",
        Fault.BROKEN,
        in_anthropic=Fault.BUSY,
    ),
    CloudFault("no-done", "an answer without [DONE]", _no_done, "cloud", "cloud"),
    CloudFault("reset-after-finish", "a reset after the finish_reason", _reset_after_finish, "cloud", "cloud"),
)

FAULTS: Mapping[str, CloudFault] = MappingProxyType({fault.name: fault for fault in _FAULTS})

HEALTHY = CloudFault("healthy", "nothing is wrong", _healthy, "cloud", "cloud")
