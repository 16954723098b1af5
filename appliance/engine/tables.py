"""Which tables of weights are in a model file, how are they packed, and which of them does a token need?"""

from __future__ import annotations

import ctypes
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from llama_cpp.llama_cpp import _lib as library  # it finds what it is linked to as well: ggml

from appliance.core.machine import Read

INPUT, OUTPUT, EXPERTS = "token_embd.weight", "output.weight", "_exps."
_UINT32, _STRING, _ARRAY = 4, 8, 9  # gguf_type
_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: str
    quant: str  # as ggml calls it, in capitals: "Q4_K"
    bytes: int
    weights: int
    lengths: tuple[int, ...]  # of a row, then how many rows, then how many of those
    code: int = 0  # ggml's number of the quant


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """The bytes of the tables at both ends of a model: which may be the same one."""

    input: int
    output: int
    tied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands in front of the weights. `experts` is the share of them that a token goes to."""

    name: str
    architecture: str
    vocabulary: int
    width: int
    merges: int
    experts: float
    tables: tuple[Table, ...]


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def read_head(path: str) -> Head:
    """The file and its other parts, as ggml's own reader finds them. llama_cpp has no names for these functions."""
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _Params]
    for name in ("get_tensor_name", "get_val_str"):
        getattr(library, f"gguf_{name}").restype = ctypes.c_char_p
    library.ggml_type_name.restype = ctypes.c_char_p
    for name in ("get_n_tensors", "find_key"):
        getattr(library, f"gguf_{name}").restype = ctypes.c_int64
    library.ggml_blck_size.restype = ctypes.c_int64
    for name in ("gguf_get_tensor_size", "gguf_get_arr_n", "ggml_type_size"):
        getattr(library, name).restype = ctypes.c_size_t
    library.gguf_get_val_u32.restype = ctypes.c_uint32
    library.gguf_get_tensor_ne.restype = ctypes.POINTER(ctypes.c_int64)
    heads = [head for part in parts(path) if (head := _read(library, part)) is not None]
    if not heads:
        return Head(name="", architecture="unknown", vocabulary=0, width=0, merges=0, experts=1.0, tables=())
    return replace(heads[0], tables=tuple(table for head in heads for table in head.tables))


def parts(path: str) -> list[str]:
    """The files of a model that is cut into several."""
    found = _PART.search(path)
    if found is None:
        return [path]
    stem, total = path[: found.start()], int(found[1])
    names = [f"{stem}-{part:05d}-of-{total:05d}.gguf" for part in range(1, total + 1)]
    return [name for name in names if Path(name).is_file()]


def _read(library: Any, path: str) -> Head | None:
    file = ctypes.c_void_p(library.gguf_init_from_file(os.fsencode(path), _Params(True, None)))
    if not file.value:
        return None

    def key(name: str, kind: int) -> ctypes.c_int64 | None:
        at = ctypes.c_int64(library.gguf_find_key(file, name.encode()))
        # Asked for as another kind than it is, ggml ends the process.
        return at if at.value >= 0 and library.gguf_get_kv_type(file, at) == kind else None

    def text(name: str) -> str:
        at = key(name, _STRING)
        return "" if at is None else (library.gguf_get_val_str(file, at) or b"").decode("utf-8", "replace")

    def number(name: str) -> int:
        at = key(name, _UINT32)
        return 0 if at is None else library.gguf_get_val_u32(file, at)

    def length(name: str) -> int:
        at = key(name, _ARRAY)
        return 0 if at is None else library.gguf_get_arr_n(file, at)

    try:
        architecture = text("general.architecture")
        experts, used = (number(f"{architecture}.expert_{what}") for what in ("count", "used_count"))
        return Head(
            name=text("general.name"),
            architecture=architecture or "unknown",
            vocabulary=length("tokenizer.ggml.tokens"),
            merges=length("tokenizer.ggml.merges"),
            width=number(f"{architecture}.embedding_length"),
            experts=used / experts if 0 < used < experts else 1.0,
            tables=tuple(_tables(library, file)),
        )
    finally:
        library.gguf_free(file)


