"""A model is opened for real: what was foretold is what it takes, and what does not fit is said."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.engine.load import Load, LoadError, measure

pytestmark = pytest.mark.live

MIB = 2**20
CHILD = """
import ctypes, json, os, resource, sys
asked, ram, limit = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(*limit)
    # Root may lock what it likes, whatever the limit is: no capabilities, as with any other user.
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, none)
from appliance.engine import load
from appliance.engine.memory import Room, Rung
import psutil
wish = load.Load(**asked)
sizes = load.measure(wish)
before = psutil.Process().memory_info().rss
try:
    opened = load.open_model(wish, room=Room(ram=ram) if ram else None)
except load.LoadError as error:
    said = {"refused": str(error)}
else:
    took = psutil.Process().memory_info().rss - before
    rung = Rung(context=opened.context, kv_type=opened.kv_type, gpu_layers=0, whole_window=not opened.window)
    said = {"took": took, "foretold": sizes.model + sizes.host(rung), "context": opened.context}
    said |= {"kv_type": opened.kv_type, "steps": opened.steps, "window": opened.window, "back": opened.rolls_back}
os.write(1, json.dumps(said).encode())
os._exit(0)
"""


def opened(path: Path, *, ram: int = 0, limit: tuple[int, tuple[int, int]] | None = None, **more: Any) -> Any:
    """What a process of its own says about opening the model, with `ram` bytes supposed to be free."""
    asked = {"path": str(path), "context": 2048, "slots": 2, "threads": 1, "gpu_layers": 0} | more
    words = [sys.executable, "-c", CHILD, json.dumps([asked, ram, limit])]
    child = subprocess.run(words, capture_output=True, timeout=120, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout) | {"stderr": child.stderr}


@pytest.mark.parametrize(("context", "slots", "kv_type"), [(8192, 2, "f16"), (2048, 8, "q8_0"), (512, 1, "f16")])
def test_a_model_takes_what_was_foretold(starter_gguf: Path, context: int, slots: int, kv_type: str) -> None:
    said = opened(starter_gguf, context=context, slots=slots, kv_type=kv_type)
    assert (said["context"], said["steps"]) == (context, [])
    assert abs(said["took"] - said["foretold"]) < 0.05 * said["foretold"] + 32 * MIB


def test_a_context_of_99999999_tokens_is_neither_measured_nor_given(starter_gguf: Path) -> None:
    said = opened(starter_gguf, context=99_999_999, ram=500 * MIB)
    assert said["context"] == 4096  # the model was trained for 8,192, and 500 MiB are not enough for two of those
    assert [step.partition(":")[0] for step in said["steps"]] == [
        "A slot gets 8,192 tokens instead of 99,999,999",
        "A slot gets 4,096 tokens instead of 8,192",
    ]
    assert all(step in said["stderr"] for step in said["steps"])


def test_the_process_s_own_limit_counts_as_what_is_free(starter_gguf: Path) -> None:
    gib = 1 << 30
    said = opened(starter_gguf, context=8192, slots=16, limit=(resource.RLIMIT_AS, (gib, gib)))
    assert said["context"] < 8192
    assert "that needs 3." in said["steps"][0]


def test_what_fits_in_no_way_is_refused_in_one_sentence(starter_gguf: Path) -> None:
    said = opened(starter_gguf, ram=100 * MIB)
    assert said["refused"].startswith(f"{starter_gguf} cannot be loaded: its cache and buffers need ")
    assert "and 105 MB is free. Choose a smaller model or fewer 'slots'" in said["refused"]


def test_a_model_that_may_not_be_locked_is_served_unlocked_and_says_so(starter_gguf: Path) -> None:
    said = opened(starter_gguf, mlock=True, limit=(resource.RLIMIT_MEMLOCK, (65536, 65536)))
    assert said["steps"] == [
        "The model is not locked in memory: the system does not allow it. Raise its memlock limit"
        " (ulimit -l) to 94,313 KiB, or set mlock = false."
    ]


def test_a_sliding_window_is_all_that_is_kept_when_memory_is_short(tiny_swa: Path) -> None:
    needs = measure(Load(path=str(tiny_swa), context=4096, slots=64, gpu_layers=0)).needs
    half = needs["f16", False].cache.at(4096) + needs["f16", False].host.at(4096)
    whole = needs["f16", True].cache.at(4096) + needs["f16", True].host.at(4096)
    assert half < 0.7 * whole
    said = opened(tiny_swa, context=4096, slots=64, ram=(half + whole) // 2 + 128 * MIB)
    assert (said["context"], said["window"], said["back"]) == (4096, 32, True)
    assert "sliding window" in said["steps"][0]


def test_which_models_can_forget_the_end_of_a_sequence(
    tiny_llama: Path, tiny_hybrid: Path, tiny_recurrent: Path
) -> None:
    assert [opened(path)["back"] for path in (tiny_llama, tiny_hybrid, tiny_recurrent)] == [True, False, False]


def test_a_cache_that_cannot_be_quantized_is_kept_as_it_is(tiny_llama: Path) -> None:
    said = opened(tiny_llama, kv_type="q8_0")  # heads of 16 numbers; a block of q8_0 has 32
    assert said["kv_type"] == "f16"
    assert said["steps"] == ["The cache of this model cannot be kept as q8_0; it is kept as f16."]


def test_a_truncated_file_is_found_before_anything_is_loaded(starter_gguf: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(starter_gguf.read_bytes()[: 50 * MIB])
    with pytest.raises(LoadError, match="is truncated"):
        measure(Load(path=str(short), context=512, slots=1))
