"""Which tokens stay inside a string that a pattern or a length bounds, and which close it where it may end?

Answered for the whole vocabulary at once: the characters of all tokens lie in columns, and the automaton of a pattern
steps down them. Two states of an automaton that no text of `SHORT` characters tells apart share the answer for short
tokens; the few long ones are looked at for each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from appliance.core.structure.letters import possible
from appliance.core.structure.pattern import Automaton
from appliance.engine.lexicon import Bools, Lexicon, Places

SHORT = 24
MOST_AUTOMATA = 16
MOST_ANSWERS = 128

Rows = NDArray[np.intp]


class Answer(NamedTuple):
    """The tokens that stay inside, as a mask over their numbers, and rows of those that close the string."""

    content: Bools
    closing: Rows


class Content:
    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._spelled = spelled = lexicon.spelled
        self._rows = np.arange(len(spelled.places))
        self._long = int(np.searchsorted(-spelled.counts, -SHORT, side="left"))
        self._stays = spelled.tails < 0
        self._closing = np.flatnonzero(~self._stays)
        self._halves = dict(spelled.halves)
        self._half_rows = np.array([*self._halves], dtype=np.intp)
        self._tables: OrderedDict[Automaton, tuple[NDArray[np.int32], NDArray[np.int32], Bools]] = OrderedDict()
        self._answers: OrderedDict[tuple[Automaton, int], Answer] = OrderedDict()

    def ids(self, rows: Rows) -> Places:
        return self._lexicon.ids[self._spelled.places[rows]]

    def following(self, rows: Rows, tails: Bools) -> Rows:
        """Those of these rows whose tail may follow the string."""
        return rows[tails[self._spelled.tails[rows]]]

    def by_length(self, count: int, least: int, most: int | None) -> tuple[Rows, Rows]:
        """Rows that do not stay inside although content may, because they are too long; rows that may close."""
        counts = self._spelled.counts
        closing = self._closing[counts[self._closing] + count >= least]
        if most is None:
            return self._rows[:0], closing
        left = most - count
        closing = closing[counts[closing] <= left]
        too_long = self._rows[: int(np.searchsorted(-counts, -left, side="left"))]
        halves = self._half_rows[counts[self._half_rows] == left]
        return np.concatenate((too_long, halves)), closing

    def by_pattern(self, texts: Automaton, at: int) -> tuple[Bools, Rows, Rows]:
        """The mask of short tokens that stay inside, which others share; long rows that stay; rows that may close."""
        key = (texts, texts.alike(SHORT + 1)[at])
        answer = self._answers.get(key)
        if answer is None:
            inside, closing = self._run(texts, at, self._rows[self._long :])
            content = np.zeros(self._lexicon.size, dtype=np.bool_)
            content[self.ids(inside)] = True
            content.setflags(write=False)
            answer = self._answers[key] = Answer(content, closing)
            if len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        inside, closing = self._run(texts, at, self._rows[: self._long])
        return answer.content, inside, np.concatenate((answer.closing, closing))

    def _run(self, texts: Automaton, at: int, rows: Rows) -> tuple[Rows, Rows]:
        """The rows that stay inside, and those that may close, when their characters follow in this state."""
        spelled = self._spelled
        table, classes, ends = self._table(texts)
        states = np.full(len(self._rows), at, dtype=np.int32)
        alive = rows
        first = int(rows[0]) if len(rows) else 0
        for column in spelled.columns:
            alive = alive[: np.searchsorted(alive, len(column))]
            if not len(alive):
                break
            following = table[states[alive], classes[column[alive]]]
            states[alive] = following
            alive = alive[following >= 0]
        good = rows[states[rows] >= 0]
        inside = good[self._stays[good]]
        closing = good[~self._stays[good]]
        bad = [
            row
            for row in self._half_rows[np.isin(self._half_rows, inside)].tolist()
            if row >= first and not any(texts.some(int(states[row]), *span) for span in possible(self._halves[row]))
        ]
        return np.setdiff1d(inside, bad) if bad else inside, closing[ends[states[closing]]]

    def _table(self, texts: Automaton) -> tuple[NDArray[np.int32], NDArray[np.int32], Bools]:
        """The automaton's table with a last row that leads nowhere, the class of each letter, and where texts end."""
        found = self._tables.get(texts)
        if found is None:
            table = np.array([*texts.table, [-1] * len(texts.bounds)], dtype=np.int32)
            classes = np.searchsorted(np.array(texts.bounds), self._spelled.alphabet, side="right") - 1
            ends = np.array([*(label > 0 for label in texts.labels), False])
            found = self._tables[texts] = (table, classes.astype(np.int32), ends)
            if len(self._tables) > MOST_AUTOMATA:
                self._tables.popitem(last=False)
        self._tables.move_to_end(texts)
        return found
