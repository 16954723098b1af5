"""What does an application get? One request through the box in either dialect, and everything that came back.

It reads the stream as a suspicious client would, and keeps account of what official clients throw away: comments,
the time at which each piece came, how often the answer said that it was over, whether its blocks are in order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import httpx

from appliance.core.sse import SseEvent, SseParser

TAKEOVER = "appliance takeover "
PATHS: Mapping[str, str] = MappingProxyType({"openai": "/v1/chat/completions", "anthropic": "/v1/messages"})
VERSION = ("anthropic-version", "2023-06-01")
LAST_WORDS: Mapping[str, str] = MappingProxyType({"openai": "[DONE]", "anthropic": "message_stop"})
"""What says in a stream that nothing more comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One answer as it arrived. Times are seconds since the request was sent."""

    status: int
    api: str = "openai"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    text: str = field(default="", repr=False)
    thinking: str = field(default="", repr=False)
    calls: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The name and the JSON text of the arguments of each call."""
    finishes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    takeovers: tuple[str, ...] = ()
    dones: int = 0
    first_content: float | None = None
    seam: float | None = None
    """The silence between the last piece before a takeover and the first one after it."""


async def ask(
    client: httpx.AsyncClient,
    body: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    api: str = "openai",
) -> Heard:
    """`body` as a request, streamed or whole as it says. A connection that breaks is an error in the answer."""
    began = time.monotonic()
    notes = _READERS[api](began)
    said = dict([VERSION] if api == "anthropic" else []) | dict(headers or {})
    try:
        async with client.stream("POST", PATHS[api], json=body, headers=said) as response:
            streams = response.headers.get("content-type", "").startswith("text/event-stream")
            heard = Heard(status=response.status_code, api=api, headers=dict(response.headers))
            raw = bytearray()
            try:
                async for data in response.aiter_bytes():
                    raw += data
                    if streams:
                        notes.read(data)
            except httpx.TransportError as error:
                notes.errors.append(f"the connection broke: {type(error).__name__}")
    except httpx.TransportError as error:
        return Heard(status=0, api=api, errors=(f"no answer: {type(error).__name__}",))
    if not streams:
        notes.read_whole(bytes(raw))
    return notes.onto(replace(heard, body=bytes(raw)))


