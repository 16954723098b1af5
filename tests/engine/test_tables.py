"""What is in a file, and what a token needs of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.core.machine import Read
from appliance.engine.tables import Ends, Table, ends_of, parts, read_head, reads_of
from appliance.store.gguf import QUANTS
from appliance.store.shape import SHAPES, parse_shape, write_empty
from appliance.store.weights import write_random


def table(name: str, quant: str, weights: int) -> Table:
    packed = QUANTS[quant]
    size = weights // packed.weights * packed.size
    return Table(name=name, quant=quant, bytes=size, weights=weights, lengths=(256, weights // 256, 1))


WORDS, LAYER, OUTPUT = (
    table("token_embd.weight", "Q4_K", 2560),
    table("blk.0.ffn_up.weight", "Q4_K", 5120),
    table("output.weight", "Q6_K", 2560),
)


def test_of_the_table_of_words_a_token_needs_one_row_unless_it_is_the_output() -> None:
    assert reads_of([WORDS, LAYER, OUTPUT]) == (
        Read(quant="Q4_K", bytes=20 * 144, weights=5120),
        Read(quant="Q6_K", bytes=10 * 210, weights=2560),
    )
    assert reads_of([WORDS, LAYER]) == (Read(quant="Q4_K", bytes=30 * 144, weights=7680),)
    assert ends_of([WORDS, LAYER, OUTPUT]) == Ends(input=1440, output=2100, tied=False)
    assert ends_of([WORDS, LAYER]) == Ends(input=1440, output=1440, tied=True)


def test_of_the_experts_a_token_needs_those_it_goes_to() -> None:
    experts = table("blk.0.ffn_up_exps.weight", "Q4_K", 128 * 256)
    assert reads_of([LAYER, experts], experts=8 / 128) == (
        Read(quant="Q4_K", bytes=(20 + 8) * 144, weights=5120 + 8 * 256),
    )


def test_the_parts_of_a_model_are_found_beside_the_first(tmp_path: Path) -> None:
    for part in (1, 2, 3):
        (tmp_path / f"m-{part:05d}-of-00003.gguf").touch()
    first = f"{tmp_path}/m-00001-of-00003.gguf"
    assert parts(first) == [f"{tmp_path}/m-{part:05d}-of-00003.gguf" for part in (1, 2, 3)]
    assert parts("whole.gguf") == ["whole.gguf"]


@pytest.mark.live
@pytest.mark.parametrize("name", list(SHAPES))
def test_ggml_reads_of_a_written_shape_what_was_meant(name: str, tmp_path: Path) -> None:
    shape = parse_shape(name)
    write_empty(shape, tmp_path / "m.gguf")
    head = read_head(str(tmp_path / "m.gguf"))
    assert (head.architecture, head.vocabulary, head.width) == (shape.architecture, shape.vocabulary, shape.width)
    assert [(one.name, one.quant, one.bytes, one.weights) for one in head.tables] == [
        (tensor.name, tensor.quant, tensor.bytes, tensor.weights) for tensor in shape.tensors
    ]
    assert head.experts == (8 / 128 if shape.experts else 1.0)


@pytest.mark.live
def test_a_file_that_is_no_model_has_no_tables(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    assert read_head(str(tmp_path / "m.gguf")).tables == ()


@pytest.mark.live
def test_what_llama_cpp_copies_is_known_before_it_does(tmp_path: Path) -> None:
    """Held against what llama.cpp says while it really loads."""
    shape = replace(SHAPES["0.5B"], layers=8, width=256, heads=4, inner=512, vocabulary=600, head=64, tied=False)
    write_random(shape, tmp_path / "m.gguf")
    child = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path / "m.gguf")], capture_output=True, text=True, timeout=60, check=True
    )
    foretold, said = json.loads(child.stdout)
    copied = [line for line in said if "model buffer size" in line and "CPU_" in line and "Mapped" not in line]
    assert foretold / MIB == pytest.approx(sum(float(line.split()[-2]) for line in copied), abs=0.01)


MIB = 1 << 20
LOADS = """
import json, os, sys
answers = os.dup(1)
os.dup2(2, 1)
from appliance.engine import load
from appliance.engine.tables import read_head, repacked_of
opened = load.open_model(load.Load(path=sys.argv[1], context=512, slots=1, gpu_layers=0))
said = list(load._said.lines), repacked_of(read_head(sys.argv[1]).tables)
os.write(answers, json.dumps(said[::-1]).encode())
os._exit(0)
"""
