"""What would a model of this size be like? Its tables, of exactly the shape of a real one.

`write_empty` writes only the head, and a hole where the weights would be: enough to be weighed, in no space at all.
`store/weights.py` fills the tables with random ones.

The shapes are those of public models (Qwen2.5, Qwen3, Llama 3, SmolLM2); which table is packed how is what llama.cpp's
own quantizer does for a file type (`llama_tensor_get_type` in its `src/llama-quant.cpp`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from appliance.store.catalog import StoreError
from appliance.store.gguf import QUANTS, Tensor, Value, head, padded

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BYTES = 256
_TEMPLATE = """\
{%- for message in messages -%}
{{ "<|im_start|>" + message["role"] + "\\n" + message["content"] + "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ "<|im_start|>assistant\\n" }}
{%- endif -%}
"""

_INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes where a row is not a whole number of blocks of 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The measures of a model. `experts` 0: none. `head` is the width of one attention head."""

    name: str
    quant: str
    architecture: str
    layers: int
    width: int
    heads: int
    heads_kv: int
    inner: int
    vocabulary: int
    tied: bool
    context: int
    head: int
    rope_base: float = 1e6
    experts: int = 0
    experts_used: int = 0

    @property
    def title(self) -> str:
        return f"{self.name}:{self.quant}"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(_tensors(self))

    @property
    def bytes(self) -> int:
        """Of the weights alone."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.weights for tensor in self.tensors)


def _dense(name: str, architecture: str, *numbers: int, tied: bool, **more: Any) -> Shape:
    layers, width, heads, heads_kv, inner, vocabulary, context = numbers
    return Shape(
        name=name,
        quant="Q4_K_M",
        architecture=architecture,
        layers=layers,
        width=width,
        heads=heads,
        heads_kv=heads_kv,
        inner=inner,
        vocabulary=vocabulary,
        context=context,
        tied=tied,
        **{"head": width // heads, **more},
    )


_EXPERTS = {"head": 128, "experts": 128, "experts_used": 8}
SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        _dense("135M", "llama", 30, 576, 9, 3, 1536, 49152, 8192, tied=True, rope_base=1e5),
        _dense("0.5B", "qwen2", 24, 896, 14, 2, 4864, 151936, 32768, tied=True),
        _dense("1B", "llama", 16, 2048, 32, 8, 8192, 128256, 131072, tied=True, rope_base=5e5),
        _dense("1.5B", "qwen2", 28, 1536, 12, 2, 8960, 151936, 32768, tied=True),
        _dense("3B", "qwen2", 36, 2048, 16, 2, 11008, 151936, 32768, tied=True),
        _dense("7B", "qwen2", 28, 3584, 28, 4, 18944, 152064, 32768, tied=False),
        _dense("8B", "llama", 32, 4096, 32, 8, 14336, 128256, 131072, tied=False, rope_base=5e5),
        _dense("14B", "qwen2", 48, 5120, 40, 8, 13824, 152064, 32768, tied=False),
        _dense("32B", "qwen2", 64, 5120, 40, 8, 27648, 152064, 32768, tied=False),
        _dense("70B", "llama", 80, 8192, 64, 8, 28672, 128256, 131072, tied=False, rope_base=5e5),
        _dense("30B-A3B", "qwen3moe", 48, 2048, 32, 4, 768, 151936, 32768, tied=False, **_EXPERTS),
    )
}
FILE_TYPES: Mapping[str, tuple[str, str]] = {
    # what most tables are packed as, and the output
    "Q4_0": ("Q4_0", "Q6_K"),
    "Q4_1": ("Q4_1", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K"),
    "Q6_K": ("Q6_K", "Q6_K"),
    "Q8_0": ("Q8_0", "Q8_0"),
    "F16": ("F16", "F16"),
}


def looks_like_shape(text: str) -> bool:
    """Might this be meant as a shape, and not as a name or a path?"""
    return text.partition(":")[0].upper() in {name.upper() for name in SHAPES}


def parse_shape(text: str) -> Shape:
    """`"7B:Q4_K_M"`, or `"7B"` for that. Raises `StoreError`."""
    size, _, quant = text.partition(":")
    names = {name.upper(): name for name in SHAPES}
    if size.upper() not in names:
        raise StoreError(f'there is no shape "{size}"; choose one of {", ".join(SHAPES)}, as in "7B:Q4_K_M".')
    quant = quant.upper() or "Q4_K_M"
    if quant not in FILE_TYPES:
        raise StoreError(f'a shape cannot be packed as "{quant}"; choose one of {", ".join(FILE_TYPES)}.')
    return replace(SHAPES[names[size.upper()]], quant=quant)


# ---------------------------------------------------------------------------------------------------- the tables


def _tensors(shape: Shape) -> Iterator[Tensor]:
    usual, output = FILE_TYPES.get(shape.quant, (shape.quant, shape.quant))
    wide, head_width = shape.width, shape.head
    queries, keys = shape.heads * head_width, shape.heads_kv * head_width

    def table(name: str, quant: str, *lengths: int) -> Tensor:
        if lengths[0] % QUANTS[quant].weights:
            quant = _INSTEAD.get(quant, "F16")
        return Tensor(name=f"{name}.weight", lengths=lengths, quant=quant)

    def plain(name: str, length: int) -> Tensor:
        return Tensor(name=name, lengths=(length,), quant="F32")

    yield table("token_embd", output if shape.tied else usual, wide, shape.vocabulary)
    yield plain("output_norm.weight", wide)
    if not shape.tied:
        yield table("output", output, wide, shape.vocabulary)
    # In the order that real files have them in.
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        better = "Q6_K" if shape.quant in ("Q4_K_M", "Q5_K_M") and _more_bits(layer, shape.layers) else usual
        value = "Q5_K" if shape.name == "70B" and better == "Q4_K" else better
        yield plain(f"{block}.attn_norm.weight", wide)
        if shape.experts:
            yield table(f"{block}.ffn_down_exps", better, shape.inner, wide, shape.experts)
            yield table(f"{block}.ffn_gate_exps", usual, wide, shape.inner, shape.experts)
            yield table(f"{block}.ffn_up_exps", usual, wide, shape.inner, shape.experts)
            yield table(f"{block}.ffn_gate_inp", "F32", wide, shape.experts)
        else:
            yield table(f"{block}.ffn_down", better, shape.inner, wide)
            yield table(f"{block}.ffn_gate", usual, wide, shape.inner)
            yield table(f"{block}.ffn_up", usual, wide, shape.inner)
        yield plain(f"{block}.ffn_norm.weight", wide)
        if shape.architecture == "qwen3moe":
            yield plain(f"{block}.attn_k_norm.weight", head_width)
            yield plain(f"{block}.attn_q_norm.weight", head_width)
        if shape.architecture == "qwen2":
            for name, length in (("k", keys), ("q", queries), ("v", keys)):
                yield plain(f"{block}.attn_{name}.bias", length)
        yield table(f"{block}.attn_k", usual, wide, keys)
        yield table(f"{block}.attn_output", usual, queries, wide)
        yield table(f"{block}.attn_q", usual, wide, queries)
        yield table(f"{block}.attn_v", value, wide, keys)


def _more_bits(layer: int, layers: int) -> bool:
    """Which layers llama.cpp packs better than the rest in a file of the kind "M"."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


# ------------------------------------------------------------------------------------------------- what is written


def meta(shape: Shape) -> dict[str, Value]:
    """The keys that llama.cpp asks for, with a vocabulary of the true size: a token per byte, marks, made-up words."""
    own: dict[str, Value] = {
        "context_length": shape.context,
        "embedding_length": shape.width,
        "block_count": shape.layers,
        "feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.heads_kv,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": shape.head,
        "rope.freq_base": shape.rope_base,
    }
    if shape.experts:
        own |= {
            "expert_count": shape.experts,
            "expert_used_count": shape.experts_used,
            "expert_feed_forward_length": shape.inner,
        }
    words = _words(shape.vocabulary - BYTES - len(MARKS))
    return {
        "general.architecture": shape.architecture,
        "general.name": f"random weights, {shape.title}",
        "general.quantization_version": 2,
        **{f"{shape.architecture}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*_letters(), *MARKS, *words],
        "tokenizer.ggml.token_type": [1] * BYTES + [3] * len(MARKS) + [1] * len(words),
        "tokenizer.ggml.merges": ["Ġ Ġ"],  # llama.cpp wants one; its word is no token, so it never applies
        "tokenizer.ggml.bos_token_id": BYTES,
        "tokenizer.ggml.eos_token_id": BYTES + 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _TEMPLATE,
    }


def _letters() -> list[str]:
    """A token for every byte, as GPT-2 spells bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = count(256)
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(BYTES)]


def _words(number: int) -> list[str]:
    return [f"Ġ{''.join(letters)}" for letters in islice(product(ascii_lowercase, repeat=4), number)]


def write_empty(shape: Shape, path: Path) -> None:
    """A model without weights: its head and a hole of the right length. It can be weighed, and nothing else."""
    first = head(meta(shape), shape.tensors)
    with path.open("wb") as file:
        file.write(first)
        file.truncate(len(first) + sum(padded(tensor.bytes) for tensor in shape.tensors))
