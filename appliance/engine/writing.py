"""What is written of a JSON document, and what of these letters belongs to it as well?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.structure import Grammar, State, start
from appliance.engine.edges import SPACE


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """A document so far. Of its letters it keeps what somebody else wrote, to read it again by another grammar."""

    grammar: Grammar
    state: State
    theirs: bytes = b""
    begun: bool = False
    blank: int = 0
    """So much white space stands at its end."""

    def feed(self, data: bytes, *, driven: bool) -> tuple[Writing, bytes, bytes] | None:
        """The document with what of these letters belongs to it, how much of that is said, and the letters behind its
        end; None if it cannot go on like this. `driven`: somebody else wrote them. White space in front is not said."""
        state, count = self.state, 0
        while count < len(data) and not state.over:
            following = state.feed(data[count : count + 1])
            if following is None:
                return None
            state, count = following, count + 1
        new = data[:count]
        said = new if self.begun else new.lstrip(SPACE)
        begun = self.begun or bool(said)
        theirs = self.theirs + new if driven and begun else self.theirs
        bare = new.rstrip(SPACE)
        blank = count - len(bare) + (0 if bare else self.blank)
        return Writing(self.grammar, state if driven else state.ours(), theirs, begun, blank), said, data[count:]


def begin(grammar: Grammar) -> Writing:
    return Writing(grammar, start(grammar))
