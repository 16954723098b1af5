"""Models of a few hundred kilobytes with random weights: one for every kind of memory llama.cpp keeps.

What they write is nonsense, but it depends on every token before it. So a sequence that was rolled back, copied or
restored wrongly writes other nonsense than one computed from scratch.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 64
HEADS = 4
LAYERS = 2
INNER = 96
WINDOW = 32
STATE = 8
CONTEXT = 4096

Tensors = dict[str, np.ndarray[Any, Any]]
Shape = tuple[int, ...]


# ---------------------------------------------------------------------------------------------------- the file


def write_gguf(path: Path, meta: Mapping[str, Any], tensors: Tensors) -> Path:
    """A GGUF file of version 3. Numbers in `meta` are written as 32 bits, as llama.cpp's keys want them."""
    head = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta)))
    for key, value in meta.items():
        head += _string(key) + _typed(value)
    body = bytearray()
    for name, values in tensors.items():
        head += _string(name) + struct.pack("<I", values.ndim)
        head += struct.pack(f"<{values.ndim}Q", *reversed(values.shape))
        head += struct.pack("<IQ", 0, len(body))  # 0: every weight is a 32-bit float
        body += _padded(values.astype("<f4").tobytes())
    path.write_bytes(_padded(bytes(head)) + bytes(body))
    return path


def _padded(letters: bytes) -> bytes:
    return letters + bytes(-len(letters) % 32)


def _string(text: str) -> bytes:
    letters = text.encode("utf-8")
    return struct.pack("<Q", len(letters)) + letters


def _typed(value: Any) -> bytes:
    if isinstance(value, list):
        items = [_typed(item) for item in value]
        kind = items[0][:4] if items[0][:1] != b"\4" else struct.pack("<I", 5)  # llama.cpp wants its arrays signed
        return struct.pack("<I", 9) + kind + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<II", 4, value)


# ---------------------------------------------------------------------------------------------------- the words


def vocabulary(template: str | None = None) -> dict[str, Any]:
    """A token for every byte, as GPT-2 spells bytes, and the three marks of ChatML."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    letters = [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    meta = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*letters, *marks],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(marks),
        "tokenizer.ggml.merges": ["Ġ Ġ"],  # llama.cpp wants one; it makes a word that is no token, so it never applies
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.add_bos_token": False,
    }
    return meta | ({"tokenizer.chat_template": template} if template else {})


WORDS = 256 + 3


# --------------------------------------------------------------------------------------------------- the models


class _Weights:
    """Random tensors from one seed. Shapes are given as llama.cpp writes them: the row length first."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.tensors: Tensors = {}

    def noise(self, name: str, *shape: int, size: float = 1.0) -> None:
        scale = size / np.sqrt(shape[0])
        self.tensors[name] = self._random.normal(0, scale, tuple(reversed(shape))).astype(np.float32)

    def ones(self, *names: str, width: int = WIDTH, size: float = 1.0) -> None:
        for name in names:
            self.tensors[name] = np.full(width, size, dtype=np.float32)

    def ends(self, norm: str = "output_norm.weight", *, scaled: float = 1.0) -> None:
        # Small, next to what the layers add to it: a token must not hide those before it.
        self.noise("token_embd.weight", WIDTH, WORDS, size=2.0 / scaled)
        self.noise("output.weight", WIDTH, WORDS, size=4.0)
        self.ones(norm)

    # Queries and keys are larger than those of an untrained model, so that attention looks at few tokens and a lost one
    # is missed; much larger ones would make the rounding of the cache to 16 bits visible in what is written.
    def attention(self, block: str, *, heads_kv: int = 2, normed: bool = False) -> None:
        head = WIDTH // HEADS
        self.noise(f"{block}.attn_q.weight", WIDTH, WIDTH, size=1.5)
        self.noise(f"{block}.attn_k.weight", WIDTH, heads_kv * head, size=1.5)
        self.noise(f"{block}.attn_v.weight", WIDTH, heads_kv * head, size=4.0)
        self.noise(f"{block}.attn_output.weight", WIDTH, WIDTH, size=4.0)
        if normed:
            self.ones(f"{block}.attn_q_norm.weight", f"{block}.attn_k_norm.weight", width=head, size=1.5)

    def feed_forward(self, block: str) -> None:
        self.ones(f"{block}.ffn_norm.weight")
        self.noise(f"{block}.ffn_gate.weight", WIDTH, INNER)
        self.noise(f"{block}.ffn_up.weight", WIDTH, INNER)
        self.noise(f"{block}.ffn_down.weight", INNER, WIDTH)


