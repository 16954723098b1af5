"""What may an answer be made of, and what is it made of?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from appliance.core.structure import Grammar

Kind = Literal["text", "reasoning", "name", "rest", "arguments"]


@dataclass(frozen=True, slots=True)
class Said:
    """Letters of one kind. Names come whole, but for the rest of one that somebody else has begun; `call` is the call's
    number in the answer."""

    kind: Kind
    data: bytes
    call: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an answer may be made of. `tools` are the grammars of their arguments by name; `must` it begin with a call;
    `json` is the grammar of an answer that is one document."""

    tools: Mapping[str, Grammar] = field(default_factory=dict)
    must: bool = False
    several: bool = True
    json: Grammar | None = None
    any: Grammar | None = None
    """Of whatever is JSON, for arguments that keep to no schema."""
    looser: Callable[[str, bytes], Iterable[Grammar]] = lambda name, written: ()
    """Of the tool with this name, or of the document, with so much written: what asks for less, the strictest first."""
    lost: tuple[str, ...] = ()
    """What was asked for and nobody here can keep to."""
