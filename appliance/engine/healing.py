"""How does an answer go on from text that somebody else wrote, cut anywhere?

The client has the text; the model thinks in tokens. Tokenizing "The weath" gives tokens that the model would never
have written, and what it writes after them is bad. So the last tokens are given back, and the model draws them anew
among those that agree with the letters the client already has.

Rules:

1. Given back: the last tokens up to and including the last one that begins a word, but never more than 8 tokens or
   32 bytes, and at least one. Until a word begins, the tokens depend on letters that come later; before it they do not.
2. The given-back tokens are a draft: they are computed in one batch with what comes before them. At each position the
   model draws among the tokens that agree with the letters still owed. If it draws the draft's token the draft
   goes on; if not, the rest of the draft is rolled back.
3. While letters are owed, no end and no control token may be drawn.
4. What the drawn tokens say beyond the owed letters is the first new text: nothing is repeated, nothing is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.engine.vocabulary import Ids, Index

MOST_TOKENS = 8
MOST_BYTES = 32
SPACE = b" \t\r\n"
BLANKS = b" \t"
ASCII = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Committed text as tokens: `kept` are certain, `draft` is given back, `owed` are the letters the draft says."""

    kept: tuple[int, ...]
    draft: tuple[int, ...]
    owed: bytes


def cut(tokens: Sequence[int], pieces: Sequence[bytes], text: bytes) -> Cut:
    """Give the last of `tokens`, which say `text`, back to where a word begins.

    Some tokenizers add a space in front, or change letters. Then the tokens that still say the beginning of the text
    are kept, and all the rest of the text is owed.
    """
    said = b"".join(pieces[token] for token in tokens)
    if said not in (text, b" " + text):
        return _mended(tokens, pieces, text)
    back = given_back([pieces[token] for token in tokens])
    kept, draft = tuple(tokens[: len(tokens) - back]), tuple(tokens[len(tokens) - back :])
    return Cut(kept=kept, draft=draft, owed=b"".join(pieces[token] for token in draft))


def given_back(said: Sequence[bytes]) -> int:
    """How many of the last tokens to give back."""
    size = 0
    for count in range(1, len(said) + 1):
        piece, before = said[-count], said[-count - 1] if count < len(said) else b""
        size += len(piece)
        if count > MOST_TOKENS or (size > MOST_BYTES and count > 1):
            return count - 1
        if _begins_word(piece, before):
            return count
    return len(said)


def _begins_word(piece: bytes, before: bytes) -> bool:
    """White space and then a letter, or a letter behind a mark or a new line. A letter behind a space that is a token
    by itself is none: whoever writes a word wrote the space with it."""
    bare = piece.lstrip(SPACE)
    if not bare or not _letter(bare[0]):
        return False
    if len(bare) < len(piece) or not before:
        return True
    return not _letter(before[-1]) and before[-1] not in BLANKS


def _letter(byte: int) -> bool:
    """A letter or a digit; any byte of a character beyond ASCII counts as one."""
    return byte > ASCII or bytes([byte]).isalnum()


def _mended(tokens: Sequence[int], pieces: Sequence[bytes], text: bytes) -> Cut:
    kept: list[int] = []
    at = 0
    for token in tokens:
        piece = pieces[token]
        if not kept and piece[:1] == b" " and text[:1] != b" " and piece[1:]:
            piece = piece[1:]
        if not piece or not text.startswith(piece, at):
            break
        kept.append(token)
        at += len(piece)
    if at == len(text) and kept:
        at -= len(pieces[kept.pop()])
    return Cut(kept=tuple(kept), draft=(), owed=text[max(at, 0) :])


class Seam:
    """The letters the client has and the model still owes. It is told the drawn tokens and answers what is new."""

    def __init__(self, index: Index, owed: bytes = b"") -> None:
        self._index = index
        self.owed = owed

    def allowed(self) -> Ids | None:
        """The tokens that may be drawn now; None: any. Empty: no token of this vocabulary says these letters."""
        return self._index.agreeing(self.owed) if self.owed else None

    def take(self, piece: bytes) -> bytes:
        """A token with these bytes was drawn: the bytes of it that are new to the client."""
        owed = self.owed
        if not owed:
            return piece
        if owed.startswith(piece):
            self.owed = owed[len(piece) :]
            return b""
        assert piece.startswith(owed), "a token was drawn that contradicts what the client has"
        self.owed = b""
        return piece[len(owed) :]
