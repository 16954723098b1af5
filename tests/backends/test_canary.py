"""A canary: how its answer ends is counted as a user's is, and nothing of it is left behind."""

import asyncio
import json
import logging
import time

import pytest

from appliance.backends import canary
from appliance.backends.canary import ask
from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.core.canary import ROOM, Question
from appliance.core.events import Finish, Opened, ReasoningDelta, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.core.scopes import LATELY, Breakers
from appliance.dialects.known import DIALECTS
from appliance.drills.cloud import FailingCloud
from appliance.drills.faults import FAULTS, HEALTHY
from appliance.drills.script import Script

SUM = Question(text="What is 5 plus 7?", answers=("12", "twelve"))
END = Finish(reason="stop")


class Cloud:
    """Gives these events, raises what is an exception among them, and waits for ever at ``None``."""

    name = "claude"

    def __init__(self, *script):
        self.script = script
        self.requests = []
        self.closed = False

    async def stream(self, request, model):
        self.requests.append((request, model))
        try:
            for event in self.script:
                if event is None:
                    await asyncio.Event().wait()
                if isinstance(event, Exception):
                    raise event
                yield [event]
        finally:
            self.closed = True


class Ear(Breakers):
    """Breakers that keep how it ended."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.heard = []

    def succeed(self, leave, now):
        self.heard.append("succeed")
        super().succeed(leave, now)

    def fail(self, leave, now, error, *, jitter):
        self.heard.append(error.fault)
        super().fail(leave, now, error, jitter=jitter)

    def abandon(self, leave):
        self.heard.append("abandon")
        super().abandon(leave)


def asked(cloud, breakers=None, *, dialect="openai", model="haiku"):
    """How it went, and what the breakers heard."""
    breakers = breakers if breakers is not None else Ear()
    how = asyncio.run(ask(cloud, breakers, SUM, dialect=dialect, model=model, jitter=0.5))
    return how, breakers.heard


# ---------------------------------------------------------------------------------------------- how it ends


def test_a_good_answer_is_an_answer_that_reached_its_end():
    cloud = Cloud(Opened(headers=()), ReasoningDelta(text="Well."), TextDelta(text="1"), TextDelta(text="2."), END)
    assert asked(cloud) == ("ok", ["succeed"])
    assert cloud.requests == [(SUM.request(dialect="openai", model="haiku"), "haiku")]
    assert cloud.closed


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ([TextDelta(text="13"), END], Fault.QUALITY),
        ([END], Fault.QUALITY),
        ([TextDelta(text="12")], Fault.BROKEN),  # nobody meant this end
        ([BackendError(Fault.SERVER, "500", status=500)], Fault.SERVER),
        ([BackendError(Fault.BUSY, "429", status=429, retry_after=30.0)], Fault.BUSY),
        ([BackendError(Fault.CONFIG, "no key", status=401)], Fault.CONFIG),
        ([TextDelta(text="12"), BackendError(Fault.UNREACHABLE, "gone")], Fault.UNREACHABLE),
    ],
)
def test_anything_else_is_the_failure_that_it_is(script, fault):
    assert asked(Cloud(*script)) == (fault.value, [fault])


def test_what_thinking_says_is_no_answer():
    assert asked(Cloud(ReasoningDelta(text="12"), END)) == ("quality", [Fault.QUALITY])
    assert asked(Cloud(ReasoningDelta(text="Hm"), Finish(reason="length"))) == ("ok", ["succeed"])


def test_a_request_that_is_refused_as_such_tells_nothing():
    breakers = Breakers(failures=1)
    cloud = Cloud(BackendError(Fault.REQUEST, "max_tokens is too small", status=400))
    assert asyncio.run(ask(cloud, breakers, SUM, dialect="openai", model="haiku", jitter=0.5)) == "request"
    assert (breakers.failures, breakers.last) == (0, None)


def test_an_answer_that_does_not_come_is_silence_and_its_stream_is_closed(monkeypatch):
    monkeypatch.setattr(canary, "DEADLINE", 0.01)
    cloud = Cloud(TextDelta(text="1"), None)
    assert asked(cloud) == ("silent", [Fault.SILENT])
    assert cloud.closed


def test_what_goes_wrong_inside_is_told_and_counted_once(caplog):
    assert asked(Cloud(RuntimeError("boom"))) == ("broken", [Fault.BROKEN])
    assert "boom" in caplog.text


def test_bad_answers_in_a_row_open_the_model_and_not_the_upstream():
    breakers = Ear(failures=3)
    for _ in range(3):
        asked(Cloud(TextDelta(text="13"), END), breakers)
    now = time.monotonic()  # the loop's clock
    assert (breakers.state(now, "haiku"), breakers.state(now, "sonnet")) == ("open", "closed")
    assert breakers.last.message == "Asked something easy, claude gave a wrong answer."


# --------------------------------------------------------------------------------------------- leave, and use


def test_without_leave_nobody_is_asked():
    breakers, cloud = Ear(), Cloud()
    breakers.lose("route", 0.0)
    assert asked(cloud, breakers) == (None, [])
    assert cloud.requests == []


def test_an_upstream_is_not_in_use_because_it_has_a_canary():
    breakers = Ear()
    asked(Cloud(TextDelta(text="12"), END), breakers)
    assert breakers.asked_at is None
    breakers.asked_at = 1.0
    asked(Cloud(TextDelta(text="12"), END), breakers)
    assert breakers.asked_at == 1.0
    assert not breakers.in_use(1.0 + LATELY + 1)


def test_leave_is_given_back_when_everything_ends_in_the_middle():
    breakers, cloud = Ear(), Cloud(None)

    async def play():
        task = asyncio.create_task(ask(cloud, breakers, SUM, dialect="openai", model="haiku", jitter=0.5))
        while not cloud.requests:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(play())
    assert (breakers.heard, cloud.closed) == (["abandon"], True)


def test_it_is_logged_for_who_looks_closely_without_what_was_said(caplog):
    caplog.set_level(logging.INFO)
    asked(Cloud(TextDelta(text="quokka"), END))
    assert caplog.text == ""
    caplog.set_level(logging.DEBUG)
    asked(Cloud(TextDelta(text="quokka"), END))
    assert "canary: claude as haiku: Asked something easy, claude gave a wrong answer." in caplog.text
    assert "quokka" not in caplog.text
    assert SUM.text not in caplog.text


# ------------------------------------------------------------------------------------------ on real sockets


def lived(act, *, api, text="The answer is 12.", thinking="", breakers=None):
    """How a canary of a drill cloud went, what the breakers heard, and the request that came there."""
    breakers = breakers if breakers is not None else Ear()

    async def play():
        async with FailingCloud(act, script=Script(text=text, thinking=thinking), api=api) as cloud:
            backend = CloudBackend(CloudTarget(name="claude", base_url=cloud.base_url, key="sk"), DIALECTS[api])
            try:
                how = await ask(backend, breakers, SUM, dialect=api, model="haiku", jitter=0.5)
            finally:
                await backend.aclose()
            return how, breakers.heard, [json.loads(exchange.asked.body) for exchange in cloud.chats]

    return asyncio.run(play())


@pytest.mark.live
@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("thinking", ["", "Five and seven."])
def test_a_real_cloud_is_asked_in_its_own_words(api, thinking):
    how, heard, [body] = lived(HEALTHY.act, api=api, thinking=thinking)
    assert (how, heard) == ("ok", ["succeed"])
    assert (body["model"], body["max_tokens"], body.get("stream", False)) == ("haiku", ROOM, False)
    [said] = body["messages"]
    assert (said["role"], SUM.text in json.dumps(said["content"])) == ("user", True)


@pytest.mark.live
@pytest.mark.parametrize("api", DIALECTS)
def test_a_real_cloud_that_talks_past_the_question_is_noticed(api):
    assert lived(HEALTHY.act, api=api, text="It never missed a night.")[:2] == ("quality", [Fault.QUALITY])


@pytest.mark.live
@pytest.mark.parametrize("api", DIALECTS)
@pytest.mark.parametrize("name", ["server-error", "captive-portal", "wrong-key", "rate-limit", "cut-reset", "refused"])
def test_a_real_cloud_that_fails_is_the_failure_that_it_is(api, name):
    how, heard, _ = lived(FAULTS[name].act, api=api)
    assert (how, heard) == (FAULTS[name].reason_in(api).value, [FAULTS[name].reason_in(api)])
