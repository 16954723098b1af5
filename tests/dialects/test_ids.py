"""Tool-call ids wander between clouds; each sees one it takes, and call and result still find each other."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dialects.ids import Taste, fitting_id

FITS: dict[Taste, str] = {
    "anthropic": r"[a-zA-Z0-9_-]+",
    "openai": r"[!-~]{1,40}",
    "short": r"[a-zA-Z0-9]{9}",
}
TASTES = sorted(FITS)


@pytest.mark.parametrize(
    ("identity", "taste"),
    [
        ("toolu_01A09q90qw90lq917835lq9", "anthropic"),
        ("call_abc-1" * 9, "anthropic"),
        ("functions.get_weather:0", "openai"),
        ("x" * 40, "openai"),
        ("abcDEF123", "short"),
    ],
)
def test_an_id_that_fits_stays(identity: str, taste: Taste) -> None:
    assert fitting_id(identity, taste) == identity


@pytest.mark.parametrize(
    ("identity", "taste", "made"),
    [
        ("functions.get_weather:0", "anthropic", "toolu_"),
        ("", "anthropic", "toolu_"),
        ("abc\n", "anthropic", "toolu_"),
        ("ä", "anthropic", "toolu_"),
        ("x" * 41, "openai", "call_"),
        ("with space", "openai", "call_"),
        ("toolu_01A09q90qw90lq917835lq9", "short", ""),
        ("abcDEF12", "short", ""),
        ("abc-EF123", "short", ""),
    ],
)
def test_an_id_that_does_not_fit_gives_way_to_one_that_looks_at_home(identity: str, taste: Taste, made: str) -> None:
    fitting = fitting_id(identity, taste)
    assert fitting != identity
    assert fitting.startswith(made)
    assert re.fullmatch(FITS[taste], fitting)


def test_the_made_id_is_the_same_tomorrow() -> None:
    assert fitting_id("a b", "short") == "c8687a08a"
    assert fitting_id("a b", "anthropic") == "toolu_c8687a08aa5d6ed2044328fa"


@given(st.text(st.characters(), max_size=60), st.sampled_from(TASTES))
def test_every_id_ends_up_fitting_and_stays_put_from_then_on(identity: str, taste: Taste) -> None:
    fitting = fitting_id(identity, taste)
    assert re.fullmatch(FITS[taste], fitting)
    assert fitting_id(fitting, taste) == fitting_id(identity, taste) == fitting


@given(st.lists(st.text(min_size=10, max_size=60), unique=True, max_size=20), st.sampled_from(TASTES))
def test_different_ids_stay_different(identities: list[str], taste: Taste) -> None:
    assert len({fitting_id(identity, taste) for identity in identities}) == len(identities)
