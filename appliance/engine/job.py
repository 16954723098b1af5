"""What exactly is asked for? A generate frame, checked, as a value; or a refusal that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EngineFault = Literal["busy", "too_long", "request", "server"]
Template = Mapping[str, Any]


class Refusal(Exception):
    """This request ends here, the others go on. The sentence holds no prompt text."""

    def __init__(self, fault: EngineFault, message: str, **more: Any) -> None:
        super().__init__(message)
        self.fault: EngineFault = fault
        self.message = message
        self.more = more


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How tokens are drawn. The defaults are those of llama.cpp's server."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0 or self.top_k == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`prefill` letters of the committed text are the client's own. `first`: somebody reads this answer already."""

    id: int
    messages: tuple[Template, ...] = field(repr=False)
    committed: str = field(default="", repr=False)
    prefill: int = 0
    first: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    trim: bool = False
    settings: Settings = Settings()


LARGEST = 1e6
RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-100.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "repeat_penalty": (1e-3, 100.0),
}


def parse(frame: Mapping[str, Any], *, vocabulary: int) -> Job:
    """The job in a generate frame, for a model with `vocabulary` tokens. Raises `Refusal`."""
    messages = frame.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _wrong("messages", "a list of objects")
    committed = frame.get("committed")
    if committed is not None and not isinstance(committed, str):
        raise _wrong("committed", "text")
    prefill = frame.get("prefill") or 0
    if isinstance(prefill, bool) or not isinstance(prefill, int) or not 0 <= prefill <= len(committed or ""):
        raise _wrong("prefill", "a number of letters of 'committed'")
    stop = frame.get("stop") or []
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise _wrong("stop", "a list of texts")
    limit = frame.get("max_tokens")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise _wrong("max_tokens", "a whole number, 0 or more")
    return Job(
        id=frame["id"],
        messages=tuple(messages),
        committed=committed or "",
        prefill=prefill,
        first=bool(frame.get("first", committed)),
        max_tokens=limit,
        stop=tuple(stop),
        trim=bool(frame.get("trim")),
        settings=_settings(frame.get("sampling") or {}, vocabulary),
    )


def _settings(given: Mapping[str, Any], vocabulary: int) -> Settings:
    if not isinstance(given, dict):
        raise _wrong("sampling", "an object")
    values: dict[str, Any] = {}
    for name, (low, high) in RANGES.items():
        if given.get(name) is not None:
            values[name] = _number(name, given[name], low, high)
    for name in ("top_k", "seed"):
        value = given.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int):
                raise _wrong(name, "a whole number")
            values[name] = value
    biases = given.get("logit_bias") or []
    values["logit_bias"] = tuple(_bias(pair, vocabulary) for pair in biases)
    return Settings(**values)


def _bias(pair: Any, vocabulary: int) -> tuple[int, float]:
    if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], bool) or not isinstance(pair[0], int):
        raise _wrong("logit_bias", "pairs of a token id and a number")
    token, bias = pair
    if not 0 <= token < vocabulary:
        raise _wrong("logit_bias", f"token ids of the local model, which are 0 to {vocabulary - 1}")
    return token, _number("logit_bias", bias, -LARGEST, LARGEST)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise _wrong(name, f"a number from {low:g} to {high:g}")
    return float(value)


def _wrong(name: str, expected: str) -> Refusal:
    return Refusal("request", f"'{name}' must be {expected}.", param=name)
