"""Whatever clients, clouds, keys and mistakes say: none of it comes out in the log or at /metrics."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance import logs
from appliance.core.chat import ChatRequest
from appliance.core.events import Event, TextDelta
from appliance.core.fault import BackendError, Fault
from appliance.drills.cloud import Exchange, Script
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import Stage
from tests.test_logs import untouched

pytestmark = pytest.mark.live
__all__ = ["untouched"]  # a fixture

MARKER = "MARKER-c0ffee"
MARKED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": f"You are {MARKER}."},
        {"role": "user", "content": f"Say {MARKER}."},
    ],
    "user": MARKER,
    "metadata": {"who": MARKER},
}
HEADERS = {"authorization": f"Bearer {MARKER}", "x-api-key": MARKER}
STORY = Script(text=f"Once there was {MARKER}, and then again {MARKER}, and so on to the end.", after=4)


async def _echoes_a_refusal(exchange: Exchange) -> None:
    await exchange.refuse(400, type="invalid_request_error", code=None, message=f"We do not like {MARKER}.")


async def _echoes_an_error(exchange: Exchange) -> None:
    await exchange.refuse(500, type=MARKER, code=MARKER, message=f"Something about {MARKER} went wrong.")


async def _echoes_nonsense(exchange: Exchange) -> None:
    await exchange.reply(200, MARKER.encode())


@pytest.fixture(params=["text", "json"])
def out(request: pytest.FixtureRequest, untouched: None) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.set_up(request.param, stream=stream, environ={})
    yield stream


def said(box: Stage, out: io.StringIO) -> str:
    """Everything the box said about it all."""
    page = box.get("/metrics")
    assert page.status_code == 200
    assert list(text_string_to_metric_families(page.text))
    return out.getvalue() + page.text


ACTS = {
    "healthy": HEALTHY.act,
    "cut off": FAULTS["cut-reset"].act,
    "server error": FAULTS["server-error"].act,
    "echoes a refusal": _echoes_a_refusal,
    "echoes an error": _echoes_an_error,
    "echoes nonsense": _echoes_nonsense,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("stream", [True, False])
def test_nobodys_words_come_out(box: Stage, out: io.StringIO, act: str, stream: bool) -> None:
    box.local.pieces = (f" and {MARKER}", f" more {MARKER}")
    box.play(ACTS[act], script=STORY, key=MARKER, headers=(("x-secret", MARKER),))
    heard = box.ask(stream=stream, headers=HEADERS, **MARKED)
    assert MARKER in heard.body.decode() + heard.text  # or there would be nothing to find
    box.until(lambda: "chatcmpl-" in out.getvalue())
    assert MARKER not in said(box, out)


def _raises(error: Callable[[], Exception]) -> Callable[..., AsyncGenerator[Sequence[Event], None]]:
    async def stream(request: ChatRequest, model: str) -> AsyncGenerator[Sequence[Event], None]:
        yield [TextDelta(text=f"Well, {MARKER}")]
        raise error()

    return stream


@pytest.mark.parametrize("error", [lambda: KeyError(MARKER), lambda: ValueError(MARKER, {MARKER: MARKER})])
def test_a_mistake_of_ours_says_its_type_only(
    box: Stage, out: io.StringIO, error: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box.local, "stream", _raises(error))
    box.play()
    box.ask(**MARKED)
    box.until(lambda: "failed inside" in out.getvalue())
    assert MARKER not in said(box, out)


@pytest.mark.parametrize("body", [f'{{"model": "{MARKER}"', f'{{"model": "gpt", "messages": "{MARKER}"}}', MARKER])
def test_a_body_that_is_none_is_not_repeated(box: Stage, out: io.StringIO, body: str) -> None:
    box.play(HEALTHY.act)
    answer = box.post("/v1/chat/completions", content=body, headers={"content-type": "application/json", **HEADERS})
    assert answer.status_code == 400
    box.get(f"/v1/{MARKER}?key={MARKER}")
    assert MARKER not in said(box, out)


def test_the_page_counts_what_happened(box: Stage) -> None:
    def numbers() -> dict[tuple[str, tuple[str, ...]], float]:
        page = box.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert page.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        page = box.get("/metrics")
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return {
            (sample.name, tuple(sorted(sample.labels.values()))): sample.value
            for family in text_string_to_metric_families(page.text)
            for sample in family.samples
        }

    box.play(FAULTS["error-event"].act, HEALTHY.act)
    before = numbers()
    assert box.ask().text
    box.local.fails = [(0, BackendError(Fault.SERVER, "No."))]
    box.play()
    box.ask()
    after = numbers()

    def more(name: str, *labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0.0)

    assert more("appliance_requests_total", "answered") == 1
    assert more("appliance_requests_total", "failed") == 1
    assert more("appliance_attempts_total", "broken", "cloud") == 1
    assert more("appliance_attempts_total", "none", "second") == 1
    assert more("appliance_attempts_total", "local", "server") == 1
    assert more("appliance_takeovers_total", "broken", "cloud", "second") == 1
    assert more("appliance_takeover_silence_seconds_count") == 1
    assert more("appliance_first_content_seconds_count", "cloud") == 1
    assert more("appliance_first_content_seconds_count", "second") == 1
    assert more("appliance_between_events_seconds_count", "second") > 0
    assert before["appliance_breaker_state", ("closed", "cloud")] == 1
