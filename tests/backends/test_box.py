"""What the child says about the box and its models, and what is said when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.backends import box
from appliance.core.fault import BackendError, Fault
from appliance.store.shape import FILE_TYPES, SHAPES, parse_shape, write_empty
from appliance.store.weights import write_random

pytestmark = pytest.mark.live

MIB = 1 << 20


def test_the_box_is_described() -> None:
    machine = box.describe()
    assert machine.cpu
    assert 1 <= machine.threads <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.ram_free <= machine.ram_total
    assert machine.build.startswith("0.")
    assert machine.instruction_sets


def test_the_starter_is_weighed(starter_gguf: Path) -> None:
    weight = box.weigh(starter_gguf, context=2048, slots=2, gpu_layers=0)
    assert (weight.architecture, weight.layers, weight.width, weight.vocabulary) == ("llama", 31, 576, 49152)
    assert weight.model == 96_576_768
    assert weight.asked.cache == 2 * 2048 * 30 * 2 * 192 * 2  # slots, tokens, layers, K and V, their width, 16 bits
    assert weight.asked.ram == weight.asked.model + weight.asked.cache + weight.asked.buffers
    assert weight.chosen == weight.asked
    assert sum(read.bytes for read in weight.reads) == 96_576_768


def test_a_cache_of_another_precision_is_smaller_by_as_much_as_it_should_be(starter_gguf: Path) -> None:
    weight = box.weigh(starter_gguf, context=2048, slots=2, kv_type="q8_0", gpu_layers=0)
    assert weight.asked.cache == pytest.approx(2 * 2048 * 30 * 2 * 192 * 34 / 32, rel=0.001)


def test_a_model_without_weights_is_weighed_and_one_for_a_larger_box_is_told_from_it(tmp_path: Path) -> None:
    write_empty(parse_shape("70B:F16"), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").stat().st_blocks * 512 < 16 * MIB
    weight = box.weigh(tmp_path / "m.gguf", context=131_072, slots=64, gpu_layers=0)
    assert weight.model == parse_shape("70B:F16").bytes
    assert weight.asked.cache == 64 * 131_072 * 80 * 2 * 1024 * 2
    assert weight.chosen is None or weight.chosen.steps


def test_what_ends_llama_cpp_is_told_in_its_own_last_words(tmp_path: Path) -> None:
    write_empty(replace(parse_shape("135M:F16"), layers=1000), tmp_path / "m.gguf")
    with pytest.raises(BackendError, match=r"\(weigh, signal 6\): .*GGML_ASSERT\(.*layer.*\) failed$") as error:
        box.weigh(tmp_path / "m.gguf")
    assert error.value.fault is Fault.CRASHED


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"something else")
    with pytest.raises(BackendError, match="is not a GGUF file: it does not begin with the letters GGUF") as error:
        box.weigh(tmp_path / "m.gguf")
    assert error.value.fault is Fault.CONFIG


def test_random_weights_of_every_packing_are_loaded_and_answer(tmp_path: Path) -> None:
    small = replace(SHAPES["0.5B"], layers=8, width=256, heads=4, inner=512, vocabulary=600, head=64)
    experts = replace(small, architecture="qwen3moe", heads_kv=4, experts=8, experts_used=2)
    shapes = [*(replace(small, quant=quant) for quant in FILE_TYPES), replace(small, tied=False), experts]
    for number, shape in enumerate(shapes):
        write_random(shape, tmp_path / f"{number}.gguf")
    paces = box.pace([(tmp_path / f"{number}.gguf", 16) for number in range(len(shapes))], seconds=0.01, gpu_layers=0)
    assert len(paces) == len(shapes)
    for pace in paces:
        assert 0 < pace.seconds_per_token < 1
        assert pace.prompt_tokens_per_second > 1
        assert 0 <= pace.others <= 1
    reads = box.weigh(tmp_path / f"{len(shapes) - 1}.gguf", slots=1, context=512, gpu_layers=0).reads
    assert sum(read.weights for read in reads) < 0.6 * experts.parameters


def test_an_answer_of_the_engine_is_served_and_counted(tmp_path: Path) -> None:
    write_random(replace(SHAPES["0.5B"], layers=2, width=256, heads=4, inner=512, vocabulary=600), tmp_path / "m.gguf")
    assert 0 < box.served(tmp_path / "m.gguf", gpu_layers=0, answers=1) < 1


def test_an_engine_that_cannot_serve_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"something else")
    with pytest.raises(BackendError, match="GGUF"):
        box.served(tmp_path / "m.gguf")


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_child_that_dies_is_one_sentence_with_its_last_words(tmp_path: Path) -> None:
    python = _script(tmp_path / "python", "echo GGML_ASSERT failed >&2; kill -ABRT $$")
    with pytest.raises(BackendError, match=r"without an answer \(describe, signal 6\): GGML_ASSERT failed") as error:
        box.describe(python=python)
    assert error.value.fault is Fault.CRASHED


def test_a_child_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "PATIENCE", 0.1)
    with pytest.raises(BackendError, match="did not answer") as error:
        box._ask({"op": "describe"}, _script(tmp_path / "python", "exec sleep 60"), patience=0.1)
    assert error.value.fault is Fault.SILENT


def test_a_python_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(BackendError, match="/nowhere/python could not be started: No such file or directory"):
        box.describe(python="/nowhere/python")


def test_the_child_is_for_nobody_else() -> None:
    child = subprocess.run([sys.executable, "-m", "appliance.engine.weigh"], capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stdout) == (2, "")
    assert '"appliance models fit" asks it' in child.stderr


def test_memory_is_read_faster_than_a_disk() -> None:
    assert 0.5e9 < box.bandwidth() < 10e12
