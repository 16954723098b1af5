"""The journal's file: what became of every request, kept for months, whatever happens to this process.

Rules of this file:

1. Nobody waits for it. `Ledger.keep` only puts a record in line; when the line is full, the record is dropped and
   counted. Only the writing thread ever calls SQLite.
2. A commit holds whole requests, in the order in which they ended, half a second of them at once. What is committed
   survives the end of this process, however sudden; a power cut may cost the last commits, never the file.
3. Nothing ends it. A full disk, a folder that cannot be written, a file of a later version: records stay in line and
   are tried again; what still waits at the end is lost. A damaged file: it is set aside, and a new one begun. Each is
   one log line, said at the start if it is so at the start.
4. It stays small: old records go first, by age and by size.
5. Whoever reads does so beside the writer, and never changes the file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from appliance.journal import Asked, Record

log = logging.getLogger("appliance.ledger")

FILE = "journal.sqlite3"
DAY = 86400.0
DAYS = 90.0
MOST_BYTES = 60 * 2**20  # and the write-ahead log beside it: 64 MiB together
LOG_BYTES = 4 * 2**20
IN_LINE = 10_000  # records, about a kilobyte each; hours of a disk that is full, for a quiet box
TOGETHER = 0.5
AGAIN = 5.0  # seconds until what could not be written is tried again
TIDY_EVERY = 500  # records
TIDY_AFTER = 3600.0
CANNOT = 'The journal %s cannot be written (%s); answers go on, records wait, and "appliance doctor" says what to do.'
LOST = "The journal could not be written to the end; records that are lost with this process: %d."
BUSY_S = 5.0  # two services with one state folder take turns

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE requests (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            request_id TEXT NOT NULL,
            outcome TEXT NOT NULL,
            dialect TEXT NOT NULL,
            stream INTEGER NOT NULL,
            model TEXT NOT NULL,
            served_by TEXT NOT NULL,
            seconds REAL NOT NULL,
            degraded TEXT NOT NULL,
            passed_over TEXT NOT NULL
        )""",
        "CREATE INDEX requests_at ON requests (at)",
        """CREATE TABLE legs (
            request INTEGER NOT NULL,
            n INTEGER NOT NULL,
            name TEXT NOT NULL,
            model TEXT NOT NULL,
            at REAL NOT NULL,
            fault TEXT,
            reason TEXT NOT NULL,
            seconds REAL NOT NULL,
            first_content REAL,
            characters INTEGER NOT NULL,
            continued INTEGER NOT NULL,
            silence REAL,
            PRIMARY KEY (request, n)
        ) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE legs ADD COLUMN patient INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE legs ADD COLUMN blameless INTEGER NOT NULL DEFAULT 0",
    ),
)
"""What each version adds to the one before; a file's version is how many of these it has. Never change one that was
released: add one."""


class Unreadable(Exception):
    """The file cannot be used; `str()` is the sentence that says why."""


class Missing(Unreadable):
    """There is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the keeping goes: records written since the start, still in line, and dropped for want of room there.
    `trouble`: why nothing can be written now, if so."""

    kept: int
    waiting: int
    dropped: int
    trouble: str | None


class Ledger:
    """The one who writes. Its thread begins with it; the file is opened in there at once: whoever starts a service that
    can keep nothing shall hear it then, and not with the first record."""

    def __init__(
        self,
        path: Path,
        *,
        days: float = DAYS,
        most_bytes: int = MOST_BYTES,
        in_line: int = IN_LINE,
        together: float = TOGETHER,
        again: float = AGAIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._days, self._most_bytes = days, most_bytes
        self._in_line, self._together, self._again = in_line, together, again
        self._clock = clock
        self._line: deque[Record] = deque()
        self._lock = threading.Lock()  # of the line and the counts; never held while anything is written
        self._kept = self._dropped = 0
        self._since_tidy, self._tidied_at = 0, -math.inf
        self._trouble: str | None = None
        self._file: sqlite3.Connection | None = None
        self._inode = 0
        self._woken, self._closing = threading.Event(), threading.Event()
        self._woken.set()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def keep(self, record: Record) -> None:
        """Put it in line. Costs microseconds, whatever the disk does."""
        with self._lock:
            if len(self._line) >= self._in_line or self._closing.is_set():
                self._dropped += 1
                return
            self._line.append(record)
        self._woken.set()

    @property
    def standing(self) -> Standing:
        with self._lock:
            return Standing(kept=self._kept, waiting=len(self._line), dropped=self._dropped, trouble=self._trouble)

    def close(self, patience: float = 5.0) -> None:
        """Write what is in line and end, within `patience` seconds. It waits: not for an event loop."""
        self._closing.set()
        self._woken.set()
        self._thread.join(patience)

    # ------------------------------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        while True:
            self._woken.wait()
            self._closing.wait(self._together)  # more will come: one commit for all
            self._woken.clear()
            with self._lock:
                batch = tuple(self._line)
            written = (not batch and self._file is not None) or self._written(batch)
            if self._closing.is_set() and (not written or not self._line):
                break
            if not written:
                self._closing.wait(self._again)
                self._woken.set()
        with self._lock:
            lost = len(self._line)
            self._dropped += lost
            self._line.clear()
        if lost:
            log.error(LOST, lost)
        self._shut()

    def _written(self, batch: Sequence[Record]) -> bool:
        """Did it reach the file? What did not stays in line."""
        try:
            try:
                self._write(batch)
            except sqlite3.DatabaseError as error:
                self._shut()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGE:
                    raise
                aside = set_aside(self.path)
                log.error("The journal's file was damaged; it now lies beside as %s, and a new one begins.", aside.name)
                self._write(batch)
        except Exception as error:
            if not batch or isinstance(error, OSError | Unreadable | sqlite3.OperationalError):
                self._failed(error)
                return False
            self._shut()  # a record that cannot be stored must not stand before all others for ever
            if len(batch) > 1:
                return all(self._written((one,)) for one in batch)
            log.error("A record of the journal was dropped: %s.", type(error).__name__)
            self._leave(batch, dropped=True)
            return True
        if self._trouble is not None:
            log.warning("The journal is written again; %d records were dropped since the start.", self._dropped)
        self._leave(batch)
        return True

    def _leave(self, batch: Sequence[Record], *, dropped: bool = False) -> None:
        with self._lock:
            for _ in batch:
                self._line.popleft()
            if dropped:
                self._dropped += len(batch)
            else:
                self._kept += len(batch)
                self._trouble = None

    def _failed(self, error: Exception) -> None:
        """Once for each trouble, not once for each try."""
        self._shut()
        trouble = _word(error)
        if self._trouble != trouble:
            log.error(CANNOT, str(self.path), trouble)
        with self._lock:
            self._trouble = trouble

    def _write(self, batch: Sequence[Record]) -> None:
        if self._file is not None and _inode(self.path) != self._inode:
            self._shut()  # somebody has taken the file away: what we write would be lost with it
        if self._file is None:
            self._file = begin(self.path)
            self._inode = _inode(self.path)
        with _Transaction(self._file):
            for record in batch:
                _insert(self._file, record)
        self._since_tidy += len(batch)
        now = self._clock()
        if batch and (self._since_tidy >= TIDY_EVERY or abs(now - self._tidied_at) >= TIDY_AFTER):
            self._since_tidy, self._tidied_at = 0, now
            with suppress(sqlite3.OperationalError):  # the records are kept; there is a next time
                tidy(self._file, before=now - self._days * DAY, most_bytes=self._most_bytes)

    def _shut(self) -> None:
        if self._file is not None:
            with suppress(sqlite3.Error):
                self._file.close()
            self._file = None


# ------------------------------------------------------------------------------------------------- the file

DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def begin(path: Path) -> sqlite3.Connection:
    """Open the file for writing, made or brought up to date if need be; nobody else on the box may read it.

    Raises:
        Unreadable: it is of a later version, or its folder is none.
        sqlite3.Error, OSError: it cannot be opened, or is damaged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise Unreadable(f"{path.parent} is no folder") from None
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    file = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if _version(file) == 0:
            file.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded as long as the file is empty
        [(verdict,)] = file.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise _damaged()
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        if _version(file) < len(MIGRATIONS):
            with _Transaction(file):
                for step in MIGRATIONS[_version(file) :]:  # asked again: another service may have been quicker
                    for statement in step:
                        file.execute(statement)
                file.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        file.close()
        raise
    return file


