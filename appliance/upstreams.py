"""Which clouds are there, and how are they reached? An `[[upstream]]` of the file, or a key of the environment, to a
value.

Rules of this file:

1. What is written holds. What is not comes from the preset it names, else from the preset at whose address it is, else
   from the defaults.
2. A proxy and certificates of the environment hold where the file says nothing; here they become part of the value, so
   that nobody else asks the environment.
3. Where a client of this box is pointed (ANTHROPIC_BASE_URL, OPENAI_BASE_URL) is never read: it may well be this box.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance import presets, proxies
from appliance.core.route import Offer, concrete
from appliance.core.seams import PLAIN, Quirks
from appliance.document import ConfigError, Document, refused, suggestion
from appliance.presets import BY_NAME, Api, Preset
from appliance.settings import SECTIONS, Key, Unexpected, fits_header

PUBLIC_CLOUDS = tuple(BY_NAME[name] for name in ("anthropic", "openai", "gemini", "deepseek", "openrouter", "n1n"))
"""Those that are set up by nothing but their key in the environment, in order of preference."""

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_OAUTH = "sk-ant-oat"
"""How Anthropic's OAuth tokens begin. They are no API keys: in x-api-key they are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """One cloud.

    ``key`` is the secret itself, already fetched from where the file says it is; with ``client_key`` there is none, and
    the caller's own credential goes up. ``key_from`` is where it was: "env:NAME" or "file:" and the whole path; nothing
    of a key in plain text. ``key_header`` is ``None`` for the one usual in the dialect; in "authorization"
    the key is a bearer token. ``canary`` is the model that is asked something now and then. ``proxy`` and ``ca`` are
    what holds after the environment was asked.
    """

    name: str
    preset: str | None = None
    api: Api = "openai"
    base_url: str
    key: str | None = field(default=None, repr=False)
    key_from: str = field(default="", compare=False)
    client_key: bool = False
    key_header: str | None = None
    models: tuple[str, ...] = ("*",)
    aliases: tuple[tuple[str, str], ...] = ()
    prefill: bool = False
    context: int | None = None
    watch_whole: bool = False
    hedge: bool = False
    canary: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    quirks: Quirks = PLAIN
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    status_page: str | None = None


def of_file(
    document: Document, tables: Any, environ: Mapping[str, str], home: Path, *, keys: bool = True
) -> tuple[tuple[UpstreamConfig, ...], list[str]]:
    """The upstreams of the file, with their keys if `keys`, and what its owner should be warned about. Raises
    `ConfigError`."""
    if not isinstance(tables, list):
        raise document.wrong(("upstream",), "upstream must begin with [[upstream]], in double brackets.")
    upstreams: list[UpstreamConfig] = []
    warnings: list[str] = []
    for index, table in enumerate(tables):
        written = _Table(document, index, document.read("upstream", table, index))
        upstream = written.upstream(environ, home, warnings, keys=keys)
        if upstream.name in [other.name for other in upstreams]:
            raise written.wrong("name", f'is "{upstream.name}" twice; each needs a name of its own.')
        upstreams.append(upstream)
    return _with_certificates(upstreams, environ, warnings), warnings


def of_environment(environ: Mapping[str, str]) -> tuple[tuple[UpstreamConfig, ...], list[str]]:
    """An upstream for each key of a public cloud that is set. Raises `ConfigError`."""
    upstreams: list[UpstreamConfig] = []
    warnings: list[str] = []
    for cloud in PUBLIC_CLOUDS:
        assert cloud.variable is not None and cloud.base_url is not None  # else it would not be in the list
        key = environ.get(cloud.variable, "").strip()
        if not key:
            continue
        if not _is_key(key):
            raise ConfigError(f"{cloud.variable} in the environment is no key: it must be one word of ASCII signs.")
        upstreams.append(
            UpstreamConfig(
                name=cloud.name,
                preset=cloud.name,
                api=cloud.api,
                base_url=cloud.base_url,
                key=key,
                key_from=f"env:{cloud.variable}",
                key_header=_bearer(cloud.api, key) or cloud.key_header,
                models=cloud.models,
                quirks=cloud.quirks,
                proxy=_proxy(cloud.base_url, environ),
                status_page=cloud.status_page,
            )
        )
    return _with_certificates(upstreams, environ, warnings), warnings


@dataclass(frozen=True, slots=True)
class _Table:
    """One `[[upstream]]`, with the values that are written in it."""

    document: Document
    index: int
    values: dict[str, Any]

    def wrong(self, key: str, sentence: str) -> ConfigError:
        """The mistake at `key`; at the whole table if that is not written."""
        where = ("upstream", self.index, key) if key in self.values else ("upstream", self.index)
        return self.document.wrong(where, f"upstream.{key} {sentence}")

    def upstream(self, environ: Mapping[str, str], home: Path, warnings: list[str], *, keys: bool) -> UpstreamConfig:
        """The value it stands for; what its owner should hear is added to `warnings`. Raises `ConfigError`."""
        values = dict(self.values)
        preset = self.preset()
        if preset:
            defaults = {"name": preset.name, "api": preset.api, "models": preset.models}
            values = {**defaults, **values}
            values.setdefault("base_url", preset.url(values["api"]))
        api = values.setdefault("api", "openai")
        for key in ("name", "base_url"):
            if not values.get(key):
                raise self.wrong(key, self.missing(key, preset))
        if values.get("models") == () and not values.get("aliases"):
            raise self.wrong("models", "is an empty list, and without aliases it would never be asked.")
        if api == "anthropic":
            values["base_url"] = values["base_url"].removesuffix("/v1")  # each of its paths has its own
        known = preset if preset and api == preset.api else presets.at(values["base_url"], api)
        values["key"], values["client_key"] = (
            self.key(preset, environ, home, warnings) if keys else (None, self.written_key(preset) == "client")
        )
        values["key_from"] = self.key_from(preset, home)
        values["key_header"] = (
            values.get("key_header") or _bearer(api, values["key"]) or (known.key_header if known else None)
        )
        values["quirks"] = replace(known.quirks if known else PLAIN, **values.get("quirks", {}))
        values.setdefault("status_page", known.status_page if known else None)
        if "proxy" not in values:
            values["proxy"] = _proxy(values["base_url"], environ)
        elif values["proxy"] == "none":
            values["proxy"] = None
        if "ca" in values:
            values["ca"] = self.certificates(home)
        to = urlsplit(values["base_url"])
        keyed = values["key"] or values["client_key"]
        if keyed and to.scheme == "http" and not proxies.on_this_box(to.hostname or ""):
            warnings.append(f'the key of "{values["name"]}" travels unencrypted over http; use https.')
        upstream = UpstreamConfig(**values)
        self.check_canary(upstream)
        return upstream

    def preset(self) -> Preset | None:
        name = self.values.get("preset")
        if name is not None and name not in BY_NAME:
            raise self.wrong("preset", f'is "{name}", which is no preset; {suggestion(name, BY_NAME)}')
        return BY_NAME[name] if name is not None else None

    def missing(self, key: str, preset: Preset | None) -> str:
        rule = SECTIONS["upstream"][key]
        assert isinstance(rule, Key)
        if preset is None or not preset.address_like:
            return f"is missing; it must be {rule.expected}."
        return f'is missing; for the preset "{preset.name}" it is {preset.address_like} with your own name in it.'

    def written_key(self, preset: Preset | None) -> str | None:
        usual = f"env:{preset.variable}" if preset is not None and preset.variable is not None else None
        return self.values.get("key", usual)

    def key_from(self, preset: Preset | None, home: Path) -> str:
        """Where the key is; nothing if it is written out, or if there is none."""
        kind, _, rest = (self.written_key(preset) or "").partition(":")
        where = {"env": rest, "file": str(self.document.beside(rest, home))}.get(kind)
        return f"{kind}:{where}" if where is not None else ""

    def key(
        self, preset: Preset | None, environ: Mapping[str, str], home: Path, warnings: list[str]
    ) -> tuple[str | None, bool]:
        """The key itself, and whether it is the caller's. Adds a warning if it is kept where others can read it."""
        written = self.written_key(preset)
        if written is None:
            return None, False
        if written == "client":
            return None, True
        kind, _, rest = written.partition(":")
        if kind in ("keyring", "vault", "aws"):
            raise self.wrong("key", f"= {kind} is not in this version yet; use env:NAME or file:PATH.")
        if kind == "env":
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", rest):  # perhaps the key itself
                raise self.wrong("key", "is env: and something that is no variable's name; write env:NAME.")
            secret = environ.get(rest, "").strip()
            if not secret:
                raise self.wrong("key", f"is env:{rest}, but {rest or 'no variable'} is not set; export it.")
        elif kind == "file":
            path = self.document.beside(rest, home)
            try:
                secret = path.read_text("utf-8").strip()
                if path.stat().st_mode & 0o077:
                    warnings.append(f"{path} holds a key and others can read it; run chmod 600 {path}.")
            except (OSError, UnicodeDecodeError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or "it is not text"
                raise self.wrong("key", f"is file:{rest}, but {path} cannot be read: {reason}.") from None
        else:
            secret = written.strip()
            warnings.append(f"{self.document.path} holds a key as plain text; use env:NAME or file:PATH instead.")
        if not _is_key(secret):
            source = f"{kind}:{rest}" if kind in ("env", "file") else "plain text"
            raise self.wrong("key", f"({source}) is no key: it must be one word of ASCII letters and signs.")
        return secret, False

    def check_canary(self, upstream: UpstreamConfig) -> None:
        """Is it somebody who can be asked? Raises `ConfigError`."""
        if upstream.canary is None:
            return
        if upstream.client_key:
            raise self.wrong("canary", 'cannot be asked where key = "client": there is no key to show.')
        if not concrete(upstream.canary):
            raise self.wrong("canary", f'is "{upstream.canary}", which is a pattern; give the name of one model.')
        offer = Offer(name=upstream.name, models=upstream.models, aliases=upstream.aliases)
        if offer.resolve(upstream.canary) is None:
            offered = ", ".join((*upstream.models, *(pattern for pattern, _ in upstream.aliases)))
            raise self.wrong("canary", f'is "{upstream.canary}", which is not offered here; the models are: {offered}.')

    def certificates(self, home: Path) -> Path:
        path = self.document.beside(self.values["ca"], home)
        if not path.is_file():
            raise self.wrong("ca", f"is {path}, which is no file; give a PEM file.")
        if not _holds_certificates(path):
            raise self.wrong("ca", f"is {path}, which holds no certificates; give a PEM file.")
        return path


# ----------------------------------------------------------------------------------------------- what both share


def _is_key(text: str) -> bool:
    return bool(text) and fits_header(text) and " " not in text


def _bearer(api: str, key: str | None) -> str | None:
    """The header for a key that can be told by its looks to be a bearer token."""
    return "authorization" if api == "anthropic" and (key or "").startswith(_OAUTH) else None


def _proxy(base_url: str, environ: Mapping[str, str]) -> str | None:
    """The environment's proxy for this address. Raises `ConfigError` if it is none that can be used."""
    found = proxies.of_environment(base_url, environ)
    if found is None:
        return None
    rule = SECTIONS["upstream"]["proxy"]
    assert isinstance(rule, Key)
    rule = replace(rule, expected='an http:// or https:// address with a host, unless each upstream has proxy = "none"')
    try:
        return str(rule.accept(found.url))
    except Unexpected as reason:
        raise ConfigError(f"{found.variable} in the environment is {refused(found.url, rule, reason)}") from None


def _with_certificates(
    upstreams: list[UpstreamConfig], environ: Mapping[str, str], warnings: list[str]
) -> tuple[UpstreamConfig, ...]:
    """The upstreams with the certificates that the environment names, where the file names none. A file that holds none
    is warned about and passed over: what is trusted without it is less, not more."""
    bare = [upstream for upstream in upstreams if upstream.ca is None and upstream.base_url.startswith("https:")]
    variable = next((name for name in _CA_VARIABLES if environ.get(name)), None)
    if not bare or variable is None:
        return tuple(upstreams)
    path = Path(os.path.abspath(environ[variable]))
    if not _holds_certificates(path):
        warnings.append(f"{variable} is {path}, which is no file with certificates; it is not used.")
        return tuple(upstreams)
    return tuple(replace(upstream, ca=path) if upstream in bare else upstream for upstream in upstreams)


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ValueError):  # no file, no PEM, or nothing in it
        return False
    return True
