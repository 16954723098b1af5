"""Which characters may come next in a text that keeps to a grammar?

Rules of this file:

1. A grammar becomes a network: points, from which a character leads on, or nothing at all, or a rule that is called and
   comes back. A place in a text is all the points it may be at, each with the calls that it has to come back from.
2. Calls of one rule at one character of the text are one call, whoever made them (as in Earley's and Tomita's parsers).
   So the places of a text grow with it at most, where llama.cpp's own stacks double with every letter.
3. A rule that calls itself before anything is read is refused, and so are networks that are too large. A place that
   takes too much to work out ends the text with `GrammarError`.
4. What was worked out is remembered: the next time it is looked up.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property

from appliance.core.gbnf.reading import LAST, Called, Chars, Choice, GrammarError, Item, Ranges, Repeat, Sequence

MOST_POINTS = 30_000
MOST_STEPS = 20_000
MOST_KEPT = 20_000
"""States and calls that are remembered."""

END = 0
"""The point at which a rule is over."""


class Call:
    """Where to come back to: points, each in the call it belongs to. That of the root has nowhere to go."""

    __slots__ = ("back",)

    def __init__(self, back: frozenset[tuple[int, Call]]) -> None:
        self.back = back


class _Open:
    """A rule that is called at this character; who else calls it here is still being found out."""

    __slots__ = ("back", "over", "rule")

    def __init__(self, rule: int) -> None:
        self.rule = rule
        self.back: dict[tuple[int, Call | _Open], None] = {}
        self.over = False


Holder = Call | _Open


class State:
    """Between two characters. `letters` are the classes of characters that may come, as bits; `complete`: the text may
    end here."""

    __slots__ = ("complete", "following", "letters", "points")

    def __init__(self, points: frozenset[tuple[int, Call]], letters: int, complete: bool) -> None:
        self.points, self.letters, self.complete = points, letters, complete
        self.following: dict[int, State] = {}


class Network:
    """A grammar. Point by point: what leads on without a character, the characters and where they lead, the rule that
    is called and where it comes back to."""

    def __init__(self) -> None:
        self.free: list[tuple[int, ...]] = [()]
        self.chars: list[tuple[Ranges, int] | None] = [None]
        self.calls: list[tuple[int, int] | None] = [None]
        self.entries: list[int] = []
        self.work = 0
        """Steps that were taken so far: what is remembered takes none."""
        self._ranks: list[int] = []
        self._states: dict[frozenset[tuple[int, Call]], State] = {}
        self._known_calls: dict[frozenset[tuple[int, Call]], Call] = {}

    # ------------------------------------------------------------------------------------------------- building

    def point(
        self,
        free: tuple[int, ...] = (),
        chars: tuple[Ranges, int] | None = None,
        call: tuple[int, int] | None = None,
    ) -> int:
        if len(self.free) >= MOST_POINTS:
            raise GrammarError("is too large: its repetitions, written out, are too many")
        self.free.append(free)
        self.chars.append(chars)
        self.calls.append(call)
        return len(self.free) - 1

    def add(self, item: Item, then: int, names: Mapping[str, int]) -> int:
        """The point from which `item` leads to `then`."""
        match item:
            case Chars(ranges):
                return self.point(chars=(ranges, then))
            case Called(rule):
                return self.point(call=(names[rule], then))
            case Sequence(items):
                for one in reversed(items):
                    then = self.add(one, then, names)
                return then
            case Choice(items):
                return self.point(tuple(self.add(one, then, names) for one in items))
            case Repeat(one, least, most):
                return self._repeated(one, least, most, then, names)

    def _repeated(self, item: Item, least: int, most: int | None, then: int, names: Mapping[str, int]) -> int:
        begin = then
        if most is None:
            begin = self.point()
            self.free[begin] = (self.add(item, begin, names), then)
        else:
            for _ in range(most - least):
                begin = self.point((self.add(item, begin, names), then))
        for _ in range(least):
            begin = self.add(item, begin, names)
        return begin

    def finish(self) -> None:
        """Everything was added. Raises `GrammarError` if a rule calls itself before anything is read."""
        silent = self._silent()
        called = [self._called_first(entry, silent) for entry in self.entries]
        self._ranks = _ranks(called)

    def _silent(self) -> list[bool]:
        """From which points may a rule end without a character?"""
        before: list[list[int]] = [[] for _ in self.free]
        for point, (free, call) in enumerate(zip(self.free, self.calls, strict=True)):
            for then in free:
                before[then].append(point)
            if call is not None:
                before[call[1]].append(point)
                before[self.entries[call[0]]].append(point)
        silent = [False] * len(self.free)
        silent[END] = True
        work = [END]
        while work:
            for point in before[work.pop()]:
                call = self.calls[point]
                if not silent[point] and (call is None or (silent[call[1]] and silent[self.entries[call[0]]])):
                    silent[point] = True
                    work.append(point)
        return silent

    def _called_first(self, entry: int, silent: list[bool]) -> set[int]:
        seen, work, called = {entry}, [entry], set()
        while work:
            point = work.pop()
            following = list(self.free[point])
            call = self.calls[point]
            if call is not None:
                called.add(call[0])
                following += [call[1]] if silent[self.entries[call[0]]] else []
            work += [then for then in following if then not in seen]
            seen.update(following)
        return called

    # ---------------------------------------------------------------------------------------------- characters

    @cached_property
    def _bounds(self) -> list[int]:
        """Where classes of characters begin that no point tells apart."""
        found = {0}
        for chars in self.chars:
            for low, high in chars[0] if chars is not None else ():
                found |= {low, high + 1}
        return sorted(found - {LAST + 1})

    @cached_property
    def _bits(self) -> dict[Ranges, int]:
        """The classes of some characters."""
        bits = {}
        for chars in self.chars:
            if chars is not None and chars[0] not in bits:
                found = 0
                for low, high in chars[0]:
                    first, last = self.kind(low), self.kind(high)
                    found |= ((1 << (last - first + 1)) - 1) << first
                bits[chars[0]] = found
        return bits

    @cached_property
    def kinds(self) -> list[int]:
        """The classes of the first characters."""
        return [bisect_right(self._bounds, code) - 1 for code in range(256)]

    def kind(self, code: int) -> int:
        """The class of a character."""
        return bisect_right(self._bounds, code) - 1

    # ------------------------------------------------------------------------------------------------- reading

    @cached_property
    def start(self) -> Place:
        """Before the first character."""
        return Place(self, self._state([(self.entries[0], Call(frozenset()))]))

    def follow(self, state: State, kind: int) -> State | None:
        """After a character of this class. Raises `GrammarError` if that takes too much."""
        if not state.letters >> kind & 1:
            return None
        found = state.following.get(kind)
        if found is None:
            ahead: list[tuple[int, Call]] = []
            for point, call in state.points:
                chars = self.chars[point]
                if chars is not None and self._bits[chars[0]] >> kind & 1:
                    ahead.append((chars[1], call))
            found = state.following[kind] = self._state(ahead)
        return found

    def _state(self, ahead: Iterable[tuple[int, Call]]) -> State:
        """All the points that are reached from here without a character."""
        work: list[tuple[int, Holder]] = list(ahead)
        seen: set[tuple[int, Holder]] = set(work)
        opened: dict[int, _Open] = {}
        reading: list[tuple[int, Holder]] = []
        complete, steps = False, 0
        while work:
            point, held = work.pop()
            steps += 1
            following: list[tuple[int, Holder]] = [(then, held) for then in self.free[point]]
            called = self.calls[point]
            if self.chars[point] is not None:
                reading.append((point, held))
            elif called is not None:
                following = self._entered(called, held, opened)
            elif point == END:
                if isinstance(held, _Open):
                    held.over = True
                complete = complete or not held.back
                following = list(held.back)
            steps += len(following)
            if steps > MOST_STEPS:
                self.work += steps
                raise GrammarError("can be read in too many ways at once here")
            for one in following:
                if one not in seen:
                    seen.add(one)
                    work.append(one)
        self.work += steps
        settled = self._settled(opened)
        points = frozenset((point, held if isinstance(held, Call) else settled[held]) for point, held in reading)
        return self._known(points, complete)

    def _entered(self, called: tuple[int, int], held: Holder, opened: dict[int, _Open]) -> list[tuple[int, Holder]]:
        rule, then = called
        entry = self.entries[rule]
        if then == END:
            return [(entry, held)]  # it comes back to where this one comes back to
        call = opened.get(rule)
        if call is None:
            call = opened[rule] = _Open(rule)
        call.back[then, held] = None
        return [(entry, call), (then, held)] if call.over else [(entry, call)]

    def _settled(self, opened: Mapping[int, _Open]) -> dict[_Open, Call]:
        """The calls that were made here, now that all who made them are known; who calls first comes first."""
        settled: dict[_Open, Call] = {}
        for call in sorted(opened.values(), key=lambda call: self._ranks[call.rule]):
            back = frozenset((point, held if isinstance(held, Call) else settled[held]) for point, held in call.back)
            known = self._known_calls.get(back)
            if known is None:
                if len(self._known_calls) >= MOST_KEPT:
                    self._known_calls.clear()
                known = self._known_calls[back] = Call(back)
            settled[call] = known
        return settled

    def _known(self, points: frozenset[tuple[int, Call]], complete: bool) -> State:
        state = self._states.get(points)
        if state is None or state.complete != complete:
            letters = 0
            for point, _ in points:
                chars = self.chars[point]
                assert chars is not None
                letters |= self._bits[chars[0]]
            if len(self._states) >= MOST_KEPT:
                for one in self._states.values():
                    one.following.clear()
                self._states.clear()
            state = self._states[points] = State(points, letters, complete)
        return state


def network(rules: Mapping[str, Item]) -> Network:
    """The network of a grammar. Raises `GrammarError`."""
    made = Network()
    order = ["root", *(name for name in rules if name != "root")]
    names = {name: number for number, name in enumerate(order)}
    made.entries = [made.add(rules[name], END, names) for name in order]
    try:
        made.finish()
    except _Circle as circle:
        raise GrammarError(
            f"has a rule that calls itself before anything is read: '{order[circle.rule][:40]}'"
        ) from None
    return made


class _Circle(Exception):
    def __init__(self, rule: int) -> None:
        super().__init__(rule)
        self.rule = rule


def _ranks(called: list[set[int]]) -> list[int]:
    """An order in which everybody stands before those he calls. Raises `_Circle` if there is none."""
    waiting = [0] * len(called)
    for callees in called:
        for rule in callees:
            waiting[rule] += 1
    ranks, order = [-1] * len(called), [rule for rule, count in enumerate(waiting) if not count]
    for rank, rule in enumerate(order):  # grows while it is gone through
        ranks[rule] = rank
        for callee in called[rule]:
            waiting[callee] -= 1
            if not waiting[callee]:
                order.append(callee)
    unranked = [rule for rule, rank in enumerate(ranks) if rank < 0]
    if not unranked:
        return ranks
    rule, seen = unranked[0], set[int]()
    while rule not in seen:  # back from one to who calls it: at some time in a circle
        seen.add(rule)
        rule = next(caller for caller in unranked if rule in called[caller])
    raise _Circle(rule)


class Place:
    """Where a text stands in a grammar, perhaps in the middle of a character. A value."""

    __slots__ = ("_network", "half", "state")

    def __init__(self, network: Network, state: State, half: bytes = b"") -> None:
        self._network, self.state, self.half = network, state, half

    @property
    def complete(self) -> bool:
        """May the text end here?"""
        return self.state.complete and not self.half

    @property
    def work(self) -> int:
        """What it took to find out so far, in steps of a microsecond or so, for all places of this grammar."""
        return self._network.work

    @property
    def over(self) -> bool:
        """Must it?"""
        return not self.state.letters and not self.half

    def feed(self, data: bytes) -> Place | None:
        """After these bytes; None: they may not come. Raises `GrammarError` if that cannot be found out."""
        if self.half:
            data = self.half + data
        half = b""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return None
            text, half = data[: error.start].decode(), data[error.start :]
        network, state = self._network, self.state
        kinds, follow = network.kinds, network.follow
        for letter in text:
            code = ord(letter)
            following = follow(state, kinds[code] if code < 256 else network.kind(code))
            if following is None:
                return None
            state = following
        if half and not self._begins(state, half):
            return None
        return Place(network, state, half)

    def _begins(self, state: State, half: bytes) -> bool:
        """May a character with these first bytes come?"""
        low, high = spelled(half)
        first, last = self._network.kind(low), self._network.kind(high)
        return bool(state.letters >> first & ((1 << (last - first + 1)) - 1))


def spelled(half: bytes) -> tuple[int, int]:
    """The first and the last character that begin with these bytes."""
    size = 2 if half[0] < 0xE0 else 3 if half[0] < 0xF0 else 4
    code = half[0] & (0x7F >> size)
    for byte in half[1:]:
        code = code << 6 | byte & 0x3F
    owed = 6 * (size - len(half))
    low = max(code << owed, (0, 0, 0x80, 0x800, 0x10000)[size])
    return low, min((code + 1 << owed) - 1, LAST)
