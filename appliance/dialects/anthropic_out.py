"""What did a cloud of Anthropic's dialect answer?

Rules of this file:

1. The wires of all events, joined, are the bytes that came: the first event of a wire event carries them, the others
   none.
2. The `type` inside the JSON says what an event is. The name on its `event:` line counts only where there is none.
3. What we have no word for is not an error but `Opaque` or a block of the kind "other": types are added every month.
   What does not parse, or belongs to a block that nobody opened, is one: to skip it would lose characters.
4. Only a stop reason makes an end, or a `message_stop` of a cloud that gives no reasons. The bytes may then cease.
5. Clouds that imitate Anthropic may leave out what can be told without it: indices, pings, stops of blocks, counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from appliance.core.chat import (
    BackendError,
    BlockKind,
    BlockStart,
    BlockStop,
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
from appliance.dialects import fields
from appliance.dialects.anthropic_errors import NAME, decode_stream_error

KINDS: dict[str, BlockKind] = {"text": "text", "thinking": "reasoning", "tool_use": "tool_call"}
REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "other",
}
DONE = b"[DONE]"
"""OpenAI's end mark, which some imitators send here too."""

_REST = Wire(NAME, b"")


def broken(what: str) -> BackendError:
    return BackendError(Fault.BROKEN, f"The cloud sent {what}.")


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


class _Block:
    """A block that is open: its kind, which call it is, and the arguments that came with its start."""

    __slots__ = ("call", "given", "kind")

    def __init__(self, kind: BlockKind, call: int) -> None:
        self.kind = kind
        self.call = call
        self.given: str | None = None


