"""The benchmark's questions, and one real run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.__main__ import main
from appliance.cli.bench import _Trial, cpu_name, peak_memory
from appliance.cli.outcome import Unwell


class FakeEngine:
    """An engine with a template of 20 tokens and two tokens to each word; gives the tokens asked for."""

    def __init__(self, refuse: str | None = None) -> None:
        self.jobs: list[Mapping[str, Any]] = []
        self.refuse = refuse

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        self.jobs.append(job)
        if self.refuse:
            yield [{"op": "error", "id": 1, "fault": "too_long", "message": self.refuse}]
            return
        tokens = 20 + 2 * len(job["messages"][-1]["content"].split())
        yield [{"op": "begun", "id": 1}]
        for _ in range(job["max_tokens"]):
            yield [{"op": "text", "id": 1, "text": "a"}]
        counts = {"prompt_tokens": tokens, "completion_tokens": job["max_tokens"], "cached_tokens": 0}
        yield [{"op": "finish", "id": 1, "reason": "length", **counts}]


def test_prompts_are_made_as_long_as_asked_for_and_none_begins_like_another() -> None:
    async def measure() -> tuple[list[int], list[str]]:
        engine = FakeEngine()
        trial = _Trial(engine, 512, 8)  # type: ignore[arg-type]
        await trial.calibrate()
        answers = await trial.together(4)
        assert [(answer.generated, len(answer.pieces)) for answer in answers] == [(8, 8)] * 4
        beginnings = [" ".join(job["messages"][0]["content"].split()[:8]) for job in engine.jobs[-4:]]
        return [answer.prompt_tokens for answer in answers], beginnings

    lengths, beginnings = asyncio.run(measure())
    assert all(abs(length - 512) <= 2 for length in lengths)
    assert len(set(beginnings)) == 4


def test_a_refusal_of_the_engine_ends_the_measurement_with_its_sentence() -> None:
    trial = _Trial(FakeEngine("It does not fit."), 512, 8)  # type: ignore[arg-type]
    with pytest.raises(Unwell, match="the engine refused to be measured: It does not fit"):
        asyncio.run(trial.together(1))


def test_the_processor_has_a_name() -> None:
    assert cpu_name(lambda: "processor : 0\nmodel name\t: Fast 9000 \n") == "Fast 9000"

    def unreadable() -> str:
        raise FileNotFoundError

    assert cpu_name(unreadable)


def test_memory_is_that_of_the_process() -> None:
    assert peak_memory(os.getpid()) > 5_000_000
    assert peak_memory(None) == 0


def test_a_model_that_is_not_there_ends_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "starter"]) == 64
    assert 'run "appliance models pull starter"' in capsys.readouterr().err


@pytest.mark.live
def test_a_real_model_is_measured(starter_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("[local]\nthreads = 1\n")
    asked = ["--parallel", "1,2", "--rounds", "1", "--gen", "8", "--prompt-tokens", "64", "--json"]
    assert main(["bench", "--config", str(tmp_path / "a.toml"), "--model", str(starter_gguf), *asked]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["n_parallel"], row["n_gen"]) for row in rows] == [(1, 0), (1, 8), (2, 0), (2, 8)]
    assert all(abs(row["n_prompt"] - 64) <= 6 for row in rows if not row["n_gen"])
    assert all(row["avg_ts"] > 0 for row in rows)
    assert rows[0]["peak_memory_bytes"] > 90_000_000
    assert rows[0]["model_filename"] == starter_gguf.name
    assert rows[0]["n_threads"] == 1
