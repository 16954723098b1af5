"""Are the keys in files not too old? Who can read them, the configuration itself looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.doctor.finding import Finding, ok, warn

LAYER = "key files"
OLD = 365
"""Days after which it is usual to change a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """That it can be read and is not empty, the configuration has seen already."""

    path: Path
    days: int


def verdict(files: Sequence[KeyFile]) -> Finding:
    for file in files:
        if file.days > OLD:
            said = f"{file.path} is {file.days} days old"
            fix = "Make a new key at the provider, write it there, revoke the old one."
            return warn(LAYER, said, who="key", fix=fix)
    return ok(LAYER, ", ".join(f"{file.path}, {file.days} days old" for file in files) or "no key is in a file")
