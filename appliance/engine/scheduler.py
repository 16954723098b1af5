"""Which tokens are computed in the next step?

A request has tokens that are known and tokens that are computed, and every step lets the second catch up with the
first. There is no prefill phase and no decode phase: a request whose answer is being written is one token behind, a
new one is its whole prompt behind, and one that continues a cut answer is a few behind.

Rules:

1. A step computes at most `budget` tokens. The budget is larger than the number of slots, so that something is
   always left for whoever is further behind.
2. Requests that are one token behind come first: somebody is reading along.
3. What is left goes to the one least behind, and what that one does not need to the next: the fewer sequences share a
   step, the larger its parts, and the sooner somebody reads a first word. One that went without for `PATIENCE` steps in
   a row comes first.
4. Shares are in the order of their slots: with a stream of cells per sequence llama.cpp computes only neighbours
   together, in rising order. Eight in falling order took twice as long.
5. Requests wait for a slot in the order they came; when `queue` of them wait, the next is refused. One that goes on
   with an answer somebody is reading comes before all others, and is never refused. Which slot one gets is decided
   elsewhere: see `prefixes.py`.
6. A request ends exactly once, wherever it is: waiting, catching up or being answered. Its slot is free at once.
7. A share ends at the request's boundary, if it has one: there the model's state is saved.
8. Standbys are no requests. They get what no request needs: nothing at all, as long as one has anything to compute.
   See `following.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

SMALLEST_PACE = 16
LARGEST_PACE = 512
LONGEST_STEP = 0.25
"""Seconds. A request that was given up, or a new one, waits for the step that is being computed."""
PATIENCE = 4
EXACT_PACE = 32
"""llama.cpp's flash attention on a CPU takes 64 tokens or more in another way, and with other numbers, than fewer.
Answers are written token by token; a half answer that is read in steps below 64 goes on as if it had never been cut (60
of 60 cuts alike, against 47 with steps of 64: docs/figures.md). Only where speed asks for 128 is speed preferred."""

LARGEST_STANDBY_PACE = 256
LONGEST_STANDBY_STEP = 0.1
"""Seconds. So much later a new request may begin because a standby is being computed."""


def pace(tokens_per_second: float | None) -> int:
    """How many tokens of prompts does a step take, at the measured speed of prefill?"""
    if tokens_per_second is None:
        return EXACT_PACE
    wished = _power(tokens_per_second * LONGEST_STEP, LARGEST_PACE)
    return wished if wished >= 4 * EXACT_PACE else min(wished, EXACT_PACE)


def small_pace(tokens_per_second: float | None) -> int:
    """The same for a standby: somebody real may come at any time."""
    return (
        EXACT_PACE
        if tokens_per_second is None
        else _power(tokens_per_second * LONGEST_STANDBY_STEP, LARGEST_STANDBY_PACE)
    )


def _power(wished: float, most: int) -> int:
    # Powers of two only: steps of another shape compute slightly other numbers, so few shapes make answers that repeat.
    return 1 << (max(SMALLEST_PACE, min(most, int(wished))).bit_length() - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Compute `count` tokens of request `id`, from position `start`, in the sequence `slot`."""

    id: int
    slot: int
    start: int
    count: int


@dataclass(slots=True)
class _Work:
    id: int
    known: int
    boundary: int = 0
    first: bool = False
    computed: int = 0
    slot: int = -1
    without: int = 0  # steps in a row

    @property
    def behind(self) -> int:
        return self.known - self.computed


class Scheduler:
    """Told what requests there are and what was computed, it answers what to compute next."""

    def __init__(self, *, slots: int, queue: int) -> None:
        if slots < 1:
            raise ValueError("an engine needs at least one slot")
        self._slots = slots
        self._queue = queue
        self._running: OrderedDict[int, _Work] = OrderedDict()
        self._waiting: OrderedDict[int, _Work] = OrderedDict()

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def __contains__(self, id: int) -> bool:
        return id in self._running or id in self._waiting

    def __iter__(self) -> Iterator[int]:
        yield from self._running
        yield from self._waiting

    @property
    def idle(self) -> bool:
        """Is there no request at all?"""
        return not self._running and not self._waiting

    @property
    def next(self) -> int | None:
        """The request that waits longest for a slot."""
        return next(iter(self._waiting), None)

    def admit(self, id: int, known: int, *, boundary: int = 0, first: bool = False) -> bool:
        """Take a request with `known` tokens. False: there are too many already; nothing was taken. `first`: somebody
        is reading its answer already."""
        if id in self or known < 1:
            raise ValueError(f"request {id} is already here, or has no tokens")
        if not first and len(self._waiting) >= self._queue + self._slots - len(self._running):
            return False
        self._waiting[id] = _Work(id, known, boundary, first)
        if first:
            for other in [work.id for work in self._waiting.values() if not work.first]:
                self._waiting.move_to_end(other)
        return True

    def seat(self, id: int, slot: int, computed: int = 0) -> None:
        """The waiting request has the slot now, and so many of its tokens are computed there already."""
        work = self._waiting[id]
        if any(other.slot == slot for other in self._running.values()):
            raise ValueError(f"slot {slot} is taken")
        if not 0 <= computed <= work.known:
            raise ValueError("no more tokens can be computed than are known")
        del self._waiting[id]
        work.slot, work.computed = slot, computed
        self._running[id] = work

    def slot(self, id: int) -> int:
        """Where the running request is computed."""
        return self._running[id].slot

    def plan(self, budget: int) -> list[Share]:
        """What to compute now: at most `budget` tokens, each request at most once. Empty: there is nothing to do."""
        if budget <= self._slots:
            raise ValueError("the budget must be larger than the number of slots")
        shares = [self._share(work, 1) for work in self._running.values() if work.behind == 1]
        left = budget - len(shares)
        late = [work for work in self._running.values() if work.behind > 1]
        for work in sorted(late, key=lambda work: (work.without < PATIENCE, work.behind)):
            work.without += 1
            if not left:
                continue
            work.without = 0
            count = min(work.behind, left)
            if work.computed < work.boundary:
                count = min(count, work.boundary - work.computed)
            shares.append(self._share(work, count))
            left -= count
        return sorted(shares, key=lambda share: share.slot)

    def computed(self, id: int, count: int) -> None:
        """`count` more tokens of the request are computed."""
        work = self._running[id]
        if not 0 <= count <= work.behind:
            raise ValueError(f"request {id} was only {work.behind} tokens behind, not {count}")
        work.computed += count

    def know(self, id: int, known: int) -> None:
        """The request has `known` tokens now. Fewer than are computed: the rest was rolled back."""
        work = self._running[id]
        work.known = known
        work.computed = min(work.computed, known)

    def end(self, id: int) -> int | None:
        """The request is over: the slot it had, if it had one. Raises KeyError if it is not here."""
        if id in self._waiting:
            del self._waiting[id]
            return None
        return self._running.pop(id).slot

    @staticmethod
    def _share(work: _Work, count: int) -> Share:
        return Share(id=work.id, slot=work.slot, start=work.computed, count=count)
