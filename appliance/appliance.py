"""The appliance: built from a `Config`, it owns backends, breakers and journal, and answers requests.

The one place that knows everybody. It builds, owns, closes and answers; what to do about a request is decided in
`core`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial

from appliance.answer import Answer
from appliance.backends import box
from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.backends.health import Health, Patient
from appliance.backends.local import LocalBackend
from appliance.backends.process import Engine
from appliance.backends.refused import stopped
from appliance.config import Config, LocalConfig, TimeoutConfig, UpstreamConfig
from appliance.core.attempt import Tried
from appliance.core.budget import Budget
from appliance.core.chat import ChatRequest
from appliance.core.fault import BackendError, Fault
from appliance.core.habits import Habits
from appliance.core.offline import place
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.route import LOCAL, Offer, concrete, legs, models
from appliance.core.scopes import Breakers
from appliance.core.seams import Backend
from appliance.core.size import in_words
from appliance.counting import Counted, count_tokens
from appliance.dialects.known import DIALECTS
from appliance.drive import drive
from appliance.journal import Attempt, Journal
from appliance.ledger import Ledger
from appliance.metrics import Metrics
from appliance.spec import engine_spec
from appliance.store.store import Resolved

log = logging.getLogger("appliance")

AT_ONCE = ("standby", "unload_after", "overflow")
"""Keys of [local] that come true without another engine."""
WEIGHED_WITHIN = 20.0
"""Seconds in which a model is weighed before it comes in the place of another."""
EXCHANGED = "The local model was exchanged for another."


class Appliance:
    def __init__(
        self,
        config: Config,
        model: Resolved,
        *,
        engine: Engine | None = None,
        local: LocalBackend | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """`engine` and `local` are what answers on the box, if it is not to be the model's own process."""
        self.config = config
        self.metrics = Metrics()
        self.ledger = ledger
        self.journal = Journal(self.metrics.attempted, keep=ledger.keep if ledger else None)
        self.model = model
        self.engine = engine or self._engine(config.local, model)
        self._local = local or LocalBackend(self.engine, model.name, standby=config.local.standby)
        self.wanted: tuple[LocalConfig, Resolved] | None = None
        """What the configuration asks for on the box since the last reload, and is not there yet."""
        self.wish = asyncio.Event()
        """Set with it."""
        self.refused: str | None = None
        """Why the box does not have what the configuration asks for, if it was looked at."""
        self.proven: tuple[LocalConfig, Resolved] | None = None
        """What has answered on this box: what is loaded again when another cannot be."""
        self.started_at = time.time()
        self.running: set[Relay] = set()
        """The answers that are under way."""
        self._random = random.Random()
        self._retired: list[CloudBackend] = []
        self._leaving: list[Engine] = []  # they finish what they write
        self._over = False
        self.clouds: dict[str, CloudBackend] = {}
        self.breakers: dict[str, Breakers] = {}
        self._budgets: dict[str, Budget] = {}
        self.habits: dict[str, Habits] = {}
        self._offers: tuple[Offer, ...] = ()
        self.limits = Timeouts()
        self._adopt(config)
        self.health = Health(
            self._patients,
            interval=lambda: self.config.breaker.probe_interval,
            canary_interval=lambda: self.config.breaker.canary_interval,
        )

    # ------------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the engine's process; it is ready some time later (`engine.wait_ready`)."""
        await self.engine.start()
        self.health.start()

    async def aclose(self) -> None:
        self._over = True
        await self.health.aclose()
        for engine in (self.engine, *self._leaving):
            await engine.stop()
        for cloud in (*self.clouds.values(), *self._retired):
            await cloud.aclose()
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.close)

    def reload(self, config: Config, model: Resolved | None = None) -> tuple[str, ...]:
        """Take over a new configuration without dropping a running answer. What needs another engine is `wanted` from
        then on, and comes true with `exchange`.

        Returns:
            The keys that need a restart to come true, like "server.port".
        """
        local = _at_once(self.config.local, config.local)
        self._local.adopt(local.standby)
        self.engine.unload_after = local.unload_after
        self._adopt(config)
        self.config = replace(
            self.config,
            local=local,
            upstreams=config.upstreams,
            timeouts=config.timeouts,
            breaker=config.breaker,
        )
        asked = config.local, model or self.model
        self.wanted, self.refused = None if self.has(*asked) else asked, None
        if self.wanted is not None:
            self.wish.set()
        waiting = tuple(
            f"{section}.{field.name}"
            for section in ("server", "paths")
            for field in fields(getattr(config, section))
            if getattr(getattr(config, section), field.name) != getattr(getattr(self.config, section), field.name)
        )
        return waiting

    def has(self, local: LocalConfig, model: Resolved) -> bool:
        """Is the engine in place one of these?"""
        return (_at_once(local, self.config.local), model) == (self.config.local, self.model)

    async def refusal(self, local: LocalConfig, model: Resolved) -> str | None:
        """Why can this model not come in the place of the one there is? Nothing is loaded for the question; what nobody
        can tell in time is tried."""
        spec, gone = engine_spec(local, model), self.engine.memory
        weigh = partial(
            box.weigh,
            spec.path,
            context=spec.context,
            slots=spec.slots,
            kv_type=spec.kv_type,
            gpu_layers=spec.gpu_layers,
            patience=WEIGHED_WITHIN,
        )
        try:
            machine = await asyncio.to_thread(box.describe, patience=WEIGHED_WITHIN)
            weight = await asyncio.to_thread(weigh)
        except BackendError as error:
            return error.message if error.fault in (Fault.CONFIG, Fault.CRASHED) else None
        if gone is None or weight.fits or weight.least(machine) <= machine.ram_free + gone:
            return None
        least, free = in_words(weight.least(machine)), in_words(machine.ram_free + gone)
        return f"it takes at least {least} of memory, and {free} would be free."

    async def exchange(self, local: LocalConfig, model: Resolved, *, patience: float) -> None:
        """Put another engine in the place of this one: box memory holds one of them. Clouds go on answering; what the
        box is asked meanwhile waits for the new engine, and so does, after `patience` seconds, what the old one was
        still writing: it goes on there."""
        local, before = _at_once(local, self.config.local), self.engine
        self.engine = self._engine(local, model)
        self._local.exchange(self.engine, model.name)
        self.config, self.model = replace(self.config, local=local), model
        self._leaving.append(before)
        await before.idle(patience)
        await before.stop(because=stopped(EXCHANGED))
        self._leaving.remove(before)
        if not self._over:
            await self.engine.start()

    def break_off(self) -> int:
        """End every answer that is under way, as ours to answer for; how many that are."""
        for relay in self.running:
            relay.stop()
        return len(self.running)

    def _engine(self, local: LocalConfig, model: Resolved) -> Engine:
        engine = Engine(
            engine_spec(local, model),
            unload_after=local.unload_after,
            totals=lambda stats: self.metrics.engine_said(stats, life=engine.pid or 0),
            followed=lambda: self.proven is not None and not self.has(*self.proven),
        )
        return engine

    def _adopt(self, config: Config) -> None:
        before = {upstream.name: upstream for upstream in self.config.upstreams}
        clouds: dict[str, CloudBackend] = {}
        breakers: dict[str, Breakers] = {}
        budgets: dict[str, Budget] = {}
        habits: dict[str, Habits] = {}
        for upstream in config.upstreams:
            same_settings = (config.timeouts, config.breaker) == (self.config.timeouts, self.config.breaker)
            unchanged = before.get(upstream.name) == upstream and same_settings
            if unchanged and upstream.name in self.clouds:
                clouds[upstream.name] = self.clouds[upstream.name]
                breakers[upstream.name] = self.breakers[upstream.name]
                habits[upstream.name] = self.habits[upstream.name]
                budgets[upstream.name] = self._budgets[upstream.name]
            else:
                budgets[upstream.name] = Budget()
                habits[upstream.name] = Habits()
                clouds[upstream.name] = _cloud(upstream, config.timeouts)
                breakers[upstream.name] = Breakers(failures=config.breaker.failures, cooldown=config.breaker.cooldown)
        # An answer may still be running in a cloud that is gone from the file; it is closed with the service.
        self._retired += [cloud for cloud in self.clouds.values() if cloud not in clouds.values()]
        self.clouds, self.breakers, self.habits, self._budgets = clouds, breakers, habits, budgets
        self._offers = tuple(
            Offer(
                name=upstream.name,
                dialect=upstream.api,
                objection=DIALECTS[upstream.api].objection,
                client_key=upstream.client_key,
                models=upstream.models,
                aliases=upstream.aliases,
                prefill=upstream.prefill,
                watch_whole=upstream.watch_whole,
                hedge=upstream.hedge,
            )
            for upstream in config.upstreams
        )
        self.limits = _limits(config.timeouts)

    def _patients(self) -> list[Patient]:
        """The clouds, as those whose health is watched."""
        return [
            Patient(
                name=upstream.name,
                place=place(upstream.base_url, upstream.proxy),
                breakers=self.breakers[upstream.name],
                cloud=self.clouds[upstream.name],
                canary=offer.resolve(upstream.canary) if upstream.canary is not None else None,
                dialect=upstream.api,
            )
            for upstream, offer in zip(self.config.upstreams, self._offers, strict=True)
        ]

    # ---------------------------------------------------------------------------------------------- answers

    def answer(self, request: ChatRequest, *, id: str, wish: str = "auto") -> Answer:
        """Begin to answer; nothing runs until its events are asked for.

        Raises:
            BackendError: REQUEST, when nobody may answer this.
        """
        request = replace(request, trim=self.config.local.overflow == "trim")
        relay = Relay(
            request,
            legs(request, self._offers, wish=wish, box_model=self.model_name),
            self.breakers,
            limits=self.limits,
            jitter=self._random.random(),
            habits=self.habits,
            heard=self.metrics.heard,
            budgets=self._budgets,
        )
        backends: dict[str, Backend] = {**self.clouds, LOCAL: self._local}
        standby = self._local if self.config.local.standby != "cold" else None
        batches = drive(relay, backends, lambda tried: self._record(id, request, tried), standby)
        return Answer(
            id=id,
            request=request,
            relay=relay,
            batches=batches,
            journal=self.journal,
            metrics=self.metrics,
            running=self.running,
        )

    async def models(self) -> tuple[str, ...]:
        """The models that can be asked for by name. A cloud that is offered patterns is asked which it has."""
        names = [name for name in models(self._offers) if concrete(name)]
        open_ended = [offer for offer in self._offers if not all(map(concrete, offer.models))]
        now = asyncio.get_running_loop().time()
        asked = [offer for offer in open_ended if self.breakers[offer.name].admits(now)]
        said = await asyncio.gather(*(self.clouds[offer.name].models() for offer in asked))
        for offer, found in zip(asked, said, strict=True):
            names += [name for name in found if offer.resolve(name) is not None]
        return tuple(dict.fromkeys(names))

    async def count_tokens(self, request: ChatRequest, body: Callable[[str], bytes], *, wish: str = "auto") -> Counted:
        """How many tokens is this conversation? Asked of a cloud with `body` under its own name for the model.

        Raises:
            BackendError: REQUEST, as the cloud or the routing says it.
        """
        anything = replace(request, needs=frozenset())  # what the box cannot do, it can count
        asked = legs(anything, self._offers, wish=wish, box_model=self.model_name)
        own = [offer.name for offer in self._offers if offer.dialect == request.dialect]
        clouds = {name: self.clouds[name] for name in own}
        return await count_tokens(request, body, legs=asked, clouds=clouds, breakers=self.breakers, box=self._local)

    def _record(self, id: str, request: ChatRequest, tried: Tried) -> None:
        error, habits = tried.error or tried.flaw, self.habits.get(tried.leg)
        self.journal.record(
            Attempt(
                at=time.time(),
                request_id=id,
                leg=tried.leg,
                fault=error.fault if error else None,
                reason=error.message if error else "",
                characters=tried.characters,
                seconds=tried.seconds,
                continued=tried.continued,
                model=request.model,
                stream=request.stream,
                first_content_s=tried.first_content,
                takeover=tried.silence is not None,
                silence_s=tried.silence,
                leg_model=tried.model,
                patient=tried.patient,
                slow_s=habits.slow(asyncio.get_running_loop().time()) if habits is not None else None,
                blameless=tried.blameless,
            )
        )

    # ------------------------------------------------------------------------------------------------ state

    @property
    def model_name(self) -> str:
        return self.model.name

    @property
    def serving(self) -> str | None:
        """Who would answer a request now: the first cloud whose breaker admits, else the box if it is ready."""
        now = asyncio.get_running_loop().time()
        for name, breaker in self.breakers.items():
            if breaker.admits(now):
                return name
        return LOCAL if self.engine.able else None

    def reset(self, upstream: str | None) -> list[str]:
        """Close breakers by hand, all of them or one; returns the names of those closed.

        Raises:
            KeyError: no such upstream.
        """
        names = list(self.breakers) if upstream is None else [upstream]
        for name in names:
            self.breakers[name].reset()
        return names


def _at_once(local: LocalConfig, now: LocalConfig) -> LocalConfig:
    """`local`, with what needs no other engine as it is `now`."""
    return replace(local, **{key: getattr(now, key) for key in AT_ONCE})


def _cloud(upstream: UpstreamConfig, timeouts: TimeoutConfig) -> CloudBackend:
    target = CloudTarget(
        name=upstream.name,
        base_url=upstream.base_url,
        key=upstream.key,
        key_header=upstream.key_header,
        client_key=upstream.client_key,
        quirks=upstream.quirks,
        headers=upstream.headers,
        connect=timeouts.connect,
        proxy=upstream.proxy,
        ca=upstream.ca,
        watch_whole=upstream.watch_whole,
    )
    return CloudBackend(target, DIALECTS[upstream.api])


def _limits(timeouts: TimeoutConfig) -> Timeouts:
    return Timeouts(
        first_content=None if timeouts.first_content == "auto" else timeouts.first_content,
        stall=None if timeouts.stall == "auto" else timeouts.stall,
        total=timeouts.total,
    )