def tidy(file: sqlite3.Connection, *, before: float, most_bytes: int) -> None:
    """Let go of what is older than `before`, and of the oldest tenth until the rest fits into `most_bytes`."""
    with _Transaction(file):
        file.execute("DELETE FROM legs WHERE request IN (SELECT id FROM requests WHERE at < ?)", (before,))
        file.execute("DELETE FROM requests WHERE at < ?", (before,))
        while _bytes(file) > most_bytes:
            [(first, last)] = file.execute("SELECT min(id), max(id) FROM requests").fetchall()
            if first is None:
                break
            gone = first + (last - first) // 10
            file.execute("DELETE FROM legs WHERE request <= ?", (gone,))
            file.execute("DELETE FROM requests WHERE id <= ?", (gone,))
    file.executescript("PRAGMA incremental_vacuum")  # not `execute`: that takes one step, which is one page
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def set_aside(path: Path) -> Path:
    """Keep a damaged file, with its log, for whoever wants to rescue something. Only the last one: they take room."""
    aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside


def _bytes(file: sqlite3.Connection) -> int:
    """How much is in use; pages that are free will be taken by what comes."""
    [(pages,)] = file.execute("PRAGMA page_count").fetchall()
    [(free,)] = file.execute("PRAGMA freelist_count").fetchall()
    [(size,)] = file.execute("PRAGMA page_size").fetchall()
    return int((pages - free) * size)


