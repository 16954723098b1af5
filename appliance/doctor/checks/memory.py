"""Does the model fit into this box, as it is configured?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.machine import Machine, Weight
from appliance.core.size import in_words
from appliance.doctor.finding import Finding, ok, skipped, warn, wrong

LAYER = "memory"
FIX = "Choose a smaller model (`appliance models fit` shows what fits), or lower [local] context or slots."


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a dry load found; ``unknown`` says why it found nothing, and ``refused`` that the file is the reason.
    ``loaded``: a running appliance has it already."""

    weight: Weight | None = None
    unknown: str = ""
    refused: bool = False
    loaded: bool = False


def verdict(need: Need, machine: Machine | None) -> Finding:
    weight = need.weight
    if need.refused:
        return skipped(LAYER, "not weighed: the model cannot be loaded")
    if weight is None or machine is None:
        return skipped(LAYER, f"not weighed: {need.unknown.rstrip('.') or 'llama.cpp cannot tell'}")
    asked = weight.asked
    on_devices = sum(asked.devices)
    parts = [f"{in_words(asked.ram + weight.process)} of RAM"] + (
        [f"{in_words(on_devices)} on the GPU"] if on_devices else []
    )
    takes = f"{weight.name} takes {' and '.join(parts)}"
    if need.loaded:
        return ok(LAYER, f"{takes}, and is loaded")
    free = f"{in_words(machine.ram_free)} are free"
    if weight.chosen is None:
        said = f"{takes}, and {free}: {(weight.refusal or 'it does not fit').rstrip('.')}"
        return wrong(LAYER, said, who="box", fix=FIX)
    if weight.chosen.from_disk:
        said = f"{takes}, and {free}: it does not fit, and parts of it would be read from disk for every token"
        return wrong(LAYER, said, who="box", fix=FIX)
    if weight.chosen.steps:
        steps = "; ".join(step.rstrip(".") for step in weight.chosen.steps)
        return warn(LAYER, f"{takes}, and {free}: {steps}", who="box", fix=FIX)
    return ok(LAYER, f"{takes}; {free}")
