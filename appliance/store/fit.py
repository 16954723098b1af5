"""Does this model fit this box, and which one should somebody take? Numbers in, verdict out.

What is here is weighed exactly, by a dry load; of what is not here only the catalog's bytes are known, and everything
that follows from those is marked as "about". Whether a model fits is the engine's own ladder (`Weight.chosen`): what it
would do at the next start, if it need not read from disk for every token. A recommendation has to fit whole, may be
used for anything, writes at least as fast as one reads, and has read a long conversation before somebody gives up; of
those it is the one that the catalog calls the first choice for the largest box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.core.machine import Machine, Placement, Read, Weight
from appliance.store.shape import SHAPES
from appliance.store.speed import Burden, Speed

READS_ALONG = 8.0
"""Tokens per second below which somebody who reads along has to wait."""

PATIENCE = 120.0
"""Seconds that somebody waits for the first word behind `PROMPT` tokens: in an outage nobody computed them before."""

SPARE = 256 << 20
PROMPT = 4000

Fits = Literal["yes", "less", "no"]
WORDS: dict[Fits, str] = {"yes": "yes", "less": "with less", "no": "no"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row of the table. `exact`: weighed, not guessed. `gpu` is the share of its layers there."""

    name: str
    fits: Fits
    exact: bool
    memory: int  # all of it, wherever it is
    gpu: float
    speed: Speed | None
    here: bool = False
    rank: int = -1  # the place among boxes of this kind of the largest one it is the first choice for; -1: of none
    free: bool = True

    @property
    def where(self) -> str:
        share = round(100 * self.gpu)
        return {0: "CPU", 100: "GPU"}.get(share, f"{100 - share}%/{share}% CPU/GPU") if self.fits != "no" else "-"


def need_of(weight: Weight, placement: Placement) -> int:
    """All bytes that the engine needs to answer with the model loaded this way, its own included."""
    return placement.ram + sum(placement.devices) + weight.process


def resident_of(weight: Weight, placement: Placement) -> int:
    """What the engine's process is seen to take in RAM as long as nobody else wants it."""
    return placement.ram + placement.twice + weight.process


def burden_of(weight: Weight) -> Burden:
    return Burden(
        reads=weight.reads, layers=max(1, weight.layers - 1), width=weight.width, vocabulary=weight.vocabulary
    )


def refusal_of(weight: Weight) -> str | None:
    """Why does it not fit? None if it does. What the engine would read from disk for every token does not."""
    if weight.fits:
        return None
    return weight.refusal if weight.chosen is None else weight.chosen.steps[-1]


def disk_bytes_of(weight: Weight, placement: Placement, free: int) -> int:
    """What is read from disk for every token, at least, of a model larger than what is free."""
    missing = max(0, need_of(weight, placement) - sum(placement.devices) - free)
    return round(sum(read.bytes for read in weight.reads) * missing / weight.model)


def weighed(name: str, weight: Weight, speed: Speed | None, **more: object) -> Verdict:
    """The verdict on what a dry load found."""
    chosen, asked = weight.chosen, weight.asked
    if chosen is None or chosen.from_disk:
        fits: Fits = "no"
    else:
        wanted = min(asked.context, weight.trained or asked.context)
        fits = "yes" if (chosen.context, chosen.kv_type) == (wanted, asked.kv_type) else "less"
    placed = chosen or asked
    return Verdict(
        name=name,
        fits=fits,
        exact=True,
        memory=need_of(weight, placed),
        gpu=placed.gpu_layers / weight.layers if weight.layers else 0.0,
        speed=speed if fits != "no" else None,  # the speed of a disk is not measured
        **more,  # type: ignore[arg-type]
    )


def guess_burden(size: int, active: float) -> Burden:
    """What a model of so many bytes, packed as most are, should make the box do: as the dense shape nearest to it."""
    dense = [shape for shape in SHAPES.values() if not shape.experts]
    near = min(dense, key=lambda shape: abs(shape.bytes - size))
    scale = size * active / near.bytes
    return Burden(
        reads=(
            Read(quant="Q4_K", bytes=round(0.66 * size * active), weights=round(0.70 * near.parameters * scale)),
            Read(quant="Q6_K", bytes=round(0.34 * size * active), weights=round(0.30 * near.parameters * scale)),
        ),
        layers=near.layers,
        width=near.width,
        vocabulary=near.vocabulary,
    )


def guessed(name: str, memory: int, machine: Machine, speed: Speed | None, **more: object) -> Verdict:
    """The verdict on a model that is not here, of which the catalog says about how much memory it takes."""
    on_gpus = sum(max(0, device.free - SPARE) for device in machine.devices)
    share = min(1.0, on_gpus / memory) if memory else 0.0
    fits: Fits = "yes" if memory <= on_gpus or memory * (1 - share) + SPARE <= machine.ram_free else "no"
    return Verdict(
        name=name,
        fits=fits,
        exact=False,
        memory=memory,
        gpu=share,
        speed=speed if fits != "no" else None,
        **more,  # type: ignore[arg-type]
    )


def shared(gpu: Speed, cpu: Speed, share: float) -> Speed:
    """With this share of the layers on the GPU: the times of both add up."""

    def both(one: float, other: float) -> float:
        return share * one + (1 - share) * other

    return Speed(
        tokens_per_second=1 / both(1 / gpu.tokens_per_second, 1 / cpu.tokens_per_second),
        prompt_tokens_per_second=1 / both(1 / gpu.prompt_tokens_per_second, 1 / cpu.prompt_tokens_per_second),
        first_token={count: both(gpu.first_token[count], cpu.first_token[count]) for count in cpu.first_token},
    )


def rank_of(boxes: Sequence[str], order: Sequence[str], *, gpu: bool) -> int:
    """How large a box of this kind is this model the first choice for?"""
    kind = [box for box in order if box.startswith("gpu") == gpu]
    return max((kind.index(box) for box in boxes if box in kind), default=-1)


def _bearable(speed: Speed) -> bool:
    return speed.tokens_per_second >= READS_ALONG and speed.first_token.get(PROMPT, 0.0) <= PATIENCE


def recommend(rows: Iterable[Verdict]) -> Verdict | None:
    """The one to take on this box; None if nothing fits whole."""
    fitting = [row for row in rows if row.fits == "yes" and row.free]
    # One that is partly on the CPU answers at the CPU's speed.
    fitting = [row for row in fitting if row.gpu in (0.0, 1.0)] or fitting
    ranked = [row for row in fitting if row.rank >= 0]
    quick = [row for row in ranked if row.speed is None or _bearable(row.speed)]
    if quick:
        return max(quick, key=lambda row: (row.rank, row.memory))
    return max(ranked or fitting, key=lambda row: row.speed.tokens_per_second if row.speed else 0.0, default=None)
