"""What whoever started us is told, as datagrams on a real socket."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.server.notify import USUAL_BEAT, Asked, Supervisor, asked

ABLE: dict[str, Any] = {"able": True, "hopeful": True, "status": "Answers come from cloud."}
UNABLE: dict[str, Any] = {"able": False, "hopeful": True, "status": "Answers come from nobody."}


class Ear:
    """Where a supervisor listens."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """All datagrams so far, a line each."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().splitlines())
            except BlockingIOError:
                return found


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    listening = Ear(tmp_path)
    yield listening
    listening.socket.close()


@pytest.fixture
def supervisor(ear: Ear) -> Iterator[Supervisor]:
    telling = Supervisor(Asked(address=ear.path, watchdog=20.0))
    yield telling
    telling.close()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Asked()),
        ({"WATCHDOG_USEC": "1000000"}, Asked()),
        ({"NOTIFY_SOCKET": "/run/n"}, Asked(address="/run/n")),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000"}, Asked(address="@n", watchdog=3.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, Asked(address="/n", watchdog=3.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, Asked(address="/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Asked(address="/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Asked(address="/n")),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Asked()),
        ({"NOTIFY_SOCKET": ""}, Asked()),
    ],
)
def test_the_environment_says_who_wants_to_hear_of_us(environ: dict[str, str], expected: Asked) -> None:
    assert asked(environ, 7) == expected


def test_signs_of_life_come_twice_as_often_as_they_must() -> None:
    assert (Asked(address="/n", watchdog=20.0).beat, Asked().beat) == (10.0, USUAL_BEAT)


def test_ready_is_said_once_and_as_soon_as_somebody_can_answer(supervisor: Supervisor, ear: Ear) -> None:
    supervisor.report(**UNABLE)
    supervisor.report(**ABLE)
    supervisor.report(**UNABLE)
    supervisor.report(**ABLE)
    ready = [n for n, lines in enumerate(ear.heard()) if "READY=1" in lines]
    assert ready == [1]


def test_until_then_it_asks_for_more_time_while_there_is_hope(supervisor: Supervisor, ear: Ear) -> None:
    for words in (UNABLE, UNABLE | {"hopeful": False}, UNABLE, ABLE, UNABLE):
        supervisor.report(**words)
    asks = ["EXTEND_TIMEOUT_USEC=60000000" in lines for lines in ear.heard()]
    assert asks == [True, False, True, False, False]


def test_every_report_is_a_sign_of_life_and_only_news_are_told(supervisor: Supervisor, ear: Ear) -> None:
    for words in (ABLE, ABLE, UNABLE):
        supervisor.report(**words)
    first, second, third = ear.heard()
    assert first == ["WATCHDOG=1", "READY=1", "STATUS=Answers come from cloud."]
    assert second == ["WATCHDOG=1"]
    assert third == ["WATCHDOG=1", "STATUS=Answers come from nobody."]


def test_a_status_is_one_line(supervisor: Supervisor, ear: Ear) -> None:
    supervisor.report(able=True, hopeful=True, status="a model\nSTOPPING=1 called so" + "x" * 1000)
    [lines] = ear.heard()
    assert lines[-1].startswith("STATUS=a model STOPPING=1 called so") and len(lines[-1]) < 450
    assert "STOPPING=1" not in lines


def test_without_a_watchdog_there_are_no_signs_for_it(ear: Ear) -> None:
    supervisor = Supervisor(Asked(address=ear.path))
    supervisor.report(**ABLE)
    supervisor.report(**ABLE)
    supervisor.close()
    assert ear.heard() == [["READY=1", "STATUS=Answers come from cloud."]]


def test_a_reload_has_a_begin_with_the_time_and_an_end(
    supervisor: Supervisor, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.report(**ABLE)
    monkeypatch.setattr("time.monotonic_ns", lambda: 5_000_123_456)
    supervisor.reloading()
    supervisor.reloaded()
    assert ear.heard()[1:] == [["RELOADING=1", "MONOTONIC_USEC=5000123"], ["READY=1"]]


def test_a_reload_before_it_is_ready_is_nobodys_news(supervisor: Supervisor, ear: Ear) -> None:
    supervisor.report(**UNABLE)
    ear.heard()
    supervisor.reloading()
    supervisor.reloaded()
    assert ear.heard() == []


def test_who_is_stopping_is_alive_and_says_nothing_else(supervisor: Supervisor, ear: Ear) -> None:
    supervisor.report(**ABLE)
    supervisor.stopping()
    supervisor.report(**UNABLE)
    assert ear.heard()[1:] == [["STOPPING=1", "STATUS=Running answers finish."], ["WATCHDOG=1"]]


def test_what_finds_no_room_goes_with_the_next_one(supervisor: Supervisor, ear: Ear) -> None:
    full = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        try:
            while True:
                other.sendto(b"noise", ear.path)
                full += 1
        except BlockingIOError:
            pass
    assert full > 0
    supervisor.report(**ABLE)
    assert len(ear.heard()) == full
    supervisor.report(**ABLE)
    assert ear.heard() == [["READY=1", "STATUS=Answers come from cloud.", "WATCHDOG=1"]]


def test_a_supervisor_that_is_gone_costs_a_line_in_the_log(
    supervisor: Supervisor, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    ear.socket.close()
    with caplog.at_level(logging.WARNING, "appliance"):
        supervisor.report(**ABLE)
    assert [record.getMessage() for record in caplog.records] == [
        f"The supervisor at {ear.path} does not listen: Connection refused."
    ]


def test_an_abstract_socket_is_found(tmp_path: Path) -> None:
    name = f"appliance-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{name}")
        supervisor = Supervisor(Asked(address=f"@{name}"))
        supervisor.report(**ABLE)
        supervisor.close()
        assert ear.recv(4096).startswith(b"READY=1")


def test_nobody_is_told_when_nobody_asked() -> None:
    supervisor = Supervisor(Asked())
    supervisor.report(**ABLE)
    supervisor.reloading()
    supervisor.stopping()
    supervisor.close()
