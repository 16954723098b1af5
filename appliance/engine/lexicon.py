"""The vocabulary as a reader of JSON sees it: sorted by bytes, and sorted by what its tokens do to a string.

Built once per model. Inside a string most tokens are plain content, whatever the schema says; the others end in the
middle of a character, or close the string and go on behind it. Which is which does not depend on the request, so it is
worked out here, for the beginning of tokens at once and for other places in them when they are first asked for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.core.structure.letters import BACKSLASH, NEED, NEEDED, QUOTE, UNDONE, Half, Within, letter

Bools = NDArray[np.bool_]
Places = NDArray[np.int32]
"""Places of tokens in the sorted vocabulary."""

MOST_NODES = 60_000
MOST_SPELLED = 2_000  # tokens of a node, when it is first asked for
FEW = 24
ESCAPED = b'"\\/bfnrt'
SHORT = 24  # characters of a token that is spelled out

# The longest end of a token that is plain content: whole characters, and at the very end perhaps the half of one.
_PLAIN_END = re.compile(
    rb"(?:[\x20\x21\x23-\x5b\x5d-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*"
    rb"(?:[\xc2-\xf4]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f]"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf3][\x80-\xbf]{1,2}|\xf4[\x80-\x8f][\x80-\xbf]?)?\Z"
)

Node = tuple[int, int, int]
"""Tokens from one place to another that agree in so many bytes."""

Branches = dict[int, tuple[Node, int]]
"""For each byte the tokens that go on with it, and the place up to which they end with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the tokens of a node do from there on, if a string is open and between two characters.

    `content` stay inside. `closing` close it: `texts` is what they say before that, `tails` is what they say after, as
    numbers of tails. `neat` of either: those that escape only what cannot be written otherwise, as we do in keys. The
    others are `odd`; of the neat ones `half` end inside of such an escape."""

    content: Places
    neat: Places
    odd: Places
    half: Places
    closing: Places
    neat_closing: Bools
    tails: Places
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelled:
    """Characters of a node's tokens, from there on, that stay inside a string or close it: a tree of beginnings.

    Rows are tokens, nodes are beginnings: the first is the empty one, and those of so many characters stand together,
    from one of the `levels` to the next."""

    places: Places
    counts: NDArray[np.int32]
    nodes: NDArray[np.int32]  # of each row
    tails: Places  # of each row: its tail, or -1 if it stays inside
    stays: Bools
    halves: dict[int, Half]  # of rows of tokens that end inside a character
    half: Bools
    levels: tuple[int, ...]
    parents: NDArray[np.int32]  # of each node
    letters: NDArray[np.int32]  # of each node, as a place in `alphabet`
    alphabet: NDArray[np.int32]


class Lexicon:
    """`leave_out`: tokens that are never text, such as those that end an answer."""

    def __init__(self, pieces: Sequence[bytes], leave_out: frozenset[int] = frozenset()) -> None:
        usable = sorted((piece, token) for token, piece in enumerate(pieces) if piece and token not in leave_out)
        self.size = len(pieces)
        self.pieces = [piece for piece, _ in usable]
        self.ids: Places = np.array([token for _, token in usable], dtype=np.int32)
        self.longest = max(map(len, self.pieces), default=1)
        lengths = np.array([len(piece) for piece in self.pieces], dtype=np.int64)
        self._offsets = np.concatenate(([0], np.cumsum(lengths)))
        self._bytes = np.frombuffer(b"".join(self.pieces), dtype=np.uint8)
        self._plain_from = np.array([_plain_from(piece) for piece in self.pieces], dtype=np.int32)
        self.blank = np.array([len(piece) - len(piece.lstrip(b" \t\r\n")) for piece in self.pieces], dtype=np.int32)
        self.root: Node = (0, len(self.pieces), 0)
        self._branches: dict[Node, Branches] = {}
        self._inside: dict[Node, Inside] = {}
        self.tails: list[bytes] = []
        self._tail_names: dict[bytes, int] = {}
        self.branches(self.root)
        self.inside(self.root)
        self._spelled: dict[Node, Spelled] = {}
        for node in (self.root, *(below for byte, (below, _) in self.branches(self.root).items() if byte in ESCAPED)):
            self._spell(node)

    def spelled(self, node: Node) -> Spelled | None:
        """None: it would take too long to find out."""
        found = self._spelled.get(node)
        if found is None and node[1] - node[0] <= MOST_SPELLED:
            if len(self._spelled) >= MOST_NODES // 60:
                self._spelled = {node: known for node, known in self._spelled.items() if node[2] <= 1}
            found = self._spell(node)
        return found

    def branches(self, node: Node) -> Branches:
        """How the tokens of this node go on."""
        found = self._branches.get(node)
        if found is None:
            if len(self._branches) >= MOST_NODES:
                self._branches.clear()
            found = self._branches[node] = self._split(node)
        return found

    def _split(self, node: Node) -> Branches:
        low, high, depth = node
        pieces = self.pieces
        while low < high and len(pieces[low]) == depth:
            low += 1
        if high - low <= FEW:
            cuts = [low, *(at for at in range(low + 1, high) if pieces[at][depth] != pieces[at - 1][depth]), high]
        else:
            column = self._bytes[self._offsets[low:high] + depth]
            cuts = [low, *(np.flatnonzero(column[1:] != column[:-1]) + low + 1).tolist(), high]
        found: Branches = {}
        for first, last in itertools.pairwise(cuts):
            if first < last:
                ending = first
                while ending < last and len(pieces[ending]) == depth + 1:
                    ending += 1
                found[pieces[first][depth]] = (first, last, depth + 1), ending
        return found

    def inside(self, node: Node) -> Inside:
        found = self._inside.get(node)
        if found is None:
            if len(self._inside) >= MOST_NODES:
                self._inside.clear()
            found = self._inside[node] = self._look_inside(node)
        return found

    def _look_inside(self, node: Node) -> Inside:
        low, high, depth = node
        while low < high and len(self.pieces[low]) == depth:
            low += 1
        plain = self._plain_from[low:high] <= depth
        content = (np.flatnonzero(plain) + low).tolist()
        closing, tails, texts = [], [], []
        odd: list[int] = []
        half: list[int] = []
        for place in (np.flatnonzero(~plain) + low).tolist():
            found = read(self.pieces[place], depth)
            if found is None:
                continue
            text, _, tail = found
            if BACKSLASH in self.pieces[place][depth:]:
                neat = read(self.pieces[place], depth, neat=True)
                if neat is None:
                    odd.append(place)
                elif neat[1] is not None and neat[1].kind == NEEDED:
                    half.append(place)
            if tail is not None:
                closing.append(place)
                tails.append(self._tail(tail))
                texts.append(text)
            else:
                content.append(place)
        stays = np.array(content, dtype=np.int32)
        return Inside(
            content=stays,
            neat=stays[~np.isin(stays, odd)] if odd else stays,
            odd=np.array(odd, dtype=np.int32),
            half=np.array(half, dtype=np.int32),
            closing=np.array(closing, dtype=np.int32),
            neat_closing=~np.isin(closing, odd),
            tails=np.array(tails, dtype=np.int32),
            texts=tuple(texts),
        )

    def _tail(self, tail: bytes) -> int:
        name = self._tail_names.get(tail)
        if name is None:
            name = self._tail_names[tail] = len(self.tails)
            self.tails.append(tail)
        return name

    def _spell(self, node: Node) -> Spelled:
        rows: list[tuple[str, int, Within, int]] = []
        inside = self.inside(node)
        for place in inside.content.tolist():
            text, within = spell(self.pieces[place][node[2] :])
            rows.append((text, place, within, -1))
        rows += [
            (text, place, None, tail)
            for text, place, tail in zip(inside.texts, inside.closing.tolist(), inside.tails.tolist(), strict=True)
        ]
        rows = sorted((row for row in rows if len(row[0]) <= SHORT), key=lambda row: -len(row[0]))
        counts = np.array([len(row[0]) for row in rows], dtype=np.int32)
        codes = np.frombuffer("".join(row[0] for row in rows).encode("utf-32-le"), dtype=np.int32)
        alphabet, spelled = np.unique(codes, return_inverse=True)
        offsets = np.concatenate(([0], np.cumsum(counts)))[:-1].astype(np.int64)
        nodes = np.zeros(len(rows), dtype=np.int64)
        levels, parents, letters = [1], [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
        for column in range(int(counts[0]) if len(counts) else 0):
            having = int(np.searchsorted(-counts, -column, side="left"))
            steps, which = np.unique(
                nodes[:having] * len(alphabet) + spelled[offsets[:having] + column], return_inverse=True
            )
            parents.append(steps // len(alphabet))
            letters.append(steps % len(alphabet))
            nodes[:having] = which + levels[-1]
            levels.append(levels[-1] + len(steps))
        tails = np.array([row[3] for row in rows], dtype=np.int32)
        found = self._spelled[node] = Spelled(
            places=np.array([row[1] for row in rows], dtype=np.int32),
            counts=counts,
            nodes=nodes.astype(np.int32),
            tails=tails,
            stays=tails < 0,
            halves={at: row[2] for at, row in enumerate(rows) if row[2] is not None},
            half=np.array([row[2] is not None for row in rows], dtype=np.bool_),
            levels=tuple(levels),
            parents=np.concatenate(parents).astype(np.int32),
            letters=np.concatenate(letters).astype(np.int32),
            alphabet=alphabet if len(alphabet) else np.zeros(1, dtype=np.int32),
        )
        return found


def read(piece: bytes, at: int, *, neat: bool = False) -> tuple[str, Within, bytes | None] | None:
    """The characters from this byte on, inside a string, where they end, and what comes behind the quote that closes
    it, if one does. None: they cannot stand there; or, `neat`, they are escaped and need not be."""
    letters: list[str] = []
    within: Within = None
    for place in range(at, len(piece)):
        byte = piece[place]
        if byte == QUOTE and within is None:
            return "".join(letters), None, piece[place + 1 :]
        within, code = (NEED, UNDONE) if neat and within is None and byte == BACKSLASH else letter(within, byte)
        if code >= 0:
            letters.append(chr(code))
        elif code != UNDONE:
            return None
    return "".join(letters), within, None


def spell(piece: bytes) -> tuple[str, Within]:
    """The characters of a token that stays inside a string, and where it ends."""
    if b"\\" not in piece:
        try:
            return piece.decode(), None
        except UnicodeDecodeError:
            pass  # it ends inside a character
    found = read(piece, 0)
    assert found is not None, "content stays inside"
    return found[0], found[1]


def _plain_from(piece: bytes) -> int:
    found = _PLAIN_END.search(piece)
    assert found is not None, "the end of a token is plain content, if only of no bytes"
    return found.start()
