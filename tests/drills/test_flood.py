"""A crowd in front of the real server: each gets an answer or is told when to come back, and the report counts them."""

from __future__ import annotations

import json
import resource
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import appliance.drills.run as drill
from appliance.appliance import Appliance
from appliance.config import Config, LocalConfig, UpstreamConfig
from appliance.core.chat import ChatRequest
from appliance.core.events import Event
from appliance.core.fault import BackendError, Fault
from appliance.drills import flood
from appliance.store.store import Resolved
from tests.fakes import KEY, PATIENT, ScriptedEngine, ScriptedLocal, configured

pytestmark = pytest.mark.live

ROOM = 12
CLOUDS = (
    UpstreamConfig(name="openai", base_url="http://127.0.0.1:9/v1", key=KEY, models=("gpt-*",)),
    UpstreamConfig(
        name="claude", api="anthropic", base_url="http://127.0.0.1:9", key=KEY, models=("claude-*",), prefill=True
    ),
)


class SmallBox(ScriptedLocal):
    """A box that refuses whoever comes when it is full."""

    full = BackendError(Fault.BUSY, "All slots are busy.", status=503, retry_after=3.0)

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        if self.asked.append(request) or (len(self.asked) > ROOM and len(self.asked) <= flood.REQUESTS - flood.LET_IN):
            raise self.full
        async for events in super().stream(request, model):
            yield events


class Scripted(Appliance):
    box: SmallBox

    def __init__(self, config: Config, model: Resolved) -> None:
        super().__init__(config, model, engine=ScriptedEngine(), local=self.box)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF" + bytes(4096))
    Scripted.box = SmallBox()
    monkeypatch.setattr(drill, "Appliance", Scripted)
    local = LocalConfig(model=str(model), slots=4, queue=ROOM - 4)
    return configured(tmp_path, local=local, upstreams=CLOUDS[:1], timeouts=PATIENT)


def report(config: Config, capsys: pytest.CaptureFixture[str], *names: str, code: int = 0) -> dict[str, Any]:
    assert drill.main(config, names, False, False, True) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.api)
def test_of_a_flood_each_gets_an_answer_or_is_told_when_to_come_back(
    cloud: UpstreamConfig, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = report(replace(config, upstreams=(cloud,)), capsys, "flood")["floods"]
    assert one["complaints"] == []
    assert one["sent"] == flood.REQUESTS
    assert (one["by_cloud"], one["by_box"]) == (flood.LET_IN, ROOM)
    assert one["refused"] == {"503": flood.REQUESTS - flood.LET_IN - ROOM}
    assert flood.LET_IN < one["asked"] <= flood.REQUESTS  # nobody twice
    assert one["after"] == "local"


def test_a_refusal_that_does_not_say_when_to_come_back_is_not_as_promised(
    config: Config, few: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Scripted.box.full = BackendError(Fault.SERVER, "The box is full.", status=500)
    found = report(config, capsys, "flood", code=1)
    refused = flood.REQUESTS - flood.LET_IN - ROOM
    assert found["floods"][0]["complaints"] == [f"the status is 500 ({refused} times)"]
    assert found["as_expected"] is False


def test_an_answer_that_breaks_in_a_flood_is_not_as_promised(
    config: Config, few: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Scripted.box.fails = [(1, BackendError(Fault.SERVER, "The box broke.", status=500))]
    (one,) = report(config, capsys, "flood", code=1)["floods"]
    assert any("ended 0 times" in complaint or "status is 500" in complaint for complaint in one["complaints"])


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.api)
def test_of_a_crowd_those_who_are_in_are_answered_and_the_rest_told_when_to_come_back(
    cloud: UpstreamConfig, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = report(replace(config, upstreams=(cloud,)), capsys, "crowd")["floods"]
    assert one["complaints"] == []
    assert (one["by_cloud"], one["by_box"]) == (flood.CONNECTIONS, 0)
    assert one["refused"] == {"503": flood.TURNED_AWAY}
    assert one["idle"] == flood.IDLE
    assert one["after"] == cloud.name


def test_open_files_are_as_they_were(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    report(config, capsys, "crowd")
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_with_few_open_files_the_flood_is_smaller(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(400, 500)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    with flood.files(4) as most:
        assert limits[-1] == (500, 500)
        assert most == (500 - flood.SPARE) // 4
    assert limits[-1] == (400, 500)


def test_the_table_says_how_many_each(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.main(config, ("flood", "crowd"), False, False, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("flood, openai: 200 requests at once, in ")
    assert lines[0].endswith("5 answered by a cloud, 12 by the box, 183 told to come back (503).")
    assert lines[1].strip().startswith("The next request was answered by local in ")
    assert lines[2].endswith(
        "32 answered by a cloud, 0 by the box, 16 told to come back (503), 8 idle connections gave way."
    )
    assert lines[3].endswith("ms.  ok")
    assert lines[-1] == "All 2 trials were as promised; small in place of openai."
    assert max(map(len, lines)) < 180


# ------------------------------------------------------------------------------------------------ tokens


def test_tokens_are_counted_by_the_cloud_and_without_it_by_the_box(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    both = replace(config, upstreams=CLOUDS)
    counting = report(both, capsys, "count-tokens")["counting"]
    assert (counting["well"]["by"], counting["unwell"]["by"]) == ("claude", "local")
    assert (counting["well"]["complaints"], counting["unwell"]["complaints"]) == ([], [])
    assert counting["well"]["tokens"] > 0
    assert counting["unwell"]["tokens"] == 77
    assert drill.main(both, ("count-tokens",), False, False, False) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("count-tokens, anthropic: ")
    assert line.endswith("counted by claude; when the cloud fails: 77 tokens counted by local.  ok")


def test_a_box_that_cannot_count_is_not_as_promised(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(request: ChatRequest) -> int:
        return 0

    monkeypatch.setattr(Scripted.box, "count", count)
    found = report(replace(config, upstreams=CLOUDS[1:]), capsys, "count-tokens", code=1)
    assert found["counting"]["unwell"]["complaints"] == ["tokens: there is no number"]


def test_without_anthropics_wire_there_is_nothing_to_count(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.main(config, ("count-tokens",), False, False, False) == 0
    assert "There was nothing to rehearse with this configuration" in capsys.readouterr().out
