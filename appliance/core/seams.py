"""The seams: what is asked of whoever answers, and of whoever knows a wire format.

`Backend` is the far side of the relay. `Dialect` has two faces: parse and encode for clients, render and decode for
clouds; they are inverse, and tested so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.core.chat import ChatRequest, Headers
from appliance.core.events import Event, Progress
from appliance.core.fault import BackendError, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """In what a cloud differs from the pure form of its dialect. Patterns are of model names, as the cloud knows them.

    ``new_limit``: models that take `max_completion_tokens` instead of `max_tokens` (OpenAI's reasoning models).
    ``effort``: models that can be told how much to think; the others would refuse the field.
    ``unthinking_tools``: models that take function tools only when told not to think at all.
    ``reasoning_back``: models that refuse a turn with tool calls which comes back without what was thought before them.
    ``short_ids``: tool-call ids must be nine letters or digits (Mistral).
    ``stream_usage``: may token counts be asked for in a stream?
    ``user_after_tool``: may the user speak right behind a tool's result? (Mistral lets nobody but the assistant.)
    ``signed_thinking``: while the model is to think, a call that is being answered must stand behind thinking that the
    cloud has signed. Its calls have ids that begin with "toolu_".
    """

    new_limit: tuple[str, ...] = ()
    effort: tuple[str, ...] = ()
    unthinking_tools: tuple[str, ...] = ()
    reasoning_back: tuple[str, ...] = ()
    short_ids: bool = False
    stream_usage: bool = True
    user_after_tool: bool = True
    signed_thinking: bool = False


PLAIN = Quirks()


class Backend(Protocol):
    """Whoever answers. One method; events come in batches, one batch per read, and `BackendError` ends them."""

    name: str

    def stream(self, request: ChatRequest, model: str) -> AsyncIterator[Sequence[Event]]:
        """Answer `request` as `model` (the alias already resolved). Closing the iterator stops the work at once."""
        ...


class StreamDecoder(Protocol):
    def feed(self, data: bytes) -> list[Event]:
        """Bytes, cut anywhere, to the events that are complete. Raises `BackendError` (BROKEN) for what does not
        parse, but only after the events before it were returned: the error then comes with the next call."""
        ...

    def close(self) -> list[Event]:
        """No more bytes will come. Raises `BackendError` if an event was cut in half before the end was said."""
        ...


class Unfoldable(BackendError):
    """Nothing is wrong with a stream but that we cannot make a whole answer of it."""


class Fold(Protocol):
    """A streamed answer that is wanted whole."""

    @property
    def ended(self) -> bool:
        """Has the answer reached its end? What may still come (token counts, the end mark) is worth no long wait."""
        ...

    @property
    def over(self) -> bool:
        """Has the stream said that it is complete?"""
        ...

    def feed(self, data: bytes) -> list[Progress]:
        """By how much the answer has grown; by 0 characters if what came has none. Raises `BackendError` as
        `StreamDecoder.feed` does, and `Unfoldable`."""
        ...

    def close(self) -> bytes:
        """No more bytes will come: the body of the whole answer. Raises `BackendError` (BROKEN) if it was cut."""
        ...


class StreamEncoder(Protocol):
    """Events to the client's bytes. An event whose wire is of this dialect goes on untouched."""

    content_type: str

    def encode(self, events: Sequence[Event]) -> bytes: ...

    def keepalive(self) -> bytes:
        """What says "still here" without being part of the answer."""
        ...

    def close(self) -> bytes:
        """What is still owed after the last event of an answer that really ended (OpenAI: ``[DONE]``)."""
        ...

    def error(self, error: BackendError) -> bytes:
        """The dialect's in-stream error event; nothing may follow it."""
        ...


class Dialect(Protocol):
    """One wire format, both faces. Pure: ids and the time of day are arguments."""

    name: str

    # the client's face
    id_prefix: str
    """What the ids of answers begin with."""

    def parse(self, body: bytes, headers: Headers = ()) -> ChatRequest:
        """Raises `BackendError` (REQUEST, status, param) with one clear sentence."""
        ...

    def encoder(self, request: ChatRequest, *, id: str, created: int) -> StreamEncoder:
        """`id` and `created` are used when no cloud gave its own in `Started`."""
        ...

    def encode_whole(self, request: ChatRequest, events: Sequence[Event], *, id: str, created: int) -> bytes:
        """All events of one answer to one body; a cloud's own body of this dialect, byte for byte, if that is
        where they came from."""
        ...

    def encode_error(self, error: BackendError, *, id: str = "") -> Reply:
        """The error as a whole HTTP answer in this dialect; `error.reply` as it is if it is of this dialect. `id` is
        the request's, for dialects that name it in the body."""
        ...

    # the cloud's face
    path: str
    """Where this dialect's chat requests are posted, relative to the upstream's base URL."""
    models_path: str
    """Where its list of models is found, likewise."""
    key_header: str
    """The header that carries a key, unless an upstream says otherwise."""
    said_anyway: Headers
    """Headers a cloud of this dialect insists on, sent if the client did not."""

    def objection(self, request: ChatRequest) -> str | None:
        """The path of a field of a *foreign* request that this dialect cannot say and that matters, if there is one."""
        ...

    def losses(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> tuple[str, ...]:
        """The fields that `render` leaves out or changes because this model, or this cloud, would refuse them, as the
        client names them. What its own dialect already knows to be lost in others is `ChatRequest.unsaid`."""
        ...

    def render(self, request: ChatRequest, model: str, quirks: Quirks = PLAIN) -> bytes:
        """The body for a cloud. The client's own bytes if nothing has to change; else only what has to. A request
        of another dialect is written from the vocabulary alone."""
        ...

    def decoder(self) -> StreamDecoder: ...

    def fold(self, choices: int = 1) -> Fold:
        """What makes a whole answer of a streamed one, in which so many choices were asked for."""
        ...

    def decode_whole(self, body: bytes) -> list[Event]:
        """A whole answer to its events, the first with all the bytes as its wire. Raises BROKEN if it is none."""
        ...

    def decode_error(self, status: int, headers: Headers, body: bytes) -> BackendError:
        """What a status other than 200 means for us (WIRE facts: code, then type, then phrase, then status)."""
        ...


def credential(key: str, header: str) -> tuple[str, str]:
    """The header that shows a key: a bearer token in "authorization", the bare key in any other."""
    name = header.lower()
    return name, f"Bearer {key}" if name == "authorization" else key
