"""What goes out of an answer: text, thoughts, calls and their arguments, each in whole characters.

Stop strings are looked for in text only, and what waits because it may become one goes out when the text ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from appliance.core.events import Odds
from appliance.engine.odds import Ledger
from appliance.engine.shape import Said
from appliance.engine.text import Stream

Kind = Literal["text", "reasoning", "call", "rest", "arguments"]


@dataclass(slots=True)
class Piece:
    """Something to be sent; of a call `text` is the name, or the rest of one, and `call` its number in the answer. A
    text has the `odds` of the tokens that are complete with it, if they were asked for; there may be no letters left
    that they stand for."""

    kind: Kind
    text: str = field(repr=False)
    call: int = 0
    odds: tuple[Odds, ...] = ()


class Voice:
    """One answer's letters in, the pieces that may be sent out. `committed` is the text in front of it, and `ledger`
    has the odds of its tokens, if they are asked for."""

    def __init__(self, stops: Sequence[str] = (), committed: str = "", ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self._text = Stream(stops, committed)
        self._other = Stream()
        self._at: tuple[str, int] = ("text", 0)

    @property
    def stop(self) -> str | None:
        """The stop string that is complete."""
        return self._text.stop

    def hear(self, letters: bytes) -> list[Piece]:
        """More text."""
        text = self._text.feed(letters)
        if self.ledger is None:
            return [Piece("text", text)] if text else []
        self.ledger.hear(letters, text=True)
        odds = self.ledger.send(len(text))
        if self.stop is not None:
            odds += self.ledger.close(stopped=True)
        return [Piece("text", text, odds=odds)] if text or odds else []

    def tell(self, said: Iterable[Said]) -> list[Piece]:
        """Letters of any kind; nothing more comes out behind a stop string."""
        pieces: list[Piece] = []
        for one in said:
            if self.stop is not None:
                break
            if (one.kind, one.call) != self._at:
                pieces += self.close()
                self._at = one.kind, one.call
            if one.kind == "text":
                pieces += self.hear(one.data)
                continue
            if self.ledger is not None:
                self.ledger.hear(one.data, text=False)
            if one.kind == "name" or one.kind == "rest":
                kind: Kind = "call" if one.kind == "name" else "rest"
                pieces.append(Piece(kind, one.data.decode("utf-8", "replace"), one.call))
            elif text := self._other.feed(one.data):
                pieces.append(Piece(one.kind, text, one.call))
        return pieces

    def close(self) -> list[Piece]:
        """What was being said is over: the letters that were waiting."""
        self._other = Stream()
        text = self._text.close()
        odds = self.ledger.close() if self.ledger is not None and self.stop is None else ()
        return [Piece("text", text, odds=odds)] if text or odds else []
