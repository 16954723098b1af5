"""What does each key of `appliance.toml` take? One table, and the functions that accept or refuse a value.

Rules of this file:

1. A rule never sees the file, the environment or the disk; `config` does.
2. ``accept`` gives the value in the form the program wants, or raises `Unexpected`.
3. A key of a later version is a row too, with the values that describe what this version does anyway.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

RESERVED_NAMES = ("local", "auto", "cloud")
OF_THE_BODY = frozenset(
    "accept accept-encoding connection content-encoding content-length content-type expect keep-alive "
    "proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
"""Headers that describe the body or the connection, and are not the configuration's to say."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Unexpected(Exception):
    """This value is not what the key takes. With a sentence: why not, in place of the usual expectation."""


class UnexpectedPart(Unexpected):
    """Of a list or a table only the part `at` will not do, which is `value` and must be `expected`."""

    def __init__(self, at: tuple[str | int, ...], value: object, expected: str) -> None:
        super().__init__()
        self.at = at
        self.value = value
        self.expected = expected


class UnknownName(Unexpected):
    """A table has a key of a `name` that is none of the `known`."""

    def __init__(self, name: str, known: Mapping[str, object]) -> None:
        super().__init__()
        self.name = name
        self.known = known


@dataclass(frozen=True, slots=True)
class Key:
    """What one key takes: in words, and as a function that gives the value or raises `Unexpected`. Of a ``secret`` only
    the kind is ever shown, of an ``address`` all but who logs in there."""

    expected: str
    accept: Callable[[Any], Any]
    secret: bool = False
    address: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """A key of a later version, and the values (if any) that describe what this one does."""

    today: tuple[Any, ...] = ()


