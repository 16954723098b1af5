"""The stage for tests on real sockets: clouds that fail, a box that follows a script, and between them the real server.

Everything runs on one event loop in a thread of its own, so that a test can be plain code: synchronous clients, raw
sockets, official SDKs. `Stage.call` reaches into that loop.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
import uvloop

from appliance.appliance import Appliance
from appliance.backends.process import EngineReady
from appliance.config import (
    BreakerConfig,
    Config,
    LocalConfig,
    PathsConfig,
    ServerConfig,
    TimeoutConfig,
    UpstreamConfig,
)
from appliance.core.chat import ChatRequest, ToolCall
from appliance.core.events import (
    Event,
    Finish,
    FinishReason,
    Odds,
    Started,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from appliance.core.fault import BackendError, Fault
from appliance.drills.application import PATHS, VERSION, Heard, ask
from appliance.drills.cloud import Act, Call, FailingCloud, Script
from appliance.guard.limits import LIMITS, Limits
from appliance.server.connection import bounded
from appliance.server.routes import build
from appliance.store.store import Resolved

PATIENCE = 60.0
"""Seconds after which a test gives up on something that should have happened."""

BODY: Mapping[str, Any] = {
    "model": "gpt-test",
    "messages": [{"role": "user", "content": "Tell me about the lighthouse."}],
    "max_tokens": 64,
}

ANTHROPIC_BODY: Mapping[str, Any] = {
    "model": "claude-test",
    "max_tokens": 64,
    "system": [{"type": "text", "text": "You know the sea.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me about the lighthouse."}]}],
}
BODIES: Mapping[str, Mapping[str, Any]] = {"openai": BODY, "anthropic": ANTHROPIC_BODY}
"""A small request in the words of each dialect."""

KEY = "sk-of-the-box-0123456789"
QUICK = TimeoutConfig(connect=2.0, first_content=0.4, stall=0.4, total=0.8)
"""Short enough to wait for, for faults that only waiting tells."""
PATIENT = TimeoutConfig(connect=PATIENCE, first_content=PATIENCE, stall=PATIENCE, total=PATIENCE)

COUNTED = 77
"""Tokens of every conversation, as the scripted box counts them."""

T = TypeVar("T")


class Followed:
    """A conversation the scripted box was told of."""

    def __init__(self, request: ChatRequest, suspicion: float) -> None:
        self.request = request
        self.text = request.committed.text if request.committed is not None else ""
        self.suspicion = suspicion
        self.closed = False

    def feed(self, text: str) -> None:
        self.text += text

    def suspect(self, level: float) -> None:
        self.suspicion = level

    def close(self) -> None:
        self.closed = True


Spoken = TextDelta | ToolCallStart | ToolCallDelta


class ScriptedLocal:
    """The box as a backend, without a model: it says `pieces`, and keeps what it was asked and told."""

    name = "local"
    patience = 0.0

    def adopt(self, standby: str) -> None:
        pass

    def follow(self, request: ChatRequest, *, suspicion: float) -> Followed:
        self.followed.append(Followed(request, suspicion))
        return self.followed[-1]

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces or (" and", " the box", " went on: caf", "é 🌊", " to the end.")
        self.asked: list[ChatRequest] = []
        self.followed: list[Followed] = []
        self.running = 0
        self.hold: asyncio.Event | None = None
        """While it is there and not set, the box says its first piece and then waits."""
        self.fails: list[tuple[int, BackendError]] = []
        """For the next answers, one each: after how many pieces they fail, and how."""
        self.calls: tuple[Call, ...] = ()
        """What it calls behind its text."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    async def count(self, request: ChatRequest) -> int:
        self.asked.append(request)
        return COUNTED

    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        self.asked.append(request)
        self.running += 1
        said = self._said(request)
        end, error = self.fails.pop(0) if self.fails else (len(said), None)
        try:
            yield [Started(id="", model=model, created=0)]
            for at, piece in enumerate(said[:end]):
                if at == 1 and self.hold is not None:
                    await self.hold.wait()
                yield [_likely(piece) if request.logprobs is not None else piece]
                for choice in range(1, request.n):
                    yield [replace(piece, choice=choice)]
            if error is not None:
                raise error
            reason: FinishReason = "tool_calls" if self.calls else "stop"
            ends = [Finish(reason=reason, choice=choice) for choice in range(request.n)]
            yield [*ends, Usage(prompt_tokens=9, completion_tokens=len(self.pieces))]
        finally:
            self.running -= 1

    def _said(self, request: ChatRequest) -> list[Spoken]:
        """The pieces and then the calls; behind calls of somebody else's, the rest of these."""
        begun = request.committed.parts if request.committed is not None else ()
        made = [part.arguments for part in begun if isinstance(part, ToolCall)]
        said: list[Spoken] = [] if made else [TextDelta(text=piece) for piece in self.pieces]
        for index, call in enumerate(self.calls):
            given = made[index] if index < len(made) else None
            if given is None:
                said.append(ToolCallStart(index=index, id="", name=call.name))
            elif index < len(made) - 1:
                continue
            rest = call.arguments[len(given or "") :]
            said += [ToolCallDelta(index=index, arguments=rest[at : at + 3]) for at in range(0, len(rest), 3)]
        if made and len(made) > len(self.calls):
            raise BackendError(Fault.REQUEST, "What was written fits no tool.", status=400)
        return said


