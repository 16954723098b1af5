"""The engine's process: started, kept alive, spoken to. Whether it should live is for `core.keeper` to say."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from appliance.core.chat import BackendError, Fault
from appliance.core.frames import Decoder, Frame, FrameError, encode
from appliance.core.keeper import GiveUp, Keeper, WaitUntil

log = logging.getLogger("appliance.engine")

State = Literal["starting", "loading", "ready", "restarting", "failed", "stopped"]
ENDINGS = ("finish", "error")
SPINS = "1000"
STOP_SECONDS = 5.0
RESPAWN_SECONDS = 5.0
TAIL_LINES = 50
SHOWN_LINES = 8
CRASHED = "The local model's engine died."
STOPPED = "The local model's engine was stopped."

# What the child may see of our environment: what it needs to find libraries and devices. Keys stay here.
PASSED_ON = ("PATH", "HOME", "TMPDIR", "TEMP", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PASSED_ON_PREFIXES = (
    "LC_", "PYTHON", "LLAMA_", "GGML_", "OMP_", "GOMP_", "KMP_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "VK_",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What to load, and how much of the box to use for it."""

    path: str
    context: int = 4096
    slots: int = 4
    gpu_layers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    kv_type: str = "f16"
    mlock: bool = False
    queue: int = 64
    template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReady:
    """What the engine said when it had given its first real answer."""

    model: Mapping[str, Any]
    context: int
    slots: int
    threads: int
    gpu_layers: int
    layers: int
    gpu_offload: bool
    instruction_sets: str
    load_s: float
    tok_s: float | None


