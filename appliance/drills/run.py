"""`appliance drill`: rehearse an outage on this very configuration.

The rehearsal has its own port, breakers and journal. Every cloud of the configuration is replaced by one that fails on
demand, without the real one's key, so no provider and no running service is ever touched. The model on the box is
the real one, loaded once for all rehearsals.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from appliance.appliance import Appliance
from appliance.config import Config, ServerConfig, TimeoutConfig, UpstreamConfig
from appliance.core.chat import BackendError, Fault
from appliance.core.route import Offer
from appliance.drills.application import ask
from appliance.drills.cloud import FailingCloud
from appliance.drills.faults import FAULTS, CloudFault
from appliance.drills.report import Rehearsal, Report, as_json_text, as_table, listing
from appliance.drills.verdict import judge
from appliance.server.routes import build
from appliance.store.store import Resolved, StoreError, resolve

AS_EXPECTED, NOT_WELL, USAGE, WRONG_MODEL = 0, 1, 2, 64
HANDFUL = ("refused", "black-hole", "server-error", "wrong-key", "bad-request", "cut-reset", "stall", "no-finish")

MAX_TOKENS = 24
UNKNOWN_SPEED = 5.0  # tokens per second, of a model that did not say
CREDENTIAL = {"authorization": "Bearer of-the-rehearsal"}
QUESTION = "Write one sentence about a lighthouse."
WAIT = 1.0  # seconds that a silent cloud is given in a rehearsal
LONGEST_WAIT = 30.0
MADE_UP = UpstreamConfig(name="cloud", base_url="http://127.0.0.1:9/v1")


def main(config: Config, names: Sequence[str], list_only: bool, every: bool, as_json: bool) -> int:
    """Rehearse `names`, a handful if there are none, or `every` drill there is; returns the exit code."""
    if list_only:
        print(listing(FAULTS.values(), as_json=as_json))
        return AS_EXPECTED
    try:
        faults = chosen(names, every=every)
        model = resolve(config.local.model, config)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return USAGE
    except StoreError as error:
        print(f"No rehearsal without the local model: {error}", file=sys.stderr)
        return WRONG_MODEL
    with _quiet_log(), tempfile.TemporaryDirectory(prefix="appliance-drill-") as state:
        own = replace(config, server=ServerConfig(), paths=replace(config.paths, state=Path(state)))
        try:
            report = asyncio.run(rehearse(own, model, faults, say=_progress))
        except EngineFailed as error:
            print(f"No rehearsal without the local model: {error}", file=sys.stderr)
            return WRONG_MODEL
    print(as_json_text(report) if as_json else as_table(report))
    return AS_EXPECTED if report.fine else NOT_WELL


class EngineFailed(Exception):
    """The local model cannot be used; `str()` says why."""


def chosen(names: Sequence[str], *, every: bool = False) -> tuple[CloudFault, ...]:
    """The drills behind the names. Raises `KeyError` with one sentence for a name that there is not."""
    for name in names:
        if name not in FAULTS:
            near = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f"did you mean {near[0]}?" if near else "see appliance drill --list."
            raise KeyError(f"There is no drill {name[:40]!r}; {hint}")
    return tuple(FAULTS[name] for name in (FAULTS if every else names or HANDFUL))


async def rehearse(
    config: Config, model: Resolved, faults: Sequence[CloudFault], *, say: Callable[[str], None]
) -> Report:
    """Each of `faults` in each wire of the configuration, streamed and whole, through the real server in front of the
    real model. All clouds fail together, each in its own wire."""
    upstreams, named = asked_models(config.upstreams or (MADE_UP,))
    appliance = Appliance(replace(config, upstreams=()), model)
    rehearsals: list[Rehearsal] = []
    async with serving(appliance) as url, httpx.AsyncClient(base_url=url, timeout=None) as client:  # noqa: S113
        say(f"loading {model.name}")
        shortened = shorter(config.timeouts, await _speed(appliance))
        for fault in faults:
            say(fault.name)
            timeouts = shortened if fault.silent else config.timeouts
            async with AsyncExitStack() as stack:
                clouds = [
                    await stack.enter_async_context(FailingCloud(fault.act, api=upstream.api)) for upstream in upstreams
                ]
                failing = tuple(map(_in_place_of, upstreams, clouds))
                appliance.reload(replace(config, upstreams=failing, timeouts=timeouts))
                for api, model_asked in named.items():
                    for stream in (True, False):
                        body = _question(model_asked, stream=stream)
                        expected = _as_the_caller_hears(fault, upstreams, api)
                        rehearsals.append(await _one(appliance, client, expected, clouds, body, api=api))
    return Report(
        model=model.name,
        clouds=tuple(upstream.name for upstream in upstreams),
        made_up=not config.upstreams,
        waits=(shortened.first_content, shortened.stall, shortened.total),
        rehearsals=tuple(rehearsals),
    )


async def _one(
    appliance: Appliance,
    client: httpx.AsyncClient,
    fault: CloudFault,
    clouds: Sequence[FailingCloud],
    body: Mapping[str, Any],
    *,
    api: str,
) -> Rehearsal:
    appliance.reset(None)
    before = [len(cloud.exchanges) for cloud in clouds]
    stream = body["stream"]
    heard = await ask(client, body, api=api, headers=CREDENTIAL)
    exchanges = [exchange for cloud, count in zip(clouds, before, strict=True) for exchange in cloud.exchanges[count:]]
    return Rehearsal(
        fault=fault,
        stream=stream,
        heard=heard,
        cloud_characters=sum(len(exchange.text) for exchange in exchanges),
        complaints=judge(fault, heard, exchanges, stream=stream),
    )


def _as_the_caller_hears(fault: CloudFault, upstreams: Sequence[UpstreamConfig], api: str) -> CloudFault:
    """A key that the cloud refuses is the caller's affair where it is the caller's own."""
    first = next(upstream for upstream in upstreams if upstream.api == api)
    if not first.client_key or fault.name != "wrong-key":
        return fault
    return replace(fault, streamed="caller", whole="caller", reason=Fault.REQUEST)


def _question(model: str, *, stream: bool) -> dict[str, Any]:
    """The same in both dialects."""
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "stream": stream}


# ------------------------------------------------------------------------------------------- the configuration


def asked_models(upstreams: Sequence[UpstreamConfig]) -> tuple[tuple[UpstreamConfig, ...], Mapping[str, str]]:
    """For each wire there is, a model that the first cloud of that wire gets to answer. Clouds whose patterns cannot be
    guessed take every model in a rehearsal."""
    found: dict[str, str] = {}
    for api in dict.fromkeys(upstream.api for upstream in upstreams):
        model = asked_model([upstream for upstream in upstreams if upstream.api == api])
        if model is None:
            upstreams = [replace(one, models=("*",)) if one.api == api else one for one in upstreams]
            model = "drill"
        found[api] = model
    return tuple(upstreams), found


def asked_model(upstreams: Sequence[UpstreamConfig]) -> str | None:
    """A model that the first cloud wants, by one of its patterns; ``None`` if none of them can be guessed."""
    first = upstreams[0]
    offer = Offer(name=first.name, models=first.models, aliases=first.aliases)
    patterns = (*first.models, *(pattern for pattern, _ in first.aliases))
    guesses = (pattern.replace("*", "drill").replace("?", "x") for pattern in patterns)
    return next((guess for guess in guesses if offer.resolve(guess) is not None), None)


def shorter(timeouts: TimeoutConfig, tok_s: float) -> TimeoutConfig:
    """The limits for clouds that fall silent, so that a rehearsal takes seconds. `total` binds the box as well, so a
    slow box gets more."""

    def least(wish: object) -> float:
        return min(wish, WAIT) if isinstance(wish, float | int) else WAIT

    total = min(timeouts.total, LONGEST_WAIT, 2 * WAIT + 4 * MAX_TOKENS / tok_s)
    return replace(timeouts, first_content=least(timeouts.first_content), stall=least(timeouts.stall), total=total)


def _in_place_of(upstream: UpstreamConfig, cloud: FailingCloud) -> UpstreamConfig:
    """Nothing of the real one is left but what the box knows about it: no key, no address, no page of its status."""
    return replace(
        upstream,
        base_url=cloud.base_url,
        key=None,
        headers=(),
        proxy=None,
        ca=None,
        status_page=None,
    )


# --------------------------------------------------------------------------------------------------- the server


class _Server(uvicorn.Server):
    """Signals are the command line's: Ctrl-C ends the rehearsal at once."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(appliance: Appliance) -> AsyncGenerator[str, None]:
    """The appliance behind the real server, on a free port of the loopback interface; gives its address."""
    # With the protocol said: asyncio turns Nagle's algorithm off only for a socket that knows it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(build(appliance), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    )
    # No task group: what goes wrong in a rehearsal is to come out as it is, not in a group.
    task = asyncio.create_task(server.serve(sockets=[listener]), name="drill-server")  # noqa: TID251 - ended below
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def _speed(appliance: Appliance) -> float:
    """Wait for the model; gives its tokens per second."""
    try:
        ready = await appliance.engine.wait_ready()
    except BackendError as error:
        raise EngineFailed(error.message) from error
    return ready.tok_s or UNKNOWN_SPEED


@contextmanager
def _quiet_log() -> Iterator[None]:
    """The failures are on purpose; the report tells of them, not the log."""
    logger = logging.getLogger("appliance")
    silent, propagated = logging.NullHandler(), logger.propagate
    logger.addHandler(silent)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(silent)
        logger.propagate = propagated


def _progress(what: str) -> None:
    """One line that is written over, on a terminal; without one, a line each."""
    if sys.stderr.isatty():
        print(f"\r\x1b[Kdrill: {what}", end="", file=sys.stderr, flush=True)
    else:
        print(f"drill: {what}", file=sys.stderr, flush=True)
