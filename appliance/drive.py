"""The only place where the relay meets time and I/O: it carries out what the relay says and tells it what came.

While a cloud answers, the box may stand by (`Shadow`): it is given the conversation, then the cloud's words as they
pass, and hears when the cloud's silence becomes odd. What it makes of that is its own affair; the relay does not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Protocol, cast

from appliance.core.chat import Backend, BackendError, ChatRequest, Event, Fault, TextDelta
from appliance.core.relay import Action, Call, Done, Emit, Relay, Tried
from appliance.core.standby import SUSPICIOUS, Following

log = logging.getLogger("appliance.drive")


class Standby(Protocol):
    """The box, as somebody who can be told beforehand."""

    patience: float
    """Seconds a cloud's answer must have lasted before the box is told: short ones are not worth it."""

    def follow(self, request: ChatRequest, *, suspicion: float) -> Following: ...


async def drive(
    relay: Relay,
    backends: Mapping[str, Backend],
    record: Callable[[Tried], None],
    standby: Standby | None = None,
) -> AsyncGenerator[tuple[Event, ...], None]:
    """The events of one answer, in the batches in which they came.

    Closing the generator is the client leaving: the running call is closed at once and nobody is blamed.

    Raises:
        BackendError: the answer cannot be given, or not to its end.
    """
    clock = asyncio.get_running_loop().time
    actions: Sequence[Action] = relay.start(clock())
    shadow: Shadow | None = None
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
                            if shadow is not None:
                                shadow.close()  # before the box is asked: what it has computed is free for that
                            shadow = Shadow.of(relay, standby)
                            stream = backends[leg.name].stream(request, leg.model)
                            # every backend answers with an async generator; the protocol only promises an iterator
                            await stack.enter_async_context(aclosing(cast("AsyncGenerator[Sequence[Event]]", stream)))
                        case Done(error):
                            if error is not None:
                                raise error
                            return
                assert stream is not None
                actions = await _next(relay, stream, clock, shadow)
        finally:
            if shadow is not None:
                shadow.close()
            for action in relay.cancel(clock()):
                if isinstance(action, Tried):
                    record(action)


async def _next(
    relay: Relay, stream: AsyncIterator[Sequence[Event]], clock: Callable[[], float], shadow: Shadow | None
) -> list[Action]:
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
    actions = relay.receive(events, clock())
    if shadow is not None:
        shadow.feed(events)
    return actions


NOT_AGAIN = float("-inf")


class Shadow:
    """One cloud's answer, as the box is told of it while it may still have to go on with it."""

    def __init__(self, relay: Relay, standby: Standby) -> None:
        self._relay = relay
        self._standby = standby
        self._following: Following | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle
        # One timer, looked at again when it is due: a healthy answer moves the warning with every word.
        self._wake(min(self._began + standby.patience, relay.warning))

    @classmethod
    def of(cls, relay: Relay, standby: Standby | None) -> Shadow | None:
        """A shadow for the leg the relay has just called, if the box would be asked after it."""
        return cls(relay, standby) if standby is not None and relay.standby() is not None else None

    def feed(self, events: Sequence[Event]) -> None:
        """The cloud said this, and the relay knows it."""
        if self._following is not None:
            said = "".join(event.text for event in events if isinstance(event, TextDelta) and event.choice == 0)
            if said:
                self._following.feed(said)
            elif not self._relay.continuable:
                self.close()
        # From thinking to text the warning comes earlier than it was.
        if self._relay.warning < self._due:
            self._timer.cancel()
            self._wake(self._relay.warning)

    def close(self) -> None:
        """The cloud is done, or has failed, or the client left."""
        self._timer.cancel()
        self._due = NOT_AGAIN
        if self._following is not None:
            self._following.close()
            self._following = None

    def _look(self) -> None:
        now, warning = self._loop.time(), self._relay.warning
        self._due = NOT_AGAIN
        odd = now >= warning
        if self._following is None:
            request = self._relay.standby()
            if request is None:
                return
            self._following = self._standby.follow(request, suspicion=SUSPICIOUS if odd else 0.0)
        elif odd:
            self._following.suspect(SUSPICIOUS)
        if not odd and warning != float("inf"):
            self._wake(warning)

    def _wake(self, at: float) -> None:
        self._due = at
        self._timer = self._loop.call_at(at, self._look)
