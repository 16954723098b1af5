"""Schemas by chance, documents of them, and the same document spelled in ways that nobody would choose.

hypothesis-jsonschema would do the first two; its last release does not work with today's hypothesis.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import random
import re
import uuid
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

NAMES = ["a", "ab", "name", "unit", "é", "x y", 'q"t', "items", "b/c", ""]
PATTERNS = {  # each with texts it allows
    "^[a-z]{2,4}$": ["ab", "abcd", "zzz"],
    "a|b": ["a", "xbx", "é\na"],
    "^[0-9]{3}-[0-9]{2}$": ["123-45", "000-99"],
    "^(ab)*$": ["", "ab", "ababab"],
    "[^a-c]$": ["d", "abc😀", "a\\"],
    "^[a-z_]+@[a-z_]+$": ["me@here", "_@_"],
    "^.{2,5}$": ["xx", "é中😀", '"\\/!'],
    "x": ["x", "\tx\t", "axa"],
    "^é?[\u4e00-\u4e10]+$": ["一", "é一丁"],
}
FORMATS = {
    "date": ["2026-11-21", "2024-02-29"],
    "time": ["23:59:59Z", "00:00:00.25+02:00"],
    "date-time": ["2026-11-21T12:00:00Z", "1999-12-31t23:59:59-05:30"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "ipv4": ["127.0.0.1", "255.255.255.255"],
    "ipv6": ["::1", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"],
    "email": ["a.b@example.org"],
}
VALUES = [None, True, False, 0, 1, -7, 2.5, 150, "", "red", "green", "grün", "a\nb", [1, "x"], {"k": None}, [], {}]


def _datetime(text: str) -> object:
    assert re.fullmatch(r"[0-9]{4}-[0-9-]{5}[Tt][0-9:.]{8,}([Zz]|[+-][0-9]{2}:[0-9]{2})", text)
    return datetime.datetime.fromisoformat(text.upper())


READERS = {  # each raises something if the text is none
    "date": lambda text: re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)[0] and datetime.date.fromisoformat(text),  # type: ignore[index]
    "time": lambda text: _datetime(f"2000-01-01T{text}"),
    "date-time": _datetime,
    "uuid": lambda text: (
        re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text)[0] and uuid.UUID(text)
    ),  # type: ignore[index]
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "email": lambda text: re.fullmatch(r"[!#-'*+/-9=?A-Z^-~.-]+@[a-z0-9]+([.-]+[a-z0-9]+)*", text, re.I)[0],  # type: ignore[index]
}
CHECKER = FormatChecker(formats=[])
for _name, _read in READERS.items():
    CHECKER.checks(_name, raises=Exception)(lambda value, read=_read: not isinstance(value, str) or bool(read(value)))


def fits(made: Any, value: Any) -> bool:
    """Does jsonschema's validator say so?"""
    return bool(Draft202012Validator(made, format_checker=CHECKER).is_valid(value))


def schema(chance: random.Random, deep: int = 3) -> dict[str, Any]:
    """A schema of the kinds that tools have."""
    made = _schema(chance, deep, recursive=chance.random() < 0.3)
    if "#/$defs/again" in json.dumps(made):
        again = {"type": "object", "properties": {"v": _scalar(chance), "next": {"$ref": "#/$defs/again"}}}
        made["$defs"] = {"again": again}
    return made


def _schema(chance: random.Random, deep: int, *, recursive: bool) -> dict[str, Any]:
    kinds = [_scalar, _scalar, _enum]
    if recursive and chance.random() < 0.2:
        return {"$ref": "#/$defs/again"}
    if deep > 0:
        return chance.choice([*kinds, _object, _object, _object, _array, _any_of, _all_of])(chance, deep, recursive)  # type: ignore[operator]
    return chance.choice(kinds)(chance)


