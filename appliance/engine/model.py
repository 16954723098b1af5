"""llama.cpp, and the only place that knows it: a model, one context, and sequences in it.

llama.cpp ends the process where Python would raise. So everything is checked here before it is called, and
what it answers is checked afterwards.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from appliance.engine.devices import gpu_offload
from appliance.engine.job import Settings
from appliance.engine.load import OUTPUTS_PER_SLOT, Load, largest_step, open_model
from appliance.engine.prefixes import MOST_MARKS
from appliance.engine.sampling import Logits
from appliance.engine.vocabulary import Ids, Vocabulary

RANDOM_SEED = 0xFFFFFFFF
PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class DecodeError(Exception):
    """llama.cpp did not compute this step."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of one sequence to compute, from position `start`; logits are wanted for those from `wanted` on."""

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: int


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
        opened = open_model(load, progress)
        self.path, self.slots, self.context = load.path, load.slots, opened.context
        self.threads, self.gpu_layers, self.steps = opened.threads, opened.gpu_layers, opened.steps
        self.gpu_offload = gpu_offload()
        self._model, self._context = opened.model_pointer, opened.context_pointer
        self._memory = llama.llama_get_memory(self._context)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.layers = llama.llama_model_n_layer(self._model) + 1  # as llama.cpp counts them: with the output
        self.kv_type, self.devices, self.split = opened.kv_type, opened.devices, opened.split
        self.vocabulary = self._read_vocabulary()
        self.template = _text(llama.llama_model_chat_template(self._model, None))
        self.description = self._about()
        self.instruction_sets = system()
        self._batch = _Batch(self.largest_step)
        self._saved: list[dict[int, Any]] = [{} for _ in range(self.slots)]
        self._window = opened.window
        self.rewinds = opened.rolls_back and not opened.window and self._can_rewind()

    @property
    def largest_step(self) -> int:
        return largest_step(self.slots)

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

    # ----------------------------------------------------------------------------------------------- sequences

    def forget(self, slot: int) -> None:
        """Drop all that the sequence holds."""
        self._saved[slot] = {}
        if not llama.llama_memory_seq_rm(self._memory, slot, -1, -1):
            raise DecodeError(f"the sequence {slot} cannot be emptied")

    def rewind(self, slot: int, position: int) -> int:
        """Go back to `position`, or to the last one before it that this model can go back to: where it is now."""
        held = llama.llama_memory_seq_pos_max(self._memory, slot) + 1
        self._saved[slot] = {at: state for at, state in self._saved[slot].items() if at <= position}
        if position == held:
            return position
        if 0 < position < held and self.rewinds:
            if llama.llama_memory_seq_rm(self._memory, slot, position, -1):
                return position
        elif 0 < position < held and self._saved[slot]:
            position = max(self._saved[slot])
            if self._restore(slot, position):
                return position
        self.forget(slot)
        return 0

    def copy(self, source: int, target: int) -> None:
        """Let `target` hold what `source` holds. The next step does the work."""
        # Only whole sequences can be copied between streams: anything else ends the process.
        if source == target or not (0 <= source < self.slots and 0 <= target < self.slots):
            raise DecodeError(f"the sequence {source} cannot be copied to {target}")
        self.forget(target)
        llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        end = llama.llama_memory_seq_pos_max
        if end(self._memory, source) != end(self._memory, target):
            self.forget(target)
            raise DecodeError(f"the sequence {source} was not copied to {target}")
        # A window's cells would be overwritten by the copy, which is done later.
        self._saved[target] = {} if self._window else dict(self._saved[source])

    def save(self, slot: int) -> None:
        """Remember the part of the sequence's state that cannot be rewound, so that it can come back to here."""
        position = llama.llama_memory_seq_pos_max(self._memory, slot) + 1
        size = llama.llama_state_seq_get_size_ext(self._context, slot, PARTIAL)
        state = (ctypes.c_uint8 * size)()
        if size and llama.llama_state_seq_get_data_ext(self._context, state, size, slot, PARTIAL) == size:
            kept = dict(sorted(self._saved[slot].items())[-MOST_MARKS + 1 :])
            self._saved[slot] = kept | {position: state}

    def _restore(self, slot: int, position: int) -> bool:
        state = self._saved[slot][position]
        if not llama.llama_state_seq_set_data_ext(self._context, state, len(state), slot, PARTIAL):
            return False
        # What is not part of that state, the attention's cells of a hybrid, goes back as usual.
        if not llama.llama_memory_seq_rm(self._memory, slot, position, -1):
            return False
        return bool(llama.llama_memory_seq_pos_max(self._memory, slot) + 1 == position)

    def _can_rewind(self) -> bool:
        """Can a sequence go back to any position? Some kinds of memory are known not to; the others are asked."""
        self.decode([Row(0, 0, [self.vocabulary.bos or 0] * 4, 4)])
        can = bool(llama.llama_memory_seq_rm(self._memory, 0, 2, -1))
        self.forget(0)
        return can

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
        swallows: set[str] = set()
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
            if attributes & llama.LLAMA_TOKEN_ATTR_LSTRIP:
                swallows.add(_text(llama.llama_vocab_get_text(vocab, token)) or "")
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
            swallows=frozenset(swallows),
        )


def system() -> str:
    """How llama.cpp was built, in its own words: "CPU : AVX2 = 1 | FMA = 1 | ..."."""
    return _text(llama.llama_print_system_info().strip()) or ""


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


def _text(letters: bytes | None) -> str | None:
    return None if letters is None else letters.decode("utf-8", "replace")
