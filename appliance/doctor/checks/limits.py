"""Does the system allow what the service will ask for?"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.core.size import in_words
from appliance.doctor.finding import Finding, ok, warn, wrong

LAYER = "limits"
FEW_FILES = 1024
"""Every client takes one, every cloud's answer another. The service raises the soft limit itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimits:
    """Of this user: open files and bytes of locked memory, ``None`` for no limit. ``to_lock``: what `mlock` would."""

    files: int | None
    locked: int | None
    to_lock: int | None = None


def verdict(limits: Ulimits) -> Finding:
    if limits.to_lock is not None and limits.locked is not None and limits.locked < limits.to_lock:
        said = f"mlock is on, {in_words(limits.locked)} may be locked, and the model is {in_words(limits.to_lock)}"
        return wrong(
            LAYER, said, who="box", fix="LimitMEMLOCK=infinity in the unit, ulimit -l unlimited, or mlock = false."
        )
    if limits.files is not None and limits.files < FEW_FILES:
        said = f"only {limits.files} open files are allowed"
        return warn(
            LAYER, said, who="box", fix=f"Raise it: LimitNOFILE={FEW_FILES * 16}, or ulimit -n {FEW_FILES * 16}."
        )
    return ok(LAYER, f"{limits.files if limits.files is not None else 'any number of'} open files")
