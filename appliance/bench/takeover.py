"""How long is the silence when a cloud dies in mid-sentence, cold and standing by?

The cloud says some forty words and resets the connection. The first time the box has read nothing of the conversation;
afterwards it stands by, and is fed the words as they pass.

Silence: from the moment the cloud's socket died to the first of the box's own words at the client. Noticed: from
the same moment to the comment that announces the takeover. A step: the median time between two of the box's own words
in the same answer, which is one decode step at the same depth.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from appliance.bench.asking import Conversation, Failed
from appliance.bench.figures import median
from appliance.bench.result import Takeover
from appliance.bench.service import FAILING, Service
from appliance.core.sse import SseEvent, SseParser
from appliance.drills.cloud import STORY, Exchange, FailingCloud, Script

PIECES = 40
PACE = 0.03
CONTINUED = 24  # tokens of the box, after the cloud's
SETTLING = 3  # the first pieces may hold several tokens: a healed word is verified in one batch
COLD_WAIT = 0.3
ANNOUNCED = "appliance takeover "


class Dying:
    """The cloud: silent until the box is `ready` for it, then words, then a reset. One request at a time."""

    def __init__(self) -> None:
        self.ready: Callable[[], Awaitable[None]] = nothing
        self.failure: Failed | None = None
        self.died = 0.0
        self.said = ""
        self.cloud = FailingCloud(self._act, script=Script(text=STORY * 4, pace=PACE))

    async def _act(self, exchange: Exchange) -> None:
        self.failure, self.died, self.said = None, 0.0, ""
        await exchange.open()
        await exchange.role()
        try:
            await self.ready()
        except Failed as error:
            self.failure = error
        await exchange.words(PIECES)
        self.said = exchange.text
        await exchange.reset()
        self.died = time.monotonic()


async def nothing() -> None:
    """Nobody stands by. It is time enough for who does not, to be told of the answer."""
    await asyncio.sleep(COLD_WAIT)


@dataclass
class Heard:
    """One answer as it came: each piece with its time."""

    status: int = 0
    pieces: list[tuple[float, str]] = field(default_factory=list)
    announced: float | None = None
    complaint: str | None = None
    _parser: SseParser = field(default_factory=SseParser)

    def take(self, data: bytes, now: float) -> None:
        for event in self._parser.feed(data):
            self._take(event, now)

    def _take(self, event: SseEvent, now: float) -> None:
        if event.comment is not None and event.comment.startswith(ANNOUNCED):
            self.announced = now
        if event.data is None or event.data == b"[DONE]":
            return
        chunk: Mapping[str, Any] = json.loads(event.data)
        if chunk.get("error"):
            self.complaint = "it ended with an error"
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if piece := delta.get("content") or delta.get("reasoning_content"):
                self.pieces.append((now, piece))


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    seconds: float
    noticed: float
    step: float | None
    """``None`` for an answer of one word."""


def silence(heard: Heard, *, said: str, died: float) -> Silence:
    """What an answer tells of its takeover. Raises `Failed` if it was none."""
    if heard.complaint or heard.status != 200:
        raise Failed(heard.complaint or f"it was refused with status {heard.status}")
    if not "".join(piece for _, piece in heard.pieces).startswith(said) or heard.announced is None:
        raise Failed("the answer was not gone on with")
    lengths = itertools.accumulate(len(piece) for _, piece in heard.pieces)
    ours = [at for (at, _), length in zip(heard.pieces, lengths, strict=True) if length > len(said)]
    if not ours:
        raise Failed("the model ended the answer at once")
    settled = ours[SETTLING:] if len(ours) > SETTLING + 1 else ours
    gaps = [later - earlier for earlier, later in itertools.pairwise(settled)]
    return Silence(
        seconds=ours[0] - died,
        noticed=max(0.0, heard.announced - died),
        step=median(gaps) if gaps else None,
    )


async def take_over(
    service: Service,
    dying: Dying,
    conversation: Conversation,
    *,
    tokens: int,
    rounds: int,
    told: Callable[[Takeover], None],
) -> None:
    """One takeover from cold and `rounds` standing by, behind the same conversation of so many tokens; `told` hears
    after each of them. Raises `Failed`."""
    found = Takeover(prompt_tokens=tokens)
    for round in range(rounds + 1):
        if round == 1:
            await service.stand_by("hot")
        one = await _once(service, dying, conversation, number=round)
        found = replace(found, noticed=(*found.noticed, one.noticed))
        if round:
            found = replace(found, standby=(*found.standby, one.seconds))
            if one.step is not None:
                found = replace(found, steps=(*found.steps, one.step))
        else:
            found = replace(found, cold=(one.seconds,))
        told(found)


async def _once(service: Service, dying: Dying, conversation: Conversation, *, number: int) -> Silence:
    messages = conversation.messages
    messages[-1]["content"] += f" Number {number}."  # a question of its own, behind the same words
    body = {
        "model": FAILING,
        "messages": messages,
        "stream": True,
        "temperature": 0,
        "max_tokens": PIECES * 4 + CONTINUED,
    }
    dying.ready = service.caught_up if number else nothing
    heard = await _listen(service.url, body)
    if dying.failure is not None:
        raise dying.failure
    await service.reset()
    return silence(heard, said=dying.said, died=dying.died)


async def _listen(url: str, body: Mapping[str, Any]) -> Heard:
    heard, ours = Heard(), 0
    async with (
        httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client,  # noqa: S113 - cold takes long
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        heard.status = response.status_code
        async for data in response.aiter_raw():
            heard.take(data, time.monotonic())
            ours += heard.announced is not None
            if ours > CONTINUED:
                break
    return heard
