"""Where does a new request go, and what of it is computed already?

A sequence of the model holds the tokens that were computed in it. It has a holder, or none, and keeps what it holds
when its holder leaves: the next turn of a conversation begins like the one before, and many conversations begin alike.

Rules:

1. What is reused is the longest common beginning, looked for in all sequences. One that somebody is using can be
   copied from while it runs: only its computed tokens count.
2. A model that rewinds goes back to any position. One that does not keeps all it holds, or goes back to a mark: a
   position whose state was saved. Otherwise it begins anew.
3. A request may take any sequence that no other request has; an urgent standby one that is idle or a standby's that is
   not urgent; any other standby an idle one. Nobody waits for less than that: no such sequence, no seat.
4. Of those the victim is the one whose loss is cheapest: an empty one; a standby that is not urgent; the idle one that
   was used longest ago; an urgent standby.
5. The sequence with the longest match is used in place if it is the victim, or if it is idle and loses next to nothing
   that way, or if no sequence is empty and the match is most of what it holds. Otherwise the victim gets a copy, if
   that saves at least `COPY_WORTH` tokens.
6. Among empty sequences requests sit next to those that are computed already: a gap between two busy ones splits a
   step. Standbys begin from the other end.
7. If it is known what follows a sequence's last token (`tail`), who needs exactly these tokens need not compute the
   last of them again.
8. What a standby left a moment ago is kept from other standbys (`reserved`), unless they lose nothing of it: its
   takeover is on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from appliance.engine.vocabulary import Ids

COPY_WORTH = 64
"""Tokens. A copy moves a whole sequence's memory once, about what computing this many costs a small model."""

MOST_MARKS = 3
LOOK = 64
"""Tokens compared before all the others are: most sequences differ early."""


Tokens = Sequence[int] | Ids


