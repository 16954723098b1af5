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
    """One way to fail. `act` is absent where nobody even opens the door; `reason` is what the box should call it."""

    name: str
    says: str
    act: Act | None
    streamed: Outcome
    whole: Outcome
    reason: Fault | None = None

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
    await exchange.event(b"[DONE]")
    await exchange.end()


async def _to_the_finish(exchange: Exchange) -> None:
    await exchange.open()
    await exchange.put(b": drill\n\n")
    await exchange.role()
    await exchange.words()
    await exchange.finish()


# ------------------------------------------------------------------------------------ before there is a head


async def _silence(exchange: Exchange) -> None:
    await exchange.silence()


async def _reset(exchange: Exchange) -> None:
    await exchange.reset()


# --------------------------------------------------------------------------------------------- clear answers


async def _server_error(exchange: Exchange) -> None:
    message = "The server had an error while processing your request. Sorry about that!"
    await exchange.refuse(500, type="server_error", code=None, message=message)


async def _bad_gateway(exchange: Exchange) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>\r\n"
    await exchange.reply(502, page, kind="text/html")


async def _overloaded(exchange: Exchange) -> None:
    message = "That model is currently overloaded with other requests."
    await exchange.refuse(503, type="service_unavailable_error", code=None, message=message, headers=_later(exchange))


async def _rate_limit(exchange: Exchange) -> None:
    message = "Rate limit reached for requests per minute."
    await exchange.refuse(429, type="requests", code="rate_limit_exceeded", message=message, headers=_later(exchange))


async def _quota(exchange: Exchange) -> None:
    message = "You exceeded your current quota, please check your plan and billing details."
    await exchange.refuse(429, type="insufficient_quota", code="insufficient_quota", message=message)


async def _wrong_key(exchange: Exchange) -> None:
    message = "Incorrect API key provided."
    await exchange.refuse(401, type="invalid_request_error", code="invalid_api_key", message=message)


async def _unknown_model(exchange: Exchange) -> None:
    message = "The model does not exist or you do not have access to it."
    await exchange.refuse(404, type="invalid_request_error", code="model_not_found", message=message)


async def _bad_request(exchange: Exchange) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model."
    await exchange.refuse(
        400, type="invalid_request_error", code="unsupported_parameter", message=message, param="max_tokens"
    )


async def _content_policy(exchange: Exchange) -> None:
    message = "Your request was rejected as a result of our safety system."
    await exchange.refuse(400, type="invalid_request_error", code="content_policy_violation", message=message)


async def _too_long(exchange: Exchange) -> None:
    message = "This model's maximum context length is 16 tokens. However, your messages resulted in 21 tokens."
    await exchange.refuse(
        400, type="invalid_request_error", code="context_length_exceeded", message=message, param="messages"
    )


