"""Which GPUs are computed on, and what is said when none is."""

from __future__ import annotations

from pathlib import Path

from appliance.core.machine import Device
from appliance.engine.devices import computed_on, idle_gpu

CARD = Device(name="CUDA0", description="NVIDIA GeForce RTX 4090", kind="gpu", total=24 << 30, free=20 << 30)
CHIP = Device(name="Vulkan0", description="Intel Arc", kind="integrated", total=16 << 30, free=8 << 30)


def test_an_integrated_gpu_is_used_only_where_there_is_no_other() -> None:
    assert computed_on([CHIP, CARD]) == (CARD,)
    assert computed_on([CHIP]) == (CHIP,)
    assert computed_on([]) == ()


def test_a_box_that_computes_on_its_gpu_has_nothing_to_be_told() -> None:
    assert idle_gpu([CARD], offload=True, nodes={"/": "an NVIDIA GPU"}) is None


def test_a_gpu_that_llama_cpp_was_not_built_for_is_named(tmp_path: Path) -> None:
    assert idle_gpu([], offload=False, nodes={f"{tmp_path}/nvidia0": "an NVIDIA GPU"}) is None
    (tmp_path / "nvidia0").touch()
    assert idle_gpu([], offload=False, nodes={f"{tmp_path}/nvidia0": "an NVIDIA GPU"}) == (
        "This box has an NVIDIA GPU and llama.cpp was built without it, so the CPU computes: install a build for it."
    )


def test_a_build_for_a_gpu_that_finds_none_says_so() -> None:
    assert idle_gpu([], offload=True, nodes={}) == (
        "llama.cpp was built for a GPU and finds none, so the CPU computes: look whether its driver is loaded."
    )
