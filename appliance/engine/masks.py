"""Which tokens may come next in this JSON document?

Rules:

1. A mask never allows a token whose bytes may not follow. It allows every other, but for a few that are never needed:
   see `State.gist` and `Content`, and the next rule.
2. A mask is worked out in so many `STEPS` and no more, whatever the schema. Tokens are followed byte by byte, all of
   them together, so that the short ones are always there; what is cut off is worked out when it is asked for again.
3. A state is a few ways of reading side by side, and a token is allowed if one of them allows it. So masks are
   remembered by way, and ways that differ only in what no token can reach share theirs.
4. Inside a string the vocabulary is not walked: `Lexicon` and `Content` know what its tokens do there.
5. White space between values is the acceptor's to allow and ours to end: after `MOST_BLANK` bytes of it something else
   has to come. A model that has lost its way would indent a line until its answer is cut off.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from appliance.core.structure.acceptor import (
    AFTER,
    COLON,
    END,
    KEY,
    MOST_WAYS,
    NONE,
    NUMBER,
    OBJECT,
    STRING,
    State,
    Way,
    likely,
    step,
)
from appliance.core.structure.automaton import Automaton
from appliance.core.structure.rules import Grammar
from appliance.core.structure.words import Words
from appliance.engine.content import Content, Rows, Within
from appliance.engine.lexicon import Bools, Lexicon, Node, Places, Spelled
from appliance.engine.vocabulary import Ids

MOST_BLANK = 32
ROOM = 24 << 20  # bytes of remembered masks
SPACE = b" \t\r\n"
MOST_TAILS = 4_000
STEPS = 12_000  # of one mask, each a microsecond or two
NUMBER_STEP = 20  # where there are bounds to be reckoned with
PATTERN_STEP = 4_000  # one automaton over the whole vocabulary
HASTY_STEP = 300
NOBODY: Places = np.array([], dtype=np.int32)


class Mask(NamedTuple):
    """Tokens of a whole mask, which others share, but for some; and more of them, by their numbers."""

    base: Bools | None
    more: Ids
    less: Ids


class Masks:
    """The masks over one vocabulary."""

    def __init__(self, lexicon: Lexicon, *, room: int = ROOM, steps: int = STEPS) -> None:
        self._lexicon = lexicon
        self._room = self._left = room
        self._steps = steps
        self._known: OrderedDict[tuple[Grammar, Way, bool], Mask] = OrderedDict()
        self._tails: OrderedDict[tuple[Grammar, Way, bool], Bools] = OrderedDict()
        self.content = Content(lexicon)
        self.spelled = self.content.spelled
        self.free = np.zeros(lexicon.size, dtype=np.bool_)  # what a string may contain that nothing bounds
        inside = lexicon.inside(lexicon.root)
        self.free[lexicon.ids[inside.content]] = True
        self.free.setflags(write=False)
        odd = np.setdiff1d(inside.content, inside.neat)
        self.odd = lexicon.ids[odd]  # what escapes more than it has to
        self.odd_or_half = lexicon.ids[np.union1d(odd, inside.half)]
        self.none = np.zeros(lexicon.size, dtype=np.bool_)
        self.none.setflags(write=False)
        blank = np.flatnonzero(lexicon.blank)
        self._blank_ids, self._blanks = lexicon.ids[blank], lexicon.blank[blank]

    def allowed(self, state: State, *, blank: int = 0) -> Bools:
        """Which tokens may come, by their numbers. `blank`: so much white space stands here already."""
        masks = self._of(state.gist(self._lexicon.longest))
        bases = {(id(mask.base), id(mask.less)): mask for mask in masks if mask.base is not None}
        allowed = self.none.copy()
        for mask in bases.values():
            assert mask.base is not None, "those without were left out"
            if len(mask.less):
                kept = allowed[mask.less]
                np.logical_or(allowed, mask.base, out=allowed)
                allowed[mask.less] = kept
            else:
                np.logical_or(allowed, mask.base, out=allowed)
        for mask in masks:
            allowed[mask.more] = True
        if not state.inside:
            allowed[self._blank_ids[self._blanks > MOST_BLANK - blank]] = False
        return allowed

    @property
    def remembered(self) -> int:
        return len(self._known)

    def _of(self, state: State) -> list[Mask]:
        """A mask for each way. One that was cut short is not remembered, unless it had all the steps there are."""
        masks = []
        left = self._steps
        for way in state.ways:
            key = (state.grammar, way, state.is_ours)
            mask = self._known.get(key)
            if mask is None:
                walk = _Walk(self, self._lexicon, state, left)
                mask = walk.mask(way)
                if not walk.hasty or left == self._steps:
                    self._remember(key, mask)
                left = walk.left
            else:
                self._known.move_to_end(key)
            masks.append(mask)
        return masks

    def _remember(self, key: tuple[Grammar, Way, bool], mask: Mask) -> None:
        self._known[key] = mask
        self._left -= _size(mask)
        while self._left < 0 and len(self._known) > 1:
            self._left += _size(self._known.popitem(last=False)[1])

    def tails(self, state: State, way: Way, steps: int) -> tuple[Bools, int]:
        """Which tails may follow here, behind the quote that closed a string? And what is left of the steps. When they
        are used up, only the empty tail is said to follow, which always does."""
        key = (state.grammar, way, state.is_ours)
        known = self._tails.get(key)
        tails = self._lexicon.tails
        if known is None or len(known) < len(tails):
            done = 0 if known is None else len(known)
            found = np.zeros(len(tails), dtype=np.bool_)
            if known is not None:
                found[:done] = known
            for place in range(done, len(tails)):
                if steps > 0 or not tails[place]:
                    found[place], steps = _follows(state, way, tails[place], steps)
            if steps <= 0:
                return found, steps
            known = self._tails[key] = found
            while len(self._tails) > MOST_TAILS:
                self._tails.popitem(last=False)
        self._tails.move_to_end(key)
        return known, steps


def _size(mask: Mask) -> int:
    """Roughly: a base is shared by many, but may be kept by the last of them."""
    return 1_000 + mask.more.nbytes


def _follows(state: State, way: Way, said: bytes, steps: int) -> tuple[bool, int]:
    ways: Iterable[Way] = (way,)
    for byte in said:
        following: list[Way] = []
        for one in ways:
            step(one, byte, state.grammar.nodes, state.is_ours, following)
            steps -= _price(one)
        if not following:
            return False, steps
        ways = dict.fromkeys(following[:MOST_WAYS])
    return True, steps


def _price(way: Way) -> int:
    return max(NUMBER_STEP * way[0][1].weight, 1) if way[0][0] == NUMBER else 1


class _Walk:
    """One way through the sorted vocabulary, with so many steps left. `hasty`: they were not enough."""

    def __init__(self, masks: Masks, lexicon: Lexicon, state: State, left: int) -> None:
        self._masks = masks
        self._lexicon = lexicon
        self._state = state
        self.left = left
        self.hasty = False
        self._ranges: list[tuple[int, int]] = []
        self._found: list[Places] = []
        self._ids: list[Ids] = []
        self._base: Bools | None = None
        self._less: Ids = NOBODY

    def mask(self, way: Way) -> Mask:
        self._follow(way)
        places = [*self._found, *(np.arange(low, high, dtype=np.int32) for low, high in self._ranges)]
        ids = [self._lexicon.ids[np.concatenate(places)], *self._ids] if places else self._ids
        return Mask(self._base, np.concatenate(ids) if ids else NOBODY, self._less)

    def _follow(self, way: Way) -> None:
        """All the tokens, one byte more of them in each round."""
        nodes, ours = self._state.grammar.nodes, self._state.is_ours
        now: list[tuple[Node, Way]] = [(self._lexicon.root, way)]
        first = True
        while now and (first or self.left > 0):
            later: list[tuple[Node, Way]] = []
            for node, way in now:
                if self.left <= 0 and not first:
                    self.hasty = True
                    break
                if self._at_once(node, way):
                    continue
                branches = self._lexicon.branches(node)
                price = _price(way)
                for byte in likely(way) or branches:
                    if byte not in branches:
                        continue
                    (low, high, depth), ending = branches[byte]
                    following: list[Way] = []
                    step(way, byte, nodes, ours, following)
                    self.left -= price
                    if following:
                        if low < ending:
                            self._ranges.append((low, ending))
                        if ending < high:
                            later += [((low, high, depth), one) for one in following]
            now, first = later, False
        self.hasty = self.hasty or bool(now) or self.left <= 0

    def _at_once(self, node: Node, way: Way) -> bool:
        """Inside a string or a key many tokens can be decided without looking at each."""
        frame, rest = way
        at_root = node == self._lexicon.root
        if frame[0] == STRING and frame[2] is None:
            rule = frame[1]
            if rule.free:
                self._free(node, rest or END)
                return True
            if not isinstance(rule.texts, Words) and (spelled := self._lexicon.spelled(node)):
                if at_root:
                    self._bounded(way)
                else:
                    self._bounded_under(node, spelled, way)
                return True
        elif frame[0] == KEY and frame[5] is None and frame[7] >= 0:
            if not frame[1].patterns:
                self._open_key(node, way)
                return True
            if at_root:
                self._key_by_pattern(way)
                return True
        return False

    def _free(self, node: Node, after: Way) -> None:
        inside = self._lexicon.inside(node)
        self._content(node, inside.content)
        self._found.append(inside.closing[self._tails(after)[inside.tails]])

    def _content(self, node: Node, content: Places) -> None:
        if node == self._lexicon.root:
            self._base = self._masks.free
        else:
            self.left -= 5 + len(content) // 50
            self._found.append(content)

    def _tails(self, after: Way) -> Bools:
        follows, self.left = self._masks.tails(self._state, after, self.left)
        return follows

    def _bounded(self, way: Way) -> None:
        (_, rule, _, at, count), rest = way
        content = self._masks.content
        if isinstance(rule.texts, Automaton):
            answer = self._by_pattern(rule.texts, at)
        else:
            answer = content.by_length(count, rule.least, rule.most)
        far = rule.texts is None and (rule.most is None or rule.most - count > self._lexicon.longest)
        self._base, closing = self._masks.free if far else answer.content, answer.closing
        if rule.texts and self._state.is_ours:
            self._less = self._masks.odd_or_half
            closing = self._neat(self._lexicon.root, self._masks.spelled, closing)
            self._one_by_one(self._lexicon.inside(self._lexicon.root).half, 0, way)
        self._closed(self._masks.spelled, closing, rest or END)

    def _bounded_under(self, node: Node, spelled: Spelled, way: Way) -> None:
        (_, rule, _, at, count), rest = way
        self.left -= 50 + (node[1] - node[0]) // 8
        inside, closing = self._masks.content.under(spelled, rule, at, count)
        if rule.texts and self._state.is_ours:
            inside, closing = self._neat(node, spelled, inside), self._neat(node, spelled, closing)
            self._one_by_one(self._lexicon.inside(node).half, node[2], way)
        self._found.append(spelled.places[inside])
        self._closed(spelled, closing, rest or END)

    def _neat(self, node: Node, spelled: Spelled, rows: Rows) -> Rows:
        """Without the tokens that escape more than they have to, and those that end inside of an escape."""
        inside = self._lexicon.inside(node)
        return rows[~np.isin(spelled.places[rows], np.concatenate((inside.odd, inside.half)))]

    def _closed(self, spelled: Spelled, closing: Rows, after: Way) -> None:
        """Of the tokens that close the string here, those that go on with what may follow it."""
        if len(closing):
            self._found.append(spelled.places[closing[self._tails(after)[spelled.tails[closing]]]])

    def _one_by_one(self, places: Places, depth: int, way: Way) -> None:
        """Look at each of these tokens, which have come `depth` bytes far, as far as the steps go."""
        for place in places.tolist():
            if self.left <= 0:
                return
            follows, self.left = _follows(self._state, way, self._lexicon.pieces[place][depth:], self.left)
            if follows:
                self._ranges.append((place, place + 1))

    def _by_pattern(self, texts: Automaton, at: int) -> Within:
        content = self._masks.content
        known = content.knows(texts, at)
        enough = known or self.left >= PATTERN_STEP
        self.left -= 0 if known else PATTERN_STEP if enough else HASTY_STEP
        self.hasty = self.hasty or not enough
        return content.by_pattern(texts, at) if enough else content.hastily(texts, at)

    def _key_by_pattern(self, way: Way) -> None:
        """A key that its letters decide: one of the schema's, or one that patterns allow."""
        frame, rest = way
        self._base, closing = self._by_pattern(frame[1].patterns, frame[7])
        self._one_by_one(self._masks.spelled.places[closing], 0, way)
        if self._state.is_ours:
            self._less = self._masks.odd_or_half
            self._one_by_one(self._lexicon.inside(self._lexicon.root).half, 0, way)
        if self.left > 0 and frame[6] >= 0:
            named = _Walk(self._masks, self._lexicon, self._state, self.left)
            self._ids.append(named.mask(((*frame[:7], -1, ""), rest)).more)
            self.left, self.hasty = named.left, self.hasty or named.hasty

    def _open_key(self, node: Node, way: Way) -> None:
        """A key the schema need not know. What closes it as a known one, or as one that was there, is looked at."""
        frame, rest = way
        _, rule, seen, others, _, _, _, _, text = frame
        inside = self._lexicon.inside(node)
        neat = self._state.is_ours
        self._content(node, inside.neat if neat else inside.content)
        if neat and node == self._lexicon.root:
            self._less = self._masks.odd
        around = ((OBJECT, rule, seen, others | {None}, AFTER, NONE), rest)
        follows = self._tails(((COLON, rule.other), around))[inside.tails]
        if None in others:
            follows[:] = False
        if text is not None:
            named = {key[len(text) :] for key in (*rule.keys.words, *others) if key and key.startswith(text)}
            named |= {""} if "" in others or "" in rule.keys.words else set()
            self.left -= (len(rule.keys.words) + len(others)) // 16
            if named:
                depth = node[2]
                for number, said in enumerate(inside.texts):
                    if said in named:
                        piece = self._lexicon.pieces[inside.closing[number]][depth:]
                        follows[number], self.left = _follows(self._state, way, piece, self.left)
        self._found.append(inside.closing[follows & inside.neat_closing if neat else follows])


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
