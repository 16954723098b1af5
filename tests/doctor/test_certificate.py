"""What a certificate says of itself, read without trusting it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from appliance.doctor.certificate import read
from appliance.doctor.checks.tls import Certificate
from appliance.drills.certificate import Authority

DER = ssl.PEM_cert_to_DER_cert(Authority("Hotel Gateway").vouch("hotel.example", "www.hotel.example").pem)


def test_who_signed_it_for_whom_and_until_when() -> None:
    found = read(DER)
    assert (found.issuer, found.subject) == ("Hotel Gateway", "hotel.example")
    assert found.names == ("hotel.example", "www.hotel.example")
    assert found.begins is not None and found.ends is not None
    assert found.begins < datetime.now(UTC) < found.ends


def test_one_that_has_expired() -> None:
    found = read(ssl.PEM_cert_to_DER_cert(Authority().vouch("a.example", expired=True).pem))
    assert found.ends is not None and timedelta(days=300) < datetime.now(UTC) - found.ends < timedelta(days=400)


@pytest.mark.parametrize("end", [0, 1, 2, 10, 60, 120, 200, -1])
def test_half_of_one_is_read_as_far_as_it_goes_and_breaks_nothing(end: int) -> None:
    assert isinstance(read(DER[:end]), Certificate)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"<html>", b"\x30\x00", bytes(300)])
def test_what_is_none_says_nothing(der: bytes) -> None:
    assert read(der) == Certificate()


def test_a_flipped_bit_anywhere_breaks_nothing() -> None:
    for at in range(len(DER)):
        assert isinstance(read(DER[:at] + bytes([DER[at] ^ 0x41]) + DER[at + 1 :]), Certificate)