def _write(path: Path, architecture: str, weights: _Weights, template: str | None, more: Mapping[str, Any]) -> Path:
    sizes: dict[str, Any] = {
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "block_count": LAYERS,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10_000.0,
        **more,
    }
    meta = {"general.architecture": architecture, "general.name": f"tiny {architecture}"}
    meta |= {f"{architecture}.{key}": value for key, value in sizes.items()}
    return write_gguf(path, meta | vocabulary(template), weights.tensors)


def llama(path: Path, *, seed: int = 1, template: str | None = None, **more: Any) -> Path:
    """Attention over everything: any position can be forgotten."""
    weights = _Weights(seed)
    weights.ends()
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights.ones(f"{block}.attn_norm.weight")
        weights.attention(block)
        weights.feed_forward(block)
    return _write(path, "llama", weights, template, {"rope.dimension_count": WIDTH // HEADS, **more})


def sliding(path: Path, *, seed: int = 2, template: str | None = None, **more: Any) -> Path:
    """gemma3: the first layer sees a window of `WINDOW` tokens only, the second everything."""
    weights = _Weights(seed)
    weights.ends(scaled=WIDTH**0.5)  # gemma multiplies it again
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights.ones(*(f"{block}.{name}.weight" for name in ("attn_norm", "post_attention_norm", "post_ffw_norm")))
        weights.attention(block, normed=True)
        weights.feed_forward(block)
    head = WIDTH // HEADS
    sizes = {"attention.key_length": head, "attention.value_length": head}
    window = {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, False]}
    return _write(path, "gemma3", weights, template, {**sizes, **window, **more})


def hybrid(path: Path, *, seed: int = 3, template: str | None = None, **more: Any) -> Path:
    """lfm2: a short convolution, whose state is a row per sequence, and then attention over everything."""
    weights = _Weights(seed)
    weights.ends("token_embd_norm.weight")  # the name LFM2's files have for it
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights.ones(f"{block}.attn_norm.weight")
        weights.feed_forward(block)
    weights.noise("blk.0.shortconv.conv.weight", 3, WIDTH)
    weights.noise("blk.0.shortconv.in_proj.weight", WIDTH, 3 * WIDTH)
    weights.noise("blk.0.shortconv.out_proj.weight", WIDTH, WIDTH)
    weights.attention("blk.1", normed=True)
    return _write(path, "lfm2", weights, template, {"attention.head_count_kv": [0, 2], "shortconv.l_cache": 3, **more})


def recurrent(path: Path, *, seed: int = 4, template: str | None = None, **more: Any) -> Path:
    """mamba: all that is known of a sequence is one state, which cannot be taken back."""
    weights = _Weights(seed)
    weights.ends()
    inner, rank = 2 * WIDTH, 4
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights.ones(f"{block}.attn_norm.weight")
        weights.noise(f"{block}.ssm_in.weight", WIDTH, 2 * inner)
        weights.noise(f"{block}.ssm_conv1d.weight", 4, inner)
        weights.noise(f"{block}.ssm_conv1d.bias", inner)
        weights.noise(f"{block}.ssm_x.weight", inner, rank + 2 * STATE, size=2.0)
        weights.noise(f"{block}.ssm_dt.weight", rank, inner)
        weights.noise(f"{block}.ssm_dt.bias", inner)
        # The decay of the state, small, so that what came long ago is still felt.
        weights.tensors[f"{block}.ssm_a"] = np.full((inner, STATE), -0.02, dtype=np.float32)
        weights.ones(f"{block}.ssm_d", width=inner)
        weights.noise(f"{block}.ssm_out.weight", inner, WIDTH, size=4.0)
    state = {"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": STATE, "ssm.time_step_rank": rank}
    return _write(path, "mamba", weights, template, {"attention.head_count": 0, **state, **more})


KINDS: Mapping[str, Callable[..., Path]] = {
    "llama": llama,
    "sliding": sliding,
    "hybrid": hybrid,
    "recurrent": recurrent,
}
