"""How long does a cloud ask us to wait?

Rules of this file:

1. What it asks for outright (`asked`) says that waiting helps. When a limit is full again (`refilled`) says it only of
   a limit that is used up, and whoever has no money left is told so in the same headers.
2. A point in time is measured against the answer's own `date`: the cloud's clock, so that ours need not be right.
   Without one it is taken for silence.
3. Nothing negative, nothing endless: what is no time says nothing. Numbers are digits, and whoever would have us wait
   for a generation has said no time either.
"""

from __future__ import annotations

import re
from calendar import monthrange, timegm
from collections.abc import Mapping
from typing import Any

from appliance.core.chat import Headers

_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_DURATION = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DATE = re.compile(r"\w{3}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT", re.ASCII)  # RFC 9110 5.6.7
_STAMP = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.\d+)?Z", re.ASCII)  # RFC 3339
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_EPOCH = 1e9  # a number from here on is no span but a point in time (2001), and from the next on in milliseconds
_EPOCH_MS = 1e12
_SAID = re.compile(r"try again in ((?:\d+(?:\.\d+)?(?:ms|[dhms]))+)", re.IGNORECASE)
_RESET = re.compile(r"(?P<family>(?:x-|anthropic-)?ratelimit-)(?:(?P<before>[a-z-]+)-)?reset(?P<behind>-[a-z-]+)?")


def asked(headers: Headers) -> float | None:
    """The seconds it asks us to wait, in a header meant for that."""
    given = dict(headers)
    milliseconds = _number(given.get("retry-after-ms", ""))
    if milliseconds is not None and (seconds := _waitable(milliseconds / 1000.0)) is not None:
        return seconds
    return _span(given.get("retry-after", ""), given)


def refilled(headers: Headers, message: str = "") -> float | None:
    """The seconds until the limits that are used up are full again, of several the longest; else what the sentence
    says."""
    given = dict(headers)
    waits = []
    for name, value in headers:
        if (match := _RESET.fullmatch(name)) is not None:
            what = f"{match['before']}-" if match["before"] else ""
            left = given.get(f"{match['family']}{what}remaining{match['behind'] or ''}", "0")
            wait = _span(value, given)
            if wait is not None and _number(left) == 0:
                waits.append(wait)
    if waits:
        return max(waits)
    said = _SAID.search(message)
    return duration(said[1]) if said else None


def retry_delay(details: Any) -> float | None:
    """Google's RetryInfo: "34s"."""
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := duration(delay)) is not None:
            return seconds
    return None


def duration(text: str) -> float | None:
    """ "6m0s", "120ms", "34.5s" in seconds."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not match[0]:
        return None
    return _waitable(sum(float(match[unit] or 0) * seconds for unit, seconds in _UNITS.items()))


def _waitable(seconds: float) -> float | None:
    return seconds if seconds < _EPOCH else None


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _span(text: str, given: Mapping[str, str]) -> float | None:
    number = _number(text)
    if number is not None and number < _EPOCH:
        return number
    then = _moment(text) if number is None else number / 1000.0 if number >= _EPOCH_MS else number
    if then is None:
        return duration(text)
    now = _moment(given.get("date", ""))
    return _waitable(max(0.0, then - now)) if now is not None else None


def _moment(text: str) -> float | None:
    if date := _DATE.fullmatch(text):
        day, month, year, *clock = date.groups()
    elif stamp := _STAMP.fullmatch(text):
        year, month, day, *clock = stamp.groups()
    else:
        return None
    hour, minute, second = map(int, clock)
    try:
        when = int(year), _MONTHS.index(month) + 1 if month.isalpha() else int(month), int(day)
        exists = 1 <= when[2] <= monthrange(*when[:2])[1] and hour < 24 and minute < 60 and second <= 60
        return float(timegm((*when, hour, minute, second))) if exists else None
    except ValueError:  # no such month, no such year
        return None
