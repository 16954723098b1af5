"""How findings say numbers, and several things at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def milliseconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def listed(names: Sequence[str], *, most: int = 4) -> str:
    """ "a", "a and b", "a, b and c", "a, b, c, d and 3 more"."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)


def plain(words: object, *, longest: int = 90) -> str:
    """Somebody else's words as one short line, which tells a terminal nothing."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(words or "")).split())[:longest]


def apart(sentence: str) -> tuple[str, str | None]:
    """A sentence of ours that says behind its last semicolon what to do: what is, and that as a sentence of its own."""
    said, _, remedy = sentence.rstrip(".").rpartition("; ")
    if not said:
        return remedy, None
    return said, remedy[:1].upper() + remedy[1:] + ("" if remedy.endswith(("?", "!")) else ".")


def ago(span: timedelta) -> str:
    """A length of time, roughly."""
    seconds = abs(span.total_seconds())
    for unit, name in ((_DAY, "days"), (_HOUR, "hours"), (_MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
