"""The engine: one process started, kept alive and spoken to. Whether it should live is for `core.keeper` to say,
whether it is at work for `core.watch`; both are asked by the `Lookout`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from appliance.backends.child import Child, EngineReady, EngineSpec, how, spawn
from appliance.backends.following import Following, Followings, inert
from appliance.backends.line import Line
from appliance.backends.lookout import Lookout
from appliance.backends.outstanding import ENDINGS, Outstanding
from appliance.backends.refused import FAILING, STOPPED, UNREADY, busy, crashed, over, written
from appliance.core.fault import BackendError
from appliance.core.frames import Frame, FrameError
from appliance.core.keeper import GiveUp, Keeper, Mode, WaitUntil
from appliance.core.watch import Patience

log = logging.getLogger("appliance.engine")

__all__ = ["Engine", "EngineReady", "EngineSpec"]

State = Literal["starting", "loading", "ready", "careful", "restarting", "failing", "failed", "asleep", "stopped"]
SIGNS_OF_LIFE = ("begun", "text", "finish")
RESPAWN_SECONDS = 5.0
RETRY_SECONDS = 10.0
SHOWN_LINES = 8
HOPELESS = 3
"""Deaths of an engine that was never ready, when another one would be."""


class Engine:
    """Owns the child process. One event loop, one owner.

    After `unload_after` seconds without any work the process is ended and its memory given back, until the next
    request; 0 is never.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        python: str = sys.executable,
        unload_after: float = 0.0,
        keeper: Keeper | None = None,
        patience: Patience | None = None,
        totals: Callable[[Frame], None] = lambda _: None,
        followed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`totals` hears what each process has done so far, after every answer and whenever somebody asks. `followed`:
        if this one gives up, does another come in its place? Then whoever waits goes on waiting, until it is stopped.
        """
        self.spec = spec
        self._totals = totals
        self._followed = followed
        self.ready: EngineReady | None = None  # what it said last; kept while it is asleep
        self.failure: str | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.deaths = 0
        self.last_death: str | None = None
        self.progress = 0.0
        self._python = python
        self.unload_after = unload_after
        self._ids = itertools.count(1)
        self._line = Line(queue=spec.queue, slots=spec.slots)
        self._outstanding = Outstanding(self._one_less)
        self._followings = Followings(spec.slots, self._rouse, self._touch)
        self._keeper = keeper or Keeper()
        self._lookout = Lookout(
            keeper=self._keeper,
            patience=patience or Patience(),
            unload_after=lambda: self.unload_after,
            ids=self._ids,
            outstanding=self._outstanding,
            line=self._line,
            followings=self._followings,
            changed=self._mode_changed,
            unneeded=self._fall_asleep,
        )
        self._life: State = "starting"
        self._waking = False
        self._over = False
        self._because: BackendError | None = None
        self._retry_at = 0.0
        self._wanted = asyncio.Event()
        self._gave_up = asyncio.Event()
        self._proven = False  # was it ever ready?
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """How it is, in a word."""
        if self._life in ("asleep", "failed", "stopped"):
            return self._life
        if self._lookout.mode == "failing":
            return "failing"
        return "careful" if self._lookout.up and self._lookout.mode == "careful" else self._life

    @property
    def able(self) -> bool:
        """Would a request be answered now? One that is asleep wakes for it."""
        return self.state in ("ready", "careful", "asleep") or (self._waking and self.state == "loading")

    @property
    def memory(self) -> int | None:
        """Bytes that the box has back when the process has ended, if the system tells. What it only maps counts as free
        all the while."""
        if self.pid is None:
            return 0
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text("utf-8").splitlines()
        except OSError:
            return None
        sizes = (line.partition(":") for line in lines if line.startswith(("RssAnon:", "RssShmem:", "VmLck:")))
        return sum(1024 * int(size.split()[0]) for _, _, size in sizes)

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Have a process started, as soon as the system has room for one; `wait_ready` waits for the model."""
        assert self._task is None, "an engine is started once"
        self._task = asyncio.create_task(self._keep(), name="engine-keeper")

    async def idle(self, within: float) -> bool:
        """Waits until nobody asks it anything any more, or it cannot answer; false if that takes longer."""
        try:
            async with asyncio.timeout(within):
                while self.failure is None and (self._outstanding.read or self._line):
                    await self._line.news()
        except TimeoutError:
            return False
        return True

    async def stop(self, because: BackendError | None = None) -> None:
        """End the process and every answer it was writing; they hear `because`, or that there is no engine any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        child, self._child = self._child, None
        self._lookout.rest(died=False)
        self._followings.close()
        self._life, self._over, self.ready, self._because = "stopped", True, None, because
        self._outstanding.fail(because or over())
        self._line.tell()
        if child is not None:
            child.questions.fail(because or over())
            await child.end()
        self.pid = None

    async def wait_ready(self, timeout: float | None = None) -> EngineReady:
        """What the engine says when it is ready, or what it said before it fell asleep. Raises `BackendError` (SERVER)
        if it never will be, `TimeoutError` if it is not yet."""
        async with asyncio.timeout(timeout):
            while True:
                if self.ready is not None and (self._lookout.up or self._life == "asleep"):
                    return self.ready
                if self.failure is not None:
                    raise over(self.failure)
                self._refuse_if_over()
                await self._line.news()

    async def wait_failed(self) -> str:
        """Waits until there will be no engine any more, and says why."""
        await self._gave_up.wait()
        return self.failure or STOPPED

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            child = await self._spawn_somehow()
            code = await self._attend(child)
            if child.dismissed:
                await self._wanted.wait()
            else:
                self.deaths += 1
                self.last_death = f"wedged: {child.wedged}" if child.wedged else how(code)
                answer = self._keeper.exited(code, loop.time(), reason=child.fatal)
                if not self._proven and self.deaths >= HOPELESS and self._followed():
                    answer = GiveUp(f"its process died {HOPELESS} times before it was ready (last: {self.last_death}).")
                if isinstance(answer, GiveUp):
                    self._give_up(answer.reason)
                    return
                said = "".join(f"\n  {line}" for line in list(child.tail)[-SHOWN_LINES:])
                log.warning("engine (pid %s) died with %s; starting it again%s", child.process.pid, how(code), said)
                self._life = "restarting"
                self._retry_at = answer.time if isinstance(answer, WaitUntil) else 0.0
                self._lookout.adopt_mode()
                if isinstance(answer, WaitUntil):
                    await asyncio.sleep(answer.time - loop.time())
                self.restarts += 1

    async def _spawn_somehow(self) -> Child:
        """A new process, as soon as the system has room for one."""
        while True:
            try:
                return await self._spawn()
            except OSError as error:
                log.error("the engine cannot be started (%s); trying again", error.strerror)
                await asyncio.sleep(RESPAWN_SECONDS)

    async def _spawn(self) -> Child:
        child = await spawn(self._python)
        self._child, self.pid, self.progress = child, child.process.pid, 0.0
        self._lookout.begin(child, self.spec.path)
        if self._life in ("starting", "asleep"):
            self._life = "loading"
        child.send({"op": "load", **asdict(self.spec)})
        self._lookout.look()
        return child

    async def _attend(self, child: Child) -> int:
        """Read what the child says until it is gone; its exit code."""
        try:
            await child.read(self._receive)
        except (FrameError, LookupError, TypeError, ValueError) as error:
            log.error("engine (pid %s) sent nonsense: %s", child.process.pid, error)
        slots = self.ready.slots if self.ready is not None else 0
        if not child.dismissed:
            if self._lookout.up:
                self._life = "restarting"
            self._waking, self.ready = False, None
            self._lookout.rest(died=True)
        crash = crashed()
        self._outstanding.fail(crash, slots=slots)
        child.questions.fail(crash)
        code = await child.end()
        self.pid = None
        return code

    def _give_up(self, reason: str) -> None:
        self.failure = reason
        self._life, self._over = "failed", not self._followed()
        log.error("engine gave up: %s", reason)
        self._followings.close()
        self._outstanding.fail(over(reason))
        self._gave_up.set()
        self._line.tell()

    def _mode_changed(self, mode: Mode) -> None:
        if mode == "normal":
            log.info("engine lived for a minute: requests run side by side again")
        elif mode == "careful":
            log.warning("engine is handled with care: one request at a time, until it lives for a minute")
        else:
            log.error("engine is failing (last: %s): requests are refused until it stays alive", self.last_death)
        self._line.tell()

    def _fall_asleep(self) -> None:
        self._life = "asleep"
        self._wanted.clear()

    def _rouse(self) -> None:
        if self._life == "asleep":
            self._waking = True
            self._wanted.set()

    # ---------------------------------------------------------------------------------------------- its frames

    def _receive(self, frames: list[Frame]) -> None:
        now = asyncio.get_running_loop().time()
        for frame in frames:
            id, op = frame.get("id"), frame["op"]
            if op == "alive":
                self._lookout.watch.alive(now)
            elif id is not None:
                self._receive_for(id, frame, now)
            elif op == "loading":
                self.progress = float(frame["progress"])
                self._life = "loading"
                self._lookout.watch.progress(now)
            elif op == "ready":
                self._become_ready(frame)
            elif op == "fatal" and self._child is not None:
                self._child.fatal = str(frame["message"])
            elif op == "stats" and self._child is not None:
                self._totals(frame)
                self._child.questions.take_stats(frame)

    def _receive_for(self, id: int, frame: Frame, now: float) -> None:
        op = frame["op"]
        if self._child is not None and self._child.questions.took_count(id, frame):
            return  # counting is no sign that it computes
        asked = id in self._outstanding
        # A refusal went the whole way through the engine as well; a failure is no sign that it computes.
        if op in SIGNS_OF_LIFE or (op == "error" and frame["fault"] != "server" and asked):
            self._lookout.watch.heard(now)
        if op == "finish" and asked:
            self._keeper.answered()
            if self._child is not None:
                self._child.send({"op": "stats"})  # before it can sleep or die, and take its totals along
        self._outstanding.put(id, frame)

    def _become_ready(self, frame: Frame) -> None:
        said = {field.name: frame[field.name] for field in fields(EngineReady) if field.name in frame}
        lists = {name: tuple(frame.get(name, ())) for name in ("steps_down", "devices")}
        self._proven = True
        self.ready = ready = EngineReady(**said | lists)
        self._life, self.progress, self._waking = "ready", 1.0, False
        self._lookout.ready(load_s=ready.load_s, tok_s=ready.tok_s)
        self._line.tell()
        log.info("engine (pid %s) is ready after %.1f s", self.pid, ready.load_s)

    def _one_less(self) -> None:
        self._touch()
        self._line.tell()

    def _touch(self) -> None:
        self._lookout.touch()

    # ------------------------------------------------------------------------------------------- what it is for

    async def stats(self) -> Frame:
        """How busy the engine is. Raises `BackendError` if it is not running."""
        if self._child is None or not self._lookout.up:
            raise crashed(self.failure)
        return await self._child.questions.stats()

    async def count(self, job: Mapping[str, Any]) -> int:
        """The tokens of `job`, which is as for `generate`, with `tools`: texts that are read too. Waits neither for the
        engine to be ready nor for any answer. Raises `BackendError`."""
        if self._child is None or not self._lookout.up:
            raise busy(UNREADY)
        return await self._child.questions.count(next(self._ids), job)

    def follow(self, job: Mapping[str, Any], *, mode: Literal["auto", "hot"], suspicion: float) -> Following:
        """Follow a cloud's answer to `job`, which is as for `generate`. Never waits and never raises: what cannot be
        had is inert. `hot`, or suspicion, wakes an engine that is asleep."""
        id = next(self._ids)
        if self._over or self._lookout.mode != "normal":
            return inert(id)
        return self._followings.begin(id, job, mode, suspicion)

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]:
        """The frames that answer `job`, in batches, `finish` or `error` last. Waits until the engine is ready: how long
        is for the caller to decide. Closing the iterator ends the work at once. Raises `BackendError`."""
        child = await self._turn(first=bool(job.get("first", job.get("committed"))))
        id = next(self._ids)
        request = written({**job, "op": "generate", "id": id})
        self._touch()
        ended = False
        with self._outstanding.opened(id, lambda: child.send({"op": "cancel", "id": id})) as mailbox:
            child.write(request)
            while not ended:
                frames = await mailbox.take()
                ended = frames[-1]["op"] in ENDINGS
                yield frames

    @property
    def line(self) -> int:
        """How many requests wait for the process itself."""
        return len(self._line)

    async def _turn(self, *, first: bool) -> Child:
        """The process, when it may be asked: as soon as it is ready; handled with care, one after the other. `first`:
        somebody is reading this answer already."""
        if not first:
            self._line.refuse_if_full(up=self._lookout.up, one_by_one=self._lookout.mode == "careful")
        return await self._line.turn(self._askable, first=first)

    def _askable(self, foremost: bool) -> Child | None:
        """The process, if it may be asked now by the foremost in the line, or by another."""
        self._refuse_if_over()
        if self._lookout.mode == "failing":
            raise busy(FAILING, self._retry_in())
        self._rouse()
        alone = foremost and not self._outstanding
        return self._child if self._lookout.up and (self._lookout.mode == "normal" or alone) else None

    def _refuse_if_over(self) -> None:
        if self._over:
            raise self._because or over(self.failure)

    def _retry_in(self) -> float:
        """Seconds after which a failing engine may have healed."""
        now = asyncio.get_running_loop().time()
        healed = self._keeper.changes_at() or max(self._retry_at, now) + RETRY_SECONDS
        return max(1.0, healed - now)
