"""The incidents of a journal's file, in words and as JSON."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.cli.incidents import WIDTH, counted, cut, table
from appliance.incidents import Incident
from appliance.ledger import Ledger, _insert, begin
from tests.cli.canned import Canned
from tests.records import asked, record

BEGAN = time.mktime((2026, 11, 21, 10, 2, 11, 0, 0, -1))


@pytest.fixture
def journal(isolated: Path) -> Path:
    return isolated / "state" / "journal.sqlite3"


def keep(journal: Path, *records: object) -> None:
    with closing(begin(journal)) as file:
        for one in records:
            _insert(file, one)  # type: ignore[arg-type]


def incident(**changes: object) -> Incident:
    made: dict[str, object] = {"upstream": "openai", "begin": BEGAN, "end": BEGAN + 480.0, "faults": {"silent": 3}}
    made |= {"requests": 312, "passed_over": 0, "answered_by": {"local": 312}}
    return Incident(**{**made, **changes})  # type: ignore[arg-type]


def down(at: float) -> list[object]:
    return [record(asked("openai", "server", at=at), asked("local", at=at + 1), request_id=f"r{at}")]


def test_an_incident_is_a_line_for_when_and_one_for_what_and_who() -> None:
    assert table([incident(), incident(upstream="n1n", end=BEGAN + 9.0, answered_by={})], 0.0) == (
        "UPSTREAM   BEGAN              LASTED   REQUESTS\n"
        "openai     2026-11-21 10:02   8 min    312\n"
        "           silent 3; answered by local 312\n"
        "n1n        2026-11-21 10:02   9 s      312\n"
        "           silent 3; answered by nobody yet"
    )


def test_a_cloud_that_was_slow_is_an_entry_without_faults() -> None:
    assert table([incident(kind="slow", faults={}, first_content_s=6.24, answered_by={"openai": 312})], 0.0) == (
        "UPSTREAM   BEGAN              LASTED   REQUESTS\n"
        "openai     2026-11-21 10:02   8 min    312\n"
        "           slow: the first word took up to 6.2 s in the median; answered by\n"
        "           openai 312"
    )


def test_one_that_was_slow_is_read_from_the_file_and_is_over_when_it_is_long_ago(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(journal, *(record(asked(at=1e9 + n, first_content=6.0), request_id=f"r{n}") for n in range(5)))
    assert main(["incidents", "--json"]) == 0
    [slow] = json.loads(capsys.readouterr().out)
    assert (slow["kind"], slow["first_content_s"], slow["open"]) == ("slow", 6.0, False)
    assert (slow["begin"], slow["lasted_s"]) == (1e9 + 4, 596.0)


def test_one_that_goes_on_says_so_and_who_was_not_asked_and_who_not_answered() -> None:
    words = table([incident(end=None, passed_over=1300, answered_by={"local": 310, "nobody": 2})], BEGAN + 7200.0)
    assert words.endswith(
        "openai     2026-11-21 10:02   2 h, open   312\n"
        "           silent 3, not even asked 1,300; answered by local 310, nobody 2"
    )


def test_however_much_there_is_to_say_a_line_fits_the_terminal_and_nothing_is_left_out() -> None:
    faults = {fault: 10**6 for fault in ("unreachable", "server", "broken", "silent", "busy", "config", "crashed")}
    answered = {f"upstream-{n}": 1000 + n for n in range(8)}
    one = incident(upstream="a-very-long-name", end=None, requests=10**7, faults=faults, answered_by=answered)
    words = table([one, incident()], BEGAN + 90 * 86400.0)
    assert max(map(len, words.splitlines())) <= WIDTH
    assert "a-very-long…" in words
    for word in (*faults, *answered):
        assert word in words
    assert words.count("\nopenai") == 1
    assert "10,000,000" in words


def test_the_command_shows_the_newest_first_and_no_more_than_asked_for(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(
        journal, *down(1e9), record(asked(at=1e9 + 60)), *down(1e9 + 100), record(asked(at=1e9 + 300)), *down(1e9 + 900)
    )
    assert main(["incidents", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert ", open" in lines[1]
    assert "3 min" in lines[3]
    assert main(["incidents"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_as_json_it_is_a_list(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(journal, *down(1e9), record(asked(at=1e9 + 60)), *down(1e9 + 100))
    assert main(["incidents", "--json"]) == 0
    running, over = json.loads(capsys.readouterr().out)
    assert over == {
        "kind": "down",
        "upstream": "openai",
        "begin": 1e9,
        "end": 1e9 + 60,
        "faults": {"server": 1},
        "requests": 1,
        "passed_over": 0,
        "answered_by": {"local": 1},
        "first_content_s": None,
        "open": False,
        "lasted_s": 60.0,
    }
    assert (running["end"], running["open"]) == (None, True)
    assert running["lasted_s"] == pytest.approx(time.time() - 1e9 - 100, abs=60)


def test_without_incidents_it_says_so(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(journal, record(asked()))
    assert main(["incidents"]) == 0
    assert capsys.readouterr().out == f"No incidents in {journal}\n"
    assert main(["incidents", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("command", ["incidents", "report"])
def test_without_a_file_nobody_knows_what_happened_and_none_is_made(
    journal: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--json"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith(f"appliance: there is no journal {journal}, so nothing is known of what happened;")
    assert not journal.exists()


@pytest.mark.parametrize("kept", [True, False], ids=["a file of before", "no file"])
@pytest.mark.parametrize("command", ["incidents", "report"])
def test_of_a_journal_that_the_service_cannot_write_nobody_claims_that_nothing_happened(
    journal: Path, command: str, kept: bool, canned: Canned, capsys: pytest.CaptureFixture[str]
) -> None:
    if kept:
        keep(journal, record(asked()))
    canned.json("/appliance/status", {"version": "1", "journal": {"trouble": "disk is full", "file": f"{journal}"}})
    config = journal.parents[1] / "appliance.toml"
    config.write_text(f"[server]\nport = {canned.url.rpartition(':')[2]}\n")
    assert main([command, "--config", f"{config}"]) == 1
    said = capsys.readouterr()
    assert bool(said.out) is kept
    assert said.err == (
        f"appliance: the service cannot write the journal {journal} (disk is full), so what happens now is not in it; "
        '"appliance doctor" says what to do.\n'
    )


def test_it_reads_beside_a_running_service(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(journal, together=0.001, clock=lambda: 1e9)
    ledger.keep(down(1e9)[0])  # type: ignore[arg-type]
    for _ in range(2000):
        if ledger.standing.kept:
            break
        time.sleep(0.005)
    assert main(["incidents"]) == 0
    assert "server 1" in capsys.readouterr().out
    ledger.close()
    assert main(["incidents"]) == 0
    assert "server 1" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["incidents", "report"])
def test_a_file_that_is_none_is_one_sentence(journal: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    journal.parent.mkdir()
    journal.write_bytes(b"dear Ada" * 1000)
    assert main([command]) == 1
    assert capsys.readouterr() == (
        "",
        f"appliance: the journal {journal} cannot be read: file is not a database; "
        '"appliance doctor" says what to do.\n',
    )


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "²"])
def test_a_number_that_is_none_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["incidents", count]) == 2
    assert main(["report", "--days", count]) == 2
    assert "usage: appliance" in capsys.readouterr().err


def test_words_are_counted_and_names_cut() -> None:
    assert counted({"a": 1, "b": 12345}) == "a 1, b 12,345"
    assert counted({}) == ""
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "ab…")
