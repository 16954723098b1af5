"""One engine process, from its start to its end: what it is to load, and what it says when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.backends.questions import Questions
from appliance.core.frames import Decoder, Frame, encode

LEAVE_SECONDS = 0.5
STOP_SECONDS = 4.0
LAST_WORDS_SECONDS = 1.0
TAIL_LINES = 50
SPINS = "1000"
SLOWEST_DISK = 10e6  # bytes per second

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
    """What the engine said when it had given its first real answer. `steps_down`: what it had to give up for that.

    `layers` counts the output too; each of `devices` says what it is, how much is free on it and how many `layers` are.
    """

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
    steps_down: tuple[str, ...] = ()
    kv_type: str = "f16"
    devices: tuple[Mapping[str, Any], ...] = ()


class Child:
    """A process and our end of its pipe. Whoever starts it ends it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.fatal: str | None = None
        self.wedged: str | None = None
        self.dismissed = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.questions = Questions(self.write)
        self._reader, self._writer = reader, writer
        self._errors = asyncio.create_task(self._read_errors(), name=f"engine-stderr-{process.pid}")

    @property
    def backlog(self) -> int:
        """Bytes that were written and that it has not read."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def leaving(self) -> bool:
        """Its pipe is closed, by us."""
        return self._writer.is_closing()

    def send(self, frame: Frame) -> None:
        self.write(encode(frame))

    def write(self, data: bytes) -> None:
        # No drain: the child's reader does nothing but read, and a frame has a size limit.
        if not self._writer.is_closing():
            self._writer.write(data)

    async def read(self, receive: Callable[[list[Frame]], None]) -> None:
        """Everything it says, until its end of the pipe or ours is closed."""
        decoder = Decoder()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                receive(decoder.feed(data))

    def leave(self) -> None:
        """Close the pipe: `read` comes to its end, and so does a process that is well."""
        # Not `close`, which waits until everything is written: one that reads no more would keep us for ever.
        self._writer.transport.abort()

    async def end(self) -> int:
        """See it go: by itself, since its pipe is closed, or at SIGTERM, or at SIGKILL. Its exit code."""
        self.leave()
        with contextlib.suppress(ConnectionError):
            # Not to be cancelled: whoever gives up waiting here would cancel it for those who wait after him.
            await asyncio.shield(self._writer.wait_closed())
        # A refusal's exit code must not be hidden by a signal; one that is wedged will not go by itself.
        if self.wedged is not None or not await self._gone_within(LEAVE_SECONDS):
            self._signal(signal.SIGTERM)
            if not await self._gone_within(STOP_SECONDS):
                self._signal(signal.SIGKILL)
                await self.process.wait()
        if not (await asyncio.wait([self._errors], timeout=LAST_WORDS_SECONDS))[0]:
            self._errors.cancel()  # somebody it started holds its stderr open
            await asyncio.wait([self._errors])
            self.process._transport.close()  # type: ignore[attr-defined]  # or our end of that pipe stays open with it
        assert self.process.returncode is not None
        return self.process.returncode

    async def _gone_within(self, seconds: float) -> bool:
        # Not `asyncio.timeout`: the end that comes at the same moment as the timeout must not be lost.
        waiting = asyncio.create_task(self.process.wait(), name=f"engine-end-{self.process.pid}")
        try:
            await asyncio.wait([waiting], timeout=seconds)
            return self.process.returncode is not None
        finally:
            waiting.cancel()

    def _signal(self, number: signal.Signals) -> None:
        """To everything it has started as well: it leads a process group of its own."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        rest = b""
        while data := await self.process.stderr.read(1 << 14):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-(1 << 14) :]
            self.tail.extend(line.decode("utf-8", "replace") for line in lines)


async def spawn(python: str) -> Child:
    """A new engine process, which waits for its load frame. Raises `OSError` when the system has no room for one."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        # Our end first: a process that has been started is somebody's at once, and none is lost to a cancellation.
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                "-m",
                "appliance.engine",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a signal to our whole group must not end the answers that are drained
                env=environment(),
            )
        except BaseException:
            writer.transport.abort()
            raise
    return Child(process, reader, writer)


def how(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def environment() -> dict[str, str]:
    """What an engine process is given of ours, and where it finds this package."""
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
    # Where there is a gdb, a dying llama.cpp waits for it for a second, and then the last word is not its own.
    passed.setdefault("GGML_NO_BACKTRACE", "1")
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, [passed.get("PYTHONPATH")])]
    return passed | {"PYTHONPATH": os.pathsep.join(paths)}


def slowest_read(path: str) -> float:
    """Seconds in which even a slow disk gives the whole file: llama.cpp may read it in one silent call."""
    try:
        return Path(path).stat().st_size / SLOWEST_DISK
    except OSError:
        return 0.0
