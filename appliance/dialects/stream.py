"""What do the dialects have in common when they read a cloud's answer and write one to a client?

Rules of this file:

1. The wires of all events, joined, are the bytes that came: the first event of a wire event carries them, the others
   none.
2. What does not parse is an error: to skip it would lose characters. So is a page where a stream should be.
3. An end mark is no end. One in the middle of an answer means that it died behind somebody who says it anyway.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

from appliance.core.events import WORDS, Degraded, Event, Opaque, Opened, Progress, Usage, Wire
from appliance.core.fault import BackendError, Fault
from appliance.core.sse import OverlongEvent, SseEvent, SseParser

DONE = b"[DONE]"
"""OpenAI's end mark, which some who imitate others send too."""


def broken(what: str) -> BackendError:
    return BackendError(Fault.BROKEN, f"The cloud sent {what}.")


def count(value: Any) -> int:
    """A number of tokens; none if it is no number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def parsed(data: bytes, what: str) -> Any:
    """JSON, or the sentence that `what` is none."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise broken(f"{what} that is not JSON") from error


@cache
def _rest(dialect: str) -> Wire:
    return Wire(dialect, b"")


class Batch:
    """The events out of the same bytes, which the first of them carries."""

    __slots__ = ("_rest", "_wire", "events")

    def __init__(self, dialect: str, raw: bytes) -> None:
        self.events: list[Event] = []
        self._wire = Wire(dialect, raw)
        self._rest = _rest(dialect)

    def wire(self) -> Wire:
        """The wire of the next event."""
        wire, self._wire = self._wire, self._rest
        return wire


# ---------------------------------------------------------------------------------------------- what a cloud says


class SseDecoder(ABC):
    """A stream of server-sent events to ours. What one of them says, its dialect reads."""

    __slots__ = ("_failure", "_half", "_parser")

    dialect: ClassVar[str]

    def __init__(self) -> None:
        self._parser = SseParser()
        self._failure: BackendError | None = None
        self._half: Sequence[Event] = ()  # what ends in half a character waits for the other half: nobody else has that

    @property
    @abstractmethod
    def _ended(self) -> bool:
        """Has everything that began been said to the end?"""

    @abstractmethod
    def _read(self, found: dict[str, Any], name: str | None, raw: bytes) -> Sequence[Event]:
        """What an event of this `name` says."""

    @abstractmethod
    def _error(self, found: dict[str, Any]) -> BackendError:
        """An error that was said in the place of an event."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now. What is wrong is raised once the events before it were given."""
        if self._failure is not None:
            raise self._failure
        try:
            found = self._parser.feed(data)
        except OverlongEvent as error:
            raise broken(f"too much at once: {error}") from error
        return self._events(found)

    def close(self) -> list[Event]:
        """The last words of a stream whose blank line was forgotten. Half an event is an error, unless the answer
        had already ended."""
        if self._failure is not None:
            raise self._failure
        left = [event._replace(raw=_completed(event.raw)) for event in self._parser.close()]
        try:
            if any((event.event or event.data is not None) and not (event.data or b"").strip() for event in left):
                raise broken("the beginning of an event and nothing more")
            return self._events(left, raising=True)
        except BackendError as error:
            if self._ended:
                return []
            if error.fault is not Fault.BROKEN:
                raise
            raise broken("half an event and then nothing more") from error

    def _events(self, found: Sequence[SseEvent], *, raising: bool = False) -> list[Event]:
        events: list[Event] = []
        for event in found:
            try:
                said = self._one(event)
            except BackendError as error:
                if raising or not events:
                    raise
                self._failure = error
                break
            if self._half:
                events += self._half
                self._half = ()
            if (b"\\ud" in event.raw or b"\\uD" in event.raw) and any(map(_cut_in_half, said)):
                self._half = said
            else:
                events += said
        return events

    def _one(self, event: SseEvent) -> Sequence[Event]:
        raw, data, name, _, stray = event
        if stray is not None:
            raise self._not_an_event(raw)
        if data is None or data[:1] != b"{":
            mark = b"" if data is None else data.strip()
            if mark == DONE and not self._ended:
                raise broken("the end mark before the end of the answer")
            if mark in (b"", DONE):
                return (Opaque(content=False, over=mark == DONE, wire=Wire(self.dialect, raw)),)
        assert data is not None
        found = parsed(data, "an event")
        if not isinstance(found, dict):
            raise broken("an event that is not a JSON object")
        return self._read(found, name, raw)

    def _not_an_event(self, raw: bytes) -> BackendError:
        """Lines that are no fields: an error that was to be a whole answer (Google says its own so, in a list), or
        somebody else's page."""
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        first = found[0] if isinstance(found, list) and found else found
        if isinstance(first, dict) and first.get("error"):
            return self._error(first)
        return broken("something that is not a stream of events")


def _cut_in_half(event: Event) -> bool:
    """Does it end in the first half of a surrogate pair?"""
    return isinstance(event, WORDS) and "\ud800" <= event.text[-1:] <= "\udbff"


def _completed(raw: bytes) -> bytes:
    """An event whose blank line was forgotten, with one: what we add behind it must not run into it."""
    return raw.rstrip(b"\r\n") + b"\n\n" if raw.strip() else raw


# --------------------------------------------------------------------------------------------- what a client is told


class Counts:
    """The tokens of one answer. Its input is what the first leg that told it has read: a next one reads what the client
    had by then as well, which nobody asked for."""

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first: Usage | None = None
        self._last: Usage | None = None

    def note(self, usage: Usage) -> None:
        self._last = usage

    def taken_over(self) -> None:
        """From here on another leg counts."""
        if self._first is None and self._last is not None and self._last.prompt_tokens > 0:
            self._first = self._last

    @property
    def total(self) -> Usage | None:
        """What is known by now, if anything is."""
        first, last = self._first, self._last
        if first is None or last is None:
            return last
        return replace(
            last,
            prompt_tokens=first.prompt_tokens,
            cached_tokens=first.cached_tokens,
            cache_written_tokens=first.cache_written_tokens,
        )


def whole_body(events: Iterable[Event], dialect: str) -> bytes | None:
    """The body of `dialect` that all of these events came out of, if there is one."""
    body: bytes | None = None
    for event in events:
        if isinstance(event, Opened | Degraded | Progress):
            continue
        wire = event.wire
        if wire is None or wire.dialect != dialect or (wire.data and body is not None):
            return None
        if body is None:
            if wire.data.lstrip()[:1] != b"{":  # a piece of a stream
                return None
            body = wire.data
    return body
