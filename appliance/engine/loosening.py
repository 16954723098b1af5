"""What can still be asked of a document whose author has not kept to its schema?

A cloud that was not held to the schema of a tool may have broken it before it broke off. Nobody can make that good; but
what else the schema asks for, the rest of the document can still have. So less is asked for step by step, until what is
written fits: nothing of the values that are there, but for the one that is being written; nothing of that either; any
names beside those of the schema. Last of all it is only JSON, which is not for this file to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

KEPT = ("$schema", "$id", "$defs", "definitions", "required", "patternProperties", "additionalProperties")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def looser(schema: Mapping[str, Any], written: bytes) -> Iterator[dict[str, Any]]:
    """Schemas that ask for less, the strictest first, for an object of which this is written."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not written.lstrip().startswith(b"{"):
        return
    names = keys(written)
    kept = {key: schema[key] for key in KEPT if key in schema}
    there: dict[str, Any] = {name: {} for name in names[:-1]} | {name: {} for name in names if name not in properties}
    yield {**kept, "type": "object", "properties": {**properties, **there}}
    there |= {name: {} for name in names}
    yield {**kept, "type": "object", "properties": {**properties, **there}}
    kept.pop("additionalProperties", None)
    yield {**kept, "type": "object", "properties": {**properties, **there}}


def keys(written: bytes) -> list[str]:
    """The names of the members that this object has by now, the last of them perhaps without a whole value."""
    found: list[str] = []
    depth = at = 0
    named = False  # does a name stand here, and not a value?
    while at < len(written):
        byte = written[at : at + 1]
        if byte == b'"':
            string = _STRING.match(written, at)
            if string is None:
                break
            if named and depth == 1:
                found.append(json.loads(string[0].decode("utf-8", "replace"), strict=False))
                named = False
            at = string.end()
            continue
        depth += (byte in b"{[") - (byte in b"}]")
        named = depth == 1 and (byte in b"{," or named)
        at += 1
    return found
