"""The box as whoever answers: a chat request to the engine's words, and its frames to events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any, Literal, Protocol

from appliance.backends.refused import failure
from appliance.core.chat import (
    BackendError,
    ChatRequest,
    Degraded,
    Event,
    Finish,
    FinishReason,
    Foreign,
    Image,
    Message,
    Part,
    Reasoning,
    Sampling,
    Started,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from appliance.core.frames import Frame
from appliance.core.standby import Following, Mode

UNSEEN_IMAGE = "[An image was here; this box cannot see images.]"
UNREAD_DOCUMENT = "[A document was here; this box cannot read it.]"
REDACTED_THINKING = "redacted_thinking"
"""The type of thinking that a cloud of Anthropic's dialect has encrypted."""
UNSEEN: tuple[tuple[type[Part], str], ...] = ((Image, "images"), (Foreign, "documents"))

PATIENCE = 0.25
"""Seconds of a cloud's answer before the box is told of it: what ends sooner is not worth the reading."""


class Generator(Protocol):
    """What is needed of the engine."""

    def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]: ...

    async def count(self, job: Mapping[str, Any]) -> int: ...

    def follow(self, job: Mapping[str, Any], *, mode: Literal["auto", "hot"], suspicion: float) -> Following: ...


class LocalBackend:
    """Answers on the box, and stands by while others answer. `model` is the name it gives itself in answers."""

    name = "local"

    def __init__(self, engine: Generator, model: str, *, standby: Mode = "cold") -> None:
        self._engine = engine
        self._model = model
        self._mode: Literal["auto", "hot"]
        self.patience: float
        self.adopt(standby)

    def adopt(self, standby: Mode) -> None:
        """Stand by like this from now on."""
        self._mode = "hot" if standby == "hot" else "auto"
        self.patience = PATIENCE if standby == "auto" else 0.0

    def follow(self, request: ChatRequest, *, suspicion: float) -> Following:
        """Tell the engine of a conversation it may have to go on with. Never waits, never fails."""
        told = {name: value for name, value in job(request).items() if name in ("messages", "committed", "trim")}
        return self._engine.follow(told, mode=self._mode, suspicion=suspicion)

    async def count(self, request: ChatRequest) -> int:
        """The tokens of everything in `request`, as the box's model reads it, whether it fits or not. Raises
        `BackendError`, and at once if the engine is not ready."""
        told = {name: value for name, value in job(request).items() if name in ("messages", "committed", "prefill")}
        return await self._engine.count(told | {"tools": [declared(tool) for tool in request.tools]})

    async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[Sequence[Event]]:
        """Answer `request`. Closing the iterator stops the work at once. Raises `BackendError`."""
        # The caller asked for a cloud's model; the answer says who really gave it.
        parts = [part for message in request.messages for part in spoken(message)]
        unseen = [Degraded(what=what) for kind, what in UNSEEN if any(isinstance(part, kind) for part in parts)]
        started = False
        frames = self._engine.generate(job(request))
        async with contextlib.aclosing(frames):  # type: ignore[type-var]
            async for batch in frames:
                events, error = translate(batch)
                if not started and events:
                    started = True
                    usage = [event for event in events[:1] if isinstance(event, Usage)]
                    first = Started(id="", model=self._model, created=0)
                    events = [first, *usage, *unseen, *events[len(usage) :]]
                if events:
                    yield events
                if error is not None:
                    raise error


def job(request: ChatRequest) -> dict[str, Any]:
    """The request as a generate frame, but for its id."""
    messages, prefill = opening(request)
    begun = request.committed
    committed = None if begun is None else begun.text
    return {
        "messages": [{"role": message.role, "content": content(message)} for message in messages],
        "committed": prefill + (committed or "") if prefill else committed,
        "prefill": len(prefill),
        "first": begun is not None,
        "max_tokens": request.max_tokens,
        "stop": list(request.stop),
        "trim": request.trim,
        "sampling": sampling(request.sampling),
    }


def opening(request: ChatRequest) -> tuple[Sequence[Message], str]:
    """The conversation, and the beginning of the answer that the client wrote itself: in Anthropic's dialect, text of
    the assistant at the end of a conversation is gone on with and not answered."""
    if request.dialect == "anthropic" and request.messages:
        last = request.messages[-1]
        if last.role == "assistant" and all(isinstance(part, Text) for part in spoken(last)):
            return request.messages[:-1], last.text
    return request.messages, ""


def declared(tool: Tool) -> str:
    """A tool as a model would read it."""
    said = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps(said, ensure_ascii=False)


def sampling(given: Sampling) -> dict[str, Any]:
    """What was said about it; what was not is the engine's default."""
    said = {field.name: getattr(given, field.name) for field in fields(given) if field.name != "logit_bias"}
    said = {name: value for name, value in said.items() if value is not None}
    if given.logit_bias:
        said["logit_bias"] = [list(pair) for pair in given.logit_bias]
    return said


def spoken(message: Message) -> Sequence[Part]:
    """The message without earlier thinking, which is repeated to nobody who did not think it."""
    return [
        part for part in message.parts if not isinstance(part, Reasoning) and part != Foreign(what=REDACTED_THINKING)
    ]


def content(message: Message) -> str:
    """Everything of a message that the model may read, as text. What a user or a system says in several parts stands
    on lines of their own, and so does what stands for something else; an assistant's texts are one, cut by a stream."""
    lines: list[str] = []
    for of_text, run in groupby(spoken(message), key=lambda part: isinstance(part, Text)):
        texts = [text for text in map(_readable, run) if text]
        lines += ["".join(texts)] if of_text and message.role == "assistant" and texts else texts
    return "\n".join(lines)


def _readable(part: Part) -> str:
    match part:
        case Text(text=text):
            return text
        case Image():
            return UNSEEN_IMAGE
        case Foreign():
            return UNREAD_DOCUMENT
        case ToolCall(name=name, arguments=arguments):
            return f"[Called the tool {name} with {arguments}]"
        case ToolResult(text=text, failed=failed):
            return f"[The tool {'failed' if failed else 'answered'}: {text}]"
        case _:
            return ""


def translate(frames: Sequence[Frame]) -> tuple[list[Event], BackendError | None]:
    """The engine's frames as events, and the error that ends them, if one does."""
    events: list[Event] = []
    for frame in frames:
        match frame["op"]:
            case "begun":
                # What was read is known before the first word, and some clients want to hear it there.
                events.append(
                    Usage(
                        prompt_tokens=frame["prompt_tokens"],
                        completion_tokens=0,
                        cached_tokens=frame["cached_tokens"],
                    )
                )
                if frame["trimmed"]:
                    events.append(Degraded(what="context"))
            case "text":
                events.append(TextDelta(text=frame["text"]))
            case "finish":
                reason: FinishReason = "length" if frame["reason"] == "length" else "stop"
                events.append(Finish(reason=reason, stop=frame.get("stop")))
                events.append(
                    Usage(
                        prompt_tokens=frame["prompt_tokens"],
                        completion_tokens=frame["completion_tokens"],
                        cached_tokens=frame["cached_tokens"],
                    )
                )
            case "error":
                return events, failure(frame)
    return events, None
