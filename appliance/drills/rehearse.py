"""One rehearsal after the other, through the real server in front of the real model.

Rules of this file:

1. All clouds fail together, each in its own wire: what is rehearsed is the outage, not the second cloud.
2. Before each request every breaker is closed, and afterwards it is looked at what they made of it.
3. What is found is told at once, and whoever ends the rehearsal early gets the report of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import httpx

from appliance.appliance import Appliance
from appliance.config import Config, TimeoutConfig, UpstreamConfig
from appliance.core.fault import BackendError, Fault
from appliance.drills.application import ask
from appliance.drills.cloud import FailingCloud, Script
from appliance.drills.counting import NAME as COUNT_TOKENS
from appliance.drills.counting import count
from appliance.drills.doors import DOORS, Behind
from appliance.drills.exchange import Exchange
from appliance.drills.faults import FAULTS, FLAWS, HEALTHY, CloudFault
from appliance.drills.flood import CONNECTIONS, crowd, flood
from appliance.drills.listener import serving
from appliance.drills.own import CREDENTIAL, MADE_UP, MAX_TOKENS, asked_models, called, in_place_of, question, shorter
from appliance.drills.report import Finding, Rehearsal, Report
from appliance.drills.verdict import Standing, judge, judge_standing, said_by
from appliance.guard.limits import LIMITS
from appliance.store.store import Resolved

UNKNOWN_SPEED = 5.0  # tokens per second, of a model that did not say
PACE = 0.01  # seconds between two pieces of a cloud whose speed is to be learned
LONG = 64  # tokens of an answer for each cloud that drips: for so long that a shorter one would be over
CLIENTS_OWN = ("wrong-key", "forbidden")
"""What is between the cloud and the caller where the credential is the caller's own."""

FALLBACK = "x-appliance-fallback"
ROUTE = "x-appliance-route"

Say = Callable[[str], None]
Tell = Callable[[Finding], None]
Make = Callable[[Config, Resolved], Appliance]


class EngineFailed(Exception):
    """The local model cannot be used; `str()` says why."""


async def rehearse(
    config: Config, model: Resolved, names: Sequence[str], *, say: Say, tell: Tell, make: Make
) -> Report:
    """Each drill of `names` in each wire of the configuration; ends early when it is cancelled. `make` builds the
    appliance, `say` hears what is being done, and `tell` what was found."""
    upstreams, named = asked_models(config.upstreams or (MADE_UP,))
    clouds = tuple(upstream.name for upstream in upstreams)
    report = Report(model=model.name, clouds=clouds, made_up=not config.upstreams)

    def found(one: Finding) -> None:
        nonlocal report
        report = report.and_also(one)
        tell(one)

    appliance = make(replace(config, upstreams=()), model)
    try:
        async with serving(appliance) as url, httpx.AsyncClient(base_url=url, timeout=None) as client:  # noqa: S113
            say(f"loading {model.name}")
            shortened = shorter(config.timeouts, await _speed(appliance))
            waits = (shortened.connect, shortened.first_content, shortened.stall, shortened.total)
            report = replace(report, waits=waits)
            scene = _Scene(appliance, client, config, upstreams, named, shortened, found)
            for name in names:
                say(name)
                await scene.play(name, url)
    except asyncio.CancelledError:
        report = replace(report, interrupted=True)
    return report


async def _speed(appliance: Appliance) -> float:
    """Wait for the model; gives its tokens per second."""
    try:
        ready = await appliance.engine.wait_ready()
    except BackendError as error:
        raise EngineFailed(error.message) from error
    return ready.tok_s or UNKNOWN_SPEED


