"""Which block of the answer is open, and what waits for its turn? As the bytes of Anthropic's stream.

Rules of this file:

1. One block at a time: each is closed before the next opens, and their numbers have no gaps.
2. What is open goes on while more of its kind comes, whoever says it.
3. A call stays open until its JSON is complete or somebody says that it is over. What comes for other blocks in the
   meantime waits, in order: OpenAI's clouds may send the pieces of several calls in turn.
4. Thinking that we close has no signature of a cloud's. It gets a mark instead, by which we know it again.
5. A tool on the cloud's side that the cloud did not live to answer for is answered for here: it was not available.
   Anthropic takes no conversation back in which such a call has no result.
6. A call opens with its first arguments, or when something else begins: until then more of its name may come.
7. Nothing empty is said, but for the first piece of a call's arguments, as the real API says it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from appliance.core import sse
from appliance.core.events import BlockKind
from appliance.dialects import fields
from appliance.dialects.anthropic_body import UNSIGNED
from appliance.dialects.anthropic_whole import Spoken, unused_id

_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_SIGNATURE = fields.compact({"type": "signature_delta", "signature": UNSIGNED})

_OPENINGS: dict[Spoken, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "reasoning": {"type": "thinking", "thinking": "", "signature": ""},
}
_PIECES: dict[Spoken, bytes] = {
    "text": b'{"type":"text_delta","text":%b}',
    "reasoning": b'{"type":"thinking_delta","thinking":%b}',
}
_MARKS = re.compile(r'["{}[\]]|\\.?', re.DOTALL)
"""All that counts in JSON for where it ends; what has a backslash before it does not."""
_ARGUMENTS = b'{"type":"input_json_delta","partial_json":%b}'

# What answers a tool on a cloud's side, by the tool's name. An error has that name with a tail, and one code for all.
_RESULTS = {
    "web_search": "web_search_tool_result",
    "web_fetch": "web_fetch_tool_result",
    "code_execution": "code_execution_tool_result",
    "bash_code_execution": "bash_code_execution_tool_result",
    "text_editor_code_execution": "text_editor_code_execution_tool_result",
    "tool_search_tool_regex": "tool_search_tool_result",
    "tool_search_tool_bm25": "tool_search_tool_result",
}

# Made once: `json.dumps` makes an encoder for every call that wants other than its defaults.
_written = json.JSONEncoder(ensure_ascii=False).encode


def _quoted(text: str) -> bytes:
    try:
        return _written(text).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return json.dumps(text).encode()


class _Block:
    """One block: open, closed, or waiting to be opened."""

    __slots__ = (
        "_depth",
        "_in_text",
        "_unread",
        "begun",
        "closed",
        "held",
        "index",
        "kind",
        "leg",
        "opening",
        "signed",
        "waiting",
        "whole",
    )

    def __init__(self, kind: BlockKind, opening: dict[str, Any], *, leg: int, index: int = -1) -> None:
        self.kind = kind
        self.opening = opening
        self.leg = leg  # who began it
        self.index = index
        self.waiting: list[bytes] = []
        self.whole = False  # nothing more will come for it
        self._unread: list[str] = []
        self._depth = 0  # brackets that are open in what was read
        self._in_text = False
        self.begun = False  # some of its arguments came
        self.signed = False
        self.closed = False
        self.held = False  # as long as more of its name may come

    def heard(self, arguments: str) -> None:
        """A piece of the call's JSON."""
        self._unread.append(arguments)
        self.begun = self.begun or bool(arguments.strip())

    def may_close(self) -> bool:
        """Is it sure that closing it cuts nothing off?"""
        if self.kind == "tool_call" and not self.whole and self._unread:
            text, self._unread = "".join(self._unread), []
            self.whole = self._completed(text)
        return self.kind != "tool_call" or self.whole

    def _completed(self, text: str) -> bool:
        """Does the object end in `text`? What was read before is not read again."""
        for found in _MARKS.finditer(text):
            mark = found[0]
            if mark == '"':
                self._in_text = not self._in_text
            elif mark == "\\":  # what it stands before comes with the next piece
                self._unread.append(mark)
            elif self._in_text:
                continue
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0 and mark == "}":
                    return True
        return False


