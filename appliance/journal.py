"""What happened: one frozen record per attempt, to the log, to the counters and to a short memory for ``status``.

No text of a prompt or an answer ever comes here; a record knows lengths, faults and times.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.core.chat import Fault

log = logging.getLogger("appliance.journal")

REMEMBERED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One leg's part in one answer. `at` is Unix time, `seconds` how long it took, `characters` what it gave."""

    at: float
    request_id: str
    leg: str
    fault: Fault | None
    reason: str
    characters: int
    seconds: float
    continued: bool


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
    def __init__(self) -> None:
        self.counts = Counts()
        self._recent: deque[Attempt] = deque(maxlen=REMEMBERED)

    def record(self, attempt: Attempt) -> None:
        if attempt.fault is None:
            log.info(
                "%s %s answered %d characters in %.2f s",
                attempt.request_id,
                attempt.leg,
                attempt.characters,
                attempt.seconds,
            )
            return
        self._recent.append(attempt)
        # Somebody must fix a configuration; everything else heals or is the caller's.
        level = logging.ERROR if attempt.fault is Fault.CONFIG else logging.WARNING
        if attempt.fault in (Fault.REQUEST, Fault.GONE):
            level = logging.INFO
        log.log(
            level,
            "%s %s failed (%s) after %d characters, %.2f s: %s",
            attempt.request_id,
            attempt.leg,
            attempt.fault.value,
            attempt.characters,
            attempt.seconds,
            attempt.reason,
        )

    def recent(self, count: int = 20) -> Sequence[Attempt]:
        """The last failed attempts, newest first."""
        return list(reversed(self._recent))[:count]
