"""llama.cpp, and the only place that knows it: a model, one context, and sequences in it.

llama.cpp ends the process where Python would raise. So everything is checked here before it is called, and
what it answers is checked afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llama_cpp as llama
import numpy as np

from appliance.engine.cores import cores
from appliance.engine.job import Settings
from appliance.engine.sampling import Logits
from appliance.engine.vocabulary import Ids, Vocabulary

KV_UNIFIED = False
"""One stream of cells per sequence. Decoding is faster this way; sharing a prefix between sequences is not possible."""

LARGEST_STEP = 512
OUTPUTS_PER_SLOT = 9
"""Places per sequence and step whose logits are wanted: a draft of eight tokens, and the one before it."""

KV_TYPES = {"f16": llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0}
WARNING = 3
RANDOM_SEED = 0xFFFFFFFF

_said: deque[str] = deque(maxlen=200)


class LoadError(Exception):
    """The model cannot be served. The sentence names the file, what is wrong with it and what to do."""


class DecodeError(Exception):
    """llama.cpp did not compute this step."""


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


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one sequence to compute, from position `start`; logits are wanted for those from `wanted` on."""

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: int


@llama.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
def _log(level: int, text: bytes, _: Any) -> None:
    line = text.decode("utf-8", "replace").rstrip("\n")
    _said.append(line)
    if level >= WARNING and line.strip(". "):
        print(line, file=sys.stderr, flush=True)


_token_data = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Chain:
    """One request's samplers: top-k, top-p, min-p, temperature, and a draw with its own seed."""

    def __init__(self, settings: Settings) -> None:
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        seed = RANDOM_SEED if settings.seed is None else settings.seed & 0x7FFFFFFF
        for link in (
            llama.llama_sampler_init_top_k(settings.top_k),
            llama.llama_sampler_init_top_p(settings.top_p, 1),
            llama.llama_sampler_init_min_p(settings.min_p, 1),
            llama.llama_sampler_init_temp(settings.temperature),
            llama.llama_sampler_init_dist(seed),
        ):
            llama.llama_sampler_chain_add(self._chain, link)

    def draw(self, ids: Ids, logits: Logits) -> int:
        """One of `ids`, whose logits are given in the same order."""
        table = np.zeros(len(ids), dtype=_token_data)
        table["id"] = ids
        table["logit"] = logits
        place = ctypes.cast(table.ctypes.data, llama.llama_token_data_p)
        candidates = llama.llama_token_data_array(place, len(ids), -1, False)
        llama.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        if not 0 <= candidates.selected < candidates.size:
            raise DecodeError("llama.cpp's samplers drew no token")
        token = int(candidates.data[candidates.selected].id)
        llama.llama_sampler_accept(self._chain, token)
        return token

    def __del__(self) -> None:
        llama.llama_sampler_free(self._chain)


