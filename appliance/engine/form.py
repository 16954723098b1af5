"""What may come next in an answer that has calls or is JSON, and what is each byte of it?

An answer is free text, in which a call may begin; then the letters that a family of models writes around a call, which
are not drawn but given; the name of one of the tools; arguments that an acceptor follows; and free text again, or
the end. Asked for JSON, it is one document and nothing else.

Rules of this file:

1. What has to come is `given`, in one go: nothing is drawn where there is no choice.
2. Arguments are complete when their document is, and not when the model says so; an end may not be drawn before.
3. Letters that may begin a mark wait until they do not. White space in front of a call is not said.
4. A half answer is driven through the same machine, so that a call which somebody else began goes on wherever it was
   cut. Where its author has not kept to the schema, less is asked for; where it was no JSON, nobody can go on. What is
   given back (`healing.py`) has a say in this too: it will be drawn anew, letter by letter.
5. Whatever the client has of a token is not said again (`take`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Literal

import numpy as np

from appliance.core.structure import Grammar, start
from appliance.engine.edges import SPACE, along, first, fits, unfinished
from appliance.engine.job import Refusal, lost_tool
from appliance.engine.masks import Masks
from appliance.engine.shape import Kind, Said, Shape
from appliance.engine.speech import Speech
from appliance.engine.vocabulary import Ids, Index
from appliance.engine.writing import Writing, begin

Mode = Literal["free", "thinking", "literal", "name", "arguments", "between", "json", "over"]
Reason = Literal["stop", "tool_calls"]
MOST_CALLS = 16  # in one answer: a weak model that has begun to repeat itself would go on until it is cut off


class Form:
    """One answer. `tokenize` is for plain text; `thinking`: the prompt has opened thoughts."""

    def __init__(
        self,
        shape: Shape,
        speech: Speech,
        masks: Callable[[], Masks],
        index: Index,
        tokenize: Callable[[str], list[int]],
        *,
        thinking: bool = False,
    ) -> None:
        self._shape, self._speech, self._masks, self._index, self._tokenize = shape, speech, masks, index, tokenize
        self._marks = {token: mark.encode() for mark, token in speech.marks.items()}
        self.calls = 0
        """Those that are complete."""
        self._mode: Mode = "thinking" if thinking else "free"
        self._spoken = False  # was there any text?
        self._parted = False  # does white space stand behind the last call?
        self._thought = False  # did thoughts end here? White space behind them is not said
        self._held = b""  # may begin a mark
        self._ways: dict[bytes, Mode] = {}  # literals that may come, one of them, and what follows
        self._expected = self._ways
        self._name = b""
        self._told = 0  # so many letters of it are the client's
        self.writing: Writing | None = None
        """The arguments of the last call, or the document that was asked for."""
        self._driven = False
        self._tool = ""  # that is called, if one is
        self._strayed: str | None = None
        self.reason: Reason = "stop"
        """Why it ends where it ends."""
        if not thinking:
            self._block()

    # ------------------------------------------------------------------------------------------- what may come

    @property
    def lost(self) -> tuple[str, ...]:
        """What of the wishes nobody here can keep to, or whoever began it did not."""
        return self._shape.lost if self._strayed is None else (*self._shape.lost, self._strayed)

    @property
    def speaking(self) -> bool:
        """Is it in the middle of plain text?"""
        return self._mode == "free"

    @property
    def over(self) -> bool:
        """Is it at its end, without an end having been drawn?"""
        return self._mode == "over"

    @property
    def called(self) -> bool:
        """Is what is there whole, and ends with a call?"""
        closing = self._mode == "literal" and "between" in self._ways.values()
        return closing or (self.calls > 0 and self._mode in ("between", "over"))

    def insist(self) -> bool:
        """The model wants to end. Must there be a call first? Then that comes."""
        if not (self._shape.must and not self.calls and self._mode == "free"):
            return False
        self._expect({(self._speech.after_text + self._speech.open).encode(): "name"})
        return True

    @property
    def given(self) -> list[int]:
        """The tokens that come now without being drawn."""
        ways = list(self._ways) if self._mode == "literal" else self._names() if self._mode == "name" else []
        if len(ways) != 1:
            return []
        try:
            return self._speech.spell(ways[0].decode(), self._tokenize)
        except UnicodeDecodeError:  # a name that was cut inside a character: the rest of that is drawn
            return []

    def allowed(self, *, begun: bool = False) -> Ids | None:
        """The tokens that may be drawn; None: any. `begun`: somebody else wrote their first letters."""
        match self._mode:
            case "free" | "thinking" | "over":
                return None
            case "literal":
                return self._speech.beginnings(self._ways, self._index)
            case "name":
                return self._speech.beginnings(self._names(), self._index)
            case "between":
                blank = self._speech.after_call.encode()
                apart = [blank] if blank and not self._parted else []
                return np.union1d(self._index.ends, self._speech.beginnings([*apart, *self._ways], self._index))
            case "arguments" | "json":
                assert self.writing is not None
                state = self.writing.state
                allowed = self._masks().allowed(state if begun else state.ours(), blank=self.writing.blank)
                if state.complete:
                    allowed[self._index.ends] = True
                if self._may_call:
                    allowed[self._speech.beginnings(self._ways, self._index)] = True
                return np.flatnonzero(allowed).astype(np.int32)

    # ---------------------------------------------------------------------------------------------- what came

    def goes_on_from(self, text: bytes, owed: bytes = b"") -> None:
        """Somebody else wrote this text, in which no mark means anything, and `owed`, which is given back."""
        if self._shape.json is not None:
            self._begin("json", self._shape.json)
            try:
                self.drive(text)
                self._foresee(owed)
                return
            except Refusal:
                pass  # it is in a fence, or there are words in front of it: text like any other
        self._mode, self._held = "free", b""
        self._spoken = self._spoken or bool(text)

    def goes_on_behind_call(self) -> None:
        """Somebody else has made a whole call."""
        self.calls += 1
        self._called()

    def goes_on_in_call(self, name: str, arguments: bytes, owed: bytes = b"") -> None:
        """Somebody else has begun this call; `owed` is given back. Raises `Refusal` if nobody can go on from it: what a
        tool that we were not told of is called with, nobody here can begin."""
        known = self._shape.tools.get(name, self._shape.any if (arguments + owed).strip() else None)
        if known is None:
            raise _lost()
        self._tool = name
        self._begin("arguments", known)
        self.drive(arguments)
        self._foresee(owed)

    def goes_on_in_name(self, name: bytes, owed: bytes) -> None:
        """Somebody else has begun to say which tool is called, and more of that may come; `owed` is given back."""
        self._mode, self._name, self._told = "name", b"", len(name + owed)
        self.drive(name)

    def drive(self, letters: bytes) -> None:
        """Somebody else wrote this, marks and all. Raises `Refusal` if nobody can go on from it."""
        self._driven = True
        try:
            self._feed(letters)
        finally:
            self._driven = False
        self._spoken = self._spoken or bool(letters)
        self._held = b""  # the client has it

    def _foresee(self, owed: bytes) -> None:
        """These letters come next, whoever draws them: if they keep to no schema, it keeps to none from here on."""
        ahead = copy(self)
        ahead.drive(owed)
        writing, then = self.writing, ahead.writing
        assert writing is not None and then is not None, "somebody has begun it"
        if then.grammar is not writing.grammar:
            self._strayed = ahead._strayed
            self._begin(self._mode, then.grammar)
            self.drive(writing.theirs)

    def take(self, token: int, piece: bytes, new: bytes) -> list[Said]:
        """A token with these letters came, of which the last, `new`, are not known to the client."""
        if token in self._marks:
            return self._feed(self._marks[token])
        if len(new) < len(piece):
            self.drive(piece[: len(piece) - len(new)])
        return self._feed(new)

    def close(self) -> list[Said]:
        """The answer ends here: what waited."""
        held, self._held = self._held, b""
        if self.called or (self.calls and self._mode == "free"):
            self.reason = "tool_calls"
        if self._mode not in ("free", "thinking") or not held:
            return []
        return [Said("text" if self._mode == "free" else "reasoning", held)]

    # ------------------------------------------------------------------------------------------------ the machine

    def _feed(self, data: bytes) -> list[Said]:
        said: list[Said] = []
        while data:
            match self._mode:
                case "free":
                    data = self._free(data, said)
                case "thinking":
                    data = self._think(data, said)
                case "literal" | "between":
                    data = self._literal(data)
                case "name":
                    data = self._named(data, said)
                case "arguments" | "json":
                    data = self._write(data, said)
                case "over":
                    break
        return said

    def _block(self) -> None:
        """A block may begin: text, thoughts, a call, or the document that was asked for."""
        shape, speech = self._shape, self._speech
        if shape.must and not self.calls:
            self._expect({speech.open.encode(): "name"})
        elif shape.json is not None and not speech.say:
            self._begin("json", shape.json)
            # A call that begins as a document does could not be told from one.
            self._ways = {speech.open.encode(): "name"} if shape.tools and not speech.first_only else {}
        elif speech.say:
            ways: dict[bytes, Mode] = {speech.say.encode(): "free" if shape.json is None else "json"}
            if shape.tools:
                ways[speech.open.encode()] = "name"
            if speech.thoughts is not None and not self.calls:
                ways[speech.thoughts.open.encode()] = "thinking"
            self._expect(ways)
        else:
            self._mode = "free"

    def _free(self, data: bytes, said: list[Said]) -> bytes:
        if self._driven:
            return b""
        if self._thought and not (data := data.lstrip(SPACE)):
            return b""
        self._thought = False
        buffer, speech = self._held + data, self._speech
        marks: dict[bytes, Mode] = {}
        if self._shape.tools and not speech.say and not (speech.first_only and self._spoken):
            marks[speech.trigger.encode()] = "literal"
        if speech.thoughts is not None and not speech.say and not self._spoken:
            marks[speech.thoughts.open.encode()] = "thinking"
        at, mark = first(buffer, marks)
        rest, way = buffer[at + len(mark) :], speech.open[len(speech.trigger) :].encode()
        if mark and marks[mark] == "literal" and not fits(rest, way):
            said.append(Said("text", buffer[: at + len(mark)]))  # it only speaks of the mark
            self._spoken, self._held = True, b""
            return rest
        if mark and not (speech.first_only and marks[mark] == "literal" and buffer[:at].strip(SPACE)):
            if before := buffer[:at].rstrip(SPACE):
                said.append(Said("text", before))
                self._spoken = True
            self._held = b""
            if marks[mark] == "thinking":
                self._mode = "thinking"
            else:
                self._expect({way.lstrip(SPACE) if rest else way: "name"})
                rest = rest.lstrip(SPACE)
            return rest
        self._hold(buffer, marks, "text", said)
        return b""

    def _think(self, data: bytes, said: list[Said]) -> bytes:
        assert self._speech.thoughts is not None
        buffer, mark = self._held + data, self._speech.thoughts.close.encode()
        at = buffer.find(mark)
        if at < 0:
            self._hold(buffer, {mark: "free"}, "reasoning", said)
            return b""
        if buffer[:at].strip(SPACE):
            said.append(Said("reasoning", buffer[:at]))
        self._held = b""
        self._block()
        self._thought = True
        rest = buffer[at + len(mark) :].lstrip(SPACE)
        if self._mode == "literal" and not any(fits(rest, way) for way in self._ways):
            return b""  # nobody has it yet, and it is not what has to come
        if self._mode == "json" and self.writing is not None and self.writing.state.feed(rest) is None:
            return b""
        return rest

    def _hold(self, buffer: bytes, marks: Mapping[bytes, Mode], kind: Kind, said: list[Said]) -> None:
        keep = unfinished(buffer, marks)
        self._held = buffer[len(buffer) - keep :]
        if len(buffer) > keep:
            said.append(Said(kind, buffer[: len(buffer) - keep]))
            self._spoken = self._spoken or kind == "text"

    def _expect(self, ways: Mapping[bytes, Mode], mode: Mode = "literal") -> None:
        self._ways, self._mode = dict(ways), mode
        self._expected = self._ways  # all of it
        if ways.get(b"") is not None:
            self._arrive(ways[b""])

    def _arrive(self, mode: Mode) -> None:
        """A literal is complete."""
        if mode == "name":
            self._name, self._mode = b"", "name"
        elif mode == "json":
            assert self._shape.json is not None
            self._begin("json", self._shape.json)
        elif mode == "between":
            self.calls += 1
            self._called()
        else:
            self._mode = mode

    def _called(self) -> None:
        """A call is complete."""
        speech = self._speech
        several = self._shape.several and speech.parallel
        if not several or not self._shape.tools or self.calls >= MOST_CALLS:
            self._mode, self.reason = "over", "tool_calls"
            return
        self._parted = False
        self._expect({speech.open.encode(): "name"}, "between")

    def _literal(self, data: bytes) -> bytes:
        if self._driven and "between" in self._ways.values() and data.strip(SPACE):
            raise _lost()  # behind somebody else's arguments: a mark is nobody's but ours to write
        if self._mode == "between" and data[:1].isspace():
            self._parted = True
            return data.lstrip(SPACE)
        count, ways = along(data, self._ways)
        if b"" in ways:
            self._arrive(ways[b""])
            return data[count:]
        if ways:
            self._ways, self._mode = ways, "literal"
            return b""
        if not count and self._ways == self._expected and data[:1].isspace():
            return data.lstrip(SPACE)  # in front of a mark it is nobody's
        raise _lost()

    def _names(self) -> list[bytes]:
        """How the name may go on, with what stands behind it."""
        ways = [f"{name}{self._speech.between}".encode() for name in self._shape.tools]
        return [way[len(self._name) :] for way in ways if way.startswith(self._name)]

    def _named(self, data: bytes, said: list[Said]) -> bytes:
        behind = self._speech.between.encode()
        for count in range(1, len(data) + 1):
            name = self._name + data[:count]
            known = name[: len(name) - len(behind)].decode("utf-8", "replace")
            if name.endswith(behind) and known in self._shape.tools:
                if rest := known.encode()[self._told :]:
                    said.append(Said("rest" if self._told else "name", rest, self.calls))
                self._tool, self._told = known, 0
                self._begin("arguments", self._shape.tools[known])
                return data[count:]
        self._name += data
        if not self._names():
            raise _lost()
        return b""

    @property
    def _may_call(self) -> bool:
        """May a call stand here instead of the document that was asked for?"""
        begun = self.writing is not None and self.writing.begun
        return self._mode == "json" and not begun and bool(self._ways)

    def _begin(self, mode: Mode, grammar: Grammar) -> None:
        self._mode, self.writing, self._ways = mode, begin(grammar), {}

    def _write(self, data: bytes, said: list[Said]) -> bytes:
        writing = self.writing
        assert writing is not None
        if self._may_call and (bare := data.lstrip(SPACE)) and writing.state.feed(bare[:1]) is None:
            self._mode = "literal"
            return bare
        following = writing.feed(data, driven=self._driven)
        if following is None:
            return self._rewrite(writing, data)
        self.writing, letters, rest = following
        if letters:
            said.append(Said("text" if self._mode == "json" else "arguments", letters, self.calls))
        if self.writing.state.over:
            if self._mode == "json":
                self._mode = "over"
            else:
                self._expect({self._speech.close.encode(): "between"})
        return rest

    def _rewrite(self, writing: Writing, data: bytes) -> bytes:
        """What somebody else wrote does not keep to its schema: what still can be asked for is."""
        shape, written = self._shape, writing.theirs + data
        called = self._mode == "arguments"
        if self._driven and shape.any is not None and writing.grammar is not shape.any:
            for grammar in (*shape.looser(self._tool if called else "", written), shape.any):
                if start(grammar).feed(written) is not None:
                    self._begin(self._mode, grammar)
                    self._strayed = lost_tool(self._tool) if called else "response_format"
                    return written
        raise _lost()


def _lost() -> Refusal:
    return Refusal("server", "The local model cannot go on from what was written of this answer.")
