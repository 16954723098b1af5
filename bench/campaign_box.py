"""The service of the campaign, as a process of its own: the real appliance, with the scripted engine or the real one.

    python campaign_box.py < lines

The first line says what it is to be (`Wish`); it answers with its address, and then each `look` with what it holds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import stat
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import common  # noqa: F401 - it makes this checkout the one that is measured
import psutil
import uvloop

from appliance.appliance import Appliance
from appliance.backends.process import Engine, EngineSpec
from appliance.config import (
    BreakerConfig,
    Config,
    LocalConfig,
    PathsConfig,
    ServerConfig,
    TimeoutConfig,
    UpstreamConfig,
    default_paths,
)
from appliance.drills.listener import serving
from appliance.store.store import Resolved, resolve

CHILD = Path(__file__).with_name("campaign_child.py")
SLOTS = 8


def scripted(folder: Path) -> str:
    """Something that takes python's arguments and runs the scripted engine."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CHILD}" "$3"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return str(program)


def built(wish: dict[str, Any], folder: Path) -> Appliance:
    home = folder / "box"
    own = PathsConfig(state=home / "state", cache=home / "cache", models=home / "models")
    config = Config(
        server=ServerConfig(),
        local=LocalConfig(slots=wish["slots"], queue=4096),
        upstreams=tuple(
            UpstreamConfig(**{**upstream, "models": tuple(upstream["models"])}) for upstream in wish["upstreams"]
        ),
        timeouts=TimeoutConfig(**wish["timeouts"]),
        breaker=BreakerConfig(probe_interval=3600.0),
        paths=own,
        source=None,
    )
    if wish["real"]:
        paths = replace(own, models=default_paths(os.environ).models)
        config = replace(config, paths=paths)
        return Appliance(config, resolve(config.local.model, config))
    spec = EngineSpec(path=str(folder), slots=wish["slots"], queue=config.local.queue)
    model = Resolved(path=folder, template=None, name="scripted")
    return Appliance(config, model, engine=Engine(spec, python=scripted(folder)))


def holdings(appliance: Appliance) -> dict[str, Any]:
    """What this process holds now."""
    gc.collect()
    process = psutil.Process()
    names = Counter(task.get_name().rstrip("0123456789-") for task in asyncio.all_tasks())
    return {
        "rss": process.memory_info().rss,
        "tasks": dict(names),
        "sockets": sum(one.status != psutil.CONN_LISTEN for one in process.net_connections("tcp")),
        "descriptors": process.num_fds(),
        "running": len(appliance.running),
        "engine": appliance.engine.pid,
        "deaths": appliance.engine.deaths,
        "state": appliance.engine.state,
    }


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    wish = json.loads(await lines.readline())
    folder = Path(wish["folder"])
    logging.basicConfig(filename=folder / "box.log", level=logging.WARNING)
    appliance = built(wish, folder)
    async with serving(appliance) as url:
        await appliance.engine.wait_ready(120)
        print(json.dumps({"url": url}), flush=True)
        while (line := (await lines.readline()).strip()) not in (b"", b"end"):
            assert line == b"look"
            print(json.dumps(holdings(appliance)), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
