"""Log lines that are safe to keep: one line each, no words of a prompt, an answer or an exception, and never a flood.

Rules:

1. An exception is its type and the places it came through. What it says may be anybody's words, so it is not said;
   only our own exceptions, whose sentences are written to be read, may stand in a message.
2. Our own loggers may say what they like in plain numbers and strings. Of other people's messages only the fixed
   beginning is kept: asyncio and uvicorn put values, and whole tracebacks, into theirs.
3. Only `FIELDS` are fields. They come as ``extra=``; the id of the request is also taken from `request_id`.
4. The same warning is said `MOST` times a minute; then once, how many more there were.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any, Literal, TextIO

Style = Literal["text", "json"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered here; set by the server, for lines from anywhere below it."""

FIELDS = tuple(
    """request_id upstream fault seconds characters model stream first_content_s takeover silence_s outcome
    status engine_state restarts slots waiting""".split()
)
MOST = 20
MINUTE = 60.0
KINDS = 256
LONGEST = 4000  # characters of a message, and a twentieth of it for a field
FRAMES = 12
CAUSES = 5
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}  # syslog's, for journald

log = logging.getLogger("appliance")


def set_up(style: Style = "text", *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """From now on every log line, warning and stray exception of this process goes to `stream`, in this style."""
    stream = stream or sys.stderr
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    lines = Lines(stream)
    lines.setFormatter(JsonLine() if style == "json" else TextLine(journal=is_journal(stream, environ)))
    root.addHandler(lines)
    root.setLevel(logging.WARNING)  # at INFO, httpx writes addresses with their queries
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda seen: _stray("An exception nobody could catch", seen.exc_value)
    threading.excepthook = lambda seen: _stray("A thread ended by an exception", seen.exc_value)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Does systemd's journal read this stream? It gives every line its own time."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


# ------------------------------------------------------------------------------------------------------- a line


class TextLine(logging.Formatter):
    """For people. `journal`: no time, and the priority in front, as systemd reads it."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        said = message(record)
        id = fields(record).get("request_id")
        about = f" [{id}]" if id is not None and str(id) not in said else ""
        trace = "".join(f"; {one['type']} at {' > '.join(one['at']) or 'nowhere'}" for one in traces(record))
        if self._journal:
            return one_line(f"<{PRIORITIES.get(record.levelno, 7)}>{record.name}: {said}{about}{trace}")
        return one_line(f"{when(record)} {record.levelname} {record.name} {said}{about}{trace}")


class JsonLine(logging.Formatter):
    """For machines."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message(record),
            **fields(record),
        }
        if more := getattr(record, "more", 0):
            line["more"] = more
        if found := traces(record):
            line["exception"] = found
        return json.dumps(line)


def when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message(record: logging.LogRecord) -> str:
    """What the record says, without what nobody may read."""
    if record.name == "py.warnings":
        said = _warning(record)
    elif record.name.partition(".")[0] == "appliance":
        said = _ours(record)
    else:
        said = _theirs(record)
    more = getattr(record, "more", 0)
    return (f"and {more} more like this: " if more else "") + said[:LONGEST]


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the record knows besides its message."""
    found: dict[str, Any] = {}
    for name in FIELDS:
        value = getattr(record, name, None)
        if value is None and name == "request_id":
            value = request_id.get()
        if isinstance(value, str):
            found[name] = value[: LONGEST // 20]
        elif isinstance(value, bool | int | float):
            found[name] = value
    return found


def _ours(record: logging.LogRecord) -> str:
    args = record.args or ()
    if isinstance(args, Mapping):
        shown: Any = {name: _shown(value) for name, value in args.items()}
    else:
        shown = tuple(map(_shown, args))
    said = _shown(record.msg)
    try:
        return str(said % shown if shown else said)
    except (TypeError, ValueError, KeyError):
        return f"A log line that does not fit its values, at {_place(record.pathname)}:{record.lineno}"


def _shown(value: object) -> object:
    """A value as it may stand in a message: anything that is no plain number or string is its type."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, BaseException) and type(value).__module__.partition(".")[0] == "appliance":
        return str(value)
    return type(value).__name__


def _theirs(record: logging.LogRecord) -> str:
    first = record.msg.strip().partition("\n")[0] if isinstance(record.msg, str) else ""
    return (
        re.split(r"[<>(){}\[\]\"'`=%]", first, maxsplit=1)[0].rstrip(" :,-")[:100] or "Something it did not say plainly"
    )


