"""What the model's tokens are, as values: their bytes, which end an answer, which are marks of the template."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """`pieces` holds the bytes a token adds to an answer: none for control tokens. `controls` holds the text of
    control and unknown tokens, `named` that of tokens somebody added by name: both would be recognized in a text
    that is tokenized as a template; only the named ones are also recognized in plain text. Of both, `swallows` are
    those that take white space in front of them away."""

    pieces: tuple[bytes, ...]
    ends: frozenset[int]
    controls: Mapping[str, int]
    named: Mapping[str, int]
    bos: int | None
    eos: int | None
    bos_text: str
    eos_text: str
    add_bos: bool
    swallows: frozenset[str] = frozenset()
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", max((len(piece) for piece in self.pieces), default=1) or 1)

    def __len__(self) -> int:
        return len(self.pieces)

    def bytes(self, tokens: list[int]) -> bytes:
        return b"".join(self.pieces[token] for token in tokens)


class Index:
    """Which tokens agree with these letters? Built once per model; a question never looks through the vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        usable = [
            (piece, token) for token, piece in enumerate(vocabulary.pieces) if piece and token not in vocabulary.ends
        ]
        usable.sort()
        self._pieces = [piece for piece, _ in usable]
        self._ids: Ids = np.array([token for _, token in usable], dtype=np.int32)
        self.ends: Ids = np.array(sorted(vocabulary.ends), dtype=np.int32)
        """The tokens that end an answer."""

    def agreeing(self, letters: bytes) -> Ids:
        """The tokens that begin with `letters` or are a beginning of them. `letters` must not be empty."""
        return np.concatenate([self._range(letters, _after(letters)), self.beginnings(letters[:-1])])

    def beginnings(self, letters: bytes) -> Ids:
        """The tokens that are a beginning of `letters`, or all of them."""
        parts = [self._range(letters[:length], letters[:length] + b"\0") for length in range(1, len(letters) + 1)]
        return np.concatenate(parts) if parts else np.array([], dtype=np.int32)

    def _range(self, first: bytes, end: bytes | None) -> Ids:
        """The tokens whose bytes sort from `first` up to before `end`."""
        low = bisect_left(self._pieces, first)
        high = len(self._pieces) if end is None else bisect_left(self._pieces, end, low)
        return self._ids[low:high]


def _after(letters: bytes) -> bytes | None:
    """The smallest bytes that sort behind everything that begins with `letters`; None: nothing does."""
    stem = letters.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None
