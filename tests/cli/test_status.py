"""The status in words, asked of a listener."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.cli.status import columns, span, table
from tests.cli.canned import Canned

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "serving": "local",
    "ready": True,
    "uptime_s": 200.0,
    "engine": {
        "state": "ready",
        "model": "starter",
        "slots": 4,
        "busy": 1,
        "waiting": 2,
        "context": 4096,
        "gpu_layers": 10,
        "layers": 40,
        "gpu_offload": True,
        "tok_s": 98.25,
        "failure": None,
    },
    "upstreams": [
        {"name": "openai", "state": "closed", "failures": 0, "reopens_in_s": None, "last_fault": None, "alarm": None},
        {
            "name": "n1n",
            "state": "open",
            "failures": 3,
            "reopens_in_s": 8.4,
            "last_fault": "config",
            "last_fault_message": "It refused the key.",
            "alarm": "n1n refuses its key; correct it.",
        },
    ],
    "requests": {"total": 12, "running": 1, "taken_over": 2, "fell_back": 3, "failed": 0},
}
WORDS = """\
Serving: local   (version 0.1.0, up 3 min)

CLOUD    BREAKER               FAILURES   LAST FAULT
openai   closed                0          -
n1n      open, tried in 8 s    3          It refused the key.

MODEL     STATE   SLOTS    CONTEXT   PROCESSOR         TOK/S
starter   ready   1/4 +2   4096      75%/25% CPU/GPU   98.2

Requests: 12 total, 1 running, 2 taken over, 3 fell back, 0 failed

ALARM n1n: n1n refuses its key; correct it."""


def test_the_status_is_a_table_for_people() -> None:
    assert table(STATUS) == WORDS.replace("tried in 8 s    3", "tried in 8 s   3").replace(
        "BREAKER               FAILURES", "BREAKER              FAILURES"
    ).replace("closed                0", "closed               0")


def test_an_engine_that_is_not_there_yet_has_nothing_to_show() -> None:
    status = {"serving": None, "engine": {"state": "loading", "progress": 0.25, "model": "m", "failure": "It broke."}}
    words = table(status)
    assert words.startswith("Serving: nobody   (version None, up -)")
    assert "m       loading 25%   -       -         -           -" in words
    assert words.endswith("The local model: It broke.")


@pytest.mark.parametrize(
    ("gpu", "words"), [((0, True), "100% CPU"), ((40, True), "100% GPU"), ((40, False), "100% CPU")]
)
def test_the_processor_says_where_the_layers_are(gpu: tuple[int, bool], words: str) -> None:
    engine = STATUS["engine"] | {"gpu_layers": gpu[0], "gpu_offload": gpu[1]}
    assert words in table(STATUS | {"engine": engine})


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert columns(("A", "B"), [("xx", "1"), ("y", "22")]) == "A    B\nxx   1\ny    22"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")],
)
def test_a_span_is_said_in_one_unit(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


def test_status_asks_the_running_appliance(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned.json("/appliance/status", STATUS)
    assert main(["status", "--url", canned.url]) == 0
    assert capsys.readouterr().out == table(STATUS) + "\n"
    assert main(["status", "--url", canned.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_of_one_that_is_not_ready_ends_with_1(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned.json("/appliance/status", STATUS | {"ready": False, "serving": None})
    assert main(["status", "--url", canned.url]) == 1
    assert capsys.readouterr().out.startswith("Serving: nobody")


def test_status_of_nobody_ends_with_1_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "http://127.0.0.1:9"]) == 1
    said = 'appliance: no appliance is running at http://127.0.0.1:9; start one with "appliance serve".\n'
    assert capsys.readouterr() == ("", said)


def test_a_proxy_of_the_environment_is_not_asked_for_the_box(
    canned: Canned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    canned.json("/appliance/status", STATUS)
    assert main(["status", "--url", canned.url]) == 0


def test_somebody_elses_port_is_recognised(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", canned.url]) == 1
    assert "is not an appliance; choose another port in appliance.toml." in capsys.readouterr().err


def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "box:1"]) == 1
    assert "is no address; give one like http://127.0.0.1:8484." in capsys.readouterr().err


def test_reset_says_what_it_closed(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned.json("/appliance/reset", {"closed": ["openai", "n1n"]})
    assert main(["reset", "--url", canned.url]) == 0
    assert capsys.readouterr().out == "Closed: openai, n1n.\n"
    canned.json("/appliance/reset", {"closed": []})
    assert main(["reset", "openai", "--url", canned.url]) == 0
    assert capsys.readouterr().out == "Nothing was open.\n"
    assert [body for _, _, body in canned.asked] == [{"upstream": None}, {"upstream": "openai"}]


def test_reset_passes_on_the_servers_sentence(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned.json("/appliance/reset", {"error": {"message": "There is no upstream 'x' here."}}, status=404)
    assert main(["reset", "x", "--url", canned.url]) == 1
    assert capsys.readouterr().err == "appliance: There is no upstream 'x' here.\n"


def test_a_standby_is_shown_with_what_it_has_cost() -> None:
    engine = STATUS["engine"] | {"standby": "auto", "standbys": 2, "standby_ready": 1, "standby_tokens": 5120}
    words = table(STATUS | {"engine": engine | {"standby_s": 33.4, "reused_tokens": 900}})
    assert (
        "Standby: auto, following 2 (1 ready); 5120 tokens in 33 s so far; "
        "900 tokens of prompts were not computed again\n"
    ) in words
    assert "Standby: cold\n" in table(STATUS | {"engine": STATUS["engine"] | {"standby": "cold"}})
