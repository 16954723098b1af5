"""Ten thousand requests through faults of every kind: is one lost, is one character wrong, does one document not parse?

    python bench/campaign.py [--requests 10000] [--real 0] [--seed 1] [--only K] [--lanes 24] [--json FILE]

Two clouds that fail, each in every way the drills know and behind any byte, in both wires; clients of both dialects, in
several lanes at once; streams and whole answers; words, calls of tools, documents of a schema; an engine that dies now
and then, clients that leave. The engine is a scripted process, so that every character's author and place is known;
with `--real N`, N requests go to the real one with the starter model instead. `--only K` runs request K of the seed
alone, and tells everything about it.

Promised, or the exit code is 1: exactly one end for each request; no character lost, repeated or moved; no document and
no arguments that do not parse and fit their schema; an error only where nobody can go on, in the client's dialect; the
caller's own mistake is nobody else's; and at the end no more memory, tasks and sockets than at the beginning.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from campaign_clouds import Cloud, Told
from campaign_judge import Judgement, judge
from campaign_plan import DRIP, UPSTREAMS, Plan, plan
from campaign_words import DIARY, Entry, entry
from common import command

from appliance.drills.application import Heard, ask
from appliance.drills.cloud import FailingCloud

QUICK = {"connect": 3.0, "first_content": 3.0, "stall": 3.0, "total": 10.0}
PATIENT = {"connect": 3.0, "first_content": 4.0, "stall": 4.0, "total": 120.0}
LONGEST = 200.0
LOOKS = 5
"""So many looks at what the service holds, the first after a fifth of the requests, when it is warm."""
GROWTH = 12e6
"""Bytes by which it may have grown between that and the end."""
SETTLED = 20.0
TRIES, HELD_UP = 3, 0.8
"""How often a request is asked if this process was held up for so many seconds meanwhile, and it went wrong."""
KEY = "sk-of-the-campaign-0123456789"


class Box:
    """The service, in its own process."""

    def __init__(self, folder: Path, *, real: bool, lanes: int, roots: dict[str, str]) -> None:
        self._folder = folder
        self._wish = {
            "folder": str(folder),
            "real": real,
            "slots": 4 if real else lanes,
            "timeouts": PATIENT if real else QUICK,
            "upstreams": [
                {
                    "name": f"{lane}{letter}",
                    "key": KEY,
                    "models": [f"{lane}-*{letter}*"],
                    "api": one["api"],
                    "base_url": roots[one["cloud"]] + ("/v1" if one["api"] == "openai" else ""),
                    **{name: value for name, value in one.items() if name not in ("api", "cloud")},
                }
                for lane in range(lanes)
                for letter, one in UPSTREAMS.items()
            ],
        }
        self._asking = asyncio.Lock()
        self.url = ""

    async def __aenter__(self) -> Self:
        program = [sys.executable, str(Path(__file__).with_name("campaign_box.py"))]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
        self.url = (await self._said(json.dumps(self._wish)))["url"]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(30):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def look(self) -> dict[str, Any]:
        return await self._said("look")

    async def _said(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._asking:
            self._process.stdin.write(line.encode() + b"\n")
            answer = await self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the service ended; see {self._folder / 'box.log'}")
        return dict(json.loads(answer))


@dataclass
class Run:
    """The requests of one seed, and what became of them."""

    seed: int
    real: bool
    lanes: int
    folder: Path
    told: dict[int, Told] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sorts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    """What was wrong with answers to which this machine was too slow, so that they were asked for once more."""
    held_up: list[float] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    diary: dict[int, list[Entry]] = field(default_factory=dict)
    read: int = 0
    """So much of the engine's diary."""
    graves: int = 0
    """Deaths of the engine that were meant."""
    verbose: bool = False

    async def of(self, keys: list[int]) -> None:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(Cloud(self.told))
            second = await stack.enter_async_context(Cloud(self.told, second=True))
            closed = await stack.enter_async_context(FailingCloud(None))
            roots = {"first": first.root, "second": second.root, "closed": closed.root}
            box = Box(self.folder, real=self.real, lanes=self.lanes, roots=roots)
            await stack.enter_async_context(box)
            self.looks.append(await box.look())
            async with httpx.AsyncClient(base_url=box.url, timeout=LONGEST, limits=httpx.Limits()) as client:
                await self._all(keys, client, box)
            for cloud in (first, second):
                await cloud.aclose()
            self.looks.append(await self._settled(box))
            self.graves = len(list(self.folder.glob("died-*")))
            if self.looks[-1]["deaths"] > self.graves:
                print((self.folder / "box.log").read_text()[-4000:])

    async def _all(self, keys: list[int], client: httpx.AsyncClient, box: Box) -> None:
        waiting = iter(keys)
        moments = {len(keys) * look // LOOKS for look in range(1, LOOKS)}
        done = 0

        async def lane(number: int) -> None:
            nonlocal done
            for key in waiting:
                await self._one(plan(self.seed, key, real=self.real), number, client, box)
                done += 1
                if done in moments:
                    self.looks.append(await box.look())
                if done % (20 if self.real else 500) == 0:
                    print(f"  {done} done", dict(self.outcomes), dict(self.sorts), flush=True)

        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(lane(number) for number in range(self.lanes)))
        finally:
            watching.cancel()

    async def _one(self, made: Plan, lane: int, client: httpx.AsyncClient, box: Box) -> None:
        for more in reversed(range(TRIES)):
            if made.fault == DRIP and made.route:
                await self._learn(made, lane, client)
            for letter in made.route:
                await client.post("/appliance/reset", json={"upstream": f"{lane}{letter}"})
            began = time.time()
            told = Told(made)
            heard = await self._asked(told, {"model": made.model(lane), **made.body}, client, box)
            self._read_diary()
            told.entries = self.diary.pop(made.key, [])
            if heard is None:
                self.outcomes["left"] += 1
                return
            judgement = judge(told, heard, deaths=self._deaths_since(began), real=self.real)
            if not (judgement.complaints and more and self._held_up_since(began)):
                self._keep(told, heard, judgement)
                return
            self.again += [f"request {made.key}: {one.sort}: {one.says}" for one in judgement.complaints]

    async def _asked(self, told: Told, body: dict[str, Any], client: httpx.AsyncClient, box: Box) -> Heard | None:
        """The answer; none if the client leaves."""
        made = told.plan
        self.told[made.key] = told
        killing = asyncio.create_task(self._kill(made, box)) if self.real and made.hint.dies >= 0 else None
        try:
            async with asyncio.timeout(LONGEST if made.leaves is None else made.leaves):
                return await ask(client, body, api=made.api)
        except TimeoutError:
            sentence = f"no end within {LONGEST:.0f} s"
            return None if made.leaves is not None else Heard(status=0, api=made.api, errors=(sentence,))
        finally:
            del self.told[made.key]
            if killing is not None:
                await killing

    async def _watch(self) -> None:
        """Note when this process itself was held up: then the clouds, which live in it, were silent as well."""
        while True:
            before = time.time()
            await asyncio.sleep(0.05)
            if time.time() - before > HELD_UP:
                self.held_up.append(time.time())

    def _held_up_since(self, began: float) -> bool:
        return any(at >= began for at in self.held_up)

    def _read_diary(self) -> None:
        """What the scripted engine wrote down since the last time."""
        path = self.folder / DIARY
        if not path.exists():
            return
        with path.open() as lines:
            lines.seek(self.read)
            while (line := lines.readline()).endswith("\n"):
                key, found = entry(line)
                self.diary.setdefault(key, []).append(found)
                self.read = lines.tell()

    def _keep(self, told: Told, heard: Heard, judgement: Judgement) -> None:
        made = told.plan
        self.outcomes[judgement.outcome] += 1
        dialects = "".join(sorted({one.asked.api[0] for one in told.exchanges}))
        self.kinds[f"{made.kind} {judgement.outcome}"] += 1
        self.kinds[f"{made.api[0]}<{dialects or 'box'} {judgement.outcome}"] += 1
        for complaint in judgement.complaints:
            self.sorts[complaint.sort] += 1
            self.complaints.append(f"request {made.key} ({_described(made)}): {complaint.sort}: {complaint.says}")
            if len(self.complaints) <= 30:
                print(self.complaints[-1], flush=True)
        if self.verbose:
            print(made, *(f"\n{one.asked.api} {one.text!r} {one.arguments}" for one in told.exchanges), f"\n{heard}")
            print(f"{heard.text=}\n{heard.calls=}\n{heard.thinking=}\n{judgement}")
            print(heard.body.decode("utf-8", "replace"))

    async def _learn(self, made: Plan, lane: int, client: httpx.AsyncClient) -> None:
        """What drips can only be told from what is usual."""
        body = {"model": made.model(lane), "messages": [{"role": "user", "content": "A lesson."}], "max_tokens": 64}
        for _ in range(8):
            await ask(client, {**body, "stream": True}, api=made.api)

    async def _kill(self, made: Plan, box: Box) -> None:
        await asyncio.sleep(made.cut)
        pid = (await box.look())["engine"]
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                (self.folder / f"died-{made.key}").touch()

    def _deaths_since(self, began: float) -> int:
        return sum(grave.stat().st_mtime >= began - 0.1 for grave in self.folder.glob("died-*"))

    async def _settled(self, box: Box) -> dict[str, Any]:
        """What the service holds when nobody asks any more."""
        until = time.monotonic() + SETTLED
        while True:
            look = await box.look()
            first = self.looks[0]
            if time.monotonic() > until or (look["tasks"] == first["tasks"] and look["sockets"] <= first["sockets"]):
                return look
            await asyncio.sleep(0.5)

    def promises(self) -> list[str]:
        """What was not kept."""
        broken = [f"{count} of the sort: {sort}" for sort, count in sorted(self.sorts.items())]
        first, last = self.looks[0], self.looks[-1]
        broken += [] if last["tasks"] == first["tasks"] else [f"tasks left: {first['tasks']} became {last['tasks']}"]
        for what in ("sockets", "running"):
            broken += [f"{last[what]} {what} left"] if last[what] > first[what] else []
        if len(self.looks) > 2 and (grown := last["rss"] - self.looks[1]["rss"]) > GROWTH:
            broken.append(f"the service grew by {grown / 1e6:.1f} MB")
        if last["deaths"] > self.graves:
            broken.append(f"the engine died {last['deaths']} times, of which {self.graves} were meant")
        return broken


