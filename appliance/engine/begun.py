"""An answer that somebody else has begun, as tokens: text and calls, the last of them perhaps half-written.

Rules:

1. What stands between the parts are the family's literals (`speech.py`), and their marks are the tokens of the
   vocabulary. What was said is plain text, whatever it says.
2. Each text, and each call's arguments, are tokenized by themselves; so what comes later changes no token before them.
3. The last part is given back to where a word begins (`healing.py`), and nothing before it: no mark, no literal, no
   whole name. A call's arguments may be complete; its end is left to whoever goes on.
4. A name that may not be whole is a part like others: nothing stands behind it, and its letters are given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from appliance.engine.healing import Cut, cut
from appliance.engine.job import Call, Part, Words
from appliance.engine.speech import Speech

Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the model reads of one part. `index` counts the calls.

    `letters` are the text, or the arguments with the white space in front of them that is the family's own, or those of
    a name that may not be whole. Of the
    last part they are those that are kept: what is given back follows them, in `Cut.owed`, so they may end inside of a
    character. The last part is open: the next byte belongs to it, or ends it.
    """

    kind: Literal["text", "call", "name"]
    letters: bytes = field(repr=False)
    index: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """`said` describes the tokens that are kept. The first `before` tokens are no words of the answer."""

    cut: Cut
    said: tuple[Said, ...]
    count: int
    before: int


def write(
    parts: Sequence[Part],
    speech: Speech,
    lead: str,
    *,
    tokenize: Tokenize,
    pieces: Sequence[bytes],
    naming: bool = False,
) -> Begun:
    """The tokens of these parts, behind the literal `lead`. `tokenize` recognizes nothing in what it is given;
    `naming`: more may come of the last part's name."""
    if not parts:
        return Begun(cut=Cut(kept=(), draft=(), owed=b""), said=(), count=0, before=0)
    opening = lead + speech.say if isinstance(parts[0], Words) else lead
    before = len(speech.spell(opening, tokenize))
    tokens: list[int] = []
    own: list[int] = []
    said: list[Said] = []
    calls = 0
    for place, part in enumerate(parts):
        tokens += own
        if isinstance(part, Words):
            tokens += speech.spell(lead + speech.say, tokenize)
            letters, one = part.text, Said(kind="text", letters=b"")
            lead = speech.after_text
        elif naming and place == len(parts) - 1:
            tokens += speech.spell(lead + speech.open, tokenize)
            letters, one = part.name, Said(kind="name", letters=b"", index=calls)
        else:
            tokens += _head(lead, part, speech, tokenize)
            arguments = part.arguments or ("" if place == len(parts) - 1 else "{}")
            letters = speech.gap + arguments if arguments else ""
            one = Said(kind="call", letters=b"", index=calls, name=part.name)
            lead = speech.close + speech.after_call
            calls += 1
        own = tokenize(letters) if letters else []
        said.append(replace(one, letters=letters.encode("utf-8", "replace")))
    end = cut(own, pieces, said[-1].letters)
    kept = max(0, len(said[-1].letters) - len(end.owed))
    said[-1] = replace(said[-1], letters=said[-1].letters[:kept])
    whole = Cut(kept=(*tokens, *end.kept), draft=end.draft, owed=end.owed)
    return Begun(cut=whole, said=tuple(said), count=len(tokens) + len(own), before=before)


def _head(lead: str, call: Call, speech: Speech, tokenize: Tokenize) -> list[int]:
    """Everything of a call in front of its arguments. The name is no literal: no mark is found in it."""
    tokens: list[int] = []
    text = ""
    for atom in (*speech.atoms(lead + speech.open), call.name, *speech.atoms(speech.between)):
        if isinstance(atom, str):
            text += atom
        else:
            tokens += [*(tokenize(text) if text else ()), atom]
            text = ""
    return tokens + (tokenize(text) if text else [])
