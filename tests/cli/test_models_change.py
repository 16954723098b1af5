"""Bringing a model in, choosing it and giving it up, from the command line."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.__main__ import main
from appliance.backends import box
from appliance.config import load_config
from appliance.core.fault import BackendError, Fault
from appliance.core.machine import Placement, Weight
from appliance.store.catalog import find

MODEL = b"GGUF" + bytes(1_000_000)
PLACED = Placement(context=4096, kv_type="f16", gpu_layers=0, model=8, cache=1, buffers=1, ram=10, devices=())
WEIGHT = Weight(
    name="m", architecture="llama", parameters=8, vocabulary=1, width=1, trained=8192, layers=2, model=8, slots=4,
    process=1, reads=(), asked=PLACED, chosen=PLACED,
)  # fmt: skip


@pytest.fixture
def stick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that llama.cpp takes, as far as these tests ask it."""
    monkeypatch.setattr(box, "weigh", lambda path, **how: WEIGHT)
    (tmp_path / "My Model.gguf").write_bytes(MODEL)
    return tmp_path / "My Model.gguf"


def test_a_file_is_imported_and_says_how_to_use_it(
    stick: Path, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", str(stick)]) == 0
    assert capsys.readouterr().out == (
        f"my-model is imported and hashed: {isolated}/models/own/my-model.gguf\n"
        'To answer with it: "appliance models use my-model".\n'
    )
    assert main(["models", "import", str(stick), "--name", "Other"]) == 0
    assert main(["models", "list"]) == 0
    assert {"my-model", "other"} <= {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}


def test_ollamas_models_are_shown_and_taken(
    stick: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = isolated / "ollama"
    digest = hashlib.sha256(MODEL).hexdigest()
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / f"sha256-{digest}").write_bytes(MODEL)
    manifest = root / "manifests/registry.ollama.ai/library/llama3.2/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    assert main(["models", "import", "--from", "ollama"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["NAME          SIZE", "llama3.2:1b   1 MB"]
    assert main(["models", "import", "--from", "ollama", "llama3.2:1b"]) == 0
    assert os.stat(isolated / "models/own/llama3.2-1b.gguf").st_nlink == 2
    assert main(["models", "import", "--from", "ollama", "nix"]) == 1
    assert "write one of these: llama3.2:1b." in capsys.readouterr().err


def test_what_is_to_be_imported_must_be_said_and_be_there(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import"]) == 2
    assert "say what to import" in capsys.readouterr().err
    assert main(["models", "import", "/nowhere/x.gguf"]) == 1
    assert capsys.readouterr().err == "appliance: /nowhere/x.gguf does not exist; correct the path.\n"
    assert main(["models", "import", str(isolated)]) == 1
    assert capsys.readouterr().err == f"appliance: {isolated} is a folder; name the GGUF file in it.\n"
    monkeypatch.setenv("HOME", str(isolated))
    assert main(["models", "import", "--from", "lmstudio"]) == 64
    assert "LM Studio has no models here" in capsys.readouterr().err


def test_a_model_that_could_not_be_tried_is_neither_imported_nor_used(
    stick: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(path: Path, **how: object) -> None:
        raise BackendError(Fault.CRASHED, "llama.cpp ended without an answer (weigh, signal 4).")

    monkeypatch.setattr(box, "weigh", die)
    for verb, code in (("import", 1), ("use", 1)):
        assert main(["models", verb, str(stick)]) == code
        assert capsys.readouterr().err == (
            'appliance: llama.cpp ended without an answer (weigh, signal 4); if "appliance doctor" finds this box '
            "well, choose another model.\n"
        )
    assert list(isolated.iterdir()) == []


@pytest.mark.live
def test_a_truncated_file_is_found_before_it_is_copied(
    starter_gguf: Path, tmp_path: Path, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half.gguf"
    with starter_gguf.open("rb") as whole:
        half.write_bytes(whole.read(3_000_000))
    assert main(["models", "import", str(half)]) == 1
    assert "truncated" in capsys.readouterr().err
    assert not (isolated / "models").exists()


# ---------------------------------------------------------------------------------------------------------- use


def test_using_a_model_begins_a_file_that_keeps_the_clouds_of_the_environment(
    stick: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-2")
    before = load_config(None, os.environ)
    assert main(["models", "use", str(stick)]) == 0
    file = isolated / "appliance.toml"
    said = capsys.readouterr().out
    assert said.startswith(f"[local] model is '{stick}' now, in {file}.\nA running appliance")
    assert "keys from now on: anthropic (env:ANTHROPIC_API_KEY), openai (env:OPENAI_API_KEY).\n" in said
    after = load_config(None, os.environ)
    assert (after.source, after.local.model) == (file, str(stick))
    assert [(cloud.name, cloud.key, cloud.base_url) for cloud in after.upstreams] == [
        (cloud.name, cloud.key, cloud.base_url) for cloud in before.upstreams
    ]
    assert len(after.upstreams) == 2


WRITTEN = """# mine
[server]
port = 9000  # not the usual one

[local]   # the box
# context = 8192
model = "starter"   # first contact
slots = 2
"""


def test_using_a_model_changes_one_word_of_the_file(stick: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(WRITTEN)
    file.chmod(0o600)
    assert main(["models", "import", str(stick), "--config", str(file)]) == 0
    assert main(["models", "use", "My-Model", "--config", str(file)]) == 0
    assert file.read_text() == WRITTEN.replace('"starter"', '"my-model"')
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("a.toml*")) == ["a.toml"]


@pytest.mark.parametrize("text", ["", "[server]\nport = 1\n", "local.slots = 2\n"])
def test_a_file_that_names_no_model_gets_a_line(stick: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    assert main(["models", "use", str(stick), "--config", str(file)]) == 0
    config = load_config(file, {})
    assert config.local.model == str(stick)
    assert (config.server.port, config.local.slots) in ((8484, 4), (1, 4), (8484, 2))


def test_a_file_is_used_whatever_it_is_called(stick: Path, isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stick.rename(stick.with_name("model.bin"))
    assert main(["models", "use", str(file)]) == 0
    assert load_config(None, os.environ).local.model == str(file)


def test_what_does_not_fit_this_box_is_used_and_said(
    stick: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def weigh(path: Path, **how: object) -> Weight:
        asked.append(how)
        return replace(WEIGHT, chosen=replace(PLACED, from_disk=True, steps=("The model needs 9 GB; 1 GB is free.",)))

    (isolated / "appliance.toml").write_text("[local]\ncontext = 512\nslots = 2\n")
    monkeypatch.setattr(box, "weigh", weigh)
    assert main(["models", "use", str(stick)]) == 0
    assert capsys.readouterr().err == "appliance: The model needs 9 GB; 1 GB is free.\n"
    assert asked == [{"context": 512, "slots": 2, "kv_type": "f16", "gpu_layers": "auto"}]  # as it would be loaded


def test_a_model_that_is_not_here_is_not_used(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "use", "starter"]) == 64
    assert capsys.readouterr().err == (
        'appliance: the model "starter" is not installed; run "appliance models pull starter".\n'
    )
    assert not (isolated / "appliance.toml").exists()


# ----------------------------------------------------------------------------------------------------------- rm


def test_a_model_is_deleted_and_its_neighbours_stay(
    stick: Path, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert main(["models", "import", str(stick), "--name", name]) == 0
    (isolated / "models/own/one.gguf").unlink()  # by hand; its record is all that is left
    capsys.readouterr()
    assert main(["models", "rm", "one"]) == 0
    assert capsys.readouterr().out.startswith("one is deleted; that freed ")
    assert sorted(path.name for path in (isolated / "models/own").iterdir()) == ["two.gguf", "two.gguf.json"]
    assert main(["models", "rm", "two"]) == 0
    assert sorted(path.name for path in (isolated / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"), [("qwen3.5-4b", find("qwen3.5-4b").file), ("hf:o/r/q/m.gguf", "hf/o/r/q/m.gguf")]
)
def test_an_unfinished_download_can_be_given_up(
    isolated: Path, capsys: pytest.CaptureFixture[str], name: str, file: str
) -> None:
    models = isolated / "models"
    (models / file).parent.mkdir(parents=True)
    for ending in (".part", ".part.of"):
        (models / (file + ending)).write_bytes(bytes(1_000_000))
    assert main(["models", "rm", name]) == 0
    assert capsys.readouterr().out == f"{name} is deleted; that freed 2 MB.\n"
    assert list(models.iterdir()) == []
    assert main(["models", "rm", name]) == 1
    assert capsys.readouterr().err == f'appliance: the model "{name}" is not installed.\n'
