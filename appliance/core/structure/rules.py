"""What a document may be: a schema, worked out.

A node is a list of shapes; a value fits a node if it fits one of them. Nodes are named by their places, so that a
grammar may lead back into itself. `schema` makes grammars, `acceptor` reads by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from appliance.core.structure.automaton import Automaton, only
from appliance.core.structure.numeral import Numeral
from appliance.core.structure.words import Words

NOTHING = -1
"""The node that no value fits."""

UNASKED = 1
"""The label of keys that fit none of an object's patterns."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StringRule:
    """With `texts` the lengths are in them already."""

    texts: Automaton | Words | None = None
    least: int = 0
    most: int | None = None

    @property
    def free(self) -> bool:
        return self.texts is None and self.most is None and not self.least


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArrayRule:
    """The first items one by one, then the rest."""

    first: tuple[int, ...] = ()
    rest: int = NOTHING
    least: int = 0
    most: int | None = None

    @property
    def cap(self) -> int:
        """Beyond so many items their number makes no difference."""
        return max(len(self.first), self.least, self.most or 0)

    def item(self, place: int) -> int:
        if self.most is not None and place >= self.most:
            return NOTHING
        return self.first[place] if place < len(self.first) else self.rest


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ObjectRule:
    """`nodes` belong to `keys` by place, `required` and `allowed` are places as bits. Other keys have the node
    `other`, or with `patterns` the one in `labels` under the label at their end. `invites`: there may be any keys, and
    not just because nothing was said of them."""

    keys: Words
    nodes: tuple[int, ...]
    required: int
    allowed: int
    other: int
    patterns: Automaton | None = None
    labels: dict[int, int]
    invites: bool = True
    least: int = 0
    most: int | None = None
    plain: ObjectRule = field(init=False, repr=False)
    """The rule of the keys that we would write: those that are named, or for which there is a pattern."""

    def __post_init__(self) -> None:
        plain = self
        if not self.invites and self.allowed.bit_count() >= self.least:
            asked = None if self.patterns is None else only(self.patterns, lambda label: label > UNASKED)
            plain = replace(self, invites=True, other=NOTHING, patterns=asked)
        object.__setattr__(self, "plain", plain)

    @property
    def open(self) -> bool:
        """May there be keys that the schema does not name?"""
        return self.patterns.start >= 0 if self.patterns is not None else self.other >= 0

    def others(self, label: int) -> int:
        return self.labels.get(label, NOTHING) if self.patterns is not None else self.other


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shape:
    words: tuple[bytes, ...] = ()  # of null, true, false
    number: Numeral | None = None
    string: StringRule | None = None
    array: ArrayRule | None = None
    object: ObjectRule | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Grammar:
    """`costs` are the bytes of each node's shortest value. `unheld` names what this grammar does not see to."""

    nodes: tuple[tuple[Shape, ...], ...]
    costs: tuple[int, ...]
    root: int
    unheld: tuple[str, ...] = ()
