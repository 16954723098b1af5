"""The arithmetic of a benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from appliance.cli.figures import NOTE, Answer, Report, Row, Spread, as_json, markdown, percentile, spread, summarise


def answer(asked: float, *pieces: float, prompt: int = 100, generated: int = 5) -> Answer:
    return Answer(asked=asked, pieces=pieces, prompt_tokens=prompt, generated=generated)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5], 0.99, 5),
        ([1, 2], 0.5, 1.5),
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4, 5], 0.95, 4.8),
        ([2, 1], 0, 1),
        ([1, 2], 1, 2),
    ],
)
def test_a_percentile_lies_between_its_neighbours(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_of_nothing_there_is_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(spread([]).mean)


def test_spread_is_the_mean_and_the_sample_deviation() -> None:
    assert spread([2, 4, 4, 4, 5, 5, 7, 9]) == Spread(mean=5.0, deviation=pytest.approx(2.138089935))
    assert spread([3]) == Spread(mean=3.0, deviation=0.0)


def test_an_answer_has_a_speed_only_after_its_first_piece() -> None:
    assert answer(0, 1.0, 1.5, 3.0, generated=5).speed == 2.0
    assert answer(0, 1.0, generated=5).speed is None
    assert answer(0, 1.0, 2.0, generated=1).speed is None
    assert answer(1, 3.5).first_word == 2.5
    assert answer(0, 1.0, 1.5, 3.0).gaps == (0.5, 1.5)


def test_a_row_sums_over_those_who_were_answered_together() -> None:
    row = summarise(2, [[answer(0, 1.0, 3.0), answer(0, 2.0, 4.0)], [answer(10, 11.0, 13.0), answer(10, 14.0, 18.0)]])
    assert row == Row(
        parallel=2,
        rounds=2,
        prompt_tokens=100,
        generated=5.0,
        prompt=spread([200 / 2, 200 / 4]),
        generation=spread([2.0, 2.0, 2.0, 1.0]),
        total=spread([10 / 4, 10 / 8]),
        first_word_p50=1.5,
        gap_p50=2.0,
        gap_p95=pytest.approx(3.7),
        gap_p99=pytest.approx(3.94),
        prompt_samples=(100.0, 50.0),
        generation_samples=(2.0, 2.0, 2.0, 1.0),
    )


SETUP = {
    "model_filename": "m.gguf",
    "model_type": "llama",
    "model_size": 98_000_000,
    "n_threads": 2,
    "n_gpu_layers": 0,
    "cpu_info": "A CPU (2 cores)",
}


def report(busy: float = 0.0) -> Report:
    row = summarise(1, [[answer(0, 1.0, 3.0)], [answer(0, 2.0, 4.0)]])
    return Report(setup=SETUP, rows=(row,), load_s=0.5, peak_memory=200_000_000, at="now", busy=busy, cores=2)


def test_json_rows_are_named_as_llama_bench_names_them() -> None:
    prompt, generation = as_json(report())
    assert (prompt["n_prompt"], prompt["n_gen"]) == (100, 0)
    assert prompt["samples_ts"] == [100.0, 50.0]
    assert prompt["samples_ns"] == [1_000_000_000, 2_000_000_000]
    assert (prompt["avg_ts"], prompt["avg_ns"]) == (75.0, 1_500_000_000)
    assert prompt["ttft_ms_p50"] == 1500.0
    assert (generation["n_prompt"], generation["n_gen"], generation["n_depth"]) == (0, 5, 0)
    assert (generation["avg_ts"], generation["stddev_ts"]) == (2.0, 0.0)
    assert generation["itl_ms_p50"] == 2000.0
    for row in (prompt, generation):
        assert row["model_filename"] == "m.gguf"
        assert row["n_parallel"] == 1
        assert row["load_s"] == 0.5
        assert row["peak_memory_bytes"] == 200_000_000
        assert row["includes"] == NOTE


def test_json_has_no_nan_even_if_nothing_was_measured() -> None:
    rows = as_json(replace(report(), rows=(summarise(1, [[answer(0, 1.0)]]),)))
    assert json.loads(json.dumps(rows, allow_nan=False))[1]["avg_ts"] is None


def test_the_table_says_what_is_included() -> None:
    assert markdown(report()).splitlines() == [
        "m.gguf, 98 MB, 2 threads, 0 layers on GPU; A CPU (2 cores)",
        "loaded in 0.50 s, peak memory 200 MB",
        "",
        "| parallel | prompt tok/s | tok/s each | tok/s together | first word p50 | between p50 / p95 / p99 |",
        "|---:|---:|---:|---:|---:|---:|",
        "| 1 | 75.0 ± 35.4 | 2.0 ± 0.0 | 1.5 ± 0.3 | 1500 ms | 2000.0 / 2000.0 / 2000.0 ms |",
        "",
        "100 prompt and 5 generated tokens for each answer, 2 rounds, mean ± σ.",
        NOTE,
    ]


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert markdown(report(busy=1.0)).endswith(NOTE)
    assert markdown(report(busy=1.1)).splitlines()[-1] == (
        "The machine was busy with something else (load 1.1 on 2 cores), so these numbers are too low; "
        "measure again when it is idle."
    )
