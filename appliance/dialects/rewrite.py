"""How is one value of a JSON text changed while every other byte stays as it was?"""

from __future__ import annotations

import json
import re

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
    pieces = []
    done = 0
    for start, end in _values(text, "model"):
        pieces += [text[done:start], value]
        done = end
    return "".join([*pieces, text[done:]]).encode()


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
