"""The service from start to end: the port, the signals, what it prints, how it exits."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TextIO

import uvicorn

from appliance import __version__, logs
from appliance.appliance import Appliance
from appliance.config import Config
from appliance.core.chat import BackendError
from appliance.guard.limits import LIMITS, Limits, connections_for
from appliance.ledger import FILE, Ledger
from appliance.server.connection import bounded
from appliance.server.routes import build
from appliance.server.status import status
from appliance.store.store import Resolved

FINE, NOT_WELL, WRONG_MODEL = 0, 1, 64
DRAIN = 30  # seconds that running answers may still take after SIGTERM
BACKLOG = 2048
MANY_FILES = 16384

log = logging.getLogger("appliance")


def serve(
    config: Config,
    model: Resolved,
    *,
    require_gpu: bool = False,
    reread: Callable[[], Config] | None = None,
) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code.

    `reread` gives the configuration anew on SIGHUP; what it raises is logged, and the old one stays in force.
    """
    try:
        listener = _listen(config.server.host, config.server.port)
    except OSError as error:
        _say(_port_trouble(config.server.host, config.server.port, error), file=sys.stderr)
        return NOT_WELL
    logs.set_up(config.server.log)
    limits = _within_files(LIMITS)
    appliance = Appliance(config, model, ledger=Ledger(config.paths.state / FILE))
    server = uvicorn.Server(
        uvicorn.Config(
            build(appliance, limits=limits),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            lifespan="on",
            timeout_graceful_shutdown=DRAIN,
            timeout_keep_alive=int(limits.idle),
            http=bounded(limits),
            ws="none",
        )
    )
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(_run(server, listener, appliance, require_gpu, reread))


async def _run(
    server: uvicorn.Server,
    listener: socket.socket,
    appliance: Appliance,
    require_gpu: bool,
    reread: Callable[[], Config] | None,
) -> int:
    if reread is not None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, _reload, appliance, reread)
    _announce(appliance, listener)
    verdict = FINE
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch_engine(server, appliance, require_gpu), name="engine-watch")
        # uvicorn raises the signal again once it has shut down; by then everything is closed and it is no news.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            await server.serve(sockets=[listener])
        finally:
            signal.signal(signal.SIGINT, handler[0])
            signal.signal(signal.SIGTERM, handler[1])
        watch.cancel()
        try:
            verdict = await watch
        except asyncio.CancelledError:
            verdict = FINE
    return verdict


async def _watch_engine(server: uvicorn.Server, appliance: Appliance, require_gpu: bool) -> int:
    """Say when the model is ready; end the service if it never can be, or no longer."""
    try:
        await appliance.engine.wait_ready()
        engine = (await status(appliance))["engine"]
        _introduce(engine)
        if require_gpu and not (engine["gpu_offload"] and engine["gpu_layers"]):
            trouble = (
                "No layer of the model is on a GPU, and --require-gpu was given; "
                "reinstall llama-cpp-python with GPU support (docs/install.md) or leave the flag out."
            )
        else:
            trouble = f"The local model can no longer be used: {await appliance.engine.wait_failed()}"
    except BackendError as error:
        if appliance.engine.state == "stopped":  # we are being ended while the model still loads: nothing is wrong
            return FINE
        trouble = f"The local model cannot be used: {error}"
    _say(trouble, file=sys.stderr)
    server.should_exit = True
    return WRONG_MODEL


def _introduce(engine: Mapping[str, Any]) -> None:
    speed = f"{engine['tok_s']:.0f} tok/s (measured)" if engine["tok_s"] else "speed unknown"
    on_gpu = f"GPU {engine['gpu_layers']}/{engine['layers']} layers"
    place = on_gpu if engine["gpu_layers"] else f"CPU {engine['threads']} threads"
    room = f"{engine['slots']} slots x {engine['context']} tokens"
    _say(f"local    {engine['model']}  {place}  {room}  ready in {engine['load_s']:.1f} s  {speed}")
    offload = "yes" if engine["gpu_offload"] else "no"
    _say(f"         GPU offload: {offload}; built for {_built_for(engine['instruction_sets'])}")
    for step in engine["steps_down"]:
        _say(f"         {step}")
    if engine["model"] == "starter":
        _say("         The starter is a weak model, for first contact; `appliance models list` shows better ones.")


def _built_for(system_info: str) -> str:
    """llama.cpp's list ("CPU : SSE3 = 1 | AVX2 = 1 | ...") without what every such processor has."""
    names = [part.split("=")[0].split(":")[-1].strip() for part in system_info.split("|") if "= 1" in part]
    return ", ".join(names) or "an unknown processor"


def _announce(appliance: Appliance, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _say(f"appliance {__version__}")
    _say(f"OpenAI   http://{shown}:{port}/v1")
    _say(f"Anthropic http://{shown}:{port}")
    _say(f"status   http://{shown}:{port}/appliance/status   (or: appliance status)")
    for upstream in appliance.config.upstreams:
        key = "the caller's key" if upstream.client_key else "with key" if upstream.key else "no key"
        _say(f"cloud    {upstream.name}  {upstream.api}  {upstream.base_url}  {', '.join(upstream.models)}  {key}")
    if not appliance.config.upstreams:
        _say("cloud    none configured; the box answers everything itself")
    for warning in appliance.config.warnings:
        _say(f"warning  {warning}", file=sys.stderr)
    _say(f"local    {appliance.model_name}  loading ...")


def _reload(appliance: Appliance, reread: Callable[[], Config]) -> None:
    try:
        waiting = appliance.reload(reread())
    except ValueError as error:
        log.error("The configuration was not reloaded, the old one stays in force: %s", error)
        return
    except Exception as error:  # whatever it is, it must not cost the running configuration
        log.error("The configuration was not reloaded, the old one stays in force: %s", type(error).__name__)
        return
    log.info("The configuration was reloaded.")
    if waiting:
        log.warning("What the file says of %s comes true with the next start.", ", ".join(waiting))


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
        _say(
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
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _port_trouble(host: str, port: int, error: OSError) -> str:
    why = (error.strerror or str(error)).lower()
    return f"Cannot listen on {host}:{port}: {why}; choose another with --port or stop what runs there."


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - not on every platform

    return uvloop.new_event_loop()


def _say(line: str, *, file: TextIO | None = None) -> None:
    print(line, file=file or sys.stdout, flush=True)
