"""Is it faster than last time, and is the difference more than chance?

The old result may be ours or llama-bench's own (`-o json` or `-o jsonl`). Tests are the same if they read, write and
stand behind as many tokens, for as many at once. A ratio says how many times better the new one is: 1 is alike, above
is better, also where less is better. Its 95 % interval comes from the rounds of both; where there is only one round
nobody knows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.bench.figures import Spread, spread
from appliance.bench.result import Result, rows_of
from appliance.bench.table import lines, plus_minus

Key = tuple[int, int, int, int]

THE_SAME = (
    ("cpu_info", "processor"),
    ("gpu_info", "GPU"),
    ("backends", "backend"),
    ("model_type", "model"),
    ("model_size", "model's size"),
    ("n_threads", "threads"),
    ("type_k", "type of the cache"),
    ("n_gpu_layers", "layers on GPU"),
    ("flash_attn", "flash attention"),
    ("build_commit", "build"),
)
"""What should be alike on both sides, in llama-bench's names and in words."""

SINGLE = (
    ("load_cold_s", "load, from the disk, s"),
    ("load_warm_s", "load, from memory, s"),
    ("peak_memory_bytes", "most memory of the engine, bytes"),
    ("takeover_cold_ms", "silence at takeover, cold, ms"),
    ("takeover_standby_ms", "silence at takeover, standing by, ms"),
    ("added_first_ms", "added to a cloud's first token, ms"),
    ("added_token_ms", "added to each further token, ms"),
)
"""Figures of a whole run. Less is better; their chance is not known."""


class Unreadable(Exception):
    """The file is no result of a benchmark; `str()` says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better, and half of its 95 % interval; NaN where nobody knows."""

    value: float
    error: float

    @property
    def verdict(self) -> str:
        if math.isnan(self.error):
            return "unknown: one round says nothing about chance"
        if abs(self.value - 1) <= self.error:
            return "no more than chance"
        return "better" if self.value > 1 else "worse"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier result. Raises `Unreadable`."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is no text"
        raise Unreadable(f"{path} cannot be compared with: {why}.") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = _each(text.splitlines())
    if not isinstance(found, list) or not found or not all(_is_row(row) for row in found):
        raise Unreadable(
            f"{path} is no result of a benchmark; give a file of `appliance bench -o json` or `llama-bench -o json`."
        )
    return found


def _each(texts: Sequence[str]) -> list[Any] | None:
    try:
        return [json.loads(line) for line in texts if line.strip()]
    except ValueError:
        return None


def _is_row(row: object) -> bool:
    names = ("n_prompt", "n_gen", "avg_ts")
    return isinstance(row, dict) and all(name in row for name in names) and isinstance(row["n_prompt"], int)


def ratio(new: Spread, old: Spread) -> Ratio:
    """Of two means, each with what chance does to it."""
    if not old.mean or not new.mean or math.isnan(new.mean + old.mean):
        return Ratio(math.nan, math.nan)
    value = new.mean / old.mean
    return Ratio(value, value * math.hypot(new.error / new.mean, old.error / old.mean))


def comparison(old: Sequence[Mapping[str, Any]], result: Result) -> str:
    """The table of ratios, and what has to be said about it."""
    new = rows_of(result)
    if not new:
        return "There is nothing to compare: no test was measured."
    before, now = {_key(row): row for row in old}, {_key(row): row for row in new}
    rows = [_tested(before[key], now[key]) for key in now if key in before]
    same_length = old[0].get("takeover_n_prompt") == new[0]["takeover_n_prompt"]
    single = [(name, what) for name, what in SINGLE if same_length or not name.startswith("takeover_")]
    rows += [row for name, what in single if (row := _single(what, old[0].get(name), new[0].get(name)))]
    if not rows:
        return "There is nothing to compare: no test of the old result was measured again."
    said = [f"Compared with the run of {old[0].get('test_time')}: how many times better, with its 95 % interval."]
    if "includes" not in old[0]:
        said.append(
            "The old result is llama-bench's, which leaves sampling and text out and writes behind an empty context: "
            "ours is slower by that much."
        )
    said += differences(old[0], new[0])
    missing = [_name(key) for key in before if key not in now]
    if missing:
        said.append(f"Not measured this time: {', '.join(missing)}.")
    return "\n".join([lines(("test", "old", "new", "better", ""), rows, left=1), "", *said])


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is not alike on both sides, a sentence each; what one side does not tell is not held against it."""
    found = []
    for name, what in THE_SAME:
        before, now = old.get(name), new.get(name)
        if name == "n_gpu_layers" and before == -1:  # llama-bench's "as many as fit"
            continue
        if name == "build_commit" and "includes" not in old:
            continue
        if before is not None and now is not None and before != now:
            found.append(f"Not the same {what}: {before or 'none'} then, {now or 'none'} now.")
    return found


def _key(row: Mapping[str, Any]) -> Key:
    return row["n_prompt"], row["n_gen"], row.get("n_depth") or 0, row.get("n_parallel") or 1


def _name(key: Key) -> str:
    prompt, gen, depth, many = key
    tests = "+".join([*([f"pp{prompt}"] if prompt else []), *([f"tg{gen}"] if gen else [])])
    return tests + (f" @ d{depth}" if depth else "") + (f" x {many}" if prompt and gen else "")


def _tested(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    before, now = _spread(old), _spread(new)
    better = ratio(now, before)
    return (f"{_name(_key(new))}, t/s", plus_minus(before), plus_minus(now), *_told(better))


def _spread(row: Mapping[str, Any]) -> Spread:
    samples = [value for value in row.get("samples_ts") or () if value is not None]
    if samples:
        return spread(samples)
    mean, deviation = row.get("avg_ts"), row.get("stddev_ts")
    return Spread(mean=math.nan if mean is None else mean, deviation=deviation or 0.0, count=1)


def _single(what: str, old: float | None, new: float | None) -> tuple[str, ...] | None:
    if not old or not new:
        return None
    return (what, f"{old:,.4g}" if old < 1e5 else f"{old:,.0f}", f"{new:,.4g}" if new < 1e5 else f"{new:,.0f}",
            f"{old / new:.2f}", "")  # fmt: skip


def _told(better: Ratio) -> tuple[str, str]:
    if math.isnan(better.value):
        return "", "unknown"
    said = f"{better.value:.2f}" + ("" if math.isnan(better.error) else f" ± {better.error:.2f}")
    return said, better.verdict
