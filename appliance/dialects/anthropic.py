"""Anthropic's messages, both faces: what clients of it send and see, what clouds of it are sent and answer.

Rules of this file:

1. Bytes of this dialect go on as they came, until somebody else takes over. From then on every event is ours, under
   the id and the model's name that the client has seen first.
2. To the client it is one answer: one `message_start`, blocks without a gap, one `message_delta`, one `message_stop`.
3. Why it ended and what it cost is said when the answer has really ended: both are one event here, and clouds of
   other dialects send the count after the reason.
4. After an error nothing follows, and no end is pretended.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from appliance.core import sse
from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    Opaque,
    Opened,
    Progress,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError, Reply
from appliance.core.seams import PLAIN, Fold, Quirks, StreamDecoder, StreamEncoder
from appliance.dialects import (
    anthropic_body,
    anthropic_errors,
    anthropic_fold,
    anthropic_in,
    anthropic_out,
    anthropic_whole,
    fields,
)
from appliance.dialects.anthropic_blocks import Blocks
from appliance.dialects.anthropic_errors import NAME
from appliance.dialects.anthropic_whole import counted, message, stopped
from appliance.dialects.stream import Counts

_PING = sse.encode(b'{"type":"ping"}', "ping")
_STOP = sse.encode(b'{"type":"message_stop"}', "message_stop")
# Inside a string of JSON the second quotation mark would have a backslash before it.
_IS_DELTA = b'"message_delta"'
_IS_STOP = b'"message_stop"'
_IS_SIGNATURE = b'"signature_delta"'


class MessagesEncoder:
    """Events to the events of one streamed message."""

    content_type = "text/event-stream"

    def __init__(self, request: ChatRequest, *, id: str) -> None:
        self._request = request
        self._id = id
        self._blocks = Blocks()
        self._counts = Counts()
        self._begun = False  # the client has its `message_start`
        self._ours = False  # no wire passes any more
        self._passing = False  # the bytes of the last wire went on, so the events without bytes are in them
        self._passed = b""  # those bytes
        self._finish: Finish | None = None
        self._told = False  # a cloud's own `message_delta` went on, so the client knows why it ended
        self._stopped = False  # its own `message_stop` went on too
        self._over = False

    def encode(self, events: Sequence[Event]) -> bytes:
        """The bytes for `events`, whole events only."""
        if self._over:
            return b""
        if not self._begun:
            self._look_ahead(events)
        return b"".join([self._one(event) for event in events])

    def keepalive(self) -> bytes:
        """A ping, which clients of this dialect expect anywhere."""
        return b"" if self._over or self._stopped else _PING

    def close(self) -> bytes:
        """Why it ended, the token counts and the end mark, as far as no cloud said them."""
        if self._over:
            return b""
        self._over = True
        if self._stopped or self._told:
            return b"" if self._stopped else _STOP
        said = self._blocks.end()
        begun = b"" if self._begun else self._begin(None)
        delta = stopped(self._finish, called=self._blocks.called)
        last = {"type": "message_delta", "delta": delta, "usage": counted(self._counts.total)}
        return begun + said + sse.encode(fields.compact(last), "message_delta") + _STOP

    def error(self, error: BackendError) -> bytes:
        """The error as the last event."""
        self._over = True
        return sse.encode(fields.compact(anthropic_errors.error_body(error)), "error")

    def _look_ahead(self, events: Sequence[Event]) -> None:
        """`message_start` says how long the input was; who knows it says so right behind `Started`."""
        for event, beside in itertools.pairwise(events):
            if isinstance(event, Started) and isinstance(beside, Usage):
                self._counts.note(beside)

    def _one(self, event: Event) -> bytes:
        wire = event.wire
        if wire is None or wire.dialect != NAME:
            self._passing = False
        elif wire.data:
            self._passing, self._passed = not self._ours, wire.data
        if self._passing and wire is not None:
            self._note(event, self._passed)
            return wire.data
        return self._made(event)

    def _note(self, event: Event, data: bytes) -> None:
        """What the client learns from a wire that goes on untouched; `data` are all its bytes."""
        match event:
            case TextDelta() | ReasoningDelta():
                pass
            case ToolCallDelta():
                self._blocks.saw_arguments(event.index, event.arguments)
            case Opaque():
                if event.content:
                    return
                if _IS_STOP in data:
                    self._stopped = True
                elif _IS_SIGNATURE in data:
                    self._blocks.saw_signature()
            case BlockStart():
                self._blocks.saw_start(event.index, event.kind)
                if event.kind == "other":
                    self._blocks.saw_other(_said(data).get("content_block"))
            case BlockStop():
                self._blocks.saw_stop(event.index)
            case ToolCallStart():
                self._blocks.saw_call(event.index, event.id)
            case Started():
                self._begun = True
                self._id = event.id or self._id
            case Usage():
                self._counts.note(event)
            case Finish():
                # Some clouds never say why, and the mark is all there is.
                self._stopped = _IS_STOP in data and _IS_DELTA not in data
                self._told = not self._stopped
            case _:
                pass

    def _made(self, event: Event) -> bytes:
        if self._told or self._stopped:
            return b""
        match event:
            case Started():
                return b"" if self._begun else self._begin(event)
            case Usage():
                self._counts.note(event)
                return b""
            case Finish():
                if event.choice != 0:
                    return b""
                self._finish = self._finish or event
                return self._blocks.end()
            case Takeover():
                return self._taken(event)
            case Degraded():
                return sse.comment(f"appliance degraded {event.what}")
            case Opened() | Progress():
                return b""
            case _:
                said = self._content(event)
                return self._begin(None) + said if said and not self._begun else said

    def _content(
        self, event: TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | BlockStart | BlockStop | Opaque
    ) -> bytes:
        match event:
            case TextDelta():
                return self._blocks.speak("text", event.text) if event.text and event.choice == 0 else b""
            case ReasoningDelta():
                return self._blocks.speak("reasoning", event.text) if event.text and event.choice == 0 else b""
            case ToolCallDelta():
                if event.choice != 0:
                    return b""
                self._blocks.name(event.index, event.name)
                return self._blocks.arguments(event.index, event.arguments)
            case ToolCallStart():
                if event.choice != 0:
                    return b""
                return self._blocks.call(event.index, event.id, event.name, answer=self._id)
            case BlockStart():
                begun = self._blocks.begin(event.index, event.kind)
                return begun + self._adopted(event) if event.kind == "other" else begun
            case BlockStop():
                return self._blocks.finish(event.index)
            case Opaque():
                if event.wire is not None and event.wire.dialect == NAME:
                    return self._adopted(event)
                return self._blocks.speak("text", event.text) if event.text else b""

    def _begin(self, started: Started | None) -> bytes:
        self._begun = self._ours = True
        opened = message(started, self._request, id=self._id, usage=self._counts.total)
        self._id = opened["id"]
        return sse.encode(fields.compact({"type": "message_start", "message": opened}), "message_start")

    def _taken(self, event: Takeover) -> bytes:
        if self._begun:
            self._ours = True
            self._counts.taken_over()
            closed = self._blocks.taken_over()
        else:  # the next leg is simply the first, and its own bytes may pass
            closed = b""
        told = f"appliance takeover {event.source}->{event.target} after={event.after} reason={event.reason}"
        return closed + sse.comment(told)

    def _adopted(self, event: BlockStart | Opaque) -> bytes:
        """What a later leg says of a block and we have no word for, under the number the block has here."""
        data = b"" if event.wire is None or event.wire.dialect != NAME else event.wire.data
        if not data or (isinstance(event, Opaque) and not event.content and _IS_SIGNATURE not in data):
            return b""
        said, own = _said(data), self._blocks
        return own.adopt_start(said) if isinstance(event, BlockStart) else own.adopt_piece(said)


def _said(data: bytes) -> dict[str, Any]:
    """What a cloud's event says."""
    parser = sse.SseParser()
    for found in (*parser.feed(data), *parser.close()):
        said = json.loads(found.data or b"null")
        if isinstance(said, dict):
            return said
    return {}