def _described(made: Plan) -> str:
    how = "stream" if made.stream else "whole"
    return f"{made.api} {how} {made.kind} {made.route or 'box'} {made.fault}+{made.second} dies={made.hint.dies}"


def summary(run: Run, seconds: float) -> dict[str, Any]:
    rss = [look["rss"] / 1e6 for look in run.looks]
    return {
        "command": command(),
        "seed": run.seed,
        "engine": "real" if run.real else "scripted",
        "requests": sum(run.outcomes.values()),
        "seconds": round(seconds, 1),
        "outcomes": dict(run.outcomes),
        "by kind and by dialects": dict(sorted(run.kinds.items())),
        "deaths of the engine, and of them on purpose": [run.looks[-1]["deaths"], run.graves],
        "complaints": dict(run.sorts),
        "service in MB: new, after each fifth": [round(one, 1) for one in rss],
        "tasks": [look["tasks"] for look in (run.looks[0], run.looks[-1])],
        "sockets": [look["sockets"] for look in run.looks],
        "descriptors": [look["descriptors"] for look in run.looks],
        "asked again because this machine was too slow": run.again,
        "broken": run.promises(),
        "each": run.complaints,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=0, metavar="N", help="N requests to the real engine instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="K", help="request K of the seed alone, and everything about it")
    parser.add_argument("--lanes", type=int, help="requests at once; 24, or 4 to the real engine")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    real = given.real > 0
    keys = list(range(given.real or given.requests)) if given.only is None else [given.only]
    lanes = min(len(keys), given.lanes or (6 if real else 24))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(given.seed, real, lanes, Path(folder), verbose=given.only is not None)
        asyncio.run(run.of(keys))
        found = summary(run, time.monotonic() - began)
    for name, value in found.items():
        if name != "each":
            print(f"{name}: {value}")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(1 if found["broken"] else 0)


if __name__ == "__main__":
    main()
