"""What is there to compute on, and how much memory is free: in RAM, in this process's limits, and on each GPU?"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import llama_cpp as llama
import psutil
from llama_cpp.llama_cpp import _lib as library  # it finds what it is linked to as well: ggml, its backends

from appliance.core.machine import Device
from appliance.engine.memory import Room

# ggml_backend_dev_type: 0 is the CPU itself, 3 a library that computes in the CPU's own memory (BLAS, AMX).
KINDS: Mapping[int, Literal["gpu", "integrated"]] = {1: "gpu", 2: "integrated"}


def devices() -> tuple[Device, ...]:
    """The GPUs that llama.cpp would compute on, in its order. llama_cpp has no names for these functions."""
    if not llama.llama_supports_gpu_offload():
        return ()
    llama.llama_backend_init()
    found = []
    with contextlib.suppress(AttributeError):  # another build: then llama.cpp finds out itself, and the ladder goes on
        library.ggml_backend_dev_count.restype = ctypes.c_size_t
        library.ggml_backend_dev_get.restype = ctypes.c_void_p
        library.ggml_backend_dev_name.restype = library.ggml_backend_dev_description.restype = ctypes.c_char_p
        for place in range(library.ggml_backend_dev_count()):
            device = ctypes.c_void_p(library.ggml_backend_dev_get(ctypes.c_size_t(place)))
            kind = KINDS.get(library.ggml_backend_dev_type(device))
            if kind:
                free, total = ctypes.c_size_t(), ctypes.c_size_t()
                library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
                name, description = library.ggml_backend_dev_name(device), library.ggml_backend_dev_description(device)
                found.append(
                    Device(
                        name=(name or b"?").decode("utf-8", "replace"),
                        description=(description or b"").decode("utf-8", "replace"),
                        kind=kind,
                        total=total.value,
                        free=free.value,
                    )
                )
    return computed_on(found)


# Backends that compute on the CPU, or on another box.
NO_GPU = frozenset({"CPU", "BLAS", "RPC"})


def gpu_offload() -> bool:
    """Was llama.cpp built for any GPU? `llama_supports_gpu_offload` says no of such a build, too, where there is no GPU
    or its driver does not answer."""
    with contextlib.suppress(AttributeError):
        library.ggml_backend_reg_count.restype = ctypes.c_size_t
        library.ggml_backend_reg_get.restype = ctypes.c_void_p
        library.ggml_backend_reg_name.restype = ctypes.c_char_p
        backends = (
            library.ggml_backend_reg_get(ctypes.c_size_t(place)) for place in range(library.ggml_backend_reg_count())
        )
        names = {
            (library.ggml_backend_reg_name(ctypes.c_void_p(one)) or b"CPU").decode("ascii", "replace")
            for one in backends
        }
        return not names <= NO_GPU
    return bool(llama.llama_supports_gpu_offload())


def computed_on(found: list[Device]) -> tuple[Device, ...]:
    """llama.cpp leaves an integrated GPU alone where there is a real one."""
    return tuple(device for device in found if device.kind == "gpu") or tuple(found[:1])


NODES = {"/dev/nvidia0": "an NVIDIA GPU", "/dev/kfd": "an AMD GPU"}


def idle_gpu(found: Sequence[Device], *, offload: bool, nodes: Mapping[str, str] = NODES) -> str | None:
    """A sentence, if there is a GPU and nobody can compute on it: the most common reason for a slow box."""
    if found:
        return None
    if offload:
        return "llama.cpp was built for a GPU and finds none, so the CPU computes: look whether its driver is loaded."
    cards = [card for node, card in nodes.items() if Path(node).exists()]
    if not cards:
        return None
    return f"This box has {cards[0]} and llama.cpp was built without it, so the CPU computes: install a build for it."


def free_room() -> Room:
    """What is free now."""
    free = [int(psutil.virtual_memory().available)]
    with contextlib.suppress(OSError):
        free += cgroup_room(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup").read_text("ascii"))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - int(psutil.Process().memory_info().vms)))
    found = devices()
    # One that does not say how much it has is tried with everything; llama.cpp then has the last word.
    told = all(device.total for device in found)
    return Room(ram=min(free), devices=tuple(device.free for device in found) if told else ())


def cgroup_room(root: Path, own: str) -> Iterator[int]:
    """What the container, the service or the slice may still use, for both generations of cgroups; nothing if they
    are not limited. `own` is /proc/self/cgroup."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, tree = ("memory.max", "memory.current", "inactive_file"), root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            tree = root / "memory"
        else:
            continue
        place = tree / path.strip("/")
        # In a container the path may be one of the host, which is not to be seen here; the tree's root is ours then.
        for group in dict.fromkeys((place, *place.parents)):
            if group.is_relative_to(tree):
                with contextlib.suppress(OSError, ValueError):
                    yield _group_room(group, *names)


def _group_room(group: Path, limit: str, usage: str, cache: str) -> int:
    most = int((group / limit).read_text("ascii"))  # "max" is no number: no limit
    used = int((group / usage).read_text("ascii"))
    pages = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
    return max(0, most - used + int(pages.get(cache, 0)))  # pages of files are given back when they are needed