def _scalar(chance: random.Random, deep: int = 0, recursive: bool = False) -> dict[str, Any]:
    match chance.randrange(9):
        case 0:
            return {"type": chance.choice(["boolean", "null", "integer", "number", "string"])}
        case 1:
            return {"type": chance.sample(["boolean", "null", "integer", "number", "string"], 2)}
        case 2:
            low = chance.randrange(-200, 200)
            return {"type": "integer", "minimum": low, "exclusiveMaximum": low + chance.randrange(1, 300)}
        case 3:
            low = chance.randrange(-50, 50) / 4
            return {"type": "number", "exclusiveMinimum": low, "maximum": low + chance.randrange(1, 30) / 8}
        case 4:
            return {"type": "integer", "multipleOf": chance.choice([2, 5, 12]), "minimum": chance.choice([-40, 0, 3])}
        case 5:
            return {"type": "string", "minLength": chance.randrange(3), "maxLength": chance.randrange(3, 9)}
        case 6:
            return {"type": "string", "pattern": chance.choice([*PATTERNS])}
        case 7:
            return {"type": "string", "format": chance.choice([*FORMATS])}
    return {"type": "string"}


def _enum(chance: random.Random, deep: int = 0, recursive: bool = False) -> dict[str, Any]:
    if chance.random() < 0.2:
        return {"const": chance.choice(VALUES)}
    return {"enum": chance.sample(VALUES, chance.randrange(1, 6))}


def _object(chance: random.Random, deep: int, recursive: bool) -> dict[str, Any]:
    names = chance.sample(NAMES, chance.randrange(5))
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema(chance, deep - 1, recursive=recursive) for name in names},
        "required": [name for name in names if chance.random() < 0.5],
    }
    if chance.random() < 0.6:
        made["additionalProperties"] = chance.choice([False, False, True, _schema(chance, 0, recursive=False)])
    if chance.random() < 0.15:
        made["patternProperties"] = {chance.choice(["^n", "[0-9]$", "^x+$"]): _scalar(chance)}
    if chance.random() < 0.1:
        made["minProperties"] = 1
    if chance.random() < 0.1:
        made["maxProperties"] = max(len(made["required"]), 1) + 1
    return made


def _array(chance: random.Random, deep: int, recursive: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "array", "items": _schema(chance, deep - 1, recursive=recursive)}
    if chance.random() < 0.3:
        made["prefixItems"] = [_schema(chance, 0, recursive=False) for _ in range(chance.randrange(1, 3))]
    if chance.random() < 0.5:
        made["minItems"] = chance.randrange(3)
        made["maxItems"] = made["minItems"] + chance.randrange(3)
    return made


def _any_of(chance: random.Random, deep: int, recursive: bool) -> dict[str, Any]:
    return {"anyOf": [_schema(chance, deep - 1, recursive=recursive) for _ in range(chance.randrange(2, 4))]}


def _all_of(chance: random.Random, deep: int, recursive: bool) -> dict[str, Any]:
    one, other = _object(chance, deep - 1, recursive), _object(chance, deep - 1, recursive)
    for part in (one, other):
        part.pop("additionalProperties", None)
    return {"allOf": [one, other]}


def document(made: Any, chance: random.Random, root: dict[str, Any] | None = None, deep: int = 0) -> Any:
    """A value that very likely fits this schema; whether it does is for a validator to say."""
    root = made if root is None else root
    if not isinstance(made, dict) or not made:
        return chance.choice(VALUES)
    if "$ref" in made:
        return document(root["$defs"]["again"], chance, root, deep + 1)
    if "const" in made:
        return made["const"]
    if "enum" in made:
        return chance.choice(made["enum"])
    if "anyOf" in made:
        return document(chance.choice(made["anyOf"]), chance, root, deep)
    if "allOf" in made:
        return {
            key: value for part in reversed(made["allOf"]) for key, value in document(part, chance, root, deep).items()
        }
    types = made.get("type", [*("null", "string", "integer")])
    match chance.choice(types if isinstance(types, list) else [types]):
        case "null":
            return None
        case "boolean":
            return chance.random() < 0.5
        case "integer" | "number" as kind:
            return _number(made, chance, kind)
        case "string":
            return _text(made, chance)
        case "array":
            return _items(made, chance, root, deep)
    return _members(made, chance, root, deep)


