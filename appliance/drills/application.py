"""What does an application get? One request through the box, and everything that came back.

It reads the stream as a suspicious client would, and keeps account of what official clients throw away: comments,
the time at which each piece came, how often the answer said that it was over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from appliance.core.sse import SseEvent, SseParser

TAKEOVER = "appliance takeover "


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One answer as it arrived. Times are seconds since the request was sent."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    text: str = field(default="", repr=False)
    finishes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    takeovers: tuple[str, ...] = ()
    dones: int = 0
    first_content: float | None = None
    seam: float | None = None
    """The silence between the last piece before a takeover and the first one after it."""


async def ask(client: httpx.AsyncClient, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Heard:
    """`body` as a chat request, streamed or whole as it says. A connection that breaks is an error in the answer."""
    began = time.monotonic()
    notes = _Notes(began)
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            streams = response.headers.get("content-type", "").startswith("text/event-stream")
            heard = Heard(status=response.status_code, headers=dict(response.headers))
            raw = bytearray()
            try:
                async for data in response.aiter_bytes():
                    raw += data
                    if streams:
                        notes.read(data)
            except httpx.TransportError as error:
                notes.errors.append(f"the connection broke: {type(error).__name__}")
    except httpx.TransportError as error:
        return Heard(status=0, errors=(f"no answer: {type(error).__name__}",))
    if not streams:
        notes.read_whole(bytes(raw))
    return notes.onto(replace(heard, body=bytes(raw)))


class _Notes:
    """What has been read so far."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._parser = SseParser()
        self._text: list[str] = []
        self._finishes: list[str] = []
        self._ids: list[str] = []
        self.errors: list[str] = []
        self._takeovers: list[str] = []
        self._dones = 0
        self._first: float | None = None
        self._last: float | None = None
        self._waiting = False  # a takeover was announced, its first piece has not come
        self._seam: float | None = None

    def read(self, data: bytes) -> None:
        now = time.monotonic() - self._began
        for event in self._parser.feed(data):
            self._event(event, now)

    def read_whole(self, body: bytes) -> None:
        now = time.monotonic() - self._began
        try:
            self._chunk(json.loads(body), now)
        except ValueError:
            self.errors.append("the answer is not JSON")

    def onto(self, heard: Heard) -> Heard:
        return replace(
            heard,
            text="".join(self._text),
            finishes=tuple(self._finishes),
            ids=tuple(dict.fromkeys(self._ids)),
            errors=tuple(self.errors),
            takeovers=tuple(self._takeovers),
            dones=self._dones,
            first_content=self._first,
            seam=self._seam,
        )

    def _event(self, event: SseEvent, now: float) -> None:
        if event.comment is not None and event.comment.startswith(TAKEOVER):
            self._takeovers.append(event.comment.removeprefix(TAKEOVER))
            self._waiting = True
        if event.data is None:
            return
        if event.data == b"[DONE]":
            self._dones += 1
            return
        if self._dones:
            self.errors.append("something came after [DONE]")
        try:
            self._chunk(json.loads(event.data), now)
        except ValueError:
            self.errors.append("an event is not JSON")

    def _chunk(self, chunk: Mapping[str, Any], now: float) -> None:
        if error := chunk.get("error"):
            self.errors.append(str(error.get("message") if isinstance(error, dict) else error))
            return
        self._ids.append(str(chunk.get("id")))
        for choice in chunk.get("choices", ()):
            piece = (choice.get("delta") or choice.get("message") or {}).get("content")
            if piece:
                if self._finishes:
                    self.errors.append("something came after the end")
                self._piece(piece, now)
            if reason := choice.get("finish_reason"):
                self._finishes.append(reason)

    def _piece(self, piece: str, now: float) -> None:
        self._text.append(piece)
        if self._first is None:
            self._first = now
        if self._waiting and self._last is not None:
            self._seam = now - self._last
        self._waiting = False
        self._last = now
