"""Which tokens keep to the grammar that the answer has to keep to?

Rules of this file:

1. A token that was drawn freely is tested alone. Only if it may not come are others looked for, the likeliest first;
   the vocabulary is walked only if these are not enough, and what was found there is remembered.
2. A walk has so many `STEPS`: of a vocabulary in which nearly everything may come, the likely ones are known anyway.
   And a grammar that takes too much work, for one token or for what came of the answer so far, ends the answer.
3. Whoever asks for an end gets one only where the grammar may end. Tokens without letters keep to nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from appliance.core.gbnf import GrammarError, Place
from appliance.engine.job import Refusal
from appliance.engine.vocabulary import Ids, Vocabulary

LIKELY = 1024
STEPS = 60_000
MOST_KNOWN = 64
WORK = 2_000_000  # for an answer, in steps of its grammar,
WORK_PER_BYTE = 2_000
WORK_AT_ONCE = 200_000


class Spelling:
    """The letters of a vocabulary's tokens, in their order. Made once for a model, when it is first needed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @cached_property
    def tokens(self) -> list[tuple[bytes, int]]:
        pieces, ends = self.vocabulary.pieces, self.vocabulary.ends
        return sorted((piece, token) for token, piece in enumerate(pieces) if piece and token not in ends)

    @cached_property
    def ends(self) -> list[int]:
        return sorted(self.vocabulary.ends)


class Keeper:
    """One answer. `place` is where it stands in its grammar."""

    def __init__(self, spelling: Spelling, place: Place) -> None:
        self._spelling, self._place = spelling, place
        self._pieces, self._ends = spelling.vocabulary.pieces, spelling.vocabulary.ends
        self._known: OrderedDict[tuple[object, bytes], Ids] = OrderedDict()
        self._granted = place.work + WORK

    @property
    def over(self) -> bool:
        """Nothing more may come."""
        return self._place.over

    def take(self, letters: bytes) -> None:
        """These came."""
        place = self._feed(self._place, letters)
        assert place is not None, "a token was drawn that may not come"
        self._place = place
        self._granted += WORK_PER_BYTE * len(letters)
        if place.work > self._granted:
            raise _refusal("takes too much time to follow")

    def allows(self, token: int, owed: int = 0) -> bool:
        """May it come? Its first letters, so many of them, are there already."""
        if token in self._ends:
            return self._place.complete
        piece = self._pieces[token]
        return bool(piece) and self._feed(self._place, piece[owed:]) is not None

    def among(self, logits: NDArray[np.float32], ids: Ids | None, owed: int, enough: int | None) -> Ids:
        """The tokens that may come, of `ids`, whose `logits` are given in the same order; None: of all. So many of the
        likeliest are `enough`."""
        some = LIKELY if ids is None else len(ids)
        order = np.argpartition(logits, -some)[-some:] if some < len(logits) else np.arange(len(logits))
        order = order[np.argsort(-logits[order], kind="stable")]
        found: list[int] = []
        most = self._place.work + WORK_AT_ONCE
        for token in (order if ids is None else ids[order]).tolist():
            if self.allows(token, owed):
                found.append(token)
                if len(found) == enough:
                    break
            if self._place.work > most:
                if not found:
                    raise _refusal("takes too much time to follow")
                break
        else:
            if ids is None and some < len(logits):
                return np.union1d(self._walked(), np.array(found, dtype=np.int32)).astype(np.int32)
        return np.array(found, dtype=np.int32)

    def _walked(self) -> Ids:
        key = (self._place.state, self._place.half)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = np.array(self._walk(), dtype=np.int32)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known

    def _walk(self) -> list[int]:
        tokens = self._spelling.tokens
        found = list(self._spelling.ends) if self._place.complete else []
        at, steps, most = 0, STEPS, self._place.work + WORK_AT_ONCE
        path: list[tuple[bytes, Place]] = [(b"", self._place)]
        while at < len(tokens) and steps > 0 and self._place.work <= most:
            piece, token = tokens[at]
            while not piece.startswith(path[-1][0]):
                path.pop()
            begun, place = path[-1]
            following: Place | None = place
            for end in range(len(begun) + 1, len(piece) + 1):
                steps -= 1
                following = self._feed(place, piece[end - 1 : end])
                if following is None:
                    at = self._behind(piece[:end], at)
                    break
                place = following
                path.append((piece[:end], place))
            if following is not None:
                found.append(token)
                at += 1
        return found

    def _behind(self, letters: bytes, at: int) -> int:
        """The first token that does not begin with these."""
        return bisect_left(self._spelling.tokens, True, at, key=lambda token: not token[0].startswith(letters))

    def _feed(self, place: Place, letters: bytes) -> Place | None:
        try:
            return place.feed(letters)
        except GrammarError as error:
            raise _refusal(str(error)) from error


def _refusal(why: str) -> Refusal:
    return Refusal("request", f"The grammar {why}.", param="grammar")
