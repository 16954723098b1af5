"""Is this answer bad rather than dead: does it repeat itself without end, is it mangled, is it empty?

A `Taste` is told the text of one answer as it comes, and complains of each kind at most once. A complaint proves
nothing by itself, since people also ask for a word a thousand times; several in a row tell that a cloud is not well.

Rules of this file:

1. Better late than wrong. What repeats without end will still do so a thousand characters later; so the numbers are
   such that tables, rules, drawings, zeros in base64 and the same row of data again do not reach them.
2. Repetition is exact: a passage of 1 to 200 characters that comes again and again to the end of what there is. Prose
   is held to less than signs, numbers and single words, which tables and code are made of.
3. Mangled is what was decoded wrongly on its way: replacement characters, halves of surrogate pairs, control
   characters; or UTF-8 that was read as Latin-1 or its kin ("Ã©", "â€™"), where nearly everything beyond ASCII is of
   that sort. Who writes *about* such text also writes it rightly.
4. Looked at in steps of 256 characters wherever the pieces are cut, with the last 2,048 kept: a piece costs an append,
   and the same text gives the same complaints however it came.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Literal

Flaw = Literal["repetition", "mangled", "empty"]

STEP = 256
KEPT = 2048
LONGEST = 200  # characters of a passage that repeats
SEEN_TWICE = 32  # characters that must have been there a moment ago, before anything is compared
SURE = 2 * LONGEST
"""Characters that show the shortest passage they consist of: with two periods a text of at least their sum has their
common divisor as one (Fine and Wilf, 1965)."""

PROSE, PROSE_TIMES = 800, 12
BLANK = 1000  # white space: what models in JSON mode do when they lose their way
SIGNS = 4000

LOST = 10  # characters, in what is kept
GARBLED = 8  # likewise
GARBLED_SHARE = 0.8  # of the characters beyond ASCII that were meant

_WORD = re.compile(r"[^\W\d_]+")
_IDEOGRAPH = re.compile(r"[\u2e80-\ud7ff]")
_VISIBLE = re.compile(r"[^\s\u200b-\u200d\u2060\ufeff]")
_ODD = re.compile(r"[^\t-\r\x1b -~]+")  # other than ASCII's letters, signs, feeds and escape
_LOST = re.compile(r"[\x00-\x1f\x7f\ufffd\ud800-\udfff]")

# The bytes of one character, each read as one. Those from 80 to 9f are other characters in Windows-1252.
_REST = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # noqa: RUF001
_GARBLED = re.compile(f"[ÂÃÄÅÎÏÐÑØÙ]{_REST}|[à-ï]{_REST}{{2}}|ð{_REST}{{3}}")

_NOTHING = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What is wrong. `says` is the end of a sentence that begins with who answered, without any of the text."""

    flaw: Flaw
    says: str


