"""What is an answer made of? Events, in the domain's words and not a provider's.

Each carries as `wire` the bytes it came from, which a client of the same dialect is given back untouched; whatever the
vocabulary cannot name is `Opaque` and rides along as those bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from appliance.core.chat import Headers

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
BlockKind = Literal["text", "reasoning", "tool_call", "other"]


@dataclass(frozen=True, slots=True)
class Wire:
    """The bytes an event came from, whole. The first event of a wire event carries all its bytes and the
    others that came out of the same bytes carry ``b""``, so that concatenating them gives the stream back."""

    dialect: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A cloud took the request, and these headers of its answer carry meaning. Not content, never encoded."""

    headers: Headers
    wire: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An answer begins: its id, the model's name as the answerer gives it, Unix time. Not content."""

    id: str
    model: str
    created: int
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStart:
    """Block `index` of the answer begins, in dialects that number them. Content only if it is of no kind we know."""

    index: int
    kind: BlockKind
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStop:
    """Block `index` is complete."""

    index: int
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How likely a token of the text was, as a natural logarithm, and those most likely in its place, the likeliest
    first. Its bytes may be some of a character's, or some of the token's if the client had the others already."""

    token: bytes
    logprob: float
    others: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """`odds` are those of the tokens that are complete with it, if they were asked for and are ours to tell."""

    text: str
    choice: int = 0
    odds: tuple[Odds, ...] = ()
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    text: str
    choice: int = 0
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStart:
    """The answer's call number `index` begins, counted from 0 among the calls."""

    index: int
    id: str
    name: str
    choice: int = 0
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of the JSON text of call `index`. There are clouds that say its name in pieces as well."""

    index: int
    arguments: str
    choice: int = 0
    name: str = ""
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """Something the vocabulary has no word for. ``content`` says whether the client would see it as part of the
    answer: if so, an answer that holds it cannot be continued by somebody else, unless it is ``closed``: complete in
    itself, so that others can go on behind it. ``text`` is what a client of another dialect may be shown of it.
    ``over``: the stream says that it is complete."""

    content: bool
    closed: bool = False
    text: str = ""
    over: bool = False
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the client should see them: the whole input once, all output; how much of the input was read from a
    cache, and written into one. Of several the last counts: the numbers are totals."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    cache_written_tokens: int = 0
    reasoning_tokens: int = 0
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The answerer really stopped, and why. Only this makes an end an end. `stop` is the stop string it ran into, if
    it told."""

    reason: FinishReason
    stop: str | None = None
    choice: int = 0
    wire: Wire | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """From here on somebody else answers. `after` counts the characters the client already has: text, reasoning, and
    the arguments of calls. A call that is half written goes on under its own index; new ones are counted behind it."""

    source: str
    target: str
    after: int
    reason: str
    wire: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """The box does this less well than the cloud would, and says so ("context", "images", "n"). Not content."""

    what: str
    wire: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A whole answer that is watched while it is written has grown by so many characters of this kind; what they say
    comes at its end. Not content."""

    kind: Literal["text", "thinking", "tools"]
    characters: int
    wire: None = None


Event = (
    Opened
    | Started
    | BlockStart
    | BlockStop
    | TextDelta
    | ReasoningDelta
    | ToolCallStart
    | ToolCallDelta
    | Opaque
    | Usage
    | Finish
    | Takeover
    | Degraded
    | Progress
)
CONTENT = (TextDelta, ReasoningDelta, ToolCallStart, ToolCallDelta)
WORDS = TextDelta | ReasoningDelta  # made once: this is asked for every event of every answer


def carries_content(event: Event) -> bool:
    """Would the client count this as part of the answer? Once one has gone out, a failure is no longer invisible."""
    if isinstance(event, WORDS):
        return bool(event.text)
    if isinstance(event, Opaque):
        return event.content
    if isinstance(event, BlockStart):
        return event.kind == "other"
    return isinstance(event, CONTENT)
