"""The only place where the relay meets time and I/O: it carries out what the relay says and tells it what came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import cast

from appliance.core.chat import Backend, BackendError, Event, Fault
from appliance.core.relay import Action, Call, Done, Emit, Relay, Tried

log = logging.getLogger("appliance.drive")


async def drive(
    relay: Relay, backends: Mapping[str, Backend], record: Callable[[Tried], None]
) -> AsyncGenerator[tuple[Event, ...], None]:
    """The events of one answer, in the batches in which they came.

    Closing the generator is the client leaving: the running call is closed at once and nobody is blamed.

    Raises:
        BackendError: the answer cannot be given, or not to its end.
    """
    clock = asyncio.get_running_loop().time
    actions: Sequence[Action] = relay.start(clock())
    async with AsyncExitStack() as stack:
        stream: AsyncIterator[Sequence[Event]] | None = None
        try:
            while True:
                for action in actions:
                    match action:
                        case Emit(events):
                            offered = clock()
                            yield events
                            relay.held_up(clock() - offered)
                        case Tried():
                            record(action)
                        case Call(leg, request):
                            await stack.aclose()
                            stream = backends[leg.name].stream(request, leg.model)
                            # every backend answers with an async generator; the protocol only promises an iterator
                            await stack.enter_async_context(aclosing(cast("AsyncGenerator[Sequence[Event]]", stream)))
                        case Done(error):
                            if error is not None:
                                raise error
                            return
                assert stream is not None
                actions = await _next(relay, stream, clock)
        finally:
            for action in relay.cancel(clock()):
                if isinstance(action, Tried):
                    record(action)


async def _next(relay: Relay, stream: AsyncIterator[Sequence[Event]], clock: Callable[[], float]) -> list[Action]:
    """What happened next, told to the relay."""
    try:
        async with asyncio.timeout_at(relay.deadline):
            events = await anext(stream)
    except TimeoutError:
        return relay.expire(clock())
    except StopAsyncIteration:
        return relay.end(clock())
    except BackendError as error:
        return relay.fail(error, clock())
    except Exception as error:
        # A mistake of ours in a backend or a dialect must not cost the client its answer: the next leg gives it.
        log.exception("A backend failed inside", exc_info=error if log.isEnabledFor(logging.DEBUG) else False)
        return relay.fail(BackendError(Fault.BROKEN, f"It failed inside: {type(error).__name__}."), clock())
    return relay.receive(events, clock())
