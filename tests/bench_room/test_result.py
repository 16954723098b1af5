"""A result in all its forms."""

from __future__ import annotations

import csv
import io
import json

import pytest

from appliance.bench.figures import Row
from appliance.bench.result import NOTE, as_csv, as_json, as_jsonl, rows_of
from tests.bench_room.made_up import RESULT, result

OF_LLAMA_BENCH = set(
    "build_commit cpu_info gpu_info backends model_filename model_type model_size model_n_params n_threads type_k"
    " type_v n_gpu_layers flash_attn n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns"
    " samples_ts".split()
)


def test_rows_are_named_as_llama_bench_names_them() -> None:
    read, written, _, _, crowd = rows_of(RESULT)
    assert read.keys() >= OF_LLAMA_BENCH
    assert (read["n_prompt"], read["n_gen"], read["n_depth"]) == (512, 0, 0)
    assert read["samples_ts"] == [400.0, 410.0, 390.0]
    assert read["samples_ns"][0] == 1_280_000_000
    assert (read["avg_ts"], read["stddev_ts"]) == (400.0, 10.0)
    assert (read["ttft_ms_p50"], read["itl_ms_p50"]) == (1300.0, None)
    assert (written["n_prompt"], written["n_gen"], written["itl_ms_p50"]) == (0, 128, 10.0)
    assert (crowd["n_parallel"], crowd["written_ts"], crowd["each_ts"]) == (4, 100.0, 42.0)
    assert crowd["samples_ns"] == [round((128 + 64) * 4 / 300 * 1e9)]


def test_every_row_says_what_belongs_to_the_whole_run() -> None:
    for row in rows_of(RESULT):
        assert (row["load_cold_s"], row["load_warm_s"], row["peak_memory_bytes"]) == (1.9, 0.8, 251_000_000)
        assert (row["takeover_cold_ms"], row["takeover_standby_ms"]) == (9900.0, 21.0)
        assert (row["added_first_ms"], row["added_token_ms"]) == (1.1, 0.011)
        assert row["bandwidth_efficiency"] == 0.5
        assert row["includes"] == NOTE


def test_what_was_not_measured_is_null() -> None:
    bare = result(rows=(Row(n_prompt=0, n_gen=128, speeds=()),), takeover=None, added=None, load_cold=None)
    [row] = json.loads(as_json(bare))
    assert [row[name] for name in ("avg_ts", "takeover_cold_ms", "added_first_ms", "load_cold_s")] == [None] * 4


def test_lines_and_csv_hold_the_same_rows() -> None:
    rows = json.loads(as_json(RESULT))
    assert [json.loads(line) for line in as_jsonl(RESULT).splitlines()] == rows
    table = list(csv.DictReader(io.StringIO(as_csv(RESULT))))
    assert [row["avg_ts"] for row in table] == [str(row["avg_ts"]) for row in rows]
    assert {row["random_weights"] for row in table} == {"0"}
    assert "samples_ts" not in table[0]


@pytest.mark.parametrize("without", [{"bandwidth": None}, {"read_per_token": None}, {"gpu_layers": 31}])
def test_without_a_limit_nobody_says_how_near_it_is(without: dict[str, int | None]) -> None:
    assert result(setup=without).efficiency is None
