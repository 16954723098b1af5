"""What happened: one frozen record per attempt, to the log, to the metrics and to a short memory for ``status``.

No text of a prompt or an answer ever comes here; a record knows lengths, faults and times.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.core.chat import Fault

log = logging.getLogger("appliance.journal")

REMEMBERED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One leg's part in one answer. `at` is Unix time, `seconds` how long it took, `characters` what it gave.

    `model` is what the client asked for, in its own words. `takeover`: this leg went on from another one's words, and
    `silence_s` is how long there was no content in between.
    """

    at: float
    request_id: str
    leg: str
    fault: Fault | None
    reason: str
    characters: int
    seconds: float
    continued: bool
    model: str = ""
    stream: bool = False
    first_content_s: float | None = None
    takeover: bool = False
    silence_s: float | None = None

    def fields(self) -> dict[str, object]:
        """What a structured log line says of it, by name."""
        known = {
            "request_id": self.request_id,
            "upstream": self.leg,
            "fault": self.fault.value if self.fault else None,
            "seconds": round(self.seconds, 4),
            "characters": self.characters,
            "model": self.model or None,
            "stream": self.stream,
            "first_content_s": _rounded(self.first_content_s),
            "takeover": self.takeover,
            "silence_s": _rounded(self.silence_s),
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(slots=True, kw_only=True)
class Counts:
    """Requests since the start. `fell_back`: answered by another than the first choice, before any content;
    `taken_over`: gone on with in mid-answer."""

    total: int = 0
    running: int = 0
    taken_over: int = 0
    fell_back: int = 0
    failed: int = 0


class Journal:
    def __init__(self, *told: Callable[[Attempt], None]) -> None:
        """`told` hear of every attempt as well."""
        self.counts = Counts()
        self._told = told
        self._recent: deque[Attempt] = deque(maxlen=REMEMBERED)

    def record(self, attempt: Attempt) -> None:
        for tell in self._told:
            tell(attempt)
        after = "" if attempt.silence_s is None else f", gone on with after {attempt.silence_s:.3f} s of silence"
        if attempt.fault is None:
            log.info(
                "%s %s answered %d characters in %.2f s%s",
                attempt.request_id,
                attempt.leg,
                attempt.characters,
                attempt.seconds,
                after,
                extra=attempt.fields(),
            )
            return
        self._recent.append(attempt)
        # Somebody must fix a configuration; everything else heals or is the caller's.
        level = logging.ERROR if attempt.fault is Fault.CONFIG else logging.WARNING
        if attempt.fault in (Fault.REQUEST, Fault.GONE):
            level = logging.INFO
        log.log(
            level,
            "%s %s failed (%s) after %d characters, %.2f s%s: %s",
            attempt.request_id,
            attempt.leg,
            attempt.fault.value,
            attempt.characters,
            attempt.seconds,
            after,
            attempt.reason,
            extra=attempt.fields(),
        )

    def recent(self, count: int = 20) -> Sequence[Attempt]:
        """The last failed attempts, newest first."""
        return list(reversed(self._recent))[:count]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
