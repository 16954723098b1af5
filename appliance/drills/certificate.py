"""Certificates for a rehearsal: made when they are needed, by an authority that is forgotten right afterwards.

Rules of this file:

1. Nothing here protects anything. The keys live in the memory and the folder of one rehearsal, and nobody but the
   rehearsal's own configuration is ever told to trust the authority.
2. What is written is what X.509 (RFC 5280) asks for, so that a client that refuses does so for the one thing that is
   wrong, and a certificate with nothing wrong is accepted.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# The curve P-256 (FIPS 186-4, D.1.2.3): its field, a, the order of its group and the base point.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_A = _P - 3
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

_EC_KEY, _P256, _ECDSA = "1.2.840.10045.2.1", "1.2.840.10045.3.1.7", "1.2.840.10045.4.3.2"
_COMMON_NAME, _SERVER = "2.5.4.3", "1.3.6.1.5.5.7.3.1"
_SUBJECT_KEY, _KEY_USE, _NAMES, _BASIC, _ISSUER_KEY, _PURPOSE = (f"2.5.29.{n}" for n in (14, 15, 17, 19, 35, 37))
_SIGNS, _VOUCHES = b"\x07\x80", b"\x01\x06"  # what a key may do, as a bit string: its unused bits, its bits

YEAR = timedelta(days=365)

Point = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its key, as PEM."""

    pem: str
    key_pem: str


class Authority:
    """Somebody who vouches; trusted only by who was given `pem`."""

    def __init__(self, name: str = "appliance drill, not to be trusted") -> None:
        self._name = _name(name)
        self._key = secrets.randbelow(_N - 1) + 1
        self._id = _id(self._key)
        self.pem = _pem("CERTIFICATE", self._signed(self._name, self._key, _lasting(), _of_an_authority(self._id)))

    def vouch(self, *names: str, expired: bool = False) -> Certificate:
        """A server's certificate for these hosts."""
        key = secrets.randbelow(_N - 1) + 1
        until = _lasting(ended=expired)
        der = self._signed(_name(names[0]), key, until, _of_a_server(names, key, self._id))
        return Certificate(pem=_pem("CERTIFICATE", der), key_pem=_key_pem(key))

    def _signed(self, subject: bytes, key: int, lasting: bytes, extensions: bytes) -> bytes:
        algorithm = _sequence(_oid(_ECDSA))
        public = _sequence(_sequence(_oid(_EC_KEY), _oid(_P256)), _bits(b"\0" + _public(key)))
        serial = _integer(secrets.randbits(120) | 1)
        body = _sequence(
            _tagged(0xA0, _integer(2)), serial, algorithm, self._name, lasting, subject, public, extensions
        )
        return _sequence(body, algorithm, _bits(b"\0" + _signature(self._key, body)))


# --------------------------------------------------------------------------------------------- what is said


def _lasting(*, ended: bool = False) -> bytes:
    now = datetime.now(UTC)
    begin, end = (now - 2 * YEAR, now - YEAR) if ended else (now - YEAR, now + YEAR)
    return _sequence(*(_tagged(0x17, moment.strftime("%y%m%d%H%M%SZ").encode()) for moment in (begin, end)))


def _of_an_authority(id: bytes) -> bytes:
    return _extensions(
        (_BASIC, True, _sequence(_tagged(0x01, b"\xff"))),
        (_KEY_USE, True, _bits(_VOUCHES)),
        (_SUBJECT_KEY, False, _octets(id)),
    )


def _of_a_server(names: tuple[str, ...], key: int, issuer: bytes) -> bytes:
    return _extensions(
        (_BASIC, True, _sequence()),
        (_KEY_USE, True, _bits(_SIGNS)),
        (_PURPOSE, False, _sequence(_oid(_SERVER))),
        (_NAMES, False, _sequence(*map(_host, names))),
        (_SUBJECT_KEY, False, _octets(_id(key))),
        (_ISSUER_KEY, False, _sequence(_tagged(0x80, issuer))),
    )


def _extensions(*rows: tuple[str, bool, bytes]) -> bytes:
    said = (
        _sequence(_oid(name), _tagged(0x01, b"\xff") if critical else b"", _octets(value))
        for name, critical, value in rows
    )
    return _tagged(0xA3, _sequence(*said))


def _host(name: str) -> bytes:
    try:
        return _tagged(0x87, ipaddress.ip_address(name).packed)
    except ValueError:
        return _tagged(0x82, name.encode("ascii"))


def _name(common: str) -> bytes:
    return _sequence(_tagged(0x31, _sequence(_oid(_COMMON_NAME), _tagged(0x0C, common.encode()))))


# ------------------------------------------------------------------------------------------------- the curve


def _add(one: Point | None, other: Point | None) -> Point | None:
    """Their sum; ``None`` is the point at infinity."""
    if one is None or other is None:
        return other if one is None else one
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = (3 * one[0] * one[0] + _A) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _times(number: int) -> Point:
    """So many times the base point."""
    found: Point | None = None
    power: Point | None = _G
    while number:
        if number & 1:
            found = _add(found, power)
        power = _add(power, power)
        number >>= 1
    assert found is not None
    return found


def _public(key: int) -> bytes:
    x, y = _times(key)
    return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def _id(key: int) -> bytes:
    return hashlib.sha256(_public(key)).digest()[:20]


def _signature(key: int, message: bytes) -> bytes:
    """ECDSA with SHA-256 (FIPS 186-4, 6.4)."""
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        once = secrets.randbelow(_N - 1) + 1
        r = _times(once)[0] % _N
        s = pow(once, -1, _N) * (digest + r * key) % _N
        if r and s:
            return _sequence(_integer(r), _integer(s))


# ---------------------------------------------------------------------------------------------- DER and PEM


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _integer(number: int) -> bytes:
    return _tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _tagged(0x03, content)


def _octets(content: bytes) -> bytes:
    return _tagged(0x04, content)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    found = bytearray((40 * first + second,))
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        found += bytes(reversed(groups))
    return _tagged(0x06, bytes(found))


def _key_pem(key: int) -> str:
    parts = (_integer(1), _tagged(0x04, key.to_bytes(32, "big")), _tagged(0xA0, _oid(_P256)))
    return _pem("EC PRIVATE KEY", _sequence(*parts, _tagged(0xA1, _bits(b"\0" + _public(key)))))


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
