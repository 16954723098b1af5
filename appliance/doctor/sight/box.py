"""Looks at the box itself: the processor, the folders, the model, the port, the limits.

Rules of this file:

1. Nothing is changed: no folder is made, no file written, and a port is only tried.
2. What may hang (a disk, a driver, a child) has its own thread or process, and a limit.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from appliance import __version__
from appliance.backends import box
from appliance.config import Config
from appliance.core.address import authority
from appliance.core.fault import BackendError, Fault
from appliance.doctor.checks.cpu import PACKAGE, Build, Processor
from appliance.doctor.checks.disk import Folder
from appliance.doctor.checks.gpu import Card
from appliance.doctor.checks.limits import Ulimits
from appliance.doctor.checks.memory import Need
from appliance.doctor.checks.model import File
from appliance.doctor.checks.port import Port
from appliance.doctor.checks.secrets import KeyFile
from appliance.doctor.sight.aside import aside
from appliance.doctor.sight.gpus import cards
from appliance.doctor.sight.visit import Goal, visit
from appliance.doctor.words import plain
from appliance.store.disk import Progress
from appliance.store.own import known
from appliance.store.store import Resolved, StoreError, is_path, resolve, verify

SECONDS, TO_FIND, FOR_THE_MODEL = 12.0, 3.0, 9.0
TO_END = 1.0
"""Seconds in which a child that said nothing is ended, so that it does not live longer than whoever asked."""
DEEP = 3600.0
HASHED = 10**9
"""Bytes of a model that are read whole without being asked: some seconds of a slow disk."""
STATUS = "appliance/status"
DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """All that was seen. ``service``: what a running appliance says of itself."""

    processor: Processor
    cards: tuple[Card, ...]
    build: Build
    file: File
    need: Need
    folders: tuple[Folder, ...]
    port: Port
    service: Mapping[str, Any]
    limits: Ulimits
    key_files: tuple[KeyFile, ...]


async def look(config: Config, *, deep: Progress | None, root: Path = Path("/")) -> Box:
    """Everything at once. `deep`: read every byte of the model, however large, and tell how far that is."""
    (port, service), build, folders, (file, need) = await asyncio.gather(
        _port(config), _build(), _folders(config), _model(config, deep=deep)
    )
    engine = service.get("engine") or {}
    loaded = engine.get("state") in ("ready", "careful") and engine.get("model") == file.name
    need = replace(need, loaded=loaded)
    to_lock = need.weight.model if config.local.mlock and need.weight else None
    return Box(
        processor=Processor(flags=_flags(root)),
        cards=cards(root),
        build=build,
        file=file,
        need=need,
        folders=folders,
        port=port,
        service=service,
        limits=Ulimits(files=_limit(resource.RLIMIT_NOFILE), locked=_limit(resource.RLIMIT_MEMLOCK), to_lock=to_lock),
        key_files=tuple(_key_files(config)),
    )


# ------------------------------------------------------------------------------------- processor, llama.cpp, model


def _flags(root: Path) -> frozenset[str]:
    try:
        lines = (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    words = (line.partition(":") for line in lines)
    return frozenset(next((value.split() for key, _, value in words if key.strip() in ("flags", "Features")), ()))


async def _build() -> Build:
    clone = (Path(__file__).parents[3] / "scripts" / "run").is_file()
    build = Build(clone=clone, python=sys.executable, version=_version(PACKAGE))
    try:
        machine = await aside(lambda: box.describe(patience=SECONDS - TO_END), seconds=SECONDS, name="describe")
        return replace(build, machine=machine)
    except BackendError as error:
        return replace(build, trouble="" if error.fault is Fault.SILENT else error.message)
    except TimeoutError:
        return build


def _version(package: str) -> str:
    try:
        return metadata.version(package).partition("+")[0]  # "+cu124" is of one wheel, and of no index
    except metadata.PackageNotFoundError:
        return ""


async def _model(config: Config, *, deep: Progress | None) -> tuple[File, Need]:
    name = config.local.model
    try:
        model = await aside(lambda: resolve(name, config), seconds=TO_FIND, name="find the model")
    except StoreError as error:
        return File(name=name, trouble=str(error)), Need(unknown="there is no model to weigh")
    except TimeoutError:
        trouble = f"the model {name} is on a disk that does not answer; look at the disk"
        return File(name=name, trouble=trouble), Need(unknown="the disk does not answer")
    except OSError as error:
        trouble = f"the model {name} cannot be read: {error.strerror}; look at the permissions of its folder"
        return File(name=name, trouble=trouble), Need(unknown="the disk does not answer")
    file, need = await asyncio.gather(_file(config, model, deep=deep), _need(config, model))
    if need.refused and not file.trouble:
        file = replace(file, refused=need.unknown)
    return file, need


async def _file(config: Config, model: Resolved, *, deep: Progress | None) -> File:
    size = model.path.stat().st_size
    if is_path(config.local.model):
        return File(name=model.name, bytes=size, checked="no hash")
    if size > HASHED and deep is None:
        return File(name=model.name, bytes=size, checked="look")
    try:
        entry = known(config.local.model, config.paths.models)
        patience = DEEP if deep is not None else FOR_THE_MODEL
        await aside(lambda: verify(entry, config.paths.models, deep), seconds=patience, name="verify the model")
    except StoreError as error:
        return File(name=model.name, bytes=size, checked="hash", trouble=str(error))
    except TimeoutError:
        return File(name=model.name, bytes=size, checked="look")
    return File(name=model.name, bytes=size, checked="hash")


async def _need(config: Config, model: Resolved) -> Need:
    local = config.local

    def weigh() -> Need:
        weight = box.weigh(
            model.path,
            context=local.context,
            slots=local.slots,
            kv_type=local.kv_type,
            gpu_layers=local.gpu_layers,
            patience=FOR_THE_MODEL - TO_END,
        )
        return Need(weight=weight)

    try:
        return await aside(weigh, seconds=FOR_THE_MODEL, name="weigh the model")
    except BackendError as error:
        return Need(unknown=error.message, refused=error.fault is Fault.CONFIG)
    except TimeoutError:
        return Need(unknown="the dry load took too long")


# ------------------------------------------------------------------------------------------- folders, port, limits


async def _folders(config: Config) -> tuple[Folder, ...]:
    paths = config.paths
    wanted = (("state", paths.state, True), ("cache", paths.cache, False), ("models", paths.models, False))

    def look() -> tuple[Folder, ...]:
        return tuple(folder(what, path, needed=needed) for what, path, needed in wanted)

    try:
        return await aside(look, seconds=SECONDS, name="look at the disks")
    except TimeoutError:
        return (Folder(what="state", path=paths.state, trouble="the disk does not answer"),)


def folder(what: str, path: Path, *, needed: bool) -> Folder:
    """The folder, or the nearest there is above it."""
    there = path
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        space, is_folder = os.statvfs(there), there.is_dir()
    except OSError as error:
        return Folder(what=what, path=path, trouble=error.strerror or "it cannot be read", needed=needed)
    trouble = "" if os.access(there, os.W_OK | os.X_OK) else "Permission denied"
    return Folder(
        what=what,
        path=path,
        free=space.f_bavail * space.f_frsize,
        files_free=space.f_favail if space.f_files else None,
        trouble=trouble if is_folder else f"{there} is no folder",
        read_only=bool(space.f_flag & os.ST_RDONLY),
        needed=needed,
    )


async def _port(config: Config) -> tuple[Port, Mapping[str, Any]]:
    host, port = config.server.host, config.server.port
    number = _try(host, port) if port else None
    if number is None:
        return Port(host=host, port=port, state="free", ours=__version__), {}
    if number != errno.EADDRINUSE:
        state = "not here" if number == errno.EADDRNOTAVAIL else "denied"
        return Port(host=host, port=port, state=state, ours=__version__), {}  # type: ignore[arg-type]
    said, mute = await _service(host, port)
    if said:
        return Port(host=host, port=port, state="appliance", ours=__version__, version=plain(said["version"])), said
    pid, program = _listener(port)
    return Port(host=host, port=port, state="taken", ours=__version__, pid=pid, program=program, mute=mute), {}


def _try(host: str, port: int) -> int | None:
    """Listen there for a moment, as the service would; the number of the error, if there is one."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trying:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind(address)
            trying.listen()
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return None


