"""How is one value of a JSON text changed while every other byte stays as it was?"""

from __future__ import annotations

import json


def with_model(raw: bytes, model: str) -> bytes:
    """`raw`, a JSON object, with another value for the top-level key "model", and every other byte as it was."""
    text = raw.decode()
    value = json.dumps(model)
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
