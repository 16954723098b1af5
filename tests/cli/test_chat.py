"""A talk: the words as they come, who said them, and what goes wrong."""

from __future__ import annotations

import io
import json
import socket
import sys
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.cli.chat import Ended, TakenOver, Words, default_model, read_answer
from appliance.cli.outcome import Unwell
from appliance.config import load_config
from tests.cli.canned import Canned


def delta(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


ANSWER = (
    b": keep-alive\n\n"
    + delta("The quick ")
    + b": appliance takeover openai->local after=10 reason=broken\n\n"
    + delta("brown\u2028fox")
    + delta(None, "stop")
    + b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n'
)
PIECES = [Words("The quick "), TakenOver("openai", "local", "broken"), Words("brown\u2028fox"), Ended(), Ended()]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_answer_is_read_however_it_is_cut(size: int) -> None:
    assert list(read_answer(ANSWER[at : at + size] for at in range(0, len(ANSWER), size))) == PIECES


def test_an_error_event_ends_the_reading_with_its_sentence() -> None:
    pieces = read_answer([delta("a"), b'data: {"error": {"message": "Both are down."}}\n\n'])
    assert next(pieces) == Words("a")
    with pytest.raises(Unwell, match=r"^Both are down\.$"):
        next(pieces)


def test_what_is_not_ours_is_passed_over() -> None:
    assert list(read_answer([b"data: nonsense\n\ndata: [1]\n\nevent: ping\n\n"])) == []


def test_the_model_is_the_first_cloud_model_named_in_full_or_the_box(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    cloud = '[[upstream]]\nname = "a"\nbase_url = "https://a"\n'
    path.write_text(cloud + 'models = ["gpt-*", "o9", "o10"]')
    assert default_model(load_config(path, {})) == "o9"
    path.write_text(cloud)
    assert default_model(load_config(path, {})) == "local"


def stream(canned: Canned, body: bytes, **headers: str) -> None:
    canned.answers["/v1/chat/completions"] = (
        200,
        {"content-type": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}},
        body,
    )


def test_one_question_prints_the_answer_and_who_gave_it(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    stream(canned, ANSWER, x_appliance_served_by="openai")
    assert main(["chat", "Hi", "--url", canned.url, "--model", "gpt-5"]) == 0
    assert capsys.readouterr() == (
        "The quick brown\u2028fox\n",
        "answered by openai, then local (after openai failed: broken)\n",
    )
    assert canned.asked == [
        (
            "POST",
            "/v1/chat/completions",
            {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
        )
    ]


def test_a_fallback_before_the_first_word_is_named(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    stream(canned, delta("x", "stop"), x_appliance_served_by="local", x_appliance_fallback="unreachable")
    assert main(["chat", "Hi", "--url", canned.url]) == 0
    assert capsys.readouterr().err == "answered by local (fallback: unreachable)\n"


def test_an_answer_without_an_end_is_not_well(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    stream(canned, delta("half"))
    assert main(["chat", "Hi", "--url", canned.url]) == 1
    assert capsys.readouterr() == ("half\n", "appliance: the answer was cut off before its end; ask again.\n")


def test_a_refusal_is_the_servers_own_sentence(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned.json("/v1/chat/completions", {"error": {"message": "There is no model 'x'."}}, status=404)
    assert main(["chat", "Hi", "--url", canned.url, "--model", "x"]) == 1
    assert capsys.readouterr().err == "appliance: There is no model 'x'.\n"


def test_a_conversation_remembers_what_was_said(
    canned: Canned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream(canned, delta("Yes", "stop"), x_appliance_served_by="local")
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n"))
    assert main(["chat", "--url", canned.url]) == 0
    assert capsys.readouterr().out == "Yes\nYes\n"
    assert [turn["content"] for turn in canned.asked[-1][2]["messages"]] == ["one", "Yes", "two"]


def test_a_question_that_failed_is_not_part_of_the_conversation(
    canned: Canned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream(canned, b'data: {"error": {"message": "Busy."}}\n\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert main(["chat", "--url", canned.url]) == 1
    assert capsys.readouterr().err == "appliance: Busy.\nappliance: Busy.\n"
    assert [turn["content"] for turn in canned.asked[-1][2]["messages"]] == ["two"]


def test_an_appliance_that_cannot_be_started_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[server]\nport = 9\n")
    assert main(["chat", "Hi", "--config", str(path)]) == 1
    assert capsys.readouterr().err == (
        "starting an appliance at http://127.0.0.1:9 ...\n"
        'appliance: the appliance did not start: the model "starter" is not installed; '
        'run "appliance models pull starter".\n'
    )


@pytest.mark.live
def test_an_appliance_is_started_for_the_talk_and_ended_after_it(
    tmp_path: Path, starter_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "a.toml"
    local = f'[local]\nmodel = "{starter_gguf}"\ncontext = 256\nslots = 1\nthreads = 1\n'
    path.write_text(f"[server]\nport = {port}\n{local}")
    assert main(["chat", "Say hello.", "--config", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.strip()
    assert said.err == f"starting an appliance at http://127.0.0.1:{port} ...\nanswered by local\n"
    assert main(["status", "--config", str(path)]) == 1  # nobody is left there
