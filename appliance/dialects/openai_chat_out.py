"""What did a cloud of OpenAI's dialect answer?

Rules of this file, besides those of `stream`:

1. A chunk we have no word for is not an error: it is `Opaque`, and `content` says whether the client would see it.
2. Only a `finish_reason` makes an end, and not every one does: some say that the answer died. `[DONE]` neither makes
   an end nor is missed.
3. Calls are counted by us. Their numbers on the wire may be missing, or the same for several. The one call of the old
   `function_call` is a call like others.
"""

from __future__ import annotations

import json
from typing import Any

from appliance.core.events import (
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
)
from appliance.core.fault import BackendError
from appliance.dialects.openai_chat_functions import CALLED
from appliance.dialects.openai_errors import NAME, decode_stream_error
from appliance.dialects.stream import Batch, SseDecoder, broken, count, parsed

OLD = -1
"""The number of a call that has none because there can be only one."""
REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # Z.ai's
    "model_context_window_exceeded": "length",  # Z.ai's too
}
DIED = ("error", "insufficient_system_resource", "network_error", "abort", "aborted")
"""No ends: so OpenRouter, DeepSeek, Z.ai and vLLM say that an answer died."""

# Keys of a delta or a message that we read. `reasoning_details` repeats `reasoning` with signatures (OpenRouter).
_READ = frozenset(
    "role content refusal reasoning_content reasoning tool_calls function_call reasoning_details name".split()
)
_NOTHING: tuple[object, ...] = (None, "", [], {}, False)


class Calls:
    """The calls of one choice. A cloud's number for a call is not ours: Gemini gives each of several the same."""

    __slots__ = ("_ids", "_meant", "_names")

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._names: list[str] = []
        self._meant: dict[int, int] = {}  # which of them the cloud's number means by now

    def place(self, number: Any, identity: str, name: str) -> tuple[int, bool]:
        """Which call a piece belongs to, and whether it begins there."""
        if isinstance(number, int):
            at = self._meant.get(number, -1)
            # A new id alone begins nothing: there are servers that make one up for every piece.
            begins = at < 0 or bool(name and identity and self._ids[at] and identity != self._ids[at])
        else:  # left out: each piece with an id or a name is then a call
            at = len(self._ids) - 1
            begins = at < 0 or bool(identity or name)
        if begins:
            at = len(self._ids)
            self._ids.append(identity)
            self._names.append(name)
        if isinstance(number, int):
            self._meant[number] = at
        return at, begins

    def more(self, at: int, name: str) -> str:
        """What is new of the name of a call that has begun: some say it again in every piece, some say it in pieces."""
        if name == self._names[at]:
            return ""
        self._names[at] += name
        return name


class ChatDecoder(SseDecoder):
    """A stream of chunks to events."""

    __slots__ = ("_calls", "_finished", "_seen", "_started")

    dialect = NAME

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._calls: dict[int, Calls] = {}

    @property
    def _ended(self) -> bool:
        return bool(self._seen) and self._seen <= self._finished

    def _error(self, found: dict[str, Any]) -> BackendError:
        return decode_stream_error(found)

    def _read(self, found: dict[str, Any], name: str | None, raw: bytes) -> list[Event]:
        if found.get("error") or found.get("object") == "error" or name == "error":
            raise decode_stream_error(found)
        batch = Batch(NAME, raw)
        choices = found.get("choices")
        # Azure's first chunk has neither a name nor a choice, only the verdict on the prompt.
        if not self._started and (choices or found.get("id")):
            self._started = True
            _started(found, batch)
        if choices is not None:
            if not isinstance(choices, list):
                raise broken("a chunk whose choices are no list")
            for choice in choices:
                self._choice(choice, batch)
        _usage(found.get("usage"), batch)
        if not batch.events:
            batch.events.append(Opaque(content=False, wire=batch.wire()))
        return batch.events

    def _choice(self, choice: Any, batch: Batch) -> None:
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
        if (calls := self._calls.get(index)) is None:
            calls = self._calls[index] = Calls()
        _spoken(delta, index, calls, batch)
        if _finish(choice.get("finish_reason"), index, batch):
            self._finished.add(index)


