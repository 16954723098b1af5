"""Is the model there, whole, and one that llama.cpp can load?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from appliance.core.size import in_words
from appliance.doctor.finding import Finding, ok, wrong
from appliance.doctor.words import apart

LAYER = "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """``trouble`` is the store's sentence, with what to do behind its last semicolon. ``checked``: how thoroughly it
    was looked at; of a file that no catalog knows there is no hash to compare with. ``refused``: llama.cpp's word."""

    name: str
    bytes: int = 0
    checked: Literal["hash", "look", "no hash"] = "look"
    trouble: str = ""
    refused: str = ""


def verdict(file: File) -> Finding:
    if file.trouble:
        said, fix = apart(file.trouble)
        return wrong(LAYER, said, who="box", fix=fix or "Get it again.")
    if file.refused:
        said = f"llama.cpp cannot load {file.name}: {file.refused.rstrip('.')}"
        return wrong(LAYER, said, who="box", fix="Get it again, or choose another: `appliance models list`.")
    checked = {
        "hash": "its sha256 is right",
        "look": "its size is right (--deep reads every byte)",
        "no hash": "no catalog has a hash of it to compare with",
    }
    return ok(LAYER, f"{file.name}, {in_words(file.bytes)}, {checked[file.checked]}")
