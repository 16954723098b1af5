"""What is told of tools that leave the conversation no room?

Rules:

1. Each slimmer telling has less of what explains a tool and all of what names it; the last one has nothing at all.
   However it is told, an answer's arguments keep to the whole schema.
2. How slim depends on the tools and the context alone: so every turn of a conversation begins alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from appliance.engine.job import Tool

LEVELS = ((400, 120), (120, 0), (60, -1))
"""Letters of a tool's description and of those in its parameters; with -1 only their names and types are told."""
NOTES = frozenset({"title", "examples", "default", "$schema", "$comment", "$id", "deprecated", "readOnly", "writeOnly"})
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Under these stand schemas by names, which may be any word."""
BARE = frozenset({"type", "enum", "const", "properties", "required", "items"})


def slimmer(tools: Sequence[Tool]) -> list[tuple[Tool, ...]]:
    """The tools whole, and slimmer and slimmer."""
    tellings = [
        tuple(
            replace(tool, description=_short(tool.description, said), parameters=_slim(tool.parameters, noted))
            for tool in tools
        )
        for said, noted in LEVELS
    ]
    return [tuple(tools), *tellings, ()]


def _short(text: str, most: int) -> str:
    """The beginning of the text, up to where a word ends."""
    if len(text) <= most:
        return text
    return text[:most].rsplit(maxsplit=1)[0] + "..." if most > 0 else ""


def _slim(schema: Any, noted: int) -> Any:
    if isinstance(schema, list):
        return [_slim(one, noted) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NOTES or (noted < 0 and key not in BARE):
            continue
        if key == "description":
            if noted and isinstance(value, str):
                kept[key] = _short(value, noted)
        elif key in NAMED and isinstance(value, Mapping):
            kept[key] = {name: _slim(one, noted) for name, one in value.items()}
        else:
            kept[key] = value if key in ("enum", "const", "required") else _slim(value, noted)
    return kept
