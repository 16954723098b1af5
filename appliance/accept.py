"""Is this value what the key takes? The functions that accept or refuse it; which key takes what is in `settings`.

Rules of this file:

1. A function never sees the file, the environment or the disk; `config` does.
2. It gives the value in the form the program wants, or raises `Unexpected`.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    meaning: str = ""
    example: Any = None
    default: str = ""

    def means(self, meaning: str, example: Any, *, default: str = "") -> Key:
        """The same, with what its page says: what it is for, a value somebody could want, and the default in words if
        it is not simply a value."""
        return replace(self, meaning=" ".join(meaning.split()), example=example, default=default)


@dataclass(frozen=True, slots=True)
class Later:
    """A key of a later version, and the values (if any) that describe what this one does."""

    today: tuple[Any, ...] = ()


def one_of(*words: str, later: Sequence[str] = ()) -> Key:
    def accept(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise Unexpected("is not in this version yet" if isinstance(value, str) and value in later else "")

    return Key(" or ".join(json.dumps(word) for word in words), accept)


def whole(least: int, most: int | None = None, *, or_auto: bool = False, auto_later: bool = False) -> Key:
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


def seconds(*, or_auto: bool = False) -> Key:
    def accept(value: Any) -> float | str:
        if or_auto and value == "auto":
            return "auto"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise Unexpected
        return float(value)

    return Key("a number of seconds above 0" + (' or "auto"' if or_auto else ""), accept)


def seconds_or_never(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Unexpected
    return float(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unexpected
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unexpected
    return value


def texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise Unexpected
    return tuple(part(text, item, "a string that is not empty", at) for at, item in enumerate(value))


def part(accept: Callable[[Any], T], value: Any, expected: str, at: str | int) -> T:
    """What `accept` makes of the part `at` of a list or a table."""
    try:
        return accept(value)
    except UnexpectedPart as reason:
        raise UnexpectedPart((at, *reason.at), reason.value, reason.expected) from None
    except Unexpected:
        raise UnexpectedPart((at,), value, expected) from None


def patterns(value: Any) -> tuple[str, ...]:
    return () if value == [] else texts(value)


def pairs(value: Any, expected: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise Unexpected
    return tuple((text(name), part(text, target, expected, name)) for name, target in value.items())


def aliases(value: Any) -> tuple[tuple[str, str], ...]:
    return pairs(value, "the name of a model")


def http_headers(value: Any) -> tuple[tuple[str, str], ...]:
    expected = "a single line of ASCII"
    found = pairs(value, expected)
    for name, content in found:
        if not _HEADER_NAME.fullmatch(name):
            raise Unexpected
        if name.lower() in OF_THE_BODY:
            raise Unexpected(f"names {name.lower()}, and that describes the body or the connection")
        if not fits_header(content):
            raise UnexpectedPart((name,), content, expected)
    return tuple((name.lower(), content) for name, content in found)


def fits_header(content: str) -> bool:
    return content.isascii() and content.isprintable() and content == content.strip()


def name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise Unexpected
    if value.lower() in RESERVED_NAMES:
        raise Unexpected("means something else to us")
    return value


def url(value: Any) -> str:
    """A web address without a trailing slash."""
    address = text(value).rstrip("/")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    if not good or not fits_header(address) or " " in address:
        raise Unexpected
    return address


def base_url(value: Any) -> str:
    address = url(value)
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Unexpected
    return address


def proxy(value: Any) -> str:
    """A proxy's address; or "none", which stands for no proxy, whatever the environment says."""
    if isinstance(value, str) and value.lower().startswith("socks"):
        raise Unexpected("is SOCKS, and that is not supported")
    address = "none" if value == "none" else url(value)
    parts = urlsplit(address)
    if parts.query or parts.fragment or parts.path not in ("none", ""):
        raise Unexpected
    return address


def header_name(value: Any) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise Unexpected
    if value.lower() in (*OF_THE_BODY, "host"):
        raise Unexpected("describes the body or the connection")
    return value.lower()


def table(keys: Mapping[str, Key]) -> Callable[[Any], dict[str, Any]]:
    """A table of these keys, each of which may be missing."""

    def accept(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Unexpected
        for one in value:
            if one not in keys:
                raise UnknownName(one, keys)
        return {one: part(keys[one].accept, content, keys[one].expected, one) for one, content in value.items()}

    return accept


def origins(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Unexpected
    for origin in value:
        if base_url(origin) != origin or urlsplit(origin).path:
            raise Unexpected
    return tuple(value)


def host(value: Any) -> str:
    where = text(value)
    try:
        loopback = where == "localhost" or ipaddress.ip_address(where).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Unexpected("others can reach, and client keys, which it would need, are not in this version yet")
    return where
