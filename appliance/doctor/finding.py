"""What was found of one layer: is it well, whose is it, and what is to be done?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "wrong", "skipped"]
Who = Literal["you", "them", "key", "box"]
"""Who has to do something: whoever runs this box and the network it is in, the cloud, the owner of the key, or the box
itself (its disk, its model, how it was built)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``said`` is a clause without a full stop. ``fix`` is a whole sentence or a command; what is well has none."""

    layer: str
    state: State
    said: str
    who: Who | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """All that was found of one thing: an upstream, or the box. From the bottom up."""

    of: str
    about: str
    findings: tuple[Finding, ...]


def ok(layer: str, said: str) -> Finding:
    return Finding(layer=layer, state="ok", said=said)


def warn(layer: str, said: str, *, who: Who, fix: str | None = None) -> Finding:
    return Finding(layer=layer, state="warn", said=said, who=who, fix=fix)


def wrong(layer: str, said: str, *, who: Who, fix: str) -> Finding:
    return Finding(layer=layer, state="wrong", said=said, who=who, fix=fix)


def skipped(layer: str, why: str) -> Finding:
    return Finding(layer=layer, state="skipped", said=why)


Step = tuple[str, Callable[[], Finding]]
"""A layer, and what judges it."""


def climb(steps: Iterable[Step]) -> Iterator[Finding]:
    """Each layer stands on those below it: above one that is broken nothing is judged."""
    broken: str | None = None
    for layer, judge in steps:
        if broken is not None:
            yield skipped(layer, f"not looked at, because {broken} is broken")
            continue
        found = judge()
        if found.state == "wrong":
            broken = layer
        yield found
