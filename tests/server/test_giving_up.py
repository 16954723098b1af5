"""When nobody is left, and when the box itself fails: what the client hears, and when it hears from us at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from appliance.config import BreakerConfig
from appliance.core.fault import BackendError, Fault
from appliance.drills.cloud import Exchange
from appliance.drills.faults import FAULTS, HEALTHY
from appliance.server.respond import AnswerResponse
from tests.fakes import PATIENT, QUICK, Stage

pytestmark = pytest.mark.live

BUSY = BackendError(Fault.BUSY, "The box has no free slot.", status=503, retry_after=3.0)
DIED = BackendError(Fault.CRASHED, "The local model's engine died.", status=500)
BROKE = BackendError(Fault.SERVER, "The local model failed.", status=500)
KEEPALIVE = 0.05


@pytest.mark.parametrize("stream", [True, False])
def test_when_cloud_and_box_fail_before_the_first_word_the_status_says_so(box: Stage, stream: bool) -> None:
    box.play(FAULTS["server-error"].act)
    box.local.fails = [(0, BUSY)]
    heard = box.ask(stream=stream)
    assert heard.status == 503
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["x-appliance-fallback"] == "server"
    (error,) = heard.errors
    assert "no free slot" in error


@pytest.mark.parametrize("stream", [True, False])
def test_a_busy_box_says_when_to_come_back(box: Stage, stream: bool) -> None:
    box.play()
    box.local.fails = [(0, BUSY)]
    heard = box.ask(stream=stream)
    assert (heard.status, heard.headers["retry-after"]) == (503, "3")


def test_in_mid_answer_an_error_event_is_the_last_thing_and_no_end_is_pretended(box: Stage) -> None:
    box.play(FAULTS["cut-reset"].act)
    box.local.fails = [(2, BROKE)]
    heard = box.ask()
    assert heard.status == 200
    assert heard.text == box.cloud.exchanges[0].text + "".join(box.local.pieces[:2])
    assert (heard.finishes, heard.dones) == ((), 0)
    assert heard.errors == ("The local model failed.",)


def test_a_whole_answer_fails_as_a_whole(box: Stage) -> None:
    box.play()
    box.local.fails = [(2, BROKE)]
    heard = box.ask(stream=False)
    assert (heard.status, heard.text, heard.headers["x-should-retry"]) == (500, "", "false")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("pieces", [0, 2])
def test_when_the_engine_dies_the_answer_goes_on_after_its_restart(box: Stage, stream: bool, pieces: int) -> None:
    box.play()
    box.local.fails = [(pieces, DIED)]
    heard = box.ask(stream=stream)
    assert (heard.status, heard.errors, heard.finishes) == (200, (), ("stop",))
    first, second = box.local.asked
    assert first.committed is None
    if pieces:
        said = "".join(box.local.pieces[:pieces])
        assert heard.text == said + box.local.text
        assert second.committed is not None
        assert second.committed.text == said
    else:
        assert heard.text == box.local.text
        assert second.committed is None


def test_a_request_that_is_alive_at_two_deaths_of_the_engine_is_refused(box: Stage) -> None:
    box.play()
    box.local.fails = [(0, DIED), (0, DIED)]
    heard = box.ask()
    assert heard.status == 500
    assert "died 2 times" in heard.errors[0]
    assert len(box.local.asked) == 2


CROWD = 24


def test_many_answers_at_once_are_each_continued_from_their_own_words(box: Stage) -> None:
    count = 0
    crowded = asyncio.Event()  # half of twenty failures open the breaker: nobody fails before all have been let in

    async def each_its_own(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        mine = count
        if count == CROWD:
            crowded.set()
        await crowded.wait()
        await exchange.open()
        await exchange.role()
        for _ in range(1 + mine % 5):
            piece = f" {mine} caf\u00e9"
            await exchange.event(exchange.chunk({"content": piece}))
            exchange.text += piece
            await exchange.pause(0.01)
        await exchange.reset()

    async def crowd() -> list[str]:
        return [heard.text for heard in await asyncio.gather(*(box.asking() for _ in range(CROWD)))]

    box.play(each_its_own, breaker=BreakerConfig(failures=100))
    texts = box.call(crowd())
    assert len(box.cloud.exchanges) == CROWD
    assert sorted(texts) == sorted(exchange.text + box.local.text for exchange in box.cloud.exchanges)


# ---------------------------------------------------------------------------------------------- signs of life


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    assert AnswerResponse.__init__.__kwdefaults__["keepalive"] == 10.0
    monkeypatch.setitem(AnswerResponse.__init__.__kwdefaults__, "keepalive", KEEPALIVE)
    yield


def test_while_nothing_comes_the_client_gets_signs_of_life_and_then_its_answer(box: Stage, impatient: None) -> None:
    box.play(FAULTS["black-hole"].act, timeouts=QUICK)
    heard = box.ask()
    assert heard.body.startswith(b": keep-alive\n\n: keep-alive\n\n")
    assert (heard.text, heard.finishes, heard.dones, heard.errors) == (box.local.text, ("stop",), 1, ())


def test_after_signs_of_life_a_comment_says_who_answers_after_all(box: Stage, impatient: None) -> None:
    box.play(FAULTS["black-hole"].act, timeouts=QUICK)
    heard = box.ask()
    assert heard.headers["x-appliance-served-by"] == "cloud"
    assert heard.takeovers == ("cloud->local after=0 reason=silent",)


def test_signs_of_life_stand_between_events_and_never_in_one(box: Stage, impatient: None) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.open()
        await exchange.role()
        event = b"data: " + exchange.chunk({"content": "caf\u00e9"}) + b"\n\n"
        await exchange.put(event[:40])
        await exchange.pause(KEEPALIVE * 4)
        await exchange.put(event[40:])
        await exchange.pause(KEEPALIVE * 4)
        await exchange.finish()
        await exchange.end()

    box.play(slow)
    heard = box.ask()
    assert heard.body.count(b": keep-alive\n\n") >= 2
    rest = heard.body.replace(b": keep-alive\n\n", b"")
    assert rest == bytes(box.cloud.exchanges[0].sent) + b"data: [DONE]\n\n"


def test_after_signs_of_life_a_failure_is_an_error_event(box: Stage, impatient: None) -> None:
    box.play(FAULTS["black-hole"].act, timeouts=QUICK)
    box.local.fails = [(0, BROKE)]
    heard = box.ask()
    assert (heard.status, heard.finishes, heard.dones) == (200, (), 0)
    assert len(heard.errors) == 1


def test_a_whole_answer_has_no_signs_of_life_in_it(box: Stage, impatient: None) -> None:
    box.play(FAULTS["black-hole"].act, timeouts=QUICK)
    heard = box.ask(stream=False)
    assert (heard.status, heard.text) == (200, box.local.text)
    assert heard.body.startswith(b"{")


def test_no_sign_of_life_is_needed_while_words_come(box: Stage) -> None:
    box.play(HEALTHY.act, timeouts=PATIENT)
    assert b"keep-alive" not in box.ask().body


# --------------------------------------------------------------------------------------------- our own mistakes


def test_a_mistake_of_our_own_is_a_500_in_openais_shape(box: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box.appliance, "models", _mistaken)
    response = box.get("/v1/models")
    assert response.status_code == 500
    assert "blue elephant" not in response.text
    assert response.json()["error"]["type"] == "server_error"


def test_a_mistake_of_our_own_does_not_put_its_words_into_the_log(
    box: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(box.appliance, "models", _mistaken)
    box.get("/v1/models")
    assert "failed inside: RuntimeError" in caplog.text
    assert "blue elephant" not in caplog.text


def _mistaken() -> tuple[str, ...]:
    raise RuntimeError("the blue elephant")
