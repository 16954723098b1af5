"""Numbers in, verdict out: on boxes with and without a GPU. The devices are made up; none of them was here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appliance.core.machine import Device, Machine, Placement, Read, Weight
from appliance.store.catalog import BOXES
from appliance.store.fit import (
    PROMPT,
    Verdict,
    burden_of,
    disk_bytes_of,
    guess_burden,
    guessed,
    need_of,
    rank_of,
    recommend,
    refusal_of,
    shared,
    weighed,
)
from appliance.store.speed import Speed

GB = 10**9
CARD = Device(name="CUDA0", description="a card", kind="gpu", total=24 * GB, free=20 * GB)
BOX = Machine(
    cpu="c", cores=8, threads=4, ram_total=32 * GB, ram_free=20 * GB, gpu_offload=False, devices=(),
    instruction_sets=(), build="0",
)  # fmt: skip
WITH_GPU = replace(BOX, gpu_offload=True, devices=(CARD,))
ASKED = Placement(
    context=4096, kv_type="f16", gpu_layers=0, model=4 * GB, cache=GB, buffers=GB // 2, ram=5 * GB + GB // 2, devices=()
)
WEIGHT = Weight(
    name="m", architecture="llama", parameters=7, vocabulary=1000, width=512, trained=8192, layers=33, model=4 * GB,
    slots=4, process=GB // 10, reads=(Read(quant="Q4_K", bytes=4 * GB, weights=7 * GB),), asked=ASKED, chosen=ASKED,
)  # fmt: skip


def speed(tokens: float) -> Speed:
    return Speed(tokens_per_second=tokens, prompt_tokens_per_second=10 * tokens, first_token={4000: 400 / tokens})


def row(name: str, **more: Any) -> Verdict:
    return Verdict(**{"name": name, "fits": "yes", "exact": False, "memory": GB, "gpu": 0.0, "speed": speed(20)} | more)


def test_what_is_loaded_as_asked_fits() -> None:
    verdict = weighed("m", WEIGHT, speed(9))
    assert (verdict.fits, verdict.where, verdict.exact, verdict.speed) == ("yes", "CPU", True, speed(9))
    assert verdict.memory == need_of(WEIGHT, ASKED) == 5 * GB + GB // 2 + GB // 10


def test_what_gives_up_context_fits_with_less() -> None:
    assert weighed("m", replace(WEIGHT, chosen=replace(ASKED, context=2048)), None).fits == "less"
    assert weighed("m", replace(WEIGHT, chosen=replace(ASKED, kv_type="q8_0")), None).fits == "less"
    # More than the model was trained for is not the box's fault.
    long = replace(WEIGHT, asked=replace(ASKED, context=99_999), chosen=replace(ASKED, context=8192))
    assert weighed("m", long, None).fits == "yes"


def test_what_would_be_read_from_disk_for_every_token_does_not_fit() -> None:
    slow = replace(ASKED, from_disk=True, steps=("A slot gets less.", "The model needs 5 GB and 3 GB is free."))
    weight = replace(WEIGHT, chosen=slow)
    verdict = weighed("m", weight, speed(9))
    assert (verdict.fits, verdict.where, verdict.speed) == ("no", "-", None)
    assert refusal_of(weight) == "The model needs 5 GB and 3 GB is free."
    assert (refusal_of(WEIGHT), refusal_of(replace(WEIGHT, chosen=None, refusal="No."))) == (None, "No.")
    assert disk_bytes_of(weight, slow, need_of(weight, slow) - 3 * GB) == 3 * GB  # each token reads all of it
    half = replace(weight, reads=(replace(WEIGHT.reads[0], bytes=2 * GB),))  # or half, as with experts
    assert disk_bytes_of(half, slow, need_of(weight, slow) - 3 * GB) == 1.5 * GB


def test_what_nothing_can_be_done_about_does_not_fit() -> None:
    verdict = weighed("m", replace(WEIGHT, chosen=None, refusal="It needs more."), speed(9))
    assert (verdict.fits, verdict.where, verdict.speed) == ("no", "-", None)


@pytest.mark.parametrize(("layers", "where"), [(33, "GPU"), (16, "52%/48% CPU/GPU"), (0, "CPU")])
def test_where_it_is_computed_is_said_as_others_say_it(layers: int, where: str) -> None:
    assert weighed("m", replace(WEIGHT, chosen=replace(ASKED, gpu_layers=layers)), None).where == where


@pytest.mark.parametrize(
    ("machine", "memory", "fits", "where"),
    [
        (BOX, 19 * GB, "yes", "CPU"),
        (BOX, 20 * GB, "no", "-"),
        (WITH_GPU, 19 * GB, "yes", "GPU"),
        (WITH_GPU, 30 * GB, "yes", "34%/66% CPU/GPU"),
        (WITH_GPU, 40 * GB, "no", "-"),
        (replace(WITH_GPU, devices=(CARD, CARD)), 39 * GB, "yes", "GPU"),
    ],
)
def test_of_what_is_not_here_the_memory_in_the_catalog_decides(
    machine: Machine, memory: int, fits: str, where: str
) -> None:
    verdict = guessed("m", memory, machine, speed(9))
    assert (verdict.fits, verdict.where, verdict.exact) == (fits, where, False)


def test_a_guessed_model_reads_all_of_its_bytes_and_one_of_experts_those_in_use() -> None:
    whole, some = guess_burden(5 * GB, 1.0), guess_burden(20 * GB, 0.1)
    assert sum(read.bytes for read in whole.reads) == pytest.approx(5 * GB)
    assert sum(read.weights for read in whole.reads) == pytest.approx(8.2e9, rel=0.03)  # as an 8B's
    assert sum(read.bytes for read in some.reads) == pytest.approx(2 * GB)


def test_a_weighed_model_is_as_many_layers_as_it_has_without_the_output() -> None:
    assert (burden_of(WEIGHT).layers, burden_of(WEIGHT).width) == (32, 512)


def test_between_gpu_and_cpu_the_times_add_up() -> None:
    half = shared(speed(100), speed(10), 0.5)
    assert half.tokens_per_second == pytest.approx(1 / (0.5 / 100 + 0.5 / 10))
    assert half.first_token[4000] == pytest.approx(22)


def test_a_model_ranks_by_the_largest_box_of_this_kind_that_it_is_first_choice_for() -> None:
    order = tuple(BOXES)
    assert rank_of(("cpu-8", "cpu-32", "gpu-8"), order, gpu=False) == 2
    assert rank_of(("cpu-8", "gpu-12"), order, gpu=True) == 1
    assert rank_of(("gpu-12",), order, gpu=False) == -1


def test_the_first_choice_for_the_largest_box_that_this_one_can_be_is_recommended() -> None:
    rows = [row("s", rank=0), row("m", rank=1), row("l", rank=2, fits="no"), row("huge", memory=9 * GB)]
    best = recommend(rows)
    assert best is not None and best.name == "m"


def test_what_is_slower_than_one_reads_is_recommended_only_if_nothing_is_quicker() -> None:
    rows = [row("s", rank=0, speed=speed(9)), row("m", rank=1, speed=speed(7))]
    assert [recommend(rows), recommend(rows[1:]), recommend([])] == [rows[0], rows[1], None]


def test_what_reads_a_long_conversation_for_minutes_is_recommended_only_if_nothing_is_quicker() -> None:
    rows = [row("s", rank=0, speed=speed(9)), row("m", rank=1, speed=replace(speed(30), first_token={PROMPT: 121.0}))]
    assert [recommend(rows), recommend(rows[1:])] == rows


def test_what_is_partly_on_the_cpu_is_recommended_only_if_nothing_else_fits() -> None:
    rows = [row("m", rank=1, gpu=1.0), row("l", rank=2, gpu=0.8)]
    assert [recommend(rows), recommend(rows[1:])] == rows


def test_what_not_everybody_may_use_or_does_not_fit_whole_is_not_recommended() -> None:
    rows = [row("a", rank=3, free=False), row("b", rank=3, fits="less"), row("c", rank=3, fits="no")]
    assert recommend(rows) is None
    assert recommend([*rows, row("d")]) == row("d")
