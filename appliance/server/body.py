"""Reading a request's body: whole, bounded, and to its end even when it is refused."""

from __future__ import annotations

from starlette.types import Receive

BODY_LIMIT = 32 * 1024 * 1024
"""Bytes. Anthropic takes 32 MB, OpenAI less in one request; an agent's 18k-token prompt is 0.1 MB."""
DRAIN_LIMIT = 512 * 1024 * 1024


class BodyTooLarge(Exception):
    """More bytes than the limit; what came was read and thrown away, so that the client can hear the answer."""


class ClientGone(Exception):
    """The client left before its request was complete."""


async def read_body(receive: Receive, *, limit: int = BODY_LIMIT) -> bytes:
    """The body of the request.

    A client that is still sending does not read; answering it at once would end in a reset connection instead of a
    sentence. So a body over `limit` is read on and dropped, up to `DRAIN_LIMIT`.

    Raises:
        BodyTooLarge: it has more than `limit` bytes.
        ClientGone: the connection closed before the end.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            chunks.clear()
        else:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > DRAIN_LIMIT:
            break
    if size > limit:
        raise BodyTooLarge
    return b"".join(chunks)
