"""The report, in words and as JSON."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.availability import Share, report
from appliance.cli.incidents import WIDTH
from appliance.cli.report import percent, to_json, words
from appliance.journal import Record
from appliance.ledger import _insert, begin
from tests.records import asked, record

NOON = time.mktime((2026, 11, 20, 12, 0, 0, 0, 0, -1))


def day(at: float) -> str:
    return datetime.fromtimestamp(at).date().isoformat()


def some() -> list[Record]:
    """Twenty-one requests on two days: one taken over, one fell back, one that openai was not even asked for."""
    fine = [record(asked(), at=NOON + n) for n in range(17)]
    cut = record(asked("openai", "broken"), asked("local", silence=0.0634), outcome="taken over", at=NOON + 60)
    fell = record(asked("openai", "server"), asked("n1n"), outcome="fell back", at=NOON + 86400)
    passed = record(asked("n1n"), outcome="fell back", at=NOON + 86401, passed_over=("openai",))
    wrong = record(asked("openai", "request"), outcome="refused", at=NOON + 86402)
    return [*fine, cut, fell, passed, wrong]


WORDS = """\
21 requests in the last 30 days, from 2026-11-20 12:00 to 2026-11-21 12:00

                   AVAILABLE   REQUESTS   NOT ANSWERED   NOT EVEN ASKED
applications saw   100 %       20         0              -
n1n                100 %       2          0              0
openai             85 %        20         3              1
the box            100 %       1          0              0

Requests: 17 answered, 1 taken over, 2 fell back, 1 refused (the caller's
  mistake)

Answered by: openai 17, n1n 2, local 1

Silence at 1 takeover: 63 ms (p50), 63 ms (p95), 63 ms (p99)

UPSTREAM   FAULT    TIMES
openai     broken   1
openai     server   1

DAY          REQUESTS   APPLICATIONS   n1n     openai
2026-11-20   18         100 %          -       94.444 %
2026-11-21   3          100 %          100 %   0 %"""


def test_the_report_is_read_at_a_glance() -> None:
    assert words(report(some(), day=day), 30) == WORDS


def test_without_requests_it_says_so() -> None:
    assert words(report([], day=day), 30) == "No requests are recorded for the last 30 days."
    assert words(report([], day=day), 1) == "No requests are recorded for the last day."


def test_a_box_without_clouds_and_without_failures_has_a_report_too() -> None:
    text = words(report([record(asked("local"), at=NOON)], day=day), 1)
    assert text.startswith("1 request in the last day, from 2026-11-20 12:00 to 2026-11-20 12:00\n")
    assert "No answer was taken over in the middle." in text
    assert "FAULT" not in text
    assert text.endswith("DAY          REQUESTS   APPLICATIONS\n2026-11-20   1          100 %")


def test_nobody_who_answered_is_said_too() -> None:
    text = words(report([record(asked("local", "crashed"), outcome="failed", at=NOON)], day=day), 7)
    assert "Answered by: nobody" in text
    assert "applications saw   0 %         1          1 " in text


def test_however_many_clouds_and_whatever_their_names_every_line_fits_the_terminal() -> None:
    names = [f"upstream-number-{n}-{'x' * n}" for n in range(9)]
    records = [record(*(asked(name, "server") for name in names), asked("local"), outcome="fell back", at=NOON)]
    text = words(report(records * 12345, day=day), 90)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.count("\nDAY") == 5
    assert text.count("upstream-numb…") == 9 * 3  # availability, faults, days


@pytest.mark.parametrize(
    ("well", "of", "said"),
    [
        (0, 0, "-"),
        (0, 1, "0 %"),
        (1, 1, "100 %"),
        (992, 1000, "99.2 %"),
        (2, 3, "66.666 %"),
        (99_999, 100_000, "99.999 %"),
        (999_999, 1_000_000, "99.999 %"),  # never rounded up to all of them
        (1, 1_000_000, "0 %"),
        (10**9, 10**9, "100 %"),
    ],
)
def test_a_share_is_rounded_down(well: int, of: int, said: str) -> None:
    assert percent(Share(well, of)) == said


def test_as_json_it_has_the_numbers_and_the_shares() -> None:
    found = to_json(report(some(), day=day), 30)
    assert json.loads(json.dumps(found)) == found | {"clouds": list(found["clouds"]), "days": list(found["days"])}
    assert found["seen"] == {"well": 20, "asked": 20, "share": 1.0}
    assert found["clouds"][1] == {
        "name": "openai",
        "share": {"well": 17, "asked": 20, "share": 0.85},
        "faults": {"broken": 1, "server": 1},
        "passed_over": 1,
    }
    assert found["box"]["share"] == {"well": 1, "asked": 1, "share": 1.0}
    assert found["silence"] == {"seams": 1, "p50": 0.0634, "p95": 0.0634, "p99": 0.0634}
    assert found["asked_for_days"] == 30
    assert found["days"][1] == {
        "name": "2026-11-21",
        "requests": 3,
        "seen": {"well": 2, "asked": 2, "share": 1.0},
        "clouds": {"n1n": {"well": 2, "asked": 2, "share": 1.0}, "openai": {"well": 0, "asked": 2, "share": 0.0}},
    }


def test_the_command_reads_as_far_back_as_it_is_told(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    with closing(begin(isolated / "state" / "journal.sqlite3")) as file:
        for days in (0.5, 5, 20, 40):
            _insert(file, record(asked(), at=now - days * 86400))
    counts = []
    for asked_for in ([], ["--days", "1"], ["--days", "10"], ["--days", "90"]):
        assert main(["report", "--json", *asked_for]) == 0
        counts.append(json.loads(capsys.readouterr().out)["requests"])
    assert counts == [3, 1, 2, 4]
    assert main(["report"]) == 0
    assert capsys.readouterr().out.startswith("3 requests in the last 30 days, from ")


def test_the_command_without_requests_says_so_and_gives_empty_json(
    isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(isolated / "state" / "journal.sqlite3").close()
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "No requests are recorded for the last 30 days.\n"
    assert main(["report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["seen"], found["days"]) == (0, {"well": 0, "asked": 0, "share": None}, [])
