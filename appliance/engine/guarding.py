"""No text of a caller's becomes a token of the template's: it is hidden while the template works.

Rules:

1. Wherever the text of a control token stands in what a caller said, in a value or in a key of it, a private mark takes
   its place before the template sees it.
2. The marks occur nowhere in what was said, and are found again in what was rendered.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

OPEN, SHUT = "\ue000", "\ue001"
"""Letters of the private use area: the marks that stand for guarded text."""


def pattern(guarded: Collection[str]) -> re.Pattern[str] | None:
    """What finds these texts. None: there is nothing to find."""
    # The longest first: one mark's text may begin another's.
    longest_first = sorted(guarded, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first))) if guarded else None


class Marks:
    """Guarded text, replaced by marks that occur nowhere in the conversation, and found again."""

    def __init__(self, guarded: re.Pattern[str] | None, said: Any) -> None:
        self._guarded = guarded
        self._texts: list[str] = []
        # One letter more than the whole conversation has: no leaf, and no two side by side, can look like a mark.
        self._open = OPEN * (1 + sum(leaf.count(OPEN) for leaf in _leaves(said)))
        self._mark = re.compile(f"{self._open}([0-9]+){SHUT}")

    def guard(self, value: Any) -> Any:
        """The same value, with every guarded text in any of its strings replaced."""
        if isinstance(value, str):
            return self._guarded.sub(self._replace, value) if self._guarded else value
        if isinstance(value, Mapping):
            return {self.guard(key): self.guard(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.guard(one) for one in value]
        return value

    def _replace(self, match: re.Match[str]) -> str:
        self._texts.append(match.group())
        return f"{self._open}{len(self._texts) - 1}{SHUT}"

    def split(self, rendered: str) -> list[tuple[str, bool]]:
        """(text, plain?) in order."""
        if not self._texts:
            return [(rendered, False)]
        pieces: list[tuple[str, bool]] = []
        for index, part in enumerate(self._mark.split(rendered)):
            if index % 2:
                pieces.append((self._texts[int(part)], True))
            elif part:
                pieces.append((part, False))
        return pieces


def _leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for pair in value.items() for one in pair for leaf in _leaves(one)]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return []
