"""The service as a process of its own: a configuration, a state and a port that nobody else has.

It is the real `appliance serve`, and its clouds are ours. What the owner's configuration says of the model is taken
over, and nothing of what it says of clouds, keys and listeners.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx

from appliance.bench.asking import Failed
from appliance.config import Config
from appliance.store.disk import write_small

_LOOK = 0.05
LOADED_WITHIN = 1800.0
FOLLOWS_WITHIN = 300.0
"""Several times what the longest conversation takes that `plan` lets it stand by for."""
LEAVES_WITHIN = 10.0
_SHOWN_LINES = 5
FAILING, FAST = "failing", "fast"
"""The models of the two clouds, and their names."""


def written(config: Config, *, port: int, context: int, standby: str, state: Path, clouds: Mapping[str, str]) -> str:
    """The configuration file: the owner's model, and `clouds` by name, which may be silent for as long as they like."""
    local = config.local
    table: dict[str, Mapping[str, str | int | float | bool]] = {
        "server": {"port": port},
        "local": {
            "model": local.model,
            "context": context,
            "slots": 2,
            "gpu_layers": local.gpu_layers,
            "threads": local.threads,
            "kv_type": local.kv_type,
            "mlock": local.mlock,
            "standby": standby,
        },
        "timeouts": {"first_content": 3600, "stall": 3600, "total": 7200},
        "paths": {"state": str(state), "cache": str(state), "models": str(config.paths.models)},
    }
    lines = [f"[{section}]\n{_keys(keys)}" for section, keys in table.items()]
    for name, root in clouds.items():
        lines.append(f'[[upstream]]\nname = "{name}"\napi = "openai"\nbase_url = "{root}/v1"\nmodels = ["{name}"]')
    return "\n".join([*lines, ""])


def _keys(keys: Mapping[str, str | int | float | bool]) -> str:
    # JSON's strings, numbers and truths are TOML's too.
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())


class Service:
    """One `appliance serve`, from its start to its end. `folder` is its own."""

    def __init__(self, config: Config, *, context: int, folder: Path, clouds: Mapping[str, str]) -> None:
        self._config = config
        self._context = context
        self._folder = folder
        self._clouds = clouds
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._client = httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        self._write("cold")
        # Not in our group: Ctrl-C is for us, and we end it.
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "appliance", "serve", "--config", str(self._file),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")},
            )  # fmt: skip
        try:
            await self._until(lambda engine: engine["state"] == "ready", "was not ready", LOADED_WITHIN)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(LEAVES_WITHIN):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._client.aclose()

    async def engine(self) -> dict[str, Any]:
        """What its status says of the engine."""
        found: dict[str, Any] = (await self._client.get("/appliance/status")).json()["engine"]
        return found

    async def stand_by(self, mode: str) -> None:
        """Follow clouds like this from now on."""
        self._write(mode)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        await self._until(lambda engine: engine["standby"] == mode, "did not follow its new configuration")

    async def caught_up(self) -> None:
        """Wait until a standby has computed all that it knows."""
        await self._until(lambda engine: engine["standby_ready"] > 0, "did not stand by")

    async def reset(self) -> None:
        """Forget what the clouds have done."""
        (await self._client.post("/appliance/reset", json={})).raise_for_status()

    async def _until(
        self, true: Callable[[Mapping[str, Any]], bool], otherwise: str, within: float = FOLLOWS_WITHIN
    ) -> None:
        ends = time.monotonic() + within
        while self._process is not None and self._process.returncode is None:
            with suppress(httpx.TransportError, ValueError, KeyError):
                if true(await self.engine()):
                    return
            if time.monotonic() > ends:
                raise Failed(f"the service {otherwise} within {within:g} s.")
            await asyncio.sleep(_LOOK)
        said = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        raise Failed(f"the service ended; it said: {' | '.join(said[-_SHOWN_LINES:])}")

    @property
    def _file(self) -> Path:
        return self._folder / "appliance.toml"

    @property
    def _log(self) -> Path:
        return self._folder / "service.log"

    def _write(self, standby: str) -> None:
        text = written(
            self._config,
            port=self._port,
            context=self._context,
            standby=standby,
            state=self._folder / "state",
            clouds=self._clouds,
        )
        write_small(self._file, text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
