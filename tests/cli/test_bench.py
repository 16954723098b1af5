"""The command: what is asked for, and one real run."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from appliance.__main__ import main, parser
from appliance.bench.plan import QUICK, USUAL, Wishes
from appliance.cli import bench


def asked(*words: str) -> argparse.Namespace:
    return parser().parse_args(["bench", *words])


def test_nothing_said_is_the_usual_run() -> None:
    assert bench.wishes(asked()) == USUAL
    assert bench.wishes(asked("--quick")) == QUICK


def test_options_are_called_as_in_llama_bench() -> None:
    short = bench.wishes(asked("-p", "0,256", "-n", "64", "-r", "5", "-d", "4096,0"))
    long = bench.wishes(asked("--n-prompt", "256,0", "--n-gen", "64", "--repetitions", "5", "--n-depth", "0,4096"))
    assert short == long == Wishes(prompts=(0, 256), gens=(64,), rounds=5, depths=(0, 4096))


def test_what_is_said_goes_before_quick() -> None:
    wished = bench.wishes(asked("--quick", "-r", "4", "--parallel", "3"))
    assert (wished.rounds, wished.parallel, wished.quick) == (4, (3,), True)


@pytest.mark.parametrize(
    "words", [["-p", "-1"], ["-n", "x"], ["-r", "0"], ["--parallel", "0"], ["-o", "sql"], ["--plot", "x.png"]]
)
def test_nonsense_is_refused_as_usage(words: list[str]) -> None:
    assert main(["bench", *words]) == 2


def test_a_model_that_is_not_there_ends_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "starter"]) == 64
    assert 'run "appliance models pull starter"' in capsys.readouterr().err


def test_a_shape_that_there_is_not_ends_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--shape", "5B"]) == 64
    assert 'there is no shape "5B"' in capsys.readouterr().err


def test_what_is_written_first_is_told_of_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("appliance.store.weights.write_random", lambda *_, progress: progress(1, 4))
    assert main(["bench", "--shape", "7B:Q4_K_M"]) == 64  # there is no file now
    assert " GB of random weights: 25 %\n" in capsys.readouterr().err


def test_a_model_and_a_shape_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--shape", "7B", "-m", "starter"]) == 1
    assert "leave out --model or --shape" in capsys.readouterr().err


def test_what_cannot_be_compared_with_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("hello")
    assert main(["bench", "--model", "starter", "--compare", str(tmp_path / "old.json")]) == 1
    assert "is no result of a benchmark" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--model", "starter", "--plot", str(tmp_path / "no" / "p.svg")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.live
def test_a_real_model_is_measured(starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, picture = tmp_path / "now.json", tmp_path / "now.svg"
    words = ["--quick", "-p", "64", "-n", "8", "-d", "0,200", "--parallel", "1,2", "-o", "json"]
    words += ["--model", str(starter_gguf), "--save", str(saved), "--plot", str(picture)]
    assert main(["bench", *words]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"], row["n_parallel"]) for row in rows] == [
        (64, 0, 0, 1),
        (0, 8, 0, 1),
        (64, 0, 200, 1),
        (0, 8, 200, 1),
        (64, 8, 0, 1),
        (64, 8, 0, 2),
    ]
    first = rows[0]
    assert all(row["avg_ts"] > 0 for row in rows)
    assert first["peak_memory_bytes"] > 90_000_000
    assert first["model_filename"] == starter_gguf.name
    assert first["read_per_token_bytes"] == pytest.approx(96.6e6, rel=0.01)
    assert first["memory_bandwidth_bytes_s"] > 1e9
    assert 0 < first["load_warm_s"] < 60
    assert 0 < first["takeover_noticed_ms"] < first["takeover_standby_ms"]
    assert first["takeover_cold_ms"] > first["takeover_standby_ms"]
    assert first["added_token_ms"] is not None
    assert json.loads(saved.read_text()) == rows
    assert ET.parse(picture).getroot().tag.endswith("svg")
