"""Who answers, by model and by wish; and what the box says about itself."""

from __future__ import annotations

import pytest

from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import Stage

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("wish", "by"),
    [("auto", "cloud"), ("cloud", "cloud"), ("local", "local"), ("second", "second"), ("Local", "local")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_the_callers_wish_decides_who_answers(box: Stage, wish: str, by: str, stream: bool) -> None:
    box.play(HEALTHY.act, HEALTHY.act)
    heard = box.ask(stream=stream, headers={"x-appliance-route": wish})
    assert heard.headers["x-appliance-served-by"] == by
    assert "x-appliance-fallback" not in heard.headers
    assert heard.text == (box.local.text if by == "local" else box.cloud.script.text)
    assert heard.finishes == ("stop",)


@pytest.mark.parametrize("wish", ["auto", "cloud", "local"])
def test_the_model_named_local_is_always_the_box(box: Stage, wish: str) -> None:
    box.play(HEALTHY.act)
    heard = box.ask(model="local", headers={"x-appliance-route": wish})
    assert heard.text == box.local.text
    assert box.cloud.exchanges == []


def test_without_any_cloud_the_box_answers_whatever_the_model_is_called(box: Stage) -> None:
    box.play()
    assert box.ask(model="anything").text == box.local.text


def test_who_wishes_for_clouds_only_hears_of_their_failure(box: Stage) -> None:
    box.play(FAULTS["server-error"].act)
    heard = box.ask(headers={"x-appliance-route": "cloud"})
    assert heard.status == 500
    assert heard.headers["x-should-retry"] == "false"
    assert box.local.asked == []


def test_a_model_that_nobody_wants_is_a_404_that_names_those_there_are(box: Stage) -> None:
    box.play(HEALTHY.act, models=("gpt-*",), aliases=(("fast", "gpt-mini"),))
    response = box.post("/v1/chat/completions", json={"model": "opus", "messages": [{"role": "user", "content": "x"}]})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    for name in ("opus", "gpt-*", "fast", "local"):
        assert name in response.json()["error"]["message"]


def test_the_models_there_are_can_be_listed_and_looked_up(box: Stage) -> None:
    box.play(HEALTHY.act, models=("gpt-4.1", "openrouter/auto"))
    listed = box.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["local", "gpt-4.1", "openrouter/auto"]
    for model in listed["data"]:
        assert box.get(f"/v1/models/{model['id']}").json() == model
    missing = box.get("/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_the_process_lives_and_can_answer_now(box: Stage) -> None:
    box.play(HEALTHY.act)
    assert box.get("/healthz").json() == {"status": "ok"}
    assert box.get("/readyz").json() == {"status": "ok", "serving": "cloud"}
    box.play()
    assert box.get("/readyz").json() == {"status": "ok", "serving": "local"}


def test_without_cloud_and_model_the_box_is_not_ready(box: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    box.play()
    monkeypatch.setattr(box.appliance.engine, "state", "loading")
    monkeypatch.setattr(box.appliance.engine, "able", False)
    response = box.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "loading"})
    assert response.headers["retry-after"] == "1"
    assert box.get("/healthz").status_code == 200


def test_the_status_tells_who_serves_and_what_failed(box: Stage) -> None:
    box.play(FAULTS["cut-reset"].act, HEALTHY.act)
    before = box.get("/appliance/status").json()["requests"]
    box.ask()
    box.ask(stream=False)
    status = box.get("/appliance/status").json()
    assert status["serving"] == "cloud"
    assert status["ready"] is True
    assert status["engine"]["state"] == "ready"
    assert status["engine"]["slots"] == 4
    cloud, second = status["upstreams"]
    assert (cloud["name"], cloud["state"], cloud["failures"], cloud["last_fault"]) == ("cloud", "closed", 2, "broken")
    assert (second["name"], second["state"], second["failures"], second["last_fault"]) == ("second", "closed", 0, None)
    grown = {name: status["requests"][name] - before[name] for name in before}
    assert grown == {"total": 2, "running": 0, "taken_over": 1, "fell_back": 1, "failed": 0, "unrecorded": 0}
    assert [attempt["upstream"] for attempt in status["recent"][:2]] == ["cloud", "cloud"]
    assert {attempt["fault"] for attempt in status["recent"][:2]} == {"broken"}
    assert "sk-of-the-box" not in str(status)


def test_the_status_and_the_metrics_tell_who_is_slow_to_begin(box: Stage) -> None:
    box.play(HEALTHY.act, HEALTHY.act)
    for _ in range(5):
        box.appliance.habits["cloud"].began(6.25, box.now())
    cloud, second = box.get("/appliance/status").json()["upstreams"]
    assert cloud["warnings"] == ["slow: the first word takes 6.2 s in the median"]
    assert cloud["first_content_s"] == 6.25
    assert (second["warnings"], second["first_content_s"]) == ([], None)
    page = box.get("/metrics").text
    assert 'appliance_first_content_median_seconds{upstream="cloud"} 6.25\n' in page
    assert 'appliance_first_content_median_seconds{upstream="second"}' not in page


@pytest.mark.parametrize("body", ["{}", '{"upstream": null}', ""])
def test_breakers_can_be_closed_by_hand(box: Stage, body: str) -> None:
    box.play(FAULTS["quota"].act, HEALTHY.act)
    box.ask()
    assert box.get("/appliance/status").json()["upstreams"][0]["state"] == "open"
    response = box.post("/appliance/reset", content=body, headers={"content-type": "application/json"})
    assert response.json() == {"closed": ["cloud", "second"]}
    assert box.get("/appliance/status").json()["upstreams"][0]["state"] == "closed"


def test_one_breaker_can_be_closed_by_hand(box: Stage) -> None:
    box.play(FAULTS["quota"].act, FAULTS["wrong-key"].act)
    box.ask()
    assert box.post("/appliance/reset", json={"upstream": "second"}).json() == {"closed": ["second"]}
    states = [upstream["state"] for upstream in box.get("/appliance/status").json()["upstreams"]]
    assert states == ["open", "closed"]


@pytest.mark.parametrize(
    ("body", "status"),
    [('{"upstream": "none"}', 404), ('{"upstream": 7}', 404), ('{"upstream": []}', 404), ("[]", 400), ("{", 400)],
)
def test_a_reset_of_nobody_is_refused(box: Stage, body: str, status: int) -> None:
    box.play(HEALTHY.act)
    response = box.post("/appliance/reset", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["error"]["message"].endswith(".")
