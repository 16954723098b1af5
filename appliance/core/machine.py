"""What is this box? A value that `status`, `fit`, `bench` and `doctor` all read; measured by `backends.box`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Something llama.cpp can compute on besides the CPU. Bytes of its memory, as the driver tells them now."""

    name: str  # llama.cpp's own: "CUDA0", "Vulkan0"
    description: str  # "NVIDIA GeForce RTX 4090"
    kind: Literal["gpu", "integrated", "accelerator"]
    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The box, and how llama.cpp was built for it. `threads` is what the engine would compute with."""

    cpu: str
    cores: int  # logical ones that this process may use
    threads: int
    ram_total: int
    ram_free: int  # what may still be allocated: limits of this process and its container count
    gpu_offload: bool  # was llama.cpp built for any GPU?
    devices: tuple[Device, ...]
    instruction_sets: tuple[str, ...]  # compiled in, in llama.cpp's words: "AVX2", "FMA"
    build: str  # the version of llama-cpp-python
