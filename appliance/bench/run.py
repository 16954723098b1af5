"""One run of the benchmark, phase by phase, with the real engine and a real service that nobody else uses.

Rules of this file:

1. One thing at a time: two loaded models would each be measured beside the other.
2. What was measured is kept at once. A phase that fails leaves a note and the others go on; whoever ends the run early
   gets what there is.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from appliance import __version__
from appliance.backends.box import bandwidth, describe, weigh
from appliance.backends.process import Engine, EngineReady
from appliance.bench.added import added
from appliance.bench.asking import Asking, Conversation, Failed
from appliance.bench.fastcloud import fast_cloud
from appliance.bench.figures import Lived, Row, reading, spread, together, writing
from appliance.bench.plan import (
    NAMES,
    PHASES,
    ROOM,
    TAKEOVER_ROOM,
    Phase,
    Speeds,
    Wishes,
    crowd_rounds,
    depths,
    seconds_left,
    takeover_tokens,
)
from appliance.bench.result import Result, Setup
from appliance.bench.service import FAILING, FAST, Service
from appliance.bench.surroundings import forget, memory, parts, peak_memory
from appliance.bench.takeover import Dying, take_over
from appliance.config import Config
from appliance.core.fault import BackendError
from appliance.core.machine import Machine, Weight
from appliance.spec import engine_spec
from appliance.store.store import Resolved

LOAD_WITHIN = 1800.0
KNOWN, TAIL = 0.9, 32
"""Of a conversation so much must be known already, or nothing was measured behind it; what the template closes it with
is computed again."""
UNKNOWN_SPEED = 5.0  # tokens per second, of a model that did not say
READS_FASTER = 4  # than it writes, until we know

Say = Callable[[str, float | None], None]
"""Told what is being done, and how many seconds are left, as far as anybody knows."""
T = TypeVar("T")


async def measure(
    config: Config, name: str, model: Resolved, wishes: Wishes, *, say: Say, random_weights: bool = False
) -> Result:
    """Everything, with the model that the configuration would call `name`. Cancelled, it gives what it has. Raises
    `Failed` if nothing can be measured at all."""
    run = _Run(replace(config, local=replace(config.local, model=name)), model, wishes, say, random_weights)
    try:
        await run.everything()
    except asyncio.CancelledError:
        if run.result is None:
            raise
        return replace(run.result, interrupted=True)
    return run.known


class _Run:
    def __init__(self, config: Config, model: Resolved, wishes: Wishes, say: Say, random_weights: bool) -> None:
        self.result: Result | None = None
        self._config = config
        self._model = model
        self._wishes = wishes
        self._say = say
        self._random_weights = random_weights
        self._phase: Phase = "machine"
        self._began = 0.0
        self._speeds: Speeds | None = None
        self._context = 0
        self._longest = 0
        """A conversation of one of a service's two slots, with all that is known: what the model was made for, or what
        there is memory for."""
        self._to_take_over: tuple[Conversation, int] | None = None

    async def everything(self) -> None:
        parts = (
            ("One answer at a time", self._alone),
            ("Several answers at once", self._crowd),
            ("The way through the box", self._served),
        )
        for what, part in parts:
            try:
                await part()
            except (Failed, BackendError, httpx.HTTPError, TimeoutError, OSError) as error:
                if self.result is None:
                    raise
                self._note(f"{what} could not be measured to the end: {_sentence(error)}")

    # ------------------------------------------------------------------------------------------------ its parts

    async def _alone(self) -> None:
        """The machine, the model from the disk, and one answer at a time."""
        busy, at = os.getloadavg()[0], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._begin("machine")
        unknown: list[str] = []
        machine = await _asked(describe, unknown)
        weight = await _asked(lambda: weigh(self._model.path), unknown)
        speed = await _asked(bandwidth, unknown)
        dropped = all([forget(part) for part in parts(self._model.path)])
        self._begin("cold")
        async with self._engine(self._wishes.context, slots=2) as (engine, ready, seconds):
            setup = self._setup(ready, machine, weight, speed, busy=busy, at=at)
            self.result = Result(setup=setup, notes=tuple(unknown))
            self._context = ready.context
            fits = ready.context == self._wishes.context
            self._longest = int(ready.model.get("context_train") or ready.context) if fits else ready.context
            usual = ready.tok_s or UNKNOWN_SPEED
            self._speeds = Speeds(load=seconds, reading=READS_FASTER * usual, writing=usual)
            if dropped:
                self._keep(load_cold=seconds)
            else:
                self._note("The kernel kept the model's file in memory, so nothing was loaded cold.")
            for step in ready.steps_down:
                self._note(step)
            await self._read_and_write(Asking(engine, temperature=self._temperature))
            if machine is not None and machine.devices and (now := await _asked(describe, [])) is not None:
                self._keep(vram=max(0, _free(machine) - _free(now)))

    async def _read_and_write(self, asking: Asking) -> None:
        """At the beginning of a conversation, and far into one."""
        self._begin("shallow")
        wishes, speeds = self._wishes, self.speeds
        await asking.calibrate()
        warm = await asking.ask(await asking.fresh(64), 8)
        self._learn([warm.computed / warm.first], [warm.speed or speeds.writing])
        if wishes.depths is None or 0 in wishes.depths:
            rows = await self._rounds(asking, depth=0)
            self._learn(
                [speed for row in rows if row.n_prompt for speed in row.speeds],
                [speed for row in rows if row.n_gen for speed in row.speeds],
            )
        fitting = depths(wishes, self.speeds, self._context)
        for depth in fitting:
            self._begin("deep")
            await self._rounds(asking, depth=depth)
        if wishes.depths is None and not fitting:
            self._note(
                "Nothing was measured far into a conversation, which takes minutes here; ask for it with -d 2048."
            )
        for depth in wishes.depths or ():
            if depth and depth not in fitting:
                self._note(f"A depth of {depth:,} tokens does not fit this model's context of {self._context:,}.")
        tokens = takeover_tokens(wishes, self.speeds, self._longest)
        self._to_take_over = await asking.fresh(tokens), tokens

    async def _rounds(self, asking: Asking, *, depth: int) -> list[Row]:
        """All rounds at one depth."""
        wishes, before = self._wishes, self.known
        read: dict[int, list[Lived]] = {length: [] for length in wishes.prompts if length}
        written: dict[int, list[Lived]] = {length: [] for length in wishes.gens if length}
        rows: list[Row] = []
        begun = None
        if depth:
            begun = await asking.fresh(depth)
            await asking.ask(begun, 1)
        for _ in range(wishes.rounds):
            # Interleaved, so that a machine that is warm or busy falls on all alike.
            for length, answers in read.items():
                answers.append(await asking.ask(await asking.fresh(length, after=begun), 1))
            for length, answers in written.items():
                answers.append(await asking.ask(asking.task(begun), length))
            if any(
                answer.cached < KNOWN * depth - TAIL
                for answers in (*read.values(), *written.values())
                for answer in answers
            ):
                self.result = before
                self._note(f"Nothing was measured behind {depth:,} tokens: the engine read them anew each time.")
                return []
            rows = [reading(answers, n_prompt=length, n_depth=depth) for length, answers in read.items()]
            rows += [writing(answers, n_gen=length, n_depth=depth) for length, answers in written.items()]
            self.result = replace(before, rows=(*before.rows, *rows))
            self._tell()
        return rows

    async def _crowd(self) -> None:
        """The model once more, now that its file is in memory, and several answers at once."""
        self._begin("warm")
        wishes = self._wishes
        prompt, gen = wishes.crowd_prompt, wishes.crowd_gen
        async with self._engine(prompt + gen + ROOM, slots=max(wishes.parallel)) as (engine, _, seconds):
            self._keep(load_warm=seconds)
            self._begin("crowd")
            asking, before = Asking(engine, temperature=self._temperature), self.known
            await asking.calibrate()
            await asking.ask(await asking.fresh(64), 8)
            taken: dict[int, list[list[Lived]]] = {many: [] for many in wishes.parallel}
            for _ in range(crowd_rounds(wishes, self.speeds)):
                for many, rounds in taken.items():
                    conversations = [await asking.fresh(prompt, task=True) for _ in range(many)]
                    rounds.append(list(await asyncio.gather(*(asking.ask(one, gen) for one in conversations))))
                    rows = [together(found, n_prompt=prompt, n_gen=gen) for found in taken.values() if found]
                    self.result = replace(before, rows=(*before.rows, *rows))
                    self._tell()

    async def _served(self) -> None:
        """What a service takes over, and what it adds."""
        self._begin("service")
        if self._to_take_over is None:
            raise Failed("there was no conversation to take over.")
        conversation, tokens = self._to_take_over
        dying = Dying()
        with tempfile.TemporaryDirectory(prefix="appliance-bench-") as folder:
            async with (
                dying.cloud as failing,
                fast_cloud() as fast,
                Service(
                    self._config,
                    context=tokens + TAKEOVER_ROOM,
                    folder=Path(folder),
                    clouds={FAILING: failing.root, FAST: fast},
                ) as service,
            ):
                assert service.pid is not None
                self._keep(service_memory=memory(service.pid))
                self._begin("takeover")
                try:
                    rounds, told = self._wishes.takeover_rounds, lambda found: self._keep(takeover=found)
                    await take_over(service, dying, conversation, tokens=tokens, rounds=rounds, told=told)
                except Failed as error:
                    self._note(f"The silence at takeover could not be measured to the end: {_sentence(error)}")
                self._begin("added")
                await service.stand_by(self._config.local.standby)
                rounds, told = self._wishes.added_rounds, lambda found: self._keep(added=found)
                await added(fast, service.url, rounds=rounds, told=told)

    # ------------------------------------------------------------------------------------------------ its state

    @property
    def known(self) -> Result:
        """What there is so far."""
        assert self.result is not None
        return self.result

    @property
    def speeds(self) -> Speeds:
        assert self._speeds is not None
        return self._speeds

    @property
    def _temperature(self) -> float:
        # The likeliest word of random weights is always the same one.
        return 1.0 if self._random_weights else 0.0

    def _learn(self, reads: Sequence[float], writes: Sequence[float]) -> None:
        """How fast is it?"""
        self._speeds = replace(
            self.speeds,
            reading=spread(reads).mean if reads else self.speeds.reading,
            writing=spread(writes).mean if writes else self.speeds.writing,
        )

    def _keep(self, **found: Any) -> None:
        self.result = replace(self.known, **found)

    def _note(self, sentence: str) -> None:
        self._keep(notes=(*self.known.notes, sentence))

    def _begin(self, phase: Phase) -> None:
        self._phase, self._began = phase, time.monotonic()
        self._tell()

    def _tell(self) -> None:
        """What is being done, and how long all the rest takes; what this phase took so far is taken off."""
        left = None
        if self._speeds is not None:
            at, taken = PHASES.index(self._phase), time.monotonic() - self._began
            this, rest = (
                seconds_left(some, self._wishes, self._speeds, self._context, self._longest)
                for some in (PHASES[at : at + 1], PHASES[at + 1 :])
            )
            left = max(0.0, this - taken) + rest
        self._say(NAMES[self._phase], left)

    @asynccontextmanager
    async def _engine(self, context: int, *, slots: int) -> AsyncIterator[tuple[Engine, EngineReady, float]]:
        """An engine, what it said when it was ready, and the seconds until then. Raises `Failed`."""
        local = replace(self._config.local, context=context, slots=slots, queue=slots)
        engine = Engine(engine_spec(local, self._model))
        began = time.perf_counter()
        await engine.start()
        try:
            try:
                ready = await engine.wait_ready(LOAD_WITHIN)
            except BackendError as error:
                raise Failed(f"the model could not be loaded: {error.message}") from error
            except TimeoutError:
                raise Failed(f"{self._model.path} was not loaded within {LOAD_WITHIN:.0f} s.") from None
            yield engine, ready, time.perf_counter() - began
        finally:
            if self.result is not None and (peak := peak_memory(engine.pid)) is not None:
                self._keep(peak_memory=max(peak, self.known.peak_memory or 0))
            await engine.stop()

    def _setup(
        self,
        ready: EngineReady,
        machine: Machine | None,
        weight: Weight | None,
        speed: float | None,
        *,
        busy: float,
        at: str,
    ) -> Setup:
        model, path = ready.model, self._model.path
        devices = machine.devices if machine is not None else ()
        kinds = dict.fromkeys(re.sub(r"\d+$", "", device.name) for device in devices)
        called = str(model.get("description") or model.get("name") or path.stem)
        return Setup(
            version=__version__,
            build=f"llama-cpp-python {machine.build}" if machine is not None else "unknown",
            cpu=machine.cpu if machine is not None else platform.processor() or platform.machine(),
            cores=machine.cores if machine is not None else os.cpu_count() or 1,
            gpu=", ".join(device.description for device in devices),
            backends=",".join(kinds) or "CPU",
            instruction_sets=" ".join(machine.instruction_sets) if machine is not None else ready.instruction_sets,
            filename=path.name,
            model_type=f"{path.stem}, random weights" if self._random_weights else called,
            model_size=int(model.get("bytes") or path.stat().st_size),
            parameters=model.get("parameters"),
            read_per_token=sum(read.bytes for read in weight.reads) if weight is not None else None,
            threads=ready.threads,
            kv_type=ready.kv_type,
            gpu_layers=ready.gpu_layers,
            layers=ready.layers,
            random_weights=self._random_weights,
            at=at,
            busy=round(busy, 2),
            bandwidth=speed,
        )


async def _asked(question: Callable[[], T], notes: list[str]) -> T | None:
    """An answer about the box; a note if there is none."""
    try:
        return await asyncio.to_thread(question)
    except BackendError as error:
        notes.append(f"The machine did not tell all about itself: {error.message}")
        return None


def _sentence(error: Exception) -> str:
    """What went wrong, with one full stop behind it."""
    said = str(error) or type(error).__name__
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _free(machine: Machine) -> int:
    return sum(device.free for device in machine.devices)