class _Notes:
    """What has been read so far, whatever the dialect."""

    api: str

    def __init__(self, began: float) -> None:
        self._began = began
        self._parser = SseParser()
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, tuple[str, str]] = {}
        self._finishes: list[str] = []
        self._ids: list[str] = []
        self.errors: list[str] = []
        self._takeovers: list[str] = []
        self._dones = 0
        self._now = 0.0
        self._first: float | None = None
        self._last: float | None = None
        self._waiting = False  # a takeover was announced, its first piece has not come
        self._seam: float | None = None

    def read(self, data: bytes) -> None:
        self._now = time.monotonic() - self._began
        for event in self._parser.feed(data):
            self._event(event)

    def read_whole(self, body: bytes) -> None:
        self._now = time.monotonic() - self._began
        if (answer := self._parsed(body, "the answer")) is not None and not self._failed(answer):
            self._whole(answer)

    def onto(self, heard: Heard) -> Heard:
        return replace(
            heard,
            text="".join(self._text),
            thinking="".join(self._thinking),
            calls=tuple(self._calls.values()),
            finishes=tuple(self._finishes),
            ids=tuple(dict.fromkeys(self._ids)),
            errors=tuple(self.errors),
            takeovers=tuple(self._takeovers),
            dones=self._dones,
            first_content=self._first,
            seam=self._seam,
        )

    # ------------------------------------------------------------------------------------- for each dialect

    def _whole(self, answer: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _told(self, event: SseEvent, payload: Mapping[str, Any]) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ for all

    def _event(self, event: SseEvent) -> None:
        if event.comment is not None and event.comment.startswith(TAKEOVER):
            self._takeovers.append(event.comment.removeprefix(TAKEOVER))
            self._waiting = True
        if event.data is None:
            return
        if event.data == b"[DONE]" and self.api == "openai":
            self._dones += 1
            return
        if self._dones:
            self.errors.append(f"something came after {LAST_WORDS[self.api]}")
        payload = self._parsed(event.data, "an event")
        if payload is not None and not self._failed(payload):
            self._told(event, payload)

    def _parsed(self, data: bytes, what: str) -> dict[str, Any] | None:
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.errors.append(f"{what} is not JSON")
            return None
        return found

    def _failed(self, payload: Mapping[str, Any]) -> bool:
        if error := payload.get("error"):
            self.errors.append(str(error.get("message") if isinstance(error, dict) else error))
        return bool(error)

    def _piece(self, piece: str | None, of: list[str]) -> None:
        if piece:
            of.append(piece)
            self._content()

    def _called(self, index: int, name: str, arguments: str) -> None:
        before, so_far = self._calls.get(index, ("", ""))
        self._calls[index] = (before or name, so_far + arguments)
        self._content()

    def _content(self) -> None:
        if self._finishes:
            self.errors.append("something came after the end")
        if self._first is None:
            self._first = self._now
        if self._waiting and self._last is not None:
            self._seam = self._now - self._last
        self._waiting = False
        self._last = self._now


class _OpenAINotes(_Notes):
    api = "openai"

    def _whole(self, answer: Mapping[str, Any]) -> None:
        self._ids.append(str(answer.get("id")))
        for choice in answer.get("choices", ()):
            said = choice.get("delta") or choice.get("message") or {}
            self._piece(said.get("reasoning_content"), self._thinking)
            self._piece(said.get("content"), self._text)
            for at, call in enumerate(said.get("tool_calls") or ()):
                function = call.get("function") or {}
                self._called(call.get("index", at), function.get("name") or "", function.get("arguments") or "")
            if reason := choice.get("finish_reason"):
                self._finishes.append(reason)

    def _told(self, event: SseEvent, payload: Mapping[str, Any]) -> None:
        self._whole(payload)


class _AnthropicNotes(_Notes):
    """Reads with the grammar in hand: one message, blocks numbered in order, each closed before the next opens."""

    api = "anthropic"

    def __init__(self, began: float) -> None:
        super().__init__(began)
        self._block: Mapping[str, Any] | None = None
        self._blocks = 0

    def _whole(self, answer: Mapping[str, Any]) -> None:
        self._ids.append(str(answer.get("id")))
        for index, block in enumerate(answer.get("content", ())):
            self._piece(block.get("thinking"), self._thinking)
            self._piece(block.get("text"), self._text)
            if block.get("type") == "tool_use":
                self._called(index, block.get("name", ""), json.dumps(block.get("input"), ensure_ascii=False))
        if reason := answer.get("stop_reason"):
            self._finishes.append(reason)

    def _told(self, event: SseEvent, payload: Mapping[str, Any]) -> None:
        kind = payload.get("type")
        if event.event != kind:
            self.errors.append(f"an event named {event.event} says it is {kind}")
        if kind not in ("message_start", "ping") and not self._ids:
            self.errors.append(f"{kind} came before message_start")
        self.errors += self._misplaced(kind, payload)
        match kind:
            case "message_start":
                self._ids.append(str(payload["message"].get("id")))
            case "content_block_start":
                self._block = payload["content_block"]
                if self._block.get("type") == "tool_use":
                    self._called(self._blocks, self._block.get("name", ""), "")
                self._blocks += 1
            case "content_block_delta":
                delta = payload["delta"]
                self._piece(delta.get("thinking"), self._thinking)
                self._piece(delta.get("text"), self._text)
                if delta.get("partial_json"):
                    self._called(payload["index"], "", delta["partial_json"])
            case "content_block_stop":
                self._block = None
            case "message_delta" if reason := payload["delta"].get("stop_reason"):
                self._finishes.append(reason)
            case "message_stop":
                self._dones += 1

    def _misplaced(self, kind: Any, payload: Mapping[str, Any]) -> Iterator[str]:
        open_block, index = self._block is not None, payload.get("index")
        match kind:
            case "message_start" if self._ids:
                yield "message_start came twice"
            case "content_block_start" if open_block:
                yield "a block began inside another"
            case "content_block_start" if index != self._blocks:
                yield f"block {self._blocks} is numbered {index}"
            case "content_block_delta" | "content_block_stop" if not open_block or index != self._blocks - 1:
                yield f"{kind} came for block {index}, which is not open"
            case "message_delta" | "message_stop" if open_block:
                yield f"{kind} came while a block was open"
            case "message_stop" if not self._finishes:
                yield "message_stop came without a stop_reason"


_READERS: Mapping[str, type[_Notes]] = MappingProxyType({"openai": _OpenAINotes, "anthropic": _AnthropicNotes})
