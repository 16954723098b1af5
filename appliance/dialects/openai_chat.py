"""OpenAI's chat completions, both faces: what clients of it send and see, what clouds of it are sent and answer.

Rules of this file:

1. Bytes of this dialect go on as they came, until somebody else takes over. From then on every chunk is ours, under
   the id, the time and the model's name that the client has seen first; one in which there is something that we have no
   word for is the cloud's, under those names.
2. To the client it is one answer: one role, one `finish_reason` for each choice, one `[DONE]`.
3. Token counts go to who asked for them. Those we write go out at the end, behind every `finish_reason`. After a
   takeover the input is what the first leg said it was: that is what the client sent.
4. What has no place here but words of its own (another dialect's `Opaque.text`) is content. A call's arguments are
   JSON here even if there are none, and its id is one that every cloud takes back.
5. After an error nothing follows, and no end is pretended.
6. Who asked with the `functions` of 2023 hears of calls in their shape.
7. A call that the cloud left half written goes on under the number that the client knows it by, which is the cloud's;
   those that others begin behind it are counted on from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from appliance.core import sse
from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Event,
    Finish,
    Odds,
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
    fields,
    openai_chat_body,
    openai_chat_fold,
    openai_chat_functions,
    openai_chat_in,
    openai_chat_out,
    openai_errors,
)
from appliance.dialects.openai_chat_figures import logprobs, usage
from appliance.dialects.openai_chat_whole import NO_ARGUMENTS, called, encode_whole, identity, place, reason_of
from appliance.dialects.openai_errors import NAME
from appliance.dialects.stream import DONE, Counts

_NUMBERED = (b"id:", b"retry:")


class ChatEncoder:
    """Events to the chunks of one streamed answer."""

    content_type = "text/event-stream"

    def __init__(self, request: ChatRequest, *, id: str, created: int) -> None:
        self._id = id
        self._created = created
        self._model = request.model
        self._include_usage = request.include_usage
        self._old = openai_chat_functions.old(request.fields)
        self._opened: set[int] = set()  # choices whose role the client has
        self._finished: set[int] = set()
        self._started = False
        self._ours = False  # somebody took over: no wire passes any more
        self._passing = False  # the bytes of the last wire went on, so the events without bytes are in them
        self._calls: dict[tuple[int, int], bool] = {}  # by choice and index: has it arguments?
        self._nameless: set[tuple[int, int]] = set()  # those whose id the client has not heard of
        self._passed = b""  # the bytes of the last wire that went on
        self._starts: list[tuple[int, bytes]] = []  # the calls that passed: our number, and in which bytes they began
        self._numbers: dict[int, int] = {}  # the client's numbers of those, by ours, once others go on
        self._counts = Counts()
        self._counted = False  # the client has them
        self._done = False
        self._numbered = False  # the cloud gives its events ids

    def encode(self, events: Sequence[Event]) -> bytes:
        """The bytes for `events`, whole chunks only."""
        return b"".join(self._one(event, events, at) for at, event in enumerate(events))

    def keepalive(self) -> bytes:
        """A comment, which every reader of event streams skips; but the official SDK stumbles over one that stands by
        itself once there has been an `id:` line, and then gets a chunk that says nothing."""
        return self._delta(0, {}) if self._numbered else sse.comment("keep-alive")

    def close(self) -> bytes:
        """The token counts, if they are ours to say, and the end mark."""
        if self._done:
            return b""
        self._done = True
        counted, total = b"", self._counts.total
        if self._include_usage and total is not None and not self._counted:
            counted = self._chunk({"choices": [], "usage": usage(total)})
        return counted + sse.encode(DONE)

    def error(self, error: BackendError) -> bytes:
        """The error in the place of a chunk."""
        self._done = True
        return sse.encode(fields.compact(openai_errors.error_body(error)))

    def _one(self, event: Event, events: Sequence[Event], at: int) -> bytes:
        wire = event.wire
        if wire is None or wire.dialect != NAME:
            self._passing = False
        elif wire.data:
            self._passing, self._passed = not self._ours or _has_no_word(events, at), wire.data
        if not self._passing or wire is None:
            return self._made(event)
        self._note(event, wire.data)
        if self._ours:
            return self._adopted(wire.data) if wire.data else b""
        if wire.data and (wire.data.startswith(_NUMBERED) or b"\nid:" in wire.data or b"\nretry:" in wire.data):
            self._numbered = True
        return wire.data

    def _note(self, event: Event, data: bytes) -> None:
        """What the client learns from a wire that goes on."""
        if self._nameless and data and _names_a_call(data):
            self._nameless.clear()  # late, as some clouds do
        if isinstance(event, Started):
            if not self._started:
                self._begin(event)
        elif isinstance(event, Finish):
            self._finished.add(event.choice)
        elif isinstance(event, Usage):
            self._counts.note(event)
            self._counted = not self._ours
        elif isinstance(event, ToolCallStart):
            self._calls[event.choice, event.index] = False
            if not event.id:
                self._nameless.add((event.choice, event.index))
            if event.choice == 0:
                self._starts.append((event.index, self._passed))
        elif isinstance(event, ToolCallDelta):
            self._calls[event.choice, event.index] = True
        elif isinstance(event, Opaque):
            self._done = self._done or _is_done(data)
            return
        self._opened.add(getattr(event, "choice", 0))

    def _begin(self, started: Started) -> None:
        self._started = True
        self._id = started.id or self._id
        self._model = started.model or self._model
        self._created = started.created or self._created

    def _made(self, event: Event) -> bytes:
        match event:
            case Started():
                if self._started:
                    return b""
                self._begin(event)
                return self._delta(0, {"content": ""})
            case TextDelta():
                if not event.text and not event.odds:
                    return b""
                return self._delta(event.choice, {"content": event.text}, odds=event.odds)
            case ReasoningDelta():
                return self._delta(event.choice, {"reasoning_content": event.text}) if event.text else b""
            case ToolCallStart():
                self._calls[event.choice, event.index] = False
                if self._old:
                    return self._in_old_shape(event.choice, event.index, openai_chat_functions.begun(event))
                call = {"index": self._number(event.index), **called(event, self._id)}
                return self._delta(event.choice, {"tool_calls": [call]})
            case ToolCallDelta():
                said = self._named(event) if event.name else b""
                return said + (self._arguments(event.choice, event.index, event.arguments) if event.arguments else b"")
            case Finish():
                return self._end(event)
            case Usage():
                self._counts.note(event)
                return b""
            case Takeover():
                return self._taken(event)
            case Opaque():
                return self._delta(0, {place(event): event.text}) if event.text else b""
            case Degraded():
                return self._remark(f"appliance degraded {event.what}")
            case Opened() | Progress() | BlockStart() | BlockStop():
                return b""

    def _remark(self, text: str) -> bytes:
        """A comment of ours, where it does no harm."""
        return b"" if self._numbered else sse.comment(text)

    def _taken(self, event: Takeover) -> bytes:
        # Before anything has begun the next leg is simply the first, and its own bytes may pass.
        if self._started:
            self._ours = True
            self._numbers |= _numbers(self._starts)
            self._starts.clear()
            self._counts.taken_over()
            self._counted = False
        return self._remark(
            f"appliance takeover {event.source}->{event.target} after={event.after} reason={event.reason}"
        )

    def _end(self, event: Finish) -> bytes:
        if event.choice in self._finished:
            return b""
        self._finished.add(event.choice)
        calls = [index for choice, index in self._calls if choice == event.choice]
        reason = reason_of(event, calls=bool(calls))
        # A call without arguments is "{}" here, and silence elsewhere.
        bare = [index for index in calls if not self._calls[event.choice, index] and reason == "tool_calls"]
        owed = b"".join(self._arguments(event.choice, index, NO_ARGUMENTS) for index in bare)
        if self._old and reason == "tool_calls":
            reason = openai_chat_functions.CALLED
        return owed + self._delta(event.choice, {}, reason)

    def _arguments(self, choice: int, index: int, text: str) -> bytes:
        self._calls[choice, index] = True
        if self._old:
            return self._in_old_shape(choice, index, openai_chat_functions.more(text))
        call: dict[str, Any] = {"index": self._number(index), "function": {"arguments": text}}
        if (choice, index) in self._nameless:  # the cloud did not come to it
            self._nameless.discard((choice, index))
            call = {**call, "id": identity("", self._id, choice, index), "type": "function"}
        return self._delta(choice, {"tool_calls": [call]})

    def _named(self, event: ToolCallDelta) -> bytes:
        """More of the name, of a cloud that says it in pieces."""
        if self._old:
            return self._in_old_shape(event.choice, event.index, {openai_chat_functions.CALLED: {"name": event.name}})
        call = {"index": self._number(event.index), "function": {"name": event.name}}
        return self._delta(event.choice, {"tool_calls": [call]})

    def _in_old_shape(self, choice: int, index: int, delta: dict[str, Any]) -> bytes:
        """Of a call that has a place there: of several only the first has one."""
        first = next(index for owner, index in self._calls if owner == choice)
        return self._delta(choice, delta) if index == first else b""

    def _number(self, index: int) -> int:
        """The number by which the client knows our call `index`, or is to know it."""
        if index in self._numbers or not self._numbers:
            return self._numbers.get(index, index)
        return index + max(0, max(self._numbers.values()) - max(self._numbers))

    def _adopted(self, data: bytes) -> bytes:
        """A chunk of a later leg under the names of the first, without its counts."""
        found = sse.SseParser().feed(data)
        chunk = json.loads(found[0].data or b"null")
        for choice in chunk.get("choices") or ():
            (choice.get("delta") or {}).pop("role", None)
        named = {"id": self._id, "created": self._created, "model": self._model}
        counts = {"usage": None} if "usage" in chunk else {}
        return sse.encode(fields.compact({**chunk, **named, **counts}))

    def _delta(self, choice: int, delta: dict[str, Any], reason: str | None = None, odds: Sequence[Odds] = ()) -> bytes:
        if choice not in self._opened:
            self._opened.add(choice)
            delta = {"role": "assistant", **delta}
        said = {"index": choice, "delta": delta, "logprobs": logprobs(odds), "finish_reason": reason}
        counts: dict[str, Any] = {"usage": None} if self._include_usage else {}
        return self._chunk({"choices": [said], **counts})

    def _chunk(self, rest: dict[str, Any]) -> bytes:
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }
        return sse.encode(fields.compact({**head, **rest}))


def _has_no_word(events: Sequence[Event], at: int) -> bool:
    """Is there something of the answer, in the chunk that begins with event `at`, that we cannot say ourselves?"""
    begin = at
    while at < len(events):
        event = events[at]
        if at > begin and (event.wire is None or event.wire.data):
            return False
        if isinstance(event, Opaque) and event.content:
            return True
        at += 1
    return False


def _names_a_call(data: bytes) -> bool:
    for event in sse.SseParser().feed(data):
        match json.loads(event.data or b"null"):
            case {"choices": [{"delta": {"tool_calls": [*calls]}}]}:
                return any(call.get("id") for call in calls)
    return False


def _is_done(data: bytes) -> bool:
    return DONE in data and data.removeprefix(b"data:").strip() == DONE


def _numbers(starts: Sequence[tuple[int, bytes]]) -> dict[int, int]:
    """The numbers that a cloud gave to the calls it began, by ours: some count from 1, or along with the text. What it
    did not number, and what cannot be told for sure, keeps ours."""
    numbers: dict[int, int] = {}
    for data, run in groupby(starts, key=itemgetter(1)):
        ours = [index for index, _ in run]
        chunk = next((json.loads(event.data) for event in sse.SseParser().feed(data) if event.data is not None), None)
        match chunk:
            case {"choices": [{"delta": {"tool_calls": [*calls]}}]}:
                theirs = [call.get("index") for call in calls if (call.get("function") or {}).get("name")]
                if len(theirs) == len(ours):
                    numbers |= {at: said for at, said in zip(ours, theirs, strict=True) if isinstance(said, int)}
    return numbers


# --------------------------------------------------------------------------------------------------- the seam


class OpenAIChat:
    """The dialect as one value; see `Dialect`."""

    name = NAME
    id_prefix = "chatcmpl-"
    path = "chat/completions"
    models_path = "models"
    key_header = "authorization"
    said_anyway: Headers = ()

    def parse(self, body: bytes, headers: Headers = ()) -> ChatRequest:
        return openai_chat_in.parse(body, headers)

    def encoder(self, request: ChatRequest, *, id: str, created: int) -> StreamEncoder:
        return ChatEncoder(request, id=id, created=created)

    def encode_whole(self, request: ChatRequest, events: Sequence[Event], *, id: str, created: int) -> bytes:
        return encode_whole(request, events, id=id, created=created)

    def encode_error(self, error: BackendError, *, id: str = "") -> Reply:
        return openai_errors.encode_error(error)

    def objection(self, request: ChatRequest) -> str | None:
        return openai_chat_body.objection(request)

    def losses(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> tuple[str, ...]:
        return openai_chat_body.losses(request, model, quirks)

    def render(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> bytes:
        return openai_chat_body.render(request, model, quirks)

    def decoder(self) -> StreamDecoder:
        return openai_chat_out.ChatDecoder()

    def fold(self, choices: int = 1) -> Fold:
        return openai_chat_fold.fold(choices)

    def decode_whole(self, body: bytes) -> list[Event]:
        return openai_chat_out.decode_whole(body)

    def decode_error(self, status: int, headers: Headers, body: bytes) -> BackendError:
        return openai_errors.decode_error(status, headers, body)


OPENAI = OpenAIChat()
