"""From arrival times to the numbers that a benchmark prints. Pure arithmetic.

Names of JSON fields are llama-bench's wherever the same thing is meant, so that rows can be laid side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTE = "Sampling, detokenization and the way through the process pipe are included; llama-bench leaves them out."
_BUSY = 0.5  # of all cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as it was lived through: when it was asked, when each piece of text came, and the token counts.
    `prompt_tokens` counts only those that were really computed."""

    asked: float
    pieces: tuple[float, ...]
    prompt_tokens: int
    generated: int

    @property
    def first_word(self) -> float:
        """Seconds until the first piece of text."""
        return self.pieces[0] - self.asked

    @property
    def speed(self) -> float | None:
        """Tokens per second after the first piece; nothing to say about an answer of one piece."""
        lasted = self.pieces[-1] - self.pieces[0]
        return (self.generated - 1) / lasted if self.generated > 1 and lasted > 0 else None

    @property
    def gaps(self) -> tuple[float, ...]:
        return tuple(later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured with `parallel` answers at a time. Times in seconds, speeds in tokens per second."""

    parallel: int
    rounds: int
    prompt_tokens: int
    generated: float
    prompt: Spread
    generation: Spread
    total: Spread
    first_word_p50: float
    gap_p50: float
    gap_p95: float
    gap_p99: float
    prompt_samples: tuple[float, ...]
    generation_samples: tuple[float, ...]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all (0..1) do not exceed, between the two nearest in proportion."""
    if not values:
        return math.nan
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample deviation; one value deviates by nothing."""
    if not values:
        return Spread(mean=math.nan, deviation=math.nan)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean=mean, deviation=0.0)
    return Spread(mean=mean, deviation=math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def summarise(parallel: int, rounds: Sequence[Sequence[Answer]]) -> Row:
    """The row of one degree of parallelism, from its rounds of simultaneous answers.

    Prompt speed: all prompt tokens of a round over the time until everybody had a first word. Total: all tokens that
    were generated over the whole round, prompts included, which is what many users at once experience.
    """
    prompt, total = [], []
    for answers in rounds:
        asked = min(answer.asked for answer in answers)
        prompt.append(sum(a.prompt_tokens for a in answers) / (max(a.pieces[0] for a in answers) - asked))
        total.append(sum(a.generated for a in answers) / (max(a.pieces[-1] for a in answers) - asked))
    everybody = [answer for answers in rounds for answer in answers]
    generation = [speed for answer in everybody if (speed := answer.speed) is not None]
    gaps = [gap for answer in everybody for gap in answer.gaps]
    return Row(
        parallel=parallel,
        rounds=len(rounds),
        prompt_tokens=round(sum(a.prompt_tokens for a in everybody) / len(everybody)),
        generated=sum(a.generated for a in everybody) / len(everybody),
        prompt=spread(prompt),
        generation=spread(generation),
        total=spread(total),
        first_word_p50=percentile([a.first_word for a in everybody], 0.5),
        gap_p50=percentile(gaps, 0.5),
        gap_p95=percentile(gaps, 0.95),
        gap_p99=percentile(gaps, 0.99),
        prompt_samples=tuple(prompt),
        generation_samples=tuple(generation),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All rows of one run. `setup` describes machine, build and model, in llama-bench's words where it has them."""

    setup: Mapping[str, Any]
    rows: tuple[Row, ...]
    load_s: float
    peak_memory: int
    at: str
    busy: float = 0.0
    """How many other processes wanted a core when it began (the load average)."""
    cores: int = 1


def as_json(report: Report) -> list[dict[str, Any]]:
    """Two rows for each degree of parallelism, as llama-bench has them: prompt only (n_gen 0), generation only."""
    found = []
    for row in report.rows:
        common = {
            **report.setup,
            "n_depth": 0,
            "test_time": report.at,
            "n_parallel": row.parallel,
            "load_s": report.load_s,
            "peak_memory_bytes": report.peak_memory,
            "load_average_before": report.busy,
            "includes": NOTE,
        }
        generated = round(row.generated)
        found.append(
            common
            | {"n_prompt": row.prompt_tokens, "n_gen": 0}
            | _samples(row.prompt_tokens * row.parallel, row.prompt_samples)
            | {"ttft_ms_p50": _ms(row.first_word_p50)}
        )
        found.append(
            common
            | {"n_prompt": 0, "n_gen": generated}
            | _samples(generated, row.generation_samples)
            | {"itl_ms_p50": _ms(row.gap_p50), "itl_ms_p95": _ms(row.gap_p95), "itl_ms_p99": _ms(row.gap_p99)}
            | {"total_ts": _number(row.total.mean), "total_ts_stddev": _number(row.total.deviation)}
        )
    return found


def _samples(tokens: int, speeds: Sequence[float]) -> dict[str, Any]:
    lasted = [tokens / speed * 1e9 for speed in speeds]
    return {
        "avg_ns": _number(spread(lasted).mean, 0),
        "stddev_ns": _number(spread(lasted).deviation, 0),
        "avg_ts": _number(spread(speeds).mean),
        "stddev_ts": _number(spread(speeds).deviation),
        "samples_ns": [_number(value, 0) for value in lasted],
        "samples_ts": [_number(value) for value in speeds],
    }


def _number(value: float, digits: int = 3) -> float | int | None:
    """JSON knows no NaN."""
    if math.isnan(value):
        return None
    return round(value, digits) if digits else round(value)


def _ms(seconds: float) -> float | None:
    value = _number(seconds * 1000)
    return None if value is None else float(value)


def markdown(report: Report) -> str:
    """The table for people, and what has to be said about it."""
    setup = report.setup
    titles = ("parallel", "prompt tok/s", "tok/s each", "tok/s together", "first word p50", "between p50 / p95 / p99")
    lines = [
        f"{setup['model_filename']}, {setup['model_size'] / 1e6:,.0f} MB, {setup['n_threads']} threads, "
        f"{setup['n_gpu_layers']} layers on GPU; {setup['cpu_info']}",
        f"loaded in {report.load_s:.2f} s, peak memory {report.peak_memory / 1e6:,.0f} MB",
        "",
        f"| {' | '.join(titles)} |",
        f"|{'---:|' * len(titles)}",
    ]
    for row in report.rows:
        gaps = " / ".join(f"{gap * 1000:.1f}" for gap in (row.gap_p50, row.gap_p95, row.gap_p99))
        cells = (str(row.parallel), _pm(row.prompt), _pm(row.generation), _pm(row.total))
        lines.append(f"| {' | '.join(cells)} | {row.first_word_p50 * 1000:.0f} ms | {gaps} ms |")
    if report.rows:
        row = report.rows[0]
        lines += ["", f"{row.prompt_tokens} prompt and {row.generated:.0f} generated tokens for each answer, "
                      f"{row.rounds} rounds, mean ± σ."]  # fmt: skip
    lines.append(NOTE)
    if report.busy > report.cores * _BUSY:
        lines.append(
            f"The machine was busy with something else (load {report.busy:.1f} on {report.cores} cores), so these "
            "numbers are too low; measure again when it is idle."
        )
    return "\n".join(lines)


def _pm(value: Spread) -> str:
    return f"{value.mean:.1f} ± {value.deviation:.1f}"
