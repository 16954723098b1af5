"""How long is a streamed answer that is wanted whole read, and what is told of it meanwhile?

Rules of this file:

1. While it is being written, its silence is judged by the relay, as a stream's is.
2. Once the answer has ended, only what it cost and the end mark may still come. They get `LINGER`, as behind a stream;
   what goes wrong by then no longer matters.
3. Behind the end mark there is nothing to read but the end of the body. It gets `LAST`, so that the connection can be
   kept: a new one costs the next request more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from aiohttp import StreamReader

from appliance.backends.transport import TROUBLE
from appliance.core.events import Progress
from appliance.core.fault import BackendError, Fault
from appliance.core.pulse import LINGER
from appliance.core.seams import Fold

LAST = 0.1
STREAM_LIMIT = 256 * 1024 * 1024
"""Bytes; a piece of a stream has some two hundred around each word."""


async def growing(content: StreamReader, fold: Fold) -> AsyncGenerator[Sequence[Progress], None]:
    """How the answer grows, one batch for each read that it grew by. Then `fold` has all of it.

    Raises:
        BackendError: what the cloud said instead of an answer. One of `TROUBLE`: the line was cut.
    """
    clock = asyncio.get_running_loop().time
    size, until = 0, None
    while True:
        try:
            async with asyncio.timeout_at(until):
                data = await content.readany()
            progress = fold.feed(data)
        except (*TROUBLE, BackendError):
            if fold.ended:
                return
            raise
        if not data:
            return
        size += len(data)
        if size > STREAM_LIMIT:
            raise BackendError(Fault.BROKEN, f"The cloud sent an answer of more than {STREAM_LIMIT} bytes.")
        if progress:
            yield progress
            try:
                fold.feed(b"")  # what is wrong behind good words is told now, and not with the next read
            except BackendError:
                if fold.ended:
                    return
                raise
        if fold.ended and fold.over:
            until = min(until or clock() + LAST, clock() + LAST)
        elif fold.ended and (progress or until is None):
            until = clock() + LINGER
