"""What llama.cpp says of its build."""

from __future__ import annotations

import pytest

from appliance.core.machine import instruction_sets


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | REPACK = 1 | ", ("SSE3", "AVX2")),
        # A build for CUDA, on a box without a driver.
        (
            "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | FA_QUANTS = q4_0-q4_0 | CPU : SSE3 = 1 | FMA = 1 | LLAMAFILE = 1 | ",
            ("SSE3", "FMA"),
        ),
        ("AVX = 1 | VSX = 0 | ", ("AVX",)),
        ("", ()),
    ],
)
def test_the_cpu_s_instructions_are_told_from_options_and_other_backends(said: str, found: tuple[str, ...]) -> None:
    assert instruction_sets(said) == found
