"""A cloud that keeps failing is left alone, and is asked again later."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from appliance.config import BreakerConfig, Config
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import BODY, KEY, QUICK, Stage

pytestmark = pytest.mark.live

FAILURES = 3
SOON = BreakerConfig(failures=FAILURES, cooldown=0.05)


def state(box: Stage, index: int = 0) -> str:
    return str(box.get("/appliance/status").json()["upstreams"][index]["state"])


@pytest.mark.parametrize("name", ["server-error", "cut-reset", "captive-portal", "no-finish", "reset"])
@pytest.mark.parametrize("stream", [True, False])
def test_after_three_failures_the_cloud_is_not_asked_any_more(box: Stage, name: str, stream: bool) -> None:
    box.play(FAULTS[name].act)
    for _ in range(FAILURES):
        assert state(box) == "closed"
        box.ask(stream=stream)
    assert state(box) == "open"
    heard = box.ask(stream=stream)
    again = 1 if name == "server-error" else 0  # one more try; for the next ones there is no budget so soon
    assert len(box.cloud.exchanges) == FAILURES + again
    assert heard.text == box.local.text
    assert heard.headers["x-appliance-served-by"] == "local"
    assert heard.headers["x-appliance-fallback"] == "breaker-open"


@pytest.mark.parametrize("name", ["quota", "wrong-key", "rate-limit", "overloaded"])
def test_a_certain_failure_is_enough(box: Stage, name: str) -> None:
    box.play(FAULTS[name].act)
    box.ask()
    assert state(box) == "open"
    box.ask()
    assert len(box.cloud.exchanges) == 1


def test_the_time_to_come_back_is_the_clouds(box: Stage) -> None:
    box.play(FAULTS["rate-limit"].act)
    box.ask()
    upstream = box.get("/appliance/status").json()["upstreams"][0]
    assert 25 < upstream["reopens_in_s"] <= box.cloud.script.retry_after


def test_a_wrong_configuration_is_told_to_whoever_looks(box: Stage) -> None:
    box.play(FAULTS["wrong-key"].act)
    box.ask()
    assert "key" in box.get("/appliance/status").json()["upstreams"][0]["alarm"]


@pytest.mark.parametrize("name", ["bad-request", "content-policy", "too-long", "no-done"])
def test_what_is_not_the_clouds_failure_does_not_count(box: Stage, name: str) -> None:
    box.play(FAULTS[name].act)
    for _ in range(FAILURES + 1):
        box.ask()
    assert state(box) == "closed"
    assert len(box.cloud.exchanges) == FAILURES + 1


def test_a_model_the_cloud_does_not_know_is_remembered_and_says_nothing_of_its_others(box: Stage) -> None:
    box.play(FAULTS["unknown-model"].act)
    for _ in range(FAILURES + 1):
        assert box.ask().headers["x-appliance-served-by"] == "local"
    assert len(box.cloud.exchanges) == 1
    box.ask(model="gpt-other")
    assert len(box.cloud.exchanges) == 2
    assert state(box) == "closed"


def test_a_good_answer_in_between_starts_the_count_again(box: Stage) -> None:
    box.play(HEALTHY.act)
    for name in ("server-error", "server-error", "healthy", "server-error", "server-error"):
        box.cloud.act = {**FAULTS, "healthy": HEALTHY}[name].act
        box.ask()
    assert state(box) == "closed"


def test_a_cloud_that_is_well_again_comes_back_after_two_trials(box: Stage) -> None:
    box.play(FAULTS["server-error"].act, breaker=SOON)
    for _ in range(FAILURES):
        box.ask()
    box.cloud.act = HEALTHY.act
    box.until(lambda: _half_open(box))
    assert box.ask().headers["x-appliance-served-by"] == "cloud"
    assert state(box) == "half-open"
    assert box.ask().headers["x-appliance-served-by"] == "cloud"
    assert state(box) == "closed"


def test_a_trial_that_fails_is_not_noticed_and_closes_the_door_for_longer(box: Stage) -> None:
    box.play(FAULTS["cut-reset"].act, breaker=SOON)
    for _ in range(FAILURES):
        box.ask()
    box.until(lambda: _half_open(box))
    heard = box.ask()
    assert heard.text == box.cloud.exchanges[-1].text + box.local.text
    assert len(box.cloud.exchanges) == FAILURES + 1
    upstream = box.get("/appliance/status").json()["upstreams"][0]
    assert upstream["state"] == "half-open" or upstream["reopens_in_s"] > 0.03


def test_each_cloud_has_its_own(box: Stage) -> None:
    box.play(FAULTS["refused"].act, HEALTHY.act)
    for _ in range(FAILURES + 1):
        assert box.ask().headers["x-appliance-served-by"] == "second"
    assert (state(box), state(box, 1)) == ("open", "closed")


def test_a_reload_says_which_keys_need_a_restart_and_takes_over_the_others(box: Stage) -> None:
    local = replace(box.config.local, standby="hot", unload_after=5.0, context=512)
    box.play()
    changed = replace(box.appliance.config, local=local, server=replace(box.config.server, port=1))
    assert box.call(_reloaded(box, changed)) == ("server.port",)
    assert (box.appliance.config.local.standby, box.appliance.engine.unload_after) == ("hot", 5.0)
    assert box.appliance.wanted == (local, box.appliance.model)
    box.call(_reloaded(box, box.config))
    assert box.appliance.wanted is None


async def _reloaded(box: Stage, config: Config) -> tuple[str, ...]:
    return box.appliance.reload(config)


def test_a_reload_of_the_breakers_settings_comes_true(box: Stage) -> None:
    box.play(FAULTS["server-error"].act)
    config = box.appliance.config
    box.appliance.reload(replace(config, breaker=BreakerConfig(failures=1)))
    box.ask()
    assert state(box) == "open"


def test_neither_prompts_nor_keys_are_in_the_log(box: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="appliance")
    for fault in FAULTS.values():
        if not fault.silent:
            box.play(fault.act)
            box.ask(messages=[{"role": "user", "content": "the blue elephant"}])
    box.play(FAULTS["stall"].act, timeouts=QUICK)
    box.ask(messages=[{"role": "user", "content": "the blue elephant"}])
    assert "broke off" in caplog.text  # it does log
    for secret in (KEY, "blue elephant", BODY["messages"][0]["content"], "lighthouse", box.local.pieces[1]):
        assert secret not in caplog.text


def _half_open(box: Stage) -> bool:
    """Looked at from inside the loop."""
    breaker = box.appliance.breakers["cloud"]
    return breaker.state(box.now()) == "half-open"
