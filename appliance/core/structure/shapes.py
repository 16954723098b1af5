"""One combination of plain demands becomes one shape: what it leaves of numbers, strings, arrays and objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import gcd, lcm
from typing import Any

from appliance.core.structure.automaton import Automaton, beside, both, lengths, only
from appliance.core.structure.branches import MOST_SIZE, TYPES, Atom, Branches, Place, Refuse, Scalars
from appliance.core.structure.formats import FORMATS
from appliance.core.structure.numeral import Listed, Numeral, begin
from appliance.core.structure.pattern import pattern
from appliance.core.structure.regex import Unheld
from appliance.core.structure.rules import NOTHING, ArrayRule, ObjectRule, Shape, StringRule
from appliance.core.structure.words import Words

MOST_KEYS = 4_000  # of one object
MOST_PATTERNS = 8
MOST_DIGITS = 40  # behind the point of a multipleOf
MOST_STEP = 10**30


class Shaping:
    """`node` names the node of values that fit all of some places."""

    def __init__(self, branches: Branches, node: Callable[[list[Place]], int], refuse: Refuse) -> None:
        self._branches = branches
        self._node = node
        self._refuse = refuse

    def shape(self, atoms: Sequence[Atom]) -> Shape | None:
        """None: no value fits."""
        self._branches.spend(10 + 3 * len(atoms))
        places = [atom for atom in atoms if isinstance(atom, Place)]
        listed = [atom for atom in atoms if isinstance(atom, Scalars)]
        types = set(TYPES)
        for place in places:
            types &= self._types(place)
        words = [
            word for word, name in ((b"null", "null"), (b"true", "boolean"), (b"false", "boolean")) if name in types
        ]
        shape = Shape(
            words=tuple(word for word in words if all(word in scalars.words for scalars in listed)),
            number=self._number(places, listed, "number" not in types) if types & {"number", "integer"} else None,
            string=self._string(places, listed) if "string" in types else None,
            array=self._array(places) if "array" in types and not listed else None,
            object=self._object(places) if "object" in types and not listed else None,
        )
        return shape if shape.words or shape.number or shape.string or shape.array or shape.object else None

    # ------------------------------------------------------------------------------------------------ reading

    def _types(self, place: Place) -> set[str]:
        if "type" not in place.schema:
            return set(TYPES)
        said = place.schema["type"]
        names = said if isinstance(said, list) else [said]
        if not all(isinstance(name, str) and name in TYPES for name in names):
            self._refuse(f"{place.path}/type", f"a type is one of {', '.join(sorted(TYPES))}")
        types = {*names, *(["null"] if place.schema.get("nullable") is True else [])}
        return types | {"integer"} if "number" in types else types

    def _count(self, place: Place, keyword: str) -> int | None:
        value = place.schema.get(keyword)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            self._refuse(f"{place.path}/{keyword}", "a count is a whole number and not negative")
        return value

    def _counts(self, places: list[Place], thing: str) -> tuple[int, int | None]:
        least = [count for place in places if (count := self._count(place, f"min{thing}")) is not None]
        most = [count for place in places if (count := self._count(place, f"max{thing}")) is not None]
        return max(least, default=0), min(most, default=None)

    def _fraction(self, place: Place, keyword: str) -> Fraction | None:
        value = place.schema.get(keyword)
        if value is None or isinstance(value, bool):
            return None
        if not isinstance(value, int | float) or value != value:
            self._refuse(f"{place.path}/{keyword}", "a number is wanted here")
        if abs(value) > MOST_SIZE:
            self._refuse(f"{place.path}/{keyword}", "this number is too large")
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)

    def _schemas(self, place: Place, keyword: str) -> dict[str, Place]:
        said = place.schema.get(keyword, {})
        if not isinstance(said, dict):
            self._refuse(f"{place.path}/{keyword}", "an object of schemas is wanted here")
        return {
            key: self._branches.place(below, f"{place.path}/{keyword}/{_escaped(key)}") for key, below in said.items()
        }

    # ------------------------------------------------------------------------------------------------ numbers

    def _number(self, places: list[Place], listed: list[Scalars], integer: bool) -> Numeral | None:
        rule = Numeral(scale=0) if integer else Numeral()
        step = Fraction(1) if integer else None
        for place in places:
            rule = self._bounded(rule, place)
            multiple = self._fraction(place, "multipleOf")
            if multiple is not None:
                if multiple <= 0:
                    self._refuse(f"{place.path}/multipleOf", "it must be more than 0")
                step = multiple if step is None else _common(step, multiple)
                if _digits(step) is None:
                    self._branches.held_not(place, "multipleOf")
                    step = Fraction(1) if integer else None
        if step is not None:
            scale = _digits(step) or 0
            rule = replace(rule, scale=scale, step=int(step * 10**scale))
        if listed:
            numbers = frozenset.intersection(*(frozenset(more.numbers) for more in listed))
            rule = Numeral(choices=Listed(number for number in numbers if rule.holds(number)))
        return rule if any(begin(rule, byte, ours=True) for byte in b"-0123456789") else None

    def _bounded(self, rule: Numeral, place: Place) -> Numeral:
        for keyword, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            bounds = [
                (self._fraction(place, keyword), place.schema.get(strict) is True),
                (self._fraction(place, strict), True),
            ]
            for bound, open_ in bounds:
                if bound is None:
                    continue
                if keyword == "minimum" and (rule.low is None or (bound, open_) > (rule.low, rule.low_open)):
                    rule = replace(rule, low=bound, low_open=open_)
                elif keyword == "maximum" and (rule.high is None or (-bound, open_) > (-rule.high, rule.high_open)):
                    rule = replace(rule, high=bound, high_open=open_)
        return rule

    # ------------------------------------------------------------------------------------------------ strings

    def _string(self, places: list[Place], listed: list[Scalars]) -> StringRule | None:
        least, most = self._counts(places, "Length")
        if most is not None and least > most:
            return None
        texts = self._texts(places)
        if listed:
            words = frozenset.intersection(*(frozenset(more.strings) for more in listed))
            fits = [word for word in words if least <= len(word) and (most is None or len(word) <= most)]
            fits = [word for word in fits if _speakable(word) and (texts is None or texts.finds(word))]
            return StringRule(texts=Words(fits)) if fits else None
        if texts is not None and (least or most is not None):
            try:
                texts = self._paid(both(texts, lengths(least, most)))
            except Unheld as error:
                self._branches.spend(error.work)
                lasting = [place for place in places if place.schema.keys() & {"minLength", "maxLength"}]
                self._branches.held_not(lasting[0], "maxLength" if "maxLength" in lasting[0].schema else "minLength")
        if texts is not None and texts.start < 0:
            return None
        return StringRule(texts=texts) if texts is not None else StringRule(least=least, most=most)

    def _texts(self, places: list[Place]) -> Automaton | None:
        texts: Automaton | None = None
        for place in places:
            for keyword in ("pattern", "format"):
                said = place.schema.get(keyword)
                if said is None or (keyword == "format" and said not in FORMATS):
                    continue
                found = self._pattern(place, keyword, FORMATS[said] if keyword == "format" else said)
                if found is None or found.free:
                    continue
                try:
                    texts = found if texts is None else self._paid(both(texts, found))
                except Unheld as error:
                    self._branches.spend(error.work)
                    self._branches.held_not(place, keyword)
        return texts

    def _pattern(self, place: Place, keyword: str, expression: Any) -> Automaton | None:
        if not isinstance(expression, str):
            self._refuse(f"{place.path}/{keyword}", "a regular expression is a string")
        try:
            found = pattern(expression)
        except Unheld as error:
            self._branches.spend(len(expression) + error.work)
            self._branches.held_not(place, keyword)
            return None
        except ValueError as error:
            self._refuse(f"{place.path}/{keyword}", f"this is no regular expression: {error}")
        return self._paid(found)

    def _paid(self, automaton: Automaton) -> Automaton:
        self._branches.spend(automaton.work)
        return automaton

    # ------------------------------------------------------------------------------------------------- arrays

    def _array(self, places: list[Place]) -> ArrayRule | None:
        least, most = self._counts(places, "Items")
        if most is not None and least > most:
            return None
        firsts: list[list[Place]] = []
        rests: list[Place | None] = []
        for place in places:
            first, rest = self._items(place)
            firsts.append(first)
            rests.append(rest)
        count = max(map(len, firsts), default=0)
        self._branches.spend(count * len(places))
        nodes = [
            self._node([found for first, rest in zip(firsts, rests, strict=True) if (found := _item(first, rest, n))])
            for n in range(count if most is None else min(count, most))
        ]
        behind = self._node([found for found in rests if found])
        return ArrayRule(first=tuple(nodes), rest=behind, least=least, most=most)

    def _items(self, place: Place) -> tuple[list[Place], Place | None]:
        """The places of the first items and of the rest. Older schemas say `items` and `additionalItems`."""
        schema, first, behind = place.schema, "prefixItems", "items"
        if isinstance(schema.get("items"), list):
            first, behind = "items", "additionalItems"
        listed = schema.get(first, [])
        if not isinstance(listed, list):
            self._refuse(f"{place.path}/{first}", "a list of schemas is wanted here")
        places = [self._branches.place(below, f"{place.path}/{first}/{number}") for number, below in enumerate(listed)]
        return places, self._branches.place(schema[behind], f"{place.path}/{behind}") if behind in schema else None

    # ------------------------------------------------------------------------------------------------ objects

    def _object(self, places: list[Place]) -> ObjectRule | None:
        least, most = self._counts(places, "Properties")
        known = [self._schemas(place, "properties") for place in places]
        matching = [self._matching(place) for place in places]
        others = [self._others(place) for place in places]
        required = {key for place in places for key in self._required(place)}
        if not all(map(_speakable, required)):
            return None
        keys = Words(key for key in required.union(*known) if _speakable(key))
        if len(keys.words) > MOST_KEYS:
            self._refuse(places[0].path, f"an object has more than {MOST_KEYS} properties")

        def node(key: str | None, found: Sequence[bool]) -> int:
            """Of values under this key, where `found` says for each pattern whether the key fits it."""
            demands: list[Place] = []
            at = 0
            named = (key is not None and any(key in properties for properties in known)) or any(found)
            for properties, patterns, (other, last) in zip(known, matching, others, strict=True):
                own = [below for place, (_, below) in enumerate(patterns, at) if found[place]]
                at += len(patterns)
                own += [properties[key]] if key is not None and key in properties else []
                demands += own or ([other] if other and not (last and named) else [])
            return self._node(demands)

        automata = [automaton for patterns in matching for automaton, _ in patterns]
        letters = sum(map(len, keys.words)) if automata else 0
        self._branches.spend(len(keys.words) * (3 + len(places)) + len(automata) * letters)
        nodes = [node(key, [automaton.finds(key) > 0 for automaton in automata]) for key in keys.words]
        joined, labels = self._joined(automata, places, node)
        needed = sum(1 << place for place, key in enumerate(keys.words) if key in required)
        other = NOTHING if joined is not None else node(None, [])
        invites = not any("properties" in place.schema for place in places) or any(map(self._invites, places))
        return ObjectRule(
            keys=keys, nodes=tuple(nodes), required=needed, allowed=(1 << len(nodes)) - 1, other=other,
            patterns=joined, labels=labels, invites=invites, least=least, most=most,
        )  # fmt: skip

    def _required(self, place: Place) -> list[str]:
        said = place.schema.get("required", [])
        if isinstance(said, bool):  # as schemas of the third draft say it, beside the property
            return []
        if not isinstance(said, list) or not all(isinstance(key, str) for key in said):
            self._refuse(f"{place.path}/required", "a list of names is wanted here")
        return said

    def _matching(self, place: Place) -> list[tuple[Automaton, Place]]:
        found = []
        for expression, below in self._schemas(place, "patternProperties").items():
            automaton = self._pattern(place, "patternProperties", expression)
            if automaton is not None:
                found.append((automaton, below))
        return found

    def _others(self, place: Place) -> tuple[Place | None, bool]:
        """The schema of properties that are not named, if there is one. True: not named by anybody else either."""
        if f"{place.path}/patternProperties" in self._branches.unheld:
            return None, False
        for keyword in ("additionalProperties", "unevaluatedProperties"):
            if keyword in place.schema:
                below = self._branches.place(place.schema[keyword], f"{place.path}/{keyword}")
                return below, keyword == "unevaluatedProperties"
        return None, False

    def _invites(self, place: Place) -> bool:
        """Does it say of its own accord that there may be keys it does not name?"""
        said = [place.schema.get(keyword, False) for keyword in ("additionalProperties", "unevaluatedProperties")]
        return any(below is not False for below in said) or f"{place.path}/patternProperties" in self._branches.unheld

    def _joined(
        self, automata: list[Automaton], places: list[Place], node: Callable[[str | None, Sequence[bool]], int]
    ) -> tuple[Automaton | None, dict[int, int]]:
        """All the patterns for keys as one, and which node belongs to which of its labels."""
        if not automata:
            return None, {}
        if len(automata) > MOST_PATTERNS:
            self._refuse(places[0].path, f"an object has more than {MOST_PATTERNS} patterns for its keys")
        joined = pattern("")  # its label is the lowest bit, `UNASKED`: no pattern fits
        try:
            for place, automaton in enumerate(automata):
                joined = self._paid(beside(joined, automaton, place + 1))
        except Unheld:
            self._refuse(places[0].path, "its patterns for keys are too large together")
        wanted = {*joined.labels}
        labels = {
            label: node(None, [bool(label >> place + 1 & 1) for place in range(len(automata))]) for label in wanted
        }
        return joined, labels


def pruned(shape: Shape, dead: frozenset[int]) -> Shape | None:
    """The shape without what no value fits; None if nothing is left."""
    array, thing = shape.array, shape.object
    if array is not None:
        first = next((place for place, node in enumerate(array.first) if node in dead), len(array.first))
        most = first if first < len(array.first) else len(array.first) if array.rest in dead else None
        if most is not None:
            most = most if array.most is None else min(most, array.most)
            array = replace(array, first=array.first[:most], most=most)
            array = None if array.most is not None and array.least > array.most else array
    if thing is not None:
        thing = _pruned_object(thing, dead)
    left = Shape(words=shape.words, number=shape.number, string=shape.string, array=array, object=thing)
    return left if left.words or left.number or left.string or array or thing else None


def _pruned_object(rule: ObjectRule, dead: frozenset[int]) -> ObjectRule | None:
    allowed = sum(1 << place for place, node in enumerate(rule.nodes) if node not in dead)
    if rule.required & ~allowed or (rule.most is not None and rule.required.bit_count() > rule.most):
        return None
    patterns = rule.patterns
    if patterns is not None:
        patterns = only(patterns, lambda label: rule.labels[label] not in dead)
    rule = replace(rule, allowed=allowed, patterns=patterns, other=NOTHING if rule.other in dead else rule.other)
    if rule.most is not None and rule.least > rule.most:
        return None
    return rule if rule.open or allowed.bit_count() >= rule.least else None


def _item(first: list[Place], rest: Place | None, number: int) -> Place | None:
    return first[number] if number < len(first) else rest


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _speakable(text: str) -> bool:
    """Half a surrogate pair cannot be written."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _common(one: Fraction, other: Fraction) -> Fraction:
    """The least number that both divide."""
    return Fraction(lcm(one.numerator, other.numerator), gcd(one.denominator, other.denominator))


def _digits(step: Fraction) -> int | None:
    """How many digits behind the point its multiples have; None: more than can be counted."""
    for digits in range(MOST_DIGITS):
        if (step * 10**digits).denominator == 1:
            return digits if step * 10**digits < MOST_STEP else None
    return None
