"""The engine process: `python -m appliance.engine FD`, where FD is its end of a socket pair.

The first frame says what to load. Then a reader thread takes frames from the pipe and writes prompts, this thread
computes, and a third one sends. When the other end closes the pipe, the process ends.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from appliance.core.frames import Decoder, Frame, FrameError
from appliance.engine.desk import Desk
from appliance.engine.forms import Forms
from appliance.engine.job import Settings
from appliance.engine.load import KV_TYPES, Load, LoadError
from appliance.engine.loop import Command, Loop
from appliance.engine.model import Model, Row
from appliance.engine.outbox import Outbox
from appliance.engine.prompt import Writer
from appliance.engine.sampling import Sampler
from appliance.engine.vocabulary import Index

WRONG = 64
INTERNAL = 70
SMALLEST_CONTEXT = 64
WARM_UP = 8


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].isdigit():
        print("This is the appliance's engine; the appliance starts it itself.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the service, and the service ends us
    pipe = socket.socket(fileno=int(arguments[0]))
    sys.stdout.flush()
    os.dup2(2, 1)
    outbox = Outbox(pipe)
    inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=read, args=(pipe, inbox.put), name="reader", daemon=True).start()
    first = inbox.get()
    try:
        serve(first, inbox, outbox)
    except LoadError as error:
        outbox.post([{"op": "fatal", "message": str(error)}])
        outbox.flush()
        return WRONG
    return 0


def read(pipe: socket.socket, put: Callable[[Frame], None]) -> None:
    """Frames from the pipe, until it ends: and so does the process, whatever it was computing."""
    decoder = Decoder()
    while True:
        try:
            data = pipe.recv(1 << 16)
            frames = decoder.feed(data)
        except (OSError, FrameError) as error:
            print(f"The pipe to the service is broken: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        if not data:
            os._exit(0)
        for frame in frames:
            put(frame)


def serve(first: Frame, inbox: queue.SimpleQueue[Frame], outbox: Outbox) -> None:
    """Load, say so, and answer for ever. Raises `LoadError`."""
    began = time.monotonic()
    load = read_load(first)
    model = Model(load, _Progress(outbox))
    index = Index(model.vocabulary)
    writer = Writer(model.vocabulary, model, template=first.get("template"), own=model.template, context=model.context)
    forms = Forms(model.vocabulary, index, model.tokenize)
    _ = forms.masks  # so that nobody waits for them in the middle of a takeover
    speed = warm_up(model)
    outbox.post(
        [
            {
                "op": "ready",
                "model": dict(model.description),
                "context": model.context,
                "slots": model.slots,
                "threads": model.threads,
                "gpu_layers": model.gpu_layers,
                "layers": model.layers,
                "gpu_offload": model.gpu_offload,
                "kv_type": model.kv_type,
                "devices": [
                    asdict(device) | {"layers": layers}
                    for device, layers in zip(model.devices, model.split, strict=False)
                ],
                "instruction_sets": model.instruction_sets,
                "load_s": round(time.monotonic() - began, 3),
                "tok_s": round(speed, 1),
                "steps_down": list(model.steps),
            }
        ]
    )
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    desk = Desk(writer, forms, commands.put, time.monotonic, outbox.post)
    threading.Thread(target=desk.run, args=(inbox,), name="prompts", daemon=True).start()
    limit = first.get("queue", 64)
    Loop(model, outbox, commands, index=index, queue_limit=limit, clock=time.monotonic).run()


def read_load(frame: Frame) -> Load:
    """The load frame, checked. Raises `LoadError`: a wrong one is a wrong configuration."""
    if frame.get("op") != "load":
        raise LoadError("The engine's first frame must be a load frame.")
    for name in ("context", "slots"):
        value = frame.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LoadError(f"'{name}' must be a whole number, 1 or more.")
    if frame["context"] < SMALLEST_CONTEXT:
        raise LoadError(f"'context' must be {SMALLEST_CONTEXT} tokens or more.")
    if frame.get("kv_type", "f16") not in KV_TYPES:
        raise LoadError(f"'kv_type' must be one of {', '.join(KV_TYPES)}.")
    names = ("path", "context", "slots", "gpu_layers", "threads", "kv_type", "mlock")
    return Load(**{name: frame[name] for name in names if name in frame})


def warm_up(model: Model) -> float:
    """A few real tokens: pages are read, buffers are there. The tokens per second of writing them."""
    tokens = model.tokenize("The quick brown fox jumps over the lazy dog.") or [0]
    sampler = Sampler(Settings(temperature=0.0), model.chain)
    position = len(tokens)
    logits = model.decode([Row(0, 0, tokens, position - 1)])
    began = time.monotonic()
    for _ in range(WARM_UP):
        logits = model.decode([Row(0, position, [sampler.draw(logits[-1])], position)])
        position += 1
    seconds = time.monotonic() - began
    model.forget(0)
    return WARM_UP / seconds if seconds > 0 else 0.0


class _Progress:
    """Tells how much of the model is loaded, ten times a second at most."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._told = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if share >= 1.0 or now - self._told >= 0.1:
            self._told = now
            frame: dict[str, Any] = {"op": "loading", "progress": round(share, 3)}
            self._outbox.post([frame])


if __name__ == "__main__":
    # Not sys.exit: llama.cpp's threads and ours must not outlive the decision to end.
    code = INTERNAL
    try:
        code = main(sys.argv[1:])
    except BaseException as error:
        # Type and places only: an exception's words may be somebody's prompt.
        print("".join(traceback.format_tb(error.__traceback__)), type(error).__name__, sep="", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)
