"""What does a GGUF file look like from its first byte to where the weights begin?

Only what a written model needs: version 3, strings, numbers and flat lists. The `gguf` package does this too, but
brings `requests` and `pyyaml` to every box for it, and knows no random weights; tests hold these bytes against what
llama.cpp itself reads.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9

Value = str | bool | int | float | Sequence[str] | Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """How numbers are packed: `weights` of them into `size` bytes. `code` is ggml's number for it.

    `scales` are the 16-bit floats in a block: where each stands, and how many times the block's scale it is, so that
    the other bytes may be anything and the weights stay finite, centred and `spread` times that scale wide.
    """

    code: int
    weights: int
    size: int
    scales: tuple[tuple[int, float], ...] = ()
    spread: float = 1.0


QUANTS: Mapping[str, Quant] = {
    "F32": Quant(code=0, weights=1, size=4),
    "F16": Quant(code=1, weights=1, size=2),
    "Q4_0": Quant(code=2, weights=32, size=18, scales=((0, 1.0),), spread=4.6),
    "Q4_1": Quant(code=3, weights=32, size=20, scales=((0, 1.0), (2, -7.5)), spread=4.6),
    "Q5_0": Quant(code=6, weights=32, size=22, scales=((0, 1.0),), spread=9.2),
    "Q5_1": Quant(code=7, weights=32, size=24, scales=((0, 1.0), (2, -15.5)), spread=9.2),
    "Q8_0": Quant(code=8, weights=32, size=34, scales=((0, 1.0),), spread=74.0),
    # The K quants have a scale and an offset of their own, 6 or 8 bits each, for every 16 or 32 weights.
    "Q4_K": Quant(code=12, weights=256, size=144, scales=((0, 1.0), (2, 7.5)), spread=255.0),
    "Q5_K": Quant(code=13, weights=256, size=176, scales=((0, 1.0), (2, 15.5)), spread=520.0),
    "Q6_K": Quant(code=14, weights=256, size=210, scales=((208, 1.0),), spread=1370.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A table of weights. `lengths` as GGUF has them: how long a row is, then how many rows there are."""

    name: str
    lengths: tuple[int, ...]
    quant: str

    @property
    def weights(self) -> int:
        count = 1
        for length in self.lengths:
            count *= length
        return count

    @property
    def bytes(self) -> int:
        quant = QUANTS[self.quant]
        return self.weights // quant.weights * quant.size


def padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def head(meta: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Everything before the weights, which then follow in the order of `tensors`, each `padded`."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta))]
    for key, value in meta.items():
        parts += _string(key), _typed(value)
    at = 0
    for tensor in tensors:
        parts += _string(tensor.name), struct.pack("<I", len(tensor.lengths))
        parts.append(struct.pack(f"<{len(tensor.lengths)}Q", *tensor.lengths))
        parts.append(struct.pack("<IQ", QUANTS[tensor.quant].code, at))
        at += padded(tensor.bytes)
    whole = b"".join(parts)
    return whole.ljust(padded(len(whole)), b"\0")


def _string(text: str) -> bytes:
    letters = text.encode("utf-8")
    return struct.pack("<Q", len(letters)) + letters


def _typed(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    kind = _STRING if isinstance(value[0], str) else _INT32
    items = b"".join(_string(item) if isinstance(item, str) else struct.pack("<i", item) for item in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
