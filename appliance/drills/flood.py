"""Everybody at once: clouds that tell nearly all of them to wait, and more connections than the box lets in.

Rules of this file:

1. Whoever asks gets one clean answer, or is told in the words of his dialect when to come back. There is no third.
2. Nobody is asked twice: a cloud that says when to come back is left alone.
3. Afterwards the service is as it was.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import httpx

from appliance.drills import acts
from appliance.drills.application import Heard, ask
from appliance.drills.cloud import Act, FailingCloud
from appliance.drills.exchange import Exchange
from appliance.drills.own import CREDENTIAL, question
from appliance.drills.verdict import OK, judge_refusal, trouble_of

REQUESTS = 200
"""At once, or more if the box has more room."""
BEYOND = 50  # more than the box has room for
MOST = 1000
LET_IN = 5  # that each cloud answers before it tells the others to wait
WORDS = 4  # tokens of an answer; what is rehearsed is the crowd
SPARE = 256  # open files for everything else

CONNECTIONS = 32
"""That the listener of the crowd lets in; the real one lets in thousands."""
IDLE = 8
TURNED_AWAY = 16
PATIENCE = 5.0
"""Seconds until all who are not let in should have been told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooded:
    """What became of all of them. `refused` is by status, `idle` are connections that had been answered and gave way,
    `asked` how many requests the clouds got, and `after` who answered the next request, `after_ms` how quickly."""

    name: str
    api: str
    sent: int
    by_cloud: int = 0
    by_box: int = 0
    refused: Mapping[int, int] = field(default_factory=dict)
    idle: int = 0
    asked: int = 0
    after: str = ""
    after_ms: float = 0.0
    seconds: float = 0.0
    complaints: tuple[str, ...] = ()


FLOODS: Mapping[str, str] = {
    "flood": "hundreds of requests at once, and 429 with Retry-After for nearly all of them",
    "crowd": "more connections at once than the box lets in",
}

Asking = Callable[[int], Awaitable[Heard]]


async def flood(url: str, clouds: Sequence[FailingCloud], *, api: str, model: str, room: int) -> Flooded:
    """`room`: how many answers the box can be busy with or have in line."""
    for cloud in clouds:
        cloud.act = nearly_all_wait(LET_IN)
    with files(2 + 2 * len(clouds)) as most:
        count = min(max(REQUESTS, room + BEYOND), MOST, most)
        async with httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None)) as client:  # noqa: S113
            asking = _asking(client, api, model)
            began = time.monotonic()
            heard = await asyncio.gather(*map(asking, range(count)))
            seconds = time.monotonic() - began
            asked = sum(len(cloud.chats) for cloud in clouds)
            complaints = [] if asked <= count * len(clouds) else [f"the clouds were asked {asked} times"]
            return await _told("flood", asking, heard, api=api, asked=asked, seconds=seconds, complaints=complaints)


async def crowd(url: str, clouds: Sequence[FailingCloud], *, api: str, model: str) -> Flooded:
    """In front of a listener that lets in `CONNECTIONS`, where some were answered and stay: more than it lets in come
    at the same moment, and nobody is answered before all others have been turned away."""
    gate = asyncio.Event()
    for cloud in clouds:
        cloud.act = _held(gate)
    began = time.monotonic()
    with files(2 + 2 * len(clouds)):
        async with httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None)) as client:  # noqa: S113
            asking = _asking(client, api, model)
            async with AsyncExitStack() as stack:
                idle = [await stack.enter_async_context(_idle(url)) for _ in range(IDLE)]
                turned_away = asyncio.Semaphore(0)

                async def coming(at: int) -> Heard:
                    heard = await asking(at)
                    turned_away.release()
                    return heard

                stack.callback(gate.set)
                crowding = asyncio.gather(*map(coming, range(CONNECTIONS + TURNED_AWAY)))
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE):
                        for _ in range(TURNED_AWAY):
                            await turned_away.acquire()
                gone = [reader.at_eof() for reader in idle].count(True)
                gate.set()
                heard = await crowding
            complaints = [] if gone == IDLE else [f"{IDLE - gone} idle connections kept their place"]
            return await _told(
                "crowd",
                asking,
                heard,
                api=api,
                asked=sum(len(cloud.chats) for cloud in clouds),
                seconds=time.monotonic() - began,
                complaints=complaints,
                idle=gone,
            )


@asynccontextmanager
async def _idle(url: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that was answered and stays for the next request; gives what else comes on it."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"HEAD /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.close()


async def _told(
    name: str,
    asking: Asking,
    heard: Sequence[Heard],
    *,
    api: str,
    asked: int,
    seconds: float,
    complaints: Sequence[str],
    idle: int = 0,
) -> Flooded:
    """Everybody's answer, and one more request."""
    by_cloud, by_box = 0, 0
    refused: Counter[int] = Counter()
    wrong: Counter[str] = Counter(complaints)
    for at, one in enumerate(heard):
        if one.status == OK:
            wrong.update(trouble_of(one, stream=_streams(at)))
            by_box += _by(one) == "local"
            by_cloud += _by(one) != "local"
        else:
            wrong.update(judge_refusal(one, api=api))
            refused[one.status] += 1
    began = time.monotonic()
    after = await asking(0)
    after_ms = (time.monotonic() - began) * 1000
    wrong.update(f"afterwards: {trouble}" for trouble in trouble_of(after, stream=True))
    return Flooded(
        name=name,
        api=api,
        sent=len(heard),
        by_cloud=by_cloud,
        by_box=by_box,
        refused=dict(sorted(refused.items())),
        idle=idle,
        asked=asked,
        after=_by(after),
        after_ms=after_ms,
        seconds=seconds,
        complaints=tuple(f"{what} ({count} times)" if count > 1 else what for what, count in wrong.items()),
    )


def _asking(client: httpx.AsyncClient, api: str, model: str) -> Asking:
    """Streams and whole answers in turn."""

    async def asking(at: int) -> Heard:
        body = question(model, stream=_streams(at), max_tokens=WORDS)
        return await ask(client, body, api=api, headers=CREDENTIAL)

    return asking


def _streams(at: int) -> bool:
    return at % 2 == 0


def _by(heard: Heard) -> str:
    """Whoever ended it."""
    if heard.takeovers:
        return heard.takeovers[-1].partition("->")[2].rpartition(" after=")[0]
    return heard.headers.get("x-appliance-served-by", "nobody")


# ----------------------------------------------------------------------------------------------- on the wire


def nearly_all_wait(let_in: int) -> Act:
    """The first few are answered, and all others are told when to come back."""
    left = let_in

    async def act(exchange: Exchange) -> None:
        nonlocal left
        left -= 1
        await (acts.healthy if left >= 0 else acts.refuses("rate-limit"))(exchange)

    return act


def _held(gate: asyncio.Event) -> Act:
    """Well, but not before all are there."""

    async def act(exchange: Exchange) -> None:
        await gate.wait()
        await acts.healthy(exchange)

    return act


@contextmanager
def files(each: int) -> Iterator[int]:
    """For a while as many open files as we may have; gives for how many requests they are enough, `each` of which needs
    so many."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST * each + SPARE
    limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if before != resource.RLIM_INFINITY and before < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    else:
        limit = wanted if before == resource.RLIM_INFINITY else before
    try:
        yield max(1, (limit - SPARE) // each)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
