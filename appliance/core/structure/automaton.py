"""Which texts are these, letter by letter? A bounded automaton, from which an end can always be reached.

Rules:

1. Every state leads to an end; what leads to none is -1. So whoever follows the automaton never gets stuck.
2. Building is bounded in states and in work: what would cost more raises `Unheld`, whatever it looks like.
3. Each state has a `label`: 0 if no text may end there, else which of the patterns it was built from would allow that,
   as bits. An automaton of one pattern has the label 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from appliance.core.structure.regex import Unheld

DEAD = -1
MOST_STATES = 4_000
MOST_WORK = 200_000
PLAIN = [*range(97, 123), *range(48, 58), *range(65, 91), 32, 45, 95, 46]  # letters to prefer in examples


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Automaton:
    """`bounds` cut the code points into classes, the first beginning at 0; `table` has a row of targets per state."""

    bounds: tuple[int, ...]
    table: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    start: int
    work: int = 0  # that went into it
    distances: tuple[int, ...] = field(init=False)  # letters to the nearest end

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", tuple(_distances(self.table, self.labels)))

    def step(self, state: int, code: int) -> int:
        return self.table[state][bisect_right(self.bounds, code) - 1]

    def some(self, state: int, low: int, high: int) -> bool:
        """May one of these code points follow?"""
        row = self.table[state]
        first = bisect_right(self.bounds, low) - 1
        return any(row[place] >= 0 for place in range(first, bisect_right(self.bounds, high)))

    def label(self, state: int) -> int:
        return self.labels[state]

    def least(self, state: int) -> int:
        """How many letters must still come?"""
        return self.distances[state]

    def shortest(self, state: int) -> str:
        """Letters that lead to an end, as few as possible."""
        letters = []
        while self.distances[state]:
            nearer = [
                place
                for place, to in enumerate(self.table[state])
                if to >= 0 and self.distances[to] < self.distances[state]
            ]
            code = min((self._letter(place) for place in nearer), key=lambda code: code not in PLAIN)
            letters.append(chr(code))
            state = self.step(state, code)
        return "".join(letters)

    def texts(self, state: int, most: int = 1_000) -> Iterator[str]:
        """Texts that lead to an end, one for each way, the short ones first."""
        if self.labels[state]:
            yield ""
        left = [("", state)]
        for text, at in left:  # grows while it is walked
            for place, to in enumerate(self.table[at]):
                if to >= 0 and len(left) < most:
                    left.append((text + chr(self._letter(place)), to))
                    if self.labels[to]:
                        yield left[-1][0]

    def _letter(self, place: int) -> int:
        """A letter of this class, a plain one if there is."""
        return next((code for code in PLAIN if bisect_right(self.bounds, code) - 1 == place), self.bounds[place])

    def reached(self, text: str) -> int:
        """Where this text leads."""
        state = self.start
        for letter in text:
            if state < 0:
                break
            state = self.step(state, ord(letter))
        return state

    def finds(self, text: str) -> int:
        """The label at the end of `text`; 0 if it is not allowed."""
        state = self.reached(text)
        return self.labels[state] if state >= 0 else 0

    @property
    def free(self) -> bool:
        """Does it allow every text alike?"""
        return len(self.table) == 1 and bool(self.labels[0]) and min(self.table[0]) >= 0


@lru_cache(maxsize=64)
def lengths(least: int, most: int | None) -> Automaton:
    """Every text of so many letters."""
    count = least if most is None else most
    if count >= MOST_STATES:
        raise Unheld(f"it has more than {MOST_STATES} states")
    last = count if most is None else DEAD
    table = tuple((place + 1 if place < count else last,) for place in range(count + 1))
    return Automaton(bounds=(0,), table=table, labels=tuple(int(n >= least) for n in range(count + 1)), start=0)


def both(one: Automaton, other: Automaton) -> Automaton:
    """What both allow. Its `start` is -1 if that is nothing."""
    return _paired(
        one, other, lambda a, b: int(a >= 0 and b >= 0 and one.labels[a] > 0 and other.labels[b] > 0), all_of=True
    )


def beside(one: Automaton, other: Automaton, shift: int) -> Automaton:
    """What either allows; the labels say which, those of `other` moved up by `shift`."""

    def label(a: int, b: int) -> int:
        return (one.labels[a] if a >= 0 else 0) | ((other.labels[b] if b >= 0 else 0) << shift)

    return _paired(one, other, label, all_of=False)


def only(automaton: Automaton, wanted: Callable[[int], bool]) -> Automaton:
    """The same, without the ends whose label is not wanted."""
    labels = [label if label and wanted(label) else 0 for label in automaton.labels]
    return trimmed(automaton.bounds, [list(row) for row in automaton.table], labels)


def _paired(one: Automaton, other: Automaton, label: Callable[[int, int], int], *, all_of: bool) -> Automaton:
    bounds = tuple(sorted({*one.bounds, *other.bounds}))
    left = [bisect_right(one.bounds, place) - 1 for place in bounds]
    right = [bisect_right(other.bounds, place) - 1 for place in bounds]
    start = (one.start, other.start)
    queue, known = [start], {start: 0}
    table: list[list[int]] = []
    for a, b in queue:  # grows while it is walked
        row = []
        for place in range(len(bounds)):
            to = (one.table[a][left[place]] if a >= 0 else DEAD, other.table[b][right[place]] if b >= 0 else DEAD)
            if (min(to) if all_of else max(to)) < 0:
                row.append(DEAD)
                continue
            if to not in known:
                known[to] = len(queue)
                queue.append(to)
            row.append(known[to])
        table.append(row)
        if len(queue) > MOST_STATES or len(queue) * len(bounds) > MOST_WORK:
            raise Unheld("together with the others its automaton is too large", MOST_WORK // 2)
    return trimmed(bounds, table, [label(a, b) for a, b in queue])


def trimmed(bounds: tuple[int, ...], table: list[list[int]], labels: list[int], work: int = 0) -> Automaton:
    """Without the states from which no end can be reached, and with as few as can be had."""
    distances = _distances(table, labels)
    block = [labels[state] if distances[state] >= 0 else DEAD for state in range(len(table))]
    count = len({*block, DEAD})
    most = work + MOST_WORK
    while True:  # states that differ in nothing become one
        work += len(table) * len(bounds) // 4
        if work > most:  # they are left as they are
            live = [state for state in range(len(table)) if distances[state] >= 0]
            places = {state: place for place, state in enumerate(live)}
            block = [places.get(state, DEAD) for state in range(len(table))]
            break
        signs = [
            (block[state], *(block[to] if to >= 0 else DEAD for to in table[state])) if distances[state] >= 0 else None
            for state in range(len(table))
        ]
        names: dict[object, int] = {}
        block = [DEAD if sign is None else names.setdefault(sign, len(names)) for sign in signs]
        if len(names) + 1 == count:
            break
        count = len(names) + 1
    firsts: dict[int, int] = {}
    for state, name in enumerate(block):
        if name >= 0:
            firsts.setdefault(name, state)
    rows = tuple(tuple(block[to] if to >= 0 else DEAD for to in table[firsts[name]]) for name in sorted(firsts))
    return Automaton(
        bounds=bounds,
        table=rows,
        labels=tuple(labels[firsts[name]] for name in sorted(firsts)),
        start=block[0],
        work=work,
    )


def _distances(table: Iterable[Iterable[int]], labels: Iterable[int]) -> list[int]:
    ends = list(labels)
    back: list[set[int]] = [set() for _ in ends]
    for state, row in enumerate(table):
        for to in {*row}:
            if to >= 0:
                back[to].add(state)
    distances = [0 if label else DEAD for label in ends]
    queue = [state for state, label in enumerate(ends) if label]
    for state in queue:  # grows while it is walked
        for source in back[state]:
            if distances[source] < 0:
                distances[source] = distances[state] + 1
                queue.append(source)
    return distances
