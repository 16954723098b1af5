"""How is one value of a JSON text changed, or added, while every other byte stays as it was?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')
# Some letter of the key's name as an escape: the key could stand there and not be seen.
_HIDDEN = re.compile(rb"\\u00(?:6[cdfCDF45])")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def with_model(raw: bytes, model: str) -> bytes:
    """`raw`, a JSON object with a top-level key "model", with another value for it and every other byte as it was.

    A conversation is long and was read once already. If something that looks like the key stands in it only once, that
    must be the key; only if there is doubt (a tool has an argument of that name) is the text walked through again.
    """
    value = json.dumps(model)
    keys = [found.end() for found, _ in zip(_KEY.finditer(raw), range(2), strict=False)]
    if len(keys) == 1 and not _HIDDEN.search(raw) and (old := _STRING.match(raw, keys[0])):
        return raw[: keys[0]] + value.encode() + raw[old.end() :]
    text = raw.decode()
    return _replaced(text, _values(text, "model"), value).encode()


def with_members(raw: bytes, members: Mapping[str, Any]) -> bytes:
    """`raw`, a JSON object, with these top-level members and every other byte as it was. Those that it has get another
    value; the others stand at its beginning."""
    text = raw.decode()
    added: list[str] = []
    for key, member in members.items():
        value = json.dumps(member, separators=(",", ":"))
        # With no escape in the text, a key that does not stand there in its letters does not stand there.
        spans = _values(text, key) if f'"{key}"' in text or "\\u" in text else []
        text = _replaced(text, spans, value)
        if not spans:
            added.append(f"{json.dumps(key)}:{value}")
    head, brace, rest = text.partition("{")
    if added and rest.lstrip(_SPACE)[:1] != "}":
        added.append("")
    return "".join((head, brace, ",".join(added), rest)).encode()


def _replaced(text: str, spans: list[tuple[int, int]], value: str) -> str:
    pieces = []
    done = 0
    for start, end in spans:
        pieces += [text[done:start], value]
        done = end
    return "".join([*pieces, text[done:]])


_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"


def _values(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where the values of a top-level key stand, all of them: readers disagree on which of two equal keys counts."""

    def skip(index: int) -> int:
        while text[index] in _SPACE:
            index += 1
        return index

    spans = []
    index = skip(skip(0) + 1)
    while text[index] != "}":
        key, index = _DECODER.raw_decode(text, index)
        start = skip(skip(index) + 1)
        _, end = _DECODER.raw_decode(text, start)
        if key == wanted:
            spans.append((start, end))
        index = skip(end)
        if text[index] == ",":
            index = skip(index + 1)
    return spans
