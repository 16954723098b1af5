"""`appliance chat`: talk to a running appliance, or to one started for the occasion."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from appliance.cli.outcome import FINE, NOT_WELL, Unwell, command, complain
from appliance.cli.reach import address, ask, chosen, client, complaint
from appliance.config import Config, load_config
from appliance.core.sse import SseParser

if TYPE_CHECKING:
    import httpx

_TAKEOVER = "appliance takeover "
_READY_WITHIN = 600.0
_LOOK_EVERY = 0.2
_DRAIN = 35.0

Turn = dict[str, str]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "chat",
        run,
        about="talk to a running appliance, or start one for as long as the talk lasts",
        example='appliance chat "Why is the sky blue?"',
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="one question; without it, a conversation")
    parser.add_argument("--url", help="the appliance to talk to, instead of the configured one")
    parser.add_argument("--model", help="the model to ask for; by default the first cloud model named in the file")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ)
    model = args.model or default_model(config)
    with client(args.url or address(config), patience=config.timeouts.total + 30) as to, _somebody(to, args):
        if args.prompt is not None:
            answer(to, model, [{"role": "user", "content": args.prompt}])
            return FINE
        return _conversation(to, model)


def default_model(config: Config) -> str:
    """The first cloud model that the configuration names in full, else the box."""
    named = (model for upstream in config.upstreams for model in upstream.models if "*" not in model)
    return next(named, "local")


def _conversation(to: httpx.Client, model: str) -> int:
    if sys.stdin.isatty():
        import readline  # noqa: F401  # line editing, and a history that lives in memory only

        _note("Ctrl-D ends the conversation, Ctrl-C an answer.")
    turns: list[Turn] = []
    verdict = FINE
    while True:
        try:
            line = input(">>> " if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                print()
            return verdict
        if not line.strip():
            continue
        turns.append({"role": "user", "content": line})
        try:
            turns.append({"role": "assistant", "content": answer(to, model, turns)})
        except KeyboardInterrupt:
            print()
            _note("interrupted")
            turns.pop()
        except Unwell as error:
            complain(str(error))
            turns.pop()
            verdict = NOT_WELL


# ------------------------------------------------------------------------------------------------ one answer


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class TakenOver:
    source: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is complete."""


def read_answer(chunks: Iterable[bytes]) -> Iterator[Words | TakenOver | Ended]:
    """What a streamed answer tells a person. Raises `Unwell` for an error event."""
    parser = SseParser()
    for chunk in chunks:
        for event in parser.feed(chunk):
            if event.comment and event.comment.startswith(_TAKEOVER):
                yield _takeover(event.comment)
            if event.data is not None:
                yield from _from_data(event.data)


def _takeover(comment: str) -> TakenOver:
    route, *rest = comment.removeprefix(_TAKEOVER).split()
    source, _, target = route.partition("->")
    said = dict(part.partition("=")[::2] for part in rest)
    return TakenOver(source, target, said.get("reason", "unknown"))


def _from_data(data: bytes) -> Iterator[Words | Ended]:
    if data == b"[DONE]":
        yield Ended()
        return
    try:
        chunk = json.loads(data)
    except ValueError:
        return
    if not isinstance(chunk, dict):
        return
    if chunk.get("error"):
        raise Unwell(complaint(chunk, 500))
    for choice in chunk.get("choices") or ():
        if text := (choice.get("delta") or {}).get("content"):
            yield Words(text)
        if choice.get("finish_reason"):
            yield Ended()


def answer(to: httpx.Client, model: str, turns: list[Turn]) -> str:
    """Print one answer as it comes, then who gave it; returns its text. Raises `Unwell`."""
    import httpx

    body = {"model": model, "messages": turns, "stream": True}
    said: list[str] = []
    ended = False
    try:
        with to.stream("POST", "/v1/chat/completions", json=body) as reply:
            if reply.status_code != httpx.codes.OK:
                reply.read()
                raise Unwell(_refused(reply))
            speakers = [reply.headers.get("x-appliance-served-by", "unknown")]
            for piece in read_answer(reply.iter_bytes()):
                if isinstance(piece, Words):
                    print(piece.text, end="", flush=True)
                    said.append(piece.text)
                elif isinstance(piece, TakenOver):
                    speakers.append(f"{piece.target} (after {piece.source} failed: {piece.reason})")
                else:
                    ended = True
            why = reply.headers.get("x-appliance-fallback")
    except httpx.TransportError as error:
        raise Unwell(f"the connection to {to.base_url} broke ({type(error).__name__}); ask again.") from None
    finally:
        if said:
            print(flush=True)
    if not ended:
        raise Unwell("the answer was cut off before its end; ask again.")
    _note(f"answered by {', then '.join(speakers)}" + (f" (fallback: {why})" if why else ""))
    return "".join(said)


def _refused(reply: httpx.Response) -> str:
    try:
        return complaint(reply.json(), reply.status_code)
    except ValueError:
        return complaint(None, reply.status_code)


def _note(line: str) -> None:
    """A remark about the answer, not part of it: dim, and on stderr so that a pipe gets the answer alone."""
    print(f"\x1b[2m{line}\x1b[0m" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------- somebody to talk to


@contextmanager
def _somebody(to: httpx.Client, args: argparse.Namespace) -> Iterator[None]:
    """An appliance is there: the running one, or one that ends with us."""
    if args.url or _listens(to):
        yield
        return
    _note(f"starting an appliance at {to.base_url} ...")
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "appliance", "serve", *(["--config", args.config] if args.config else [])]
        # A session of its own: Ctrl-C is for the answer, not for the appliance. So we must end it ourselves, always.
        endings = (signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(ending, lambda number, _: sys.exit(128 + number)) for ending in endings]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_ready(to, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_DRAIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for ending, handler in zip(endings, before, strict=True):
                signal.signal(ending, handler)


def _listens(to: httpx.Client) -> bool:
    import httpx

    try:
        to.get("/healthz")
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return False
    except httpx.TransportError:
        pass
    ask(to, "GET", "/appliance/status")  # says so if it is somebody else
    return True


def _wait_ready(to: httpx.Client, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    import httpx

    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            last = lines[-1].removeprefix("appliance: ") if lines else "it did not say why."
            raise Unwell(f"the appliance did not start: {last}")
        try:
            if to.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(_LOOK_EVERY)
    raise Unwell('the appliance does not get ready; run "appliance serve" to see why.')
