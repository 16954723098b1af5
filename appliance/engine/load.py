"""How a model is opened: llama.cpp's loading half, and a sentence for whatever goes wrong."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llama_cpp as llama
import psutil
from llama_cpp import _ggml as ggml

from appliance.engine.cores import cores
from appliance.engine.memory import Line, Need, NoRoom, Room, Rung, Sizes, ladder

KV_UNIFIED = False
"""One stream of cells per sequence. Decoding is faster this way (bench/layouts.py); a prefix is shared by copying a
whole sequence."""

LARGEST_STEP = 512
OUTPUTS_PER_SLOT = 9
"""Places per sequence and step whose logits are wanted: a draft of eight tokens, and the one before it."""

KV_TYPES = {"f16": llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0}
DEBUG, WARNING = 1, 3
GPU, INTEGRATED_GPU = 1, 2

TRIALS = (1024, 4096)
BYTES_PER_CELL = 64
"""What llama.cpp remembers about a cell of the cache, next to what is in it: measured at 50."""

_CACHE = re.compile(r"^llama_(?:kv_cache|memory_recurrent)\w*: size = +([0-9.]+) MiB")
_BUFFER = re.compile(r"(\w+) +(?:compute|output) buffer size = +([0-9.]+) MiB")


class LoadError(Exception):
    """The model cannot be served. The sentence names the file, what is wrong with it and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the service asks for: see the load frame."""

    path: str
    context: int
    slots: int
    gpu_layers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    kv_type: str = "f16"
    mlock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was loaded, and how: `context` may be smaller than asked for; `steps` says what was given up, and why.

    `rolls_back` is False if a sequence cannot forget its end (a state per sequence, not a cell per token). `window` is
    how far the layers that see least look back, 0 if the cache keeps everything.
    """

    model_pointer: Any
    context_pointer: Any
    context: int
    threads: int
    gpu_layers: int
    kv_type: str
    rolls_back: bool
    window: int
    steps: tuple[str, ...] = ()


