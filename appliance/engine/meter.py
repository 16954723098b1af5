"""What the engine did so far, in tokens and seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.engine.scheduler import SMALLEST_PACE


@dataclass(slots=True)
class Meter:
    """Totals since the engine started; `prefill_speed` is what it lately computed per second in steps that are large
    enough to say something about it."""

    steps: int = 0
    slot_steps: int = 0
    computed: int = 0
    busy_seconds: float = 0.0
    decoded: int = 0
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    reused_tokens: int = 0
    predicted_seconds: float = 0.0
    standby_tokens: int = 0
    standby_seconds: float = 0.0
    prefill_speed: float | None = None

    def step(self, tokens: int, seconds: float, *, slots: int, prompt: int, standby: bool, telling: bool) -> None:
        """A step of so many tokens in so many slots took so long. `prompt` of the tokens were of requests' prompts; or
        all were a standby's."""
        self.steps += 1
        self.slot_steps += slots
        self.computed += tokens
        self.busy_seconds += seconds
        if standby:
            self.standby_tokens += tokens
            self.standby_seconds += seconds
        else:
            self.prompt_tokens += prompt
            self.prompt_seconds += seconds * prompt / tokens
            self.predicted_seconds += seconds * (tokens - prompt) / tokens
        # Small steps say nothing about prefill: most of their time is reading the weights once.
        if telling and tokens >= SMALLEST_PACE and seconds > 0:
            speed = tokens / seconds
            self.prefill_speed = speed if self.prefill_speed is None else 0.7 * self.prefill_speed + 0.3 * speed

    def frame(self) -> Mapping[str, Any]:
        return {
            "decoded": self.decoded,
            "computed": self.computed,
            "prefill_tok_s": self.prefill_speed,
            "busy_s": self.busy_seconds,
            "steps": self.steps,
            "slot_steps": self.slot_steps,
            "prompt_tokens": self.prompt_tokens,
            "prompt_s": self.prompt_seconds,
            "reused_tokens": self.reused_tokens,
            "predicted_s": self.predicted_seconds,
            "standby_tokens": self.standby_tokens,
            "standby_s": self.standby_seconds,
        }