def _tables(library: Any, file: ctypes.c_void_p) -> Iterator[Table]:
    for place in range(library.gguf_get_n_tensors(file)):
        at = ctypes.c_int64(place)
        kind, size = library.gguf_get_tensor_type(file, at), library.gguf_get_tensor_size(file, at)
        yield Table(
            name=(library.gguf_get_tensor_name(file, at) or b"").decode("utf-8", "replace"),
            quant=(library.ggml_type_name(kind) or b"?").decode("ascii", "replace").upper(),
            bytes=size,
            weights=size // library.ggml_type_size(kind) * library.ggml_blck_size(kind),
            lengths=tuple(library.gguf_get_tensor_ne(file, at)[:3]),
            code=kind,
        )


def ends_of(found: Sequence[Table]) -> Ends:
    sizes = {table.name: table.bytes for table in found}
    given = sizes.get(INPUT, 0)
    return Ends(input=given, output=sizes.get(OUTPUT, given), tied=OUTPUT not in sizes)


def reads_of(found: Sequence[Table], *, experts: float = 1.0) -> tuple[Read, ...]:
    """What is read and computed for one token, a row for each way of packing. `experts` is the share of them in use.

    Of the table that words come in through a token needs one row, unless it is the output as well.
    """
    whole = {table.name for table in found}
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for table in found:
        if table.name == INPUT and OUTPUT in whole:
            continue
        share = experts if EXPERTS in table.name else 1.0
        sums[table.quant][0] += share * table.bytes
        sums[table.quant][1] += share * table.weights
    return tuple(
        Read(quant=quant, bytes=round(size), weights=round(weights)) for quant, (size, weights) in sorted(sums.items())
    )


# ------------------------------------------------------------------------------------------- what is packed anew


class _Memory(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _Tensor(ctypes.Structure):
    """The beginning of a ggml_tensor."""

    _fields_ = (("type", ctypes.c_int), ("buffer", ctypes.c_void_p))


def repacked_of(found: Sequence[Table]) -> int:
    """The bytes of the tables that llama.cpp copies into memory of its own, in an order that this CPU likes better.

    For each it asks the CPU's backend as llama.cpp does when it loads (`weight_buft_supported`). The answer hangs on
    the packing, the CPU and the build: Q4_K is copied where there is AVX2.
    """
    for name in (
        "backend_dev_by_type", "backend_dev_backend_reg", "backend_reg_get_proc_address", "init", "new_tensor_2d",
        "mul_mat", "backend_buft_alloc_buffer",
    ):  # fmt: skip
        getattr(library, f"ggml_{name}").restype = ctypes.c_void_p
    library.ggml_init.argtypes = [_Memory]
    library.ggml_backend_dev_supports_op.restype = ctypes.c_bool
    cpu = ctypes.c_void_p(library.ggml_backend_dev_by_type(0))
    registry = ctypes.c_void_p(library.ggml_backend_dev_backend_reg(cpu))
    address = library.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return 0
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(cpu)
    own = list(takewhile(bool, (kinds[place] for place in count()))) if kinds else []
    likes = {key: any(_likes(library, cpu, kind, *key) for kind in own) for key in {_key(table) for table in found}}
    whole = {table.name for table in found}
    return sum(
        table.bytes
        for table in found
        if likes[_key(table)] and table.name.endswith(".weight") and not (table.name == INPUT and OUTPUT in whole)
    )


def _key(table: Table) -> tuple[int, int, int]:
    return table.code, table.lengths[0], table.lengths[1]


def _likes(library: Any, cpu: ctypes.c_void_p, kind: int, code: int, width: int, rows: int) -> bool:
    if rows == 1:
        return False
    memory = ctypes.c_void_p(library.ggml_init(_Memory(16384, None, True)))
    buffer = ctypes.c_void_p(library.ggml_backend_buft_alloc_buffer(ctypes.c_void_p(kind), ctypes.c_size_t(0)))
    try:
        size = (ctypes.c_int64(width), ctypes.c_int64(rows))
        table = ctypes.c_void_p(library.ggml_new_tensor_2d(memory, code, *size))
        given = ctypes.c_void_p(library.ggml_new_tensor_2d(memory, 0, size[0], ctypes.c_int64(512)))
        _Tensor.from_address(table.value or 0).buffer = buffer
        product = ctypes.c_void_p(library.ggml_mul_mat(memory, table, given))
        return bool(library.ggml_backend_dev_supports_op(cpu, product))
    finally:
        library.ggml_backend_buffer_free(buffer)
        library.ggml_free(memory)
