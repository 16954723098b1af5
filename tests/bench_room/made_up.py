"""A result as a run might have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from appliance.bench.figures import Lived, Row
from appliance.bench.result import Added, Result, Setup, Takeover

SETUP = Setup(
    version="1.0",
    build="llama-cpp-python 0.3.36",
    cpu="Fast 9000",
    cores=2,
    gpu="",
    backends="CPU",
    instruction_sets="AVX2",
    filename="m.gguf",
    model_type="llama 1B Q4_0",
    model_size=98_000_000,
    parameters=134_515_008,
    read_per_token=100_000_000,
    threads=2,
    kv_type="f16",
    gpu_layers=0,
    layers=30,
    random_weights=False,
    at="2026-11-21T12:00:00Z",
    busy=0.2,
    bandwidth=20e9,
)
ROWS = (
    Row(n_prompt=512, n_gen=0, speeds=(400.0, 410.0, 390.0), firsts=(1.25, 1.3, 1.35)),
    Row(n_prompt=0, n_gen=128, speeds=(100.0, 102.0, 98.0), gaps=(0.01, 0.01, 0.02), per_token=(0.01,)),
    Row(n_prompt=512, n_gen=0, n_depth=4096, speeds=(100.0, 99.0, 101.0), firsts=(5.0,)),
    Row(n_prompt=128, n_gen=64, speeds=(150.0,), firsts=(0.4,), gaps=(0.01,), written=(50.0,), each=(90.0,)),
    Row(n_prompt=128, n_gen=64, n_parallel=4, speeds=(300.0,), firsts=(0.8,), written=(100.0,), each=(40.0, 44.0)),
)
RESULT = Result(
    setup=SETUP,
    rows=ROWS,
    load_cold=1.9,
    load_warm=0.8,
    peak_memory=251_000_000,
    service_memory=67_000_000,
    takeover=Takeover(prompt_tokens=2000, cold=(9.9,), standby=(0.02, 0.021, 0.04), noticed=(0.0013,), steps=(0.015,)),
    added=Added(first=(0.001, 0.0011, 0.0012), token=(0.00001, 0.000011, 0.000012), direct=(0.0003,)),
)


def result(*, setup: dict[str, Any] | None = None, **changed: Any) -> Result:
    """The same but for what is said."""
    return replace(RESULT, setup=replace(SETUP, **(setup or {})), **changed)


def answer(asked: float = 0.0, *pieces: float, prompt: int = 100, generated: int = 5, cached: int = 0) -> Lived:
    """One that was over with its last piece."""
    times = pieces or (1.0, 2.0)
    return Lived(
        asked=asked,
        pieces=times,
        ended=times[-1],
        computed=prompt,
        cached=cached,
        generated=generated,
        writing=times[-1] - times[0],
    )
