"""Does the model really answer on this box?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, warn, wrong

LAYER = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Of an engine process that was started for this, or of the one that serves. ``trouble``: its last words."""

    trouble: str = ""
    load_s: float = 0.0
    tok_s: float | None = None
    steps_down: Sequence[str] = ()


def verdict(answer: Trial) -> Finding:
    if answer.trouble:
        said = f"the model did not answer: {answer.trouble.rstrip('.')}"
        return wrong(
            LAYER, said, who="box", fix="Run `appliance models verify`; if it is whole, choose a smaller model."
        )
    speed = f"{answer.tok_s:.0f} tok/s" if answer.tok_s else "at an unknown speed"
    said = f"the model answered, {speed}, ready in {answer.load_s:.1f} s"
    if answer.steps_down:
        given_up = "; ".join(step.rstrip(".") for step in answer.steps_down)
        return warn(LAYER, f"{said}; but {given_up}", who="box", fix="`appliance models fit` shows what fits this box.")
    return ok(LAYER, said)
