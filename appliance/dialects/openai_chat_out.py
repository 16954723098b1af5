"""What did a cloud of OpenAI's dialect answer?

Rules of this file:

1. The wires of all events, joined, are the bytes that came: the first event of a chunk carries them, the others none.
2. A chunk we have no word for is not an error: it is `Opaque`, and `content` says whether the client would see it.
3. What does not parse is an error: to skip it would lose characters. So is a page where a stream should be.
4. Only a `finish_reason` makes an end. `[DONE]` says nothing that we rely on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from appliance.core.chat import (
    BackendError,
    Event,
    Fault,
    Finish,
    FinishReason,
    Opaque,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
)
from appliance.core.sse import OverlongEvent, SseEvent, SseParser
from appliance.dialects.openai_errors import decode_stream_error

NAME = "openai"
DONE = b"[DONE]"
REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

_REST = Wire(NAME, b"")


class _Batch:
    """The events out of the same bytes, which the first of them carries."""

    __slots__ = ("_wire", "events")

    def __init__(self, raw: bytes) -> None:
        self.events: list[Event] = []
        self._wire = Wire(NAME, raw)

    def wire(self) -> Wire:
        """The wire of the next event."""
        wire, self._wire = self._wire, _REST
        return wire


# Keys of a delta or a message that we read. `reasoning_details` repeats `reasoning` with signatures (OpenRouter).
_READ = frozenset("role content refusal reasoning_content reasoning tool_calls reasoning_details name".split())
_NOTHING: tuple[object, ...] = (None, "", [], {}, False)


def broken(what: str) -> BackendError:
    return BackendError(Fault.BROKEN, f"The cloud sent {what}.")


class ChatDecoder:
    """A stream of chunks to events."""

    __slots__ = ("_calls", "_failure", "_finished", "_parser", "_seen", "_started")

    def __init__(self) -> None:
        self._parser = SseParser()
        self._failure: BackendError | None = None
        self._started = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._calls: dict[int, list[int]] = {}

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
        left = [event._replace(raw=_whole(event.raw)) for event in self._parser.close()]
        try:
            return self._events(left, raising=True)
        except BackendError as error:
            if self._seen and self._seen <= self._finished:
                return []
            if error.fault is not Fault.BROKEN:
                raise
            raise broken("half an event and then nothing more") from error

    def _events(self, found: Sequence[SseEvent], *, raising: bool = False) -> list[Event]:
        events: list[Event] = []
        for event in found:
            try:
                events += self._one(event)
            except BackendError as error:
                if raising or not events:
                    raise
                self._failure = error
                break
        return events

    def _one(self, event: SseEvent) -> Sequence[Event]:
        data = event.data
        if event.stray is not None:
            raise _not_an_event(event.raw)
        if data is None or not (data := data.strip()) or data == DONE:
            return (Opaque(content=False, wire=Wire(NAME, event.raw)),)
        try:
            chunk = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise broken("an event that is not JSON") from error
        if not isinstance(chunk, dict):
            raise broken("an event that is not a JSON object")
        if chunk.get("error") or chunk.get("object") == "error" or event.event == "error":
            raise decode_stream_error(chunk)
        return self._chunk(chunk, event.raw)

    def _chunk(self, chunk: dict[str, Any], raw: bytes) -> list[Event]:
        batch = _Batch(raw)
        choices = chunk.get("choices")
        # Azure's first chunk has neither a name nor a choice, only the verdict on the prompt.
        if not self._started and (choices or chunk.get("id")):
            self._started = True
            _started(chunk, batch)
        if choices is not None:
            if not isinstance(choices, list):
                raise broken("a chunk whose choices are no list")
            for choice in choices:
                self._choice(choice, batch)
        _usage(chunk.get("usage"), batch)
        if not batch.events:
            batch.events.append(Opaque(content=False, wire=batch.wire()))
        return batch.events

    def _choice(self, choice: Any, batch: _Batch) -> None:
        if not isinstance(choice, dict):
            raise broken("a choice that is no object")
        index = choice.get("index")
        if not isinstance(index, int):
            index = 0
        self._seen.add(index)
        delta = choice.get("delta")
        if delta is None:
            delta = choice.get("message") or {}
        if not isinstance(delta, dict):
            raise broken("a delta that is no object")
        calls = self._calls.setdefault(index, [])
        _spoken(delta, index, calls, batch)
        reason = choice.get("finish_reason")
        if reason is not None:
            _finish(reason, index, batch)
            self._finished.add(index)


def _whole(raw: bytes) -> bytes:
    """An event whose blank line was forgotten, with one: what we add behind it must not run into it."""
    return raw.rstrip(b"\r\n") + b"\n\n" if raw.strip() else raw


def _not_an_event(raw: bytes) -> BackendError:
    """Lines that are no fields: Google says its errors so, as bare JSON. Anything else is somebody else's page."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return broken("something that is not a stream of events")
    first = found[0] if isinstance(found, list) and found else found
    if isinstance(first, dict) and first.get("error"):
        return decode_stream_error(first)
    return broken("something that is not a stream of events")


