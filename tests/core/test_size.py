"""A number of bytes is short, and of one kind everywhere."""

from __future__ import annotations

import pytest

from appliance.core.size import in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 MB"),
        (98_362_432, "98 MB"),
        (999_999_999, "1,000 MB"),
        (10**9, "1.0 GB"),
        (2_740_937_888, "2.7 GB"),
        (1.5e13, "15,000.0 GB"),
    ],
)
def test_sizes_are_short(size: float, words: str) -> None:
    assert in_words(size) == words
