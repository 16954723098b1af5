"""Which texts does this pattern allow, letter by letter? A bounded automaton, from which an end can always be reached.

Rules:

1. Every state leads to an end; what leads to none is -1. So whoever follows the automaton never gets stuck.
2. Building is bounded in states and in work: a pattern that would cost more raises `Unheld`, whatever it looks like.
3. Patterns are not anchored, as JSON Schema says: `a` allows every text with an a in it.
4. Each state has a `label`: 0 if no text may end there, else which of the patterns it was built from would allow that,
   as bits. An automaton of one pattern has the label 1.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from appliance.core.structure.regex import ANY, LAST, Edge, Either, Letters, Ranges, Repeat, Row, Tree, Unheld, parse

DEAD = -1
MOST_PARTS = 4_000  # of the automaton that is not yet deterministic
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


class Words:
    """An automaton that allows these texts and no others: a state is the span of the sorted words that begin alike.
    Its labels are places in `words`, plus one. States are made when somebody gets there."""

    __slots__ = ("_edges", "_spans", "start", "words")

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(sorted({*words}))
        self._spans = [(0, len(self.words), 0)]  # from, to, letters in common
        self._edges: list[tuple[list[int], int] | None] = [None]  # the letters that may follow, and the first's state
        self.start = 0 if self.words else DEAD

    def _following(self, state: int) -> tuple[list[int], int]:
        edges = self._edges[state]
        if edges is None:
            low, high, depth = self._spans[state]
            low += len(self.words[low]) == depth
            edges = self._edges[state] = ([], len(self._spans))
            while low < high:
                letter = self.words[low][depth]
                end = bisect_right(self.words, letter, low, high, key=lambda word: word[depth])
                edges[0].append(ord(letter))
                self._spans.append((low, end, depth + 1))
                self._edges.append(None)
                low = end
        return edges

    def step(self, state: int, code: int) -> int:
        codes, first = self._following(state)
        place = bisect_left(codes, code)
        return first + place if place < len(codes) and codes[place] == code else DEAD

    def some(self, state: int, low: int, high: int) -> bool:
        codes, _ = self._following(state)
        return bisect_left(codes, low) < bisect_right(codes, high)

    def among(self, state: int, low: int, high: int, wanted: int) -> bool:
        """As `some`, for those of the words whose bits are `wanted`."""
        codes, first = self._following(state)
        return any(self.leads(first + at, wanted) for at in range(bisect_left(codes, low), bisect_right(codes, high)))

    def leads(self, state: int, wanted: int) -> bool:
        """Is one of the words below here among those whose bits are `wanted`?"""
        low, high, _ = self._spans[state]
        return bool(wanted >> low & (1 << high - low) - 1)

    def below(self, state: int) -> Iterator[tuple[int, str]]:
        """The places of the words below here, and what they still lack."""
        low, high, depth = self._spans[state]
        return ((place, self.words[place][depth:]) for place in range(low, high))

    def label(self, state: int) -> int:
        low, _, depth = self._spans[state]
        return low + 1 if len(self.words[low]) == depth else 0

    def bytes(self, state: int) -> bytes:
        """The bytes that may begin what follows inside a JSON string, or close it."""
        codes = self._following(state)[0] if state >= 0 else []
        return bytes({chr(code).encode()[0] for code in codes} | {0x22, 0x5C})

    def least(self, state: int) -> int:
        return len(self.shortest(state))

    def shortest(self, state: int) -> str:
        return min((rest for _, rest in self.below(state)), key=len)


Texts = Automaton | Words


@lru_cache(maxsize=64)
def pattern(text: str) -> Automaton:
    """The automaton of a regular expression. Raises `Unheld` or `ValueError`."""
    return _determined(_Net(parse(text)))


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
    return _trimmed(automaton.bounds, [list(row) for row in automaton.table], labels)


# ---------------------------------------------------------------------------------------------------- building


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
    return _trimmed(bounds, table, labels, work)


def _cuts(sets: Iterable[Ranges]) -> tuple[int, ...]:
    places = {0}
    for ranges in sets:
        for low, high in ranges:
            places |= {low, high + 1}
    return tuple(sorted(place for place in places if place <= LAST))


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
    return _trimmed(bounds, table, [label(a, b) for a, b in queue])


def _trimmed(bounds: tuple[int, ...], table: list[list[int]], labels: list[int], work: int = 0) -> Automaton:
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
