"""What is this box? A value that `status`, `fit`, `bench` and `doctor` all read; measured by `backends.box`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Options of llama.cpp's build that it lists among the instructions.
NOT_INSTRUCTIONS = frozenset({"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE", "KLEIDIAI"})


def instruction_sets(said: str) -> tuple[str, ...]:
    """Which instructions of the CPU may llama.cpp use? From its own list, "CUDA : ARCHS = 900 | USE_GRAPHS = 1 | CPU :
    SSE3 = 1 | AVX2 = 1 | ...": each backend has a part of it."""
    backend, found = "CPU", []
    for part in said.split("|"):
        first, _, option = part.rpartition(" : ")
        backend = first.strip() or backend
        name, _, value = option.partition("=")
        if backend == "CPU" and value.strip() == "1":
            found.append(name.strip())
    return tuple(name for name in found if name not in NOT_INSTRUCTIONS)


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
    gpu_offload: bool  # was llama.cpp built for any GPU, whether there is one or not?
    devices: tuple[Device, ...]
    instruction_sets: tuple[str, ...]  # compiled in, in llama.cpp's words: "AVX2", "FMA"
    build: str  # the version of llama-cpp-python


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one token makes the box read and compute, of the weights packed in one way ("Q4_K")."""

    quant: str
    bytes: int
    weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One way to load a model, and its bytes. `steps`: what it gives up of what was asked for, and why."""

    context: int  # of one slot
    kv_type: str
    gpu_layers: int
    model: int  # of the weights that are in RAM
    cache: int
    buffers: int
    ram: int  # all of it, without what the process itself takes
    devices: tuple[int, ...]  # all of it on each GPU, in llama.cpp's order
    twice: int = 0  # of the file, in memory beside its copy in another order; the system takes it back when it is short
    from_disk: bool = False  # larger than what is free: parts of it are read again for every token
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What a model takes, found by a dry load that allocates nothing.

    `asked` is the placement that was asked for, whether it fits or not; `chosen` is what the engine would do now, None
    if nothing fits, and then `refusal` says why. `layers` counts the output too.
    """

    name: str
    architecture: str
    parameters: int
    vocabulary: int
    width: int
    trained: int
    layers: int
    model: int  # bytes of all weights
    slots: int
    process: int  # bytes that the engine takes beside the model: Python, libraries, the vocabulary
    reads: tuple[Read, ...]
    asked: Placement
    chosen: Placement | None
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        """As the box is now: what would be read from disk for every token does not."""
        return self.chosen is not None and not self.chosen.from_disk

    def least(self, machine: Machine) -> int:
        """Bytes of RAM without which it will never fit: hardly a cache, and all GPUs to itself."""
        on_gpus = sum(device.total for device in machine.devices)
        return self.process + self.asked.buffers + max(0, self.model - on_gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast one model really answered: a token after another, and a prompt of many at once."""

    seconds_per_token: float
    prompt_tokens_per_second: float
    others: float = 0.0  # the share of the box that other programs had meanwhile
    served: float | None = None  # seconds per token of an answer of the engine's process, where that was measured