class _Scene:
    """The appliance, and whoever plays its clouds."""

    def __init__(
        self,
        appliance: Appliance,
        client: httpx.AsyncClient,
        config: Config,
        upstreams: Sequence[UpstreamConfig],
        named: Mapping[str, str],
        shortened: TimeoutConfig,
        tell: Tell,
    ) -> None:
        self._appliance = appliance
        self._client = client
        self._config = config
        self._upstreams = upstreams
        self._named = named
        self._shortened = shortened
        self._tell = tell

    async def play(self, name: str, url: str) -> None:
        if name in DOORS:
            await self._door(name)
        elif name == "flood":
            await self._flood(url)
        elif name == "crowd":
            await self._crowd()
        elif name == COUNT_TOKENS:
            await self._count()
        else:
            await self._cloud(FAULTS[name] if name in FAULTS else FLAWS[name])

    async def _cloud(self, fault: CloudFault) -> None:
        script = Script(pace=PACE if fault.lessons else 0.0)
        async with self._clouds(fault, script) as clouds:
            for api, model in self._named.items():
                for stream in (True, False):
                    learns = bool(fault.lessons) and stream
                    self._adopt([cloud.root for cloud in clouds], self._timeouts(fault, learns=learns))
                    if learns:
                        await self._learn(fault, clouds, api, model)
                    expected = self._as_the_caller_hears(fault, api, model)
                    before = [len(cloud.exchanges) for cloud in clouds]
                    rehearsal = await self._ask(expected, api, model, stream=stream)
                    told = [one for cloud, first in zip(clouds, before, strict=True) for one in cloud.exchanges[first:]]
                    if expected.outcome(stream=stream) == "caller":
                        rehearsal, told = self._decided(rehearsal, told, api, model)
                    self._keep(rehearsal, judge(expected, rehearsal.heard, told, stream=stream), told)

    async def _door(self, name: str) -> None:
        door = DOORS[name]
        for api, model in self._named.items():
            for stream in (True, False):
                async with door.open(self._config.paths.state) as behind:
                    roots = [behind.root] * len(self._upstreams)
                    self._adopt(roots, self._timeouts(door.fault), behind)
                    rehearsal = await self._ask(door.fault, api, model, stream=stream)
                wrong = judge(door.fault, rehearsal.heard, [], stream=stream)
                if behind.told:
                    wrong = (*wrong, f"{behind.told} bytes were told to somebody who is not the cloud")
                if behind.knocks == 0:
                    wrong = (*wrong, "nobody looked who is there")
                self._keep(rehearsal, wrong)

    async def _flood(self, url: str) -> None:
        room = self._config.local.slots + self._config.local.queue
        for api, model in self._named.items():
            async with self._clouds(HEALTHY) as clouds:
                self._adopt([cloud.root for cloud in clouds], self._config.timeouts)
                self._tell(await flood(url, clouds, api=api, model=model, room=room))

    async def _crowd(self) -> None:
        few = replace(LIMITS, connections=CONNECTIONS)
        for api, model in self._named.items():
            async with self._clouds(HEALTHY) as clouds, serving(self._appliance, limits=few, first=False) as url:
                self._adopt([cloud.root for cloud in clouds], self._config.timeouts)
                self._tell(await crowd(url, clouds, api=api, model=model))

    async def _count(self) -> None:
        if "anthropic" in self._named:
            async with self._clouds(HEALTHY) as clouds:
                self._adopt([cloud.root for cloud in clouds], self._config.timeouts)
                self._tell(await count(self._client, clouds, model=self._named["anthropic"]))

    # ------------------------------------------------------------------------------------------- what they share

    @asynccontextmanager
    async def _clouds(
        self, fault: CloudFault, script: Script | None = None
    ) -> AsyncGenerator[list[FailingCloud], None]:
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(FailingCloud(fault.act, script=script, api=upstream.api))
                for upstream in self._upstreams
            ]

    def _adopt(self, roots: Sequence[str], timeouts: TimeoutConfig, behind: Behind | None = None) -> None:
        """From now on the clouds are at these addresses."""
        ca = behind.ca if behind else None
        standing_in = tuple(
            in_place_of(upstream, root, ca=ca) for upstream, root in zip(self._upstreams, roots, strict=True)
        )
        self._appliance.reload(replace(self._config, upstreams=standing_in, timeouts=timeouts))

    def _timeouts(self, fault: CloudFault, *, learns: bool = False) -> TimeoutConfig:
        """Shortened where only waiting can tell; but what is odd in a cloud's speed takes its time."""
        if learns:
            longest = 2 * (fault.within or self._config.timeouts.total)
            return replace(self._config.timeouts, total=min(self._config.timeouts.total, longest))
        return self._shortened if fault.waited_out else self._config.timeouts

    async def _learn(self, fault: CloudFault, clouds: Sequence[FailingCloud], api: str, model: str) -> None:
        """How fast is each of those that may be asked? Whoever goes on from another one is judged by its own speed."""
        for cloud in clouds:
            cloud.act = HEALTHY.act
        self._appliance.reset(None)
        await asyncio.gather(*(self._lessons(fault.lessons, one.name, api, model) for one in self._taking(model)))
        for cloud in clouds:
            cloud.act = fault.act

    async def _lessons(self, count: int, name: str, api: str, model: str) -> None:
        for _ in range(count):
            await ask(self._client, question(model, stream=True), api=api, headers={**CREDENTIAL, ROUTE: name})

    async def _ask(self, fault: CloudFault, api: str, model: str, *, stream: bool) -> Rehearsal:
        self._appliance.reset(None)
        began = time.monotonic()
        tokens = LONG * len(self._taking(model)) if fault.lessons else MAX_TOKENS
        body = question(model, stream=stream, max_tokens=tokens)
        heard = await ask(self._client, body, api=api, headers=CREDENTIAL)
        return Rehearsal(
            fault=fault, stream=stream, heard=heard, seconds=time.monotonic() - began, standings=self._standings(model)
        )

    def _standings(self, model: str) -> tuple[Standing, ...]:
        now = asyncio.get_running_loop().time()
        found = []
        for upstream in self._upstreams:
            breakers, name = self._appliance.breakers[upstream.name], called(model, upstream)
            found.append(
                Standing(
                    cloud=upstream.name,
                    state=breakers.state(now, name),
                    failures=breakers.failures,
                    reopens_in=breakers.reopens_in(now, name),
                )
            )
        return tuple(found)

    def _keep(self, rehearsal: Rehearsal, wrong: Sequence[str], told: Sequence[Exchange] = ()) -> None:
        fault, stream = rehearsal.fault, rehearsal.stream
        private = any(upstream.client_key for upstream in self._upstreams)
        wrong = [*wrong, *judge_standing(fault, rehearsal.standings, stream=stream, private=private)]
        clouds = max(1, len(told))  # each that went on was noticed by itself
        if stream and fault.within is not None and rehearsal.seconds > fault.within * clouds:
            wrong.append(f"it took {rehearsal.seconds:.0f} s to notice, in {clouds} of the clouds")
        words = "" if rehearsal.answered_by[:1] == ("local",) else said_by(told)
        self._tell(replace(rehearsal, cloud_characters=len(words), complaints=tuple(wrong)))

    def _as_the_caller_hears(self, fault: CloudFault, api: str, model: str) -> CloudFault:
        """A credential that a cloud refuses is the caller's affair where it is the caller's own."""
        if fault.name not in CLIENTS_OWN or not self._clients_own(api, model):
            return fault
        return replace(fault, streamed="caller", whole="caller", reason=Fault.REQUEST)

    def _decided(
        self, rehearsal: Rehearsal, told: list[Exchange], api: str, model: str
    ) -> tuple[Rehearsal, list[Exchange]]:
        """What is left to judge where more than one cloud was rightly asked: they race, or the box's own credential was
        refused first, and then the caller's."""
        own = self._clients_own(api, model)
        after_ours = rehearsal.fault.name in CLIENTS_OWN and self._asked(api, model)[0].name not in own
        if after_ours or any(upstream.hedge for upstream in self._upstreams):
            told = [exchange for exchange in told if exchange.body == rehearsal.heard.body][:1] or told
        if after_ours:
            headers = {name: said for name, said in rehearsal.heard.headers.items() if name != FALLBACK}
            theirs = tuple(standing for standing in rehearsal.standings if standing.cloud in own)
            rehearsal = replace(rehearsal, heard=replace(rehearsal.heard, headers=headers), standings=theirs)
        return rehearsal, told

    def _clients_own(self, api: str, model: str) -> set[str]:
        """The clouds that would be asked with the caller's own credential."""
        return {upstream.name for upstream in self._asked(api, model) if upstream.client_key}

    def _asked(self, api: str, model: str) -> list[UpstreamConfig]:
        return [one for one in self._taking(model) if one.api == api]

    def _taking(self, model: str) -> list[UpstreamConfig]:
        """The clouds that are offered this model, in whatever wire."""
        return [one for one in self._upstreams if called(model, one) is not None]
