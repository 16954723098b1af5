"""What may a tool call be called where it goes next?

Clouds differ in the ids they accept, and a conversation wanders between them. An id that fits stays; another gives way
to one drawn from its hash. So the call and its result, in this request and the next, still find each other, and nobody
keeps a table.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Taste = Literal["anthropic", "openai", "short"]
"""Who will see the id. "short" is Mistral: exactly nine letters or digits."""

_FITS: dict[Taste, re.Pattern[str]] = {
    "anthropic": re.compile(r"[a-zA-Z0-9_-]+"),
    "openai": re.compile(r"[\x21-\x7e]{1,40}"),
    "short": re.compile(r"[a-zA-Z0-9]{9}"),
}
_PREFIXES: dict[Taste, str] = {"anthropic": "toolu_", "openai": "call_", "short": ""}
_LENGTHS: dict[Taste, int] = {"anthropic": 24, "openai": 24, "short": 9}


def fitting_id(identity: str, taste: Taste) -> str:
    """`identity` if it is valid for `taste`, else one made of its hash: the same for the same `identity`."""
    if _FITS[taste].fullmatch(identity):
        return identity
    # Hexadecimal digits: letters and digits only, whoever looks.
    return _PREFIXES[taste] + hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[: _LENGTHS[taste]]
