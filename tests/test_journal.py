"""What the journal says, how loudly, and what it remembers."""

import logging

import pytest

from appliance.core.chat import Fault
from appliance.journal import REMEMBERED, Attempt, Counts, Journal

LEVELS = {
    Fault.CONFIG: logging.ERROR,
    Fault.REQUEST: logging.INFO,
    Fault.GONE: logging.INFO,
    Fault.UNREACHABLE: logging.WARNING,
    Fault.SERVER: logging.WARNING,
    Fault.BROKEN: logging.WARNING,
    Fault.SILENT: logging.WARNING,
    Fault.BUSY: logging.WARNING,
    Fault.TOO_LONG: logging.WARNING,
    Fault.CRASHED: logging.WARNING,
}


def attempt(fault=None, *, reason="", at=0.0, **changes):
    return Attempt(
        at=at,
        request_id="r1",
        leg="claude",
        fault=fault,
        reason=reason,
        characters=12,
        seconds=1.234,
        continued=False,
        **changes,
    )


def test_an_answer_that_reached_its_end_is_one_line_and_not_remembered(caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    journal = Journal()
    journal.record(attempt())
    assert caplog.record_tuples == [("appliance.journal", logging.INFO, "r1 claude answered 12 characters in 1.23 s")]
    assert journal.recent() == []


@pytest.mark.parametrize("fault", Fault)
def test_a_failure_is_said_as_loudly_as_somebody_must_act(fault, caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    journal = Journal()
    journal.record(attempt(fault, reason="It broke."))
    assert caplog.record_tuples == [
        (
            "appliance.journal",
            LEVELS[fault],
            f"r1 claude failed ({fault.value}) after 12 characters, 1.23 s: It broke.",
        )
    ]
    assert journal.recent() == [attempt(fault, reason="It broke.")]


def test_the_last_failures_come_newest_first_and_only_as_many_as_asked_for():
    journal = Journal()
    for at in range(30):
        journal.record(attempt(Fault.BROKEN, at=float(at)))
    assert [found.at for found in journal.recent(3)] == [29.0, 28.0, 27.0]
    assert len(journal.recent()) == 20
    assert journal.recent(0) == []


def test_the_memory_is_bounded():
    journal = Journal()
    for at in range(REMEMBERED + 5):
        journal.record(attempt(Fault.BROKEN, at=float(at)))
    assert [found.at for found in journal.recent(10_000)][-1] == 5.0
    assert len(journal.recent(10_000)) == REMEMBERED == 200


def test_a_new_journal_has_counted_nothing():
    assert Journal().counts == Counts(total=0, running=0, taken_over=0, fell_back=0, failed=0)


def test_a_seam_says_how_long_it_was_silent(caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    Journal().record(attempt(takeover=True, silence_s=0.0634))
    Journal().record(attempt(Fault.CRASHED, reason="It died.", takeover=True, silence_s=2.0))
    assert caplog.messages == [
        "r1 claude answered 12 characters in 1.23 s, gone on with after 0.063 s of silence",
        "r1 claude failed (crashed) after 12 characters, 1.23 s, gone on with after 2.000 s of silence: It died.",
    ]


def test_the_line_has_the_record_as_fields(caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    Journal().record(attempt(Fault.BROKEN, model="gpt-x", stream=True, first_content_s=0.12345, takeover=True))
    [record] = caplog.records
    fields = {
        "request_id": "r1",
        "upstream": "claude",
        "fault": "broken",
        "seconds": 1.234,
        "characters": 12,
        "model": "gpt-x",
        "stream": True,
        "first_content_s": 0.1235,
        "takeover": True,
    }
    assert {name: vars(record)[name] for name in fields} == fields
    assert "silence_s" not in vars(record)


def test_whoever_wants_to_hear_of_attempts_does():
    heard = []
    journal = Journal(heard.append)
    for one in (attempt(), attempt(Fault.GONE)):
        journal.record(one)
    assert heard == [attempt(), attempt(Fault.GONE)]
