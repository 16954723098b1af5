"""Asks a cloud something easy, and counts how the answer ends as that of a user is counted.

Rules of this file:

1. Nobody waits for the answer: it has a deadline of its own, and no second try.
2. It is nobody's request: it is not in the journal, and does not make the upstream or the model look used.
3. Leave is given back, whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from appliance.core.canary import OK, Question, judge
from appliance.core.events import Event, Finish, FinishReason, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.scopes import Breakers
from appliance.core.seams import Backend

log = logging.getLogger("appliance")

DEADLINE = 20.0
"""Seconds for a whole answer of one word, thinking included."""


async def ask(
    cloud: Backend, breakers: Breakers, question: Question, *, dialect: str, model: str, jitter: float
) -> str | None:
    """How it went: "ok" or the fault's word. ``None`` if there was no leave to ask."""
    clock = asyncio.get_running_loop().time
    leave = breakers.begin(clock(), model, wanted=False)  # else canaries would keep each other alive
    if leave is None:
        return None
    try:
        error = await _flaw(cloud, question, dialect, model)
    except BaseException:
        breakers.abandon(leave)
        raise
    if error is None:
        breakers.succeed(leave, clock())
    else:
        breakers.fail(leave, clock(), error, jitter=jitter)
    log.debug("canary: %s as %s: %s", cloud.name, model, error.message if error else OK)
    return error.fault.value if error else OK


async def _flaw(cloud: Backend, question: Question, dialect: str, model: str) -> BackendError | None:
    """What was wrong, with the cloud or with what it said."""
    try:
        async with asyncio.timeout(DEADLINE):
            text, finished = await _answer(cloud, question, dialect, model)
    except BackendError as error:
        return error
    except TimeoutError:
        message = f"{cloud.name} did not answer something easy within {DEADLINE:g} s."
        return BackendError(Fault.SILENT, message, status=504)
    except Exception as error:
        log.exception("the canary of %s failed", cloud.name)
        return BackendError(Fault.BROKEN, f"It failed inside: {type(error).__name__}.")
    if finished is None:
        return BackendError(Fault.BROKEN, f"{cloud.name} ended its answer without saying why.", status=502)
    return judge(question, text, finished, name=cloud.name)


async def _answer(cloud: Backend, question: Question, dialect: str, model: str) -> tuple[str, FinishReason | None]:
    """What it said, and why it stopped, if it did."""
    said: list[str] = []
    finished: FinishReason | None = None
    stream = cloud.stream(question.request(dialect=dialect, model=model), model)
    # Every backend answers with an async generator; the protocol only promises an iterator.
    async with aclosing(cast("AsyncGenerator[Sequence[Event], None]", stream)) as batches:
        async for batch in batches:
            for event in batch:
                if isinstance(event, TextDelta):
                    said.append(event.text)
                elif isinstance(event, Finish):
                    finished = event.reason
    return "".join(said), finished
