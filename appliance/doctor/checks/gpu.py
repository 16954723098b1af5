"""Is there a GPU, and is it used?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.core.size import in_words
from appliance.doctor.checks.cpu import Build
from appliance.doctor.finding import Finding, ok, skipped, warn, wrong
from appliance.doctor.words import listed

LAYER = "GPU"
DRIVER_FIX = "Install NVIDIA's driver until `nvidia-smi` answers; a container is started with --gpus all."


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU as the kernel sees it. ``driver``: there is one for computing; ``nodes``: its devices are visible here."""

    vendor: Literal["NVIDIA", "AMD", "Intel"]
    name: str = ""
    driver: bool = False
    nodes: bool = False

    def __str__(self) -> str:
        return self.name or f"a GPU of {self.vendor}"


def verdict(cards: Sequence[Card], build: Build) -> Finding:
    machine = build.machine
    if machine is None:
        return skipped(LAYER, "llama.cpp cannot tell")
    nvidia = [card for card in cards if card.vendor == "NVIDIA"]
    if machine.devices:
        shown = [f"{one.name} {one.description} ({in_words(one.free)} free)" for one in machine.devices]
        return ok(LAYER, listed(shown))
    names = listed([str(card) for card in nvidia])
    ready = [card for card in nvidia if card.driver and card.nodes]
    if machine.gpu_offload:
        if not cards:
            return ok(LAYER, "none; llama.cpp was built for one and computes on the CPU")
        said = f"llama.cpp was built for a GPU, but sees none; {names or listed([str(card) for card in cards])} is here"
        if ready:
            fix = "The driver may be older than the CUDA that llama.cpp was built with: compare with `nvidia-smi`."
            return wrong(LAYER, said, who="box", fix=fix)
        return wrong(LAYER, f"{said} without a driver that answers", who="box", fix=DRIVER_FIX)
    if ready:
        said = f"{listed([str(card) for card in ready])} is here, but llama.cpp was built for the CPU only"
        fix = f"With the CUDA toolkit installed: {build.again('-DGGML_CUDA=ON')}"
        return wrong(LAYER, said, who="box", fix=fix)
    if nvidia:
        what = "its devices are not visible here" if nvidia[0].driver else "there is no driver for it"
        return warn(LAYER, f"{names} is here, but {what}; the CPU computes", who="box", fix=DRIVER_FIX)
    if amd := [card for card in cards if card.vendor == "AMD" and card.nodes]:
        fix = f"If it is a card of its own: {build.again('-DGGML_VULKAN=ON')}"
        return warn(LAYER, f"{listed([str(card) for card in amd])} is here and not used", who="box", fix=fix)
    return ok(LAYER, "none that would help; the CPU computes")
