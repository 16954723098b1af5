"""What did a cloud of Anthropic's dialect answer?

Rules of this file, besides those of `stream`:

1. The `type` inside the JSON says what an event is. The name on its `event:` line counts only where there is none.
2. What we have no word for is not an error but `Opaque` or a block of the kind "other": types are added every month.
   What belongs to a block that nobody opened is one: to skip it would lose characters.
3. Only a stop reason makes an end, or a `message_stop` of a cloud that gives no reasons. The bytes may then cease.
4. Clouds that imitate Anthropic may leave out what can be told without it: indices, pings, stops of blocks, counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.core.events import (
    BlockKind,
    BlockStart,
    BlockStop,
    Event,
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
from appliance.core.fault import BackendError
from appliance.dialects import fields
from appliance.dialects.anthropic_errors import NAME, decode_stream_error
from appliance.dialects.stream import Batch, SseDecoder, broken, count, parsed

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

    def add(self, found: Any, batch: Batch) -> None:
        """The totals, `found` included. Zeros take back nothing: clouds say them where they do not know yet."""
        if not isinstance(found, dict):
            return
        fresh, cached = found.get("input_tokens"), found.get("cache_read_input_tokens")
        written = found.get("cache_creation_input_tokens")
        if count(fresh) or count(cached) or count(written):
            self._fresh = self._fresh if fresh is None else count(fresh)
            self._cached = self._cached if cached is None else count(cached)
            self._written = self._written if written is None else count(written)
        self._said = count(found.get("output_tokens")) or self._said
        details = found.get("output_tokens_details")
        if isinstance(details, dict):
            self._thought = count(details.get("thinking_tokens")) or self._thought
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

    def read(self, kind: str | None, found: dict[str, Any], batch: Batch) -> None:
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
                if not self.finished:
                    raise broken("an end without a reason to stop")
                batch.events.append(Opaque(content=False, over=True, wire=batch.wire()))

    def start(self, message: Any, batch: Batch, *, whole: bool = False) -> None:
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

    def _open(self, index: int, block: Any, batch: Batch) -> None:
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

    def _close(self, index: int, batch: Batch) -> None:
        block = self._blocks.pop(index, None)
        if block is not None:
            _arguments(block, batch, closed=True)
            batch.events.append(BlockStop(index=index, wire=batch.wire()))

    def _finish(self, said: dict[str, Any], batch: Batch, *, meant: bool = False) -> None:
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


def _arguments(block: _Block, batch: Batch, *, closed: bool) -> None:
    """Arguments that came with the start of a call, told when no pieces of them can follow. A call that was cut before
    its arguments has none; one that was closed without any has the empty object."""
    given, block.given = block.given, None
    if given is not None and (closed or given != "{}"):
        batch.events.append(ToolCallDelta(index=block.call, arguments=given, wire=batch.wire()))


class AnthropicDecoder(SseDecoder):
    """A stream of events to events."""

    __slots__ = ("_answer",)

    dialect = NAME

    def __init__(self) -> None:
        super().__init__()
        self._answer = _Answer()

    @property
    def _ended(self) -> bool:
        return self._answer.finished

    def _error(self, found: dict[str, Any]) -> BackendError:
        return decode_stream_error(found)

    def _read(self, found: dict[str, Any], name: str | None, raw: bytes) -> Sequence[Event]:
        kind = found.get("type")
        if not isinstance(kind, str):
            kind = "error" if "error" in found else name
        if kind == "content_block_delta":  # nearly all of them
            return (self._answer.delta(found, Wire(NAME, raw)),)
        if kind == "error":
            raise decode_stream_error(found)
        batch = Batch(NAME, raw)
        self._answer.read(kind, found, batch)
        return batch.events or (Opaque(content=False, wire=batch.wire()),)


def decode_whole(body: bytes) -> list[Event]:
    """A whole answer to its events, the first with all the bytes as its wire."""
    found = parsed(body, "an answer")
    if not isinstance(found, dict):
        raise broken("an answer that is not a JSON object")
    if found.get("type") == "error" or found.get("error"):
        raise decode_stream_error(found)
    if not isinstance(found.get("content"), list):
        raise broken("an answer without content")
    batch = Batch(NAME, body)
    _Answer().start(found, batch, whole=True)
    return batch.events
