"""What does the owner of this box want? `appliance.toml` and the environment, read once into frozen values.

Rules of this file:

1. Together with `document` (the file as text) and `upstreams` (the clouds) it is the only reader of either. Everybody
   else is given a `Config`.
2. Everything has a default; what is written is checked key by key against the table in `settings`.
3. A mistake is refused with one sentence: file, line, key, what was found, what was expected.
4. A key of a later version is refused, unless its value describes what this version does anyway.
5. No sentence shows a secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from appliance import upstreams
from appliance.core.standby import Mode
from appliance.document import FILE_NAME, ConfigError, open_document, refused, suggestion
from appliance.settings import SECTIONS, Key, Unexpected
from appliance.upstreams import PUBLIC_CLOUDS, UpstreamConfig

__all__ = [
    "PUBLIC_CLOUDS",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "LocalConfig",
    "PathsConfig",
    "ServerConfig",
    "TimeoutConfig",
    "UpstreamConfig",
    "debugging",
    "default_paths",
    "listening_at",
    "load_config",
    "places",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = "127.0.0.1"
    port: int = 8484
    origins: tuple[str, ...] = ()
    log: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """The model on the box. `context` is in tokens and guaranteed to each of `slots` answers at a time;
    `unload_after` is in idle seconds, 0 for never."""

    model: str = "starter"
    context: int = 4096
    slots: int = 4
    gpu_layers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    mlock: bool = False
    queue: int = 64
    overflow: Literal["trim", "refuse"] = "trim"
    standby: Mode = "auto"
    unload_after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutConfig:
    """Seconds; "auto" is whatever this upstream usually needs."""

    connect: float = 3.0
    first_content: float | Literal["auto"] = "auto"
    stall: float | Literal["auto"] = "auto"
    total: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    failures: int = 3
    cooldown: float = 10.0
    probe_interval: float = 30.0
    canary_interval: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PathsConfig:
    state: Path
    cache: Path
    models: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything there is to know before the first request. `source` is the file it came from, if there was one."""

    server: ServerConfig
    local: LocalConfig
    upstreams: tuple[UpstreamConfig, ...]
    timeouts: TimeoutConfig
    breaker: BreakerConfig
    paths: PathsConfig
    source: Path | None
    warnings: tuple[str, ...] = ()


# -------------------------------------------------------------------------------------------- all together


def default_paths(environ: Mapping[str, str]) -> PathsConfig:
    """Where things lie when nobody says otherwise: under `APPLIANCE_HOME`, else in the XDG folders."""
    if environ.get("APPLIANCE_HOME"):
        root = Path(os.path.abspath(environ["APPLIANCE_HOME"]))
        return PathsConfig(state=root / "state", cache=root / "cache", models=root / "models")

    def folder(variable: str, default: str) -> Path:
        chosen = environ.get(variable, "")  # the XDG rules: a relative path counts as not set
        return Path(chosen) / "appliance" if os.path.isabs(chosen) else _home(environ) / default / "appliance"

    return PathsConfig(
        state=folder("XDG_STATE_HOME", ".local/state"),
        cache=folder("XDG_CACHE_HOME", ".cache"),
        models=folder("XDG_DATA_HOME", ".local/share") / "models",
    )


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def places(environ: Mapping[str, str], here: Path = Path()) -> tuple[Path, ...]:
    """Where the file is looked for when nobody names one, in this order. `here` is the folder the program runs in."""
    mine = environ.get("APPLIANCE_HOME") or environ.get("XDG_CONFIG_HOME", "")
    own = (
        Path(mine)
        if environ.get("APPLIANCE_HOME")
        else (Path(mine) if mine else _home(environ) / ".config") / "appliance"
    )
    return (here / FILE_NAME, own / FILE_NAME, Path("/etc/appliance") / FILE_NAME)


def load_config(path: Path | None, environ: Mapping[str, str], here: Path = Path(), *, keys: bool = True) -> Config:
    """The configuration of a process that runs in the folder `here`. Without `keys` the clouds' secrets are not even
    looked for: whoever asks no cloud does not need them. Raises `ConfigError`."""
    if path is None and environ.get("APPLIANCE_CONFIG"):
        path = Path(environ["APPLIANCE_CONFIG"])
    if path is None:
        path = next((place for place in places(environ, here) if place.is_file()), None)
    return _from_environment(environ) if path is None else _from_file(path, environ, keys)


def _from_environment(environ: Mapping[str, str]) -> Config:
    clouds, warnings = upstreams.of_environment(environ)
    return Config(
        server=ServerConfig(),
        local=LocalConfig(),
        upstreams=clouds,
        timeouts=TimeoutConfig(),
        breaker=BreakerConfig(),
        paths=default_paths(environ),
        source=None,
        warnings=tuple(warnings),
    )


def _from_file(path: Path, environ: Mapping[str, str], keys: bool) -> Config:
    document, table = open_document(path)
    home = _home(environ)
    for section in table:
        if section not in SECTIONS:
            raise document.wrong((section,), f'there is no section "{section}"; {suggestion(section, SECTIONS)}')
    values = {name: document.read(name, table.get(name, {})) for name in SECTIONS if name != "upstream"}
    clouds, warnings = upstreams.of_file(document, table.get("upstream", []), environ, home, keys=keys)
    if values["local"].get("model", "").endswith(".gguf") and not values["local"]["model"].startswith("hf:"):
        values["local"]["model"] = str(document.beside(values["local"]["model"], home))
    if "upstream" not in table:
        warnings += _passed_over(path, environ)
    return Config(
        server=ServerConfig(**values["server"]),
        local=LocalConfig(**values["local"]),
        upstreams=clouds,
        timeouts=TimeoutConfig(**values["timeouts"]),
        breaker=BreakerConfig(**values["breaker"]),
        paths=replace(
            default_paths(environ), **{key: document.beside(value, home) for key, value in values["paths"].items()}
        ),
        source=path,
        warnings=tuple(warnings),
    )


def _passed_over(path: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """What somebody should hear who has keys in the environment, and a file that never speaks of clouds."""
    set_here = [cloud for cloud in PUBLIC_CLOUDS if environ.get(cloud.variable or "", "").strip()]
    if set_here:
        variables = " and ".join(f"{cloud.variable}" for cloud in set_here)
        yield (
            f"{variables} {'is' if len(set_here) == 1 else 'are'} set, but {path} names no cloud, so none is asked; "
            f'write [[upstream]] with preset = "{set_here[0].name}" into it, or upstream = [] at its top to want none.'
        )


def listening_at(config: Config, *, host: str | None, port: int | None) -> Config:
    """The same configuration on another host or port, as asked on the command line, under the same rules."""
    asked = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    for name, value in asked.items():
        rule = SECTIONS["server"][name]
        assert isinstance(rule, Key)
        try:
            rule.accept(value)
        except Unexpected as reason:
            raise ConfigError(f"--{name} is {refused(value, rule, reason)}") from None
    return replace(config, server=replace(config.server, **asked))  # type: ignore[arg-type]


def debugging(environ: Mapping[str, str]) -> bool:
    """Does the owner want tracebacks?"""
    return environ.get("APPLIANCE_DEBUG", "") not in ("", "0")