def _started(body: dict[str, Any], batch: _Batch) -> None:
    named, model, created = body.get("id"), body.get("model"), body.get("created")
    batch.events.append(
        Started(
            id=named if isinstance(named, str) else "",
            model=model if isinstance(model, str) else "",
            created=created if isinstance(created, int) else 0,
            wire=batch.wire(),
        )
    )


def _spoken(said: dict[str, Any], choice: int, calls: list[int], batch: _Batch) -> None:
    """The content of a delta or a message, in the order in which a reader meets it."""
    unknown = False
    for key in ("reasoning_content", "reasoning"):
        thought = said.get(key)
        if thought and isinstance(thought, str):
            batch.events.append(ReasoningDelta(text=thought, choice=choice, wire=batch.wire()))
            break  # some clouds send both, with the same text
        unknown = unknown or thought not in _NOTHING
    text = said.get("content")
    if isinstance(text, str):
        if text:
            batch.events.append(TextDelta(text=text, choice=choice, wire=batch.wire()))
    elif isinstance(text, list):
        for part in text:
            unknown = _part(part, choice, batch) or unknown
    elif text not in _NOTHING:
        unknown = True
    refused = said.get("refusal")
    if refused and isinstance(refused, str):
        # Not text: nobody is to go on with it. Who knows no refusals is shown it as text.
        batch.events.append(Opaque(content=True, text=refused, wire=batch.wire()))
    elif refused not in _NOTHING:
        unknown = True
    fragments = said.get("tool_calls")
    if fragments:
        if not isinstance(fragments, list):
            raise broken("tool calls that are no list")
        for fragment in fragments:
            unknown = _call(fragment, choice, calls, batch) or unknown
    for key, value in said.items():
        if key not in _READ and value not in _NOTHING:
            unknown = True
    if unknown:
        batch.events.append(Opaque(content=True, wire=batch.wire()))


def _part(part: Any, choice: int, batch: _Batch) -> bool:
    """One of Mistral's parts, which thinks or says something. True if it is of a kind we have no word for."""
    match part:
        case {"type": "text", "text": str(text)}:
            batch.events.append(TextDelta(text=text, choice=choice, wire=batch.wire()))
        case {"type": "thinking", "thinking": [*thoughts]} if all(_is_text(thought) for thought in thoughts):
            text = "".join(thought["text"] for thought in thoughts)
            batch.events.append(ReasoningDelta(text=text, choice=choice, wire=batch.wire()))
        case _:
            return True
    return False


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _call(fragment: Any, choice: int, calls: list[int], batch: _Batch) -> bool:
    """One piece of a tool call. True if it is of a kind we have no word for."""
    if not isinstance(fragment, dict):
        raise broken("a tool call that is no object")
    if "custom" in fragment:
        return True  # its input is text, not arguments
    function = fragment.get("function") or {}
    if not isinstance(function, dict):
        raise broken("a tool call whose function is no object")
    named, name, arguments = fragment.get("id") or "", function.get("name") or "", function.get("arguments")
    index = fragment.get("index")
    if not isinstance(index, int):  # Gemini leaves it out: each fragment with an id or a name is then a call
        index = len(calls) if named or name or not calls else calls[-1]
    if index not in calls:
        calls.append(index)
        batch.events.append(ToolCallStart(index=index, id=str(named), name=str(name), choice=choice, wire=batch.wire()))
    if arguments:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        batch.events.append(ToolCallDelta(index=index, arguments=text, choice=choice, wire=batch.wire()))
    return False


def _finish(reason: Any, choice: int, batch: _Batch) -> None:
    if reason == "error":  # OpenRouter's word for an answer that died
        raise broken("a finish_reason that says the answer died")
    meant = REASONS.get(reason, "other") if isinstance(reason, str) else "other"
    batch.events.append(Finish(reason=meant, choice=choice, wire=batch.wire()))


def _usage(found: Any, batch: _Batch) -> None:
    if not isinstance(found, dict):
        return
    read, written = found.get("prompt_tokens_details"), found.get("completion_tokens_details")
    read = read if isinstance(read, dict) else {}
    written = written if isinstance(written, dict) else {}
    batch.events.append(
        Usage(
            prompt_tokens=_count(found.get("prompt_tokens")),
            completion_tokens=_count(found.get("completion_tokens")),
            cached_tokens=_count(read.get("cached_tokens") or found.get("prompt_cache_hit_tokens")),  # DeepSeek's
            cache_written_tokens=_count(read.get("cache_write_tokens")),
            reasoning_tokens=_count(written.get("reasoning_tokens")),
            wire=batch.wire(),
        )
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def decode_whole(body: bytes) -> list[Event]:
    """A whole answer to its events, the first with all the bytes as its wire."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise broken("an answer that is not JSON") from error
    first = found[0] if isinstance(found, list) and found else found
    if isinstance(first, dict) and (first.get("error") or first.get("object") == "error"):
        raise decode_stream_error(first)
    if not isinstance(found, dict):
        raise broken("an answer that is not a JSON object")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        raise broken("an answer without choices")
    batch = _Batch(body)
    _started(found, batch)
    for at, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise broken("an answer without a message")
        index = choice.get("index")
        index = index if isinstance(index, int) else at
        _spoken(message, index, [], batch)
        _finish(choice.get("finish_reason"), index, batch)
    _usage(found.get("usage"), batch)
    return batch.events
