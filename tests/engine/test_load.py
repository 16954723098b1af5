"""What llama.cpp says while it fails becomes one sentence that says what to do. No model is loaded here."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.engine.cores import cores
from appliance.engine.model import LoadError, check_file, why


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("llama_model_load: error loading model: tensor 'blk.3' data is not within the file bounds", "is truncated"),
        ("error loading model: unknown model architecture: 'future9'", "kind 'future9'"),
        ("gguf_init_from_file_ptr: failed to read key-value pairs", "damaged or truncated"),
        ("llama_model_load: error loading model: done for", "llama.cpp says: llama_model_load: error"),
        ("", "no reason"),
    ],
)
def test_a_failed_load_is_one_sentence_about_the_file(tmp_path: Path, line: str, words: str) -> None:
    sentence = why(str(tmp_path / "x.gguf"), ["llama_model_loader: loaded meta data", line])
    assert sentence.startswith(str(tmp_path / "x.gguf"))
    assert words in sentence


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04zip"])
def test_what_does_not_begin_like_a_gguf_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="not a GGUF file"):
        check_file(str(path))


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1