class Taste:
    """The text of one answer."""

    __slots__ = ("_due", "_looks", "_marred", "_period", "_pieces", "_run", "_silent", "_tail", "_waiting")

    def __init__(self) -> None:
        self._pieces: list[str] = []  # not looked at yet
        self._waiting = 0  # characters in them
        self._tail = ""  # of what was looked at
        self._period = 0
        self._run = 0  # characters at the end that consist of one passage, if it is known
        self._marred: deque[tuple[int, int, int]] = deque(maxlen=KEPT // STEP)
        self._silent = True  # nothing visible so far
        self._looks: set[Flaw] = {"repetition", "mangled"}
        self._due: list[Complaint] = []

    def tell(self, text: str) -> Complaint | None:
        """More of the answer came."""
        if not text:
            return None
        self._pieces.append(text)
        self._waiting += len(text)
        return None if self._waiting < STEP else self._look()

    def finish(self) -> Complaint | None:
        """The answer has ended. It may have more than one flaw: ask until there is none."""
        if self._waiting:
            rest, self._pieces, self._waiting = "".join(self._pieces), [], 0
            for start in range(0, len(rest), STEP):
                self._read(rest[start : start + STEP])
        if self._silent:
            self._silent = False
            self._due.append(Complaint(flaw="empty", says="ended its answer without a visible character"))
        return self._due.pop(0) if self._due else None

    def _look(self) -> Complaint | None:
        text = "".join(self._pieces)
        whole = len(text) - len(text) % STEP
        for start in range(0, whole, STEP):
            self._read(text[start : start + STEP])
        rest = text[whole:]
        self._pieces, self._waiting = [rest], len(rest)
        return self._due.pop(0) if self._due else None

    def _read(self, step: str) -> None:
        if self._silent and _VISIBLE.search(step):
            self._silent = False
        if "repetition" in self._looks:
            self._compare(step)
        if "mangled" in self._looks:
            self._inspect(step)

    # ---------------------------------------------------------------------------------------------------- repetition

    def _compare(self, step: str) -> None:
        self._tail = tail = (self._tail + step)[-KEPT:]
        length = len(tail)
        if tail.rfind(tail[-SEEN_TWICE:], max(0, length - SEEN_TWICE - LONGEST), length - 1) < 0:
            self._run = 0
            return
        at = tail.rfind(tail[-SURE:], max(0, length - SURE - LONGEST), length - 1)
        if at < 0 or length < SURE:
            self._run = 0
            return
        period = length - SURE - at
        run = _run(tail, period)
        if run == length and self._run and period == self._period:
            run = self._run + len(step)  # it began before what is kept
        self._period, self._run = period, run
        if run >= _enough(tail[-2 * period :], period):
            self._looks.discard("repetition")
            self._tail = ""
            says = f"repeated a passage of {period} characters {run // period} times in a row"
            self._due.append(Complaint(flaw="repetition", says=says))

    # ------------------------------------------------------------------------------------------------------- mangled

    def _inspect(self, step: str) -> None:
        marred = _marred(step)
        self._marred.append(marred)
        if not (marred[0] or marred[1]):
            return
        lost, garbled, fine = (sum(column) for column in zip(*self._marred, strict=True))
        if lost >= LOST:
            says = f"sent {lost} characters among {KEPT:,} that are none"
        elif garbled >= GARBLED and garbled >= GARBLED_SHARE * (garbled + fine):
            says = f"sent text in a wrong encoding: {garbled} garbled characters among {KEPT:,}"
        else:
            return
        self._looks.discard("mangled")
        self._due.append(Complaint(flaw="mangled", says=says))


def _run(text: str, period: int) -> int:
    """How many characters at the end of `text` have this period?"""
    end = len(text)
    least, most = 0, end - period
    while least < most:
        middle = (least + most + 1) // 2
        if text[end - middle :] == text[end - middle - period : end - period]:
            least = middle
        else:
            most = middle - 1
    return least + period


def _enough(twice: str, period: int) -> int:
    """How many characters of a passage, given `twice`, does no sane answer have? It may begin inside a word."""
    if twice.isspace():
        return BLANK
    words = _WORD.findall(twice)
    letters = sum(map(len, words))
    spaces = sum(map(str.isspace, twice))
    several = len(set(words[1:-1])) >= 3 or len(set(_IDEOGRAPH.findall(twice))) >= 4
    if several and letters + spaces >= 0.75 * len(twice) and letters >= 0.5 * len(twice):
        return max(PROSE, PROSE_TIMES * period)
    return SIGNS


def _marred(step: str) -> tuple[int, int, int]:
    """Characters that are lost, that are garbled, and all others that are not ordinary ASCII."""
    odd = _ODD.findall(step)
    if not odd:
        return _NOTHING
    text = " ".join(odd)
    garbled = _GARBLED.findall(text)
    others = len(text) - len(odd) + 1 - sum(map(len, garbled))
    return len(_LOST.findall(text)), len(garbled), others
