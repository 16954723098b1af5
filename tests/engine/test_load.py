"""What llama.cpp says while it fails becomes one sentence that says what to do. No model is loaded here."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.engine.cores import cores
from appliance.engine.devices import cgroup_room, free_room
from appliance.engine.load import LoadError, buffers_of, cache_of, check_file, why


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
    last = "llama_model_load_from_file_impl: failed to load model"
    sentence = why(str(tmp_path / "x.gguf"), ["llama_model_loader: loaded meta data", line, last])
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


# ----------------------------------------------------------------------------------------------- what it will need

SAID = [
    "llama_model_loader: - type  f32:   21 tensors",
    "load_tensors:          CPU model buffer size =    92.10 MiB",
    "llama_context:        CPU  output buffer size =     1.50 MiB",
    "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
    "llama_kv_cache: size =  360.00 MiB (  4096 cells,  30 layers,  4/4 seqs), K (f16):  180.00 MiB",
    "llama_memory_recurrent: size =    2.25 MiB (     4 cells,   2 layers,  4 seqs  0 rs_seq), R (f32):    0.00 MiB",
    "sched_reserve:      CUDA0 compute buffer size =   304.00 MiB",
    "sched_reserve:  CUDA_Host compute buffer size =    12.00 MiB",
    "sched_reserve:        CPU compute buffer size =    17.50 MiB",
]


def test_the_caches_and_the_buffers_are_read_from_what_llama_cpp_says() -> None:
    assert cache_of(SAID) == int(362.25 * 2**20)
    assert buffers_of(SAID) == (31 * 2**20, 304 * 2**20)


# ---------------------------------------------------------------------------------------------------- what is free


def group(place: Path, limit: str, used: int, files: int, *, names: tuple[str, str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / names[0]).write_text(f"{limit}\n", "ascii")
    (place / names[1]).write_text(f"{used}\n", "ascii")
    (place / "memory.stat").write_text(f"anon 5\n{names[2]} {files}\n", "ascii")


NEW = ("memory.max", "memory.current", "inactive_file")
OLD = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_a_container_has_what_its_limit_leaves_and_pages_of_files_do_not_count_as_used(tmp_path: Path) -> None:
    group(tmp_path, "1000", 700, 300, names=NEW)
    assert list(cgroup_room(tmp_path, "0::/\n")) == [600]


def test_the_limits_of_the_slices_above_count_too(tmp_path: Path) -> None:
    group(tmp_path / "system.slice", "5000", 4900, 0, names=NEW)
    group(tmp_path / "system.slice" / "appliance.service", "1000", 200, 0, names=NEW)
    assert sorted(cgroup_room(tmp_path, "0::/system.slice/appliance.service")) == [100, 800]


def test_a_group_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    group(tmp_path, "max", 700, 300, names=NEW)
    assert list(cgroup_room(tmp_path, "0::/")) == []
    assert list(cgroup_room(tmp_path / "nowhere", "0::/")) == []


def test_the_older_kind_of_group_is_read_where_it_is(tmp_path: Path) -> None:
    group(tmp_path / "memory" / "docker", "1000", 400, 100, names=OLD)
    assert list(cgroup_room(tmp_path, "5:cpu:/docker\n4:memory:/docker\n0::/")) == [700]
    assert list(cgroup_room(tmp_path, "4:memory:/docker/seen/from/the/host\n")) == [700]


def test_this_machine_has_some_memory_free() -> None:
    assert free_room().ram > 0
