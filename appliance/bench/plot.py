"""The result as a picture: an SVG that reads well on a light page and on a dark one.

Written by hand, since all it draws is bars: a library that draws anything would be the largest dependency of the box.

Rules of this file:

1. A panel for each question, and none where nothing was measured. Every axis has a title with its unit.
2. Each bar says its number. A whisker is the standard deviation of the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from appliance.bench.figures import Row, Spread, median, spread
from appliance.bench.result import Result

WIDTH, HEAD, FOOT = 880, 74, 34
PANEL_WIDTH, PANEL_HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 74, 22, 46, 58
STYLE = """
  .page { fill: #ffffff } text { fill: #24292f; font: 12px system-ui, sans-serif } .faint { fill: #57606a }
  .title { font-size: 17px; font-weight: 600 } .panel { font-size: 14px; font-weight: 600 } .value { font-size: 11px }
  .grid { stroke: #d0d7de; stroke-width: 1 } .axis { stroke: #57606a; stroke-width: 1 }
  .whisker { stroke: #24292f; stroke-width: 1.5 } .limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 4 }
  .a { fill: #2f6fd0 } .b { fill: #e8964a }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9198a1 }
    .grid { stroke: #30363d } .axis { stroke: #9198a1 } .whisker { stroke: #e6edf3 } .limit { stroke: #ff7b72 }
    .a { fill: #6aa3ff } .b { fill: #d9822b }
  }
"""


@dataclass(frozen=True, slots=True)
class Bar:
    height: float
    error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Groups of bars: a label, and a bar for each of the `series`, which are named if there is more than one. A `limit`
    is a line across, with its words."""

    title: str
    x: str
    y: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    series: tuple[str, ...] = ("",)
    limit: tuple[float, str] | None = None
    logarithmic: bool = False
    """Of seconds."""


def panels(result: Result) -> list[Panel]:
    """What there is to draw."""
    alone = [row for row in result.rows if not (row.n_prompt and row.n_gen)]
    crowd = [row for row in result.rows if row.n_prompt and row.n_gen and row.written]
    found = []
    if written := [row for row in alone if row.n_gen and row.speeds]:
        found.append(
            Panel(
                title="Writing an answer",
                x="tokens before it",
                y="tokens per second",
                groups=_by_depth(written),
                limit=_limit(result),
            )
        )
    if read := [row for row in alone if row.n_prompt and row.speeds]:
        title, x = "Reading a prompt", "tokens before it"
        found.append(Panel(title=title, x=x, y="tokens per second", groups=_by_depth(read)))
    if crowd:
        groups = tuple((str(row.n_parallel), (_bar(spread(row.written)), _bar(spread(row.each)))) for row in crowd)
        series = ("together", "each")
        x, y = "answers at the same time, prompts included", "tokens per second"
        found.append(Panel(title="Several at once", x=x, y=y, groups=groups, series=series))
    if (taken := result.takeover) is not None and (taken.cold or taken.standby):
        kinds = (("cold", taken.cold), ("standing by", taken.standby), ("one decode step", taken.steps))
        found.append(
            Panel(
                title="Silence when a cloud dies in mid-answer",
                x=f"behind {taken.prompt_tokens:,} tokens",
                y="time (logarithmic)",
                groups=tuple((name, (Bar(median(some)),)) for name, some in kinds if median(some) > 0),
                logarithmic=True,
            )
        )
    return found


def svg(result: Result) -> str:
    setup, drawn = result.setup, panels(result)
    rows = math.ceil(len(drawn) / 2)
    height = HEAD + max(1, rows) * PANEL_HEIGHT + FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img">',
        f"<title>{escape(setup.model_type)} on {escape(setup.gpu or setup.cpu)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        _text(LEFT - 50, 32, f"{setup.model_type}, {setup.filename}", kind="title"),
        _text(LEFT - 50, 54, _about(result), kind="faint"),
    ]
    if not drawn:
        lines.append(_text(LEFT - 50, HEAD + 40, "Nothing was measured."))
    for at, panel in enumerate(drawn):
        x, y = (at % 2) * PANEL_WIDTH, HEAD + (at // 2) * PANEL_HEIGHT
        lines += [f'<g transform="translate({x} {y})">', *_drawn(panel), "</g>"]
    foot = "Sampling and turning tokens into text are included. Whiskers: the standard deviation of the rounds."
    lines += [_text(LEFT - 50, height - 12, foot, kind="faint"), "</svg>"]
    return "\n".join(lines)


def _about(result: Result) -> str:
    setup = result.setup
    where = f"{setup.gpu_layers} of {setup.layers} layers on {setup.gpu}" if setup.gpu_layers else setup.cpu
    busy = "; the machine was busy" if setup.busy > setup.cores / 2 else ""
    return f"{where}, {setup.threads} threads, {setup.build}, {setup.at[:10]}{busy}"


def _by_depth(rows: Sequence[Row]) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    several = len({row.n_prompt or row.n_gen for row in rows}) > 1
    return tuple(
        (f"{row.n_depth:,}" + (f" ({row.n_prompt or row.n_gen:,})" if several else ""), (_bar(spread(row.speeds)),))
        for row in rows
    )


def _limit(result: Result) -> tuple[float, str] | None:
    setup = result.setup
    if result.efficiency is None or not setup.bandwidth or not setup.read_per_token:
        return None
    return setup.bandwidth / setup.read_per_token, "what the memory allows"


def _bar(value: Spread) -> Bar:
    return Bar(value.mean, value.deviation)


# ------------------------------------------------------------------------------------------------------ one panel


def _drawn(panel: Panel) -> Iterator[str]:
    width, height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM
    tops = [bar.height + bar.error for _, bars in panel.groups for bar in bars if not math.isnan(bar.height)]
    if panel.limit is not None:
        tops.append(panel.limit[0])
    lows = [bar.height for _, bars in panel.groups for bar in bars if not math.isnan(bar.height)]
    ticks = decades(min(lows), max(tops)) if panel.logarithmic else steps(max(tops))
    written = duration if panel.logarithmic else shown

    def up(value: float) -> float:
        """Where a value is, from the top of the panel."""
        if panel.logarithmic:
            share = math.log(max(value, ticks[0]) / ticks[0]) / math.log(ticks[-1] / ticks[0])
        else:
            share = value / ticks[-1]
        return TOP + height * (1 - share)

    yield _text(LEFT - 50, 22, panel.title, kind="panel")
    for tick in ticks:
        yield f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        yield _text(
            LEFT - 8, up(tick) + 4, duration(tick) if panel.logarithmic else f"{tick:,g}", anchor="end", kind="faint"
        )
    yield _text(LEFT + width / 2, PANEL_HEIGHT - 14, panel.x, anchor="middle", kind="faint")
    middle = TOP + height / 2
    yield (
        f'<text class="faint" text-anchor="middle" transform="translate({LEFT - 58} {middle:.1f}) rotate(-90)">'
        f"{escape(panel.y)}</text>"
    )
    if len(panel.series) > 1:
        yield from _legend(panel.series, LEFT + width)
    room = width / len(panel.groups)
    thick = min(54.0, room * 0.7 / len(panel.series))
    for at, (label, bars) in enumerate(panel.groups):
        centre = LEFT + room * (at + 0.5)
        yield _text(centre, TOP + height + 18, label, anchor="middle")
        for which, bar in enumerate(bars):
            if not math.isnan(bar.height):
                x = centre + thick * (which - len(bars) / 2)
                yield from _one(bar, x, thick, up, "ab"[which], TOP + height, written(bar.height))
    if panel.limit is not None:
        value, words = panel.limit
        y = up(value)
        yield f'<line class="limit" x1="{LEFT}" x2="{LEFT + width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT + width, y - 5, f"{words}: {shown(value)}", anchor="end", kind="value")
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT + width}" y1="{TOP + height}" y2="{TOP + height}"/>'


def _one(
    bar: Bar, x: float, thick: float, up: Callable[[float], float], colour: str, ground: float, words: str
) -> Iterator[str]:
    top, middle = up(bar.height), x + thick / 2
    yield (
        f'<rect class="{colour}" x="{x + 1:.1f}" y="{top:.1f}" width="{thick - 2:.1f}" height="{ground - top:.1f}" '
        'rx="2"/>'
    )
    high = top
    if bar.error > 0:
        high, low = up(bar.height + bar.error), up(max(0.0, bar.height - bar.error))
        yield f'<path class="whisker" d="M{middle:.1f} {low:.1f}V{high:.1f}M{middle - 4:.1f} {high:.1f}h8"/>'
    yield _text(middle, high - 5, words, anchor="middle", kind="value")


def _legend(series: Sequence[str], right: float) -> Iterator[str]:
    x = right
    for colour, name in reversed(list(zip("ab", series, strict=False))):
        x -= 7 * len(name)
        yield _text(x, 22, name)
        yield f'<rect class="{colour}" x="{x - 16}" y="12" width="11" height="11" rx="2"/>'
        x -= 30


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def shown(value: float) -> str:
    """A number with three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """The same of a time, with its unit."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1e6:.3g} µs"


def steps(top: float) -> list[float]:
    """Four to six round numbers from 0 to above `top`, with room for what stands on the highest bar."""
    wished = (top * 1.08 or 1.0) / 5
    size = 10 ** math.floor(math.log10(wished))
    step = next(times * size for times in (1, 2, 2.5, 5, 10) if times * size >= wished)
    return [step * at for at in range(math.ceil(top * 1.08 / step or 1) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from below `low` to above `high`."""
    first, last = math.floor(math.log10(low / 1.5)), math.ceil(math.log10(high * 1.3))
    return [10.0**power for power in range(min(first, last - 1), last + 1)]
