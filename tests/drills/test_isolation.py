"""A rehearsal leaves no trace: not in the user's folders, not at a provider, not at the running service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import appliance.drills.run as drill
from appliance.appliance import Appliance
from appliance.config import Config, LocalConfig, ServerConfig, TimeoutConfig, UpstreamConfig
from appliance.store.store import Resolved
from tests.fakes import KEY, ScriptedEngine, ScriptedLocal, configured

pytestmark = pytest.mark.live

OUTAGES = ("refused", "server-error", "wrong-key", "cut-reset", "repetition", "no-answer", "spoofed-name")


class Scripted(Appliance):
    """An appliance whose box needs no weights."""

    def __init__(self, config: Config, model: Resolved) -> None:
        super().__init__(config, model, engine=ScriptedEngine(), local=ScriptedLocal())  # type: ignore[arg-type]


@pytest.fixture
def doors() -> Iterator[list[socket.socket]]:
    """Two providers and the running service: whoever connects to one of them stays in its queue."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]


@pytest.fixture
def config(tmp_path: Path, doors: list[socket.socket], few: None) -> Config:
    first, second, service = (door.getsockname()[1] for door in doors)
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF" + bytes(4096))
    real = UpstreamConfig(name="openai", base_url=f"http://127.0.0.1:{first}/v1", key=KEY, models=("gpt-*",))
    other = replace(
        real, name="claude", api="anthropic", base_url=f"http://127.0.0.1:{second}", models=("claude-*",), canary="c"
    )
    found = configured(
        tmp_path,
        server=ServerConfig(port=service),
        local=LocalConfig(model=str(model), queue=8),
        upstreams=(real, other, replace(real, name="by proxy", proxy=f"http://127.0.0.1:{second}")),
        timeouts=TimeoutConfig(first_content=2.0, stall=2.0, total=5.0),
    )
    for folder in (found.paths.state, found.paths.cache, found.paths.models):
        folder.mkdir(parents=True)
        (folder / "journal.sqlite3").write_bytes(b"of the running service")
    return found


def told(door: socket.socket) -> bool:
    """Has anybody connected?"""
    door.setblocking(False)
    try:
        connection, _ = door.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


def kept(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file under it, byte for byte, and when it was last written; every folder likewise."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("names", [OUTAGES, ("flood", "crowd", "count-tokens")], ids=["outages", "crowds"])
def test_no_provider_no_service_and_no_file_is_touched(
    names: tuple[str, ...],
    config: Config,
    doors: list[socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(drill, "Appliance", Scripted)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(drill.tempfile, "tempdir", str(temporary))
    before = kept(tmp_path)
    assert drill.main(config, names, False, False, False) == 0, capsys.readouterr().out
    assert [told(door) for door in doors] == [False, False, False]
    after = kept(tmp_path)
    before.pop("temporary"), after.pop("temporary")  # it was written into, and is empty again
    assert after == before


def test_a_visit_would_have_been_noticed(doors: list[socket.socket]) -> None:
    with socket.create_connection(doors[1].getsockname()):
        assert [told(door) for door in doors] == [False, True, False]