def _version(file: sqlite3.Connection) -> int:
    [(version,)] = file.execute("PRAGMA user_version").fetchall()
    if version > len(MIGRATIONS):
        raise Unreadable("the file is of a later version of the appliance")
    return int(version)


def _damaged() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("the file is damaged")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _word(error: Exception) -> str:
    """What is wrong, in the system's words."""
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


class _Transaction:
    """All or nothing; nobody else writes in between."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.execute("COMMIT")
        elif self._file.in_transaction:
            with suppress(sqlite3.Error):  # SQLite has often rolled back by itself
                self._file.execute("ROLLBACK")


# --------------------------------------------------------------------------------------------------- records

_REQUEST = "at request_id outcome dialect stream model served_by seconds degraded passed_over".split()
_LEG = "name model at fault reason seconds first_content characters continued silence patient blameless".split()
_SWITCHES = ("continued", "patient", "blameless")
_INSERT_REQUEST = f"INSERT INTO requests ({', '.join(_REQUEST)}) VALUES ({', '.join('?' * len(_REQUEST))})"  # noqa: S608 - our own names
_INSERT_LEG = f"INSERT INTO legs VALUES ({', '.join('?' * (len(_LEG) + 2))})"  # noqa: S608
_SELECT = f"""SELECT r.id, {", ".join(f"r.{name}" for name in _REQUEST)}, {", ".join(f"l.{name}" for name in _LEG)}
    FROM requests r LEFT JOIN legs l ON l.request = r.id WHERE r.at >= ? ORDER BY r.id, l.n"""  # noqa: S608


def _insert(file: sqlite3.Connection, record: Record) -> None:
    row = {name: getattr(record, name) for name in _REQUEST}
    row |= {"degraded": json.dumps(record.degraded), "passed_over": json.dumps(record.passed_over)}
    number = file.execute(_INSERT_REQUEST, tuple(row.values())).lastrowid
    file.executemany(
        _INSERT_LEG,
        [(number, n, *(getattr(leg, name) for name in _LEG)) for n, leg in enumerate(record.legs)],
    )


def records(path: Path, *, since: float = -math.inf) -> Iterator[Record]:
    """The requests that began at `since` (Unix time) or later, in the order in which they ended. A service may write
    meanwhile: what it adds is not seen.

    Raises:
        Missing: there is no file.
        Unreadable: there is one, but it cannot be read.
    """
    try:
        if not path.exists():
            raise Missing("there is none")
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", timeout=BUSY_S, uri=True)) as file:
            version = _version(file)
            if version == 0:
                return  # it is just being made
            if version < len(MIGRATIONS):
                raise Unreadable("the file is of an earlier version of the appliance; start the service once")
            rows = file.execute(_SELECT, (since,))
            for _, group in groupby(rows, key=lambda row: row[0]):
                yield _record(tuple(group))
    except (sqlite3.Error, OSError) as error:
        raise Unreadable(_word(error)) from error


def _record(rows: Sequence[tuple[Any, ...]]) -> Record:
    ends = 1 + len(_REQUEST)
    of = dict(zip(_REQUEST, rows[0][1:ends], strict=True))
    of |= {"stream": bool(of["stream"]), "degraded": tuple(json.loads(of["degraded"]))}
    of |= {"passed_over": tuple(json.loads(of["passed_over"]))}
    legs = [dict(zip(_LEG, row[ends:], strict=True)) for row in rows if row[ends] is not None]
    return Record(**of, legs=tuple(Asked(**leg | {name: bool(leg[name]) for name in _SWITCHES}) for leg in legs))