class Model:
    """A loaded model with one context of `slots` sequences, each of `context` tokens."""

    def __init__(self, load: Load, progress: Callable[[float], None] = lambda _: None) -> None:
        llama.llama_log_set(_log, None)
        llama.llama_backend_init()
        check_file(load.path)
        self.path = load.path
        self.context, self.slots = load.context, load.slots
        self.threads = cores() if load.threads == "auto" else load.threads
        self.gpu_offload = bool(llama.llama_supports_gpu_offload())
        self._model, self._context, self.gpu_layers = self._open(load, progress)
        self._memory = llama.llama_get_memory(self._context)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.layers = llama.llama_model_n_layer(self._model)
        self.vocabulary = self._read_vocabulary()
        self.template = _text(llama.llama_model_chat_template(self._model, None))
        self.description = self._about()
        self.instruction_sets = llama.llama_print_system_info().decode("utf-8", "replace").strip()
        self._batch = _Batch(self.largest_step)

    @property
    def largest_step(self) -> int:
        return LARGEST_STEP + self.slots

    def _open(self, load: Load, progress: Callable[[float], None]) -> tuple[Any, Any, int]:
        """The model and its context, with as many layers on the GPU as asked for, or none if they do not fit."""
        wanted = (-1 if load.gpu_layers == "auto" else load.gpu_layers) if self.gpu_offload else 0
        for layers in dict.fromkeys((wanted, 0)):
            _said.clear()
            model = self._open_model(load, layers, progress)
            if model is None:
                problem = why(load.path, list(_said))
            else:
                context = self._open_context(model, load)
                if context is not None:
                    total = llama.llama_model_n_layer(model) + 1
                    return model, context, total if layers < 0 else min(layers, total)
                llama.llama_model_free(model)
                problem = (
                    f"There is not enough memory for {load.slots} slots of {load.context} tokens with the model"
                    f" {load.path}. Make 'context' or 'slots' smaller, or set kv_type = \"q8_0\"."
                )
            if layers != 0:
                print("The model does not fit the GPU; it is loaded without it.", file=sys.stderr)
        raise LoadError(problem)

    def _open_model(self, load: Load, layers: int, progress: Callable[[float], None]) -> Any:
        params = llama.llama_model_default_params()
        params.n_gpu_layers = layers
        params.load_mode = llama.LLAMA_LOAD_MODE_MMAP_MLOCK if load.mlock else llama.LLAMA_LOAD_MODE_AUTO

        @llama.llama_progress_callback  # type: ignore[untyped-decorator,unused-ignore]
        def told(share: float, _: Any) -> bool:
            progress(share)
            return True

        params.progress_callback = told
        return llama.llama_model_load_from_file(os.fsencode(load.path), params)

    def _open_context(self, model: Any, load: Load) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx = load.context * load.slots
        params.n_seq_max = load.slots
        params.n_batch = self.largest_step
        params.n_ubatch = LARGEST_STEP
        params.n_outputs_max = OUTPUTS_PER_SLOT * load.slots
        params.n_threads = params.n_threads_batch = self.threads
        params.kv_unified = KV_UNIFIED
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.type_k = params.type_v = KV_TYPES[load.kv_type]
        params.offload_kqv = True
        params.no_perf = True
        return llama.llama_init_from_model(model, params)

    # ------------------------------------------------------------------------------------------------- text

    def tokenize(self, text: str, *, template: bool = False) -> list[int]:
        """The tokens of `text`. Only in a template are control tokens recognized. Nothing is put in front."""
        letters = text.encode("utf-8", "replace")
        room = len(letters) + 8
        tokens = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self._vocab, letters, len(letters), tokens, room, False, template)
        if count < 0:
            tokens = (ctypes.c_int32 * -count)()
            count = llama.llama_tokenize(self._vocab, letters, len(letters), tokens, -count, False, template)
        return list(tokens[: max(count, 0)])

    def chain(self, settings: Settings) -> Chain:
        return Chain(settings)

    # ---------------------------------------------------------------------------------------------- computing

    def decode(self, rows: Sequence[Row]) -> Logits:
        """Compute `rows`; the wanted logits, in order, valid until the next step."""
        total = sum(len(row.tokens) for row in rows)
        wanted = sum(max(0, row.start + len(row.tokens) - max(row.wanted, row.start)) for row in rows)
        if not 0 < total <= self.largest_step or wanted > OUTPUTS_PER_SLOT * self.slots:
            raise DecodeError(f"a step of {total} tokens and {wanted} outputs is not possible")
        for row in rows:
            if not 0 <= row.slot < self.slots or row.start + len(row.tokens) > self.context:
                raise DecodeError(f"slot {row.slot} has no positions up to {row.start + len(row.tokens)}")
        status = llama.llama_decode(self._context, self._batch.fill(rows))
        if status != 0:
            raise DecodeError({1: "no room in the KV cache", 2: "aborted"}.get(status, f"llama_decode said {status}"))
        if not wanted:
            return np.empty((0, len(self.vocabulary)), dtype=np.float32)
        return np.ctypeslib.as_array(llama.llama_get_logits(self._context), shape=(wanted, len(self.vocabulary)))

    def forget(self, slot: int, start: int = 0) -> None:
        """Drop what is known of the sequence from position `start` on. Raises `DecodeError` if it cannot."""
        if not llama.llama_memory_seq_rm(self._memory, slot, start, -1):
            raise DecodeError(f"the sequence {slot} cannot be rolled back to position {start}")

    # -------------------------------------------------------------------------------------------------- about

    def _about(self) -> Mapping[str, Any]:
        buffer = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self._model, buffer, len(buffer))
        return {
            "name": self._meta("general.name") or Path(self.path).stem,
            "description": _text(buffer.value) or "",
            "bytes": llama.llama_model_size(self._model),
            "parameters": llama.llama_model_n_params(self._model),
            "architecture": self._meta("general.architecture") or "unknown",
            "context_train": llama.llama_model_n_ctx_train(self._model),
        }

    def _meta(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(512)
        length = llama.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return _text(buffer.value) if length >= 0 else None

    def _read_vocabulary(self) -> Vocabulary:
        vocab = self._vocab
        count = llama.llama_vocab_n_tokens(vocab)
        buffer = ctypes.create_string_buffer(1024)
        pieces, ends = [], []
        controls: dict[str, int] = {}
        named: dict[str, int] = {}
        marked = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
        for token in range(count):
            attributes = llama.llama_vocab_get_attr(vocab, token)
            if attributes & marked:
                pieces.append(b"")
                controls[_text(llama.llama_vocab_get_text(vocab, token)) or ""] = token
            else:
                length = llama.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
                pieces.append(buffer.raw[: max(length, 0)])
                if attributes & llama.LLAMA_TOKEN_ATTR_USER_DEFINED:
                    named[_text(llama.llama_vocab_get_text(vocab, token)) or ""] = token
            if llama.llama_vocab_is_eog(vocab, token):
                ends.append(token)
        controls.pop("", None)
        named.pop("", None)
        bos, eos = llama.llama_vocab_bos(vocab), llama.llama_vocab_eos(vocab)
        return Vocabulary(
            pieces=tuple(pieces),
            ends=frozenset(ends),
            controls=controls,
            named=named,
            bos=bos if bos >= 0 else None,
            eos=eos if eos >= 0 else None,
            bos_text=(_text(llama.llama_vocab_get_text(vocab, bos)) or "") if bos >= 0 else "",
            eos_text=(_text(llama.llama_vocab_get_text(vocab, eos)) or "") if eos >= 0 else "",
            add_bos=bool(llama.llama_vocab_get_add_bos(vocab)),
        )


class _Batch:
    """A llama_batch over numpy arrays: filled by slices, not item by item."""

    def __init__(self, size: int) -> None:
        self._token = np.zeros(size, np.int32)
        self._pos = np.zeros(size, np.int32)
        self._count = np.ones(size, np.int32)
        self._slot = np.zeros(size, np.int32)
        self._slot_at = self._slot.ctypes.data + np.arange(size, dtype=np.uintp) * self._slot.itemsize
        self._wanted = np.zeros(size, np.int8)
        self._batch = llama.llama_batch()
        for name, array in (
            ("token", self._token),
            ("pos", self._pos),
            ("n_seq_id", self._count),
            ("seq_id", self._slot_at),
            ("logits", self._wanted),
        ):
            kind = type(getattr(self._batch, name))
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kind))

    def fill(self, rows: Sequence[Row]) -> Any:
        at = 0
        for row in rows:
            end = at + len(row.tokens)
            self._token[at:end] = row.tokens
            self._pos[at:end] = np.arange(row.start, row.start + end - at)
            self._slot[at:end] = row.slot
            first = min(end, at + max(0, row.wanted - row.start))
            self._wanted[at:first] = 0
            self._wanted[first:end] = 1
            at = end
        self._batch.n_tokens = at
        return self._batch


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


def _text(letters: bytes | None) -> str | None:
    return None if letters is None else letters.decode("utf-8", "replace")
