"""From the pace of small models to that of large ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.core.machine import Pace, Read
from appliance.store.speed import Burden, Probe, expect, kind_of, probes, rates

GIB = 1 << 30
BURDEN = Burden(
    reads=(
        Read(quant="F32", bytes=4000, weights=1000),
        Read(quant="Q4_K", bytes=GIB, weights=GIB * 256 // 144),
        Read(quant="Q6_K", bytes=GIB // 2, weights=GIB // 2 * 256 // 210),
    ),
    layers=30,
    width=1536,
    vocabulary=50_000,
)


def box(probe: Probe, *, slower: float = 1.0) -> Pace:
    """A box that computes exactly as is assumed: 30 us for a layer, 100 us for a token, 10 ns for a word, 20 GB/s for
    Q4_K, half of that for others, 1 ps for each weight of a prompt, and 1 ms for the engine around it."""
    shape = probe.shape
    rate = 20e9 if shape.quant == "Q4_K" else 10e9
    own = shape.bytes if "/" in probe.key else 0
    token = 100e-6 + 30e-6 * shape.layers + 10e-9 * (shape.vocabulary if probe.key == "many words" else 0) + own / rate
    prompt = 1e-12 * shape.parameters * (shape.layers - 1) / shape.layers
    return Pace(
        seconds_per_token=slower * token,
        prompt_tokens_per_second=1 / (slower * prompt),
        served=slower * (token + 1e-3) if probe.served else None,
    )


def known(*burdens: Burden, slower: float = 1.0) -> dict[str, Pace]:
    return {probe.key: box(probe, slower=slower) for probe in probes(burdens)}


def test_a_model_is_foretold_from_its_tables_on_a_box_that_computes_as_assumed() -> None:
    seconds = 1e-3 + 100e-6 + 30 * 30e-6 + 50_000 * 10e-9 + GIB / 20e9 + GIB / 2 / 10e9
    assert 1 / expect(BURDEN, rates(known(BURDEN))).tokens_per_second == pytest.approx(seconds, rel=0.02)


def test_a_box_of_half_the_speed_takes_twice_the_time() -> None:
    full, half = (expect(BURDEN, rates(known(BURDEN, slower=slower))) for slower in (1, 2))
    assert half.tokens_per_second == pytest.approx(full.tokens_per_second / 2)
    assert half.first_token[4000] == pytest.approx(2 * full.first_token[4000])


def test_a_long_prompt_takes_more_than_in_proportion_where_attention_costs() -> None:
    paces = known(BURDEN)
    paces["attention"] = replace(
        paces["attention"], prompt_tokens_per_second=paces["attention"].prompt_tokens_per_second / 30
    )
    speed = expect(BURDEN, rates(paces), prompts=(1000, 4000))
    assert speed.first_token[4000] > 4.5 * speed.first_token[1000]


def test_the_probes_are_of_the_model_s_own_packings_and_widths() -> None:
    assert [probe.key for probe in probes([BURDEN])][-2:] == ["Q4_K/1536", "Q6_K/1536"]
    assert len(probes([BURDEN, BURDEN])) == len(probes([BURDEN]))
    wide = replace(BURDEN, width=8192)
    assert [probe.key for probe in probes([wide])][-2:] == ["Q4_K/2048", "Q6_K/2048"]
    for probe in probes([wide])[-2:]:
        assert 96 << 20 <= probe.shape.bytes < 192 << 20


@pytest.mark.parametrize(
    ("read", "width", "kind"),
    [
        (Read(quant="F32", bytes=4, weights=1), 896, None),
        (Read(quant="Q5_0", bytes=22, weights=32), 896, ("Q5_0", 896)),
        (Read(quant="Q4_K", bytes=144, weights=256), 896, ("Q4_K", 1024)),
        (Read(quant="Q4_1", bytes=20, weights=32), 100, ("Q4_1", 256)),
        # What we cannot write is taken for the packing with about as many bits.
        (Read(quant="MXFP4", bytes=17, weights=32), 2880, ("Q4_0", 2048)),
        (Read(quant="BF16", bytes=2, weights=1), 4096, ("F16", 2048)),
    ],
)
def test_each_table_has_a_probe_like_it(read: Read, width: int, kind: tuple[str, int] | None) -> None:
    assert kind_of(read, width) == kind


def test_how_busy_the_box_was_is_the_worst_of_all_probes() -> None:
    paces = known(BURDEN)
    paces["many words"] = replace(paces["many words"], others=0.4)
    assert rates(paces).others == 0.4
