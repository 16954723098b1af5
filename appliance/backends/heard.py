"""The engine's frames as the events of an answer.

Ids are no affair of the engine's: a call it begins has none, and whoever writes to the client makes one of the answer's
id and the call's index. The index it gives is behind those of the calls that were committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.backends.refused import failure
from appliance.core.chat import (
    BackendError,
    Degraded,
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.frames import Frame

REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def translate(frames: Sequence[Frame]) -> tuple[list[Event], BackendError | None]:
    """The engine's frames as events, and the error that ends them, if one does."""
    events: list[Event] = []
    for frame in frames:
        match frame["op"]:
            case "begun":
                # What was read is known before the first word, and some clients want to hear it there.
                events.append(_usage(frame, 0))
                if frame["trimmed"]:
                    events.append(Degraded(what="context"))
            case "text":
                events.append(TextDelta(text=frame["text"]))
            case "reasoning":
                events.append(ReasoningDelta(text=frame["text"]))
            case "call":
                events.append(ToolCallStart(index=frame["index"], id="", name=frame["name"]))
            case "arguments":
                events.append(ToolCallDelta(index=frame["index"], arguments=frame["text"]))
            case "finish":
                events.append(Finish(reason=REASONS.get(frame["reason"], "stop"), stop=frame.get("stop")))
                events.append(_usage(frame, frame["completion_tokens"]))
            case "error":
                return events, failure(frame)
    return events, None


def _usage(frame: Frame, completion: int) -> Usage:
    return Usage(
        prompt_tokens=frame["prompt_tokens"],
        completion_tokens=completion,
        cached_tokens=frame["cached_tokens"],
    )
