"""Long work is heard of: in lines without a terminal, in bars on one."""

from __future__ import annotations

import io
import sys

import pytest

from appliance.cli.progress import milestones, steps, told
from appliance.store.disk import Step


def test_without_a_terminal_progress_is_a_line_for_each_quarter() -> None:
    lines: list[str] = []
    report = milestones("work", lines.append)
    for done in (1, 24, 25, 26, 80, 100):
        report(done, 100)
    assert lines == ["work: 25 %", "work: 75 %", "work: 100 %"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def at(completed: int, total: int | None = 1_000_000_000, status: str = "downloading") -> Step:
    return Step(status=status, file="m.gguf", total=total, completed=completed)  # type: ignore[arg-type]


def test_a_download_is_a_line_for_each_quarter_with_its_rate_and_what_is_left() -> None:
    lines: list[str] = []
    clock = Clock()
    report = told(lines.append, clock)
    for second in range(0, 11):
        clock.now = float(second)
        report(at(second * 100_000_000))
    assert lines == [
        "downloading m.gguf: 30 %, 100.0 MB/s, 7 s to go",
        "downloading m.gguf: 50 %, 100.0 MB/s, 5 s to go",
        "downloading m.gguf: 80 %, 100.0 MB/s, 2 s to go",
        "downloading m.gguf: 100 %, 100.0 MB/s",
    ]


def test_what_was_here_already_is_no_rate_and_a_slow_one_is_heard_once_a_minute() -> None:
    lines: list[str] = []
    clock = Clock()
    report = told(lines.append, clock)
    for minute in range(5):
        clock.now = minute * 60.0
        report(at(600_000_000 + minute * 6_000_000))
    assert lines == [
        "downloading m.gguf: 60 %, 0.1 MB/s, 3,940 s to go",
        "downloading m.gguf: 61 %, 0.1 MB/s, 3,880 s to go",
        "downloading m.gguf: 61 %, 0.1 MB/s, 3,820 s to go",
        "downloading m.gguf: 62 %, 0.1 MB/s, 3,760 s to go",
    ]


def test_a_file_of_unknown_size_is_counted() -> None:
    lines: list[str] = []
    clock = Clock()
    report = told(lines.append, clock)
    report(at(0, None))
    clock.now = 60.0
    report(at(120_000_000, None))
    assert lines == ["downloading m.gguf: 120 MB, 2.0 MB/s"]


def test_on_a_terminal_each_file_has_a_bar_that_begins_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with steps() as report:
        report(at(500_000_000, status="checking"))
        report(at(500_000_000))
        report(at(1_000_000_000))
    drawn = screen.getvalue().split("\r")
    assert any(line.startswith("checking m.gguf  50 % |") for line in drawn)
    assert any(line.startswith("downloading m.gguf  50 % |") and "500MB/1.00GB" in line for line in drawn)
