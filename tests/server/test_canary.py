"""A canary on the running service: asked while applications use the cloud, and nobody's request."""

from __future__ import annotations

import json

import pytest

from appliance.backends import health
from appliance.config import BreakerConfig
from appliance.core.canary import QUESTIONS
from appliance.core.fault import Fault
from appliance.drills.faults import HEALTHY
from appliance.drills.script import Script
from tests.fakes import Stage

pytestmark = pytest.mark.live

EVERYTHING = " ".join(answer for one in QUESTIONS for answer in one.answers[:1])
OFTEN = BreakerConfig(failures=1, canary_interval=0.02)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)


def asked(box: Stage) -> bool:
    """Did a canary's question come to the cloud?"""
    return any(json.loads(exchange.asked.body)["model"] == "tiny-1" for exchange in box.cloud.chats)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_while_applications_use_the_cloud_its_canary_is_asked_and_is_in_no_journal(box: Stage, api: str) -> None:
    aliases = (("small-*", "tiny-1"),)
    box.play(HEALTHY.act, script=Script(text=EVERYTHING), api=api, canary="small-x", aliases=aliases, breaker=OFTEN)
    assert [one.dialect for one in box.appliance._patients()] == [api]
    total = box.appliance.journal.counts.total
    box.ask()
    box.until(lambda: asked(box) and "cloud" in box.appliance.health.canaries)
    report = box.appliance.health.canaries["cloud"]
    assert (report.model, report.last) == ("tiny-1", "ok")
    assert box.appliance.journal.counts.total == total + 1
    assert box.appliance.breakers["cloud"].state(box.now(), "tiny-1") == "closed"


def test_nobody_is_asked_where_no_application_asks_or_after_it_is_taken_out(box: Stage) -> None:
    box.play(HEALTHY.act, script=Script(text=EVERYTHING), canary="tiny-1", breaker=OFTEN)
    box.call(_looks(box, 5))
    assert not asked(box)
    box.play(HEALTHY.act, script=Script(text=EVERYTHING), breaker=OFTEN)
    box.ask()
    box.call(_looks(box, 5))
    assert not asked(box)


async def _looks(box: Stage, number: int) -> None:
    """Everybody's turn has come so many times."""
    for _ in range(number):
        await box.appliance.health._canaries.look(
            box.appliance._patients(), box.now(), interval=0.0, dice=health.random.Random(7)
        )


def test_a_cloud_that_talks_nonsense_is_set_aside_for_that_model(box: Stage) -> None:
    box.play(HEALTHY.act, canary="tiny-1", breaker=OFTEN)  # it tells its story, whatever it is asked
    box.ask()
    box.until(lambda: "tiny-1" in box.appliance.breakers["cloud"].aside(box.now()))
    last = box.appliance.breakers["cloud"].last
    assert last is not None
    assert (last.fault, last.message) == (Fault.QUALITY, "Asked something easy, cloud gave a wrong answer.")
    assert box.ask().headers["x-appliance-served-by"] == "cloud"  # for the model of the application