class _Counts:
    """Token counts, which come in pieces and are all totals."""

    __slots__ = ("_cached", "_fresh", "_said", "_thought", "_written")

    def __init__(self) -> None:
        self._fresh = self._cached = self._written = self._said = self._thought = 0

    def add(self, found: Any, batch: _Batch) -> None:
        """The totals, `found` included. Zeros take back nothing: clouds say them where they do not know yet."""
        if not isinstance(found, dict):
            return
        fresh, cached = found.get("input_tokens"), found.get("cache_read_input_tokens")
        written = found.get("cache_creation_input_tokens")
        if _count(fresh) or _count(cached) or _count(written):
            self._fresh = self._fresh if fresh is None else _count(fresh)
            self._cached = self._cached if cached is None else _count(cached)
            self._written = self._written if written is None else _count(written)
        self._said = _count(found.get("output_tokens")) or self._said
        details = found.get("output_tokens_details")
        if isinstance(details, dict):
            self._thought = _count(details.get("thinking_tokens")) or self._thought
        batch.events.append(
            Usage(
                prompt_tokens=self._fresh + self._cached + self._written,
                completion_tokens=self._said,
                cached_tokens=self._cached,
                cache_written_tokens=self._written,
                reasoning_tokens=self._thought,
                wire=batch.wire(),
            )
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


class _Answer:
    """What is known of one answer: its open blocks, its calls, its counts, and whether it has ended."""

    __slots__ = ("_blocks", "_calls", "_counts", "_last", "_next", "_started", "finished")

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}  # the open ones
        self._calls = 0
        self._counts = _Counts()
        self._last = -1  # the block that began last
        self._next = 0
        self._started = False
        self.finished = False

    def delta(self, found: dict[str, Any], wire: Wire) -> Event:
        """The one event in a piece of a block."""
        index = found.get("index")
        block = self._blocks.get(index if isinstance(index, int) else self._last)
        delta = found.get("delta")
        if block is None:
            raise broken("a piece of a block that is not open")
        if not isinstance(delta, dict):
            raise broken("a piece of a block without a delta")
        said = delta.get("type")
        if said == "signature_delta":
            return Opaque(content=False, wire=wire)
        if block.kind != "other":
            if said == "text_delta":
                text = _text(delta, "text")
                return TextDelta(text=text, wire=wire) if text else Opaque(content=False, wire=wire)
            if said == "thinking_delta":
                text = _text(delta, "thinking")
                return ReasoningDelta(text=text, wire=wire) if text else Opaque(content=False, wire=wire)
            if said == "input_json_delta" and block.kind == "tool_call":
                text = _text(delta, "partial_json")
                if not text:
                    return Opaque(content=False, wire=wire)
                block.given = None
                return ToolCallDelta(index=block.call, arguments=text, wire=wire)
        shown = _text(delta, "text") if said == "text_delta" else ""
        return Opaque(content=True, closed=True, text=shown, wire=wire)

    def read(self, kind: str | None, found: dict[str, Any], batch: _Batch) -> None:
        """Any other event, of the type `kind`. None is made of those that say nothing."""
        if kind == "message_start":
            self.start(found.get("message"), batch)
        elif kind in ("content_block_start", "content_block_stop", "message_delta", "message_stop"):
            if not self._started:
                raise broken("a piece of an answer that did not begin")
            if kind == "content_block_start":
                index = found.get("index")
                self._open(index if isinstance(index, int) else self._next, found.get("content_block"), batch)
            elif kind == "content_block_stop":
                index = found.get("index")
                self._close(index if isinstance(index, int) else self._last, batch)
            elif kind == "message_delta":
                delta = found.get("delta")
                self._finish(delta if isinstance(delta, dict) else {}, batch)
                self._counts.add(found.get("usage"), batch)
            else:
                self._finish({}, batch, meant=True)

    def start(self, message: Any, batch: _Batch, *, whole: bool = False) -> None:
        """The beginning of an answer, or all of it."""
        if self._started:
            raise broken("a second beginning of the same answer")
        if not isinstance(message, dict):
            raise broken("a beginning without a message")
        self._started = True
        named, model = message.get("id"), message.get("model")
        batch.events.append(
            Started(
                id=named if isinstance(named, str) else "",
                model=model if isinstance(model, str) else "",
                created=0,
                wire=batch.wire(),
            )
        )
        # Blocks stand here when a tool on the cloud's side made them before the model spoke.
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            self._open(index, block, batch)
            self._close(index, batch)
        self._finish(message, batch, meant=whole)
        self._counts.add(message.get("usage"), batch)

    def _open(self, index: int, block: Any, batch: _Batch) -> None:
        if not isinstance(block, dict):
            raise broken("a block that is no object")
        kind = KINDS.get(block.get("type", ""), "other") if isinstance(block.get("type"), str) else "other"
        before = self._blocks.pop(index, None)  # a cloud that never says stop
        if before is not None:
            _arguments(before, batch, closed=False)
        self._last, self._next = index, index + 1
        opened = self._blocks[index] = _Block(kind, self._calls)
        events = batch.events
        events.append(BlockStart(index=index, kind=kind, wire=batch.wire()))
        if kind == "text":
            if text := _text(block, "text"):
                events.append(TextDelta(text=text, wire=batch.wire()))
            if block.get("citations"):
                events.append(Opaque(content=True, closed=True, wire=batch.wire()))
        elif kind == "reasoning":
            if text := _text(block, "thinking"):
                events.append(ReasoningDelta(text=text, wire=batch.wire()))
        elif kind == "tool_call":
            self._calls += 1
            opened.given = _text(block, "input") or "{}"
            named, name = block.get("id"), block.get("name")
            events.append(
                ToolCallStart(
                    index=opened.call,
                    id=named if isinstance(named, str) else "",
                    name=name if isinstance(name, str) else "",
                    wire=batch.wire(),
                )
            )

    def _close(self, index: int, batch: _Batch) -> None:
        block = self._blocks.pop(index, None)
        if block is not None:
            _arguments(block, batch, closed=True)
            batch.events.append(BlockStop(index=index, wire=batch.wire()))

    def _finish(self, said: dict[str, Any], batch: _Batch, *, meant: bool = False) -> None:
        """The end, if a reason is given, or if it is `meant` to be one. An answer ends once."""
        reason, stop = said.get("stop_reason"), said.get("stop_sequence")
        if self.finished or not (reason or meant):
            return
        self.finished = True
        for block in self._blocks.values():
            _arguments(block, batch, closed=False)
        unsaid: FinishReason = "tool_calls" if self._calls else "stop"
        why = REASONS.get(reason, "other") if isinstance(reason, str) and reason else unsaid
        batch.events.append(Finish(reason=why, stop=stop if isinstance(stop, str) else None, wire=batch.wire()))


