"""The journal's file: nobody waits for it, nothing that is committed is lost, and nothing ends it."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance import ledger
from appliance.journal import Record
from appliance.ledger import Ledger, Missing, Standing, Unreadable, begin, records, tidy
from tests.records import asked, record

QUICK = {"together": 0.001, "again": 0.005}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Ledger]]:
    """A ledger of `path`, closed in the end."""
    found: list[Ledger] = []

    def open_(**changes: Any) -> Ledger:
        found.append(Ledger(path, **{**QUICK, "clock": lambda: 1e9, **changes}))
        return found[-1]

    yield open_
    for one in found:
        one.close()


def numbered(count: int, *, first: int = 0, at: float = 1e9) -> list[Record]:
    return [
        record(asked("openai", "silent"), asked("local"), request_id=f"r{n}", at=at + n)
        for n in range(first, first + count)
    ]


def ids(path: Path) -> list[str]:
    return [one.request_id for one in records(path)]


def until(true: Callable[[], bool]) -> None:
    """A thread of its own does it; within a few milliseconds, on a busy machine a few seconds."""
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError


def write(path: Path, *these: Record, **changes: Any) -> Standing:
    one = Ledger(path, **{**QUICK, "clock": lambda: 1e9, **changes})
    for each in these:
        one.keep(each)
    one.close()
    return one.standing


# ----------------------------------------------------------------------------------------------- what is kept


def test_records_come_back_as_they_were_in_the_order_in_which_they_ended(path: Path) -> None:
    leg = asked(
        "openai",
        "broken",
        at=1e9 + 0.125,
        model="gpt-4o",
        reason="It broke, è.",
        seconds=0.5,
        first_content=0.25,
        characters=12,
        patient=True,
        blameless=True,
    )
    mine = [
        record(
            leg,
            asked("local", characters=30, continued=True, silence=0.0625),
            outcome="taken over",
            request_id="a",
            at=1e9,
            stream=False,
            degraded=("tools", "json"),
            passed_over=("n1n",),
        ),
        record(outcome="refused", request_id="b", at=5.0e8),
        record(asked("local", None), request_id="c", at=1e9 + 3),
    ]
    assert write(path, *mine, clock=lambda: 5e8) == Standing(kept=3, waiting=0, dropped=0, trouble=None)
    assert list(records(path)) == mine


def test_only_what_began_since_then_is_read_if_so_asked(path: Path) -> None:
    write(path, *numbered(5))
    assert [one.request_id for one in records(path, since=1e9 + 3)] == ["r3", "r4"]


def test_without_a_file_that_is_said_and_none_is_made(path: Path) -> None:
    with pytest.raises(Missing):
        next(records(path))
    assert not path.parent.exists()


def test_the_next_life_goes_on_behind_the_last(path: Path) -> None:
    write(path, *numbered(3))
    write(path, *numbered(2, first=3))
    assert ids(path) == ["r0", "r1", "r2", "r3", "r4"]


def test_nobody_else_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        write(path, *numbered(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_is_read_while_it_is_written(path: Path, opened: Callable[..., Ledger]) -> None:
    one = opened()
    one.keep(numbered(1)[0])
    until(lambda: one.standing.kept == 1)
    reading = records(path)
    assert next(reading).request_id == "r0"
    one.keep(numbered(1, first=1)[0])
    until(lambda: one.standing.kept == 2)
    assert list(reading) == []
    assert ids(path) == ["r0", "r1"]


def test_reading_does_not_change_a_file_that_a_sudden_end_left_with_its_log(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.sqlite3"
    with closing(begin(path)) as file:
        for one in numbered(3):
            ledger._insert(file, one)
        for ending in ("", "-wal"):
            Path(f"{left}{ending}").write_bytes(Path(f"{path}{ending}").read_bytes())
    before = left.read_bytes()
    assert len(ids(left)) == 3
    assert left.read_bytes() == before


def test_it_writes_within_a_second_and_keeps_a_log_beside_the_file(path: Path) -> None:
    assert ledger.TOGETHER <= 1.0
    with closing(begin(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert file.execute("PRAGMA synchronous").fetchall() == [(1,)]  # NORMAL


def test_what_comes_together_is_one_commit(path: Path, opened: Callable[..., Ledger], monkeypatch: Any) -> None:
    batches: list[int] = []
    plain = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda self, batch: [batches.append(len(batch)), plain(self, batch)])
    one = opened(together=60.0)
    for each in numbered(20):
        one.keep(each)
        time.sleep(0.002)  # the thread is given its chance to be hasty
    one.close()
    assert batches == [20]


def test_a_thread_of_its_own_opens_and_writes_and_nobody_else_calls_sqlite(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    plain = sqlite3.connect

    def connect(*given: Any, **more: Any) -> sqlite3.Connection:
        threads.add(threading.current_thread().name)
        found: sqlite3.Connection = plain(*given, **more)
        found.set_trace_callback(lambda _: threads.add(threading.current_thread().name))
        return found

    monkeypatch.setattr(sqlite3, "connect", connect)
    one = opened()
    one.keep(numbered(1)[0])
    until(lambda: one.standing.kept == 1)
    one.close()
    assert threads == {"ledger"}


# ------------------------------------------------------------------------------------------- nobody waits for it


class Stuck:
    """A disk that takes nothing until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        plain = Ledger._write

        def write(of: Ledger, batch: Any) -> None:
            self.entered.set()
            assert self.go.wait(30)
            plain(of, batch)

        monkeypatch.setattr(Ledger, "_write", write)


