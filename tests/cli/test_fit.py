"""`appliance models fit` as somebody reads it, on boxes that are made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.backends import box
from appliance.cli import probing
from appliance.core.fault import BackendError, Fault
from appliance.core.machine import Device, Machine, Pace, Placement, Read, Weight
from appliance.store import weights

GB = 10**9
MACHINE = Machine(
    cpu="A Processor", cores=8, threads=4, ram_total=16 * GB, ram_free=12 * GB, gpu_offload=False, devices=(),
    instruction_sets=("AVX2",), build="1.2.3",
)  # fmt: skip
CARD = Device(name="CUDA0", description="A Card", kind="gpu", total=24 * GB, free=22 * GB)
ASKED = Placement(
    context=4096, kv_type="f16", gpu_layers=0, model=4 * GB, cache=GB, buffers=GB // 2, ram=5 * GB + GB // 2, devices=()
)
WEIGHT = Weight(
    name="Some Model", architecture="llama", parameters=7 * GB, vocabulary=32_000, width=4096, trained=8192, layers=33,
    model=4 * GB, slots=4, process=GB // 10, reads=(Read(quant="Q4_K", bytes=4 * GB, weights=7 * GB),), asked=ASKED,
    chosen=ASKED,
)  # fmt: skip


class Made:
    """A box that answers at once, and how often it was asked."""

    def __init__(self) -> None:
        self.machine, self.weight, self.others = MACHINE, WEIGHT, 0.0
        self.weighed: list[dict[str, Any]] = []
        self.run: list[tuple[str, int | str]] = []
        self.asked: list[str] = []

    def weigh(self, path: Path, **asked: Any) -> Weight:
        self.weighed.append({"size": path.stat().st_size, **asked})
        return self.weight

    def pace(self, runs: Sequence[tuple[Path, int]], *, gpu_layers: int | str = "auto") -> tuple[Pace, ...]:
        """20 GB/s and a microsecond for each 20,000 bytes of a prompt; on a GPU ten times that."""
        assert all(path.stat().st_size for path, _ in runs)
        self.run += [(path.name, gpu_layers) for path, _ in runs]
        times = 1 if gpu_layers == 0 else 10
        return tuple(
            Pace(
                seconds_per_token=path.stat().st_size / 20e9 / times,
                prompt_tokens_per_second=20e9 / path.stat().st_size * times,
                others=self.others,
            )
            for path, _ in runs
        )

    def served(self, path: Path, *, gpu_layers: int | str = "auto") -> float:
        """An engine that costs nothing."""
        self.asked.append(path.name)
        return path.stat().st_size / 20e9 / (1 if gpu_layers == 0 else 10)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(box, "describe", lambda: made.machine)
    monkeypatch.setattr(box, "weigh", made.weigh)
    monkeypatch.setattr(box, "pace", made.pace)
    monkeypatch.setattr(box, "served", made.served)
    monkeypatch.setattr(box, "bandwidth", lambda: 40e9)
    monkeypatch.setattr(weights, "write_random", lambda shape, path: _sparse(path, shape.bytes))
    return made


def _sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


@pytest.fixture
def model(tmp_path: Path) -> str:
    _sparse(tmp_path / "m.gguf", 1000)
    return str(tmp_path / "m.gguf")


def test_a_model_in_detail(made: Made, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fit", model]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Some Model: llama, 7.00 billion weights in 32 layers\n")
    assert "weights             4.00 GB\n" in said
    assert "cache               1.00 GB   4 x 4,096 tokens, f16\n" in said
    assert "RAM together        5.60 GB   12.00 GB is free\n" in said
    assert "The engine would give 4 slots 4,096 tokens each, on CPU. That is what was asked for.\n" in said
    assert "Expected: 5.0 tokens per second for one answer at a time.\n" in said
    assert "A token reads 4.00 GB; memory gives 40 GB/s, which allows 10 tokens per second at most.\n" in said
    assert "A prompt of 4,000 tokens: about " in said


def test_what_is_asked_for_on_the_command_line_goes_before_the_configuration(made: Made, model: str) -> None:
    assert main(["models", "fit", model, "--context", "512", "--slots", "2", "--kv-type", "q8_0"]) == 0
    assert made.weighed == [{"size": 1000, "context": 512, "slots": 2, "kv_type": "q8_0", "gpu_layers": "auto"}]


def test_a_shape_is_weighed_without_its_weights_being_anywhere(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fit", "70B:Q4_K_M"]) == 0
    assert made.weighed[0]["size"] > 42 * GB


def test_what_the_engine_would_give_up_is_said(made: Made, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    made.weight = replace(WEIGHT, chosen=replace(ASKED, context=2048, steps=("A slot gets 2,048 tokens.",)))
    assert main(["models", "fit", model]) == 0
    said = capsys.readouterr().out
    assert "The engine would give 4 slots 2,048 tokens each, on CPU.\nA slot gets 2,048 tokens.\n" in said


def test_what_fits_in_no_way_is_not_well(made: Made, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    made.weight = replace(WEIGHT, chosen=None, refusal="Its cache needs 90 GiB.")
    assert main(["models", "fit", model]) == 1
    assert "It does not fit. Its cache needs 90 GiB.\n" in capsys.readouterr().out


def test_what_would_be_read_from_disk_does_not_fit_and_it_is_said_how_slow_it_would_be(
    made: Made, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    read = replace(ASKED, from_disk=True, context=2048, steps=("The model needs 4.0 GB and 3.0 GB is free.",))
    made.weight = replace(WEIGHT, chosen=read)
    made.machine = replace(MACHINE, ram_free=3 * GB + GB // 10)
    assert main(["models", "fit", model]) == 1
    assert capsys.readouterr().out.endswith(
        "It does not fit. The model needs 4.0 GB and 3.0 GB is free.\n"
        "The engine would still try, and give 4 slots 2,048 tokens each. A token reads 2.50 GB from disk then: at 1"
        " GB/s that takes 2.5 s.\n"
    )
    assert made.run == []  # nothing is measured that would not be said


def test_the_table_has_one_recommendation_and_its_command(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fit"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "A Processor, 4 threads, 12.0 of 16.0 GB free\nno GPU is used: llama.cpp was built without one"
    )
    assert made.weighed == []  # nothing is installed
    lines = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
    assert lines["qwen3.5-4b"][:3] == ["-", "yes", "~4.2"]
    assert lines["gpt-oss-120b"][1] == "no"
    assert said.rstrip().endswith("appliance models pull qwen3.5-2b && appliance models use qwen3.5-2b")


def test_with_a_gpu_the_models_for_gpus_are_recommended(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.machine = replace(MACHINE, gpu_offload=True, devices=(CARD,))
    assert main(["models", "fit", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in said["models"]}
    assert (rows["qwen3.5-4b"]["where"], rows[said["take"]]["where"]) == ("GPU", "GPU")
    assert rows[said["take"]]["memory"] > 10 * GB
    assert rows["qwen3.5-4b"]["speed"]["tokens_per_second"] > 5 * (20 / 3)
    assert {layers for _, layers in made.run} == {0, "auto"}  # some models are partly on the CPU


def test_the_probes_are_run_once_on_a_box(
    made: Made, model: str, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models", "fit", model]) == 0
    ran = len(made.run)
    assert main(["models", "fit", model]) == 0
    assert len(made.run) == ran == 6
    assert made.asked == ["5.gguf"]
    made.machine = replace(MACHINE, build="1.2.4")  # another build computes otherwise
    assert main(["models", "fit", model]) == 0
    assert len(made.run) == 2 * ran
    monkeypatch.setattr(probing, "__version__", "9.9.9")  # its probes may be others
    assert main(["models", "fit", model]) == 0
    assert len(made.run) == 3 * ran
    assert not list(isolated.rglob("*.gguf"))


def test_an_engine_that_cannot_be_served_costs_nothing_and_hinders_nothing(
    made: Made, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, **asked: Any) -> float:
        raise BackendError(Fault.BROKEN, "the engine wrote nothing.")

    monkeypatch.setattr(box, "served", refuse)
    assert main(["models", "fit", model]) == 0
    assert "tokens per second" in capsys.readouterr().out


def test_what_was_measured_on_a_busy_box_is_said_to_be_and_not_kept(
    made: Made, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.others = 0.6
    assert main(["models", "fit", model]) == 0
    assert "Other programs used 60% of this box while it was measured" in capsys.readouterr().out
    made.others = 0.0
    assert main(["models", "fit", model]) == 0
    assert len(made.run) == 12
    assert "Other programs" not in capsys.readouterr().out


def test_a_record_that_cannot_be_read_is_measured_again(made: Made, model: str, isolated: Path) -> None:
    assert main(["models", "fit", model]) == 0
    for file in isolated.rglob("speed-*.json"):
        file.write_text("{")
    assert main(["models", "fit", model]) == 0
    assert len(made.run) == 12


def test_a_model_that_is_not_there_is_one_sentence(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "fit", "/nowhere/m.gguf"]) == 64
    assert capsys.readouterr().err == (
        "appliance: the model /nowhere/m.gguf does not exist;"
        " give a name of the catalog, a GGUF file or a shape like 7B.\n"
    )
    assert main(["models", "fit", "qwen3.5-4b"]) == 0
    assert 'after "appliance models pull qwen3.5-4b" it is weighed.' in capsys.readouterr().out
    assert main(["models", "fit", "qwen3.5-4b", "--slots", "0"]) == 64


def test_a_box_that_cannot_be_asked_is_one_sentence(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> Machine:
        raise BackendError(Fault.CRASHED, "llama.cpp ended without an answer.")

    monkeypatch.setattr(box, "describe", refuse)
    assert main(["models", "fit"]) == 1
    assert capsys.readouterr().err == "appliance: llama.cpp ended without an answer.\n"


def test_a_disk_without_room_for_the_probes_is_one_sentence(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert main(["models", "fit"]) == 64
    said = capsys.readouterr().err
    assert '"speed probes" needs ' in said
    assert said.endswith("0 MB are free; make room and try again.\n")
