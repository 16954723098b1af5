"""The service from start to end: the port, the signals, what it prints, how it exits."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import uvicorn

from appliance import __version__, logs
from appliance.appliance import Appliance
from appliance.config import Config
from appliance.core.address import authority
from appliance.guard.limits import LIMITS, Limits, connections_for
from appliance.ledger import FILE, Ledger
from appliance.server.box import say, watch
from appliance.server.connection import bounded
from appliance.server.notify import Asked, Supervisor
from appliance.server.routes import build
from appliance.store.store import Resolved, StoreError

DRAIN = 30  # seconds that running answers may still take after SIGTERM
TOLD = 2  # seconds in which those that are broken off then are brought to their end
BACKLOG = 2048
MANY_FILES = 16384

log = logging.getLogger("appliance")


class CannotListen(Exception):
    """`str()` is the sentence that says so."""


Reread = Callable[[], tuple[Config, Resolved]]
"""The configuration anew, and the model file it asks for. What it raises is logged, and the old one stays in force."""


def serve(
    config: Config,
    model: Resolved,
    *,
    require_gpu: bool = False,
    reread: Reread | None = None,
    asked: Asked | None = None,
) -> None:
    """Run until SIGTERM or Ctrl-C. `asked` is what whoever started us wants to hear.

    Raises:
        CannotListen: nobody can be served there.
        StoreError: there can be no model on this box.
    """
    listener = _listen(config.server.host, config.server.port)
    logs.set_up(config.server.log)
    limits = _within_files(LIMITS)
    appliance = Appliance(config, model, ledger=Ledger(config.paths.state / FILE))
    supervisor = Supervisor(asked or Asked())
    server = _Server(
        uvicorn.Config(
            build(appliance, limits=limits),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            lifespan="on",
            timeout_graceful_shutdown=DRAIN + TOLD,
            timeout_keep_alive=int(limits.idle),
            http=bounded(limits),
            ws="none",
        ),
        supervisor,
        appliance,
    )
    with asyncio.Runner(loop_factory=_loop) as runner:
        trouble = runner.run(_run(server, listener, appliance, require_gpu, reread))
    if trouble is not None:
        raise StoreError(trouble)


class _Server(uvicorn.Server):
    """Tells its supervisor when it begins to stop, and running answers when it cannot wait for them any longer; uvicorn
    itself has no word for either."""

    def __init__(self, config: uvicorn.Config, supervisor: Supervisor, appliance: Appliance) -> None:
        super().__init__(config)
        self.supervisor = supervisor
        self._appliance = appliance

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.supervisor.stopping()
        late = asyncio.get_running_loop().call_later(DRAIN, self._break_off)
        await super().shutdown(sockets)
        late.cancel()

    def _break_off(self) -> None:
        if count := self._appliance.break_off():
            log.warning("The service ends: answers that still ran after %d s are broken off (%d).", DRAIN, count)


async def _run(
    server: _Server, listener: socket.socket, appliance: Appliance, require_gpu: bool, reread: Reread | None
) -> str | None:
    """Serves; why there can be no model on the box, if it ended for that."""

    def report() -> None:
        able, hopeful = server.started and appliance.serving is not None, appliance.engine.state != "failing"
        server.supervisor.report(able=able, hopeful=hopeful, status=_standing(appliance))

    if reread is not None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, _reload, appliance, reread, server.supervisor)
    _announce(appliance, listener)
    trouble = None
    async with asyncio.TaskGroup() as group:
        box = group.create_task(_watch_box(server, appliance, require_gpu, report), name="box-watch")
        beat = group.create_task(_beat(server.supervisor.beat, report), name="beat")
        # uvicorn raises the signal again once it has shut down; by then everything is closed and it is no news.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            await server.serve(sockets=[listener])
        finally:
            signal.signal(signal.SIGINT, handler[0])
            signal.signal(signal.SIGTERM, handler[1])
        beat.cancel()
        box.cancel()
        with suppress(asyncio.CancelledError):
            trouble = await box
    server.supervisor.close()
    return trouble


async def _watch_box(
    server: uvicorn.Server, appliance: Appliance, require_gpu: bool, news: Callable[[], None]
) -> str | None:
    """End the service, and say why, if there can be no model on the box."""
    trouble = await watch(appliance, require_gpu=require_gpu, news=news)
    if trouble is not None:
        log.error("The service ends, and running answers are brought to their end: %s", trouble)
        server.should_exit = True
    return trouble


async def _beat(seconds: float, report: Callable[[], None]) -> None:
    """Signs of life, from the event loop itself: if it hangs there are none."""
    while True:
        report()
        await asyncio.sleep(seconds)


def _standing(appliance: Appliance) -> str:
    """Who answers now, in one line."""
    engine = appliance.engine
    state = f"loading, {engine.progress:.0%}" if engine.state == "loading" else engine.state
    standing = f"Answers come from {appliance.serving or 'nobody'}; {appliance.model_name} on the box: {state}."
    return f"{standing} {appliance.refused}" if appliance.refused else standing


def _announce(appliance: Appliance, listener: socket.socket) -> None:
    here = f"http://{authority(*listener.getsockname()[:2])}"
    say(f"appliance {__version__}")
    say(f"OpenAI   {here}/v1")
    say(f"Anthropic {here}")
    say(f"status   {here}/appliance/status   (or: appliance status --url {here})")
    for upstream in appliance.config.upstreams:
        key = "the caller's key" if upstream.client_key else "with key" if upstream.key else "no key"
        say(f"cloud    {upstream.name}  {upstream.api}  {upstream.base_url}  {', '.join(upstream.models)}  {key}")
    if not appliance.config.upstreams:
        say("cloud    none configured; the box answers everything itself")
    for warning in appliance.config.warnings:
        say(f"warning  {warning}", file=sys.stderr)
    say(f"local    {appliance.model_name}  loading ...")


def _reload(appliance: Appliance, reread: Reread, supervisor: Supervisor) -> None:
    supervisor.reloading()
    try:
        waiting = appliance.reload(*reread())
    except (ValueError, StoreError) as error:
        log.error("The configuration was not reloaded, the old one stays in force: %s", error)
    except Exception as error:  # whatever it is, it must not cost the running configuration
        log.error("The configuration was not reloaded, the old one stays in force: %s", type(error).__name__)
    else:
        log.info("The configuration was reloaded.")
        if waiting:
            log.warning("What the file says of %s comes true with the next start.", ", ".join(waiting))
    supervisor.reloaded()


def _within_files(limits: Limits) -> Limits:
    """Take as many open files as we may have, and no more connections than go with them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems have an upper bound that is not told
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    files = soft if soft != resource.RLIM_INFINITY else MANY_FILES
    connections = connections_for(files, limits.connections)
    if connections < limits.connections:
        say(
            f"warning  {files} open files are allowed: at most {connections} connections at once; "
            f"`ulimit -n {MANY_FILES}` before the start allows {limits.connections}.",
            file=sys.stderr,
        )
    return replace(limits, connections=connections)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio sets no NODELAY
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = (error.strerror or str(error)).lower()
        raise CannotListen(
            f"cannot listen on {authority(host, port)}: {why}; choose another with --port or stop what runs there."
        ) from error
    listener.setblocking(False)
    return listener


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - not on every platform

    return uvloop.new_event_loop()
