"""Which of these words can it still become? For the values of an enum and the keys of an object."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from appliance.core.structure.automaton import DEAD


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
