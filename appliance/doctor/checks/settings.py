"""Is the configuration one that the service would start with?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.doctor.finding import Finding, ok, warn, wrong
from appliance.doctor.words import apart

LAYER = "configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """``refused`` is the sentence with which the file was refused; then the defaults are looked at."""

    source: str | None = None
    refused: str = ""
    warnings: Sequence[str] = ()


def verdicts(written: Written) -> Iterator[Finding]:
    """One for what is wrong, one for each warning."""
    if written.refused:
        said, fix = apart(written.refused)
        key = "upstream.key" in written.refused
        yield wrong(LAYER, said, who="key" if key else "you", fix=fix or "Correct it; the defaults were looked at.")
        return
    for sentence in written.warnings:
        said, fix = apart(sentence)
        yield warn(LAYER, said, who="you", fix=fix)
    if not written.warnings:
        yield ok(LAYER, written.source or "the defaults and the environment; there is no file")
