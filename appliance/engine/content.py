"""Which tokens stay inside a string that a pattern or a length bounds, and which close it where it may end?

Answered for the whole vocabulary at once: the beginnings of tokens are a tree, and the automaton of a pattern steps
down all of its branches together. States of an automaton that no token tells apart share the answer.

Tokens of more than `SHORT` characters are left out: few are of any use where a string is bounded.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.core.structure.automaton import Automaton
from appliance.core.structure.letters import Half, possible
from appliance.core.structure.rules import StringRule
from appliance.engine.lexicon import SHORT, Bools, Lexicon, Spelled

MOST_AUTOMATA = 16
MOST_KNOWN = 128
MOST_COMPARED = 400_000  # places in the table of an automaton, to find states that are alike

Rows = NDArray[np.intp]


class Within(NamedTuple):
    """The tokens that stay inside, as a mask over their numbers that others share, and rows of those that close."""

    content: Bools
    closing: Rows


class Table(NamedTuple):
    """An automaton over a vocabulary. The last row of `steps` leads nowhere; `classes` are those of the tree's letters;
    states that no token tells apart have the same number in `alike`."""

    bounds: NDArray[np.int64]
    steps: NDArray[np.int32]
    classes: NDArray[np.int32]
    ends: Bools
    alike: NDArray[np.intp]


class Content:
    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        spelled = lexicon.spelled(lexicon.root)
        assert spelled, "the root is spelled from the beginning"
        self.spelled: Spelled = spelled
        self._tables: OrderedDict[Automaton, Table] = OrderedDict()
        self._known: OrderedDict[tuple[Automaton, int], Within] = OrderedDict()
        self._lengths: dict[int, Bools] = {}

    def by_length(self, count: int, least: int, most: int | None) -> Within:
        """Where a string has `count` characters of at least `least` and at most `most`."""
        left = SHORT if most is None else min(most - count, SHORT)
        content = self._lengths.get(left)
        if content is None:
            content = self._lengths[left] = self._mask(_short(self.spelled, left))
        return Within(content, _closing(self.spelled, least - count, left))

    def by_pattern(self, texts: Automaton, at: int) -> Within:
        table = self._table(texts)
        key = (texts, int(table.alike[at]))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self.hastily(texts, at, SHORT)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return found

    def knows(self, texts: Automaton, at: int) -> bool:
        """Is that answered already?"""
        return texts in self._tables and (texts, int(self._tables[texts].alike[at])) in self._known

    def hastily(self, texts: Automaton, at: int, deep: int = 2) -> Within:
        """As `by_pattern`, for tokens of one character or two, which is enough to go on."""
        table = self._table(texts)
        inside, closing = _run(self.spelled, texts, table, table.classes, at, deep)
        return Within(self._mask(inside), closing)

    def under(self, spelled: Spelled, rule: StringRule, at: int, count: int) -> tuple[Rows, Rows]:
        """The rows of a node that stay inside, and those that close."""
        if isinstance(rule.texts, Automaton):
            table = self._table(rule.texts)
            classes = _classes(table.bounds, spelled)
            return _run(spelled, rule.texts, table, classes, at, SHORT)
        left = SHORT if rule.most is None else min(rule.most - count, SHORT)
        return _short(spelled, left), _closing(spelled, rule.least - count, left)

    def _mask(self, rows: Rows) -> Bools:
        mask = np.zeros(self._lexicon.size, dtype=np.bool_)
        mask[self._lexicon.ids[self.spelled.places[rows]]] = True
        mask.setflags(write=False)
        return mask

    def _table(self, texts: Automaton) -> Table:
        found = self._tables.get(texts)
        if found is None:
            steps = np.array([*texts.table, [-1] * len(texts.bounds)], dtype=np.int32)
            bounds = np.array(texts.bounds)
            ends = np.array([*(label > 0 for label in texts.labels), False])
            found = Table(bounds, steps, _classes(bounds, self.spelled), ends, _alike(steps, ends))
            self._tables[texts] = found
            if len(self._tables) > MOST_AUTOMATA:
                self._tables.popitem(last=False)
        self._tables.move_to_end(texts)
        return found


def _classes(bounds: NDArray[np.int64], spelled: Spelled) -> NDArray[np.int32]:
    classes = np.searchsorted(bounds, spelled.alphabet, side="right") - 1
    return classes.astype(np.int32)[spelled.letters]


def _short(spelled: Spelled, left: int) -> Rows:
    return np.flatnonzero(spelled.stays & (spelled.counts + spelled.half <= left))


def _closing(spelled: Spelled, least: int, left: int) -> Rows:
    return np.flatnonzero(~spelled.stays & (spelled.counts >= least) & (spelled.counts <= left))


def _run(
    spelled: Spelled, texts: Automaton, table: Table, classes: NDArray[np.int32], at: int, deep: int
) -> tuple[Rows, Rows]:
    """The rows that stay inside and those that may close, of at most so many characters."""
    levels = spelled.levels[: deep + 1]
    states = np.full(levels[-1], -1, dtype=np.int32)
    states[0] = at
    for first, last in itertools.pairwise(levels):
        following = table.steps[states[spelled.parents[first:last]], classes[first:last]]
        states[first:last] = following
        if not (following >= 0).any():
            break
    begin = int(np.searchsorted(-spelled.counts, -deep, side="left"))
    reached = states[spelled.nodes[begin:]]
    good = np.flatnonzero(reached >= 0)
    reached, good = reached[good], good + begin
    stays = spelled.stays[good]
    half = np.flatnonzero(spelled.half[good])
    if len(half):
        may: dict[tuple[int, Half], bool] = {}
        for place, state, row in zip(half.tolist(), reached[half].tolist(), good[half].tolist(), strict=True):
            key = (state, spelled.halves[row])
            if key not in may:
                may[key] = any(texts.some(state, *span) for span in possible(key[1]))
            if not may[key]:
                stays[place] = False
                reached[place] = -1
    inside, closing = good[stays], ~stays & (reached >= 0)
    return inside, good[closing][table.ends[reached[closing]]]


def _alike(steps: NDArray[np.int32], ends: Bools) -> NDArray[np.intp]:
    """A number for each state, the same for states that no text of so many characters as a token has tells apart. The
    state that leads nowhere is the last, and so it is found under -1."""
    if steps.size > MOST_COMPARED:
        return np.arange(len(steps))
    signs = np.random.default_rng(0).integers(1 << 62, size=(1 + steps.shape[1], 1), dtype=np.uint64) * 2 + 1
    dead = np.arange(len(steps)) == len(steps) - 1
    alike: NDArray[np.intp] = ends + 2 * dead.astype(np.intp)
    count = 0
    for _ in range(SHORT + 2):
        beside = np.concatenate((alike[:, None], alike[steps]), axis=1).astype(np.uint64)
        names, following = np.unique((beside @ signs)[:, 0], return_inverse=True)
        alike = following.astype(np.intp)
        if len(names) == count:
            break
        count = len(names)
    return alike
