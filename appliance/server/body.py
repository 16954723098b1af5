"""Reading a request's body: whole, bounded in size and time, and to its end even when it is refused."""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from appliance.guard.limits import LIMITS, Limits, Share


class BodyTooLarge(Exception):
    """More bytes than the limit; what came was read and thrown away, so that the client can hear the answer."""


class BodyTooSlow(Exception):
    """It did not come in time; the rest of it still stands in the way of a next request."""


class NoRoom(Exception):
    """Too many other bodies are held at this time."""


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(receive: Receive, *, limits: Limits = LIMITS, share: Share | None = None) -> bytes:
    """The body of the request; `share` holds it, and is released by whoever needs the body no longer.

    Raises:
        BodyTooLarge: it has more bytes than the limit.
        BodyTooSlow: it stalled or came too slowly.
        NoRoom: the bodies of all requests together are too large.
        ClientGone: the connection closed before the end.
    """
    clock = asyncio.get_running_loop().time
    body = bytearray()  # not a list of pieces: a piece may be one byte
    begun = last = clock()
    while True:
        try:
            async with asyncio.timeout_at(limits.next_byte_by(begun=begun, last=last, received=len(body))):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        if piece:
            last = clock()
            body += piece
        if len(body) > limits.body:
            if share is not None:
                share.release()
            body.clear()
            if message.get("more_body", False):
                await drain(receive, limits=limits)
            raise BodyTooLarge
        if piece and share is not None and not share.take(len(piece)):
            body.clear()  # the exception would hold it for as long as it is handled
            raise NoRoom
        if not message.get("more_body", False):
            return bytes(body)


async def drain(receive: Receive, *, limits: Limits = LIMITS) -> bool:
    """Read on and throw away: a client that still sends does not read, and answering it at once would end in a reset
    connection instead of a sentence. False if it went on for too long."""
    size = 0
    try:
        async with asyncio.timeout(limits.drain_time):
            while size <= limits.drain:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False
