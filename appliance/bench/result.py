"""What does a run of the benchmark know in the end? And the same as JSON, in llama-bench's names.

Rules of this file:

1. A field has llama-bench's name only where it means the same thing; what llama-bench does not know has a name of its
   own, and what it knows and we do not (`build_number`, `n_batch`, ...) is left out.
2. One flat row for each test, as llama-bench has it: what belongs to the whole run stands in each of them.
3. Seconds inside, milliseconds in JSON, with the unit in the name. What was not measured is null, and never NaN.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.availability import percentile
from appliance.bench.figures import Row, median, spread

NOTE = "Sampling, turning tokens into text and the way between processes are included; llama-bench leaves them out."
BUSY = 0.5  # of all cores
FLASH_AUTO = -1  # llama-bench's number for it, and how the engine always computes


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Machine, build, model and settings. Sizes in bytes; `bandwidth` in bytes per second, of the RAM."""

    version: str
    build: str
    cpu: str
    cores: int
    gpu: str
    backends: str
    instruction_sets: str
    filename: str
    model_type: str
    model_size: int
    parameters: int | None
    read_per_token: int | None
    threads: int
    kv_type: str
    gpu_layers: int
    layers: int
    random_weights: bool
    at: str
    busy: float
    """How many other processes wanted a core when it began (the load average)."""
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The silence when a cloud's connection breaks in mid-answer: to the first of the box's own words. Of it,
    `noticed` is until the box knew; `steps` are decode steps at the same depth."""

    prompt_tokens: int
    cold: tuple[float, ...] = ()
    standby: tuple[float, ...] = ()
    noticed: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What the way through the box adds to a healthy cloud's answer: to its first content, and to each token."""

    first: tuple[float, ...]
    token: tuple[float, ...]
    direct: tuple[float, ...]
    """The first content without the box, for comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    setup: Setup
    rows: tuple[Row, ...] = ()
    load_cold: float | None = None
    load_warm: float | None = None
    peak_memory: int | None = None
    vram: int | None = None
    service_memory: int | None = None
    """Of the service's own process, without the engine."""
    takeover: Takeover | None = None
    added: Added | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def efficiency(self) -> float | None:
        """Which part of the limit is reached that the memory's bandwidth sets to writing? Nobody can say where the
        weights lie on a GPU, since it is the RAM that was measured."""
        setup = self.setup
        speed = next((row.speeds for row in self.rows if row.n_gen and not row.n_prompt and not row.n_depth), ())
        if not speed or not setup.bandwidth or not setup.read_per_token or setup.gpu_layers:
            return None
        return spread(speed).mean * setup.read_per_token / setup.bandwidth


def rows_of(result: Result) -> list[dict[str, Any]]:
    """One flat row for each test."""
    return [_setup(result.setup) | _test(row) | _run(result) for row in result.rows]


def as_json(result: Result) -> str:
    return json.dumps(rows_of(result), indent=2, ensure_ascii=False, allow_nan=False)


def as_jsonl(result: Result) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows_of(result))


def as_csv(result: Result) -> str:
    """As llama-bench writes it: everything quoted, and no single samples."""
    rows = [{name: value for name, value in row.items() if not isinstance(value, list)} for row in rows_of(result)]
    text = io.StringIO()
    if rows:
        text.write(",".join(rows[0]) + "\n")
        writer = csv.DictWriter(text, rows[0].keys(), quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().rstrip("\n")


def _cell(value: object) -> object:
    """As llama-bench has it: a truth is 1."""
    return "" if value is None else int(value) if isinstance(value, bool) else value


def _setup(setup: Setup) -> dict[str, Any]:
    return {
        "build_commit": setup.build,
        "cpu_info": setup.cpu,
        "gpu_info": setup.gpu,
        "backends": setup.backends,
        "model_filename": setup.filename,
        "model_type": setup.model_type,
        "model_size": setup.model_size,
        "model_n_params": setup.parameters,
        "n_threads": setup.threads,
        "type_k": setup.kv_type,
        "type_v": setup.kv_type,
        "n_gpu_layers": setup.gpu_layers,
        "flash_attn": FLASH_AUTO,
        "test_time": setup.at,
        "appliance_version": setup.version,
        "n_layers": setup.layers,
        "n_cores": setup.cores,
        "instruction_sets": setup.instruction_sets,
        "random_weights": setup.random_weights,
        "load_average_before": setup.busy,
    }


def _test(row: Row) -> dict[str, Any]:
    tokens = row.tokens
    lasted = [tokens / speed * 1e9 for speed in row.speeds]
    return {
        "n_prompt": row.n_prompt,
        "n_gen": row.n_gen,
        "n_depth": row.n_depth,
        "n_parallel": row.n_parallel,
        "avg_ns": _number(spread(lasted).mean, 0),
        "stddev_ns": _number(spread(lasted).deviation, 0),
        "avg_ts": _number(spread(row.speeds).mean),
        "stddev_ts": _number(spread(row.speeds).deviation),
        "samples_ns": [_number(value, 0) for value in lasted],
        "samples_ts": [_number(value) for value in row.speeds],
        "ttft_ms_p50": _ms(percentile(row.firsts, 0.5)),
        "ttft_ms_p95": _ms(percentile(row.firsts, 0.95)),
        "itl_ms_p50": _ms(percentile(row.gaps, 0.5)),
        "itl_ms_p95": _ms(percentile(row.gaps, 0.95)),
        "itl_ms_p99": _ms(percentile(row.gaps, 0.99)),
        "tpot_ms": _ms(median(row.per_token)),
        "written_ts": _number(spread(row.written).mean),
        "written_ts_stddev": _number(spread(row.written).deviation),
        "each_ts": _number(spread(row.each).mean),
        "each_ts_stddev": _number(spread(row.each).deviation),
    }


def _run(result: Result) -> dict[str, Any]:
    takeover, added = result.takeover, result.added
    return {
        "load_cold_s": _or_null(result.load_cold),
        "load_warm_s": _or_null(result.load_warm),
        "peak_memory_bytes": result.peak_memory,
        "vram_bytes": result.vram,
        "service_memory_bytes": result.service_memory,
        "memory_bandwidth_bytes_s": None if result.setup.bandwidth is None else round(result.setup.bandwidth),
        "read_per_token_bytes": result.setup.read_per_token,
        "bandwidth_efficiency": _or_null(result.efficiency),
        "takeover_n_prompt": takeover.prompt_tokens if takeover else None,
        "takeover_cold_ms": _median_ms(takeover.cold if takeover else ()),
        "takeover_standby_ms": _median_ms(takeover.standby if takeover else ()),
        "takeover_noticed_ms": _median_ms(takeover.noticed if takeover else ()),
        "takeover_step_ms": _median_ms(takeover.steps if takeover else ()),
        "added_first_ms": _median_ms(added.first if added else ()),
        "added_token_ms": _median_ms(added.token if added else (), 4),
        "includes": NOTE,
        "notes": list(result.notes),
        "interrupted": result.interrupted,
    }


def _number(value: float, digits: int = 3) -> float | int | None:
    """JSON knows no NaN."""
    if math.isnan(value):
        return None
    return round(value, digits) if digits else round(value)


def _or_null(value: float | None) -> float | int | None:
    return None if value is None else _number(value)


def _ms(seconds: float | None, digits: int = 3) -> float | None:
    value = None if seconds is None else _number(seconds * 1000, digits)
    return None if value is None else float(value)


def _median_ms(seconds: Sequence[float], digits: int = 3) -> float | None:
    return _ms(median(seconds), digits)
