"""The clouds of the campaign: each request says by its number what is to become of it.

A second cloud that is given a half written answer goes on from it: with a mark of its own and signed words, or with the
rest of a document.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from campaign_plan import ANYWHERE, Plan, named
from campaign_words import SECOND, Entry, complete, hint, mark, words

from appliance.drills.cloud import Act, Exchange, FailingCloud, Left
from appliance.drills.faults import HEALTHY


@dataclass
class Told:
    """What the clouds were asked and said for one request, in the order in which they were asked."""

    plan: Plan
    exchanges: list[Exchange] = field(default_factory=list)
    of_second: list[Exchange] = field(default_factory=list)
    """Those of them that were the second cloud's."""
    left: list[Exchange] = field(default_factory=list)
    """Those that the box left before they had said everything they would have."""
    entries: list[Entry] = field(default_factory=list)
    """What the scripted engine was given and said, each time it was asked."""


class Cloud(FailingCloud):
    """The first cloud, or the second. `told` are the requests that are under way, by their numbers."""

    def __init__(self, told: Mapping[int, Told], *, second: bool = False) -> None:
        super().__init__(self._play)
        self._told = told
        self._second = second

    async def _play(self, exchange: Exchange) -> None:
        if len(self.exchanges) > 1000:
            self.exchanges.clear()
        found = hint(exchange.asked.body.decode())
        told = self._told.get(found.key) if found is not None else None
        if told is None:  # a lesson, or a client that has left
            await _act("healthy")(exchange)
            return
        plan = told.plan
        script = plan.script_of_second if self._second else plan.script
        given = committed(exchange.asked.fields) if self._second else None
        if given is not None:
            script = replace(script, text=goes_on(plan, given), thinking="")
        # How an answer is packed is settled when its exchange is made.
        mine = Exchange(exchange.asked, script, exchange._reader, exchange._writer, id=exchange.id)
        told.exchanges.append(mine)
        if self._second:
            told.of_second.append(mine)
        fault = plan.second if self._second else plan.fault
        if fault == "half-character" and not mine.asked.streams and b"\xc3" not in mine.whole():
            fault = "cut-reset"
        act = cut(plan) if fault == ANYWHERE else _act(fault)
        try:
            await act(mine)
        except (Left, ConnectionError):
            told.left.append(mine)
            raise
        finally:
            exchange.over = mine.over


def committed(fields: Mapping[str, Any]) -> str | None:
    """The half written answer that a cloud is to go on from."""
    last = (fields.get("messages") or [{}])[-1]
    if last.get("role") != "assistant":
        return None
    content = last.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def goes_on(plan: Plan, given: str) -> str:
    if plan.schema is not None:
        return complete(plan.schema, given)
    return mark(SECOND, given) + words(SECOND, plan.key, plan.hint.words)


def _act(name: str) -> Act:
    act = HEALTHY.act if name == "healthy" else named(name).act
    assert act is not None
    return act


def cut(plan: Plan) -> Act:
    """A stream that ends behind any of its bytes, in one of the ways in which streams end."""

    async def act(exchange: Exchange) -> None:
        chance = random.Random(f"{plan.key} {exchange.asked.api}")
        death = chance.choice(DEATHS)
        if not exchange.asked.streams:
            body = exchange.whole()
            await exchange.half(200, body, int(plan.cut * len(body)))
            await exchange.reset()
            return
        story = exchange.voice.story(exchange.script, exchange.id, usage=False)
        left = int(plan.cut * sum(len(said.data) for said in story if said.stage in ("opening", "middle")))
        await exchange.open()
        for said in story:
            if left < len(said.data):
                # Not the whole of what it says: whether an event without its last line break has come is a matter of
                # opinion.
                await exchange.put(said.data[: min(left, len(said.data.rstrip()) - 1)])
                break
            await exchange.put(said.data)
            left -= len(said.data)
            exchange.text += said.text
            exchange.thinking += said.thinking
            if said.call is not None:
                exchange.arguments[said.call] = exchange.arguments.get(said.call, "") + said.arguments
            await asyncio.sleep(0)
        await death(exchange)

    return act


async def _resets(exchange: Exchange) -> None:
    await exchange.reset()


async def _hangs_up(exchange: Exchange) -> None:
    await exchange.hang_up()


async def _ends(exchange: Exchange) -> None:
    await exchange.end()
    exchange.over = True
    await exchange.hang_up()


async def _falls_silent(exchange: Exchange) -> None:
    await exchange.silence()


DEATHS: tuple[Callable[[Exchange], Any], ...] = (_resets, _resets, _hangs_up, _hangs_up, _ends, _falls_silent)