def _started(body: dict[str, Any], batch: Batch) -> None:
    named, model, created = body.get("id"), body.get("model"), body.get("created")
    batch.events.append(
        Started(
            id=named if isinstance(named, str) else "",
            model=model if isinstance(model, str) else "",
            created=created if isinstance(created, int) else 0,
            wire=batch.wire(),
        )
    )


def _spoken(said: dict[str, Any], choice: int, calls: Calls, batch: Batch) -> None:
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
    if (old := said.get(CALLED)) not in _NOTHING:
        unknown = _call({"index": OLD, "function": old}, choice, calls, batch) or unknown
    for key, value in said.items():
        if key not in _READ and value not in _NOTHING:
            unknown = True
    if unknown:
        batch.events.append(Opaque(content=True, wire=batch.wire()))


def _part(part: Any, choice: int, batch: Batch) -> bool:
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


def _call(fragment: Any, choice: int, calls: Calls, batch: Batch) -> bool:
    """One piece of a tool call. True if it is of a kind we have no word for."""
    if not isinstance(fragment, dict):
        raise broken("a tool call that is no object")
    if "custom" in fragment:
        return True  # its input is text, not arguments
    function = fragment.get("function") or {}
    if not isinstance(function, dict):
        raise broken("a tool call whose function is no object")
    named, name = str(fragment.get("id") or ""), str(function.get("name") or "")
    arguments, more = function.get("arguments"), ""
    index, begins = calls.place(fragment.get("index"), named, name)
    if begins:
        batch.events.append(ToolCallStart(index=index, id=named, name=name, choice=choice, wire=batch.wire()))
    elif name:
        more = calls.more(index, name)
    if arguments or more:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        delta = ToolCallDelta(index=index, arguments=text, choice=choice, name=more, wire=batch.wire())
        batch.events.append(delta)
    return False


def _finish(reason: Any, choice: int, batch: Batch) -> bool:
    """Is it one? Some clouds say an empty reason in every chunk."""
    if not reason:
        return False
    if reason in DIED:
        raise broken("a finish_reason that says the answer died")
    meant = REASONS.get(reason, "other") if isinstance(reason, str) else "other"
    batch.events.append(Finish(reason=meant, choice=choice, wire=batch.wire()))
    return True


def _usage(found: Any, batch: Batch) -> None:
    if not isinstance(found, dict):
        return
    read, written = found.get("prompt_tokens_details"), found.get("completion_tokens_details")
    read = read if isinstance(read, dict) else {}
    written = written if isinstance(written, dict) else {}
    batch.events.append(
        Usage(
            prompt_tokens=count(found.get("prompt_tokens")),
            completion_tokens=count(found.get("completion_tokens")),
            cached_tokens=count(read.get("cached_tokens") or found.get("prompt_cache_hit_tokens")),  # DeepSeek's
            cache_written_tokens=count(read.get("cache_write_tokens")),
            reasoning_tokens=count(written.get("reasoning_tokens")),
            wire=batch.wire(),
        )
    )


def decode_whole(body: bytes) -> list[Event]:
    """A whole answer to its events, the first with all the bytes as its wire."""
    found = parsed(body, "an answer")
    first = found[0] if isinstance(found, list) and found else found
    if isinstance(first, dict) and (first.get("error") or first.get("object") == "error"):
        raise decode_stream_error(first)
    if not isinstance(found, dict):
        raise broken("an answer that is not a JSON object")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        raise broken("an answer without choices")
    batch = Batch(NAME, body)
    _started(found, batch)
    for at, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            raise broken("an answer without a message")
        index = choice.get("index")
        index = index if isinstance(index, int) else at
        _spoken(message, index, Calls(), batch)
        _finish(choice.get("finish_reason"), index, batch)
    _usage(found.get("usage"), batch)
    return batch.events