def _later(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    return (("retry-after", str(exchange.script.retry_after)),)


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
    data = exchange.chunk({"role": "assistant", "content": "The"})
    await exchange.event(data[: len(data) // 2])
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


async def _stall(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.silence()


async def _half_event(exchange: Exchange) -> None:
    await _half_way(exchange)
    if exchange.asked.streams:
        data = exchange.chunk({"content": " lost"})
        await exchange.put(b"data: " + data[: len(data) // 2])
    await exchange.reset()


async def _half_character(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
        data = exchange.chunk({"content": " caf\u00e9"})
        await exchange.put(b"data: " + data[: data.index(b"\xc3") + 1])
    else:
        await _half(exchange, exchange.whole().index(b"\xc3") + 1)
    await exchange.reset()


async def _garbage(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, b"upstream connect error or disconnect/reset before headers")
        return
    await exchange.begin()
    await exchange.event(b'{"choices":[{"delta":{"content": <nil>}}]}')
    await exchange.silence()


async def _error_event(exchange: Exchange) -> None:
    error = b'{"error":{"message":"The server had an error while processing your request.","type":"server_error"}}'
    if not exchange.asked.streams:
        await exchange.reply(200, error)
        return
    await exchange.begin()
    await exchange.event(error)
    await exchange.end()


async def _pings(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
        await exchange.role()
    else:
        await exchange.open("application/json")
    while True:
        await exchange.put(b": keep-alive\n\n" if exchange.asked.streams else b"\n")
        await exchange.pause(0.05)


async def _late_pings(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await _pings(exchange)
    await exchange.begin()
    while True:
        await exchange.put(b": keep-alive\n\n")
        await exchange.pause(0.05)


async def _half_way(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
    else:
        await _half(exchange, len(exchange.whole()) // 2)


async def _half(exchange: Exchange, count: int) -> None:
    """The first bytes of a whole answer that promised them all."""
    body = exchange.whole()
    await exchange.head(200, kind="application/json", headers=(("content-length", str(len(body))),))
    await exchange.raw(body[:count])


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
    CloudFault("server-error", "500", _server_error, "box", "box", Fault.SERVER),
    CloudFault("bad-gateway", "502 with the page of a proxy in front of it", _bad_gateway, "box", "box", Fault.SERVER),
    CloudFault("overloaded", "503 with Retry-After", _overloaded, "box", "box", Fault.BUSY),
    CloudFault("rate-limit", "429 with Retry-After", _rate_limit, "box", "box", Fault.BUSY),
    CloudFault("quota", "429, and the money is spent", _quota, "box", "box", Fault.CONFIG),
    CloudFault("wrong-key", "401", _wrong_key, "box", "box", Fault.CONFIG),
    CloudFault("unknown-model", "404, it does not know the model", _unknown_model, "box", "box", Fault.CONFIG),
    CloudFault("bad-request", "400, a parameter is wrong", _bad_request, "caller", "caller", Fault.REQUEST),
    CloudFault("content-policy", "400, its safety system refuses", _content_policy, "caller", "caller", Fault.REQUEST),
    CloudFault("too-long", "400, more tokens than it can hold", _too_long, "box", "box", Fault.TOO_LONG),
    CloudFault("captive-portal", "200 with the login page of a hotel", _captive_portal, "box", "box", Fault.BROKEN),
    CloudFault("redirect", "302 to a login page", _redirect, "box", "box", Fault.BROKEN),
    CloudFault("empty", "200 and nothing in it", _empty, "box", "box", Fault.BROKEN),
    CloudFault("truncated-json", "half of the JSON, sent as the whole", _truncated_json, "box", "box", Fault.BROKEN),
    CloudFault("pings", "signs of life for ever and no word", _pings, "box", "box", Fault.SILENT),
    CloudFault("role-then-death", "a reset after the first event", _role_then_death, "box", "box", Fault.BROKEN),
    CloudFault("cut-reset", "a reset in mid-answer", _cut_reset, "continued", "box", Fault.BROKEN),
    CloudFault("cut-close", "the connection closes in mid-answer", _cut_close, "continued", "box", Fault.BROKEN),
    CloudFault("no-finish", "a clean end without a finish_reason", _no_finish, "continued", "box", Fault.BROKEN),
    CloudFault("stall", "silence in mid-answer", _stall, "continued", "box", Fault.SILENT),
    CloudFault("late-pings", "signs of life and no further word", _late_pings, "continued", "box", Fault.SILENT),
    CloudFault("half-event", "a reset inside an event", _half_event, "continued", "box", Fault.BROKEN),
    CloudFault("half-character", "a reset inside a character", _half_character, "continued", "box", Fault.BROKEN),
    CloudFault("garbage", "an event that is not JSON", _garbage, "continued", "box", Fault.BROKEN),
    CloudFault("error-event", "an error in mid-answer, after the 200", _error_event, "continued", "box", Fault.BROKEN),
    CloudFault("no-done", "an answer without [DONE]", _no_done, "cloud", "cloud"),
    CloudFault("reset-after-finish", "a reset after the finish_reason", _reset_after_finish, "cloud", "cloud"),
)

FAULTS: Mapping[str, CloudFault] = MappingProxyType({fault.name: fault for fault in _FAULTS})

HEALTHY = CloudFault("healthy", "nothing is wrong", _healthy, "cloud", "cloud")
