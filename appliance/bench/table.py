"""The result for people: llama-bench's own table first, then what it does not measure, then what has to be said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from appliance.availability import percentile
from appliance.bench.figures import Row, Spread, lower_bound, median, spread
from appliance.bench.result import BUSY, NOTE, Result, Setup, Takeover

INTERRUPTED = "It was interrupted: this is what had been measured by then."


def markdown(result: Result) -> str:
    setup = result.setup
    parts = [_llama_bench(result), _latencies(result), _crowd(result), _others(result)]
    build = f"build: {setup.build}, appliance {setup.version}; {setup.cpu}, {setup.cores} cores"
    said = [f"{build}, {setup.gpu}" if setup.gpu else build, NOTE, *result.notes]
    if setup.random_weights:
        said.append("The model has random weights: what it says is nonsense, at the speed of a real one of that shape.")
    if setup.busy > setup.cores * BUSY:
        said.append(
            f"The machine was busy with something else (load {setup.busy:.1f} on {setup.cores} cores), so these "
            "numbers are too low; measure again when it is idle."
        )
    if result.interrupted:
        said.append(INTERRUPTED)
    return "\n\n".join([part for part in parts if part] + ["\n".join(said)])


def lines(titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """A table, the first `left` columns flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    marks = ["-" * (width + 1) + ("-" if at < left else ":") for at, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        said = [cell.ljust(widths[at]) if at < left else cell.rjust(widths[at]) for at, cell in enumerate(cells)]
        return f"| {' | '.join(said)} |"

    return "\n".join([line(titles), f"|{'|'.join(marks)}|", *map(line, rows)])


def _llama_bench(result: Result) -> str:
    setup = result.setup
    on_gpu = bool(setup.gpu_layers)
    titles = ("model", "size", "params", "backend", "ngl" if on_gpu else "threads", "test", "t/s")
    model = (setup.model_type, _mebibytes(setup.model_size), _parameters(setup), setup.backends if on_gpu else "CPU")
    where = str(setup.gpu_layers if on_gpu else setup.threads)
    rows = [(*model, where, row.test, plus_minus(spread(row.speeds))) for row in result.rows if not _crowded(row)]
    return lines(titles, rows, left=1) if rows else ""


def _latencies(result: Result) -> str:
    """Of one answer at a time."""
    rows = [
        (
            row.test,
            _ms(percentile(row.firsts, 0.5), 0),
            _ms(percentile(row.firsts, 0.95), 0),
            _gaps(row),
            _ms(median(row.per_token)),
        )
        for row in result.rows
        if not _crowded(row)
    ]
    titles = ("one at a time", "first token p50, ms", "p95", "between tokens p50 / p95 / p99, ms", "per token, ms")
    return lines(titles, rows, left=1) if rows else ""


def _crowd(result: Result) -> str:
    crowded = [row for row in result.rows if _crowded(row)]
    rows = [
        (
            str(row.n_parallel),
            plus_minus(spread(row.written)),
            plus_minus(spread(row.each)),
            _ms(percentile(row.firsts, 0.5), 0),
            _ms(percentile(row.firsts, 0.95), 0),
            _gaps(row),
        )
        for row in crowded
    ]
    titles = ("at once", "t/s together", "t/s each", "first token p50, ms", "p95", "between tokens p50 / p95 / p99, ms")
    if not rows:
        return ""
    row = crowded[0]
    return f"{lines(titles, rows)}\n\n{row.n_prompt} tokens of prompt and {row.n_gen} of answer for each."


def _others(result: Result) -> str:
    rows = [(name, value) for name, value in _figures(result) if value]
    return lines(("the box", "measured"), rows, left=2) if rows else ""


def _figures(result: Result) -> list[tuple[str, str]]:
    setup, added = result.setup, result.added
    cold = "" if result.load_cold is None else f"{result.load_cold:.2f} s"
    warm = "" if result.load_warm is None else f"{result.load_warm:.2f} s"
    layers = f"{setup.gpu_layers} of {setup.layers}" if setup.gpu_layers else ""
    found = [
        ("start and load, the file on the disk", cold),
        ("start and load, the file in memory", warm),
        ("most memory of the engine", _megabytes(result.peak_memory)),
        ("memory of the service beside it", _megabytes(result.service_memory)),
        ("layers on GPU", layers),
        ("memory taken on GPU", _megabytes(result.vram)),
        ("memory bandwidth, measured", "" if setup.bandwidth is None else f"{setup.bandwidth / 1e9:.1f} GB/s"),
        ("of the speed that it allows", _efficiency(result)),
    ]
    if result.takeover is not None:
        found += _takeover(result.takeover)
    if added is not None and added.first:
        direct = f"; without the box {median(added.direct) * 1000:.2f} ms"
        found += [
            ("added to a cloud's first token", f"{_bounded(added.first, 2)}{direct}"),
            ("added to each further token", _bounded(added.token, 4)),
        ]
    return found


def _takeover(taken: Takeover) -> list[tuple[str, str]]:
    behind = f", behind {taken.prompt_tokens:,} tokens"
    found = []
    if taken.cold:
        found.append((f"silence at takeover, cold{behind}", f"{_ms(median(taken.cold), 0)} ms"))
    if taken.standby:
        step = median(taken.steps)
        steps = f"; a decode step is {_ms(step)} ms" if step > 0 else ""
        worst = f" (worst {_ms(max(taken.standby))})"
        said = f"{_ms(median(taken.standby))} ms{worst if len(taken.standby) > 1 else ''}{steps}"
        found.append((f"silence at takeover, standing by{behind}", said))
    if taken.noticed:
        found.append(("of it, to notice a broken connection", f"{_ms(median(taken.noticed))} ms"))
    return found


def _efficiency(result: Result) -> str:
    setup = result.setup
    if result.efficiency is None or setup.read_per_token is None:
        return ""
    limit, read = (setup.bandwidth or 0) / setup.read_per_token, setup.read_per_token / 1e6
    return f"{100 * result.efficiency:.0f} % (at most {limit:.0f} t/s, {read:,.0f} MB read for a token)"


def plus_minus(value: Spread) -> str:
    if math.isnan(value.mean):
        return ""
    return f"{value.mean:.2f} ± {value.deviation:.2f}" if value.count > 1 else f"{value.mean:.2f}"


def _bounded(values: Sequence[float], digits: int) -> str:
    """The median of what is better small, and the worse end of its 95 % interval."""
    bound = -lower_bound([-value for value in values]) * 1000
    return f"{median(values) * 1000:.{digits}f} ms (at most {bound:.{digits}f})"


def _crowded(row: Row) -> bool:
    return bool(row.n_prompt and row.n_gen)


def _gaps(row: Row) -> str:
    return " / ".join(_ms(percentile(row.gaps, share)) for share in (0.5, 0.95, 0.99)) if row.gaps else ""


def _ms(seconds: float | None, digits: int = 1) -> str:
    return "" if seconds is None or math.isnan(seconds) else f"{seconds * 1000:,.{digits}f}"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f} MB"


def _mebibytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def _parameters(setup: Setup) -> str:
    count = setup.parameters
    if not count:
        return "?"
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M"