def _likely(piece: Spoken) -> Spoken:
    """With the odds of its only token."""
    if not isinstance(piece, TextDelta):
        return piece
    return replace(piece, odds=(Odds(token=piece.text.encode(), logprob=-0.5),))


class ScriptedEngine:
    """As much of the engine's process as the rest of the service looks at; no process."""

    state = "ready"
    able = True
    pid = None
    restarts = 0
    deaths = 0
    last_death = None
    line = 0
    unload_after = 0.0
    progress = 1.0
    failure = None
    ready = EngineReady(
        model={"name": "scripted"},
        context=4096,
        slots=4,
        threads=2,
        gpu_layers=0,
        layers=30,
        gpu_offload=False,
        instruction_sets="",
        load_s=0.1,
        tok_s=50.0,
    )

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def wait_ready(self, timeout: float | None = None) -> EngineReady:
        return self.ready

    async def stats(self) -> dict[str, object]:
        return {"op": "stats", "busy": 0, "waiting": 0, "decoded": 0}


class _Server(uvicorn.Server):
    """A server that leaves the signals of the process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stage:
    """A running appliance; `url` is where its clients find it."""

    def __init__(
        self, *, model: Resolved | None, config: Config, local: ScriptedLocal | None, limits: Limits = LIMITS
    ) -> None:
        self.config = config
        self._limits = limits
        self._protocol = bounded(limits)
        self.crowd = self._protocol.crowd
        self.clouds: tuple[FailingCloud, ...] = ()
        self._model = model or Resolved(path=Path("nowhere.gguf"), template=None, name="starter")
        self._scripted = local
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="stage", daemon=True)

    # ------------------------------------------------------------------------------------------------ for tests

    @property
    def cloud(self) -> FailingCloud:
        return self.clouds[0]

    @property
    def local(self) -> ScriptedLocal:
        assert self._scripted is not None
        return self._scripted

    def play(
        self, *acts: Act | None, script: Script | None = None, api: str | Sequence[str] = "openai", **changes: Any
    ) -> None:
        """From now on there is one new cloud for each of `acts`, and all breakers are new.

        `api` is the wire of all of them, or of each. `changes` are fields of the configuration (`timeouts`, `breaker`),
        or of every upstream.
        """
        apis = [api] * len(acts) if isinstance(api, str) else api
        self.call(self._play(acts, apis, script or Script(), changes))

    def face(self, *addresses: str, **changes: Any) -> None:
        """From now on there is a cloud at each of these addresses, which are somebody else's affair; all breakers are
        new. `changes` as with `play`, and `api` is the wire of all."""

        async def turned() -> None:
            self._configure([{"base_url": address} for address in addresses], changes)

        self.clouds = ()
        self.call(turned())

    def call(self, awaitable: Awaitable[T]) -> T:
        """Run `awaitable` on the stage's loop."""
        assert self._loop is not None

        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE):
                return await awaitable

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def ask(
        self, *, stream: bool = True, headers: Mapping[str, str] | None = None, api: str = "openai", **fields: Any
    ) -> Heard:
        """One request in the dialect `api`, and everything that came back."""
        return self.call(self.asking(stream=stream, headers=headers, api=api, **fields))

    async def asking(
        self, *, stream: bool = True, headers: Mapping[str, str] | None = None, api: str = "openai", **fields: Any
    ) -> Heard:
        """`ask`, from inside the stage's loop."""
        return await ask(self._client, {**BODIES[api], "stream": stream, **fields}, headers=headers, api=api)

    def send(self, body: bytes, *, api: str = "anthropic", query: str = "", **headers: str) -> httpx.Response:
        """`body` as it is, to where chats of the dialect `api` go, with the headers that such a client sends."""
        said = {"content-type": "application/json"} | (dict([VERSION]) if api == "anthropic" else {})
        return self.post(PATHS[api] + query, content=body, headers=said | headers)

    def now(self) -> float:
        """The time on the stage's clock."""
        assert self._loop is not None
        return self._loop.time()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.call(self._client.get(path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.call(self._client.post(path, **options))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that has no event of its own."""
        self.call(_until(holds))

    # ------------------------------------------------------------------------------------------------- the loop

    @contextmanager
    def running(self) -> Iterator[Stage]:
        self._thread.start()
        try:
            self._open.wait()
            if self._failure is None:
                yield self
        finally:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "the service does not end"
        if self._failure is not None:
            raise self._failure

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._run())
        except BaseException as error:  # whatever it is, it belongs to the test
            self._failure = error
        finally:
            self._open.set()

    async def _run(self) -> None:
        self._over = asyncio.Event()
        scripted: dict[str, Any] = {}
        if self._scripted is not None:
            scripted = {"local": self._scripted, "engine": ScriptedEngine()}
        self.appliance = Appliance(self.config, self._model, **scripted)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = _Server(
            uvicorn.Config(
                build(self.appliance, limits=self._limits),
                log_config=None,
                access_log=False,
                server_header=False,
                http=self._protocol,
                ws="none",
                lifespan="on",
                timeout_graceful_shutdown=5,
            )
        )
        async with AsyncExitStack() as self._stack, asyncio.TaskGroup() as group:
            self._client = await self._stack.enter_async_context(httpx.AsyncClient(base_url=self.url, timeout=PATIENCE))
            serving = group.create_task(server.serve(sockets=[listener]))
            await _until(lambda: server.started or serving.done())
            self._loop = asyncio.get_running_loop()
            self._open.set()
            await self._over.wait()
            server.should_exit = True

    async def _play(
        self, acts: Sequence[Act | None], apis: Sequence[str], script: Script, changes: dict[str, Any]
    ) -> None:
        clouds = [
            await self._stack.enter_async_context(FailingCloud(act, script=script, api=api))
            for act, api in zip(acts, apis, strict=True)
        ]
        self.clouds = tuple(clouds)
        self._configure([{"api": cloud.api, "base_url": cloud.base_url} for cloud in clouds], changes)

    def _configure(self, upstreams: Sequence[Mapping[str, Any]], changes: dict[str, Any]) -> None:
        sections = {name: changes.pop(name) for name in ("timeouts", "breaker") if name in changes}
        configs = tuple(
            UpstreamConfig(**{"name": name, "key": KEY, **upstream, **changes})
            for name, upstream in zip(("cloud", "second", "third"), upstreams, strict=False)
        )
        self.appliance.reload(replace(self.config, upstreams=configs, **sections))


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - somebody else's state
            await asyncio.sleep(0.002)


def configured(home: Path, **sections: Any) -> Config:
    """A configuration without any cloud, for clouds to be played on."""
    given: dict[str, Any] = {
        "server": ServerConfig(),
        "local": LocalConfig(),
        "upstreams": (),
        "timeouts": PATIENT,
        "breaker": BreakerConfig(),
        "paths": PathsConfig(state=home / "state", cache=home / "cache", models=home / "models"),
        "source": None,
    }
    return Config(**{**given, **sections})


@contextmanager
def stage(
    home: Path, *, local: ScriptedLocal | None = None, limits: Limits = LIMITS, **sections: Any
) -> Iterator[Stage]:
    """A stage with a scripted box."""
    local = local or ScriptedLocal()
    with Stage(model=None, config=configured(home, **sections), local=local, limits=limits).running() as running:
        yield running


@contextmanager
def real_stage(home: Path, gguf: Path, **sections: Any) -> Iterator[Stage]:
    """A stage with the real engine; it is ready."""
    model = Resolved(path=gguf, template=None, name="starter")
    with Stage(model=model, config=configured(home, **sections), local=None).running() as running:
        running.call(running.appliance.engine.wait_ready())
        yield running
