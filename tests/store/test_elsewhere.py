"""The models that Ollama and LM Studio have on this box."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.store.catalog import StoreError
from appliance.store.elsewhere import Theirs, pick, slug, theirs

MODEL = "application/vnd.ollama.image.model"


class Ollama:
    """A store as Ollama keeps it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, mark: str, content: bytes) -> str:
        (self.root / "blobs" / f"sha256-{mark * 64}").write_bytes(content)
        return f"sha256:{mark * 64}"

    def manifest(self, place: str, *layers: tuple[str, str], text: str | None = None) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or json.dumps({"layers": [{"mediaType": kind, "digest": at} for kind, at in layers]}))


@pytest.fixture
def ollama(tmp_path: Path) -> Ollama:
    return Ollama(tmp_path / "ollama")


def environ(store: Ollama) -> dict[str, str]:
    return {"OLLAMA_MODELS": str(store.root), "HOME": "/nowhere"}


def test_ollamas_models_are_found_by_their_manifests(ollama: Ollama) -> None:
    gguf = ollama.blob("a", b"GGUF1234")
    ollama.manifest("manifests/registry.ollama.ai/library/llama3.2/1b", (MODEL, gguf), ("x", "sha256:" + "e" * 64))
    ollama.manifest("manifests/registry.ollama.ai/me/mine/latest", (MODEL, gguf))
    ollama.manifest("manifests/hf.co/unsloth/Qwen3.5-4B-GGUF/Q4_K_M", (MODEL, gguf))
    blob = ollama.root / "blobs" / ("sha256-" + "a" * 64)

    def entry(name: str, fit_name: str) -> Theirs:
        return Theirs(name=name, path=blob, fit_name=fit_name, bytes=8, sha256="a" * 64)

    assert theirs("ollama", environ(ollama)) == (
        entry("hf.co/unsloth/Qwen3.5-4B-GGUF:Q4_K_M", "qwen3.5-4b-gguf-q4_k_m"),
        entry("llama3.2:1b", "llama3.2-1b"),
        entry("me/mine:latest", "mine"),
    )


def test_a_folder_where_a_tag_should_be_is_passed_over(ollama: Ollama) -> None:
    (ollama.root / "manifests/registry.ollama.ai/library/llama3.2/1b").mkdir(parents=True)
    ollama.manifest("manifests/hf.co/me/mine/latest", (MODEL, ollama.blob("a", b"GGUF1234")))
    assert [one.name for one in theirs("ollama", environ(ollama))] == ["hf.co/me/mine:latest"]


def test_the_newer_layout_comes_first_and_a_list_gives_its_gguf(ollama: Ollama) -> None:
    old, new = ollama.blob("a", b"GGUF"), ollama.blob("b", b"GGUFnew")
    child = ollama.blob("c", json.dumps({"layers": [{"mediaType": MODEL, "digest": new}]}).encode())
    mlx = ollama.blob("d", b'{"layers": []}')
    listed = {"manifests": [{"runner": "mlx", "digest": mlx}, {"runner": "ggml", "digest": child}]}
    ollama.manifest("manifests-v2/ollama.com/library/gemma4/latest", text=json.dumps(listed))
    ollama.manifest("manifests-v2/ollama.com/library/gemma4/.manifest-1", text="{")
    ollama.manifest("manifests/registry.ollama.ai/library/gemma4/latest", (MODEL, old))
    (found,) = theirs("ollama", environ(ollama))
    assert (found.name, found.sha256) == ("gemma4:latest", "b" * 64)


@pytest.mark.parametrize(
    "layers",
    [
        (),
        ((MODEL, "sha256:../../etc/passwd"),),
        ((MODEL, "sha256:" + "f" * 64),),  # its file is gone
        ((MODEL, "sha256:" + "9" * 64),),  # is no GGUF
        ((MODEL, "sha256:" + "a" * 64), ("application/vnd.ollama.image.adapter", "sha256:" + "a" * 64)),
    ],
)
def test_what_is_no_gguf_is_left_out(ollama: Ollama, layers: tuple[tuple[str, str], ...]) -> None:
    ollama.blob("9", b"safetensors")
    ollama.blob("a", b"GGUF")
    ollama.manifest("manifests/registry.ollama.ai/library/odd/latest", *layers)
    ollama.manifest("manifests/registry.ollama.ai/library/odder/latest", text="[]")
    ollama.manifest("manifests/registry.ollama.ai/library/oddest/latest", text="no JSON")
    assert theirs("ollama", environ(ollama)) == ()


def test_lm_studios_models_are_files_of_repositories(tmp_path: Path) -> None:
    root = tmp_path / ".lmstudio/models/pub/Repo-GGUF"
    root.mkdir(parents=True)
    for name in ("My Model-Q4.gguf", "mmproj-x.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"):
        (root / name).write_bytes(b"GGUF")
    (root / "half-00001-of-00002.gguf").write_bytes(b"GGUF")
    found = theirs("lmstudio", {"HOME": str(tmp_path)})
    assert [(one.name, one.fit_name, one.bytes) for one in found] == [
        ("pub/Repo-GGUF/My Model-Q4.gguf", "my-model-q4", 4),
        ("pub/Repo-GGUF/b-00001-of-00002.gguf", "b", 8),
    ]
    elsewhere = tmp_path / "disk/p/r"
    elsewhere.mkdir(parents=True)
    (elsewhere / "c.gguf").write_bytes(b"GGUF")
    (tmp_path / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "disk")}))
    assert "p/r/c.gguf" in [one.name for one in theirs("lmstudio", {"HOME": str(tmp_path)})]


def test_a_tool_that_is_not_here_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match='LM Studio has no models here; give the path of a file, like "appliance'):
        theirs("lmstudio", {"HOME": str(tmp_path)})


def test_a_model_is_picked_by_its_name_or_the_end_of_it() -> None:
    models = tuple(
        Theirs(name=name, path=Path(), fit_name=slug(name), bytes=1)
        for name in ("llama3.2:latest", "p/r/One.gguf", "q/r/One.gguf", "p/r/Two.gguf")
    )
    for name in ("llama3.2", "llama3.2:latest", "LLAMA3.2"):
        assert pick(name, "ollama", models) is models[0]
    for name in ("two", "Two.gguf", "p/r/two.gguf"):
        assert pick(name, "lmstudio", models) is models[3]
    with pytest.raises(StoreError) as caught:
        pick("one", "lmstudio", models)
    assert str(caught.value) == 'LM Studio has several models "one"; write one of these: p/r/One.gguf, q/r/One.gguf.'
    with pytest.raises(StoreError, match='Ollama has no model "x"; write one of these: none'):
        pick("x", "ollama", ())


@pytest.mark.parametrize(("words", "name"), [("My Model-Q4", "my-model-q4"), ("-a/b:c_d.", "a-b-c_d")])
def test_a_name_for_the_store_is_made_of_any(words: str, name: str) -> None:
    assert slug(words) == name
