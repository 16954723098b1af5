"""A model with random weights: it answers nonsense at the speed of the real thing, in the same memory.

For `bench --shape` and for the proof of `fit`, before anybody downloads anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from appliance.store.catalog import StoreError
from appliance.store.disk import PART, Progress, check_room
from appliance.store.gguf import QUANTS, Tensor, head, padded
from appliance.store.shape import BYTES, MARKS, Shape, meta

_CHUNK = 4 << 20
_POOL = 4 << 20
_SIZES = 65_521


def write_random(shape: Shape, path: Path, *, seed: int = 0, progress: Progress | None = None) -> None:
    """A model of this shape with random weights, at `path` once it is whole. Raises `StoreError`."""
    first = head(meta(shape), shape.tensors)
    size = len(first) + sum(padded(tensor.bytes) for tensor in shape.tensors)
    unfinished = path.with_name(path.name + PART)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(shape.title, size, path.parent, remedy="make room, or choose a smaller shape")
        done = len(first)
        with unfinished.open("wb") as file:
            file.write(first)
            weights = Weights(seed)
            for tensor in shape.tensors:
                for chunk in weights.of(tensor):
                    file.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(done, size)
                file.write(bytes(padded(tensor.bytes) - tensor.bytes))
                done += padded(tensor.bytes) - tensor.bytes
            _forget(file)
        unfinished.replace(path)
        if progress:
            progress(size, size)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or "the disk failed"
        raise StoreError(
            f"the shape {shape.title} was not written to {path.parent}: {reason}; correct that and try again."
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _forget(file: BinaryIO) -> None:
    """See the file on the disk and out of memory: what was written just now is kept in larger pages than what was read,
    and a model in those answers up to a sixth quicker than it will after the next start of the box."""
    file.flush()
    os.fsync(file.fileno())
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Weights:
    """Random tables, in chunks. Drawn once and taken from again and again at other places: quicker than any disk."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._drawn = np.frombuffer(self._random.bytes(_POOL), np.uint8)
        self._sizes = self._random.uniform(0.5, 1.5, _SIZES)

    def of(self, tensor: Tensor) -> Iterator[bytes]:
        if tensor.quant == "F32":
            # Norms are one and biases nothing; only what routes to experts has to differ.
            many = len(tensor.lengths) > 1
            values = self._random.normal(0, tensor.lengths[0] ** -0.5, tensor.weights) if many else None
            flat = np.full(tensor.weights, 0.0 if tensor.name.endswith(".bias") else 1.0)
            yield (flat if values is None else values).astype("<f4").tobytes()
            return
        quant, blocks = QUANTS[tensor.quant], tensor.weights // QUANTS[tensor.quant].weights
        scale = tensor.lengths[0] ** -0.5 / quant.spread
        # A mark must not come out by chance and end the answer: its row is nothing, and others are above that.
        marked = range(0)
        if tensor.name in ("token_embd.weight", "output.weight"):
            row = tensor.lengths[0] // quant.weights
            marked = range(BYTES * row, (BYTES + len(MARKS)) * row)
        most = _CHUNK // quant.size
        for at in range(0, blocks, most):
            chunk = self._blocks(tensor.quant, min(most, blocks - at), scale)
            if marked and at < marked.stop and marked.start < at + len(chunk):
                chunk[max(0, marked.start - at) : marked.stop - at] = 0
            yield chunk.tobytes()

    def _blocks(self, name: str, number: int, scale: float) -> np.ndarray[Any, Any]:
        quant = QUANTS[name]
        if name == "F16":
            return self._random.normal(0, scale, number).astype("<f2").reshape(number, 1)
        need, start = number * quant.size, int(self._random.integers(_POOL))
        drawn = np.resize(np.roll(self._drawn, start), need).reshape(number, quant.size)
        # Each block has its own scale: with the same for all, a real model is a sixth slower than this one.
        sizes = scale * np.resize(np.roll(self._sizes, start), number)
        for place, times in quant.scales:
            drawn[:, place : place + 2] = (sizes * times).astype("<f2").view(np.uint8).reshape(number, 2)
        return drawn
