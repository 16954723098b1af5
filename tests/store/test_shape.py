"""Models with random weights: of the size of real ones, whole or not there."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.store import weights as module
from appliance.store.catalog import StoreError
from appliance.store.gguf import QUANTS
from appliance.store.shape import FILE_TYPES, SHAPES, Shape, looks_like_shape, parse_shape, write_empty
from appliance.store.weights import write_random

TINY = replace(SHAPES["0.5B"], name="tiny", layers=2, width=512, heads=8, inner=1024, vocabulary=512, head=64)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        # The sizes of published files, tokenizer and all.
        ("0.5B:Q4_K_M", 397_808_192),
        ("7B:Q4_K_M", 4_683_074_240),
        ("8B:Q4_K_M", 4_920_739_232),
        ("14B:Q4_K_M", 8_988_110_976),
        ("32B:Q4_K_M", 19_851_336_576),
        ("70B:Q4_K_M", 42_520_398_016),
        ("30B-A3B:Q4_K_M", 18_556_686_912),
    ],
)
def test_a_shape_weighs_what_the_real_model_does(text: str, file: int) -> None:
    assert 0.98 * file < parse_shape(text).bytes < file


@pytest.mark.parametrize(
    ("name", "billions"),
    [("135M", 0.1345), ("0.5B", 0.494), ("1.5B", 1.544), ("7B", 7.616), ("8B", 8.03), ("70B", 70.55)],
)
def test_a_shape_has_as_many_weights_as_the_real_model(name: str, billions: float) -> None:
    assert parse_shape(name).parameters == pytest.approx(billions * 1e9, rel=0.001)


def test_a_shape_is_read_in_any_case_and_packed_as_most_are_unless_said() -> None:
    assert parse_shape("7b:q8_0").title == "7B:Q8_0"
    assert parse_shape("0.5B").title == "0.5B:Q4_K_M"
    assert [looks_like_shape(text) for text in ("7B", "30b-a3b:Q8_0", "starter", "/7B/x.gguf")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_shape_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(StoreError, match=r'there is no shape "9B"; choose one of 135M, 0.5B, 1B'):
        parse_shape("9B:Q4_K_M")
    with pytest.raises(StoreError, match='cannot be packed as "IQ1"; choose one of Q4_0'):
        parse_shape("7B:IQ1")


@pytest.mark.parametrize("quant", list(FILE_TYPES))
def test_the_file_is_as_long_as_was_said_and_progress_ends_there(quant: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_random(
        replace(TINY, quant=quant), tmp_path / "m.gguf", progress=lambda done, total: told.append((done, total))
    )
    size = (tmp_path / "m.gguf").stat().st_size
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    write_empty(replace(TINY, quant=quant), tmp_path / "empty.gguf")
    assert (tmp_path / "empty.gguf").stat().st_size == size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.gguf", "m.gguf"]


def test_the_same_seed_writes_the_same_file_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random(TINY, tmp_path / name, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(("quant", "unpack"), [("Q4_0", lambda q: q - 8), ("Q8_0", lambda q: q)])
def test_weights_are_centred_and_small_enough_for_a_layer(quant: str, unpack: object) -> None:
    """Unpacked as ggml does it, they spread as those of an untrained model: one over the root of a row."""
    blocks = module.Weights(0)._blocks(quant, 4096, 512**-0.5 / QUANTS[quant].spread)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float64)
    assert np.isfinite(scales).all()
    numbers = blocks[:, 2:].view(np.int8) if quant == "Q8_0" else np.hstack([blocks[:, 2:] & 15, blocks[:, 2:] >> 4])
    weights = scales * unpack(numbers.astype(np.float64))  # type: ignore[operator]
    assert weights.std() == pytest.approx(512**-0.5, rel=0.05)
    assert abs(weights.mean()) < 0.15 * weights.std()


def test_a_disk_without_room_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(StoreError, match=r'"7B:Q4_K_M" needs 4.7 GB at .* and 0 MB are free; make room, or choose a'):
        write_random(parse_shape("7B"), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_random(TINY, tmp_path / "m.gguf", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"was not written to .*: File exists; correct that and try again"):
        write_random(TINY, tmp_path / "file" / "m.gguf")


def test_rows_that_are_no_whole_blocks_are_packed_as_llama_cpp_does_it() -> None:
    def packed(shape: Shape) -> dict[str, str]:
        return {tensor.name: tensor.quant for tensor in shape.tensors}

    half = packed(parse_shape("0.5B"))
    assert half["token_embd.weight"] == "Q8_0"
    assert half["blk.9.attn_q.weight"] == "Q5_0"
    assert {half["blk.0.ffn_down.weight"], half["blk.3.ffn_down.weight"]} == {"Q6_K", "Q4_K"}
    assert packed(parse_shape("70B"))["blk.10.attn_v.weight"] == "Q5_K"