async def _service(host: str, port: int) -> tuple[Mapping[str, Any], bool]:
    """What an appliance there says of itself, nothing if none is there; and is whoever is there silent?"""
    walk = await visit(Goal(url=f"http://{authority(host, port)}/{STATUS}", headers=(("accept", "application/json"),)))
    if walk.reply is None or walk.reply.trouble == "silence":
        return {}, True
    try:
        said = json.loads(walk.reply.body) if walk.reply.status == 200 else {}
    except ValueError:
        return {}, False
    return (said if isinstance(said, dict) and {"version", "engine"} <= said.keys() else {}), False


def _listener(port: int) -> tuple[int | None, str]:
    """Who has the port; nobody, if the kernel tells only its owner."""
    try:
        lines = psutil.net_connections(kind="tcp")
        pid = next((one.pid for one in lines if one.status == "LISTEN" and one.laddr.port == port), None)
        return pid, plain(psutil.Process(pid).name()) if pid else ""
    except (psutil.Error, OSError):
        return None, ""


def _limit(which: int) -> int | None:
    """The hard one: the soft one the service raises itself."""
    hard = resource.getrlimit(which)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _key_files(config: Config) -> list[KeyFile]:
    found = []
    for upstream in config.upstreams:
        kind, _, path = upstream.key_from.partition(":")
        if kind == "file" and Path(path).is_file():
            days = int((time.time() - Path(path).stat().st_mtime) // DAY)
            found.append(KeyFile(path=Path(path), days=max(0, days)))
    return found
