"""The picture: well-formed, and with everything in it that was measured."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from appliance.bench.plot import Bar, decades, duration, panels, shown, steps, svg
from tests.bench_room.made_up import RESULT, result

SVG = "{http://www.w3.org/2000/svg}"


def words(picture: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(picture).iter(f"{SVG}text")]


def test_there_is_a_panel_for_each_question_that_was_asked() -> None:
    assert [panel.title for panel in panels(RESULT)] == [
        "Writing an answer",
        "Reading a prompt",
        "Several at once",
        "Silence when a cloud dies in mid-answer",
    ]
    assert [panel.title for panel in panels(result(rows=RESULT.rows[:1], takeover=None))] == ["Reading a prompt"]


def test_bars_are_the_means_and_their_deviations() -> None:
    written, read, crowd, silence = panels(RESULT)
    assert read.groups == (("0", (Bar(400.0, 10.0),)), ("4,096", (Bar(100.0, 1.0),)))
    assert written.limit == (200.0, "what the memory allows")
    assert crowd.groups[1][1][0] == Bar(100.0, 0.0)
    assert silence.groups == (
        ("cold", (Bar(9.9),)),
        ("standing by", (Bar(0.021),)),
        ("one decode step", (Bar(0.015),)),
    )


def test_axes_have_titles_with_units_and_bars_their_numbers() -> None:
    said = words(svg(RESULT))
    assert said.count("tokens per second") == 3
    assert {"tokens before it", "time (logarithmic)", "400", "what the memory allows: 200", "9.9 s", "21 ms"} <= {*said}
    assert {"together", "each"} <= {*said}


def test_a_higher_bar_is_higher() -> None:
    picture = ET.fromstring(svg(result(rows=RESULT.rows[:1] + RESULT.rows[2:3], takeover=None)))
    first, second = (float(bar.get("height", 0)) for bar in picture.iter(f"{SVG}rect") if bar.get("rx"))
    assert 0 < first < 300
    assert first == pytest.approx(4 * second, rel=0.01)  # 400 and 100 tokens per second


def test_a_strange_name_does_not_break_the_picture() -> None:
    assert "<b>&.gguf" in " ".join(words(svg(result(setup={"filename": "<b>&.gguf"}))))


def test_a_picture_of_nothing_says_so() -> None:
    assert "Nothing was measured." in words(svg(result(rows=(), takeover=None)))


def test_it_has_colours_for_a_dark_page() -> None:
    assert "@media (prefers-color-scheme: dark)" in svg(RESULT)


@pytest.mark.parametrize(
    ("top", "expected"),
    [(400, [0, 100, 200, 300, 400, 500]), (0.9, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, [0, 0.2])],
)
def test_ticks_are_round_and_reach_above_the_highest(top: float, expected: list[float]) -> None:
    assert steps(top) == pytest.approx(expected)


def test_decades_reach_around_all_values() -> None:
    assert decades(0.015, 9.9) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert decades(1.0, 1.0) == [0.1, 1.0, 10.0]


def test_numbers_have_three_digits_that_matter() -> None:
    assert [shown(value) for value in (1234.5, 99.94, 1.234)] == ["1,234", "99.9", "1.23"]
    assert [duration(value) for value in (1234, 9.9, 0.0213, 0.00002)] == ["1,234 s", "9.9 s", "21.3 ms", "20 µs"]
