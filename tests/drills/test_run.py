"""A rehearsal on the user's own configuration: nothing real is touched, and the report tells the truth."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import appliance.drills.run as drill
from appliance.__main__ import main
from appliance.appliance import Appliance
from appliance.config import Config, LocalConfig, TimeoutConfig, UpstreamConfig
from appliance.core.fault import BackendError, Fault
from appliance.drills import own, rehearse
from appliance.drills.cloud import STORY, FailingCloud
from appliance.drills.doors import DOORS
from appliance.drills.faults import FAULTS, FLAWS
from appliance.store.store import Resolved, StoreError
from tests.fakes import KEY, ScriptedEngine, ScriptedLocal, configured

ANSWERED = (*FAULTS, *FLAWS, *DOORS)
"""The drills that are one answer each."""

REAL = UpstreamConfig(
    name="openai",
    base_url="http://127.0.0.1:9/v1",
    key=KEY,
    models=("gpt-*",),
    headers=(("x-secret", KEY),),
    proxy="http://127.0.0.1:9",
)
OTHER = replace(
    REAL,
    name="claude",
    api="anthropic",
    base_url="http://127.0.0.1:9",
    client_key=True,
    models=("claude-*",),
    status_page="http://127.0.0.1:9/status",
    canary="claude-small",
)


class Scripted(Appliance):
    """An appliance whose box needs no weights."""

    seen: list[Config]
    local: ScriptedLocal

    def __init__(self, config: Config, model: Resolved) -> None:
        super().__init__(config, model)
        self._local = self.local  # type: ignore[assignment]
        self.engine = ScriptedEngine()  # type: ignore[assignment]

    def reload(self, config: Config) -> tuple[str, ...]:
        self.seen.append(config)
        return super().reload(config)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    Scripted.seen, Scripted.local = [], ScriptedLocal()
    monkeypatch.setattr(drill, "Appliance", Scripted)
    return Scripted


@pytest.fixture
def config(tmp_path: Path, few: None) -> Config:
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF" + bytes(4096))
    timeouts = TimeoutConfig(first_content=0.3, stall=0.3, total=0.6)
    return configured(tmp_path, local=LocalConfig(model=str(model), queue=8), upstreams=(REAL,), timeouts=timeouts)


def run(config: Config, *names: str, **flags: bool) -> int:
    return drill.main(
        config, names, flags.get("list_only", False), flags.get("every", False), flags.get("as_json", False)
    )


@pytest.mark.live
def test_every_drill_is_as_expected(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, every=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["as_expected"] is True
    assert [(one["drill"], one["asked"]) for one in report["rehearsals"]] == [
        (name, asked) for name in ANSWERED for asked in ("streamed", "whole")
    ]
    cut = next(one for one in report["rehearsals"] if one["drill"] == "cut-reset")
    assert cut["cloud_characters"] > 20
    assert cut["box_characters"] == len(scripted.local.text)
    assert cut["finish_reasons"] == ["stop"]
    assert 0 <= cut["silence_ms"] < 5000
    assert cut["takeovers"] == [f"openai->local after={cut['cloud_characters']} reason=broken"]
    assert cut["headers"]["x-appliance-served-by"] == "openai"
    assert cut["answered_by"] == ["openai", "local"]
    assert cut["reason"] == "broken"
    assert [(one["state"], one["failures"]) for one in cut["breakers"]] == [("closed", 1)]
    assert [(one["name"], one["as_expected"]) for one in report["floods"]] == [("flood", True), ("crowd", True)]
    assert report["counting"] is None


@pytest.mark.live
def test_every_drill_is_as_expected_in_each_wire_there_is(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    upstreams = (REAL, OTHER)
    assert run(replace(config, upstreams=upstreams), every=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one for one in report["rehearsals"] if not one["as_expected"]] == []
    assert [(one["drill"], one["api"], one["asked"]) for one in report["rehearsals"]] == [
        (name, upstream.api, asked) for name in ANSWERED for upstream in upstreams for asked in ("streamed", "whole")
    ]
    cut = [one for one in report["rehearsals"] if (one["drill"], one["asked"]) == ("cut-reset", "streamed")]
    assert [one["headers"]["x-appliance-served-by"] for one in cut] == [upstream.name for upstream in upstreams]
    assert cut[-1]["finish_reasons"] == ["end_turn"]
    assert [(one["name"], one["api"], one["complaints"]) for one in report["floods"]] == [
        (name, upstream.api, []) for name in ("flood", "crowd") for upstream in upstreams
    ]
    assert (report["counting"]["well"]["by"], report["counting"]["unwell"]["by"]) == ("claude", "local")
    for seen in scripted.seen:
        assert [upstream.api for upstream in seen.upstreams] == [upstream.api for upstream in upstreams]


@pytest.mark.live
def test_a_configuration_without_openais_wire_is_asked_in_the_other_one_only(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(replace(config, upstreams=(OTHER,)), "cut-reset", "bad-request", "refused") == 0
    assert "openai" not in capsys.readouterr().out


@pytest.mark.live
def test_where_there_is_another_wire_the_table_has_a_column_for_it(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(config, upstreams=(REAL, OTHER)), "refused")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["drill", "wire", "asked"]
    assert [line.split()[1:3] for line in lines[1:5]] == [
        ["openai", "streamed"],
        ["openai", "whole"],
        ["anthropic", "streamed"],
        ["anthropic", "whole"],
    ]
    assert max(map(len, lines)) < 180


@pytest.mark.live
def test_no_real_cloud_no_key_and_no_file_of_the_user_is_used(config: Config, scripted: type[Scripted]) -> None:
    run(replace(config, upstreams=(REAL, OTHER)), "cut-reset")
    assert scripted.seen
    for seen in scripted.seen:
        for upstream, real in zip(seen.upstreams, (REAL, OTHER), strict=True):
            assert upstream.base_url not in (REAL.base_url, OTHER.base_url)
            assert (upstream.key, upstream.client_key, upstream.headers) == (None, real.client_key, ())
            assert (upstream.proxy, upstream.ca, upstream.status_page, upstream.canary) == (None, None, None, None)
            assert (upstream.name, upstream.api, upstream.models) == (real.name, real.api, real.models)
        assert seen.paths.state != config.paths.state
        assert not seen.paths.state.exists()


@pytest.mark.live
def test_a_callers_own_key_that_is_refused_is_the_callers_affair_and_so_is_his_money(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = replace(REAL, key=None, client_key=True)
    assert run(replace(config, upstreams=(theirs,)), "wrong-key", "forbidden", "payment-required", "rate-limit") == 0
    said = capsys.readouterr().out
    assert said.count("the caller's own mistake, returned as it is") == 4
    assert "open" not in said.replace("openai", "")


@pytest.mark.live
def test_where_the_boxs_own_key_is_refused_first_and_then_the_callers_the_caller_hears_it(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = replace(REAL, name="second", key=None, client_key=True)
    assert run(replace(config, upstreams=(REAL, theirs)), "wrong-key", "server-error") == 0
    assert capsys.readouterr().out.count("the caller's own mistake, returned as it is") == 2


@pytest.mark.live
def test_clouds_that_race_and_answers_that_are_watched_are_judged_alike(
    config: Config, scripted: type[Scripted]
) -> None:
    racing = replace(REAL, hedge=True, watch_whole=True)
    both = replace(config, upstreams=(racing, replace(racing, name="second")))
    assert run(both, "bad-request", "cut-reset", "server-error", "no-done", "spoofed-name") == 0


@pytest.mark.live
def test_what_is_not_as_expected_is_said_and_is_exit_code_1(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = BackendError(Fault.SERVER, "The local model failed.", status=500)
    scripted.local.fails = [(2, broken), (0, broken)]
    assert run(config, "cut-reset") == 1
    said = capsys.readouterr().out
    assert "NOT ok: cut-reset, openai, streamed: The local model failed.; the answer ended 0 times" in said
    assert "It should have been begun by the cloud, continued by the box." in said
    assert sum(line.endswith("NOT ok") for line in said.splitlines()) == 2
    assert "2 of 2 answers not as promised (cut-reset)" in said


@pytest.mark.live
def test_the_table_can_be_read_and_ends_in_one_line_that_sums_it_up(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, "refused", "stall") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "drill asked what the application saw by cloud box ends silence why breaker".split()
    assert lines[1].startswith("refused  streamed  answered by the box")
    assert lines[3].startswith("stall    streamed  begun by the cloud, continued by the box")
    assert all(line.endswith("ok") for line in lines[1:5])
    assert lines[-2].startswith("* The limits for silence are shortened")
    assert lines[-1].startswith("All 4 answers were as promised; longest silence in a stream ")
    assert lines[-1].endswith("small in place of openai.")
    assert max(map(len, lines)) < 180


@pytest.mark.live
def test_several_clouds_fail_together(config: Config, scripted: type[Scripted]) -> None:
    second = replace(REAL, name="second", prefill=True)
    assert run(replace(config, upstreams=(REAL, second)), "cut-reset", "server-error", "bad-request") == 0


@pytest.mark.live
def test_each_cloud_that_goes_on_is_taught_its_speed_and_has_its_own_time(
    config: Config, scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds: list[FailingCloud] = []

    def playing(*args: Any, **options: Any) -> FailingCloud:
        clouds.append(FailingCloud(*args, **options))
        return clouds[-1]

    taught = replace(FAULTS["stall"], lessons=2, within=2.5)
    monkeypatch.setattr(rehearse, "FAULTS", {"stall": taught})
    monkeypatch.setattr(rehearse, "FailingCloud", playing)
    second = replace(REAL, name="second", prefill=True, models=(), aliases=(("gpt-*", "small"),))
    elsewhere = replace(REAL, name="elsewhere", models=("o1",))
    several = replace(config, upstreams=(REAL, second, elsewhere), timeouts=TimeoutConfig(stall=1.5, total=3.0))
    assert run(several, "stall") == 0  # two clouds took 3 s and more
    learned = [sum(one.text == STORY for one in cloud.exchanges) for cloud in clouds]
    assert learned == [2, 2, 0]


@pytest.mark.live
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_early_has_what_was_found_until_then(
    config: Config,
    scripted: type[Scripted],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: signal.Signals,
) -> None:
    found = drill.Table.lines

    def lines(table: drill.Table, one: Any) -> Iterator[str]:
        yield from found(table, one)
        os.kill(os.getpid(), told)

    monkeypatch.setattr(drill.Table, "lines", lines)
    assert run(config, "refused", "black-hole") == 130
    head, row, end = capsys.readouterr().out.splitlines()
    assert head.startswith("drill")
    assert row.startswith("refused     streamed  answered by the box")
    assert end.startswith("Interrupted: 1 answer as promised; longest silence in a stream ")


@pytest.mark.live
def test_whoever_ends_it_before_anything_was_found_is_told_so(
    config: Config, scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def loading(engine: ScriptedEngine) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60.0)

    monkeypatch.setattr(ScriptedEngine, "wait_ready", loading)
    assert run(config, "refused", as_json=True) == 130
    report = json.loads(capsys.readouterr().out)
    assert (report["interrupted"], report["as_expected"], report["rehearsals"]) == (True, False, [])


@pytest.mark.live
def test_without_a_cloud_one_is_made_up_and_that_is_said(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(replace(config, upstreams=()), "refused") == 0
    assert "No cloud is configured; one was made up" in capsys.readouterr().out


@pytest.mark.live
def test_the_failures_on_purpose_are_not_in_the_log(
    config: Config, scripted: type[Scripted], capsys: pytest.CaptureFixture[str]
) -> None:
    run(config, "wrong-key", "server-error")
    assert capsys.readouterr().err.splitlines() == ["drill: loading small", "drill: wrong-key", "drill: server-error"]


@pytest.mark.live
def test_with_the_real_model_the_words_go_on(
    tmp_path: Path, starter_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = LocalConfig(model=str(starter_gguf), context=512, slots=1)
    real = configured(tmp_path, local=local, upstreams=(REAL,), timeouts=TimeoutConfig())
    assert run(real, "cut-reset", "half-character", "server-error", as_json=True) == 0
    for one in json.loads(capsys.readouterr().out)["rehearsals"]:
        assert one["box_characters"] > 0


@pytest.mark.live
def test_without_a_model_that_can_be_loaded_nothing_is_rehearsed(config: Config) -> None:
    with pytest.raises(StoreError, match=r"^no rehearsal without the local model: "):
        run(config, "refused")


# ---------------------------------------------------------------------------------------------- decisions


def test_without_a_model_nothing_is_rehearsed(config: Config) -> None:
    gone = replace(config, local=LocalConfig(model="/nowhere/none.gguf"))
    with pytest.raises(StoreError, match=r"/nowhere/none\.gguf"):
        run(gone, "refused")


def test_an_unknown_drill_is_exit_code_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "cut-rest"]) == 2
    assert capsys.readouterr().err == "appliance: there is no drill 'cut-rest'; did you mean cut-reset?\n"
    assert main(["drill", "qqqq"]) == 2
    assert "--list" in capsys.readouterr().err


def test_the_list_names_every_drill(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, list_only=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(drill.DRILLS)
    assert set(drill.DRILLS) == {*FAULTS, *FLAWS, *DOORS, "flood", "crowd", "count-tokens"}
    assert max(map(len, lines)) < 180
    assert run(config, list_only=True, as_json=True) == 0
    listed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(drill.DRILLS)
    assert all(one["says"] for one in listed)


def test_without_a_name_it_is_a_handful() -> None:
    assert drill.chosen(()) == drill.HANDFUL
    assert 4 < len(drill.HANDFUL) < 10
    assert {FAULTS[name].streamed for name in drill.HANDFUL} >= {"box", "continued", "caller"}
    assert drill.chosen((), every=True) == tuple(drill.DRILLS)
    assert drill.chosen(("flood", "cut-reset")) == ("flood", "cut-reset")


@pytest.mark.parametrize(
    ("models", "aliases", "asked"),
    [
        (("*",), (), "drill"),
        (("gpt-*",), (), "gpt-drill"),
        (("gpt-4.1",), (), "gpt-4.1"),
        (("o?",), (), "ox"),
        ((), (("fast-*", "gpt-mini"),), "fast-drill"),
        (("[ab]",), (), None),
        (("[ab]", "gpt-*"), (), "gpt-drill"),
    ],
)
def test_the_model_asked_for_is_one_that_the_first_cloud_wants(
    models: tuple[str, ...], aliases: tuple[tuple[str, str], ...], asked: str | None
) -> None:
    assert own.asked_model([replace(REAL, models=models, aliases=aliases)]) == asked


def test_each_wire_is_asked_for_a_model_of_its_own() -> None:
    upstreams, asked = own.asked_models([REAL, OTHER])
    assert upstreams == (REAL, OTHER)
    assert asked == {"openai": "gpt-drill", "anthropic": "claude-drill"}


def test_clouds_whose_patterns_cannot_be_guessed_take_every_model() -> None:
    upstreams, asked = own.asked_models([REAL, replace(OTHER, models=("[ab]",))])
    assert asked == {"openai": "gpt-drill", "anthropic": "drill"}
    assert [upstream.models for upstream in upstreams] == [("gpt-*",), ("*",)]


def test_limits_are_only_ever_shortened() -> None:
    usual = own.shorter(TimeoutConfig(), tok_s=48.0)
    assert (usual.first_content, usual.stall, usual.total) == (1.0, 1.0, 4.0)
    assert usual.connect == 0.5
    tight = TimeoutConfig(connect=0.1, first_content=0.2, stall=0.3, total=0.4)
    assert own.shorter(tight, tok_s=48.0) == tight
    assert own.shorter(TimeoutConfig(), tok_s=0.01).total == own.LONGEST_WAIT