def test_a_full_line_drops_what_is_new_and_counts_it(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch)
    one = opened(in_line=10)
    for each in numbered(25):
        one.keep(each)  # and none of them waits
    assert stuck.entered.wait(30)
    assert one.standing == Standing(kept=0, waiting=10, dropped=15, trouble=None)
    stuck.go.set()
    until(lambda: one.standing.kept == 10)
    one.close()
    assert ids(path) == [f"r{n}" for n in range(10)]


def test_closing_waits_no_longer_than_it_is_told_and_what_comes_later_is_dropped(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch)
    one = opened()
    one.keep(numbered(1)[0])
    assert stuck.entered.wait(30)
    one.close(patience=0.01)
    one.keep(numbered(1)[0])
    assert one.standing.dropped == 1
    stuck.go.set()


def test_closing_writes_what_is_in_line_at_once(path: Path) -> None:
    began = time.monotonic()
    assert write(path, *numbered(3), together=60.0).kept == 3
    assert time.monotonic() - began < 30


# ------------------------------------------------------------------------------------------------ nothing ends it


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[bool]:
    """Writing fails until the list is emptied."""
    fails = [True]
    plain = ledger._insert

    def insert(file: sqlite3.Connection, one: Record) -> None:
        if fails:
            raise error
        plain(file, one)

    monkeypatch.setattr(ledger, "_insert", insert)
    return fails