def _one_of(*words: str, later: Sequence[str] = ()) -> Key:
    def accept(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise Unexpected("is not in this version yet" if isinstance(value, str) and value in later else "")

    return Key(" or ".join(json.dumps(word) for word in words), accept)


def _whole(least: int, most: int | None = None, *, or_auto: bool = False, auto_later: bool = False) -> Key:
    def accept(value: Any) -> int | str:
        if or_auto and value == "auto":
            return "auto"
        if auto_later and value == "auto":
            raise Unexpected("is not in this version yet")
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unexpected
        if value < least or (most is not None and value > most):
            raise Unexpected
        return value

    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    return Key(f"a whole number {limits}" + (' or "auto"' if or_auto else ""), accept)


def _seconds(*, or_auto: bool = False) -> Key:
    def accept(value: Any) -> float | str:
        if or_auto and value == "auto":
            return "auto"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise Unexpected
        return float(value)

    return Key("a number of seconds above 0" + (' or "auto"' if or_auto else ""), accept)


def _seconds_or_never(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Unexpected
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unexpected
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unexpected
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise Unexpected
    return tuple(_part(_text, item, "a string that is not empty", at) for at, item in enumerate(value))


def _part(accept: Callable[[Any], T], value: Any, expected: str, at: str | int) -> T:
    """What `accept` makes of the part `at` of a list or a table."""
    try:
        return accept(value)
    except UnexpectedPart as reason:
        raise UnexpectedPart((at, *reason.at), reason.value, reason.expected) from None
    except Unexpected:
        raise UnexpectedPart((at,), value, expected) from None


def _patterns(value: Any) -> tuple[str, ...]:
    return () if value == [] else _texts(value)


def _pairs(value: Any, expected: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Unexpected
    return tuple((_text(name), _part(_text, target, expected, name)) for name, target in value.items())


def _aliases(value: Any) -> tuple[tuple[str, str], ...]:
    return _pairs(value, "the name of a model")


def _http_headers(value: Any) -> tuple[tuple[str, str], ...]:
    expected = "a single line of ASCII"
    pairs = _pairs(value, expected)
    for name, content in pairs:
        if not _HEADER_NAME.fullmatch(name):
            raise Unexpected
        if name.lower() in OF_THE_BODY:
            raise Unexpected(f"names {name.lower()}, and that describes the body or the connection")
        if not fits_header(content):
            raise UnexpectedPart((name,), content, expected)
    return tuple((name.lower(), content) for name, content in pairs)


def fits_header(content: str) -> bool:
    return content.isascii() and content.isprintable() and content == content.strip()


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise Unexpected
    if value.lower() in RESERVED_NAMES:
        raise Unexpected("means something else to us")
    return value


def _url(value: Any) -> str:
    """A web address without a trailing slash."""
    text = _text(value).rstrip("/")
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    if not good or not fits_header(text) or " " in text:
        raise Unexpected
    return text


def _base_url(value: Any) -> str:
    text = _url(value)
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Unexpected
    return text


def _proxy(value: Any) -> str:
    """A proxy's address; or "none", which stands for no proxy, whatever the environment says."""
    if isinstance(value, str) and value.lower().startswith("socks"):
        raise Unexpected("is SOCKS, and that is not supported")
    text = "none" if value == "none" else _url(value)
    if urlsplit(text).query or urlsplit(text).fragment or urlsplit(text).path not in ("none", ""):
        raise Unexpected
    return text


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise Unexpected
    if value.lower() in (*OF_THE_BODY, "host"):
        raise Unexpected("describes the body or the connection")
    return value.lower()


def _quirks(value: Any) -> dict[str, bool | tuple[str, ...]]:
    if not isinstance(value, dict):
        raise Unexpected
    for name in value:
        if name not in _QUIRKS:
            raise UnknownName(name, _QUIRKS)
    return {name: _part(_QUIRKS[name].accept, content, _QUIRKS[name].expected, name) for name, content in value.items()}


def _origins(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Unexpected
    for origin in value:
        if _base_url(origin) != origin or urlsplit(origin).path:
            raise Unexpected
    return tuple(value)


def _host(value: Any) -> str:
    text = _text(value)
    try:
        loopback = text == "localhost" or ipaddress.ip_address(text).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Unexpected("others can reach, and client keys, which it would need, are not in this version yet")
    return text


_QUIRK_PATTERNS = Key("a list of model names or patterns", _patterns)
_SWITCH = Key("true or false", _flag)
_QUIRKS: Mapping[str, Key] = {
    "new_limit": _QUIRK_PATTERNS,
    "effort": _QUIRK_PATTERNS,
    "unthinking_tools": _QUIRK_PATTERNS,
    "reasoning_back": _QUIRK_PATTERNS,
    "short_ids": _SWITCH,
    "stream_usage": _SWITCH,
    "user_after_tool": _SWITCH,
    "signed_thinking": _SWITCH,
}
_ADDRESS = Key("an http:// or https:// address with a host and without credentials", _base_url, address=True)
_PATH = Key("the path of a folder", _text)
SECTIONS: Mapping[str, Mapping[str, Key | Later]] = {
    "server": {
        "host": Key('"127.0.0.1", "::1" or "localhost"', _host),
        "port": _whole(0, 65535),  # 0: any free one
        "log": _one_of("text", "json"),
        "origins": Key('a list of web origins like "https://example.org", without path and without "*"', _origins),
        "tls_cert": Later(),
        "tls_key": Later(),
        "socket": Later(),
    },
    "local": {
        "model": Key("the name of a model of the catalog or the path of a .gguf file", _text),
        "context": _whole(256, auto_later=True),
        "slots": _whole(1, 256),
        "gpu_layers": _whole(0, or_auto=True),
        "threads": _whole(1, or_auto=True),
        "kv_type": _one_of("f16", "q8_0", "q4_0"),
        "mlock": _SWITCH,
        "queue": _whole(0),
        "overflow": _one_of("trim", "refuse"),
        "standby": _one_of("cold", "auto", "hot"),
        "unload_after": Key("a number of seconds, 0 or more (0: never)", _seconds_or_never),
        "embedding_model": Later(),
    },
    "upstream": {
        "name": Key("letters, digits, dots and dashes, and none of " + ", ".join(RESERVED_NAMES), _name),
        "preset": Key("the name of a preset", _text),
        "api": _one_of("openai", "anthropic", later=("responses", "ollama")),
        "base_url": _ADDRESS,
        "key": Key("env:NAME, file:PATH, client or the key itself", _text, secret=True),
        "key_header": Key("the name of a header", _header_name),
        "models": Key("a list of model names or patterns", _patterns),
        "aliases": Key("a table of model names or patterns to model names", _aliases),
        "prefill": _SWITCH,
        "context": _whole(256),
        "headers": Key("a table of header names to single-line ASCII values", _http_headers, secret=True),
        "quirks": Key(
            "a table of new_limit, effort, unthinking_tools, reasoning_back (lists), "
            "short_ids, stream_usage, user_after_tool, signed_thinking (switches)",
            _quirks,
        ),
        "proxy": Key('an http:// or https:// address with a host, or "none"', _proxy, address=True),
        "ca": Key("the path of a PEM file", _text),
        "status_page": Key(
            "an http:// or https:// address with a host and without credentials", _base_url, address=True
        ),
        "watch_whole": _SWITCH,
        "hedge": _SWITCH,
        "canary": Key("the name of a model", _text),
    },
    "timeouts": {
        "connect": _seconds(),
        "first_content": _seconds(or_auto=True),
        "stall": _seconds(or_auto=True),
        "total": _seconds(),
    },
    "breaker": {
        "failures": _whole(1),
        "cooldown": _seconds(),
        "probe_interval": _seconds(),
        "canary_interval": _seconds(),
    },
    "privacy": {"redact": Later(("off",)), "store_text": Later((False,))},
    "paths": {"state": _PATH, "cache": _PATH, "models": _PATH},
}
