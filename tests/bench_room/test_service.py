"""The configuration of a service that nobody else uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.bench import service
from appliance.bench.asking import Failed
from appliance.bench.service import FAILING, FAST, Service, written
from appliance.config import load_config


def test_it_takes_over_the_model_and_nothing_of_clouds_keys_and_state(tmp_path: Path, isolated: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[local]\nmodel = "qwen3-4b"\nkv_type = "q8_0"\nthreads = 3\nslots = 9\n'
        '[[upstream]]\nname = "real"\nbase_url = "https://real.example/v1"\nkey = "sk-secret"\n'
        f'[paths]\nmodels = "{tmp_path}/my models"\n'
    )
    mine = load_config(tmp_path / "mine.toml", {"APPLIANCE_HOME": str(isolated)})
    clouds = {FAILING: "http://127.0.0.1:1", FAST: "http://127.0.0.1:2"}
    text = written(mine, port=4711, context=2400, standby="cold", state=tmp_path / "own", clouds=clouds)
    (tmp_path / "own.toml").write_text(text)
    own = load_config(tmp_path / "own.toml", {"OPENAI_API_KEY": "sk-other"})
    assert own.local == replace(mine.local, context=2400, slots=2, standby="cold")
    assert own.paths.models == mine.paths.models
    assert own.paths.state == tmp_path / "own"
    assert [(one.name, one.base_url, one.key, one.models) for one in own.upstreams] == [
        (FAILING, "http://127.0.0.1:1/v1", None, (FAILING,)),
        (FAST, "http://127.0.0.1:2/v1", None, (FAST,)),
    ]
    assert (own.server.host, own.server.port) == ("127.0.0.1", 4711)
    assert own.warnings == ()


@pytest.mark.anyio
async def test_one_that_never_stands_by_is_not_waited_for_for_ever(
    tmp_path: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Alive:
        returncode = None

    async def engine() -> dict[str, int]:
        return {"standby_ready": 0}

    waiting = Service(load_config(None, {"APPLIANCE_HOME": str(isolated)}), context=256, folder=tmp_path, clouds={})
    monkeypatch.setattr(waiting, "_process", Alive())
    monkeypatch.setattr(waiting, "engine", engine)
    now = iter(range(0, 1000, 99))
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with pytest.raises(Failed, match=r"the service did not stand by within 300 s\."):
        await waiting.caught_up()


@pytest.mark.live
@pytest.mark.anyio
async def test_one_that_ends_says_why(tmp_path: Path, isolated: Path) -> None:
    config = load_config(None, {"APPLIANCE_HOME": str(isolated)})
    with pytest.raises(Failed, match=r'the service ended; it said: .*"starter" is not installed'):
        async with Service(config, context=256, folder=tmp_path, clouds={}):
            pass
