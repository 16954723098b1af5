"""A foreign client: litellm, which speaks both dialects and has readers of its own for both.

It wants another version of the openai package than the tests do, so it lives in an environment of its own, made
once and kept in the cache folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.config import default_paths
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import Stage, stage

pytestmark = pytest.mark.live

WANTED = "litellm>=1.80,<2"
SCRIPT = Path(__file__).with_name("litellm_client.py")
WIRES = ("openai", "anthropic")


@pytest.fixture(scope="module")
def litellm() -> Iterator[subprocess.Popen[str]]:
    """A client that asks what it is told to."""
    quiet = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    asked = [str(_python()), str(SCRIPT)]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet) as running:
        yield running
        running.terminate()


def _python() -> Path:
    """A Python that has litellm."""
    home = default_paths(os.environ).cache / "test-litellm"
    found = home / "bin" / "python"
    if not (home / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, capture_output=True)
        subprocess.run([str(found), "-m", "pip", "install", "-q", WANTED], check=True, capture_output=True)
        (home / "complete").touch()
    return found


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


def ask(litellm: subprocess.Popen[str], box: Stage, provider: str, how: str) -> Any:
    assert litellm.stdin is not None and litellm.stdout is not None
    litellm.stdin.write(json.dumps([box.url, provider, how]) + "\n")
    litellm.stdin.flush()
    for line in litellm.stdout:
        if line.startswith("said "):
            return json.loads(line.removeprefix("said "))
    raise AssertionError("litellm failed; its own words are above")


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("provider", WIRES)
def test_a_cloud_dies_in_mid_text(litellm: subprocess.Popen[str], box: Stage, provider: str, api: str) -> None:
    box.play(FAULTS["cut-reset"].act, api=api)
    said = ask(litellm, box, provider, "streamed")
    assert said == {"text": box.cloud.exchanges[-1].text + box.local.text, "finishes": ["stop"]}


@pytest.mark.parametrize("api", WIRES)
@pytest.mark.parametrize("provider", WIRES)
def test_a_whole_answer_of_a_healthy_cloud_and_one_of_a_dying_one(
    litellm: subprocess.Popen[str], box: Stage, provider: str, api: str
) -> None:
    box.play(HEALTHY.act, api=api)
    assert ask(litellm, box, provider, "whole")["text"] == box.cloud.exchanges[-1].text
    box.play(FAULTS["cut-reset"].act, api=api)
    assert ask(litellm, box, provider, "whole") == {"text": box.local.text, "finishes": ["stop"]}
