"""What does the owner of this box want? `appliance.toml` and the environment, read once into frozen values.

Rules of this file:

1. It is the only reader of either. Everybody else is given a `Config`.
2. Everything has a default; what is written is checked key by key against the table in `settings`.
3. A mistake is refused with one sentence: file, line, key, what was found, what was expected.
4. A key of a later version is refused, unless its value describes what this version does anyway.
5. No sentence shows a secret.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from appliance.core.standby import Mode
from appliance.settings import SECTIONS, Key, Later, Unexpected, fits_header

FILE_NAME = "appliance.toml"
_LONGEST_SHOWN = 60


class ConfigError(ValueError):
    """The configuration is wrong; `str()` is one sentence that says where and what to write instead."""


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
class UpstreamConfig:
    """One cloud. `key` is the secret itself, already fetched from where the file says it is."""

    name: str
    api: Literal["openai"] = "openai"
    base_url: str
    key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ("*",)
    aliases: tuple[tuple[str, str], ...] = ()
    prefill: bool = False
    context: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCloud:
    """A cloud that is set up by nothing but its key in the environment."""

    variable: str
    name: str
    base_url: str
    models: tuple[str, ...]


PUBLIC_CLOUDS = (
    PublicCloud(
        variable="OPENAI_API_KEY",
        name="openai",
        base_url="https://api.openai.com/v1",
        models=("gpt-*", "o1*", "o3*", "o4*", "chatgpt-*"),
    ),
    PublicCloud(
        variable="GEMINI_API_KEY",
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        models=("gemini-*",),
    ),
    PublicCloud(
        variable="DEEPSEEK_API_KEY", name="deepseek", base_url="https://api.deepseek.com", models=("deepseek-*",)
    ),
    PublicCloud(
        variable="OPENROUTER_API_KEY", name="openrouter", base_url="https://openrouter.ai/api/v1", models=("*/*",)
    ),
    PublicCloud(variable="N1N_API_KEY", name="n1n", base_url="https://api.n1n.ai/v1", models=("*",)),
)


# ------------------------------------------------------------------------------------------------ the file


def find_line(text: str, where: Sequence[str | int]) -> int | None:
    """In which line of this TOML text does the key at `where` begin? (tomllib gives values without positions.)

    Statements end where a prefix of the file parses; the one that made the key appear is the one that holds it.
    """
    lines = text.split("\n")
    parsed = 0
    for end in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        if _holds(table, where):
            return parsed + 1
        parsed = end
    return None


def _holds(table: Any, where: Sequence[str | int]) -> bool:
    for step in where:
        try:
            table = table[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _shown(value: Any, *, secret: bool = False) -> str:
    """The value as its owner wrote it, cut to a sentence's size; of a secret only its kind."""
    kinds = {str: "a string", bool: "a switch", dict: "a table", list: "a list", int: "a number", float: "a number"}
    if secret or isinstance(value, dict | list):
        return kinds.get(type(value), "a date")
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "..."


@dataclass(frozen=True, slots=True)
class _Document:
    path: Path
    text: str

    def wrong(self, where: Sequence[str | int], sentence: str) -> ConfigError:
        line = find_line(self.text, where)
        return ConfigError(f"{self.path}, line {line}: {sentence}" if line else f"{self.path}: {sentence}")

    def read(self, section: str, table: Any, index: int | None = None) -> dict[str, Any]:
        """The accepted values of one table of the file, by key."""
        at: tuple[str | int, ...] = (section,) if index is None else (section, index)
        if not isinstance(table, dict):
            brackets = f"[{section}]" if index is None else f"[[{section}]]"
            raise self.wrong(at, f"{section} is {_shown(table)}, but it must be a table that begins with {brackets}.")
        keys, values = SECTIONS[section], {}
        for key, value in table.items():
            if key not in keys:
                raise self.wrong((*at, key), f'[{section}] has no key "{key}"; {_suggestion(key, keys)}')
            rule = keys[key]
            if isinstance(rule, Later):
                if not any(value == today and type(value) is type(today) for today in rule.today):
                    raise self.wrong((*at, key), f"{section}.{key} is not in this version yet; remove it.")
                continue
            try:
                values[key] = rule.accept(value)
            except Unexpected as reason:
                because = f" which {reason};" if str(reason) else " but"
                found = f"{section}.{key} is {_shown(value, secret=rule.secret)},"
                raise self.wrong((*at, key), f"{found}{because} it must be {rule.expected}.") from None
        return values

    def beside(self, path: str, home: Path) -> Path:
        """A path as the file means it: `~` is home, and relative is relative to the file."""
        if path == "~" or path.startswith("~/"):
            return home / path[2:]
        return Path(os.path.abspath(self.path.parent / path))


