"""What would a cloud say if it were well? The story, and the shape of whoever tells it in a wire format.

Rules of this file:

1. A script is the same for every wire: what differs is said by a `Voice`, one per wire.
2. Voices are pure: the same script and id give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

STORY = (
    "The keeper of the lighthouse climbed the stairs every evening, lit the lamp and wrote one line into his book: "
    "the wind, the ships he had seen, and what the café by the harbour had served that day. Crème brûlée, 4 €. 🌊 "
    "He never missed a night."
)
PROMPT_TOKENS = 21
CREATED = 1_763_000_000
UNKNOWN: Mapping[str, Any] = {"x_new": {"a": [1]}}
"""A field that no client knows."""

_PIECE = re.compile(r"\s*\S{1,6}")
_FRAGMENT = re.compile(r"(?s).{1,7}")

Headers = tuple[tuple[str, str], ...]
Stage = Literal["opening", "middle", "end", "done"]
STAGES: tuple[Stage, ...] = ("opening", "middle", "end", "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a tool. `arguments` is JSON text; without an `id` it gets one as the wire makes them."""

    name: str
    arguments: str
    id: str = ""

    @property
    def fragments(self) -> tuple[str, ...]:
        return tuple(_FRAGMENT.findall(self.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the cloud would say if it were well, how fast, and after how many content events it fails.

    An answer is thinking, then text, then calls, each left out if empty. `stopped` is the reason it gives in its
    wire's own word, in place of the natural one; `stop_string` the caller's string it ran into.

    For transparency: `novelties` are events, blocks and deltas of unknown types; `crlf`, `comments` and `multiline`
    are other ways to write the same events; `gzip` packs every body, asked or not; `cut` sends the body of a stream in
    pieces of so many bytes.
    """

    text: str = STORY
    thinking: str = ""
    signature: str = "c2lnbmF0dXJlIG9mIHRoZSBkcmlsbA=="
    calls: tuple[Call, ...] = ()
    stopped: str = ""
    stop_string: str | None = None
    cached: int = 4
    cache_written: int = 0
    novelties: bool = False
    crlf: bool = False
    comments: bool = False
    multiline: bool = False
    gzip: bool = False
    cut: int = 0
    pace: float = 0.0
    after: int = 6
    retry_after: int = 30
    model: str = "failing-cloud-1"

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text as it streams: a few letters at a time, so that words are cut in two, as by real tokens."""
        return pieces(self.text)

    @property
    def thoughts(self) -> tuple[str, ...]:
        return pieces(self.thinking)

    @property
    def tokens(self) -> int:
        """Of the answer, thinking included."""
        return len(self.pieces) + len(self.thoughts) + sum(len(call.fragments) for call in self.calls)

    def lines(self, payload: Mapping[str, Any]) -> bytes:
        """The JSON of one event: in one line, or in many if the script says so."""
        if self.multiline:
            return json.dumps(payload, ensure_ascii=False, indent=1).encode()
        return compact(payload)

    def framed(self, data: bytes, *, event: str = "") -> bytes:
        """One server-sent event."""
        lines = [b": inside"] if self.comments else []
        lines += [b"event: " + event.encode()] if event else []
        lines += [b"data: " + line for line in data.split(b"\n")]
        return self.ended([b": between", b"", *lines, b""] if self.comments else [*lines, b""])

    def ended(self, lines: Iterable[bytes]) -> bytes:
        end = b"\r\n" if self.crlf else b"\n"
        return b"".join(line + end for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One event of a story, as bytes. A `piece` is content: it counts for `Script.after`."""

    stage: Stage
    data: bytes
    piece: bool = False
    text: str = ""
    thinking: str = ""
    call: int | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A status other than 200 and its body. `later`: it says when to come back."""

    status: int
    body: bytes
    later: bool = False


class Voice(Protocol):
    """How one wire says it."""

    api: str
    headers: Headers
    """What comes with every answer."""
    greeting: bytes
    """What stands before the first event of a healthy stream."""
    pulse: bytes
    """A sign of life that is no content."""

    def id(self, tail: str) -> str: ...

    def story(self, script: Script, id: str, *, usage: bool) -> tuple[Said, ...]:
        """A healthy stream. `usage`: its caller asked for token counts."""
        ...

    def whole(self, script: Script, id: str) -> bytes:
        """A healthy whole answer."""
        ...

    def error(self, type: str, message: str, *, code: str | None = None, param: str | None = None) -> bytes:
        """The body of an error."""
        ...

    def broke(self) -> bytes:
        """The JSON of an error said after a 200."""
        ...

    def framed(self, script: Script, data: bytes) -> bytes:
        """`data` as one event of a stream."""
        ...

    def piece(self, script: Script, id: str, text: str) -> bytes:
        """One event with `text`."""
        ...

    def nonsense(self, script: Script) -> bytes:
        """One event that is not JSON."""
        ...

    def models(self, script: Script) -> bytes: ...

    @property
    def refusals(self) -> Mapping[str, Refusal]:
        """By the name of the fault."""
        ...


def pieces(text: str) -> tuple[str, ...]:
    found = _PIECE.findall(text)
    rest = text[sum(map(len, found)) :]
    return (*found, rest) if rest else tuple(found)


def compact(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def indented(body: Mapping[str, Any]) -> bytes:
    """Indented and with its own order of keys: what passes through must not be written anew."""
    return json.dumps(body, ensure_ascii=False, indent=2).encode() + b"\n"
