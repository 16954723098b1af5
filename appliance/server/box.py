"""Is the model on the box well, and is it the one that the configuration asks for?

A model that never loads ends the service, with a sentence; systemd does not start it again. One that was asked for
while the service runs does not: the one before it, which has answered, is loaded again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TextIO

from appliance.appliance import Appliance
from appliance.core.fault import BackendError
from appliance.core.machine import instruction_sets
from appliance.server.status import status

log = logging.getLogger("appliance")

EXCHANGE_PATIENCE = 30.0
"""Seconds in which the old engine may finish what it writes; the new one goes on with the rest."""
NO_GPU = "no layer of the model is on a GPU, and --require-gpu was given; "
NOT_BUILT = NO_GPU + "reinstall llama-cpp-python with GPU support (docs/install.md) or leave the flag out."
NOT_FOUND = NO_GPU + 'llama.cpp was built for one and finds none: "appliance doctor" says why.'
NOT_USED = NO_GPU + 'set [local] gpu_layers to "auto", or leave the flag out.'


async def watch(appliance: Appliance, *, require_gpu: bool, news: Callable[[], None]) -> str | None:
    """Say when a model is ready, and load another when the configuration asks for one. Ends with a sentence when there
    can be none on this box, or with None when the service is being ended. `news` is called when things changed."""
    while True:
        trouble = await _settled(appliance, require_gpu, news)
        news()
        if trouble is None:
            if appliance.engine.ready is not None:
                appliance.proven = appliance.config.local, appliance.model
            trouble = await _first(_failed(appliance), _wished(appliance, news))
        elif appliance.engine.state == "stopped":  # we are being ended while the model still loads: nothing is wrong
            return None
        good = appliance.proven
        if trouble is not None and (good is None or appliance.has(*good)):
            return trouble
        if trouble is not None:
            assert good is not None
            log.error("%s%s The one before it, %s, is loaded again.", trouble[0].upper(), trouble[1:], good[1].name)
            appliance.refused = f"{appliance.model_name} was given up: {trouble}"
            wanted = good
        else:
            appliance.wish.clear()
            if appliance.wanted is None:  # somebody has thought better of it
                continue
            wanted, appliance.wanted = appliance.wanted, None
            log.info("The local model is exchanged: %s goes, %s comes.", appliance.model_name, wanted[1].name)
        await appliance.exchange(*wanted, patience=EXCHANGE_PATIENCE)
        news()


async def _settled(appliance: Appliance, require_gpu: bool, news: Callable[[], None]) -> str | None:
    """Waits until the engine is ready and has been introduced, or until another is asked for; a sentence if it never
    will be of use."""
    try:
        if await _first(appliance.engine.wait_ready(), _wished(appliance, news)) is None:
            return None
    except BackendError as error:
        return f"the local model cannot be used: {error}"
    engine = (await status(appliance))["engine"]
    _introduce(engine)
    if not require_gpu or engine["gpu_layers"]:
        return None
    return NOT_USED if engine["devices"] else NOT_FOUND if engine["gpu_offload"] else NOT_BUILT


async def _failed(appliance: Appliance) -> str | None:
    return f"the local model can no longer be used: {await appliance.engine.wait_failed()}"


async def _wished(appliance: Appliance, news: Callable[[], None]) -> None:
    """Waits until another model is asked for that may come in the place of this one."""
    while True:
        await appliance.wish.wait()
        wanted = appliance.wanted
        refusal = await appliance.refusal(*wanted) if wanted is not None else None
        if appliance.wanted is not wanted:
            continue  # it is another one by now
        if wanted is not None and refusal is None:
            return
        appliance.wish.clear()
        if wanted is None:
            continue
        appliance.wanted, appliance.refused = None, f"{wanted[1].name} was refused: {refusal}"
        log.error("The local model was not exchanged, %s stays: %s", appliance.model_name, appliance.refused)
        news()


async def _first(*waits: Coroutine[Any, Any, Any]) -> Any:
    """What the first of these gives or raises; the others are given up."""
    tasks = [asyncio.create_task(wait, name="box-wait") for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()


def _introduce(engine: Mapping[str, Any]) -> None:
    speed = f"{engine['tok_s']:.0f} tok/s (measured)" if engine["tok_s"] else "speed unknown"
    on_gpu = f"GPU {engine['gpu_layers']}/{engine['layers']} layers"
    place = on_gpu if engine["gpu_layers"] else f"CPU {engine['threads']} threads"
    room = f"{engine['slots']} slots x {engine['context']} tokens"
    say(f"local    {engine['model']}  {place}  {room}  ready in {engine['load_s']:.1f} s  {speed}")
    offload = "no" if not engine["gpu_offload"] else "yes" if engine["devices"] else "built for it, no GPU found"
    sets = ", ".join(instruction_sets(engine["instruction_sets"])) or "an unknown processor"
    say(f"         GPU offload: {offload}; built for {sets}")
    for step in engine["steps_down"]:
        say(f"         {step}")
    if engine["model"] == "starter":
        say("         The starter is a weak model, for first contact; `appliance models list` shows better ones.")


def say(line: str, *, file: TextIO | None = None) -> None:
    """One line for whoever started us."""
    print(line, file=file or sys.stdout, flush=True)