class Anthropic:
    """The dialect as one value; see `Dialect`."""

    name = NAME
    id_prefix = "msg_"
    path = "v1/messages"
    models_path = "v1/models"
    key_header = "x-api-key"
    said_anyway: Headers = (("anthropic-version", "2023-06-01"),)

    def parse(self, body: bytes, headers: Headers = ()) -> ChatRequest:
        return anthropic_in.parse(body, headers)

    def encoder(self, request: ChatRequest, *, id: str, created: int) -> StreamEncoder:
        return MessagesEncoder(request, id=id)  # nothing in this dialect says when

    def encode_whole(self, request: ChatRequest, events: Sequence[Event], *, id: str, created: int) -> bytes:
        return anthropic_whole.encode_whole(request, events, id=id)

    def encode_error(self, error: BackendError, *, id: str = "") -> Reply:
        return anthropic_errors.encode_error(error, id=id)

    def objection(self, request: ChatRequest) -> str | None:
        return anthropic_body.objection(request)

    def losses(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> tuple[str, ...]:
        return anthropic_body.losses(request, model, quirks)

    def render(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> bytes:
        return anthropic_body.render(request, model, quirks)

    def decoder(self) -> StreamDecoder:
        return anthropic_out.AnthropicDecoder()

    def fold(self, choices: int = 1) -> Fold:
        return anthropic_fold.fold(choices)

    def decode_whole(self, body: bytes) -> list[Event]:
        return anthropic_out.decode_whole(body)

    def decode_error(self, status: int, headers: Headers, body: bytes) -> BackendError:
        return anthropic_errors.decode_error(status, headers, body)


ANTHROPIC = Anthropic()
