"""What the journal keeps of requests over real sockets: the whole story, and no word of what was said in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.drills.cloud import Exchange
from appliance.drills.faults import FAULTS, HEALTHY, CloudFault
from appliance.drills.script import Script
from appliance.journal import Record
from appliance.ledger import Ledger, records
from appliance.server.body import NoRoom
from tests.fakes import PATIENT, QUICK, Stage

pytestmark = pytest.mark.live

OUTCOMES = {"cloud": "answered", "box": "fell back", "continued": "taken over", "caller": "refused"}


@pytest.fixture
def ledger(box: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    found = Ledger(tmp_path / "journal.sqlite3", together=0.001)
    monkeypatch.setattr(box.appliance.journal, "_keep", found.keep)
    yield found
    found.close()


def kept(box: Stage, ledger: Ledger, requests: int) -> list[Record]:
    """A record is made when the answer's events are closed, a moment after the client has its end."""
    box.until(lambda: ledger.standing.kept == requests)
    return list(records(ledger.path))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", [HEALTHY, *FAULTS.values()], ids=lambda fault: fault.name)
def test_a_request_is_one_record_that_adds_up(box: Stage, ledger: Ledger, fault: CloudFault, stream: bool) -> None:
    box.play(fault.act, timeouts=QUICK if fault.silent else PATIENT)
    heard = box.ask(stream=stream)
    [record] = kept(box, ledger, 1)
    expected = fault.outcome(stream=stream)
    assert record.outcome == OUTCOMES[expected]
    assert (record.dialect, record.stream) == ("openai", stream)
    assert record.request_id == heard.headers["x-appliance-request-id"]
    assert record.served_by == record.legs[-1].name == ("local" if expected in ("box", "continued") else "cloud")
    assert all(leg.model for leg in record.legs)
    assert (record.silence is not None) == (expected == "continued")
    if expected == "caller":
        assert [leg.reason for leg in record.legs] == [""]
    else:
        assert sum(record.characters.values()) == len(heard.text)
        assert all(leg.fault and leg.reason for leg in record.legs[:-1])
        assert record.legs[-1].fault is None


@pytest.mark.parametrize(("path", "dialect"), [("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic")])
def test_a_request_that_is_refused_before_anybody_is_asked_is_a_record_too(
    box: Stage, ledger: Ledger, path: str, dialect: str
) -> None:
    box.play(HEALTHY.act, models=("gpt-*",))
    said = [{"role": "user", "content": "zebra"}]
    bodies = [{"messages": 7}, {"model": "opus", "messages": said, "max_tokens": 5, "stream": True}]
    ids = [box.post(path, json=body).headers["x-appliance-request-id"] for body in bodies]
    found = kept(box, ledger, 2)
    assert [one.request_id for one in found] == ids
    assert [(one.model, one.stream) for one in found] == [("", False), ("opus", True)]
    for one in found:
        assert (one.outcome, one.served_by, one.legs, one.dialect) == ("refused", "nobody", (), dialect)
        assert 0.0 <= one.seconds < 10.0


def test_a_box_without_room_has_failed_the_request_and_not_its_caller(
    box: Stage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> bytes:
        raise NoRoom

    monkeypatch.setattr("appliance.server.routes.read_body", full)
    before = box.get("/appliance/status").json()["requests"]
    assert box.post("/v1/chat/completions", json={}).status_code == 503
    assert [(one.outcome, one.served_by) for one in kept(box, ledger, 1)] == [("failed", "nobody")]
    after = box.get("/appliance/status").json()["requests"]
    assert {name: after[name] - before[name] for name in ("total", "failed")} == {"total": 1, "failed": 1}


def test_a_cloud_that_cannot_repeat_what_another_said_is_not_blamed_for_it(box: Stage, ledger: Ledger) -> None:
    box.play(FAULTS["cut-reset"].act, HEALTHY.act)
    box.clouds[1].script = Script(text="It is quite another story that the second one tells.")
    box.ask()
    [record] = kept(box, ledger, 1)
    assert [(leg.name, leg.fault, leg.failed) for leg in record.legs] == [
        ("cloud", "broken", True),
        ("second", "broken", False),
        ("local", None, False),
    ]


def test_what_takes_long_by_its_nature_is_known_as_such(box: Stage, ledger: Ledger) -> None:
    box.play(HEALTHY.act)
    box.ask()
    box.ask(reasoning_effort="high")
    assert [record.legs[0].patient for record in kept(box, ledger, 2)] == [False, True]


def test_the_log_says_when_a_cloud_is_slow_to_begin_as_the_status_does(
    box: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    box.play(HEALTHY.act)
    box.ask()
    for _ in range(20):
        box.appliance.habits["cloud"].began(6.25, box.now())
    box.ask()
    box.until(lambda: "cloud is slow: the first word takes 6.2 s in the median" in caplog.messages)


def test_no_word_of_a_prompt_an_answer_or_a_key_is_in_the_file(box: Stage, ledger: Ledger) -> None:
    asked = [fault for fault in FAULTS.values() if not fault.silent]
    for fault in asked:
        box.play(fault.act, timeouts=PATIENT)
        box.ask(messages=[{"role": "user", "content": "zebra in the prompt"}], model="zebra of a model")
    assert len(kept(box, ledger, len(asked))) == len(asked)
    files = b"".join(path.read_bytes() for path in ledger.path.parent.glob("journal.sqlite3*"))
    assert b"cloud" in files
    for word in (b"zebra", b"sk-", box.local.text[:12].encode(), box.cloud.script.text[:12].encode()):
        assert word not in files


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_what_the_end_of_the_service_breaks_off_is_ours_and_no_client_that_left(
    box: Stage, ledger: Ledger, stream: bool
) -> None:
    async def silent(exchange: Exchange) -> None:
        box.appliance.break_off()
        await exchange.pause(30)

    box.play(silent)
    heard = box.ask(stream=stream)
    assert (heard.status, b"The appliance is stopping; ask again." in heard.body) == (503, True)
    [record] = kept(box, ledger, 1)
    assert (record.outcome, [(leg.name, leg.fault, leg.failed) for leg in record.legs]) == (
        "failed",
        [("cloud", "stopped", False)],
    )
