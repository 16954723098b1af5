"""What is asked for, what is needed, what is free: and the ways to load the model, the best first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine.memory import SPARE, SPARE_DEVICE, Growth, Need, NoRoom, Room, Rung, Sizes, ladder, spread

MIB = 2**20
ASKED = Rung(context=8192, kv_type="f16", gpu_layers=0)


def sizes(*, window: bool = False, trained: int = 32_768, kinds: tuple[str, ...] = ("f16", "q8_0", "q4_0")) -> Sizes:
    """1,000 MiB of weights in 10 layers; a token costs 256 KiB of f16 cache, and 128 or 64 if quantized."""
    per_token = {"f16": 0.25 * MIB, "q8_0": 0.125 * MIB, "q4_0": 0.0625 * MIB}
    needs = {
        (kind, whole): Need(
            cache=Growth(0, per_token[kind] * (1 if whole else 0.5)), host=Growth(20 * MIB), device=Growth()
        )
        for kind in kinds
        for whole in ((True, False) if window else (True,))
    }
    return Sizes(model=1000 * MIB, layers=10, trained=trained, needs=needs, output=100 * MIB)


def room(mib: int, *devices: int) -> Room:
    """So much beside what is spared for others."""
    return Room(ram=mib * MIB + SPARE, devices=tuple(device * MIB + SPARE_DEVICE for device in devices))


def told(rungs: tuple[Rung, ...]) -> list[tuple[int, str, int, bool]]:
    return [(rung.context, rung.kv_type, rung.gpu_layers, rung.whole_window) for rung in rungs]


def test_what_fits_is_loaded_as_it_was_asked_for_and_nothing_is_said() -> None:
    first = ladder(ASKED, sizes(), room(1000 + 20 + 2048))[0]
    assert first == ASKED
    assert first.steps == ()


def test_a_byte_less_and_the_context_is_halved() -> None:
    tight = Room(ram=room(1000 + 20 + 2048).ram - 1)
    first = ladder(ASKED, sizes(), tight)[0]
    assert (first.context, first.kv_type) == (4096, "f16")
    assert first.steps == (
        "A slot gets 4,096 tokens instead of 8,192: that needs 3.4 GB of memory, and 3.4 GB is free.",
    )


def test_below_2048_tokens_the_cache_loses_precision_before_the_context_is_halved_again() -> None:
    assert told(ladder(ASKED, sizes(), room(1020 + 511)))[0] == (4096 // 2, "q8_0", 0, True)
    assert told(ladder(ASKED, sizes(), room(1020 + 255)))[0] == (2048, "q4_0", 0, True)
    assert told(ladder(ASKED, sizes(), room(1020 + 127)))[0] == (1024, "q4_0", 0, True)
    assert told(ladder(ASKED, sizes(), room(1020 + 63)))[0] == (512, "q4_0", 0, True)


def test_each_thing_given_up_is_one_sentence() -> None:
    steps = ladder(ASKED, sizes(), room(1020 + 255))[0].steps
    assert len(steps) == 2
    assert steps[0].startswith("A slot gets 2,048 tokens instead of 8,192")
    assert steps[1] == "The cache is kept as q4_0 instead of f16, to save memory."


def test_what_a_sliding_window_left_behind_goes_before_any_context() -> None:
    first = ladder(ASKED, sizes(window=True), room(1020 + 1024))[0]
    assert told((first,)) == [(8192, "f16", 0, False)]
    assert "sliding window" in first.steps[0]


def test_what_was_asked_for_and_refused_nevertheless_is_tried_lower_and_lower() -> None:
    rungs = told(ladder(ASKED, sizes(), room(10_000)))
    assert rungs == [
        (8192, "f16", 0, True),
        (4096, "f16", 0, True),
        (2048, "f16", 0, True),
        (8192, "q8_0", 0, True),
        (4096, "q8_0", 0, True),
        (2048, "q8_0", 0, True),
        (8192, "q4_0", 0, True),
        (4096, "q4_0", 0, True),
        (2048, "q4_0", 0, True),
        (1024, "q4_0", 0, True),
        (512, "q4_0", 0, True),
        (1024, "f16", 0, True),
        (512, "f16", 0, True),
    ]


def test_more_context_than_the_model_was_trained_for_is_not_given() -> None:
    first = ladder(replace(ASKED, context=99_999_999), sizes(), room(100_000))[0]
    assert first.context == 32_768
    assert first.steps == (
        "A slot gets 32,768 tokens instead of 99,999,999: the model was not trained for longer texts.",
    )


def test_a_model_that_does_not_say_what_it_was_trained_for_gets_what_fits() -> None:
    first = ladder(replace(ASKED, context=99_999_999), sizes(trained=0), room(1020 + 2048))[0]
    assert 2048 < first.context <= 8192


def test_a_cache_that_cannot_be_quantized_stays_as_it_is() -> None:
    first = ladder(replace(ASKED, kv_type="q8_0"), sizes(kinds=("f16",)), room(100_000))[0]
    assert first.kv_type == "f16"
    assert first.steps == ("The cache of this model cannot be kept as q8_0; it is kept as f16.",)
    assert told(ladder(ASKED, sizes(kinds=("f16",)), room(1020 + 128)))[0] == (512, "f16", 0, True)


# ------------------------------------------------------------------------------------------------------ the GPU

ON_GPU = replace(ASKED, gpu_layers=99)


def test_all_layers_go_to_a_gpu_with_room_for_them() -> None:
    first = ladder(ON_GPU, sizes(), room(10_000, 1000 + 2048))[0]
    assert (first.gpu_layers, first.steps) == (10, ())


def test_the_layers_that_do_not_fit_the_gpu_stay_on_the_cpu() -> None:
    rungs = ladder(ON_GPU, sizes(), room(10_000, 2000))
    assert told(rungs)[:3] == [(8192, "f16", 6, True), (8192, "f16", 3, True), (8192, "f16", 0, True)]
    assert rungs[0].steps == (
        "6 of the model's 10 layers fit the GPU (2.4 GB is free on it);"
        " the others are computed on the CPU, which is slower.",
    )
    assert rungs[2].steps == ("The model does not fit the GPU (2.4 GB is free on it); it is computed on the CPU.",)


def test_a_gpu_that_does_not_say_what_is_free_is_tried_with_everything_first() -> None:
    assert [rung.gpu_layers for rung in ladder(ON_GPU, sizes(), room(10_000))][:3] == [10, 5, 0]


def test_llama_cpp_s_own_split_gives_each_gpu_layers_by_what_is_free_on_it() -> None:
    assert spread(10, [3000, 1000]) == (8, 2)  # layer 8 of 10 begins behind three quarters
    assert spread(31, [1, 1]) == (16, 15)
    assert spread(3, [0, 5, 5]) == (0, 2, 1)
    assert spread(5, []) == ()
    assert spread(0, [10, 10]) == (0, 0)


def test_two_gpus_are_not_one_large_gpu() -> None:
    """Each has its own layers and its own buffers; what is over on one is of no use to the other."""
    buffers = {kind: replace(need, device=Growth(300 * MIB)) for kind, need in sizes().needs.items()}
    both = replace(sizes(), needs=buffers)
    one = ladder(replace(ON_GPU, context=512), both, room(10_000, 1500))[0]
    two = ladder(replace(ON_GPU, context=512), both, room(10_000, 750, 750))[0]
    assert (one.gpu_layers, two.gpu_layers) == (10, 6)
    assert two.steps == (
        "6 of the model's 10 layers fit the GPUs (1.1 GB and 1.1 GB are free on them);"
        " the others are computed on the CPU, which is slower.",
    )
    needed = both.devices(two, (1006 * MIB, 1006 * MIB))
    assert all(need + SPARE_DEVICE <= 1006 * MIB for need in needed)


def test_the_output_goes_to_the_gpu_first_and_is_as_large_as_many_layers() -> None:
    large = replace(sizes(), input=0, output=640 * MIB)  # 40 MiB for each of the other nine layers
    rung = replace(ON_GPU, gpu_layers=1)
    assert large.devices(rung, (1,)) == (640 * MIB,)
    assert large.host_model(rung) == 360 * MIB
    assert large.devices(replace(rung, gpu_layers=3, context=0), (1,)) == (720 * MIB,)


def test_a_table_for_words_and_output_at_once_is_in_ram_and_on_the_gpu() -> None:
    tied = replace(sizes(), input=640 * MIB, output=640 * MIB, tied=True)
    rung = replace(ON_GPU, gpu_layers=10, context=0)
    assert tied.devices(rung, (1,)) == (1000 * MIB,)
    assert tied.host_model(rung) == 640 * MIB


# ------------------------------------------------------------------------------------------------- too large


def test_a_model_larger_than_the_memory_is_loaded_with_a_warning() -> None:
    first = ladder(ASKED, sizes(), room(900))[0]
    assert first.context == 2048
    assert first.steps[-1] == (
        "The model needs 1.0 GB of memory and 1.1 GB is free:"
        " it is read from disk again and again, and answers will be slow."
    )


def test_what_is_read_from_disk_is_not_copied_into_another_order() -> None:
    """A copy could not be read again from anywhere."""
    copied = replace(sizes(), repacked=600 * MIB)
    first = ladder(ASKED, copied, room(10_000))[0]
    assert (first.repacks, copied.twice(first), copied.host_model(first)) == (True, 600 * MIB, 1000 * MIB)
    slow = ladder(ASKED, copied, room(900))[0]
    assert (slow.repacks, slow.from_disk, first.from_disk, copied.twice(slow)) == (False, True, False, 0)
    assert copied.twice(replace(ASKED, gpu_layers=10)) == 0
    assert copied.twice(replace(ASKED, gpu_layers=4)) == 400 * MIB


def test_a_cache_that_fits_nowhere_is_refused_with_both_numbers() -> None:
    with pytest.raises(NoRoom, match="need 189 MB of memory even for 512 tokens in each slot, and 145 MB is free"):
        ladder(ASKED, sizes(), room(10))


@given(
    context=st.integers(64, 2**27),
    kv_type=st.sampled_from(["f16", "q8_0", "q4_0"]),
    layers=st.integers(0, 20),
    window=st.booleans(),
    ram=st.integers(0, 40_000),
    devices=st.lists(st.integers(0, 20_000), max_size=3),
)
def test_no_rung_needs_more_than_there_is_and_every_rung_that_gives_up_something_says_so(
    context: int, kv_type: str, layers: int, window: bool, ram: int, devices: list[int]
) -> None:
    asked = Rung(context=context, kv_type=kv_type, gpu_layers=layers)
    needed, free = sizes(window=window), room(ram, *devices)
    try:
        rungs = ladder(asked, needed, free)
    except NoRoom:
        return
    assert rungs
    assert len(set(told(rungs))) == len(rungs)
    for rung in rungs:
        assert free.holds_cache(needed, rung)
        assert rung.context <= min(context, needed.trained)
        wanted = replace(asked, gpu_layers=min(layers, needed.layers))
        if replace(rung, steps=()) != wanted:
            assert rung.steps
    assert free.holds(needed, rungs[0]) or "read from disk" in rungs[0].steps[-1]


def test_a_line_goes_through_what_was_measured_and_never_below_nothing() -> None:
    growth = Growth.through((1024, 5_000), (4096, 14_216))
    assert (growth.at(1024), growth.at(4096), growth.at(8192)) == (5_000, 14_216, 26_504)
    assert Growth.through((1024, 900), (4096, 800)) == Growth(900, 0.0)