class Blocks:
    """The blocks of one answer. What says something returns the bytes for it, perhaps none yet."""

    def __init__(self) -> None:
        self._open: _Block | None = None
        self._line: list[_Block] = []  # behind an open call that is not complete, and only then
        self._calls: dict[int, _Block] = {}
        self._ids: set[str] = set()
        self._next = 0
        self._leg = 0
        self._unclosed: dict[int, _Block] = {}  # by a cloud that opens the next block first and passes as it came
        self._awaited: dict[str, str] = {}  # by the id of a call of a cloud's own tool: what will answer it
        self._number = -1  # in which of its blocks the running leg says it is, if it says so
        self._said: BlockKind | None = None  # and of what kind
        self.called = False
        """Has the client been told of a call?"""

    def taken_over(self) -> bytes:
        """From here on another leg speaks, and counts its blocks anew."""
        self._leg += 1
        left, self._unclosed = self._unclosed, {}
        return b"".join(_ending(block) for block in left.values()) + self._unanswered()

    def _unanswered(self) -> bytes:
        """The results that nobody will give any more."""
        if not self._awaited:
            return b""
        out = self.end()
        for identity, kind in self._awaited.items():
            error = {"type": f"{kind}_error", "error_code": "unavailable"}
            result = fields.compact({"type": kind, "tool_use_id": identity, "content": error})
            out += _START % (self._next, result) + _STOP % self._next
            self._next += 1
        self._awaited.clear()
        return out

    # ---------------------------------------------------------------------- what the client was sent as it came

    def saw_start(self, index: int, kind: BlockKind) -> None:
        if self._open is not None:
            self._unclosed[self._open.index] = self._open
        self._open = _Block(kind, {}, leg=self._leg, index=index)
        self._next = index + 1
        self.called = self.called or kind == "tool_call"

    def saw_other(self, block: Any) -> None:
        """What is in the start of a block of a kind we have no word for: perhaps a call or a result."""
        match block:
            case {"type": "server_tool_use", "id": str(identity), "name": str(name)} if name in _RESULTS:
                self._awaited[identity] = _RESULTS[name]
            case {"tool_use_id": str(identity)}:
                self._awaited.pop(identity, None)

    def saw_stop(self, index: int) -> None:
        if self._open is not None and self._open.index == index:
            self._open.closed = True
            self._open = None
        elif index in self._unclosed:
            self._unclosed.pop(index).closed = True

    def saw_call(self, index: int, identity: str) -> None:
        if self._open is not None:
            self._calls[index] = self._open
            self._ids.add(identity)

    def saw_arguments(self, index: int, text: str) -> None:
        if (block := self._calls.get(index)) is not None:
            block.heard(text)

    def saw_signature(self) -> None:
        if self._open is not None:
            self._open.signed = True

    # ----------------------------------------------------------------------------------------------------- what we say

    def speak(self, kind: Spoken, text: str) -> bytes:
        """Text or thinking."""
        piece = _PIECES[kind] % _quoted(text)
        out, block = self._released(), self._open
        if block is not None and block.kind == kind and not block.signed:
            return out + _DELTA % (block.index, piece)
        if not self._line or self._line[-1].kind != kind:
            self._line.append(_Block(kind, _OPENINGS[kind], leg=self._leg))
        self._line[-1].waiting.append(piece)
        return out + self._advance()

    def call(self, index: int, identity: str, name: str, *, answer: str) -> bytes:
        """Call `index` begins. `answer` is the answer's id, of which an id is made where none came."""
        if (former := self._calls.get(index)) is not None:
            former.whole = True  # another leg counts its calls from 0 again
        out = self._released()
        opening = {"type": "tool_use", "id": unused_id(identity, answer, self._ids), "name": name, "input": {}}
        block = _Block("tool_call", opening, leg=self._leg)
        block.held = True
        block.waiting.append(_ARGUMENTS % b'""')
        self._calls[index] = block
        self._line.append(block)
        self.called = True
        return out + self._advance()

    def name(self, index: int, more: str) -> None:
        """More of the name of call `index`, which is not told of before its arguments, or something else, begin."""
        if (block := self._calls.get(index)) is not None and block.held:
            block.opening["name"] += more

    def arguments(self, index: int, text: str) -> bytes:
        """A piece of call `index`. White space in front of a document breaks the SDK, which reads as it comes; behind
        a complete one only white space can come, which nobody misses."""
        block = self._calls.get(index)
        if block is not None and not block.begun:
            text = text.lstrip(" \t\r\n")
        if block is None or block.closed or not text:
            return b""
        out = self._released() if block.held else b""
        block.heard(text)
        piece = _ARGUMENTS % _quoted(text)
        if block is not self._open:
            block.waiting.append(piece)
            return out
        said = out + _DELTA % (block.index, piece)
        return said + self._advance() if self._line else said

    def begin(self, number: int, kind: BlockKind) -> bytes:
        """A leg that numbers its blocks is in one of `kind` now; it opens with its first piece."""
        self._number, self._said = number, kind
        out = self._advance(surely=True)
        return out + self._close() if self._open is not None and self._open.kind == "tool_call" else out

    def finish(self, number: int) -> bytes:
        """That leg's block is complete. One of another kind, begun by somebody else, may still be gone on with."""
        if self._open is None or (number, self._open.kind) != (self._number, self._said):
            return b""
        return self._close() + self._advance()

    def end(self) -> bytes:
        """Nothing more will come for any of them."""
        return self._advance(surely=True) + self._close()

    # ---------------------------------------------------------------- what another leg of this dialect said, passed on

    def adopt_start(self, event: dict[str, Any]) -> bytes:
        """A block of a kind we have no word for."""
        out = self.end()
        self.saw_other(event.get("content_block"))
        block = self._open = _Block("other", {}, leg=self._leg, index=self._next)
        self._next += 1
        return out + _numbered("content_block_start", event, block)

    def adopt_piece(self, event: dict[str, Any]) -> bytes:
        """A piece of a kind we have no word for, in whatever block."""
        delta = event.get("delta")
        if not isinstance(delta, dict):
            return b""
        if delta.get("type") == "signature_delta":
            return self._sign(event)
        out = self._turn_to(self._said) if self._said == "text" or self._said == "reasoning" else self._released()
        if self._open is None or self._open.kind != self._said:
            return out
        return out + _numbered("content_block_delta", event, self._open)

    def _sign(self, event: dict[str, Any]) -> bytes:
        """A signature holds for thinking that is the signer's from the first word to the last."""
        if self._open is not None and self._open.kind == "reasoning" and self._open.leg != self._leg:
            return b""
        out = self._turn_to("reasoning")
        assert self._open is not None
        self._open.signed = True
        return out + _numbered("content_block_delta", event, self._open)

    def _turn_to(self, kind: Spoken) -> bytes:
        if self._open is not None and self._open.kind == kind and not self._open.signed:
            return b""
        self._line.append(_Block(kind, _OPENINGS[kind], leg=self._leg))
        return self._advance(surely=True)

    # ------------------------------------------------------------------------------------------------------- the line

    def _advance(self, *, surely: bool = False) -> bytes:
        """Open what waits, as far as what is open may close; all of it, if it `surely` may."""
        out: list[bytes] = []
        while self._line and (surely or (not self._line[0].held and self._may_open())):
            out.append(self._close())
            block = self._open = self._line.pop(0)
            block.held = False
            block.index = self._next
            self._next += 1
            out.append(_START % (block.index, fields.compact(block.opening)))
            out += [_DELTA % (block.index, piece) for piece in block.waiting]
        return b"".join(out)

    def _may_open(self) -> bool:
        return self._open is None or self._open.may_close()

    def _released(self) -> bytes:
        """The name of the call that came last is whole: something else begins."""
        for block in self._line:
            block.held = False
        return self._advance()

    def _close(self) -> bytes:
        block, self._open = self._open, None
        return b"" if block is None else _ending(block)


def _ending(block: _Block) -> bytes:
    block.closed = True
    stopped = _STOP % block.index
    if block.kind == "reasoning" and not block.signed:
        return _DELTA % (block.index, _SIGNATURE) + stopped
    return stopped


def _numbered(kind: str, event: dict[str, Any], block: _Block) -> bytes:
    """A cloud's own event, under the number that its block has here."""
    return sse.encode(fields.compact({"type": kind, **event, "index": block.index}), kind)