def _text(owner: dict[str, Any], key: str) -> str:
    """A text that may be missing. Arguments may also stand there as the object they are."""
    text = owner.get(key)
    if isinstance(text, str):
        return text
    if isinstance(text, dict) and key in ("partial_json", "input"):
        return fields.compact(text).decode()
    if text is None:
        return ""
    raise broken(f"a {key} that is no text")


def _arguments(block: _Block, batch: _Batch, *, closed: bool) -> None:
    """Arguments that came with the start of a call, told when no pieces of them can follow. A call that was cut before
    its arguments has none; one that was closed without any has the empty object."""
    given, block.given = block.given, None
    if given is not None and (closed or given != "{}"):
        batch.events.append(ToolCallDelta(index=block.call, arguments=given, wire=batch.wire()))


class AnthropicDecoder:
    """A stream of events to events."""

    __slots__ = ("_answer", "_failure", "_parser")

    def __init__(self) -> None:
        self._parser = SseParser()
        self._failure: BackendError | None = None
        self._answer = _Answer()

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
            if any(event.event is not None and event.data is None for event in left):
                raise broken("the name of an event without the event")
            return self._events(left, raising=True)
        except BackendError as error:
            if self._answer.finished:
                return []
            if error.fault is not Fault.BROKEN:
                raise
            raise broken("half an event and then nothing more") from error

    def _events(self, found: Sequence[SseEvent], *, raising: bool = False) -> list[Event]:
        events: list[Event] = []
        for event in found:
            try:
                self._one(event, events)
            except BackendError as error:
                if raising or not events:
                    raise
                self._failure = error
                break
        return events

    def _one(self, event: SseEvent, events: list[Event]) -> None:
        raw, data, name, _, stray = event
        if stray is not None:
            raise _not_an_event(raw)
        if data is None or (data[:1] != b"{" and data.strip() in (b"", DONE)):
            events.append(Opaque(content=False, wire=Wire(NAME, raw)))
            return
        try:
            found = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise broken("an event that is not JSON") from error
        if not isinstance(found, dict):
            raise broken("an event that is not a JSON object")
        kind = found.get("type")
        if not isinstance(kind, str):
            kind = "error" if "error" in found else name
        if kind == "content_block_delta":  # nearly all of them
            events.append(self._answer.delta(found, Wire(NAME, raw)))
            return
        if kind == "error":
            raise decode_stream_error(found)
        batch = _Batch(raw)
        self._answer.read(kind, found, batch)
        events += batch.events or (Opaque(content=False, wire=batch.wire()),)


def _whole(raw: bytes) -> bytes:
    """An event whose blank line was forgotten, with one: what we add behind it must not run into it."""
    return raw.rstrip(b"\r\n") + b"\n\n" if raw.strip() else raw


def _not_an_event(raw: bytes) -> BackendError:
    """Lines that are no fields: an error that was to be a whole answer, or somebody else's page."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return broken("something that is not a stream of events")
    if isinstance(found, dict) and found.get("error"):
        return decode_stream_error(found)
    return broken("something that is not a stream of events")


def decode_whole(body: bytes) -> list[Event]:
    """A whole answer to its events, the first with all the bytes as its wire."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise broken("an answer that is not JSON") from error
    if not isinstance(found, dict):
        raise broken("an answer that is not a JSON object")
    if found.get("type") == "error" or found.get("error"):
        raise decode_stream_error(found)
    if not isinstance(found.get("content"), list):
        raise broken("an answer without content")
    batch = _Batch(body)
    _Answer().start(found, batch, whole=True)
    return batch.events
