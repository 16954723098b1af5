"""What does the way through the box add to a healthy cloud's answer? Beside a cloud that costs nothing, in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from appliance.bench.asking import Failed
from appliance.bench.line import streamed
from appliance.bench.result import Added
from appliance.bench.service import FAST

STREAMS = 10
"""Answers of each side in each round."""
WIRE = "openai"


async def added(direct: str, box: str, *, rounds: int, told: Callable[[Added], None]) -> None:
    """`told` hears after each round. Raises `Failed`."""
    found = Added(first=(), token=(), direct=())
    sides = (direct, box)
    try:
        for side in sides:  # connections, caches, a first look at everything
            await streamed(side, WIRE, FAST, STREAMS)
        for round in range(rounds):
            taken = {}
            for side in sides if round % 2 else reversed(sides):
                taken[side] = await streamed(side, WIRE, FAST, STREAMS)
            found = replace(
                found,
                first=(*found.first, taken[box][0] - taken[direct][0]),
                token=(*found.token, taken[box][1] - taken[direct][1]),
                direct=(*found.direct, taken[direct][0]),
            )
            told(found)
    except (RuntimeError, TimeoutError, OSError) as error:
        raise Failed(f"a healthy cloud's answer did not come through: {str(error)[:200]}") from error
