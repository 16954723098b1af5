"""What is read of a conversation that does not fit?

Rules:

1. What has to lose something loses so much that the answer has room: a quarter of the context, 256 tokens at least,
   half of it at most. While an answer grows the room grows in steps, so that the prompt seldom becomes another.
2. First go the oldest turns; then, inside the last turn, the oldest steps between its question and now: the question
   and what the tools answered last are what the next word depends on.
3. If system messages and the last turn alone are too much, the system messages keep their beginning: half of the
   room, whatever else is said. So the next turn is cut at the same place, and what was computed of it counts again.
   Only a last turn that needs more leaves them a quarter.
4. If that is not enough, the texts of the last turn keep their beginning and, twice as much, their end, all down to
   one level: short ones stay whole.
5. Where something was cut stands a mark.
6. No text is looked at further than it could be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Protocol

from appliance.engine.job import Template

LEAST_ANSWER = 256
MARK = "[...]"
MARKED = 6
"""Tokens, about, of a mark and the lines it stands between."""
FEWEST = 16
"""Tokens. What would keep less of a text is not worth it."""
FRAMED = 8
"""Tokens, about, that a template puts around a message."""
REACH = 16
"""Letters for each token that is wanted: so far a text is looked at."""
EDGE = 40
"""Letters in which the end of a line or of a word is looked for."""


class Tokenizer(Protocol):
    def tokenize(self, text: str, *, template: bool = False) -> list[int]: ...


def budgets(context: int, committed: int) -> tuple[int, ...]:
    """Tokens for the conversation beside `committed` tokens of answer: the best choice, and what is left otherwise."""
    room = context - committed - 1
    least = min(max(LEAST_ANSWER, context // 4), context // 2)
    step = max(1, least // 2)
    free = max(least, -(-(committed + step) // step) * step)
    return (context - 1 - free, room // 256 * 128, room)


def fewer(messages: Sequence[Template]) -> list[Sequence[Template]]:
    """The conversation without its oldest turn, without its two oldest, ... down to system messages and the last; then
    the last without its oldest steps. A step is what the assistant said, with what its tools answered."""
    begins = _begins(messages)
    first = next((index for index, message in enumerate(messages) if not _is_system(message)), len(messages))
    choices: list[Sequence[Template]] = []
    for begin in begins:
        if begin > first:
            choices.append([*filter(_is_system, messages[:begin]), *messages[begin:]])
    behind = begins[-1] + 1 if begins else first
    before = [*filter(_is_system, messages[:behind]), *(messages[question] for question in begins[-1:])]
    for begin in range(behind + 1, len(messages)):
        if messages[begin].get("role") == "assistant":
            choices.append([*before, *filter(_is_system, messages[behind:begin]), *messages[begin:]])
    return choices


def _begins(messages: Sequence[Template]) -> list[int]:
    """Where the turns begin. What a user's message says behind what a tool answered belongs to that answer: an agent
    sends both at once, and the question it works on is older."""
    begins, before = [], None
    for index, message in enumerate(messages):
        if _is_system(message):
            continue
        if message.get("role") == "user" and before != "tool":
            begins.append(index)
        before = message.get("role")
    return begins


def level(sizes: Collection[int], room: int) -> int:
    """How high may each of these be, so that all of them together fit into `room`?"""
    rising = sorted(sizes)
    below = [0, *accumulate(rising)]
    for index, size in enumerate(rising):
        rest = (room - below[index]) // (len(rising) - index)
        if rest < size:
            return max(0, rest)
    return rising[-1] if rising else 0


class Shears:
    """Cuts texts to so many tokens of one vocabulary, about."""

    def __init__(self, tokenizer: Tokenizer, pieces: Sequence[bytes]) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces

    def size(self, text: str, room: int) -> int:
        """Its tokens; more than `room` for any text that is looked at in part only."""
        return room + 1 if len(text) > REACH * room else len(self._tokenizer.tokenize(text))

    def system(self, messages: Sequence[Template], room: int) -> Sequence[Template]:
        """The conversation with as much of the beginning of its system messages as fits into `room`."""
        kept: list[Template] = []
        for message in messages:
            if not _is_system(message) or not isinstance(message.get("content"), str):
                kept.append(message)
                continue
            size = self.size(message["content"], room)
            if size <= room:
                kept.append(message)
            elif room >= FEWEST:
                kept.append({**message, "content": self.beginning(message["content"], room)})
            room = max(0, room - size)
        changed = len(kept) != len(messages) or any(one is not other for one, other in zip(kept, messages, strict=True))
        return kept if changed else messages

    def others(self, messages: Sequence[Template], room: int) -> Sequence[Template] | None:
        """The conversation with all texts but the system's cut to one level, so that all texts fit into `room`. None:
        too little would be left of them."""
        sizes = [self.size(_content(message), max(room, FEWEST)) for message in messages]
        room -= sum(size for size, message in zip(sizes, messages, strict=True) if _is_system(message))
        others = [size for size, message in zip(sizes, messages, strict=True) if not _is_system(message)]
        most = level(others, room)
        if most < FEWEST and any(size > most for size in others):
            return None
        return [
            message
            if size <= most or _is_system(message)
            else {**message, "content": self.ends(_content(message), most)}
            for size, message in zip(sizes, messages, strict=True)
        ]

    def beginning(self, text: str, most: int) -> str:
        """The beginning of a text that is longer than `most` tokens, and the mark."""
        return f"{self._head(text, most - MARKED)}\n{MARK}"

    def ends(self, text: str, most: int) -> str:
        """The beginning and the end of a text that is longer than `most` tokens, and the mark between them."""
        first = (most - MARKED) // 3
        return f"{self._head(text, first)}\n{MARK}\n{self._tail(text, most - MARKED - first)}"

    def _head(self, text: str, most: int) -> str:
        near = text[: REACH * most]
        head = near[: self._letters(self._tokenizer.tokenize(near)[:most])]
        at = max(head.rfind("\n", len(head) - EDGE), head.rfind(" ", len(head) - EDGE)) if len(head) > EDGE else -1
        return head[:at].rstrip() if at > 0 else head

    def _tail(self, text: str, most: int) -> str:
        near = text[-REACH * most :]
        tail = near[len(near) - self._letters(self._tokenizer.tokenize(near)[-most:]) :]
        places = [at for at in (tail.find("\n", 0, EDGE), tail.find(" ", 0, EDGE)) if at >= 0]
        return tail[min(places) :].lstrip() if places and len(tail) > EDGE else tail

    def _letters(self, tokens: Sequence[int]) -> int:
        return len(b"".join(self._pieces[token] for token in tokens).decode("utf-8", "ignore"))


def _is_system(message: Template) -> bool:
    return message.get("role") == "system"


def _content(message: Template) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
