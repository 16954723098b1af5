"""A schema's places: where a reference leads, and which combinations of plain demands a place stands for.

`anyOf`, `oneOf`, `enum` and `const` are choices, `allOf` and `$ref` are demands added. Worked out, a place is a list of
combinations, and a value must fit one of them. Each combination is a list of atoms: plain schemas, and scalar values
that were listed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn
from urllib.parse import unquote

MOST_CHOICES = 256  # combinations of one place
MOST_LISTED = 10_000  # values in all enums together
MOST_LETTERS = 200_000  # in them
MOST_PARTS = 100_000  # of the schema as it was sent
MOST_SAID = 1_000_000  # letters in it
MOST_PLACES = 20_000
MOST_DEEP = 100
MOST_SIZE = 10**308  # of a number: clients read infinity in what is more
MOST_PATH = 120  # letters of a path in a sentence
MOST_WORK = 500_000  # about a second on a slow machine

Refuse = Callable[[str, str], NoReturn]
TYPES = frozenset("null boolean integer number string array object".split())

# Keywords that would have to be seen to, and are not. Those with a test are ignored where it says so.
UNHELD: dict[str, Callable[[Any], bool]] = {
    "uniqueItems": lambda value: value is True,
    "not": lambda value: value is not False,
    "if": lambda value: True,
    "contains": lambda value: True,
    "propertyNames": lambda value: value not in (True, {}),
    "dependentRequired": bool,
    "dependentSchemas": bool,
    "dependencies": bool,
    "unevaluatedItems": lambda value: value is not True,
    "$dynamicRef": lambda value: True,
    "$recursiveRef": lambda value: True,
}


@dataclass(frozen=True, slots=True)
class Place:
    """A schema and where it stands. The same place is always the same object."""

    schema: Any
    path: str

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scalars:
    """Values that were listed: the words null, true, false, and numbers, and strings."""

    words: frozenset[bytes]
    numbers: tuple[Fraction, ...]
    strings: tuple[str, ...]


Atom = Place | Scalars
Combination = tuple[Atom, ...]
Tags = tuple[set[str], dict[str, set[str]]]  # the types a value may have, and `_named`


class Branches:
    """The places of one schema. `unheld` grows as they are visited."""

    def __init__(self, schema: object, refuse: Refuse) -> None:
        self.unheld: dict[str, None] = {}
        self._refuse = refuse
        self._schema = schema
        self._places: dict[str, Place] = {}
        self._known: dict[Place, list[Combination]] = {}
        self._open: set[Place] = set()
        self._listed = self._letters = self._work = 0
        self._anchors: dict[str, tuple[Any, str]] | None = None
        self._latest = ""
        self._measure()
        self.root = self.place(schema, "")

    def _measure(self) -> None:
        """Refuse what is too large to be looked at."""
        left, letters = [self._schema], 0
        for part in left:  # grows while it is walked
            if isinstance(part, dict):
                left += part.values()
                letters += sum(len(key) for key in part if isinstance(key, str))
            elif isinstance(part, list):
                left += part
            elif isinstance(part, str):
                letters += len(part)
            if len(left) > MOST_PARTS or letters > MOST_SAID:
                self._refuse("", f"it has more than {MOST_PARTS} parts or {MOST_SAID} letters")

    def spend(self, work: int) -> None:
        """So much has been done, in steps of about a microsecond. What takes too long is refused, whatever it is."""
        self._work += work
        if self._work > MOST_WORK:
            self._refuse(self._latest, "working it out takes too long")

    def place(self, schema: Any, path: str) -> Place:
        found = self._places.get(path)
        if found is None:
            if not isinstance(schema, dict | bool):
                self._refuse(path, "a schema is an object, true or false")
            if len(self._places) >= MOST_PLACES:
                self._refuse("", f"it has more than {MOST_PLACES} parts")
            self._latest = path[:MOST_PATH]
            self.spend(3 + len(path) // 32)
            found = self._places[path] = Place(schema if schema != {} else True, path)
        return found

    def held_not(self, place: Place, keyword: str) -> None:
        """This keyword is not seen to."""
        self.unheld[f"{place.path}/{keyword}"] = None

    def of_all(self, places: Iterable[Place]) -> list[Combination]:
        """The combinations that fit all of these places at once."""
        combinations: list[Combination] = [()]
        for place in sorted(places, key=lambda place: place.path):
            combinations = self._times(combinations, self.of(place), place)
        return combinations

    def of(self, place: Place) -> list[Combination]:
        if place in self._known:
            return self._known[place]
        if place in self._open:
            self._refuse(place.path, "it refers to itself, with nothing in between")
        if len(self._open) > MOST_DEEP:
            self._refuse(place.path, "it is nested too deeply")
        self._open.add(place)
        found = self._work_out(place)
        self._open.discard(place)
        self._known[place] = found
        return found

    def _work_out(self, place: Place) -> list[Combination]:
        schema, path = place.schema, place.path
        if isinstance(schema, bool):
            return [()] if schema else []
        for keyword, matters in UNHELD.items():
            if keyword in schema and matters(schema[keyword]) and (keyword != "if" or schema.keys() & {"then", "else"}):
                self.held_not(place, keyword)
        found: list[Combination] = [(place,)]
        if "$ref" in schema:
            found = self._times(found, self.of(self._led(schema["$ref"], path)), place)
        for number, part in enumerate(self._list(place, "allOf")):
            found = self._times(found, self.of(self.place(part, f"{path}/allOf/{number}")), place)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                parts = [
                    self.of(self.place(part, f"{path}/{keyword}/{n}"))
                    for n, part in enumerate(self._list(place, keyword))
                ]
                found = self._times(found, [one for part in parts for one in part], place)
                if keyword == "oneOf" and not self._exclude(parts):
                    self.held_not(place, keyword)
        if "const" in schema:
            found = self._times(found, self._values([schema["const"]], f"{path}/const"), place)
        if "enum" in schema:
            found = self._times(found, self._values(self._list(place, "enum", empty=True), f"{path}/enum"), place)
        return found

    def _times(self, some: list[Combination], others: list[Combination], place: Place) -> list[Combination]:
        if len(some) * len(others) > MOST_CHOICES:
            self._refuse(place.path, f"it stands for more than {MOST_CHOICES} combinations of its alternatives")
        self.spend(len(others) * sum(map(len, some)) + len(some) * sum(map(len, others)))
        return [tuple(dict.fromkeys(one + other)) for one in some for other in others]

    def _list(self, place: Place, keyword: str, *, empty: bool = False) -> list[Any]:
        if keyword not in place.schema:
            return []
        parts = place.schema[keyword]
        if not isinstance(parts, list) or not (parts or empty):
            self._refuse(f"{place.path}/{keyword}", "a list with something in it is wanted here")
        return parts

    def _values(self, values: list[Any], path: str) -> list[Combination]:
        """One combination for all the scalar values, and one for each list or object."""
        words, numbers, strings = set(), [], []
        found: list[Combination] = []
        self.spend(5 * len(values))
        for place, value in enumerate(values):
            self._listed += 1
            match value:
                case None | True | False:
                    words.add({None: b"null", True: b"true", False: b"false"}[value])
                case int() | float():
                    if value != value or value in (float("inf"), float("-inf")):
                        self._refuse(path, "JSON has no such number")
                    if abs(value) > MOST_SIZE:
                        self._refuse(path, "this number is too large")
                    numbers.append(Fraction(str(value)) if isinstance(value, float) else Fraction(value))
                case str():
                    self._letters += len(value)
                    strings.append(value)
                case _:
                    found.append((self.place(_spelled_out(value), f"{path}/{place}"),))
        if self._listed > MOST_LISTED or self._letters > MOST_LETTERS:
            self._refuse(path, f"more than {MOST_LISTED} values, or {MOST_LETTERS} letters in them, are listed")
        if words or numbers or strings:
            scalars = Scalars(words=frozenset(words), numbers=tuple(numbers), strings=tuple(strings))
            found.insert(0, (scalars,))
        return found

    def _exclude(self, parts: list[list[Combination]]) -> bool:
        """Is it plain that no value fits two of these?"""
        known = [[(_types(one), _named(one)) for one in part] for part in parts]
        self.spend(sum(map(len, parts)) ** 2 // 2)
        return all(
            _apart(one, other)
            for number, part in enumerate(known)
            for before in known[:number]
            for one in part
            for other in before
        )

    def _led(self, reference: Any, path: str) -> Place:
        if not isinstance(reference, str):
            self._refuse(f"{path}/$ref", "a reference is a string")
        own = self._schema.get("$id") if isinstance(self._schema, dict) else None
        if isinstance(own, str) and reference.partition("#")[0] == own.partition("#")[0]:
            reference = "#" + reference.partition("#")[2]
        if not reference.startswith("#"):
            self._refuse(f"{path}/$ref", "only references into the schema itself can be followed")
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            return self._anchored(pointer, path)
        found: Any = self._schema
        for step in pointer.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if (
                isinstance(found, list)
                and step.isascii()
                and step.isdigit()
                and len(step) < 9
                and int(step) < len(found)
            ):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                self._refuse(f"{path}/$ref", "it leads nowhere")
        return self.place(found, pointer)

    def _anchored(self, name: str, path: str) -> Place:
        if self._anchors is None:
            self._anchors = {}
            left: list[tuple[Any, str]] = [(self._schema, "")]
            for found, where in left:  # grows while it is walked
                self.spend(1 + len(where) // 32)
                if isinstance(found, dict):
                    if isinstance(found.get("$anchor"), str):
                        self._anchors.setdefault(found["$anchor"], (found, where))
                    left += [(below, f"{where}/{key}") for key, below in found.items()]
                elif isinstance(found, list):
                    left += [(below, f"{where}/{place}") for place, below in enumerate(found)]
        if name not in self._anchors:
            self._refuse(f"{path}/$ref", "it leads nowhere")
        return self.place(*self._anchors[name])


def _spelled_out(value: Any) -> dict[str, Any]:
    """A schema that allows this list or object and nothing else."""
    if isinstance(value, dict):
        properties = {key: {"const": below} for key, below in value.items()}
        return {"type": "object", "properties": properties, "required": [*value], "additionalProperties": False}
    items = [{"const": below} for below in value]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _apart(one: Tags, other: Tags) -> bool:
    (types, left), (others, right) = one, other
    if not types & others:
        return True
    return types & others == {"object"} and any(not left[key] & right[key] for key in left.keys() & right.keys())


def _types(atoms: Combination) -> set[str]:
    types = set(TYPES) - {"integer"}
    for atom in atoms:
        if isinstance(atom, Scalars):
            names = {b"null": "null", b"true": "boolean", b"false": "boolean"}
            said = {names[word] for word in atom.words}
            types &= said | ({"number"} if atom.numbers else set()) | ({"string"} if atom.strings else set())
        elif isinstance(atom.schema, dict) and "type" in atom.schema:
            listed = atom.schema["type"] if isinstance(atom.schema["type"], list) else [atom.schema["type"]]
            types &= {"number" if name == "integer" else str(name) for name in listed} | (
                {"null"} if atom.schema.get("nullable") is True else set()
            )
    return types


def _named(atoms: Combination) -> dict[str, set[str]]:
    """The required properties that may only be one of some strings, as in a tagged union."""
    tags: dict[str, set[str]] = {}
    for atom in atoms:
        if isinstance(atom, Place) and isinstance(atom.schema, dict):
            properties, required = atom.schema.get("properties"), atom.schema.get("required")
            if isinstance(properties, dict) and isinstance(required, list):
                for key in required:
                    below = properties.get(key) if isinstance(key, str) else None
                    listed = (
                        (below.get("enum", [below["const"]] if "const" in below else None))
                        if isinstance(below, dict)
                        else None
                    )
                    if isinstance(listed, list) and all(isinstance(value, str) for value in listed):
                        tags[key] = set(listed)
    return tags
