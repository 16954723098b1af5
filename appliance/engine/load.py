"""How a model is opened: llama.cpp's loading half, and a sentence for whatever goes wrong."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import llama_cpp as llama

from appliance.core.machine import Device
from appliance.engine.cores import cores
from appliance.engine.devices import devices, free_room, gpu_offload, idle_gpu
from appliance.engine.memory import Growth, Need, NoRoom, Room, Rung, Sizes, ladder, spread
from appliance.engine.tables import ends_of, read_head, repacked_of

KV_UNIFIED = False
"""One stream of cells per sequence. Decoding is faster this way (bench/layouts.py); a prefix is shared by copying a
whole sequence."""

LARGEST_STEP = 512
OUTPUTS_PER_SLOT = 9
"""Places per sequence and step whose logits are wanted: a draft of eight tokens, and the one before it."""

KV_TYPES = {"f16": llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0}
DEBUG, WARNING = 1, 3

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
    devices: tuple[Device, ...] = ()
    split: tuple[int, ...] = ()  # how many of its layers are on each of them
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
    threads = threads_of(load)
    sizes = measure(load)
    room = room or free_room()
    rungs = plan(load, sizes, room)
    model: Any = None
    mapped: tuple[int, bool] | None = None  # as loaded: with so many layers on the GPU, and copies for the CPU
    for rung in rungs:
        if mapped != (rung.gpu_layers, rung.repacks):
            if model is not None:
                llama.llama_model_free(model)
            _said.lines.clear()
            model, mapped = _open_model(load, rung, progress), (rung.gpu_layers, rung.repacks)
        context = model and _open_context(model, load, rung, threads)
        if context:
            found = devices()  # what is free on them now
            steps = rung.steps + _unlocked(load, sizes)
            if load.gpu_layers != 0 and (said := idle_gpu(found, offload=gpu_offload())):
                steps += (said,)
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
                devices=found,
                split=spread(rung.gpu_layers, room.devices or [1] * len(found)),
                steps=steps,
            )
    if model is None:
        raise LoadError(why(load.path, list(_said.lines)))
    llama.llama_model_free(model)
    raise LoadError(
        f"There is not enough memory for {load.slots} slots with the model {load.path}, even for {rungs[-1].context:,}"
        " tokens in each. Choose a smaller model or fewer 'slots', or free memory."
    )


def threads_of(load: Load) -> int:
    return cores() if load.threads == "auto" else load.threads


def asked_of(load: Load, sizes: Sizes) -> Rung:
    """What was asked for, as a way to load the model."""
    layers = sizes.layers if load.gpu_layers == "auto" or load.gpu_layers < 0 else load.gpu_layers
    return Rung(
        context=load.context,
        kv_type=load.kv_type,
        gpu_layers=min(layers, sizes.layers) if llama.llama_supports_gpu_offload() else 0,
    )


def plan(load: Load, sizes: Sizes, room: Room) -> tuple[Rung, ...]:
    """The ways to load it that should fit, the best first. Raises `LoadError`."""
    try:
        return ladder(asked_of(load, sizes), sizes, room)
    except NoRoom as error:
        raise LoadError(
            f"{load.path} cannot be loaded: {error}. Choose a smaller model or fewer 'slots', or free memory."
        ) from error


def _unlocked(load: Load, sizes: Sizes) -> tuple[str, ...]:
    if not load.mlock or not any("failed to mlock" in line or "mlock not supported" in line for line in _said.lines):
        return ()
    return (
        "The model is not locked in memory: the system does not allow it. Raise its memlock limit"
        f" (ulimit -l) to {sizes.model // 1024:,} KiB, or set mlock = false.",
    )


def _open_model(load: Load, rung: Rung, progress: Callable[[float], None]) -> Any:
    params = llama.llama_model_default_params()
    params.n_gpu_layers = rung.gpu_layers
    params.use_extra_bufts = rung.repacks
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


def measure(load: Load) -> Sizes:
    """What the model needs, by opening it without allocating anything. Raises `LoadError` if it is no model."""
    # Never at the size asked for: what llama.cpp remembers about each cell is really allocated, 50 bytes each, and
    # for a context of 99,999,999 that alone is 20 GB. Two small sizes give the line that the others are on.
    check_file(load.path)
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
            needs = {row: need for row in rows if (need := _need(model, load, *row))}
            found = read_head(load.path).tables
            ends = ends_of(found)
            return Sizes(
                model=llama.llama_model_size(model),
                layers=llama.llama_model_n_layer(model) + 1,
                trained=llama.llama_model_n_ctx_train(model),
                needs=needs or {("f16", True): Need(cache=Growth())},  # then llama.cpp has the last word
                input=ends.input,
                output=ends.output,
                tied=ends.tied,
                repacked=repacked_of(found),
            )
        finally:
            llama.llama_model_free(model)
    finally:
        _said.quiet = False


def _need(model: Any, load: Load, kv_type: str, whole: bool) -> Need | None:
    bytes_at = {}
    for context in TRIALS:
        _said.lines.clear()
        rung = Rung(context=context, kv_type=kv_type, gpu_layers=0, whole_window=whole)
        opened = _open_context(model, load, rung, threads_of(load))
        if opened is None:
            return None
        llama.llama_free(opened)
        cells = context * load.slots * BYTES_PER_CELL
        bytes_at[context] = cache_of(_said.lines), cells + buffers_of(_said.lines)[0], buffers_of(_said.lines)[1]
    first, second = TRIALS
    cache, host, device = (
        Growth.through((first, bytes_at[first][part]), (second, bytes_at[second][part])) for part in range(3)
    )
    return Need(cache=cache, host=host, device=device)


def cache_of(said: Iterable[str]) -> int:
    """The bytes of all caches that llama.cpp announced."""
    return sum(round(float(found[1]) * 2**20) for line in said if (found := _CACHE.search(line)))


def buffers_of(said: Iterable[str]) -> tuple[int, int]:
    """The bytes of the buffers for computing that llama.cpp announced: in RAM, and on that GPU that needs most."""
    host = 0
    devices: dict[str, int] = defaultdict(int)
    for line in said:
        if found := _BUFFER.search(line):
            size = round(float(found[2]) * 2**20)
            # CPU, CPU_REPACK, and the pinned memory of a GPU's driver (CUDA_Host) are RAM.
            if found[1].startswith("CPU") or found[1].endswith("_Host"):
                host += size
            else:
                devices[found[1]] += size
    return host, max(devices.values(), default=0)


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
    told = [line for line in errors if "error" in line.lower() or "fail" in line.lower()]
    # Its last word is always that it failed.
    last = next((line for line in reversed(told) if not line.endswith("failed to load model")), "no reason")
    return f"{path} cannot be loaded; llama.cpp says: {last}."


def _size(path: str) -> str:
    with contextlib.suppress(OSError):
        return f"{os.path.getsize(path):,} bytes"
    return "of unknown size"
