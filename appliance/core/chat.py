"""What is a conversation, and what is asked for?

Rules of the vocabulary, which are those of `events` and `fault` too:

1. Values travel. Everything here is frozen and equal by content; nothing reaches back through it.
2. Words are the domain's, not a provider's. A dialect translates to and from them.
3. A takeover is a request like any other: ``request.continuing(committed)`` is the same conversation with a
   half-written assistant turn at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Headers = tuple[tuple[str, str], ...]
"""Header names in lower case, in the order they came."""


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
