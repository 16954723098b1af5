"""The engine's frames as the events of an answer.

Ids are no affair of the engine's: a call it begins has none, and whoever writes to the client makes one of the answer's
id and the call's index. The index it gives is behind those of the calls that were committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.backends.refused import failure
from appliance.core.events import (
    Degraded,
    Event,
    Finish,
    FinishReason,
    Odds,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError
from appliance.core.frames import Frame

REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}


def translate(frames: Sequence[Frame], choice: int = 0) -> tuple[list[Event], BackendError | None]:
    """The engine's frames as events of one answer of several, and the error that ends them, if one does."""
    events: list[Event] = []
    for frame in frames:
        match frame["op"]:
            case "begun":
                # What was read is known before the first word, and some clients want to hear it there.
                events.append(_usage(frame, 0))
                if frame["trimmed"]:
                    events.append(Degraded(what="context"))
                if frame.get("strayed"):
                    events.append(Degraded(what="grammar"))
                events += [Degraded(what=what) for what in frame.get("lost", ())]
            case "text":
                events.append(TextDelta(text=frame["text"], choice=choice, odds=_odds(frame)))
            case "reasoning":
                events.append(ReasoningDelta(text=frame["text"], choice=choice))
            case "call":
                events.append(ToolCallStart(index=frame["index"], id="", name=frame["name"], choice=choice))
            case "name":
                events.append(ToolCallDelta(index=frame["index"], arguments="", name=frame["name"], choice=choice))
            case "arguments":
                events.append(ToolCallDelta(index=frame["index"], arguments=frame["text"], choice=choice))
            case "finish":
                reason = REASONS.get(frame["reason"], "stop")
                events.append(Finish(reason=reason, stop=frame.get("stop"), choice=choice))
                events.append(_usage(frame, frame["completion_tokens"]))
            case "error":
                return events, failure(frame)
    return events, None


def _odds(frame: Frame) -> tuple[Odds, ...]:
    return tuple(
        Odds(token=_bytes(token), logprob=logprob, others=tuple((_bytes(one), value) for one, value in others))
        for token, logprob, others in frame.get("odds", ())
    )


def _bytes(letters: str) -> bytes:
    """In a frame each character of a token is a byte."""
    return letters.encode("latin-1")


def _usage(frame: Frame, completion: int) -> Usage:
    return Usage(
        prompt_tokens=frame["prompt_tokens"],
        completion_tokens=completion,
        cached_tokens=frame["cached_tokens"],
    )