def _warning(record: logging.LogRecord) -> str:
    """Where a warning came from and which kind it is: `warnings` sends the text as the only argument."""
    text = str(record.args[0]) if isinstance(record.args, tuple) and record.args else str(record.msg)
    found = re.match(r"(?P<path>[^\n]*?):(?P<line>\d+): (?P<kind>\w+):", text)
    return f"{found['kind']} at {_place(found['path'])}:{found['line']}" if found else "A warning"


def one_line(text: str) -> str:
    """Nothing in it moves a terminal's cursor or begins another line."""
    if text.isprintable():
        return text
    joined = " | ".join(filter(None, map(str.strip, text.splitlines())))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in joined)


def traces(record: logging.LogRecord) -> list[dict[str, Any]]:
    """The record's exception, and those behind it: their types and the places they came through."""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return (
        []
        if error is None
        else [{"type": type(one).__name__, "at": _places(one.__traceback__)} for one in _chain(error)]
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, the members of its group, and what it came from; a few of them."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < CAUSES:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        behind = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if behind is not None:
            waiting.append(behind)


def _places(traceback: TracebackType | None) -> list[str]:
    found = [f"{_place(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}" for frame, line in walk_tb(traceback)]
    return found[-FRAMES:]


def _place(path: str) -> str:
    """A file without the folders that say whose machine this is."""
    parts = PurePath(path).parts
    for root in ("site-packages", "appliance"):
        if root in parts:
            at = len(parts) - 1 - parts[::-1].index(root)
            return "/".join(parts[at + (root == "site-packages") :])
    return "/".join(parts[-2:])


# ------------------------------------------------------------------------------------------------------ a flood

Key = tuple[object, ...]


class Flood:
    """May this warning be said once more? Pure: `now` is in seconds."""

    def __init__(self, *, most: int = MOST, window: float = MINUTE, kinds: int = KINDS) -> None:
        self._most, self._window, self._kinds = most, window, kinds
        self._seen: dict[Key, list[float]] = {}  # since when, how many

    def counted_as(self, key: Key) -> Key:
        """When there are too many kinds to tell apart, the rest counts as one."""
        return key if key in self._seen or len(self._seen) < self._kinds else ()

    def admits(self, key: Key, now: float) -> bool:
        """One more of this kind. Ask for what is `over` first."""
        seen = self._seen.setdefault(key, [now, 0])
        seen[1] += 1
        return seen[1] <= self._most

    def over(self, now: float) -> list[tuple[Key, int]]:
        """The kinds whose minute is over, and how often each was not said in it. They begin anew."""
        ended = [key for key, (since, _) in self._seen.items() if not 0 <= now - since < self._window]
        counts = [(key, int(self._seen.pop(key)[1]) - self._most) for key in ended]
        return [(key, count) for key, count in counts if count > 0]


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines, the same warning only so often."""

    def __init__(self, stream: TextIO, *, flood: Flood | None = None) -> None:
        super().__init__(stream)
        self._flood = flood or Flood()
        self._unsaid: dict[Key, logging.LogRecord] = {}
        self._looked = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = record.created
        if abs(now - self._looked) >= 1.0:
            self._looked = now
            self._say_more(now)
        if record.levelno >= logging.WARNING:
            key = self._flood.counted_as(kind(record))
            if not self._flood.admits(key, now):
                self._unsaid[key] = record
                return
        super().emit(record)

    def _say_more(self, now: float) -> None:
        for key, count in self._flood.over(now):
            last = copy.copy(self._unsaid.pop(key))
            last.more = count
            super().emit(last)

    def close(self) -> None:
        self.acquire()
        try:
            self._say_more(float("inf"))
        finally:
            self.release()
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Python's own would print the values of the line that could not be written. There is nobody to tell."""


def kind(record: logging.LogRecord) -> Key:
    """What makes two warnings the same, whatever request they are about."""
    template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    known = fields(record)
    return record.name, record.levelno, template, known.get("upstream"), known.get("fault")


# ----------------------------------------------------------------------------------------------- stray exceptions


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _stray("The appliance ended by a mistake of its own", error)


def _stray(what: str, error: BaseException | None) -> None:
    log.critical(what, exc_info=error)
