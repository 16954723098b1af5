"""How likely was each token of the text, and with which letters does it go out?

Rules of this file:

1. Odds are of the model's own numbers, before anything is added to them, cut off them or drawn.
2. They are those of the tokens of the text: not of thoughts, of calls, nor of what stands around them, and not of white
   space that is not said. Of a token that said some letters the client had, only the others are told.
3. A token goes out with its last letter. So if letters wait, because they may begin a stop string or because they are
   half a character, their tokens wait with them; and when a stop string cuts them off, their tokens are not told
   either. When an answer ends in half a character, the tokens of that half are told all the same.
"""

from __future__ import annotations

import codecs
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from appliance.core.events import Odds
from appliance.engine.sampling import Logits
from appliance.engine.vocabulary import Vocabulary

LEAST = -9999.0
"""What is told of a token that could not come."""


def odds(logits: Logits, token: int, new: bytes, others: int, vocabulary: Vocabulary) -> Odds:
    """Those of `token`, whose letters `new` the client does not have yet."""
    highest = logits.max()
    whole = float(highest) + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))
    top = np.argpartition(logits, -others)[-others:] if others else np.array([], dtype=np.intp)
    top = top[np.argsort(-logits[top], kind="stable")]
    return Odds(
        token=new,
        logprob=max(float(logits[token]) - whole, LEAST),
        others=tuple((_named(int(one), vocabulary), max(float(logits[one]) - whole, LEAST)) for one in top),
    )


def _named(token: int, vocabulary: Vocabulary) -> bytes:
    """What ends an answer, or only marks something in it, has no letters but a name."""
    piece = vocabulary.pieces[token]
    if piece:
        return piece
    return next((mark.encode() for mark, one in vocabulary.controls.items() if one == token), b"")


@dataclass(slots=True)
class _Token:
    odds: Odds
    left: int  # letters of which nothing is known yet: text, something else, or not said at all
    begin: int = -1  # the character with the first of its letters that are text,
    end: int = 0  # and the one behind the last


class Ledger:
    """The tokens of one answer whose letters have not gone out yet."""

    def __init__(self) -> None:
        self._drawn: deque[_Token] = deque()
        self._letters = b""  # theirs that are left
        self._waiting: deque[_Token] = deque()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._count = self._sent = 0  # characters of the text that are whole, and that went out

    def draw(self, one: Odds) -> None:
        """A token was drawn."""
        if one.token:
            self._drawn.append(_Token(one, len(one.token)))
            self._letters += one.token

    def hear(self, letters: bytes, *, text: bool) -> None:
        """Of what was drawn these are text, or something else; what was drawn before them is not said at all."""
        at = self._letters.find(letters)
        if at >= 0:
            self._pass(at, None)
            self._pass(len(letters), letters if text else None)

    def _pass(self, count: int, text: bytes | None) -> None:
        self._letters = self._letters[count:]
        done = 0
        while done < count:
            one = self._drawn[0]
            size = min(one.left, count - done)
            if text is not None:
                if one.begin < 0:
                    one.begin = self._count
                    self._waiting.append(one)
                self._count += len(self._decoder.decode(text[done : done + size]))
                one.end = self._count + bool(self._decoder.getstate()[0])
            one.left -= size
            done += size
            if not one.left:
                self._drawn.popleft()

    def send(self, characters: int) -> tuple[Odds, ...]:
        """So many characters of the text go out; with them these."""
        self._sent += characters
        told = []
        while self._waiting and not self._waiting[0].left and self._waiting[0].end <= self._sent:
            told.append(self._waiting.popleft().odds)
        return tuple(told)

    def close(self, *, stopped: bool = False) -> tuple[Odds, ...]:
        """The text is over, for now: all that is left of it, but for what a stop string cut off."""
        told = tuple(token.odds for token in self._waiting if not stopped or token.begin < self._sent)
        self._waiting.clear()
        self._decoder.reset()
        self._sent = self._count
        return told