class Holder(IntEnum):
    """Who has a sequence; the higher pushes out the lower."""

    NOBODY = 0
    STANDBY = 1
    URGENT = 2
    REQUEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Go to `slot`: what it holds beyond `reuse` tokens is dropped, after a copy of `copy_from` if that is named."""

    slot: int
    reuse: int
    copy_from: int | None = None


class _Sequence:
    def __init__(self, context: int) -> None:
        self.tokens: Ids = np.zeros(context, np.int32)
        self.length = 0
        self.holder = Holder.NOBODY
        self.used = 0
        self.marks: list[int] = []
        self.tail = False

    def common(self, wanted: Ids) -> int:
        """How many tokens this and `wanted` begin with alike."""
        most = min(self.length, len(wanted))
        for end in (min(LOOK, most), most):
            same = self.tokens[:end] == wanted[:end]
            if not same.all():
                return int(same.argmin())
        return most


class Prefixes:
    """Told what is computed where, it answers where to go on."""

    def __init__(self, *, slots: int, context: int, rewinds: bool) -> None:
        self._sequences = [_Sequence(context) for _ in range(slots)]
        self._rewinds = rewinds
        self._uses = 0

    def length(self, slot: int) -> int:
        return self._sequences[slot].length

    def tokens(self, slot: int) -> list[int]:
        one = self._sequences[slot]
        return list(map(int, one.tokens[: one.length]))

    @property
    def kept(self) -> int:
        """How many sequences hold something for nobody in particular."""
        return sum(one.holder is Holder.NOBODY and one.length > 0 for one in self._sequences)

    # ---------------------------------------------------------------------------------------- what happened

    def take(self, slot: int, holder: Holder) -> None:
        """The sequence has a holder now; it was used now."""
        self._sequences[slot].holder = holder
        self._touch(slot)

    def leave(self, slot: int) -> None:
        """Its holder is gone; what it holds stays."""
        self.take(slot, Holder.NOBODY)

    def computed(self, slot: int, tokens: Sequence[int]) -> None:
        """These tokens were computed behind what the sequence holds."""
        one = self._sequences[slot]
        end = one.length + len(tokens)
        one.tokens[one.length : end] = tokens
        one.length, one.tail = end, False

    def cut(self, slot: int, length: int) -> None:
        """The sequence was rewound and holds its first `length` tokens only."""
        one = self._sequences[slot]
        assert length <= one.length, "nothing was computed up to there"
        one.tail = one.tail and length == one.length
        one.length = length
        one.marks = [mark for mark in one.marks if mark <= length]

    def copied(self, source: int, target: int) -> None:
        one, other = self._sequences[source], self._sequences[target]
        other.tokens[: one.length] = one.tokens[: one.length]
        other.length, other.marks, other.tail = one.length, list(one.marks), one.tail

    def mark(self, slot: int) -> None:
        """The state of the sequence was saved, as it is now. The oldest is forgotten if there are too many."""
        one = self._sequences[slot]
        if one.length not in one.marks:
            one.marks = [*one.marks, one.length][-MOST_MARKS:]

    def tail(self, slot: int) -> None:
        """What follows the last token of the sequence is known, until anything about it changes."""
        self._sequences[slot].tail = True

    def _touch(self, slot: int) -> None:
        self._uses += 1
        self._sequences[slot].used = self._uses

    # ------------------------------------------------------------------------------------------- what to do

    def reach(self, slot: int, wanted: Tokens, most: int | None = None) -> int:
        """How many of the tokens `wanted`, `most` at most, need not be computed in this sequence."""
        ids = np.asarray(wanted, np.int32)
        return self._reach(slot, ids, len(ids) if most is None else most)

    def best(self, wanted: Tokens) -> int:
        """How many of the tokens `wanted` are computed somewhere."""
        ids = np.asarray(wanted, np.int32)
        return max(self._reach(slot, ids, len(ids)) for slot in range(len(self._sequences)))

    def seat(self, wanted: Tokens, *, most: int, holder: Holder, reserved: Collection[int] = ()) -> Seat | None:
        """Where somebody who needs the tokens `wanted` goes, of which `most` at most may be reused; one more if what
        follows it is known. None: nowhere."""
        ids = np.asarray(wanted, np.int32)
        reaches = [self._reach(slot, ids, most) for slot in range(len(self._sequences))]
        free = []
        for slot, one in enumerate(self._sequences):
            spared = slot in reserved and holder is not Holder.REQUEST and one.length - reaches[slot] >= COPY_WORTH
            if one.holder < holder and not spared:
                free.append(slot)
        if not free:
            return None
        victim = min(free, key=lambda slot: self._loss(slot, holder))
        # The most is reused; of two sequences that give as much, a free one, and the one that loses less.
        source = max(
            range(len(reaches)), key=lambda slot: (reaches[slot], slot in free, -self._sequences[slot].length, -slot)
        )
        reuse = reaches[source]
        if source == victim or (source in free and reuse and self._in_place(source, reuse, victim)):
            return Seat(slot=source, reuse=reuse)
        if reuse - reaches[victim] >= COPY_WORTH:
            return Seat(slot=victim, reuse=reuse, copy_from=source)
        return Seat(slot=victim, reuse=reaches[victim])

    def victim(self) -> int | None:
        """The sequence that is least missed if something else is computed in it. None: requests have all of them."""
        free = [slot for slot, one in enumerate(self._sequences) if one.holder < Holder.REQUEST]
        return min(free, key=lambda slot: self._loss(slot, Holder.STANDBY), default=None)

    def _in_place(self, slot: int, reuse: int, victim: int) -> bool:
        one = self._sequences[slot]
        if one.holder is not Holder.NOBODY:
            return False
        lost = one.length - reuse
        return lost < COPY_WORTH or (self._sequences[victim].length > 0 and lost <= reuse)

    def _reach(self, slot: int, ids: Ids, most: int) -> int:
        one = self._sequences[slot]
        common = one.common(ids[: most + 1])
        if common == one.length == most + 1 and one.tail:
            return common
        common = min(common, most)
        if self._rewinds or common == one.length:
            return common
        return max((mark for mark in one.marks if mark <= common), default=0)

    def _loss(self, slot: int, holder: Holder) -> tuple[int, int, int]:
        one = self._sequences[slot]
        if one.holder is Holder.NOBODY and not one.length:
            if holder is not Holder.REQUEST:
                return (0, 0, -slot)
            near = [abs(slot - other) for other, busy in enumerate(self._sequences) if busy.holder is Holder.REQUEST]
            return (0, min(near, default=0), slot)
        return ({Holder.STANDBY: 1, Holder.NOBODY: 2, Holder.URGENT: 3}[one.holder], one.used, slot)
