"""The only place where the relay meets time and I/O: it carries out what the relay says and tells it what came.

While a cloud answers, the box may stand by (`Shadow`): it is given the conversation, then the cloud's words as they
pass, and hears when the cloud's silence becomes odd. What it makes of that is its own affair; the relay does not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, cast

from appliance.core.actions import Action, Call, Done, Drop, Emit, Pause, Race
from appliance.core.attempt import Tried
from appliance.core.chat import ChatRequest
from appliance.core.events import Event, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.relay import Relay
from appliance.core.route import Leg
from appliance.core.seams import Backend
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
    calls = Calls(backends)
    patience = Patience(relay)
    try:
        while True:
            for action in actions:
                match action:
                    case Emit(events):
                        if shadow is not None:
                            shadow.feed(events)
                        offered = clock()
                        yield events
                        relay.held_up(clock() - offered)
                    case Tried():
                        record(action)
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Call(leg, request):
                        await calls.close()
                        if shadow is not None:
                            shadow.close()  # before the box is asked: what it has computed is free for that
                        shadow = None if standby is None or leg.local else Shadow(relay, standby)
                        calls.open(leg, request)
                    case Race(leg, request):
                        calls.open(leg, request)
                    case Drop(leg):
                        await calls.drop(leg)
                    case Done(error):
                        if error is not None:
                            raise error
                        return
            actions = await _next(relay, calls, clock, patience)
    finally:
        patience.close()
        try:
            if shadow is not None:
                shadow.close()
            for action in relay.cancel(clock()):
                if isinstance(action, Tried):
                    record(action)
        finally:
            await calls.close()


async def _next(relay: Relay, calls: Calls, clock: Callable[[], float], patience: Patience) -> list[Action]:
    """What happened next, told to the relay."""
    try:
        with patience:
            events = await calls.next(company=relay.wants_company)
    except Overdue:
        return relay.expire(clock())
    except StopAsyncIteration:
        return relay.end(clock(), calls.speaker)
    except BackendError as error:
        return relay.fail(error, clock(), calls.speaker)
    except Exception as error:
        # A mistake of ours in a backend or a dialect must not cost the client its answer: the next leg gives it.
        log.exception("A backend failed inside", exc_info=error if log.isEnabledFor(logging.DEBUG) else False)
        ours = BackendError(Fault.BROKEN, f"It failed inside: {type(error).__name__}.")
        return relay.fail(ours, clock(), calls.speaker)
    return relay.receive(events, clock(), calls.speaker)


class Calls:
    """The calls that run: one, or two while clouds race."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self._streams: dict[str, AsyncGenerator[Sequence[Event], None]] = {}
        self._waits: dict[str, asyncio.Task[Sequence[Event]]] = {}  # for a call's next events
        self.speaker = ""
        """The leg whose call something was last heard of."""

    def open(self, leg: Leg, request: ChatRequest) -> None:
        """Nothing is asked before its events are waited for."""
        # every backend answers with an async generator; the protocol only promises an iterator
        stream = self._backends[leg.name].stream(request, leg.model)
        self._streams[leg.name] = cast("AsyncGenerator[Sequence[Event], None]", stream)
        self.speaker = leg.name

    async def next(self, *, company: bool) -> Sequence[Event]:
        """The next events of any call; what ends the call is raised as it is. With `company` a deadline that is met
        meanwhile must not end the call that is waited for."""
        if not company and not self._waits and len(self._streams) == 1:
            return await anext(self._streams[self.speaker])
        for name, stream in self._streams.items():
            if name not in self._waits:
                self._waits[name] = asyncio.ensure_future(anext(stream))
                self._waits[name].set_name(f"the next events of {name}")
        await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        self.speaker = next(name for name, wait in self._waits.items() if wait.done())
        return self._waits.pop(self.speaker).result()

    async def drop(self, leg: Leg) -> None:
        """Close this leg's call."""
        await self._close(leg.name)
        self.speaker = next(iter(self._streams), "")

    async def close(self) -> None:
        """Close them all, whatever comes of one."""
        async with AsyncExitStack() as stack:
            for name in self._streams:
                stack.push_async_callback(self._close, name)

    async def _close(self, name: str) -> None:
        stream, wait = self._streams.pop(name), self._waits.pop(name, None)
        try:
            if wait is not None:
                wait.cancel()
                await asyncio.wait([wait])
                _ = wait.cancelled() or wait.exception()  # nobody else will look at it
        finally:
            await stream.aclose()


LOOK = 1.0


class Overdue(Exception):
    """The relay's deadline passed; a backend's own `TimeoutError` is its failure."""


class Patience:
    """The relay's deadline, kept while something is awaited: `asyncio.timeout_at`, with one timer for a whole answer.
    Each word moves the deadline; a timer that rings too early, and is set anew, is cheaper than one moved each time.
    It rings every `LOOK` seconds at least: the way to a cloud may be lost meanwhile, and the deadline moves nearer."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._task: asyncio.Task[Any] | None = None  # who waits now
        self._cancelling = 0
        self._over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling, self._over = task, task.cancelling(), False
        deadline = self._relay.deadline
        if self._timer is not None and self._due > deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._set(deadline)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        task, self._task = self._task, None
        assert task is not None
        # Who is cancelled by somebody else as well stays cancelled.
        if self._over and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise Overdue from error

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nothing is awaited; the next wait sets it anew
        if self._loop.time() < self._relay.deadline:
            self._set(self._relay.deadline)
        else:
            self._over = True
            self._task.cancel()

    def _set(self, deadline: float) -> None:
        deadline = min(deadline, self._loop.time() + LOOK)
        # Kept here: what uvloop gives for a time that has come already does not know when it is due.
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._ring)


NOT_AGAIN = float("-inf")


class Shadow:
    """One cloud's answer, as the box is told of it while it may still have to go on with it. Whether it would be asked
    at all is looked at when it is to be told: most answers are over by then."""

    def __init__(self, relay: Relay, standby: Standby) -> None:
        self._relay = relay
        self._standby = standby
        self._following: Following | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle
        # One timer, looked at again when it is due: a healthy answer moves the warning with every word.
        self._wake(min(self._began + standby.patience, relay.warning))

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
