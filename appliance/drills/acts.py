"""What does a cloud do on the wire when it fails? One function per way, found in the wild.

Rules of this file:

1. An act answers one request, streamed or whole as it was asked, in the wire it was asked in.
2. Whatever it says goes through `Exchange`, so that all of it is on record.
"""

from __future__ import annotations

from appliance.drills.cloud import Act
from appliance.drills.exchange import Exchange
from appliance.drills.script import STORY, pieces

DRIP = 0.4
"""Seconds between two pieces of a drip: a few letters each time, so far slower than people read, and never quite
silent. The 15 s after which it is noticed end between two of them, so that none is on its way then."""
PASSAGE = "And then the lamp was lit, and the wind turned, and the keeper went down again to sleep. "
TIMES = 24
"""How often a passage comes that is repeated without end: more than twice as often as it takes to notice."""

# --------------------------------------------------------------------------------------------------- healthy


async def healthy(exchange: Exchange) -> None:
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


async def silence(exchange: Exchange) -> None:
    await exchange.silence()


async def reset(exchange: Exchange) -> None:
    await exchange.reset()


async def stray_close(exchange: Exchange) -> None:
    """A proxy that is being restarted."""
    await exchange.half_head(("connection", "close"))
    await exchange.hang_up()


async def half_headers(exchange: Exchange) -> None:
    await exchange.half_head()
    await exchange.silence()


# --------------------------------------------------------------------------------------------- clear answers


def refuses(name: str) -> Act:
    """Each wire has its own words for it."""

    async def act(exchange: Exchange) -> None:
        await exchange.refuse_as(name)

    return act


async def bad_gateway(exchange: Exchange) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>\r\n"
    await exchange.reply(502, page, kind="text/html")


async def html_503(exchange: Exchange) -> None:
    page = b"<html><body><h1>503 Service Unavailable</h1>No server is available to handle this request.</body></html>\n"
    await exchange.reply(503, page, kind="text/html")


# ---------------------------------------------------------------------------------------- somebody in between


async def captive_portal(exchange: Exchange) -> None:
    page = b"<!doctype html><html><title>Welcome to our WiFi</title><form>Please accept the terms.</form></html>\n"
    await exchange.reply(200, page, kind="text/html; charset=utf-8")


async def redirect(exchange: Exchange) -> None:
    await exchange.reply(302, b"", kind="text/html", headers=(("location", "http://127.0.0.1:9/login"),))


async def empty(exchange: Exchange) -> None:
    await exchange.reply(200, b"", kind="text/event-stream" if exchange.asked.streams else "application/json")


async def wrong_type(exchange: Exchange) -> None:
    await exchange.reply(200, b"OK\n", kind="text/plain; charset=utf-8")


async def empty_answer(exchange: Exchange) -> None:
    """Complete, and without a word."""
    exchange.retell("")
    await healthy(exchange)


async def truncated_json(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        body = exchange.whole()
        await exchange.reply(200, body[: len(body) // 2])
        return
    await exchange.open()
    data = exchange.piece("The").strip()
    await exchange.put(data[: len(data) * 2 // 3] + b"\n\n")
    await exchange.end()


# ------------------------------------------------------------------------------------------- in mid-answer


async def cut_headers(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
    else:
        await _half(exchange, 0)
    await exchange.reset()


async def role_then_death(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
        await exchange.role()
    else:
        await _half(exchange, 1)
    await exchange.reset()


async def cut_reset(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.reset()


async def cut_close(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.hang_up()


async def no_finish(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
    else:
        await exchange.open("application/json")
        body = exchange.whole()
        await exchange.put(body[: len(body) // 2])
    await exchange.end()


async def done_too_early(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await no_finish(exchange)
        return
    await exchange.begin()
    await exchange.event(b"[DONE]")
    await exchange.end()


async def stall(exchange: Exchange) -> None:
    await _half_way(exchange)
    await exchange.silence()


async def half_event(exchange: Exchange) -> None:
    await _half_way(exchange)
    if exchange.asked.streams:
        data = exchange.piece(" lost")
        await exchange.put(data[: len(data) * 2 // 3])
    await exchange.reset()


async def half_character(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
        data = exchange.piece(" caf\u00e9")
        await exchange.put(data[: data.index(b"\xc3") + 1])
    else:
        await _half(exchange, exchange.whole().index(b"\xc3") + 1)
    await exchange.reset()


async def garbage(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, b"upstream connect error or disconnect/reset before headers")
        return
    await exchange.begin()
    await exchange.put(exchange.voice.nonsense(exchange.script))
    await exchange.silence()


async def error_event(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply(200, exchange.voice.broke())
        return
    await exchange.begin()
    await exchange.event(exchange.voice.broke())
    await exchange.end()


async def pings(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.open()
        await exchange.role()
    else:
        await exchange.open("application/json")
    while True:
        await exchange.put(exchange.voice.pulse if exchange.asked.streams else b"\n")
        await exchange.pause(0.05)


async def late_pings(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await pings(exchange)
    await exchange.begin()
    while True:
        await exchange.put(exchange.voice.pulse)
        await exchange.pause(0.05)


async def drip(exchange: Exchange) -> None:
    """A little of the answer every so often, for ever: too little to be used, too much to be silence."""
    if not exchange.asked.streams:
        await exchange.open("application/json")
        for letter in exchange.whole():
            await exchange.put(bytes((letter,)))
            await exchange.pause(DRIP)
        await exchange.silence()
    await exchange.begin()
    while True:
        for piece in pieces(STORY):
            await exchange.pause(DRIP)
            await exchange.say(piece)


async def _half_way(exchange: Exchange) -> None:
    if exchange.asked.streams:
        await exchange.begin()
    else:
        await _half(exchange, len(exchange.whole()) // 2)


async def _half(exchange: Exchange, count: int) -> None:
    """The first bytes of a whole answer that promised them all."""
    await exchange.half(200, exchange.whole(), count)


# ------------------------------------------------------------------------------------- an end is an end


async def no_done(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
        return
    await _to_the_finish(exchange)
    await exchange.end()


async def reset_after_finish(exchange: Exchange) -> None:
    if not exchange.asked.streams:
        await exchange.reply_whole()
    else:
        await _to_the_finish(exchange)
    await exchange.reset()


# ----------------------------------------------------------------------------------- bad rather than dead


async def repetition(exchange: Exchange) -> None:
    """A passage again and again, and then an end as if nothing were wrong."""
    exchange.retell(STORY + " " + PASSAGE * TIMES)
    await healthy(exchange)


async def mangled(exchange: Exchange) -> None:
    """UTF-8 that was read as Latin-1 on its way."""
    exchange.retell(f"{STORY} {STORY}".encode().decode("latin-1"))
    await healthy(exchange)
