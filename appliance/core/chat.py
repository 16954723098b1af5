"""The vocabulary: what a conversation is, what an answer is made of, and how it can go wrong.

Rules of this file:

1. Values travel. Everything here is frozen and equal by content; nothing reaches back through it.
2. Words are the domain's, not a provider's. A dialect translates to and from them; whatever it cannot
   name rides along as ``wire`` bytes and is given back untouched to a client of the same dialect.
3. A takeover is a request like any other: ``request.continuing(committed)`` is the same conversation with a
   half-written assistant turn at its end.
4. ``BackendError`` is the only exception that crosses the seam between us and whoever answers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
BlockKind = Literal["text", "reasoning", "tool_call", "other"]
Headers = tuple[tuple[str, str], ...]
"""Header names in lower case, in the order they came."""


# --------------------------------------------------------------------------------------------- conversation


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image by reference; the box cannot see it and says so in its place."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call the assistant made. ``arguments`` is JSON *text*, perhaps unfinished in a committed message; so may be the
    name of its last call, if it is ``half``: the client can be told more of it."""

    id: str
    name: str
    arguments: str
    half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool answered. Images it gave stand behind it as parts of their own."""

    id: str
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """A part that only a cloud of the request's own dialect understands. `what` is its type there."""

    what: str


Part = Text | Reasoning | Image | ToolCall | ToolResult | Foreign


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined; reasoning, images and tools left out."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. ``None`` means: whatever the model or the cloud does by itself.

    Penalties count the tokens of the answer only, as OpenAI defines them; ``repeat_penalty`` is llama.cpp's.
    ``logit_bias`` maps token ids *of the answering model* to additive biases.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the assistant may call. `parameters` is a JSON schema; `strict` asks that it be kept to the letter."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """May it, must it, must it not call a tool? `name` is the tool's for "named"."""

    kind: Literal["auto", "none", "required", "named"]
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonFormat:
    """The answer is to be JSON: any object without a `schema`."""

    schema: Mapping[str, Any] | None = None
    name: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request for one answer.

    ``raw`` is the body as the client wrote it and ``fields`` the same parsed, so that a backend of the same
    dialect gets back what the client sent, fields we have never heard of included. ``needs`` names what an
    answer must be able to do ("tools", "images", "json", "logprobs", "n", "audio"); `route` matches it against
    what a leg offers. ``committed`` is the half-written assistant turn a takeover goes on from, or ``None``.
    ``trim`` allows the box to drop the oldest turns of a conversation that was a cloud's and does not fit it, and
    ``lenient`` to do without what it cannot keep to of tools and schemas that were a cloud's.
    ``grammar`` is GBNF that the answer has to keep to; nobody but the box is told of it. ``logprobs``: it is to be told
    how likely each token of the answer's text was, and how likely so many others.

    For a cloud of another dialect: ``foreign`` are the paths of fields that only the request's own dialect can say and
    without which the answer would be another one; ``unsaid`` those it can do without. ``effort`` is how much to think
    ("none", "minimal", "low", "medium", "high", "xhigh", "max"), ``user`` an opaque id of who asks, ``query`` the query
    string of the client's URL.

    ``doubts`` are (path, sentence) of values that we cannot use but a cloud of the request's dialect perhaps can: it
    gets them and judges for itself; where only the box would answer, they are the caller's mistake.
    """

    dialect: str
    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    format: JsonFormat | None = None
    grammar: str | None = None
    logprobs: int | None = None
    effort: str | None = None
    user: str | None = None
    needs: frozenset[str] = frozenset()
    foreign: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()
    committed: Message | None = None
    trim: bool = False
    lenient: bool = False
    raw: bytes = field(default=b"", repr=False)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Headers = field(default=(), repr=False)
    query: str = field(default="", repr=False)

    def continuing(self, committed: Message) -> ChatRequest:
        """The same request, to be gone on with from exactly where `committed` ends."""
        return replace(self, committed=committed)


# --------------------------------------------------------------------------------------------------- answer


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


# -------------------------------------------------------------------------------------------------- failure


class Fault(enum.Enum):
    """One word for each thing *we do differently*."""

    UNREACHABLE = "unreachable"  # no connection, no name, bad TLS: nothing was asked yet
    SERVER = "server"  # it said 5xx
    BROKEN = "broken"  # it began and died, ended without an end, or spoke nonsense
    SILENT = "silent"  # nothing came in time
    BUSY = "busy"  # 429, 529, a full queue: it may have said when to come back
    CONFIG = "config"  # key, quota, unknown model: the next leg answers and somebody must fix it
    REQUEST = "request"  # the caller's own mistake: goes back as it is, counts against nobody
    TOO_LONG = "too_long"  # more tokens than it can hold: the next leg may be able to
    CRASHED = "crashed"  # the engine process died under the answer: the same leg goes on after a restart
    QUALITY = "quality"  # it answered to the end, and badly: the client keeps it, and it is counted
    GONE = "gone"  # the client left: nobody's failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP answer, ready to send, in the words of `dialect`."""

    status: int
    body: bytes
    headers: Headers = ()
    dialect: str = ""


class BackendError(Exception):
    """The one exception that crosses the seam. ``str()`` is one clear sentence without prompt text or secrets.

    ``reply`` is the cloud's own answer in the cloud's dialect, kept so that a caller's mistake goes back unchanged;
    ``words`` is the sentence in it, for a caller of another dialect: it may repeat the request, so nobody else sees it.
    ``retry_after`` is in seconds. ``param`` names the request field at fault, for `Fault.REQUEST`. ``private``: it is
    between this caller and the cloud (a credential of the caller's own), and tells nothing for others. ``certain``: the
    next moment will not be different. ``innocent``: the engine ended, and this request cannot have been the reason.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        reply: Reply | None = None,
        words: str | None = None,
        code: str | None = None,
        param: str | None = None,
        private: bool = False,
        certain: bool = False,
        innocent: bool = False,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.reply = reply
        self.words = words
        self.code = code
        self.param = param
        self.private = private
        self.certain = certain
        self.innocent = innocent