def _number(made: dict[str, Any], chance: random.Random, kind: str) -> int | float:
    low = made.get("minimum", made.get("exclusiveMinimum", -1000))
    high = made.get("maximum", made.get("exclusiveMaximum", 1000))
    if kind == "integer":
        step = made.get("multipleOf", 1)
        return chance.randrange(-(-low // step), high // step + 1) * step
    return chance.choice([chance.uniform(low, high), round(chance.uniform(low, high), 2), high])


def _text(made: dict[str, Any], chance: random.Random) -> str:
    if "pattern" in made:
        return chance.choice(PATTERNS[made["pattern"]])
    if "format" in made:
        return chance.choice(FORMATS[made["format"]])
    length = chance.randint(made.get("minLength", 0), made.get("maxLength", 12))
    return "".join(chance.choice('aZ0 é中😀"\\/\b\n\t\x01\x7f\u2028{}[],:') for _ in range(length))


def _items(made: dict[str, Any], chance: random.Random, root: Any, deep: int) -> list[Any]:
    first = made.get("prefixItems", [])
    count = chance.randint(made.get("minItems", 0), made.get("maxItems", 3)) if deep < 4 else made.get("minItems", 0)
    return [document(first[n] if n < len(first) else made["items"], chance, root, deep + 1) for n in range(count)]


def _members(made: dict[str, Any], chance: random.Random, root: Any, deep: int) -> dict[str, Any]:
    properties = made.get("properties", {})
    some = [key for key in properties if key in made.get("required", []) or (deep < 4 and chance.random() < 0.6)]
    value = {key: document(properties[key], chance, root, deep + 1) for key in some}
    other = made.get("additionalProperties", True)
    if other is not False and chance.random() < 0.5:
        value[chance.choice(["zz", "name2", "n", 'odd "key"'])] = document(other, chance, root, deep + 1)
    return value


def damaged(value: Any, chance: random.Random) -> Any:
    """Something near it."""
    way = chance.randrange(5)
    if isinstance(value, dict) and value and way < 3:
        key = chance.choice([*value])
        if way == 0:
            return {name: below for name, below in value.items() if name != key}
        if way == 1:
            return {**value, chance.choice([*NAMES, "zz", "n1"]): chance.choice(VALUES)}
        return {**value, key: damaged(value[key], chance)}
    if isinstance(value, list) and value and way < 3:
        place = chance.randrange(len(value))
        middle = [[], [value[place], chance.choice(VALUES)], [damaged(value[place], chance)]][way]
        return [*value[:place], *middle, *value[place + 1 :]]
    if isinstance(value, str) and way < 3:
        return value[1:] if way == 0 else value + chance.choice("x1é-")
    if isinstance(value, int | float) and not isinstance(value, bool) and way < 3:
        return value + chance.choice([1, -1, 0.5, 100, -1000])
    return chance.choice(VALUES)


def spelled(value: Any, chance: random.Random) -> str:
    """This value as JSON, in keys' order, spacing and escapes as chance has it."""
    space = lambda: "".join(chance.choice([" ", "\n", "\t", "\r"]) for _ in range(chance.choice([0, 0, 0, 1, 5])))  # noqa: E731
    return space() + _spelled(value, chance, space) + space()


def _spelled(value: Any, chance: random.Random, space: Any) -> str:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        inside = [
            f"{space()}{string(key, chance)}{space()}:{space()}{_spelled(value[key], chance, space)}{space()}"
            for key in keys
        ]
        return "{" + (",".join(inside) or space()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(space() + _spelled(one, chance, space) + space() for one in value) or space()) + "]"
    if isinstance(value, str):
        return string(value, chance)
    return json.dumps(value)


def string(text: str, chance: random.Random) -> str:
    """Each character as it is, or escaped."""
    return '"' + "".join(_letter(letter, chance) for letter in text) + '"'


def _letter(letter: str, chance: random.Random) -> str:
    code = ord(letter)
    short = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    ways = [letter] * 3 if code >= 0x20 and letter not in '"\\' else []
    ways += [short[letter]] if letter in short else []
    units = [code] if code < 0x10000 else [0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF)]
    ways.append("".join(f"\\u{unit:04{chance.choice('xX')}}" for unit in units))
    return chance.choice(ways)
