"""An engine around a scripted process, and what one says to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from appliance.backends.process import Engine, EngineSpec
from appliance.core.frames import Frame
from appliance.core.keeper import Keeper
from appliance.core.watch import Patience


@contextlib.asynccontextmanager
async def running(
    python: str, *, keeper: Keeper | None = None, patience: Patience | None = None, unload_after: float = 0, **spec: Any
) -> AsyncIterator[Engine]:
    engine = Engine(
        EngineSpec(path=spec.pop("path", "good"), **spec),
        python=python,
        keeper=keeper,
        patience=patience,
        unload_after=unload_after,
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def job(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


async def ask(engine: Engine, content: str) -> list[Frame]:
    return [frame async for batch in engine.generate(job(content)) for frame in batch]


def text(frames: list[Frame]) -> str:
    return "".join(frame["text"] for frame in frames if frame["op"] == "text")


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what a process does in its own time."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - somebody else's state
            await asyncio.sleep(0.005)
