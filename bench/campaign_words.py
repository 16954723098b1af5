"""Words that say who wrote them and where they stand, and documents that are ended in one known way.

Every text is a row of segments, one for each author that had a part in it. Whoever goes on from what others wrote
begins with a mark: how many characters there were, and their checksum. Then come numbered words, and a last one that
says that the segment is whole. So a single character that is lost, repeated or moved can be told from the text alone.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# This checkout is the one that is measured. Everybody here begins with this file; `common` would cost the engine's
# process half a second.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from appliance.core.structure import SchemaError, State, grammar_of, shortest, start

FIRST, SECOND, BOX = "c", "d", "b"
"""The authors: the first cloud, the second, and the scripted engine."""
ADORNED = ("", ",", " caf\u00e9", " \U0001f30a", "\n", ' "q"', " \\u00", "\u2028", " {", "\t")
OPENS = "\u27e6"
"""Begins a mark, and stands nowhere else."""
HINT = re.compile(r"#(\d+) words=(\d+) calls=(\d+) thinks=(\d) dies=(-?\d+)#")
DIARY = "diary.jsonl"
ANY = '{"type": "object"}'


class Astray(ValueError):
    """What was written is the beginning of no document of this kind."""


def checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def mark(author: str, before: str) -> str:
    """Stands where `author` goes on from `before`."""
    return f"{OPENS}{author}{len(before)}:{checksum(before)}\u27e7"


def words(author: str, key: int, count: int) -> str:
    """A whole segment."""
    said = [f"{author}{key}.{at}{ADORNED[(at * 7 + key) % len(ADORNED)]}" for at in range(count)]
    return " ".join([*said, f"/{author}{key}"])


def thought(author: str, key: int, count: int) -> str:
    return " ".join(f"{author}~{key}.{at}" for at in range(count)) + "."


@dataclass(frozen=True, slots=True)
class Segment:
    """What one author wrote, from the character number `at`; `marked`, as it goes on from what others wrote."""

    author: str
    at: int
    text: str
    marked: bool

    def whole(self, before: str, key: int, count: int) -> str:
        """What it would be if nothing had stopped it."""
        return mark(self.author, before[: self.at]) + words(self.author, key, count)


def segments(text: str) -> Iterator[Segment]:
    """The part before the first mark has none, and its author is its first letter."""
    places = [at for at, letter in enumerate(text) if letter == OPENS]
    if text and places[:1] != [0]:
        yield Segment(text[0], 0, text[: places[0]] if places else text, False)
    for at, end in zip(places, [*places[1:], len(text)], strict=False):
        yield Segment(text[at + 1 : at + 2], at, text[at:end], True)


# --------------------------------------------------------------------------------------------------- documents


def complete(schema: str, begun: str) -> str:
    """The rest of a document of `schema`, given as JSON text. What keeps to no schema is ended as any object. Raises
    `Astray`."""
    for kind in (schema, ANY):
        state = _behind(kind, begun)
        if state is not None:
            return "" if state.complete else shortest(state.ours()).decode()
    raise Astray


def _behind(schema: str, begun: str) -> State | None:
    return start(grammar_of(schema, objects=True)).feed(begun.encode())


@lru_cache(maxsize=4096)
def usable(schema: str) -> bool:
    """Can anything be of this schema, as far as the box can tell?"""
    try:
        grammar_of(schema, objects=True)
    except SchemaError:
        return False
    return True


# ------------------------------------------------------------------------------------------- what the engine is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What a question tells the scripted engine, in so many words: how many words and calls it is to make, and behind
    how many frames it dies, once."""

    key: int
    words: int
    calls: int
    thinks: bool
    dies: int

    def __str__(self) -> str:
        return f"#{self.key} words={self.words} calls={self.calls} thinks={self.thinks:d} dies={self.dies}#"


def hint(text: str) -> Hint | None:
    found = HINT.search(text)
    if found is None:
        return None
    key, count, calls, thinks, dies = map(int, found.groups())
    return Hint(key=key, words=count, calls=calls, thinks=bool(thinks), dies=dies)


def compact(schema: Any) -> str:
    return json.dumps(schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the scripted engine was given of an answer, and was about to say: text, and arguments by the number of the
    call."""

    given: str
    said: str
    calls_given: tuple[str, ...]
    calls_said: Mapping[int, str]


def entry(line: str) -> tuple[int, Entry]:
    """One line of the diary, and the number of its request."""
    found = json.loads(line)
    given, said = found["text"]
    calls = {int(index): arguments for index, arguments in found["said"].items()}
    return found["key"], Entry(given=given, said=said, calls_given=tuple(found["given"]), calls_said=calls)