def test_a_full_disk_keeps_records_in_line_until_there_is_room_and_says_so_once(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    tries = []
    fails = failing(monkeypatch, error)
    plain = Ledger._failed
    monkeypatch.setattr(Ledger, "_failed", lambda self, error: [plain(self, error), tries.append(error)])
    one = opened(in_line=3)
    for each in numbered(4):
        one.keep(each)
    until(lambda: len(tries) >= 3)
    assert one.standing == Standing(kept=0, waiting=3, dropped=1, trouble="database or disk is full")
    fails.clear()
    until(lambda: one.standing.kept == 3)
    assert one.standing.trouble is None
    assert ids(path) == ["r0", "r1", "r2"]
    assert caplog.messages == [
        ledger.CANNOT % (path, "database or disk is full"),
        "The journal is written again; 1 records were dropped since the start.",
    ]


def test_a_file_that_cannot_be_opened_for_an_unforeseen_reason_drops_no_record_that_was_not_there(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(path: Path) -> sqlite3.Connection:
        raise MemoryError("no room")

    monkeypatch.setattr(ledger, "begin", begin)
    one = opened()
    until(lambda: one.standing.trouble is not None)
    assert one.standing == Standing(kept=0, waiting=0, dropped=0, trouble="no room")
    assert caplog.messages == [ledger.CANNOT % (path, "no room")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_folder_that_cannot_be_made_is_a_trouble_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    one = Ledger(tmp_path / "file" / "journal.sqlite3", **QUICK)
    until(lambda: one.standing.trouble is not None)  # and nobody has asked it to keep anything
    assert one.standing.trouble == f"{tmp_path / 'file'} is no folder"
    one.keep(numbered(1)[0])
    one.close()
    assert one.standing.dropped == 1
    assert caplog.messages == [ledger.CANNOT % (one.path, one.standing.trouble), ledger.LOST % 1]


@pytest.mark.parametrize("damage", ["nonsense", "a page in the middle", "empty"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, *numbered(400))
    whole = path.read_bytes()
    middle = whole[:8192] + b"\xff" * 8192 + whole[16384:]
    bad = {"nonsense": b"dear Ada" * 1000, "a page in the middle": middle, "empty": b""}[damage]
    path.write_bytes(bad)
    assert write(path, *numbered(2, first=400)) == Standing(kept=2, waiting=0, dropped=0, trouble=None)
    assert ids(path) == ["r400", "r401"]
    aside = path.with_name("journal.damaged.sqlite3")
    if damage == "empty":  # nothing was in it, and nothing is lost
        assert not aside.exists()
    else:
        assert aside.read_bytes() == bad
        assert caplog.messages == [
            "The journal's file was damaged; it now lies beside as journal.damaged.sqlite3, and a new one begins."
        ]


def test_with_a_damaged_file_its_log_is_set_aside_too(path: Path) -> None:
    path.parent.mkdir()
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").write_text(f"bad{ending}")
    aside = ledger.set_aside(path)
    assert {one.name: one.read_text() for one in path.parent.iterdir()} == {
        "journal.damaged.sqlite3": "bad",
        "journal.damaged.sqlite3-wal": "bad-wal",
        "journal.damaged.sqlite3-shm": "bad-shm",
    }
    assert aside.name == "journal.damaged.sqlite3"


def test_a_file_that_is_damaged_while_it_is_open_is_set_aside_too(
    path: Path, opened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    one.keep(numbered(1)[0])
    until(lambda: one.standing.kept == 1)
    fails = failing(monkeypatch, ledger._damaged())
    monkeypatch.setattr(ledger, "set_aside", lambda path: [fails.clear(), os.replace(path, f"{path}x")][0] or path)
    one.keep(numbered(1, first=1)[0])
    until(lambda: one.standing.kept == 2)
    assert ids(path) == ["r1"]


def test_a_file_that_somebody_took_away_is_begun_anew(path: Path, opened: Callable[..., Ledger]) -> None:
    one = opened()
    one.keep(numbered(1)[0])
    until(lambda: one.standing.kept == 1)
    path.unlink()
    one.keep(numbered(1, first=1)[0])
    until(lambda: one.standing.kept == 2)
    assert ids(path) == ["r1"]


def test_a_record_that_cannot_be_stored_is_dropped_and_the_others_are_kept(path: Path) -> None:
    bad = record(asked(), request_id="half \ud83d")
    assert write(path, numbered(1)[0], bad, numbered(1, first=1)[0]) == Standing(
        kept=2, waiting=0, dropped=1, trouble=None
    )
    assert ids(path) == ["r0", "r1"]


def test_a_commit_is_whole_or_not_at_all(path: Path) -> None:
    with closing(begin(path)) as file:
        with pytest.raises(OSError, match="disk"), ledger._Transaction(file):
            ledger._insert(file, numbered(1)[0])
            raise OSError(errno.EIO, "disk")
        assert file.execute("SELECT count(*) FROM requests").fetchall() == [(0,)]
        assert not file.in_transaction


# ----------------------------------------------------------------------------------------------------- versions


def test_an_older_file_is_brought_up_to_date_and_keeps_its_records(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, *numbered(2))
    added = ("ALTER TABLE requests ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",)
    monkeypatch.setattr(ledger, "MIGRATIONS", (*ledger.MIGRATIONS, added))
    with pytest.raises(Unreadable, match="earlier version"):
        list(records(path))
    write(path, *numbered(1, first=2))
    assert ids(path) == ["r0", "r1", "r2"]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchall() == [(len(ledger.MIGRATIONS),)]
        assert file.execute("SELECT colour FROM requests").fetchall() == [("red",)] * 3


def test_the_records_of_the_first_version_are_those_of_nobody_patient_or_blameless(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "MIGRATIONS", ledger.MIGRATIONS[:1])
        with closing(begin(path)) as file:
            file.execute("INSERT INTO requests VALUES (1, 1e9, 'r', 'failed', 'openai', 1, 'm', 'a', 1.0, '[]', '[]')")
            file.execute("INSERT INTO legs VALUES (1, 0, 'a', 'm', 1e9, 'broken', '', 1.0, 0.5, 7, 0, NULL)")
            file.execute("INSERT INTO legs VALUES (1, 1, 'b', 'm', 1e9, 'gone', '', 1.0, 0.5, 7, 1, 0.25)")
    write(path, record(asked("a", "broken", patient=True, blameless=True), at=1e9))
    old, new = records(path)
    assert [(leg.failed, leg.patient, leg.blameless) for leg in old.legs] == [(True, False, False), (False,) * 3]
    assert [leg.silence for leg in old.legs] == [None, 0.25]
    assert [(leg.failed, leg.patient, leg.blameless) for leg in new.legs] == [(False, True, True)]


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, *numbered(1))
    steps = ("ALTER TABLE requests ADD COLUMN colour TEXT", "this is no SQL")
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "MIGRATIONS", (*ledger.MIGRATIONS, steps))
        assert write(path, *numbered(1, first=1)).dropped == 1
    assert ids(path) == ["r0"]
    with closing(sqlite3.connect(path)) as file:
        assert "colour" not in file.execute("SELECT sql FROM sqlite_master").fetchall()[0][0]


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    write(path, *numbered(1))
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    assert write(path, *numbered(1)) == Standing(
        kept=0, waiting=0, dropped=1, trouble="the file is of a later version of the appliance"
    )
    assert path.read_bytes() == before
    with pytest.raises(Unreadable, match="later version"):
        list(records(path))


def test_what_is_no_file_of_ours_cannot_be_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"dear Ada" * 1000)
    with pytest.raises(Unreadable, match="file is not a database"):
        list(records(path))


def test_a_file_that_is_just_being_made_has_no_records(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert list(records(path)) == []


# --------------------------------------------------------------------------------------------------------- size


def test_what_is_too_old_goes_first(path: Path) -> None:
    days = [record(asked(), request_id=f"day {n}", at=n * 86400.0) for n in range(100)]
    write(path, *days, clock=lambda: 0.0)
    write(path, record(asked(), request_id="today", at=100 * 86400.0), clock=lambda: 100 * 86400.0)
    assert ids(path) == [*(f"day {n}" for n in range(10, 100)), "today"]


def test_a_quiet_box_lets_go_of_what_is_too_old_as_well(path: Path, opened: Callable[..., Ledger]) -> None:
    now = [0.0]
    one = opened(clock=lambda: now[0])
    for n, at in enumerate((0.0, 89 * 86400.0, 91 * 86400.0)):
        now[0] = at
        one.keep(record(asked(), request_id=f"r{n}", at=at))
        until(lambda n=n: one.standing.kept == n + 1)  # type: ignore[misc]
    one.close()
    assert ids(path) == ["r1", "r2"]


def test_what_is_too_much_goes_from_the_oldest_on_and_with_all_its_legs(path: Path) -> None:
    write(path, *numbered(5000))
    with closing(begin(path)) as file:
        full = ledger._bytes(file)
        tidy(file, before=0.0, most_bytes=full // 2)
        assert full // 3 < ledger._bytes(file) <= full // 2
        assert path.stat().st_size <= full // 2
        assert path.with_name(f"{path.name}-wal").stat().st_size == 0
        [(orphans,)] = file.execute("SELECT count(*) FROM legs WHERE request NOT IN (SELECT id FROM requests)")
    assert orphans == 0
    kept = ids(path)
    assert kept == [f"r{n}" for n in range(5000 - len(kept), 5000)]
    assert all(len(one.legs) == 2 for one in records(path))


def test_a_bound_that_nothing_fits_in_empties_it_and_ends(path: Path) -> None:
    write(path, *numbered(10))
    with closing(begin(path)) as file:
        tidy(file, before=0.0, most_bytes=1)
    assert ids(path) == []


def test_it_is_tidied_while_it_grows(path: Path, opened: Callable[..., Ledger]) -> None:
    one = opened(most_bytes=200_000, clock=lambda: 1e9)
    for first in range(0, 5000, 500):
        for each in numbered(500, first=first):
            one.keep(each)
        until(lambda first=first: one.standing.kept == first + 500)  # type: ignore[misc]
    one.close()
    assert 100 < len(ids(path)) < 1500
    assert ids(path)[-1] == "r4999"
    assert path.stat().st_size < 400_000


# ---------------------------------------------------------------------------------------------------- sudden ends

LIVES = 50
NURSERY = """
import os, random, signal, sys, time
from pathlib import Path
from appliance.ledger import Ledger, records
from tests.records import asked, record

path, told = Path(sys.argv[1]), Path(sys.argv[2])
chance = random.Random(5)

def live(number):
    with told.open("a", buffering=1) as tell:
        ledger = Ledger(path, together=0.003, most_bytes=10**9, clock=lambda: 1e9)
        while True:
            for _ in range(20):
                legs = [asked("openai", "broken", at=1e9, characters=number), asked("local", at=1e9, characters=number)]
                ledger.keep(record(*legs, request_id=f"r{number}", at=1e9 + number))
                number += 1
            tell.write(f"{ledger.standing.kept}\\n")
            time.sleep(0.002)

before = 0
for life in range(int(sys.argv[3])):
    told.write_text("")
    child = os.fork()
    if child == 0:
        live(before)
    time.sleep(chance.uniform(0.005, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lines = told.read_text().split("\\n")[:-1]
    promised = before + int(lines[-1] if lines else 0)
    new = [(one.request_id, [leg.characters for leg in one.legs]) for one in records(path, since=1e9 + before)]
    found = before + len(new)
    print(before, promised, found, new == [(f"r{n}", [n, n]) for n in range(before, found)], flush=True)
    before = found
"""


@pytest.mark.live
def test_fifty_sudden_ends_under_load_lose_nothing_that_was_committed(path: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-c", NURSERY, str(path), str(tmp_path / "told"), str(LIVES)]
    run = subprocess.run(program, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120)
    assert run.stderr == ""
    lives = [line.split() for line in run.stdout.splitlines()]
    assert len(lives) == LIVES
    for before, promised, found, in_order in lives:
        assert int(before) <= int(promised) <= int(found)
        assert in_order == "True"
    grew = sum(int(found) > int(before) for before, _, found, _ in lives)
    assert grew > LIVES // 2  # the load was real
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert ids(path) == [f"r{n}" for n in range(int(lives[-1][2]))]
    assert not path.with_name("journal.damaged.sqlite3").exists()


@pytest.mark.live
def test_a_disk_that_is_really_full_costs_records_and_nothing_else(tmp_path: Path) -> None:
    """A file may not grow beyond a limit of the process; for SQLite that is a disk that takes no more."""
    program = """
import json, resource, signal, sys, time
from pathlib import Path
from appliance.ledger import Ledger, records
from tests.records import asked, record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
ledger = Ledger(Path(sys.argv[1]), together=0.001, again=0.01, in_line=2000, clock=lambda: 0.0)
slowest = 0.0
for n in range(5000):
    began = time.perf_counter()
    ledger.keep(record(asked(), request_id=f"r{n}"))
    slowest = max(slowest, time.perf_counter() - began)
    if n % 100 == 0:
        time.sleep(0.001)
for _ in range(2000):
    if ledger.standing.trouble:
        break
    time.sleep(0.005)
full = ledger.standing
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.close(30)
kept = [one.request_id for one in records(Path(sys.argv[1]))]
print(json.dumps([full.trouble, ledger.standing.dropped, ledger.standing.kept, len(kept), slowest]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "j.sqlite3")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=120,
    )
    trouble, dropped, kept, found, slowest = json.loads(run.stdout)
    assert trouble in ("database or disk is full", "disk I/O error")
    assert dropped > 0
    assert kept + dropped == 5000
    assert found == kept
    assert slowest < 0.5
    assert run.stderr.count("cannot be written") == 1


def test_its_log_lines_are_under_the_name_of_the_appliance() -> None:
    assert ledger.log.name.startswith("appliance.")
    assert logging.getLogger("appliance.ledger") is ledger.log
