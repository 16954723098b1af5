"""The tools of 2023: how are `functions` read, and how is a call of one written?

Rules of this file:

1. They are tools like any others, one call at a time. Only the client waits for an answer in their shape:
   `function_call` in the place of `tool_calls`. A request that has `tools` as well is one of today.
2. In their conversations a call has no id, and its result says the function's name. We give them ids of our own.
3. Of several calls (nobody was asked for them) only the first has a place in that shape.
"""

from __future__ import annotations

from typing import Any

from appliance.core.chat import Tool, ToolChoice
from appliance.core.events import ToolCallStart
from appliance.dialects import fields
from appliance.dialects.fields import Seen, at, refusal

CALLED = "function_call"
"""Where a call stands in a message or a delta, and the reason that an answer ends with one."""


def old(found: fields.Object) -> bool:
    """Is this request written in that shape?"""
    return bool(found.get("functions")) and not found.get("tools")


def tools(found: fields.Object, seen: Seen) -> tuple[Tool, ...]:
    read = []
    for index, function in enumerate(fields.objects(found, "functions")):
        path = at("functions", index)
        seen.needs.add("tools")
        name = fields.string(function, "name", path)
        if not name:
            raise refusal(at(path, "name"), f"{at(path, 'name')} is missing; a function needs a name.")
        described = function.get("description")
        schema = fields.schema(function, "parameters", seen, path, anything={"type": "object"})
        description = described if isinstance(described, str) else ""
        read.append(Tool(name=name, description=description, parameters=schema or {}))
    return tuple(read)


def choice(found: fields.Object, seen: Seen) -> ToolChoice | None:
    match found.get(CALLED):
        case None | "auto":
            return None
        case "none":
            return ToolChoice("none")
        case {"name": str(name)}:
            return ToolChoice("named", name)
        case _:
            seen.foreign.append(CALLED)
            return None


class Ids:
    """The ids of the calls of one conversation, as they come."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # by the name of the function: the call that has no result yet
        self._count = 0

    def called(self, name: str) -> str:
        self._count += 1
        self._open[name] = f"call_{self._count}"
        return self._open[name]

    def answered(self, name: str) -> str:
        """Which call is this the result of? A result that nobody asked for goes by its name."""
        return self._open.pop(name, name)


def begun(event: ToolCallStart) -> dict[str, Any]:
    """A call begins, in a delta or a message."""
    return {CALLED: {"name": event.name, "arguments": ""}}


def more(arguments: str) -> dict[str, Any]:
    """More of its arguments, in a delta."""
    return {CALLED: {"arguments": arguments}}