def _suggestion(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"it knows {', '.join(sorted(known))}."


def _open(path: Path) -> tuple[_Document, dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; give the path of an {FILE_NAME}, or none for the defaults."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return _Document(path, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        reason, line = (found[1], found[2] or text.count("\n") + 1) if found else (str(error), "?")
        column = f", column {found[3]}" if found and found[3] else ""
        raise ConfigError(f"{path}, line {line}{column}: this is not TOML: {reason}.") from None


def _secret(
    document: _Document, index: int, written: str, environ: Mapping[str, str], home: Path
) -> tuple[str, str | None]:
    """The key itself, and a warning if it is kept where others can read it."""
    at, warning = ("upstream", index, "key"), None
    kind, _, rest = written.partition(":")
    if written == "client" or kind in ("keyring", "vault", "aws"):
        raise document.wrong(at, f"upstream.key = {kind} is not in this version yet; use env:NAME or file:PATH.")
    if kind == "env":
        secret = environ.get(rest, "").strip()
        if not secret:
            raise document.wrong(at, f"upstream.key is env:{rest}, but {rest or 'no variable'} is not set; export it.")
    elif kind == "file":
        path = document.beside(rest, home)
        try:
            secret = path.read_text("utf-8").strip()
            if path.stat().st_mode & 0o077:
                warning = f"{path} holds a key and others can read it; run chmod 600 {path}."
        except (OSError, UnicodeDecodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
            raise document.wrong(at, f"upstream.key is file:{rest}, but {path} cannot be read: {reason}.") from None
    else:
        secret = written.strip()
        warning = f"{document.path} holds a key as plain text; use env:NAME or file:PATH instead."
    if not secret or not fits_header(secret) or " " in secret:
        source = f"{kind}:{rest}" if kind in ("env", "file") else "plain text"
        raise document.wrong(at, f"upstream.key ({source}) is no key: it must be one word of ASCII letters and signs.")
    return secret, warning


def _upstreams(
    document: _Document, tables: Any, environ: Mapping[str, str], home: Path
) -> tuple[tuple[UpstreamConfig, ...], list[str]]:
    if not isinstance(tables, list):
        raise document.wrong(("upstream",), "upstream must begin with [[upstream]], in double brackets.")
    upstreams: list[UpstreamConfig] = []
    warnings: list[str] = []
    for index, table in enumerate(tables):
        values = document.read("upstream", table, index)
        for key in ("name", "base_url"):
            if key not in values:
                rule = SECTIONS["upstream"][key]
                assert isinstance(rule, Key)
                raise document.wrong(("upstream", index), f"upstream.{key} is missing; it must be {rule.expected}.")
        if values["name"] in [other.name for other in upstreams]:
            raise document.wrong(
                ("upstream", index, "name"), f'upstream.name is "{values["name"]}" twice; each needs a name of its own.'
            )
        if "key" in values:
            values["key"], warning = _secret(document, index, values["key"], environ, home)
            warnings += [warning] if warning else []
            parts = urlsplit(values["base_url"])
            if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
                warnings.append(f'the key of "{values["name"]}" travels unencrypted over http; use https.')
        if "ca" in values:
            values["ca"] = document.beside(values["ca"], home)
            if not values["ca"].is_file():
                raise document.wrong(
                    ("upstream", index, "ca"), f"upstream.ca is {values['ca']}, which is no file; give a PEM file."
                )
            try:
                ssl.create_default_context(cafile=str(values["ca"]))
            except (OSError, ValueError) as error:
                trouble = f"upstream.ca is {values['ca']}, which holds no certificates; give a PEM file."
                raise document.wrong(("upstream", index, "ca"), trouble) from error
        upstreams.append(UpstreamConfig(**values))
    return tuple(upstreams), warnings


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


def places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the file is looked for when nobody names one, in this order."""
    mine = environ.get("APPLIANCE_HOME") or environ.get("XDG_CONFIG_HOME", "")
    own = (
        Path(mine)
        if environ.get("APPLIANCE_HOME")
        else (Path(mine) if mine else _home(environ) / ".config") / "appliance"
    )
    return (Path(FILE_NAME), own / FILE_NAME, Path("/etc/appliance") / FILE_NAME)


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration this process runs with. Raises `ConfigError`."""
    if path is None and environ.get("APPLIANCE_CONFIG"):
        path = Path(environ["APPLIANCE_CONFIG"])
    if path is None:
        path = next((place for place in places(environ) if place.is_file()), None)
    return _from_environment(environ) if path is None else _from_file(path, environ)


def _from_environment(environ: Mapping[str, str]) -> Config:
    upstreams = tuple(
        UpstreamConfig(
            name=cloud.name, base_url=cloud.base_url, key=environ[cloud.variable].strip(), models=cloud.models
        )
        for cloud in PUBLIC_CLOUDS
        if environ.get(cloud.variable, "").strip()
    )
    for cloud in PUBLIC_CLOUDS:
        if not fits_header(environ.get(cloud.variable, "").strip()):
            raise ConfigError(f"{cloud.variable} in the environment is no key: it must be one word of ASCII signs.")
    warnings = ("ANTHROPIC_API_KEY is set, but Anthropic's wire is not in this version yet; it is not used.",)
    return Config(
        server=ServerConfig(),
        local=LocalConfig(),
        upstreams=upstreams,
        timeouts=TimeoutConfig(),
        breaker=BreakerConfig(),
        paths=default_paths(environ),
        source=None,
        warnings=warnings if environ.get("ANTHROPIC_API_KEY", "").strip() else (),
    )


def _from_file(path: Path, environ: Mapping[str, str]) -> Config:
    document, table = _open(path)
    home = _home(environ)
    for section in table:
        if section not in SECTIONS:
            raise document.wrong((section,), f'there is no section "{section}"; {_suggestion(section, SECTIONS)}')
    values = {name: document.read(name, table.get(name, {})) for name in SECTIONS if name != "upstream"}
    upstreams, warnings = _upstreams(document, table.get("upstream", []), environ, home)
    if values["local"].get("model", "").endswith(".gguf") and not values["local"]["model"].startswith("hf:"):
        values["local"]["model"] = str(document.beside(values["local"]["model"], home))
    return Config(
        server=ServerConfig(**values["server"]),
        local=LocalConfig(**values["local"]),
        upstreams=upstreams,
        timeouts=TimeoutConfig(**values["timeouts"]),
        breaker=BreakerConfig(**values["breaker"]),
        paths=replace(
            default_paths(environ), **{key: document.beside(value, home) for key, value in values["paths"].items()}
        ),
        source=path,
        warnings=tuple(warnings),
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
            because = f"which {reason};" if str(reason) else "but"
            raise ConfigError(f"--{name} is {_shown(value)}, {because} it must be {rule.expected}.") from None
    return replace(config, server=replace(config.server, **asked))  # type: ignore[arg-type]


def debugging(environ: Mapping[str, str]) -> bool:
    """Does the owner want tracebacks?"""
    return environ.get("APPLIANCE_DEBUG", "") not in ("", "0")
