"""The status in words, asked of a listener."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.cli import status
from appliance.cli.reach import client
from appliance.cli.status import columns, line, screen, span, table, watch
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


def test_a_cloud_that_is_slow_to_begin_has_a_warning_in_the_table_and_a_word_in_the_line() -> None:
    slow = STATUS["upstreams"][0] | {"warnings": ["slow: the first word takes 6.2 s in the median"]}
    status = STATUS | {"upstreams": [slow, STATUS["upstreams"][1]]}
    words = table(status).split("\n\n")
    assert words[-2] == "WARNING openai is slow: the first word takes 6.2 s in the median"
    assert [*words[:-2], words[-1]] == table(STATUS).split("\n\n")
    assert line(status).startswith("serving local; openai closed, slow; n1n open")
    assert ", slow" not in line(STATUS | {"upstreams": [slow | {"warnings": []}]})


def test_an_engine_that_is_not_there_yet_has_nothing_to_show() -> None:
    status = {"serving": None, "engine": {"state": "loading", "progress": 0.25, "model": "m", "failure": "It broke."}}
    words = table(status)
    assert words.startswith("Serving: nobody   (version None, up -)")
    assert "m       loading 25%   -       -         -           -" in words
    assert words.endswith("The local model: It broke.")
    words = table({"engine": {"state": "ready", "model": "m", "refused": "n was refused: it is too large."}})
    assert words.endswith("The configured model is not the one that answers: n was refused: it is too large.")


@pytest.mark.parametrize(
    ("gpu", "words"), [((0, True), "100% CPU"), ((40, True), "100% GPU"), ((40, False), "100% CPU")]
)
def test_the_processor_says_where_the_layers_are(gpu: tuple[int, bool], words: str) -> None:
    engine = STATUS["engine"] | {"gpu_layers": gpu[0], "gpu_offload": gpu[1]}
    assert words in table(STATUS | {"engine": engine})


def test_each_gpu_is_shown_with_what_is_on_it_and_the_cache_s_precision_with_the_context() -> None:
    card = {"name": "CUDA0", "description": "A Card", "kind": "gpu", "total": 24_000_000_000, "free": 5_500_000_000}
    mute = {"name": "Vulkan0", "description": "", "kind": "integrated", "total": 0, "free": 0}
    engine = STATUS["engine"] | {"kv_type": "q8_0", "devices": [card | {"layers": 30}, mute | {"layers": 10}]}
    words = table(STATUS | {"engine": engine | {"gpu_layers": 40}})
    assert "4096 (q8_0)   100% GPU" in words
    assert "\n\nCUDA0: A Card, 30/40 layers, 5.5 of 24.0 GB free\nVulkan0: 10/40 layers\n\n" in words


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
    assert main(["chat", "--url", "garbage", "Hello"]) == 1
    said = capsys.readouterr().err
    assert "garbage is no address; give one like http://127.0.0.1:8484." in said
    assert "box:1 is no address; give one like http://127.0.0.1:8484." in said


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


# ------------------------------------------------------------------------------------------------------- watching


def watched(canned: Canned, then: list[Any], *, as_json: bool = False) -> int:
    """Watch `canned`; before every further look the next of `then` is done, and after the last comes Ctrl-C."""
    steps = iter(then)

    def pause(seconds: float) -> None:
        assert seconds == 1.0
        for step in steps:
            step()
            return
        raise KeyboardInterrupt

    with client(canned.url) as to:
        return watch(to, as_json=as_json, pause=pause)


def saying(canned: Canned, **changes: Any) -> Any:
    return lambda: canned.json("/appliance/status", STATUS | changes)


def test_without_a_terminal_there_is_a_line_for_each_change(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    saying(canned)()
    dead = [STATUS["upstreams"][0] | {"state": "open", "last_fault": "silent"}]
    requests = {"total": 99, "running": 3, "taken_over": 2, "fell_back": 3, "failed": 0}
    changes = [
        saying(canned, requests=requests, uptime_s=201.0),  # nothing that somebody waits for
        saying(canned, upstreams=dead),
        saying(canned, upstreams=dead),
        saying(canned, upstreams=dead, serving=None, engine={"state": "failing"}, requests={"failed": 1}),
        saying(canned, journal={"kept": 1, "waiting": 2, "dropped": 0, "trouble": "disk full"}),
    ]
    assert watched(canned, changes) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [said[10:] for said in lines] == [
        "serving local; openai closed; n1n open (config), ALARM; engine ready",
        "serving local; openai open (silent); engine ready",
        "serving nobody; openai open (silent); engine failing; 1 failed",
        "serving local; openai closed; n1n open (config), ALARM; engine ready; journal not written",
    ]
    assert all(said[2] == said[5] == ":" and said[8:10] == "  " for said in lines)
    assert len(canned.asked) == 6


def test_an_appliance_that_is_not_there_is_a_line_too_and_watched_on(
    canned: Canned, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = canned.answers.clear
    saying(canned)()
    assert watched(canned, [gone, gone, saying(canned)]) == 0
    lines = [said[10:] for said in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert lines[1].endswith("is not an appliance; choose another port in appliance.toml.")
    assert lines[0] == lines[2]


def test_as_json_there_is_an_object_for_each_change(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    saying(canned)()
    assert watched(canned, [saying(canned), saying(canned, serving=None)], as_json=True) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert {**first, "at": 0} == STATUS | {"at": 0}
    assert second["serving"] is None


def test_on_a_terminal_it_is_drawn_anew_every_second(
    canned: Canned, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "60")
    saying(canned)()
    assert watched(canned, [saying(canned), canned.answers.clear]) == 0
    out = capsys.readouterr().out
    drawn = screen(table(STATUS), (200, 60))
    assert out.startswith(f"\x1b[2J{drawn}{drawn}\x1b[H")
    assert "is not an appliance" in out.removeprefix(f"\x1b[2J{drawn}{drawn}")
    assert out.endswith("\x1b[J\n")


def test_a_screen_is_written_over_and_never_longer_or_wider_than_the_terminal() -> None:
    assert screen("ab\ncd", (80, 24)) == "\x1b[Hab\x1b[K\ncd\x1b[K\n\x1b[J"
    assert screen("abcdef\ng", (4, 24)) == "\x1b[Habc\x1b[K\ng\x1b[K\n\x1b[J"
    assert screen("a\nb\nc\nd", (80, 4)) == "\x1b[Ha\x1b[K\nb\x1b[K\n...\x1b[K\n\x1b[J"
    assert screen("a\nb\nc", (80, 4)) == "\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\n\x1b[J"


def test_ctrl_c_ends_watching_with_0_also_in_the_middle_of_a_question(
    canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "ask", interrupt)
    assert main(["status", "--watch", "--url", canned.url]) == 0


@pytest.mark.live
def test_a_real_ctrl_c_ends_a_real_watch_with_0(canned: Canned) -> None:
    saying(canned)()
    # Whoever runs these tests in the background may have had it ignored, for all its children.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    watch = f"from appliance.__main__ import main; sys.exit(main(['status', '--watch', '--url', {canned.url!r}]))"
    program = [sys.executable, "-c", listen + watch]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            first = watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            rest, trouble = watching.communicate(timeout=30)
        finally:
            watching.kill()
    assert first.endswith("engine ready\n")
    assert (watching.returncode, rest, trouble) == (0, "", "")


def test_a_journal_is_mentioned_only_if_something_is_lost_or_in_the_way() -> None:
    fine = {"kept": 5, "waiting": 1, "dropped": 0, "trouble": None}
    assert table(STATUS | {"journal": fine}) == table(STATUS)
    lost = table(STATUS | {"journal": fine | {"dropped": 7}})
    assert "The journal: 7 records were dropped since the start, because nobody could write them in time.\n" in lost
    full = table(STATUS | {"journal": fine | {"trouble": "database or disk is full"}})
    said = "The journal cannot be written (database or disk is full); records that wait in memory: 1, dropped: 0.\n"
    assert said in full


def test_what_is_offline_or_without_one_of_its_models_is_shown_so() -> None:
    first, second = STATUS["upstreams"]
    aside = {"gpt-x": {"state": "open", "reason": "It does not know the model."}, "o3": {"state": "half-open"}}
    changed = STATUS | {"upstreams": [first | {"models_aside": aside}, second | {"offline": True, "alarm": None}]}
    words = table(changed)
    assert "n1n      offline   3          It refused the key." in words
    assert (
        "\n\nopenai without gpt-x (open): It does not know the model.\n\nopenai without o3 (half-open): no reason known"
    ) in words
    assert line(changed) == "serving local; openai closed, not gpt-x, not o3; n1n offline (config); engine ready"
