"""The box itself, judged: what is said, whose it is, and what there is to do."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.core.machine import Device, Machine, Placement, Weight
from appliance.doctor.checks import (
    clock,
    cpu,
    disk,
    engine,
    gpu,
    limits,
    memory,
    model,
    port,
    secrets,
    service,
    settings,
)
from appliance.doctor.checks.cpu import Build, Processor
from appliance.doctor.checks.disk import Folder
from appliance.doctor.checks.engine import Trial
from appliance.doctor.checks.gpu import Card
from appliance.doctor.checks.limits import Ulimits
from appliance.doctor.checks.memory import Need
from appliance.doctor.checks.model import File
from appliance.doctor.checks.port import Port
from appliance.doctor.checks.secrets import KeyFile
from appliance.doctor.checks.settings import Written

GB = 10**9
MACHINE = Machine(
    cpu="Some CPU",
    cores=8,
    threads=4,
    ram_total=16 * GB,
    ram_free=8 * GB,
    gpu_offload=False,
    devices=(),
    instruction_sets=("SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "OPENMP"),
    build="0.3.36",
)
FLAGS = frozenset("pni ssse3 avx avx2 f16c fma".split())
HERE = Build(machine=MACHINE)
CLONE = Build(machine=MACHINE, clone=True)

# -------------------------------------------------------------------------------------------------- processor


def test_a_build_that_fits_the_processor() -> None:
    found = cpu.verdict(Processor(flags=FLAGS), HERE)
    assert (found.state, found.said) == ("ok", "Some CPU, 4 threads; llama.cpp 0.3.36 uses AVX2, F16C and FMA")


def test_a_build_for_a_better_processor_will_die() -> None:
    found = cpu.verdict(Processor(flags=FLAGS - {"avx2", "fma"}), HERE)
    assert found.state == "wrong"
    assert found.said == "llama.cpp was built with AVX2 and FMA, which this processor has not: it will die of it"


def test_one_that_died_of_it_is_known_by_its_signal() -> None:
    dead = Build(trouble="llama.cpp ended without an answer (describe, signal 4).", clone=True)
    found = cpu.verdict(Processor(flags=FLAGS), dead)
    assert found.said == "llama.cpp dies of an illegal instruction: it was built for another processor"
    assert found.fix == "Build it here: rm -r .venv; pip cache remove llama_cpp_python; ./scripts/run"


def test_a_build_for_a_lesser_processor_is_slow() -> None:
    lesser = Build(machine=replace(MACHINE, instruction_sets=("SSE3", "SSSE3")))
    found = cpu.verdict(Processor(flags=FLAGS), lesser)
    assert (found.state, found.who) == ("wrong", "box")
    assert "built without AVX2 and FMA, which this processor has" in found.said
    assert found.fix is not None and "pip install --no-cache-dir --force-reinstall" in found.fix


def test_what_is_compiled_anew_is_the_version_that_was_here_by_the_python_that_runs() -> None:
    build = replace(HERE, python="/opt/my box/bin/python", version="0.3.36")
    assert build.again("-DGGML_CUDA=ON") == (
        "CMAKE_ARGS=\"-DGGML_CUDA=ON\" '/opt/my box/bin/python' -m pip install --no-cache-dir --force-reinstall "
        "--no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36"
    )


def test_a_library_that_cannot_be_loaded_is_said_in_its_words() -> None:
    found = cpu.verdict(Processor(), Build(trouble="libcuda.so.1: cannot open shared object file."))
    assert found.said == "llama.cpp cannot be used: libcuda.so.1: cannot open shared object file"


def test_a_box_that_is_too_busy_to_say_is_not_said_to_be_broken() -> None:
    assert cpu.verdict(Processor(), Build()).state == "skipped"


def test_where_the_kernel_does_not_tell_nothing_is_held_against_a_build() -> None:
    assert cpu.verdict(Processor(), HERE).state == "ok"


# -------------------------------------------------------------------------------------------------------- GPU

CARD = Card(vendor="NVIDIA", name="NVIDIA GeForce RTX 4090", driver=True, nodes=True)
CUDA = replace(MACHINE, gpu_offload=True)
DEVICE = Device(name="CUDA0", description="NVIDIA GeForce RTX 4090", kind="gpu", total=24 * GB, free=20 * GB)


def test_a_build_for_the_cpu_only_on_a_box_with_a_gpu_names_the_command_that_builds_it() -> None:
    found = gpu.verdict((CARD,), CLONE)
    assert (found.state, found.who) == ("wrong", "box")
    assert found.said == "NVIDIA GeForce RTX 4090 is here, but llama.cpp was built for the CPU only"
    assert found.fix == 'With the CUDA toolkit installed: CMAKE_ARGS="-DGGML_CUDA=ON" ./scripts/run'


@pytest.mark.parametrize(
    ("cards", "machine", "state", "said"),
    [
        ((), MACHINE, "ok", "none that would help; the CPU computes"),
        ((Card(vendor="Intel", driver=True, nodes=True),), MACHINE, "ok", "none that would help; the CPU computes"),
        ((), CUDA, "ok", "none; llama.cpp was built for one and computes on the CPU"),
        ((CARD,), replace(CUDA, devices=(DEVICE,)), "ok", "CUDA0 NVIDIA GeForce RTX 4090 (20.0 GB free)"),
        (
            (replace(CARD, driver=False, name=""),),
            MACHINE,
            "warn",
            "a GPU of NVIDIA is here, but there is no driver for it; the CPU computes",
        ),
        (
            (replace(CARD, nodes=False),),
            MACHINE,
            "warn",
            "NVIDIA GeForce RTX 4090 is here, but its devices are not visible here; the CPU computes",
        ),
        (
            (replace(CARD, driver=False),),
            CUDA,
            "wrong",
            "llama.cpp was built for a GPU, but sees none; NVIDIA GeForce RTX 4090 is here "
            "without a driver that answers",
        ),
        (
            (CARD,),
            CUDA,
            "wrong",
            "llama.cpp was built for a GPU, but sees none; NVIDIA GeForce RTX 4090 is here",
        ),
        ((Card(vendor="AMD", nodes=True),), MACHINE, "warn", "a GPU of AMD is here and not used"),
        ((Card(vendor="AMD"),), MACHINE, "ok", "none that would help; the CPU computes"),
    ],
)
def test_a_gpu(cards: tuple[Card, ...], machine: Machine, state: str, said: str) -> None:
    found = gpu.verdict(cards, Build(machine=machine))
    assert (found.state, found.said) == (state, said)


# ----------------------------------------------------------------------------------------------------- memory


def made(kind: type, **said: object) -> Any:
    """A value of which only this much matters here."""
    return kind(**{field.name: 0 for field in fields(kind)} | said)


PLACE = made(Placement, ram=6 * GB, devices=(), steps=())
WEIGHT = made(Weight, name="Some 7B", model=4 * GB, asked=PLACE, chosen=PLACE, refusal=None)


@pytest.mark.parametrize(
    ("need", "state", "said"),
    [
        (Need(weight=WEIGHT), "ok", "Some 7B takes 6.0 GB of RAM; 8.0 GB are free"),
        (Need(weight=WEIGHT, loaded=True), "ok", "Some 7B takes 6.0 GB of RAM, and is loaded"),
        (
            Need(weight=replace(WEIGHT, asked=replace(PLACE, devices=(5 * GB, GB)))),
            "ok",
            "Some 7B takes 6.0 GB of RAM and 6.0 GB on the GPU; 8.0 GB are free",
        ),
        (
            Need(weight=replace(WEIGHT, chosen=None, refusal="It needs 20 GB.")),
            "wrong",
            "Some 7B takes 6.0 GB of RAM, and 8.0 GB are free: It needs 20 GB",
        ),
        (
            Need(weight=replace(WEIGHT, chosen=replace(PLACE, steps=("The context is 2048.",)))),
            "warn",
            "Some 7B takes 6.0 GB of RAM, and 8.0 GB are free: The context is 2048",
        ),
        (
            Need(weight=replace(WEIGHT, chosen=replace(PLACE, from_disk=True, steps=("Only 512.", "It is larger.")))),
            "wrong",
            "Some 7B takes 6.0 GB of RAM, and 8.0 GB are free: it does not fit,"
            " and parts of it would be read from disk for every token",
        ),
        (Need(unknown="there is no model to weigh"), "skipped", "not weighed: there is no model to weigh"),
        (Need(unknown="x", refused=True), "skipped", "not weighed: the model cannot be loaded"),
    ],
)
def test_the_memory_a_model_takes(need: Need, state: str, said: str) -> None:
    found = memory.verdict(need, MACHINE)
    assert (found.state, found.said) == (state, said)


# ------------------------------------------------------------------------------------------------------- disk

STATE = Folder(what="state", path=Path("/state"), free=50 * GB, files_free=1000)
MODELS = Folder(what="models", path=Path("/models"), free=60 * GB, needed=False)


@pytest.mark.parametrize(
    ("folder", "state", "said"),
    [
        (STATE, "ok", "state 50.0 GB free, models 60.0 GB free"),
        (replace(STATE, free=10**6), "wrong", "full: 1 MB are free for the state folder /state"),
        (replace(STATE, free=10**8), "warn", "only 100 MB are free for the state folder /state"),
        (replace(STATE, files_free=0), "wrong", "full: no more files can be made in the state folder /state"),
        (replace(STATE, files_free=None), "ok", "state 50.0 GB free, models 60.0 GB free"),
        (
            replace(STATE, trouble="Permission denied"),
            "wrong",
            "the state folder /state cannot be written: permission denied",
        ),
        (
            replace(STATE, trouble="x", read_only=True),
            "wrong",
            "the state folder /state cannot be written: its file system is read-only",
        ),
    ],
)
def test_a_disk(folder: Folder, state: str, said: str) -> None:
    found = disk.verdict((folder, MODELS))
    assert (found.state, found.said) == (state, said)


def test_models_may_lie_on_a_full_disk_that_cannot_be_written() -> None:
    carried = replace(MODELS, free=0, read_only=True, trouble="Read-only file system")
    assert disk.verdict((STATE, carried)).state == "ok"
    assert disk.verdict((STATE, replace(MODELS, free=0))).state == "wrong"


# --------------------------------------------------------------------------------------- model, port and others


@pytest.mark.parametrize(
    ("file", "state", "said", "fix"),
    [
        (File(name="starter", bytes=98 * 10**6, checked="hash"), "ok", "starter, 98 MB, its sha256 is right", None),
        (
            File(name="big", bytes=40 * GB),
            "ok",
            "big, 40.0 GB, its size is right (--deep reads every byte)",
            None,
        ),
        (
            File(name="mine", bytes=GB, checked="no hash"),
            "ok",
            "mine, 1.0 GB, no catalog has a hash of it to compare with",
            None,
        ),
        (
            File(
                name="starter", trouble='the model x is truncated: 5 of 9 bytes; run "appliance models pull starter".'
            ),
            "wrong",
            "the model x is truncated: 5 of 9 bytes",
            'Run "appliance models pull starter".',
        ),
        (
            File(name="mine", refused="unknown model architecture: 'foo'"),
            "wrong",
            "llama.cpp cannot load mine: unknown model architecture: 'foo'",
            "Get it again, or choose another: `appliance models list`.",
        ),
    ],
)
def test_a_model(file: File, state: str, said: str, fix: str | None) -> None:
    found = model.verdict(file)
    assert (found.state, found.said, found.fix) == (state, said, fix)


OURS = Port(host="127.0.0.1", port=8484, state="free", ours="0.2.0")


@pytest.mark.parametrize(
    ("seen", "state", "who", "said"),
    [
        (OURS, "ok", None, "127.0.0.1:8484 is free; no appliance is running"),
        (
            replace(OURS, state="appliance", version="0.2.0"),
            "ok",
            None,
            "an appliance of version 0.2.0 listens at 127.0.0.1:8484",
        ),
        (
            replace(OURS, state="appliance", version="0.1.0"),
            "warn",
            "you",
            "at 127.0.0.1:8484 runs version 0.1.0, and 0.2.0 is installed",
        ),
        (
            replace(OURS, state="taken", program="nginx", pid=7),
            "wrong",
            "you",
            "127.0.0.1:8484 is taken by nginx (pid 7), which is no appliance",
        ),
        (
            replace(OURS, state="taken"),
            "wrong",
            "you",
            "127.0.0.1:8484 is taken by another program, which is no appliance",
        ),
        (
            replace(OURS, state="taken", program="appliance", pid=7, mute=True),
            "wrong",
            "you",
            "127.0.0.1:8484 is taken by appliance (pid 7), which does not answer",
        ),
        (replace(OURS, state="denied"), "wrong", "you", "127.0.0.1:8484 may not be listened at by this user"),
        (replace(OURS, state="not here"), "wrong", "you", "127.0.0.1 is no address of this box"),
    ],
)
def test_a_port(seen: Port, state: str, who: str | None, said: str) -> None:
    found = port.verdict(seen)
    assert (found.state, found.who, found.said) == (state, who, said)


FILE = KeyFile(path=Path("/k"), days=3)


@pytest.mark.parametrize(
    ("files", "state", "said"),
    [
        ((), "ok", "no key is in a file"),
        ((FILE,), "ok", "/k, 3 days old"),
        ((FILE, replace(FILE, days=400)), "warn", "/k is 400 days old"),
    ],
)
def test_files_with_keys(files: tuple[KeyFile, ...], state: str, said: str) -> None:
    found = secrets.verdict(files)
    assert (found.state, found.said) == (state, said)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (Written(), [("ok", None, "the defaults and the environment; there is no file", None)]),
        (Written(source="/a.toml"), [("ok", None, "/a.toml", None)]),
        (
            Written(refused='/a.toml, line 2: [server] has no key "prot"; did you mean "port"?'),
            [("wrong", "you", '/a.toml, line 2: [server] has no key "prot"', 'Did you mean "port"?')],
        ),
        (
            Written(refused="/a.toml, line 1: upstream.key is env:KEY, but KEY is not set; export it."),
            [("wrong", "key", "/a.toml, line 1: upstream.key is env:KEY, but KEY is not set", "Export it.")],
        ),
        (
            Written(source="/a.toml", warnings=("a; do b.", "c.")),
            [("warn", "you", "a", "Do b."), ("warn", "you", "c", None)],
        ),
    ],
)
def test_a_configuration(written: Written, expected: list[tuple[str, str | None, str, str | None]]) -> None:
    found = [(one.state, one.who, one.said, one.fix) for one in settings.verdicts(written)]
    assert found == expected


@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    [
        (None, "skipped", "nobody answered whose clock could be compared"),
        (3, "ok", "agrees with others'"),
        (-600, "warn", "10 minutes behind others'"),
        (3 * 86400, "wrong", "3 days ahead of others'"),
    ],
)
def test_a_clock(seconds: int | None, state: str, said: str) -> None:
    found = clock.verdict(None if seconds is None else timedelta(seconds=seconds))
    assert (found.state, found.said) == (state, said)


@pytest.mark.parametrize(
    ("found", "state", "said"),
    [
        (Ulimits(files=20000, locked=8 << 20), "ok", "20000 open files"),
        (Ulimits(files=None, locked=None, to_lock=GB), "ok", "any number of open files"),
        (Ulimits(files=256, locked=None), "warn", "only 256 open files are allowed"),
        (
            Ulimits(files=None, locked=8 * 10**6, to_lock=4 * GB),
            "wrong",
            "mlock is on, 8 MB may be locked, and the model is 4.0 GB",
        ),
    ],
)
def test_limits(found: Ulimits, state: str, said: str) -> None:
    assert (limits.verdict(found).state, limits.verdict(found).said) == (state, said)


READY = {
    "serving": "claude",
    "engine": {"state": "ready", "tok_s": 98.4},
    "upstreams": [{"name": "a", "state": "closed"}],
}


@pytest.mark.parametrize(
    ("status", "state", "who", "said"),
    [
        (READY, "ok", None, "serving claude; the engine is ready (98 tok/s)"),
        (
            READY | {"serving": None, "engine": {"state": "loading"}},
            "wrong",
            "box",
            "serving nobody; the engine is loading",
        ),
        (READY | {"engine": {"state": "loading"}}, "ok", None, "serving claude; the engine is loading"),
        (
            READY | {"engine": {"state": "ready", "refused": "70b was refused: it takes 49 GB."}},
            "warn",
            "box",
            "serving claude; the engine is ready; 70b was refused: it takes 49 GB",
        ),
        (
            READY | {"engine": {"state": "failing", "last_death": "signal 9."}},
            "wrong",
            "box",
            "serving claude; the engine is failing: signal 9",
        ),
        (
            READY | {"journal": {"trouble": "disk is full"}},
            "wrong",
            "box",
            "serving claude; the engine is ready (98 tok/s); its journal cannot be written: disk is full",
        ),
        (
            READY | {"upstreams": [{"name": "a", "state": "open"}]},
            "warn",
            "them",
            "serving claude; the engine is ready (98 tok/s); set aside: a",
        ),
        (
            READY | {"upstreams": [{"name": "a", "state": "open", "alarm": "a refuses its key; correct it."}]},
            "warn",
            "key",
            "serving claude; the engine is ready (98 tok/s); set aside: a",
        ),
    ],
)
def test_a_running_service(status: dict[str, object], state: str, who: str | None, said: str) -> None:
    found = service.verdict(status)
    assert (found.state, found.who, found.said) == (state, who, said)


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (Trial(load_s=1.5, tok_s=98.4), "ok", "the model answered, 98 tok/s, ready in 1.5 s"),
        (
            Trial(load_s=1.5, steps_down=("The context is 2048.",)),
            "warn",
            "the model answered, at an unknown speed, ready in 1.5 s; but The context is 2048",
        ),
        (Trial(trouble="it died."), "wrong", "the model did not answer: it died"),
    ],
)
def test_an_answer(answer: Trial, state: str, said: str) -> None:
    found = engine.verdict(answer)
    assert (found.state, found.said) == (state, said)
