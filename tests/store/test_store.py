"""Is the model there, and is it what it should be?"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.config import Config, LocalConfig, PathsConfig, load_config
from appliance.store.catalog import Entry, ModelFile, StoreError, find
from appliance.store.store import Resolved, installed, resolve, verify

WHOLE = b"GGUF" + bytes(range(200))


def entry_of(*contents: bytes, **changed: object) -> Entry:
    parts = tuple(
        ModelFile(file=f"{n}.gguf", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for n, content in enumerate(contents)
    )
    return replace(Entry(name="tiny", about="", repo="o/r", parts=parts), **changed)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    found = load_config(None, {"APPLIANCE_HOME": str(tmp_path)})
    found.paths.models.mkdir()
    return found


def sentence(model: str, config: Config) -> str:
    with pytest.raises(StoreError) as caught:
        resolve(model, config)
    return str(caught.value).replace(str(config.paths.models), "MODELS")


def test_a_model_that_is_not_there_names_the_command_that_brings_it(config: Config) -> None:
    assert sentence("starter", config) == 'the model "starter" is not installed; run "appliance models pull starter".'
    assert sentence("hf:o/r/m.gguf", config) == (
        'the model "hf:o/r/m.gguf" is not installed; run "appliance models pull hf:o/r/m.gguf".'
    )


def test_a_truncated_model_says_how_much_is_there(config: Config) -> None:
    (config.paths.models / find("starter").file).write_bytes(WHOLE)
    assert sentence("starter", config) == (
        "the model MODELS/SmolLM2-135M-Instruct.Q4_1.gguf is truncated: 204 of 98,362,432 bytes; "
        'run "appliance models pull starter".'
    )


def test_a_model_that_is_too_long_is_another_file(config: Config) -> None:
    with (config.paths.models / find("starter").file).open("wb") as file:
        file.truncate(98_362_433)  # a hole, not 98 MB
    assert "has 98,362,433 bytes where the catalog says 98,362,432;" in sentence("starter", config)


def test_a_model_of_the_right_size_must_begin_like_one(config: Config) -> None:
    with (config.paths.models / find("starter").file).open("wb") as file:
        file.truncate(98_362_432)
    assert "is not a GGUF file (it does not begin with GGUF);" in sentence("starter", config)


def test_a_catalog_model_comes_with_its_template_and_name(config: Config) -> None:
    path = config.paths.models / find("starter").file
    with path.open("wb") as file:
        file.write(b"GGUF")
        file.truncate(98_362_432)
    assert resolve("STARTER", config) == Resolved(path=path, template=find("starter").template, name="starter")


def test_a_path_is_taken_as_it_is(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.write_bytes(WHOLE)
    assert resolve(str(path), config) == Resolved(path=path, template=None, name="my model")
    path.write_bytes(b"")
    assert "is not a GGUF file" in sentence(str(path), config)
    path.unlink()
    assert sentence(str(path), config) == (f"the model {path} does not exist; correct [local] model in appliance.toml.")


def test_what_cannot_be_used_is_refused_with_the_reason(config: Config) -> None:
    assert "write it like hf:OWNER/REPO/FILE.gguf" in sentence("hf:a/c.gguf", config)
    assert 'the model "embeddinggemma-300m" cannot chat' in sentence("embeddinggemma-300m", config)
    assert 'did you mean "starter"?' in sentence("startr", config)


def test_the_store_needs_nothing_of_the_configuration_but_its_folder(tmp_path: Path) -> None:
    paths = PathsConfig(state=tmp_path, cache=tmp_path, models=tmp_path)
    assert LocalConfig().model == "starter"

    class OnlyPaths:
        pass

    only = OnlyPaths()
    only.paths = paths  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="is not installed"):
        resolve("starter", only)  # type: ignore[arg-type]


def test_verifying_reads_every_byte_of_every_part(tmp_path: Path) -> None:
    entry = entry_of(WHOLE, WHOLE + b"!")
    (tmp_path / "0.gguf").write_bytes(WHOLE)
    assert not installed(entry, tmp_path)
    with pytest.raises(StoreError, match='the model "tiny" is not installed; run "appliance models pull tiny"'):
        verify(entry, tmp_path)
    (tmp_path / "1.gguf").write_bytes(WHOLE + b"!")
    assert installed(entry, tmp_path)
    seen: list[tuple[int, int]] = []
    verify(entry, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == [(204, 409), (409, 409)]


def test_one_wrong_byte_is_found(tmp_path: Path) -> None:
    entry = entry_of(WHOLE)
    (tmp_path / "0.gguf").write_bytes(WHOLE[:-1] + b"!")
    with pytest.raises(StoreError, match=r"is not the file of the catalog: its sha256 is \w{12}\.\.\., expected"):
        verify(entry, tmp_path)
