"""Which tools may be called, in a body of OpenAI's chat completions, and must one be?"""

from __future__ import annotations

from typing import Literal

from appliance.core.chat import Tool, ToolChoice
from appliance.dialects import fields
from appliance.dialects.fields import Seen, at, refusal, wrong

# What the vocabulary says of a tool. The mark of a cache is known from others, and costs no words.
TOOL = frozenset(("type", "function", "cache_control"))
FUNCTION = frozenset(("name", "description", "parameters", "strict", "cache_control"))

# As a tool's arguments are always an object.
ANY_ARGUMENTS = {"type": "object"}

CHOICES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "required",  # Mistral's word
}


def tools(found: fields.Object, seen: Seen) -> tuple[Tool, ...]:
    read = []
    for index, tool in enumerate(fields.objects(found, "tools")):
        path = at("tools", index)
        seen.needs.add("tools")
        if fields.string(tool, "type", path) not in (None, "function"):
            seen.foreign.append(path)
            continue
        path = at(path, "function")
        function = fields.mapping(tool, "function", at("tools", index)) or {}
        name = fields.string(function, "name", path)
        if not name:
            raise refusal(at(path, "name"), f"{at(path, 'name')} is missing; a tool needs a name.")
        if any(tool[key] is not None for key in tool.keys() - TOOL) or any(
            function[key] is not None for key in function.keys() - FUNCTION
        ):
            seen.lost.add("tools")
        described, strict = function.get("description"), function.get("strict")
        schema = fields.schema(function, "parameters", seen, path, anything=ANY_ARGUMENTS)
        read.append(
            Tool(
                name=name,
                description=described if isinstance(described, str) else "",
                parameters=schema or {},
                strict=strict if isinstance(strict, bool) else None,
            )
        )
    if read and found.get("functions"):
        seen.doubt("functions", "cannot stand beside tools; leave one of them out")
    return tuple(read)


def choice(found: fields.Object, seen: Seen) -> ToolChoice | None:
    given = found.get("tool_choice")
    if given is None:
        return None
    if isinstance(given, str):
        if (kind := CHOICES.get(given)) is not None:
            return ToolChoice(kind)
    elif isinstance(given, dict):
        function = given.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and given.get("type") in (None, "function"):
            return ToolChoice("named", name)
        if _allowed(found) is not None:
            return ToolChoice(CHOICES[given["allowed_tools"]["mode"]])
    else:
        raise wrong("tool_choice", "a string or an object", given)
    seen.foreign.append("tool_choice")
    return None


def _allowed(found: fields.Object) -> frozenset[str] | None:
    """The only ones of the tools that may be called now, if that is said. They are all told of to keep a cache warm."""
    match found.get("tool_choice"):
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required", "tools": [*listed]}}:
            names = [_named(one) for one in listed]
            return frozenset(name for name in names if name) if all(names) else None
    return None


def _named(tool: object) -> str | None:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    return None


def among(found: fields.Object, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    allowed = _allowed(found)
    return tools if allowed is None else tuple(tool for tool in tools if tool.name in allowed)
