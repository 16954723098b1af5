"""Which tokens may come next in this JSON document?

Rules:

1. A mask is exact: it allows every token whose bytes may follow, and no other. Only in keys that the schema does not
   name it is a little cautious (see `State.gist`), and never too generous.
2. A state is a few ways of reading side by side, and a token is allowed if one of them allows it. So masks are
   remembered by way, and ways that differ only in what no token can reach share theirs.
3. Inside a string the vocabulary is not walked: `Lexicon` knows what its tokens do there.
4. White space between values is the acceptor's to allow and ours to end: after `MOST_BLANK` bytes of it something else
   has to come. A model that has lost its way would write line feeds until its answer is cut off.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from appliance.core.structure.acceptor import (
    AFTER,
    COLON,
    END,
    KEY,
    MOST_WAYS,
    OBJECT,
    STRING,
    State,
    Way,
    likely,
    step,
)
from appliance.core.structure.pattern import Automaton, Words
from appliance.core.structure.rules import Grammar, StringRule
from appliance.engine.content import Content
from appliance.engine.lexicon import Bools, Lexicon, Node, Places
from appliance.engine.vocabulary import Ids

MOST_BLANK = 96
ROOM = 24 << 20  # bytes of remembered masks
SPACE = b" \t\r\n"
MOST_TAILS = 4_000
MOST_STEPS = 200_000  # of one mask, however many ways a schema reads in
NONE: Places = np.array([], dtype=np.int32)


class Mask(NamedTuple):
    """Tokens of a whole mask, which others share; others of them, by their numbers, that may not come, or may too."""

    base: Bools | None
    less: Ids
    more: Ids


class Masks:
    """The masks over one vocabulary."""

    def __init__(self, lexicon: Lexicon, *, room: int = ROOM) -> None:
        self._lexicon = lexicon
        self._room = self._left = room
        self._known: OrderedDict[tuple[Grammar, Way, bool], Mask] = OrderedDict()
        self._tails: OrderedDict[tuple[Grammar, Way, bool], Bools] = OrderedDict()
        self.content = Content(lexicon)
        self.free = np.zeros(lexicon.size, dtype=np.bool_)  # what a string may contain that nothing bounds
        self.free[lexicon.ids[lexicon.inside(lexicon.root).content]] = True
        self.free.setflags(write=False)
        self.none = np.zeros(lexicon.size, dtype=np.bool_)
        self.none.setflags(write=False)
        blank = np.flatnonzero(lexicon.blank)
        self._blank_ids, self._blanks = lexicon.ids[blank], lexicon.blank[blank]

    def allowed(self, state: State, *, blank: int = 0) -> Bools:
        """Which tokens may come, by their numbers. `blank`: so much white space stands here already."""
        masks = [self._of(state, way) for way in state.gist(self._lexicon.longest).ways]
        allowed = self.none.copy() if masks[0].base is None else masks[0].base.copy()
        allowed[masks[0].less] = False
        for mask in masks[1:]:
            if mask.base is not None:
                base = mask.base.copy()
                base[mask.less] = False
                allowed |= base
        for mask in masks:
            allowed[mask.more] = True
        if not state.inside:
            allowed[self._blank_ids[self._blanks > MOST_BLANK - blank]] = False
        return allowed

    @property
    def remembered(self) -> int:
        return len(self._known)

    def _of(self, state: State, way: Way) -> Mask:
        key = (state.grammar, way, state.is_ours)
        mask = self._known.get(key)
        if mask is not None:
            self._known.move_to_end(key)
            return mask
        mask = self._known[key] = self._made(_Walk(self, self._lexicon, state), way)
        self._left -= _size(mask)
        while self._left < 0 and len(self._known) > 1:
            self._left += _size(self._known.popitem(last=False)[1])
        return mask

    def _made(self, walk: _Walk, way: Way) -> Mask:
        walk.from_here(self._lexicon.root, way)
        return Mask(walk.base, walk.less, walk.more())

    def tails(self, state: State, way: Way) -> Bools:
        """Which tails may follow here, behind the quote that closed a string?"""
        key = (state.grammar, way, state.is_ours)
        known = self._tails.get(key)
        tails = self._lexicon.tails
        if known is None or len(known) < len(tails):
            done = 0 if known is None else len(known)
            more = np.fromiter(
                (_follows(state, way, tail) for tail in tails[done:]), dtype=np.bool_, count=len(tails) - done
            )
            known = self._tails[key] = more if known is None else np.concatenate((known, more))
            while len(self._tails) > MOST_TAILS:
                self._tails.popitem(last=False)
        self._tails.move_to_end(key)
        return known


def _size(mask: Mask) -> int:
    """Roughly: a base is shared by many, but may be kept by the last of them."""
    return 1_000 + mask.more.nbytes + mask.less.nbytes


def _follows(state: State, way: Way, tail: bytes) -> bool:
    ways: list[Way] = [way]
    for byte in tail:
        following: list[Way] = []
        for one in ways:
            step(one, byte, state.grammar.nodes, state.is_ours, following)
        if not following:
            return False
        ways = following[:MOST_WAYS]
    return True


class _Walk:
    """One way through the sorted vocabulary."""

    def __init__(self, masks: Masks, lexicon: Lexicon, state: State) -> None:
        self._masks = masks
        self._lexicon = lexicon
        self._state = state
        self._ranges: list[tuple[int, int]] = []
        self._found: list[Places] = []
        self._ids: list[Ids] = []
        self.base: Bools | None = None
        self.less: Ids = NONE

    def more(self) -> Ids:
        places = [*self._found, *(np.arange(low, high, dtype=np.int32) for low, high in self._ranges)]
        ids = [self._lexicon.ids[np.concatenate(places)], *self._ids] if places else self._ids
        return np.concatenate(ids) if ids else NONE

    def from_here(self, node: Node, way: Way) -> None:
        """Follow every token of this node."""
        nodes, ours = self._state.grammar.nodes, self._state.is_ours
        left: list[tuple[Node, Way]] = [(node, way)]
        for _ in range(MOST_STEPS):
            if not left:
                break
            node, way = left.pop()
            if self._at_once(node, way):
                continue
            branches = self._lexicon.branches(node)
            for byte in likely(way) or branches:
                if byte not in branches:
                    continue
                below, ending = branches[byte]
                following: list[Way] = []
                step(way, byte, nodes, ours, following)
                if following:
                    low, high, _ = below
                    if low < ending:
                        self._ranges.append((low, ending))
                    if ending < high:
                        left += [(below, one) for one in following]

    def _at_once(self, node: Node, way: Way) -> bool:
        """Inside a string or a key many tokens can be decided without looking at each."""
        frame, rest = way
        if frame[0] == STRING and frame[2] is None:
            rule = frame[1]
            if rule.free:
                self._free(node, rest or END)
                return True
            if node == self._lexicon.root and not isinstance(rule.texts, Words):
                self._bounded(rule, frame[3], frame[4], rest or END)
                return True
        elif frame[0] == KEY and frame[5] is None and frame[7] >= 0 and not frame[1].patterns:
            self._open_key(node, way)
            return True
        return False

    def _free(self, node: Node, after: Way) -> None:
        inside = self._lexicon.inside(node)
        self._content(node, inside.content)
        self._found.append(inside.closing[self._masks.tails(self._state, after)[inside.tails]])

    def _content(self, node: Node, content: Places) -> None:
        if node == self._lexicon.root:
            self.base = self._masks.free
        else:
            self._found.append(content)

    def _bounded(self, rule: StringRule, at: int, count: int, after: Way) -> None:
        content = self._masks.content
        if isinstance(rule.texts, Automaton):
            self.base, inside, closing = content.by_pattern(rule.texts, at)
            self._ids.append(content.ids(inside))
        else:
            self.base = self._masks.free if rule.most is None or rule.most > count else self._masks.none
            less, closing = content.by_length(count, rule.least, rule.most)
            self.less = content.ids(less)
        self._ids.append(content.ids(content.following(closing, self._masks.tails(self._state, after))))

    def _open_key(self, node: Node, way: Way) -> None:
        """A key the schema need not know. What closes it as a known one, or as one that was there, is looked at."""
        frame, rest = way
        _, rule, seen, others, _, _, _, _, text = frame
        inside = self._lexicon.inside(node)
        self._content(node, inside.content)
        around = ((OBJECT, rule, seen, others | {None}, AFTER), rest)
        follows = self._masks.tails(self._state, ((COLON, rule.other), around))[inside.tails]
        if None in others:
            follows[:] = False
        if text is not None:
            named = {key[len(text) :] for key in (*rule.keys.words, *others) if key and key.startswith(text)}
            named |= {""} if "" in others or "" in rule.keys.words else set()
            if named:
                depth = node[2]
                for number, said in enumerate(inside.texts):
                    if said in named:
                        follows[number] = _follows(
                            self._state, way, self._lexicon.pieces[inside.closing[number]][depth:]
                        )
        self._found.append(inside.closing[follows])


class Guide:
    """One document being written: told the bytes drawn, it says which tokens may come."""

    def __init__(self, masks: Masks, state: State) -> None:
        self._masks = masks
        self.state = state.ours()
        self._blank = 0

    def allowed(self) -> Bools:
        """None at all once the document is over: then only its end may be said."""
        return self._masks.none if self.state.over else self._masks.allowed(self.state, blank=self._blank)

    def take(self, piece: bytes) -> None:
        """A token with these bytes was drawn."""
        state = self.state.feed(piece)
        assert state is not None, "a token was drawn that may not come"
        self.state = state
        bare = piece.rstrip(SPACE)
        self._blank = 0 if state.inside else len(piece) - len(bare) + (0 if bare else self._blank)

    @property
    def complete(self) -> bool:
        """May the document end here?"""
        return self.state.complete
