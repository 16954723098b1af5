"""In a network of its own, which really breaks: does doctor name the right culprit?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doctor import world
from tests.doctor.world import API

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.live

CULPRITS = {
    "well": ["Nothing is wrong."],
    "expired": [f"It is them: TLS of openai: the certificate of {API} expired 365 days ago ("],
    "failing": [
        "It is them: openai answers 529 (overloaded), and its status page says "
        '"Partial System Outage: Elevated errors on the API".'
    ],
    "refusing": [
        "It is your key: openai: the key from env:OPENAI_API_KEY is refused (401): invalid_api_key; "
        "it does not accept the key."
    ],
    "spoofed": [
        f"It is you: DNS of openai: spoofed: {API} is {world.PORTAL} by the name server 10.77.0.15, "
        f"and so is every name that does not exist ({world.PORTAL})."
    ],
    "broken": [f"It is you: DNS of openai: broken: the name server 10.77.0.16 answers SERVFAIL for {API}."],
    "silent": ["It is you: DNS of openai: broken: the name server 10.77.0.17 does not answer."],
    "lost": [
        f"It is them: TCP of openai: {world.LOST}:443 does not answer the knock, while others out there answer.",
    ],
    "portal": [
        "It is you: TLS of openai: a captive portal is in between: we are sent on to login.hotel.example (302)."
    ],
    "blocked": [
        f"It is you: DNS of openai: spoofed: {API} is 127.0.0.1 by the name server 10.77.0.20, which is this very box."
    ],
    "mute": ["It is them: openai took the question and said nothing."],
    "unknown": [f"It is you: DNS of openai: blocked: the name server 10.77.0.22 says that {API} has no address."],
    "no gateway": [f"It is you: link of openai: eth0 is up, but there is no route to {world.HEALTHY}."],
    "cable out": ["It is you: link of openai: no network interface is up (eth0 is down or without a carrier)."],
}


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if why := world.missing():
        pytest.skip(f"no network of our own: {why}")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was found in each story, all told to one process on the box, one after the other."""
    here = tmp_path_factory.mktemp("world")
    with world.world(here) as on_box:
        command = [*on_box, sys.executable, "-m", "tests.doctor.world", "look", str(here)]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_every_story_was_told(seen: dict[str, Any]) -> None:
    assert list(seen) == list(CULPRITS)


@pytest.mark.parametrize("story", CULPRITS)
def test_doctor_names_the_culprit(story: str, seen: dict[str, Any]) -> None:
    lines = seen[story]["whose"]
    assert [line.startswith(expected) for line, expected in zip(lines, CULPRITS[story], strict=True)] == [True], lines


def test_above_the_broken_layer_nothing_is_claimed(seen: dict[str, Any]) -> None:
    states = {story: [state for _, state in told["findings"]] for story, told in seen.items()}
    for story in CULPRITS.keys() - {"well"}:
        broken = states[story].index("wrong")
        assert "skipped" not in states[story][:broken]
        assert {state for _, state in seen[story]["findings"][broken + 1 : 6]} <= {"skipped"}


def test_the_key_goes_to_nobody_who_did_not_prove_to_be_the_cloud(seen: dict[str, Any]) -> None:
    heard = {story: told["heard"] for story, told in seen.items()}
    assert {story for story, keys in heard.items() if keys} == {"well", "failing", "refusing", "mute"}


def test_a_box_without_any_network_is_told_so_by_the_command(isolated: Path) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "appliance", "doctor", "--json"],
        cwd=ROOT,
        env={**os.environ, "OPENAI_API_KEY": "sk-test"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    said = json.loads(done.stdout)
    link = said["sections"][1]["findings"][0]
    assert (link["layer"], link["state"], link["who"]) == ("link", "wrong", "you")
    assert said["whose"][0] == (
        "It is you: link of openai: no network interface is up, and there is none but the loopback."
    )
