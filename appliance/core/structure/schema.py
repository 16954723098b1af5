"""A JSON schema becomes a grammar.

Rules:

1. A place in the grammar stands for a set of places in the schema that a value must fit all at once. So `$ref` beside
   other keywords, `allOf` and overlapping properties are simply larger sets, and recursion ends because sets repeat.
2. `oneOf` is read as `anyOf`; where the branches are not known to exclude each other it is in `unheld`. So is every
   keyword that cannot be held while a document is written, with its path. Keywords nobody knows say nothing.
3. Everything is bounded. What is too large, wrong, or asks for what cannot be is refused with one sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import NoReturn

from appliance.core.structure.branches import MOST_PATH, Branches, Place
from appliance.core.structure.closing import ENDLESS, MOST_MEMBERS, cost
from appliance.core.structure.rules import Grammar, Shape
from appliance.core.structure.shapes import Shaping, pruned

MOST_NODES = 4_000
MOST_SHAPES = 8_000
MOST_KEPT = 512
MOST_TEXT = 1_500_000
KEPT_TEXT = 64_000  # letters of a schema that is remembered


class SchemaError(ValueError):
    """This schema cannot be followed; the words are for whoever wrote it."""


def grammar(schema: object, *, objects: bool = False) -> Grammar:
    """The grammar of `schema`. `objects`: the document must be an object, whatever the schema says."""
    try:
        return _Building(schema, objects).grammar()
    except RecursionError:
        raise SchemaError("The schema is nested too deeply.") from None


def grammar_of(text: str, *, objects: bool = False) -> Grammar:
    """The grammar of a schema as JSON text. The same text gives the same grammar, so that an agent's tools, which come
    with every request, are worked out once and find the masks of last time. Raises `SchemaError`."""
    return (_remembered if len(text) <= KEPT_TEXT else _read)(text, objects)


def _read(text: str, objects: bool) -> Grammar:
    if len(text) > MOST_TEXT:
        raise SchemaError(f"The schema has more than {MOST_TEXT} letters.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise SchemaError("The schema is not JSON.") from None
    return grammar(schema, objects=objects)


_remembered = lru_cache(maxsize=MOST_KEPT)(_read)


class _Building:
    def __init__(self, schema: object, objects: bool) -> None:
        self._branches = Branches(schema, _refuse)
        self._shaping = Shaping(self._branches, self._node, _refuse)
        self._names: dict[frozenset[Place], int] = {}
        self._queue: list[frozenset[Place]] = []
        self._root = [self._branches.root]
        if objects:
            self._root.append(self._branches.place({"type": "object"}, "(the document)"))

    def grammar(self) -> Grammar:
        root = self._node(self._root)
        nodes: list[list[Shape]] = []
        shapes = 0
        for places in self._queue:  # grows while it is walked
            nodes.append([shape for atoms in self._branches.of_all(places) if (shape := self._shaping.shape(atoms))])
            shapes += len(nodes[-1])
            if len(self._queue) > MOST_NODES or shapes > MOST_SHAPES:
                _refuse("", f"it has more than {MOST_NODES} parts when its references are followed")
        dead: frozenset[int] = frozenset()
        kept = nodes
        while True:
            self._branches.spend(sum(1 + _width(shape) for shapes in kept for shape in shapes))
            kept = [[one for shape in shapes if (one := pruned(shape, dead))] for shapes in kept]
            costs = self._costs(kept)
            found = frozenset(node for node, size in enumerate(costs) if size >= ENDLESS)
            if found == dead:
                break
            dead = found
        if root in dead:
            _refuse(self._culprit(nodes, costs, root), "no value fits this, or none of less than a megabyte")
        unheld = tuple(self._branches.unheld)
        return Grammar(nodes=tuple(map(tuple, kept)), costs=tuple(costs), root=root, unheld=unheld)

    def _node(self, places: list[Place]) -> int:
        """The node for values that fit all of these. Its number is known before it is built."""
        key = frozenset(place for place in places if place.schema is not True)
        if any(place.schema is False for place in key):
            key = frozenset(place for place in key if place.schema is False)
        if key not in self._names:
            self._names[key] = len(self._queue)
            self._queue.append(key)
        return self._names[key]

    def _costs(self, nodes: list[list[Shape]]) -> list[int]:
        """The bytes of the shortest value of each node; `ENDLESS` if there is none."""
        costs = [ENDLESS] * len(nodes)
        order = list(range(len(nodes)))
        changed = True
        while changed:
            changed = False
            order.reverse()  # whichever way the references lead, every second round finds them in a row
            for node in order:
                self._branches.spend(sum(3 + _width(shape) for shape in nodes[node]))
                best = min((cost(shape, costs) for shape in nodes[node]), default=ENDLESS)
                if best < costs[node]:
                    costs[node] = best
                    changed = True
        return costs

    def _culprit(self, nodes: list[list[Shape]], costs: list[int], node: int) -> str:
        """The path of what cannot be: the required thing farthest down that no value fits."""
        seen: set[int] = set()
        while node not in seen:
            seen.add(node)
            for below in _needed(nodes[node]):
                if costs[below] >= ENDLESS and below not in seen:
                    node = below
                    break
        return min((place.path for place in self._queue[node]), default="")


def _refuse(path: str, what: str) -> NoReturn:
    where = f" at {path if len(path) <= MOST_PATH else path[:MOST_PATH] + '...'}" if path else ""
    raise SchemaError(f"The schema cannot be followed{where}: {what}.")


def _needed(shapes: list[Shape]) -> Iterator[int]:
    for shape in shapes:
        if shape.object:
            yield from (node for place, node in enumerate(shape.object.nodes) if shape.object.required >> place & 1)
        if shape.array:
            yield from (node for node in shape.array.first[: shape.array.least] if node >= 0)


def _width(shape: Shape) -> int:
    thing = len(shape.object.nodes) + min(shape.object.least, MOST_MEMBERS) if shape.object else 0
    return thing + (len(shape.array.first) if shape.array else 0)
