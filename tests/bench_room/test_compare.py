"""Two runs side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from appliance.bench.compare import Ratio, Unreadable, comparison, differences, ratio, read
from appliance.bench.figures import Spread, spread
from appliance.bench.result import as_json, as_jsonl, rows_of
from tests.bench_room.made_up import RESULT, result

LLAMA_BENCH = {
    "build_commit": "8cf427ff",
    "build_number": 5163,
    "cpu_info": "Fast 9000",
    "gpu_info": "",
    "backends": "CPU",
    "model_type": "llama 1B Q4_0",
    "model_size": 98_000_000,
    "n_threads": 2,
    "type_k": "f16",
    "n_gpu_layers": -1,
    "flash_attn": -1,
    "n_prompt": 512,
    "n_gen": 0,
    "n_depth": 0,
    "test_time": "2025-04-24T11:58:50Z",
    "avg_ts": 420.0,
    "stddev_ts": 1.0,
    "samples_ts": [419.0, 420.0, 421.0],
}


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a table, by the first of each row."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in found[2:]}


def test_a_ratio_carries_the_chance_of_both_sides() -> None:
    new, old = spread([110, 120, 130]), spread([99, 100, 101])
    better = ratio(new, old)
    assert better.value == pytest.approx(1.2)
    assert better.error == pytest.approx(1.2 * math.hypot(new.error / 120, old.error / 100))


@pytest.mark.parametrize(
    ("better", "verdict"),
    [
        (Ratio(1.2, 0.1), "better"),
        (Ratio(0.8, 0.1), "worse"),
        (Ratio(1.05, 0.1), "no more than chance"),
        (Ratio(1.5, math.nan), "unknown: one round says nothing about chance"),
    ],
)
def test_only_what_is_more_than_chance_is_called_better_or_worse(better: Ratio, verdict: str) -> None:
    assert better.verdict == verdict


def test_nothing_is_compared_with_nothing() -> None:
    empty = Spread(mean=math.nan, deviation=math.nan, count=0)
    assert math.isnan(ratio(spread([1]), empty).value)
    assert math.isnan(ratio(spread([1]), spread([0])).value)


def test_each_test_is_compared_with_the_same_one_and_less_time_is_better() -> None:
    old = json.loads(as_json(RESULT))
    old[0] |= {"samples_ts": [200.0, 205.0, 195.0], "load_cold_s": 3.8}
    old = old[:2] + old[3:]
    table = rows(comparison(old, RESULT))
    assert table["pp512, t/s"] == ["200.00 ± 5.00", "400.00 ± 10.00", "2.00 ± 0.18", "better"]
    assert table["tg128, t/s"] == ["100.00 ± 2.00", "100.00 ± 2.00", "1.00 ± 0.07", "no more than chance"]
    assert table["load, from the disk, s"] == ["3.8", "1.9", "2.00", ""]
    assert table["silence at takeover, standing by, ms"][2] == "1.00"
    assert "pp512 @ d4096, t/s" not in table


def test_takeovers_behind_conversations_of_different_lengths_are_not_compared() -> None:
    old = [row | {"takeover_n_prompt": 512} for row in rows_of(RESULT)]
    assert not [row for row in rows(comparison(old, RESULT)) if "silence" in row]


def test_a_result_of_llama_bench_is_compared_and_said_to_be_another_thing() -> None:
    said = comparison([LLAMA_BENCH], RESULT)
    assert rows(said)["pp512, t/s"][:2] == ["420.00 ± 1.00", "400.00 ± 10.00"]
    assert "llama-bench's, which leaves sampling and text out" in said
    assert "Not the same" not in said


def test_what_was_not_measured_again_is_named() -> None:
    said = comparison(rows_of(RESULT), result(rows=RESULT.rows[:1]))
    assert said.endswith("Not measured this time: tg128, pp512 @ d4096, pp128+tg64 x 1, pp128+tg64 x 4.")


def test_other_machines_models_and_settings_are_named() -> None:
    new = rows_of(RESULT)[0]
    other: dict[str, Any] = {"cpu_info": "Slow 1", "type_k": "q8_0", "gpu_info": "Card 1", "n_threads": None}
    assert differences(new | other, new) == [
        "Not the same processor: Slow 1 then, Fast 9000 now.",
        "Not the same GPU: Card 1 then, none now.",
        "Not the same type of the cache: q8_0 then, f16 now.",
    ]


def test_strangers_have_nothing_in_common() -> None:
    assert comparison([LLAMA_BENCH | {"n_prompt": 7}], result(rows=RESULT.rows[1:2])).startswith("There is nothing")
    assert comparison([LLAMA_BENCH], result(rows=())).startswith("There is nothing")


def test_both_forms_of_a_result_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    for text in (as_json(RESULT), as_jsonl(RESULT)):
        path.write_text(text)
        assert read(path) == rows_of(RESULT)


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", "[1]", '[{"n_prompt": 1}]', "\xff"])
def test_what_is_no_result_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Unreadable, match=r"old\.json (is no result|cannot be compared with: it is no text)"):
        read(path)
    with pytest.raises(Unreadable, match="cannot be compared with: no such file"):
        read(tmp_path / "none.json")
