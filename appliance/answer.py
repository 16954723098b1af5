"""One running answer: its events as they are to be encoded, and what the client and the journal are told of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import Degraded, Event, Opened, Takeover
from appliance.core.fault import BackendError, Fault
from appliance.core.relay import Relay
from appliance.journal import MOST_DEGRADED, Answered, Journal
from appliance.metrics import Metrics, Outcome

_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
"""Some are names of fields as a client wrote them: only what is harmless in a header goes into one."""


class Answer:
    """One running answer: its events as they are to be encoded, and what the response headers say about it."""

    def __init__(
        self,
        *,
        id: str,
        request: ChatRequest,
        relay: Relay,
        batches: AsyncGenerator[tuple[Event, ...], None],
        journal: Journal,
        metrics: Metrics,
        running: set[Relay],
    ) -> None:
        self.id = id
        self._request = request
        self._relay = relay
        self._batches = batches
        self._journal = journal
        self._metrics = metrics
        self._running = running
        self._passed: Headers = ()
        self._degraded: list[str] = []

    @property
    def served_by(self) -> str:
        """Who is asked now, or was last."""
        return self._relay.leg.name if self._relay.leg else "nobody"

    @property
    def fallback(self) -> str | None:
        """Why the first choice did not answer, if so."""
        return self._relay.fallback

    @property
    def degraded(self) -> list[str]:
        """What is done less well than asked for, as far as it is known by now."""
        return list(dict.fromkeys([*sorted(self._relay.left_out), *self._degraded]))

    def headers(self) -> Headers:
        """What a client may know about who answered, as far as it is known by now."""
        found = [("x-appliance-request-id", self.id), ("x-appliance-served-by", self.served_by)]
        if self.fallback:
            found.append(("x-appliance-fallback", self.fallback))
        if named := self.degraded:
            found.append(("x-appliance-degraded", ", ".join(named[:MOST_DEGRADED])))
        return (*found, *self._passed)

    async def events(self) -> AsyncGenerator[list[Event], None]:
        """The events for the encoder, in batches. Closing it stops the work, in the cloud and on the box.

        Raises:
            BackendError: the answer cannot be given, or not to its end.
        """
        counts = self._journal.counts
        counts.total += 1
        counts.running += 1
        self._running.add(self._relay)
        taken_over = False
        at, began = time.time(), time.monotonic()
        outcome: Outcome = "left"  # unless it comes to an end by itself
        try:
            async with aclosing(self._batches) as batches:
                async for batch in batches:
                    encodable: list[Event] = []
                    for event in batch:
                        match event:
                            case Opened(headers=headers):
                                self._passed = headers
                            case Degraded(what=what):
                                safe = what if _NAME.fullmatch(what) else "unknown"
                                self._degraded.append(safe)
                                encodable.append(Degraded(what=safe))
                            case _:
                                if isinstance(event, Takeover):
                                    taken_over = True
                                    self._metrics.took_over(event.source, event.target, event.reason)
                                encodable.append(event)
                    yield encodable
            outcome = "answered"
            counts.taken_over += taken_over
            counts.fell_back += self._relay.fallback is not None and not taken_over
        except BackendError as error:
            outcome = "refused" if error.fault in (Fault.REQUEST, Fault.TOO_LONG) else "failed"
            counts.failed += outcome == "failed"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if self._relay.stopped is not None:
                outcome = "failed"
                counts.failed += 1
            raise
        finally:
            counts.running -= 1
            self._running.discard(self._relay)
            self._metrics.finished(outcome)
            self._journal.finished(
                Answered(
                    at=at,
                    request_id=self.id,
                    ending=outcome,
                    served_by=self.served_by,
                    seconds=time.monotonic() - began,
                    dialect=self._request.dialect,
                    stream=self._request.stream,
                    model=self._request.model,
                    taken_over=taken_over,
                    fallback=self.fallback,
                    passed_over=tuple(self._relay.passed_over),
                    degraded=tuple(self._degraded),
                )
            )
