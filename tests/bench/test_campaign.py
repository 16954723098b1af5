"""The campaign itself, in small: real sockets, the real service as a process, a scripted engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaign_plan import ON_THE_WIRE, plan

pytestmark = pytest.mark.long

CAMPAIGN = Path(__file__).resolve().parents[2] / "bench" / "campaign.py"


@pytest.fixture
def run(tmp_path):
    def run(*arguments):
        found = tmp_path / "found.json"
        command = [sys.executable, str(CAMPAIGN), "--json", str(found), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        return done, json.loads(found.read_text()) if found.exists() else {}

    return run


@pytest.mark.live
def test_a_hundred_requests_through_faults_of_every_kind(run):
    done, found = run("--requests", "100", "--seed", "5")
    assert (done.returncode, found["broken"], found["requests"]) == (0, [], 100), done.stdout + done.stderr
    assert {"cloud", "box", "continued", "caller"} <= found["outcomes"].keys()
    assert found["tasks"][0] == found["tasks"][-1]


@pytest.mark.live
def test_one_request_of_a_seed_is_run_alone_and_told_in_full(run):
    done, found = run("--only", "3", "--seed", "5")
    assert (done.returncode, found["requests"]) == (0, 1), done.stdout + done.stderr
    assert repr(plan(5, 3)) in done.stdout


def test_a_seed_and_a_number_are_always_the_same_request():
    one, again, other, elsewhere = plan(1, 2), plan(1, 2), plan(1, 3), plan(2, 2)
    assert (one, one.body, one.schemas) == (again, again.body, again.schemas)
    assert one not in (other, elsewhere)


def test_chance_brings_every_fault_every_kind_and_every_pair_of_dialects():
    plans = [plan(1, key) for key in range(1500)]
    assert {made.fault for made in plans} >= {*ON_THE_WIRE, "healthy", "anywhere", "refused"}
    assert {made.kind for made in plans} == {"words", "calls", "document"}
    firsts = {(made.api, made.route[0], made.stream) for made in plans if made.route}
    assert {
        (api, letter, stream) for api in ("openai", "anthropic") for letter in "oawx" for stream in (True, False)
    } <= firsts
    assert any(made.hint.dies >= 0 for made in plans) and any(made.leaves for made in plans)
    assert any(made.astray for made in plans) and any(made.choices > 1 for made in plans)
