"""Text between two marks of a template is tokenized once.

llama.cpp cuts a text at its control tokens first and tokenizes what is between them piece by piece. So a text may be
cut there beforehand, and what a conversation said before need not be tokenized again when it goes on.

Rules:

1. A cut is made only in front of a control token that the template uses, that no other token known by name overlaps
   with, and that leaves white space before it alone. Then the tokens are the same as without the cut.
2. A control token stays with the text behind it: it may change how that text begins.
3. What was used longest ago is forgotten first; `ROOM` characters are remembered.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Collection
from typing import Protocol

from appliance.engine.vocabulary import Vocabulary

ROOM = 4 << 20


class Tokenizer(Protocol):
    def tokenize(self, text: str, *, template: bool = False) -> list[int]: ...


class Pieces:
    """Tokenizes what a template rendered, and remembers it."""

    def __init__(self, tokenizer: Tokenizer, cuts: Collection[str], *, room: int = ROOM) -> None:
        self._tokenizer = tokenizer
        self._cut = re.compile(f"(?={'|'.join(map(re.escape, sorted(cuts)))})") if cuts else None
        self._room = self._left = room
        self._known: OrderedDict[str, array[int]] = OrderedDict()

    def tokens(self, text: str) -> list[int]:
        """The tokens of `text`, in which control tokens are recognized."""
        pieces = self._cut.split(text) if self._cut else [text]
        tokens: list[int] = []
        for piece in filter(None, pieces):
            tokens += self._piece(piece)
        return tokens

    def _piece(self, piece: str) -> array[int]:
        tokens = self._known.get(piece)
        if tokens is not None:
            self._known.move_to_end(piece)
            return tokens
        tokens = array("i", self._tokenizer.tokenize(piece, template=True))
        if len(piece) <= self._room:
            self._known[piece] = tokens
            self._left -= len(piece)
        while self._left < 0:
            self._left += len(self._known.popitem(last=False)[0])
        return tokens


def cuts(vocabulary: Vocabulary, template: str) -> list[str]:
    """The control tokens in front of which a text that `template` rendered may be cut."""
    used = [mark for mark in vocabulary.controls if mark in template]
    used += {vocabulary.bos_text, vocabulary.eos_text} & vocabulary.controls.keys() - set(used)
    others = {*vocabulary.controls, *vocabulary.named}
    return [
        mark
        for mark in used
        if mark not in vocabulary.swallows and not any(_overlap(mark, other) for other in others if other != mark)
    ]


def _overlap(one: str, other: str) -> bool:
    """Could the two share letters of a text?"""
    if one in other or other in one:
        return True
    return any(
        one.endswith(other[:length]) or other.endswith(one[:length]) for length in range(1, min(len(one), len(other)))
    )