class _Log:
    """What llama.cpp says: kept, and its warnings told, unless they are about a trial."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=2000)
        self.quiet = False

    def take(self, level: int, line: str) -> None:
        if level == DEBUG or not line.strip(". "):
            return
        self.lines.append(line)
        if level >= WARNING and not self.quiet:
            print(line, file=sys.stderr, flush=True)


_said = _Log()


@llama.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
def _log(level: int, text: bytes, _: Any) -> None:
    _said.take(level, text.decode("utf-8", "replace").rstrip("\n"))


def largest_step(slots: int) -> int:
    """How many tokens one call of `llama_decode` may carry."""
    return LARGEST_STEP + slots


def open_model(load: Load, progress: Callable[[float], None] = lambda _: None, *, room: Room | None = None) -> Opened:
    """The model and its context in memory, as asked for or as near to it as fits. Raises `LoadError`."""
    check_file(load.path)
    threads = cores() if load.threads == "auto" else load.threads
    sizes = measure(load, threads)
    asked = Rung(context=load.context, kv_type=load.kv_type, gpu_layers=_wanted_layers(load, sizes))
    try:
        rungs = ladder(asked, sizes, room or free_room())
    except NoRoom as error:
        raise LoadError(
            f"{load.path} cannot be loaded: {error}. Choose a smaller model or fewer 'slots', or free memory."
        ) from error
    model: Any = None
    mapped: int | None = None  # as loaded: with so many layers on the GPU
    for rung in rungs:
        if mapped != rung.gpu_layers:
            if model is not None:
                llama.llama_model_free(model)
            _said.lines.clear()
            model, mapped = _open_model(load, rung.gpu_layers, progress), rung.gpu_layers
        context = model and _open_context(model, load, rung, threads)
        if context:
            steps = rung.steps + _unlocked(load, sizes)
            for step in steps:
                print(step, file=sys.stderr, flush=True)
            return Opened(
                model_pointer=model,
                context_pointer=context,
                context=rung.context,
                threads=threads,
                gpu_layers=rung.gpu_layers,
                kv_type=rung.kv_type,
                rolls_back=not (llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model)),
                window=0 if rung.whole_window else llama.llama_model_n_swa(model),
                steps=steps,
            )
    if model is None:
        raise LoadError(why(load.path, list(_said.lines)))
    llama.llama_model_free(model)
    raise LoadError(
        f"There is not enough memory for {load.slots} slots with the model {load.path}, even for {rungs[-1].context:,}"
        " tokens in each. Choose a smaller model or fewer 'slots', or free memory."
    )


def _wanted_layers(load: Load, sizes: Sizes) -> int:
    if not llama.llama_supports_gpu_offload():
        return 0
    return sizes.layers if load.gpu_layers == "auto" or load.gpu_layers < 0 else load.gpu_layers


def _unlocked(load: Load, sizes: Sizes) -> tuple[str, ...]:
    if not load.mlock or not any("failed to mlock" in line or "mlock not supported" in line for line in _said.lines):
        return ()
    return (
        "The model is not locked in memory: the system does not allow it. Raise its memlock limit"
        f" (ulimit -l) to {sizes.model // 1024:,} KiB, or set mlock = false.",
    )


def _open_model(load: Load, layers: int, progress: Callable[[float], None]) -> Any:
    params = llama.llama_model_default_params()
    params.n_gpu_layers = layers
    params.load_mode = llama.LLAMA_LOAD_MODE_MMAP_MLOCK if load.mlock else llama.LLAMA_LOAD_MODE_AUTO

    @llama.llama_progress_callback  # type: ignore[untyped-decorator,unused-ignore]
    def told(share: float, _: Any) -> bool:
        progress(share)
        return True

    params.progress_callback = told
    return llama.llama_model_load_from_file(os.fsencode(load.path), params)


def _open_context(model: Any, load: Load, rung: Rung, threads: int) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = rung.context * load.slots
    params.n_seq_max = load.slots
    params.n_batch = largest_step(load.slots)
    params.n_ubatch = LARGEST_STEP
    params.n_outputs_max = OUTPUTS_PER_SLOT * load.slots
    params.n_threads = params.n_threads_batch = threads
    params.n_rs_seq = 0  # its snapshots are of the last step only, and going back to an older one is silently wrong
    params.kv_unified = KV_UNIFIED
    params.swa_full = rung.whole_window
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.type_k = params.type_v = KV_TYPES[rung.kv_type]
    params.offload_kqv = True
    params.no_perf = True
    return llama.llama_init_from_model(model, params)


# --------------------------------------------------------------------------------------------- what it will need


def measure(load: Load, threads: int = 1) -> Sizes:
    """What the model needs, by opening it without allocating anything. Raises `LoadError` if it is no model."""
    # Never at the size asked for: what llama.cpp remembers about each cell is really allocated, 50 bytes each, and
    # for a context of 99,999,999 that alone is 20 GB. Two small sizes give the line that the others are on.
    llama.llama_log_set(_log, None)
    llama.llama_backend_init()
    params = llama.llama_model_default_params()
    params.no_alloc = True
    params.load_mode = llama.LLAMA_LOAD_MODE_NONE  # with any other, no_alloc ends the process
    params.n_gpu_layers = 0 if load.gpu_layers == 0 else -1
    _said.lines.clear()
    _said.quiet = True
    try:
        model = llama.llama_model_load_from_file(os.fsencode(load.path), params)
        if model is None:
            raise LoadError(why(load.path, list(_said.lines)))
        try:
            windows = (True, False) if llama.llama_model_n_swa(model) else (True,)
            rows = ((kv_type, whole) for kv_type in KV_TYPES for whole in windows)
            needs = {row: need for row in rows if (need := _need(model, load, threads, *row))}
            return Sizes(
                model=llama.llama_model_size(model),
                layers=llama.llama_model_n_layer(model) + 1,
                trained=llama.llama_model_n_ctx_train(model),
                needs=needs or {("f16", True): Need(cache=Line())},  # then llama.cpp has the last word
            )
        finally:
            llama.llama_model_free(model)
    finally:
        _said.quiet = False


def _need(model: Any, load: Load, threads: int, kv_type: str, whole: bool) -> Need | None:
    bytes_at = {}
    for context in TRIALS:
        _said.lines.clear()
        rung = Rung(context=context, kv_type=kv_type, gpu_layers=0, whole_window=whole)
        opened = _open_context(model, load, rung, threads)
        if opened is None:
            return None
        llama.llama_free(opened)
        cells = context * load.slots * BYTES_PER_CELL
        bytes_at[context] = cache_of(_said.lines), cells + buffers_of(_said.lines)[0], buffers_of(_said.lines)[1]
    first, second = TRIALS
    cache, host, device = (
        Line.through((first, bytes_at[first][part]), (second, bytes_at[second][part])) for part in range(3)
    )
    return Need(cache=cache, host=host, device=device)


def cache_of(said: Iterable[str]) -> int:
    """The bytes of all caches that llama.cpp announced."""
    return sum(round(float(found[1]) * 2**20) for line in said if (found := _CACHE.search(line)))


def buffers_of(said: Iterable[str]) -> tuple[int, int]:
    """The bytes of the buffers for computing that llama.cpp announced: in RAM, and on GPUs."""
    host = device = 0
    for line in said:
        if found := _BUFFER.search(line):
            size = round(float(found[2]) * 2**20)
            # CPU, CPU_REPACK, and the pinned memory of a GPU's driver (CUDA_Host) are RAM.
            if found[1].startswith("CPU") or found[1].endswith("_Host"):
                host += size
            else:
                device += size
    return host, device


# ---------------------------------------------------------------------------------------------------- what is free


def free_room() -> Room:
    """What is free now: in RAM, in this process's limits and its container's, and on the GPUs."""
    free = [int(psutil.virtual_memory().available)]
    with contextlib.suppress(OSError):
        free += cgroup_room(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup").read_text("ascii"))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        free.append(max(0, limit - int(psutil.Process().memory_info().vms)))
    return Room(ram=min(free), device=_device_room())


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


def _device_room() -> int | None:
    """The free memory of all GPUs together, None if there is none. llama_cpp has no names for these functions."""
    if not llama.llama_supports_gpu_offload():
        return None
    total = 0
    try:
        library = ggml.libggml
        library.ggml_backend_dev_get.restype = library.ggml_backend_dev_count.restype = ctypes.c_size_t
        for place in range(library.ggml_backend_dev_count()):
            device = ctypes.c_void_p(library.ggml_backend_dev_get(ctypes.c_size_t(place)))
            if library.ggml_backend_dev_type(device) in (GPU, INTEGRATED_GPU):
                free, all_of_it = ctypes.c_size_t(), ctypes.c_size_t()
                library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(all_of_it))
                total += free.value
    except AttributeError:  # another build: then llama.cpp finds out itself, and the ladder goes on below
        return None
    return total or None


# ------------------------------------------------------------------------------------------------ what is wrong


def check_file(path: str) -> None:
    """Raises `LoadError` for what can be told without llama.cpp."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except IsADirectoryError as error:
        raise LoadError(f"{path} is a folder, not a GGUF file. Name the file in it.") from error
    except FileNotFoundError as error:
        raise LoadError(f"The model file {path} does not exist. Fetch it, or name another in 'model'.") from error
    except OSError as error:
        raise LoadError(f"The model file {path} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise LoadError(f"{path} is not a GGUF file: it does not begin with the letters GGUF. Fetch it again.")


def why(path: str, said: Sequence[str]) -> str:
    """One sentence out of what llama.cpp said while it failed to load `path`."""
    errors = [line.strip() for line in said if line.strip()]
    for line in errors:
        if "within the file bounds" in line:
            return f"{path} is truncated: it is shorter ({_size(path)}) than its own header claims. Fetch it again."
        if "unknown model architecture" in line:
            name = line.rpartition("architecture:")[2].strip(" '\"")
            return f"{path} is a model of the kind '{name}', which this llama.cpp does not know. Choose another model."
    for line in errors:
        if "gguf_init" in line or "failed to read" in line:
            return f"{path} is damaged or truncated ({_size(path)}): its header cannot be read. Fetch it again."
    last = next((line for line in reversed(errors) if "error" in line.lower() or "fail" in line.lower()), "no reason")
    return f"{path} cannot be loaded; llama.cpp says: {last}."


def _size(path: str) -> str:
    with contextlib.suppress(OSError):
        return f"{os.path.getsize(path):,} bytes"
    return "of unknown size"
