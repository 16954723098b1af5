"""What is measured, how often, and how long will that take? Decided from what is asked and what is known by then.

Rules of this file:

1. What the user asks for is done as asked. What is left to us shrinks with a slow box, so that a run takes minutes.
2. The first rounds tell how fast the box is; until then nobody says how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["machine", "cold", "shallow", "deep", "warm", "crowd", "service", "takeover", "added"]
PHASES: tuple[Phase, ...] = ("machine", "cold", "shallow", "deep", "warm", "crowd", "service", "takeover", "added")
NAMES = {
    "machine": "looking at the machine and its memory",
    "cold": "loading the model from the disk",
    "shallow": "reading and writing",
    "deep": "reading and writing far into a conversation",
    "warm": "loading the model again",
    "crowd": "several answers at once",
    "service": "starting a service of its own",
    "takeover": "a cloud that dies in mid-answer",
    "added": "the way through the box",
}

ROOM = 192
"""Tokens of template, task and error in a prompt's length."""
DEPTHS = (4096, 2048, 1024, 512)
DEEP_WITHIN = 60.0
"""Seconds that a depth may take which nobody asked for."""
CROWD_PROMPT, CROWD_GEN = 128, 64
CROWD_WITHIN = 60.0
TAKEOVER_TOKENS, QUICK_TAKEOVER_TOKENS, SHORTEST_TAKEOVER = 2000, 512, 128
TAKEOVER_ROOM = 400
TAKEOVER_WITHIN = 60.0
TAKEOVER_ROUND = 2.0
ADDED_ROUND = 0.4
MACHINE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for. `depths` None: what fits."""

    prompts: tuple[int, ...] = (512,)
    gens: tuple[int, ...] = (128,)
    depths: tuple[int, ...] | None = None
    parallel: tuple[int, ...] = (1, 2, 4, 8)
    rounds: int = 3
    quick: bool = False

    @property
    def deepest(self) -> int:
        if self.depths is not None:
            return max(self.depths)
        return DEPTHS[0]

    @property
    def context(self) -> int:
        """Tokens of the engine that answers one at a time."""
        return self.deepest + max(*self.prompts, *self.gens) + ROOM

    @property
    def crowd_prompt(self) -> int:
        return min(CROWD_PROMPT, max(self.prompts) or CROWD_PROMPT)

    @property
    def crowd_gen(self) -> int:
        return min(CROWD_GEN, max(self.gens) or CROWD_GEN)

    @property
    def takeover_rounds(self) -> int:
        return 2 if self.quick else 6

    @property
    def added_rounds(self) -> int:
        return 4 if self.quick else 12


USUAL = Wishes()
QUICK = Wishes(depths=(0,), parallel=(1, 4), rounds=1, quick=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """What is known of the box so far: seconds to load, tokens per second of reading and writing."""

    load: float
    reading: float
    writing: float


def depths(wishes: Wishes, speeds: Speeds, context: int) -> tuple[int, ...]:
    """The depths to measure at, 0 left out, with a model that holds `context` tokens."""
    fit = context - max(*wishes.prompts, *wishes.gens) - ROOM
    if wishes.depths is not None:
        return tuple(depth for depth in wishes.depths if 0 < depth <= fit)
    for depth in DEPTHS:
        if depth <= fit and deep_seconds(wishes, speeds, depth) <= DEEP_WITHIN:
            return (depth,)
    return ()


def crowd_rounds(wishes: Wishes, speeds: Speeds) -> int:
    """How often several are asked at once."""
    return max(1, min(wishes.rounds, int(CROWD_WITHIN / crowd_seconds(wishes, speeds))))


def takeover_tokens(wishes: Wishes, speeds: Speeds, longest: int) -> int:
    """How long a conversation is taken over, with a model that can hold the `longest` one?"""
    wish = QUICK_TAKEOVER_TOKENS if wishes.quick else TAKEOVER_TOKENS
    return max(SHORTEST_TAKEOVER, min(wish, longest - TAKEOVER_ROOM, int(TAKEOVER_WITHIN * speeds.reading)))


# ------------------------------------------------------------------------------------------------- how long it takes


def shallow_seconds(wishes: Wishes, speeds: Speeds) -> float:
    once = sum(wishes.prompts) / speeds.reading + sum(wishes.gens) / speeds.writing
    return (wishes.rounds + 1) * once


def deep_seconds(wishes: Wishes, speeds: Speeds, depth: int) -> float:
    # Behind 4,096 tokens a small model on a CPU reads at a third of the speed and writes at half of it.
    slower = 1 + depth / 2048
    once = sum(wishes.prompts) * slower / speeds.reading + sum(wishes.gens) * (1 + slower) / 2 / speeds.writing
    return depth * (1 + slower) / 2 / speeds.reading + wishes.rounds * once


def crowd_seconds(wishes: Wishes, speeds: Speeds) -> float:
    """Of one round."""
    # Several are written together at up to twice the speed of one.
    read = sum(wishes.parallel) * wishes.crowd_prompt / speeds.reading
    return read + sum(many / min(many, 2) for many in wishes.parallel) * wishes.crowd_gen / speeds.writing


def seconds_left(phases: Sequence[Phase], wishes: Wishes, speeds: Speeds, context: int, longest: int) -> float:
    """Of the phases that are still to come."""
    deep = sum(deep_seconds(wishes, speeds, depth) for depth in depths(wishes, speeds, context))
    taken = takeover_tokens(wishes, speeds, longest) / speeds.reading + wishes.takeover_rounds * TAKEOVER_ROUND
    each: dict[Phase, float] = {
        "machine": MACHINE,
        "cold": speeds.load,
        "shallow": shallow_seconds(wishes, speeds),
        "deep": deep,
        "warm": speeds.load,
        "crowd": crowd_rounds(wishes, speeds) * crowd_seconds(wishes, speeds),
        "service": speeds.load + 1,
        "takeover": taken,
        "added": wishes.added_rounds * ADDED_ROUND,
    }
    return sum(each[phase] for phase in phases)
