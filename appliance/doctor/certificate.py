"""What does a certificate that nobody vouches for say of itself?

Python shows only certificates that were verified, so the few fields that tell who is in between are read here from DER
(RFC 5280, 4.1). What cannot be read is left out: nothing is decided by it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from appliance.doctor.checks.tls import Certificate
from appliance.doctor.words import plain

_VERSION, _EXTENSIONS, _DNS, _SEQUENCE, _UTC_TIME = 0xA0, 0xA3, 0x82, 0x30, 0x17
_COMMON_NAME, _ORGANISATION, _ALT_NAMES = b"\x55\x04\x03", b"\x55\x04\x0a", b"\x55\x1d\x11"


def read(der: bytes) -> Certificate:
    """As much of it as can be read."""
    found: dict[str, object] = {}
    with contextlib.suppress(ValueError, IndexError, StopIteration):
        body = next(_parts(next(_parts(der))[1]))[1]
        fields = [part for part in _parts(body) if part[0] != _VERSION]
        _serial, _algorithm, issuer, lasting, subject, *rest = fields
        found["issuer"], found["subject"] = _who(issuer[1]), _who(subject[1])
        found["begins"], found["ends"] = (_moment(*part) for part in _parts(lasting[1]))
        found["names"] = tuple(_names(next((part[1] for part in rest if part[0] == _EXTENSIONS), b"")))
    return Certificate(**found)  # type: ignore[arg-type]


def _parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and content of each element. Raises `ValueError` or `IndexError` on what is none."""
    at = 0
    while at < len(content):
        tag, size = content[at], content[at + 1]
        at += 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(content[at : at + width], "big")
            at += width
        if at + size > len(content):
            raise ValueError("it ends inside an element")
        yield tag, content[at : at + size]
        at += size


def _who(name: bytes) -> str:
    """Its common name, else its organisation."""
    said: dict[bytes, str] = {}
    for _, part in _parts(name):
        for _, pair in _parts(part):
            (_, kind), (_, value) = _parts(pair)
            said[kind] = value.decode("utf-8", "replace")
    return plain(said.get(_COMMON_NAME) or said.get(_ORGANISATION))


def _moment(tag: int, content: bytes) -> datetime:
    """UTCTime has two digits of a year, of which 50 and more are of the last century."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _names(extensions: bytes) -> Iterator[str]:
    for _, listed in _parts(extensions):
        for _, extension in _parts(listed):
            (_, kind), *_, (_, value) = _parts(extension)
            if kind != _ALT_NAMES:
                continue
            for _, names in _parts(value):
                for tag, name in _parts(names):
                    if tag == _DNS:
                        yield plain(name.decode("ascii", "replace"))
