"""Behind each door is what it says, and nobody who looks closely tells it a word."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from appliance.drills.certificate import Authority
from appliance.drills.doors import DOORS, HOST, Behind, impostor, no_answer, no_such_name

pytestmark = pytest.mark.live

SECRET = b"POST / HTTP/1.1\r\nauthorization: Bearer secret\r\n\r\n"


async def speak(behind: Behind, *, checks: bool = True) -> str:
    """A client's whole visit; gives why it left, or nothing."""
    where = urlsplit(behind.root)
    context = ssl.create_default_context(cafile=behind.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if not checks:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    writer.write(SECRET)
    await reader.read()
    writer.close()
    return ""


def visit(name: str, folder: Path, *, checks: bool = True) -> tuple[str, Behind]:
    async def play() -> tuple[str, Behind]:
        async with DOORS[name].open(folder) as behind, asyncio.timeout(10):
            return await speak(behind, checks=checks), behind

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tls-expired", "certificate has expired"),
        ("spoofed-name", f"IP address mismatch, certificate is not valid for '{HOST}'."),
        ("self-signed", "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_is_refused_for_the_one_thing_that_is_wrong_before_a_word_is_said(
    name: str, why: str, tmp_path: Path
) -> None:
    said, behind = visit(name, tmp_path)
    assert said == why
    assert (behind.knocks, behind.told) == (1, 0)


@pytest.mark.parametrize("name", ["tls-expired", "spoofed-name", "self-signed"])
def test_who_does_not_look_tells_the_impostor_everything_and_that_is_on_record(name: str, tmp_path: Path) -> None:
    said, behind = visit(name, tmp_path, checks=False)
    assert said == ""
    assert (behind.knocks, behind.told) == (1, len(SECRET))


@pytest.mark.parametrize("names", [(HOST,), ("localhost", HOST)])
def test_a_certificate_with_nothing_wrong_is_accepted(names: tuple[str, ...], tmp_path: Path) -> None:
    async def play() -> tuple[str, int]:
        async with impostor(*names)(tmp_path) as behind:
            return await speak(behind), behind.told

    assert asyncio.run(play()) == ("", len(SECRET))


def test_every_authority_and_every_certificate_is_another() -> None:
    one, other = Authority(), Authority()
    assert one.pem != other.pem
    made = [one.vouch(HOST) for _ in range(2)]
    assert made[0].pem != made[1].pem
    assert made[0].key_pem != made[1].key_pem


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    visit("tls-expired", tmp_path)
    assert [path.stat().st_mode & 0o077 for path in tmp_path.glob("own.pem")] == [0]


def test_a_door_with_a_full_queue_lets_nobody_in_and_refuses_nobody(tmp_path: Path) -> None:
    async def play() -> None:
        async with no_answer(tmp_path) as behind:
            where = urlsplit(behind.root)
            async with asyncio.timeout(0.5):
                await asyncio.open_connection(where.hostname, where.port)

    with pytest.raises(TimeoutError):
        asyncio.run(play())


def test_a_name_that_nobody_has_is_one_that_nobody_can_have(tmp_path: Path) -> None:
    async def play() -> str:
        async with no_such_name(tmp_path) as behind:
            return behind.root

    assert (urlsplit(asyncio.run(play())).hostname or "").endswith(".invalid")


def test_nothing_of_a_door_outlives_it(tmp_path: Path) -> None:
    async def play() -> int:
        for door in DOORS.values():
            async with door.open(tmp_path):
                await asyncio.sleep(0)
        return len(asyncio.all_tasks()) - 1

    assert asyncio.run(play()) == 0
