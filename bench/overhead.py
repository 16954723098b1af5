"""What does a healthy answer cost on its way through the box, beside a bare relay and beside LiteLLM's proxy?

    python bench/overhead.py [--rounds 10] [--litellm /path/to/bin/litellm] [--relay aiohttp] [--no-box]

One process plays the cloud (bare sockets, bytes made beforehand), each server is a process of its own with one worker,
this one is the client. All take turns within a round, in an order drawn anew, so that noise hits all alike; asked is
OpenAI -> OpenAI and Anthropic -> Anthropic. Every figure is the median of the rounds with its worse 95 % bound
(bootstrap): of the time to the first content less the direct one, of the time from there to the end less the direct
one per token (the cloud writes as fast as it can, one event for each write), and of whole answers per second at 8
clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from common import Box, free_port, lower_bound, table

from appliance.bench.fastcloud import fast_cloud
from appliance.bench.line import PATHS, Caller, connect, request, streamed

TARGETS = "targets: added first content 1.5 ms, added per token 0.05 ms, 600 whole answers per second"
MODELS = {"openai": "gpt", "anthropic": "claude"}
DIRECT = "direct"
CLIENTS = 8


async def per_second(address: str, dialect: str, seconds: float) -> float:
    lines = [await connect(address) for _ in range(CLIENTS)]
    asked = request(address, dialect, MODELS[dialect], stream=False)
    until = time.perf_counter() + seconds
    done = 0

    async def loop(line: Caller) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await line.ask(asked, stream=False)
            done += 1

    await asyncio.gather(*map(loop, lines))
    for line in lines:
        line.close()
    return done / seconds


# ----------------------------------------------------------------------------------------------------- the servers


@asynccontextmanager
async def process(address: str, command: list[str], log: Path, **environ: str) -> AsyncIterator[str]:
    """A server as a process, from its first listening to its end."""
    with log.open("ab") as said:
        running = await asyncio.create_subprocess_exec(
            *command, stdout=said, stderr=said, env={**os.environ, **environ}
        )
        try:
            parts = urlsplit(address)
            for _ in range(1200):
                if running.returncode is not None:
                    break
                try:
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            yield address
        finally:
            if running.returncode is None:
                running.terminate()
            await running.wait()


@asynccontextmanager
async def box(cloud: str, folder: Path) -> AsyncIterator[str]:
    """Ours, with its journal, breakers and standby as they come; the two wires as two clouds."""
    lines: list[str] = []
    for api, base in (("openai", f"{cloud}/v1"), ("anthropic", cloud)):
        lines += ["[[upstream]]", f'name = "{api}"', f'api = "{api}"', f'base_url = "{base}"']
        lines += [f'models = ["{MODELS[api]}"]', 'key = "sk-bench"']
    running = Box(free_port(), "\n".join([*lines, ""]), folder)
    await running.start()
    yield running.url
    await running.stop()


def relay(client: str, cloud: str, folder: Path) -> AsyncIterator[str]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("barerelay.py"))]
    command += ["--to", cloud, "--port", str(port), "--client", client]
    return process(f"http://127.0.0.1:{port}", command, folder / f"{client}.log")


def litellm(program: str, cloud: str, folder: Path) -> AsyncIterator[str]:
    """As its documentation on production asks: no debugging, no callbacks, no retries, one worker."""
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": MODELS[api],
                        "litellm_params": {"model": f"{api}/{MODELS[api]}", "api_base": base, "api_key": "sk-bench"},
                    }
                    for api, base in (("openai", f"{cloud}/v1"), ("anthropic", cloud))
                ],
                "litellm_settings": {"set_verbose": False, "json_logs": False, "request_timeout": 600},
                "general_settings": {"disable_spend_logs": True, "disable_error_logs": True},
            }
        )
    )
    command = [program, "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    mode = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    mode["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # as ours: no keys on loopback
    return process(f"http://127.0.0.1:{port}", command, folder / "litellm.log", **mode)


# --------------------------------------------------------------------------------------------------------- the sums


@dataclass(frozen=True, slots=True)
class Round:
    """What one server did in one round: seconds, seconds, answers per second."""

    first: float
    rest: float
    whole: float


def shown(rounds: dict[str, list[Round]]) -> str:
    rows: list[list[object]] = [
        ["", "added first ms", "(bound)", "added per token ms", "(bound)", "whole/s", "(bound)"]
    ]
    for name, mine in rounds.items():
        direct = rounds[DIRECT]
        row: list[object] = [name]
        for pick in (lambda one: one.first, lambda one: one.rest):
            added = _added(mine, direct, pick)
            digits = 2 if not row[1:] else 4
            row += [f"{statistics.median(added):.{digits}f}", f"{-lower_bound([-one for one in added]):.{digits}f}"]
        rate = [one.whole for one in mine]
        rows.append([*row, f"{statistics.median(rate):.0f}", f"{lower_bound(rate):.0f}"])
    return table(rows)


def _added(mine: list[Round], direct: list[Round], pick: Callable[[Round], float]) -> list[float]:
    return [(pick(ours) - pick(theirs)) * 1000 for ours, theirs in zip(mine, direct, strict=True)]


async def main(given: argparse.Namespace) -> None:
    chance = random.Random(1)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cloud = await stack.enter_async_context(fast_cloud())
        servers = {DIRECT: cloud}
        for client in given.relay:
            servers[f"bare relay, {client}"] = await stack.enter_async_context(relay(client, cloud, folder))
        if not given.no_box:
            servers["the box"] = await stack.enter_async_context(box(cloud, folder))
        if given.litellm and os.access(given.litellm, os.X_OK):
            servers["litellm"] = await stack.enter_async_context(litellm(given.litellm, cloud, folder))
        elif given.litellm or not given.no_box:
            print("LiteLLM's proxy is not among them: give the path of its program with --litellm.")
        for dialect in given.dialect:
            able = []
            for name, address in servers.items():
                try:
                    await streamed(address, dialect, MODELS[dialect], 20)
                    able.append(name)
                except (RuntimeError, TimeoutError, OSError) as error:
                    print(f"{name} does not answer {dialect}: {str(error)[-300:]}")
            rounds: dict[str, list[Round]] = {name: [] for name in able}
            for _ in range(given.rounds):
                for name in chance.sample(able, len(able)):
                    first, rest = await streamed(servers[name], dialect, MODELS[dialect], given.streams)
                    whole = await per_second(servers[name], dialect, given.seconds)
                    rounds[name].append(Round(first, rest, whole))
            print(f"\n{dialect}, {given.rounds} rounds")
            print(shown(rounds))
    print(f"\n{TARGETS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--streams", type=int, default=20, help="streamed answers of each server in each round")
    parser.add_argument("--seconds", type=float, default=1.0, help="of whole answers, likewise")
    parser.add_argument("--litellm", help="LiteLLM's program")
    parser.add_argument("--relay", action="append", default=[], help="also a bare relay over this HTTP client")
    parser.add_argument("--dialect", action="append", default=[], choices=[*PATHS])
    parser.add_argument("--no-box", action="store_true", help="only the others")
    given = parser.parse_args()
    given.dialect = given.dialect or [*PATHS]
    uvloop.run(main(given))
