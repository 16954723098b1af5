"""Which texts does this regular expression allow? The automaton of it, built from the tree in two steps: first the ways
side by side, as the tree has them, then the sets of ways that one can be on at once.

Patterns are not anchored, as JSON Schema says: `a` allows every text with an a in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache

from appliance.core.structure.automaton import DEAD, MOST_STATES, MOST_WORK, Automaton, trimmed
from appliance.core.structure.regex import ANY, LAST, Edge, Either, Letters, Ranges, Repeat, Row, Tree, Unheld, parse

MOST_PARTS = 4_000  # of the automaton that is not yet deterministic


@lru_cache(maxsize=64)
def pattern(text: str) -> Automaton:
    """The automaton of a regular expression. Raises `Unheld` or `ValueError`."""
    return _determined(_Net(parse(text)))


class _Net:
    """The automaton as the tree says it: several ways at once, and steps that cost no letter."""

    def __init__(self, tree: Tree) -> None:
        self.free: list[list[int]] = []
        self.edges: list[list[tuple[int, bool]]] = []  # steps over the beginning (True) or the end of the text
        self.letters: list[list[tuple[Ranges, int]]] = []
        begin, self.end = self._state(), self._state()
        self.begin = self._state()
        self.free[self.begin].append(begin)
        self.letters[self.begin].append((ANY, self.begin))  # not anchored, in front and behind
        self.letters[self.end].append((ANY, self.end))
        self._lay(tree, begin, self.end)

    def _state(self) -> int:
        if len(self.free) >= MOST_PARTS:
            raise Unheld(f"it has more than {MOST_PARTS} parts", 2 * MOST_PARTS)
        self.free.append([])
        self.edges.append([])
        self.letters.append([])
        return len(self.free) - 1

    def _lay(self, tree: Tree, begin: int, end: int) -> None:
        match tree:
            case Letters(ranges):
                self.letters[begin].append((ranges, end))
            case Edge(at_begin):
                self.edges[begin].append((end, at_begin))
            case Either(parts):
                for part in parts:
                    self._lay(part, begin, end)
            case Row(parts):
                for part in parts[:-1]:
                    between = self._state()
                    self._lay(part, begin, between)
                    begin = between
                if parts:
                    self._lay(parts[-1], begin, end)
                else:
                    self.free[begin].append(end)
            case Repeat(part, least, most):
                self._repeat(part, least, most, begin, end)

    def _repeat(self, part: Tree, least: int, most: int | None, begin: int, end: int) -> None:
        for _ in range(least):
            between = self._state()
            self._lay(part, begin, between)
            begin = between
        if most is None:
            inside = self._state()
            self.free[begin].append(inside)
            self._lay(part, inside, inside)
            self.free[inside].append(end)
            return
        for _ in range(most - least):
            self.free[begin].append(end)
            between = self._state()
            self._lay(part, begin, between)
            begin = between
        self.free[begin].append(end)

    def reached(self, states: Iterable[int], *, begin: bool, end: bool) -> frozenset[int]:
        """Where one gets from here without a letter."""
        found = set(states)
        left = list(found)
        while left:
            state = left.pop()
            ways = self.free[state] + [to for to, at_begin in self.edges[state] if (begin if at_begin else end)]
            for to in ways:
                if to not in found:
                    found.add(to)
                    left.append(to)
        return frozenset(found)


def _determined(net: _Net) -> Automaton:
    bounds = _cuts(ranges for letters in net.letters for ranges, _ in letters)
    classes = [
        [(bisect_left(bounds, low), bisect_right(bounds, high), to) for ranges, to in letters for low, high in ranges]
        for letters in net.letters
    ]
    start = net.reached([net.begin], begin=True, end=False)
    known: dict[frozenset[int], int] = {}  # without the start: only there does the text begin
    queue, table, labels, work = [start], [], [], 0
    for states in queue:  # grows while it is walked
        end = net.reached(states, begin=states is start, end=True)
        labels.append(int(net.end in end))
        row: list[set[int]] = [set() for _ in bounds]
        for state in states:
            for first, last, to in classes[state]:
                work += last - first
                for place in range(first, last):
                    row[place].add(to)
        work += len(states)
        if work > MOST_WORK or len(known) > MOST_STATES:
            raise Unheld("its automaton is too large", work)
        targets: dict[frozenset[int], int] = {}
        line = []
        for found in row:
            same = frozenset(found)
            if same not in targets:
                closed = net.reached(same, begin=False, end=False)
                work += len(closed)
                if closed and closed not in known:
                    known[closed] = len(queue)
                    queue.append(closed)
                targets[same] = known[closed] if closed else DEAD
            line.append(targets[same])
        table.append(line)
    return trimmed(bounds, table, labels, work)


def _cuts(sets: Iterable[Ranges]) -> tuple[int, ...]:
    places = {0}
    for ranges in sets:
        for low, high in ranges:
            places |= {low, high + 1}
    return tuple(sorted(place for place in places if place <= LAST))