class Engine:
    """Owns the child process. One event loop, one owner."""

    def __init__(self, spec: EngineSpec, *, python: str = sys.executable) -> None:
        self.spec = spec
        self.state: State = "stopped"
        self.ready: EngineReady | None = None
        self.failure: str | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.progress = 0.0
        self._python = python
        self._keeper = Keeper()
        self._ids = itertools.count(1)
        self._mailboxes: dict[int, _Mailbox] = {}
        self._asked: deque[asyncio.Future[Frame]] = deque()
        self._settled = asyncio.Event()
        self._gave_up = asyncio.Event()
        self._child: _Child | None = None
        self._watch: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------ its life

    async def start(self) -> None:
        """Start the process and come back at once; `wait_ready` waits for the model."""
        assert self._watch is None, "an engine is started once"
        self.state, self.failure = "starting", None
        self._settled.clear()
        child = await self._spawn()
        self._watch = asyncio.create_task(self._keep(child), name="engine-keeper")

    async def stop(self) -> None:
        """End the process and every answer it was writing."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        child, self._child = self._child, None
        self.state, self.ready = "stopped", None
        self._end_all(BackendError(Fault.SERVER, STOPPED, status=500))
        self._settled.set()
        if child is not None:
            await child.end()
        self.pid = None

    async def wait_ready(self, timeout: float | None = None) -> EngineReady:
        """What the engine says when it is ready. Raises `BackendError` (SERVER) if it never will be, `TimeoutError`
        if it is not yet."""
        async with asyncio.timeout(timeout):
            while True:
                await self._settled.wait()
                if self.ready is not None:
                    return self.ready
                if self.state in ("failed", "stopped"):
                    raise BackendError(Fault.SERVER, self.failure or STOPPED, status=500)

    async def wait_failed(self) -> str:
        """Waits until there will be no engine any more, and says why."""
        await self._gave_up.wait()
        return self.failure or STOPPED

    async def _keep(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        while True:
            code = await self._attend(child)
            answer = self._keeper.exited(code, loop.time(), reason=child.fatal)
            if isinstance(answer, GiveUp):
                self.failure = answer.reason
                self.state = "failed"
                self._gave_up.set()
                log.error("engine gave up: %s", answer.reason)
                self._end_all(BackendError(Fault.SERVER, answer.reason, status=500))
                self._settled.set()
                return
            said = "".join(f"\n  {line}" for line in list(child.tail)[-SHOWN_LINES:])
            log.warning("engine (pid %s) died with %s; starting it again%s", child.process.pid, _how(code), said)
            self.state = "restarting"
            if isinstance(answer, WaitUntil):
                await asyncio.sleep(answer.time - loop.time())
            self.restarts += 1
            child = await self._spawn_somehow()

    async def _spawn_somehow(self) -> _Child:
        """A new process, as soon as the system has room for one."""
        while True:
            try:
                return await self._spawn()
            except OSError as error:
                log.error("the engine cannot be started (%s); trying again", error.strerror)
                await asyncio.sleep(RESPAWN_SECONDS)

    async def _spawn(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                self._python,
                "-m",
                "appliance.engine",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a signal to our whole group must not end the answers that are drained
                env=_environment(),
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        child = _Child(process, reader, writer)
        self._child, self.pid, self.progress = child, process.pid, 0.0
        self._keeper.started()
        if self.state == "starting":
            self.state = "loading"
        child.send({"op": "load", **asdict(self.spec)})
        return child

    async def _attend(self, child: _Child) -> int:
        """Read what the child says until it is gone; its exit code."""
        try:
            await child.read(self._receive)
        except FrameError as error:
            log.error("engine (pid %s) sent nonsense: %s", child.process.pid, error)
        if self.ready is not None:
            self._settled.clear()
            self.state = "restarting"
        self.ready = None
        self._end_all(BackendError(Fault.CRASHED, CRASHED, status=500))
        code = await child.end()
        self.pid = None
        return code

    def _end_all(self, error: BackendError) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.fail(error)
        while self._asked:
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_exception(error)

    # ---------------------------------------------------------------------------------------------- its frames

    def _receive(self, frames: list[Frame]) -> None:
        for frame in frames:
            id = frame.get("id")
            if id is not None:
                if id in self._mailboxes:
                    self._mailboxes[id].put(frame)
            elif frame["op"] == "loading":
                self.progress = float(frame["progress"])
                self.state = "loading"
            elif frame["op"] == "ready":
                self._become_ready(frame)
            elif frame["op"] == "fatal" and self._child is not None:
                self._child.fatal = str(frame["message"])
            elif frame["op"] == "stats" and self._asked:
                asked = self._asked.popleft()
                if not asked.done():
                    asked.set_result(frame)

    def _become_ready(self, frame: Frame) -> None:
        self.ready = EngineReady(**{field.name: frame[field.name] for field in fields(EngineReady)})
        self.state, self.progress = "ready", 1.0
        self._keeper.ready(asyncio.get_running_loop().time())
        self._settled.set()
        log.info("engine (pid %s) is ready after %.1f s", self.pid, self.ready.load_s)

    async def stats(self) -> Frame:
        """How busy the engine is. Raises `BackendError` if it is not running."""
        child = self._ready_child()
        asked: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        child.send({"op": "stats"})
        return await asked

    async def generate(self, job: Mapping[str, Any]) -> AsyncIterator[list[Frame]]:
        """The frames that answer `job`, in batches, `finish` or `error` last. Waits until the engine is ready: how long
        is for the caller to decide. Closing the iterator ends the work at once. Raises `BackendError`."""
        await self.wait_ready()
        child = self._ready_child()
        id = next(self._ids)
        try:
            request = encode({**job, "op": "generate", "id": id})
        except FrameError as error:
            message = "The conversation is too large for the local model."
            raise BackendError(Fault.REQUEST, message, status=413) from error
        mailbox = self._mailboxes[id] = _Mailbox()
        ended = False
        try:
            child.write(request)
            while not ended:
                frames = await mailbox.take()
                ended = frames[-1]["op"] in ENDINGS
                yield frames
        finally:
            del self._mailboxes[id]
            if not ended and child is self._child:
                child.send({"op": "cancel", "id": id})

    def _ready_child(self) -> _Child:
        if self._child is None or self.ready is None:
            raise BackendError(Fault.CRASHED, self.failure or CRASHED, status=500)
        return self._child


class _Mailbox:
    """What came for one request and was not taken yet."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._error: BackendError | None = None
        self._changed = asyncio.Event()

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._changed.set()

    def fail(self, error: BackendError) -> None:
        self._error = error
        self._changed.set()

    async def take(self) -> list[Frame]:
        """Everything that came, at least one frame. What came before a failure is given out before it is raised."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            await self._changed.wait()
            self._changed.clear()
        frames, self._frames = self._frames, []
        if self._error is not None:
            self._changed.set()
        return frames


class _Child:
    """One process, from its start to its end."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.fatal: str | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader, self._writer = reader, writer
        self._errors = asyncio.create_task(self._read_errors(), name=f"engine-stderr-{process.pid}")

    def send(self, frame: Frame) -> None:
        self.write(encode(frame))

    def write(self, data: bytes) -> None:
        # No drain: the child's reader does nothing but read, and a frame has a size limit.
        if not self._writer.is_closing():
            self._writer.write(data)

    async def read(self, receive: Any) -> None:
        decoder = Decoder()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                receive(decoder.feed(data))

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        while data := await self.process.stderr.read(1 << 14):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-(1 << 14) :]
            self.tail.extend(line.decode("utf-8", "replace") for line in lines)

    async def end(self) -> int:
        """Close the pipe, ask it to go, and do not wait long. Its exit code."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            await self._writer.wait_closed()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                # It leaves by itself when the pipe closes, and a refusal's exit code must not be hidden by a signal.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_SECONDS / 10):
                        await self.process.wait()
                if self.process.returncode is None:
                    self.process.terminate()
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await asyncio.wait([self._errors])
        assert self.process.returncode is not None
        return self.process.returncode


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _environment() -> dict[str, str]:
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    # llama.cpp's threads meet after every operation and spin while they wait. On a box that does something else as
    # well, the one waited for may not be running, and the others burn its time: 18 tok/s instead of 131 on two busy
    # cores (docs/figures.md). To spin for a moment and then sleep costs nothing that can be seen on an idle one.
    if "OMP_WAIT_POLICY" not in passed:
        passed.setdefault("GOMP_SPINCOUNT", SPINS)
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, [passed.get("PYTHONPATH")])]
    return passed | {"PYTHONPATH": os.pathsep.join(paths)}
