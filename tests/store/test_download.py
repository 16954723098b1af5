"""What does an answer mean, and when is it enough?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from appliance.store.catalog import StoreError
from appliance.store.download import Flow, Partial, Patience, Stamina, _receive, begins, patiently
from appliance.store.hub import Content, Hub, Lost, hub_of, in_short

LINE = Stamina(waits=(1.0, 2.0, 4.0))
FILE = Content(url="http://hub/f", commit="c", mark="m", sha256=None, bytes=100)


def test_patience_ends_after_the_last_wait() -> None:
    patience, waits = Patience(), []
    for _ in range(4):
        patience = patience.lost(0)
        waits.append(patience.wait(LINE))
    assert waits == [1.0, 2.0, 4.0, None]


def test_a_new_byte_gives_all_patience_back_and_an_old_one_none() -> None:
    patience, waits = Patience(), []
    for at in (10, 10, 10, 11, 5, 11, 11):
        patience = patience.lost(at)
        waits.append(patience.wait(LINE))
    assert waits == [1.0, 2.0, 4.0, 1.0, 2.0, 4.0, None]


def test_a_minute_with_a_trickle_is_a_lost_try_and_a_slow_one_is_not() -> None:
    flow = Flow(since=0.0, start=0)
    for second in range(1, 181):
        flow = flow.heard(1000 * second, float(second), LINE)
    assert flow == Flow(since=180.0, start=180_000)
    for second in range(181, 240):
        flow = flow.heard(180_000 + second, float(second), LINE)
    with pytest.raises(Lost, match=r"hardly a byte came for a minute at 0\.2 MB"):
        flow.heard(239_999, 240.0, LINE)


@pytest.mark.parametrize(
    ("status", "headers", "at", "start"),
    [
        (200, {"content-length": "100"}, 0, 0),
        (200, {"content-length": "100"}, 40, 0),  # a server without ranges
        (200, {}, 0, 0),
        (206, {"content-range": "bytes 40-99/100"}, 40, 40),
        (206, {"content-range": "bytes 40-99/*"}, 40, 40),
    ],
)
def test_an_answer_begins_where_we_are_or_at_the_first_byte(
    status: int, headers: dict[str, str], at: int, start: int
) -> None:
    assert begins(status, headers, at, FILE) == start


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (206, {"content-range": "bytes 41-99/100"}, "did not go on where it was asked to"),
        (206, {}, "did not go on where it was asked to"),
        (206, {"content-range": "bytes 40-200/201"}, "promised 100 bytes and offers 201"),
        (200, {"content-length": "17"}, "promised 100 bytes and offers 17"),  # a login page
        (416, {}, "HTTP status 416"),
        (403, {}, "HTTP status 403"),
    ],
)
def test_any_other_answer_is_a_lost_try(status: int, headers: dict[str, str], why: str) -> None:
    with pytest.raises(Lost, match=why):
        begins(status, headers, 40, FILE)


def test_an_answer_that_never_ends_is_left_where_the_file_ends(tmp_path: Path) -> None:
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while asked < 1000:
            asked += 1
            yield b"x" * 33

    partial = Partial(tmp_path / "f.gguf")
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    with httpx.Client(transport=transport) as client, partial.open() as file:
        _receive(client, FILE, partial, file, {}, lambda _: None, LINE)
    assert (partial.at, partial.hash, asked) == (100, hashlib.sha256(b"x" * 100).hexdigest(), 4)


def test_tries_are_said_and_counted_and_the_last_one_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)

    def attempt() -> None:
        raise Lost("nobody answers")

    with pytest.raises(StoreError) as caught:
        patiently(attempt, LINE, said.append, failed='"x" was not downloaded', remedy="try again")
    assert str(caught.value) == '"x" was not downloaded: nobody answers; try again.'
    assert said == [f"Nobody answers; trying again in {wait} s ..." for wait in (1, 2, 4)]
    assert slept == [1.0, 2.0, 4.0]


def test_the_hub_is_the_one_that_the_environment_names() -> None:
    plain = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert hub_of(plain) == Hub(endpoint="https://huggingface.co", token=None, offline=False)
    assert hub_of({"HF_ENDPOINT": "http://mirror/", "HF_TOKEN": " hf_x\n"}) == Hub(
        endpoint="http://mirror", token="hf_x", offline=False
    )
    for value, offline in (("1", True), ("yes", True), ("0", False), ("", False)):
        assert hub_of({**plain, "HF_HUB_OFFLINE": value}).offline is offline


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://me:se@cret@mirror.example:8443/hub", "https://mirror.example:8443/hub"),
        ("https://mirror.example/@hub", "https://mirror.example/@hub"),
        ("me:secret@mirror.example", "mirror.example"),
    ],
)
def test_a_password_in_the_address_of_a_mirror_is_not_shown(endpoint: str, shown: str) -> None:
    assert Hub(endpoint=endpoint).shown == shown


def test_a_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(Hub(token="hf_secret"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), "its certificate is not trusted"),
        (OSError("[Errno -2] Name or service not known"), "its name is not found"),
        (OSError("[Errno -3] Temporary failure in name resolution"), "its name is not found"),
        (OSError("[Errno 111] Connection refused"), "it refuses connections"),
        (ValueError("https://cdn/?signature=secret"), "ValueError"),
    ],
)
def test_what_went_wrong_is_said_without_addresses(error: Exception, words: str) -> None:
    assert in_short(error) == words
