"""What the journal says, how loudly, and what it remembers."""

import logging
from dataclasses import replace

import pytest

from appliance.core.fault import Fault
from appliance.dialects.openai_chat import OPENAI
from appliance.journal import REMEMBERED, UNFINISHED, Answered, Asked, Attempt, Counts, Journal, Record, own_words

LEVELS = {
    Fault.CONFIG: logging.ERROR,
    Fault.REQUEST: logging.INFO,
    Fault.GONE: logging.INFO,
    Fault.STOPPED: logging.INFO,
    Fault.UNREACHABLE: logging.WARNING,
    Fault.SERVER: logging.WARNING,
    Fault.BROKEN: logging.WARNING,
    Fault.SILENT: logging.WARNING,
    Fault.BUSY: logging.WARNING,
    Fault.TOO_LONG: logging.WARNING,
    Fault.CRASHED: logging.WARNING,
    Fault.QUALITY: logging.WARNING,
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


def test_what_proves_nothing_against_the_leg_is_not_said_loudly(caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    Journal().record(attempt(Fault.BROKEN, blameless=True))
    assert [one.levelno for one in caplog.records] == [logging.INFO]


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


# ------------------------------------------------------------------------------------- one record per request


def answered(ending="answered", **changes):
    given = {"at": 100.0, "request_id": "r1", "served_by": "local", "seconds": 4.5, "dialect": "anthropic"}
    return Answered(ending=ending, **{**given, "stream": True, "model": "claude-x", **changes})


def test_a_request_is_one_record_of_its_legs_in_the_order_in_which_they_were_tried():
    kept = []
    journal = Journal(keep=kept.append)
    journal.record(
        attempt(
            Fault.SILENT, reason="It was silent.", at=103.0, model="claude-x", leg_model="claude-y", first_content_s=0.2
        )
    )
    assert kept == []
    local = Attempt(
        at=104.5,
        request_id="r1",
        leg="local",
        fault=None,
        reason="",
        characters=30,
        seconds=1.5,
        continued=True,
        takeover=True,
        silence_s=2.25,
        leg_model="starter",
    )
    journal.record(local)
    made = journal.finished(
        answered(taken_over=True, fallback="silent", degraded=("tools",), passed_over=("openai", "openai"))
    )
    assert (
        kept
        == [made]
        == [
            Record(
                at=100.0,
                request_id="r1",
                outcome="taken over",
                dialect="anthropic",
                stream=True,
                model="claude-x",
                served_by="local",
                seconds=4.5,
                degraded=("tools",),
                passed_over=("openai",),
                legs=(
                    Asked(
                        name="claude",
                        model="claude-y",
                        at=103.0,
                        fault="silent",
                        reason="It was silent.",
                        seconds=1.234,
                        first_content=0.2,
                        characters=12,
                        continued=False,
                        silence=None,
                    ),
                    Asked(
                        name="local",
                        model="starter",
                        at=104.5,
                        fault=None,
                        reason="",
                        seconds=1.5,
                        first_content=None,
                        characters=30,
                        continued=True,
                        silence=2.25,
                    ),
                ),
            )
        ]
    )


@pytest.mark.parametrize(
    ("ending", "changes", "outcome"),
    [
        ("answered", {}, "answered"),
        ("answered", {"fallback": "server"}, "fell back"),
        ("answered", {"fallback": "server", "taken_over": True}, "taken over"),
        ("answered", {"taken_over": True}, "taken over"),
        ("failed", {"fallback": "server", "taken_over": True}, "failed"),
        ("refused", {"fallback": "server"}, "refused"),
        ("left", {"taken_over": True}, "left"),
    ],
)
def test_every_request_has_one_outcome(ending, changes, outcome):
    assert Journal().finished(answered(ending, **changes)).outcome == outcome


def test_requests_at_the_same_time_keep_to_their_own_attempts():
    journal = Journal()
    for request in ("r1", "r2", "r1"):
        journal.record(Attempt(**{**ATTEMPT, "request_id": request, "characters": int(request[1])}))
    assert [leg.characters for leg in journal.finished(answered()).legs] == [1, 1]
    assert [leg.characters for leg in journal.finished(answered(request_id="r2")).legs] == [2]
    assert journal.finished(answered()).legs == ()


def test_requests_that_never_end_do_not_pile_up():
    journal = Journal()
    for request in range(UNFINISHED + 2):
        journal.record(Attempt(**{**ATTEMPT, "request_id": f"r{request}"}))
    assert [len(journal.finished(answered(request_id=f"r{n}")).legs) for n in (0, 1, 2, UNFINISHED + 1)] == [0, 0, 1, 1]


ATTEMPT = {
    "at": 0.0,
    "request_id": "r1",
    "leg": "claude",
    "fault": None,
    "reason": "",
    "characters": 12,
    "seconds": 1.0,
    "continued": False,
}


def given(*legs, ending="answered", stream=True):
    journal = Journal()
    for leg, characters, continued in legs:
        journal.record(Attempt(**{**ATTEMPT, "leg": leg, "characters": characters, "continued": continued}))
    return journal.finished(answered(ending, stream=stream)).characters


def test_characters_are_counted_for_whoever_the_client_has_them_from():
    assert given(("openai", 12, False), ("local", 30, True)) == {"openai": 12, "local": 30}
    assert given(("openai", 0, False), ("local", 30, False)) == {"local": 30}
    assert given(("local", 5, False), ("local", 6, True)) == {"local": 11}
    assert given(("openai", 12, False), ("n1n", 3, True), ending="failed") == {"openai": 12, "n1n": 3}
    assert given() == {}


def test_what_a_later_leg_began_anew_or_nobody_sent_is_no_part_of_the_answer():
    assert given(("openai", 12, False), ("local", 30, False)) == {"local": 30}
    assert given(("openai", 12, False), ending="failed", stream=False) == {}
    assert given(("openai", 12, False), ending="left", stream=False) == {}


def test_the_silence_of_an_answer_is_its_longest():
    journal = Journal()
    assert journal.finished(answered()).silence is None
    for silence in (0.5, None, 2.0, 0.1):
        journal.record(attempt(silence_s=silence))
    assert journal.finished(answered()).silence == 2.0


# ------------------------------------------------------------------------------------------ what may be kept


def kept_reason(fault, reason):
    journal = Journal()
    journal.record(attempt(fault, reason=reason))
    [leg] = journal.finished(answered()).legs
    return leg.reason


def test_a_clouds_own_words_are_not_kept():
    error = OPENAI.decode_error(
        401, (), b'{"error": {"message": "Incorrect key, dear Ada: tell me a secret", "type": "x"}}'
    )
    assert error.fault is Fault.CONFIG
    reason = kept_reason(error.fault, error.message)
    assert "Ada" not in reason
    assert reason.startswith("The cloud refuses us (401)")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("The cloud failed (529): overloaded_error.", "The cloud failed (529): overloaded_error."),
        ("No route\nto api.openai.com", "No route to api.openai.com"),
        ("openai's key sk-proj-abcdefghijkl is bad", "openai's key *** is bad"),
        ("It sent Bearer abc.def back", "It sent *** back"),
        ("It sent AKIA0123456789abcdefghijklmnop back", "It sent *** back"),
        (
            "It sent 'dear Ada' instead of \"JSON\", the cloud's fault",
            "It sent '...' instead of '...', the cloud's fault",
        ),
        ("half a pair \ud83d", "half a pair ?"),
        ("a" * 500, "a" * 200),
    ],
)
def test_a_reason_is_one_short_line_without_secrets_and_quotations(written, kept):
    assert kept_reason(Fault.SERVER, written) == kept == own_words(Fault.SERVER, written)


def test_a_callers_mistake_is_told_to_the_caller_only():
    assert kept_reason(Fault.REQUEST, "messages[0] is dear Ada") == ""
    assert kept_reason(Fault.SERVER, "It failed.") == "It failed."


@pytest.mark.parametrize(
    "name", ["", "gpt-4o-mini", "claude-sonnet-4-5-20250929", "org/model:free", "ft:gpt-4o:a::b", "tools[3].x"]
)
def test_a_name_is_kept(name):
    made = Journal().finished(answered(model=name, degraded=(name,)))
    assert (made.model, made.degraded) == (name, (name,))


@pytest.mark.parametrize("name", ["tell me a secret", "a\n", "é", "x" * 101, "a,b", "a'b"])
def test_whatever_else_stands_where_a_name_belongs_is_not_kept(name):
    journal = Journal()
    journal.record(attempt(leg_model=name))
    made = journal.finished(answered(model=name, degraded=(name, name)))
    assert (made.model, made.degraded, made.legs[0].model) == ("?", ("?",), "?")


def test_a_long_list_of_fields_is_cut():
    assert len(Journal().finished(answered(degraded=tuple(map(str, range(1000))))).degraded) == 16


# --------------------------------------------------------------------------------------------- slow, turned away


def heard(journal, *slow, **changes):
    """Streamed answers of somebody who then is usually so slow to begin, or not slow."""
    for usual in slow:
        one = attempt(stream=True, first_content_s=1.0, slow_s=usual)
        journal.record(replace(one, **changes))


def warnings(caplog):
    found = [
        (one.getMessage(), one.first_content_s if hasattr(one, "first_content_s") else None)
        for one in caplog.records
        if one.levelno == logging.WARNING
    ]
    caplog.clear()
    return found


def test_a_cloud_that_is_slow_to_begin_is_one_line_when_it_begins_and_one_when_it_ends(caplog):
    caplog.set_level(logging.INFO, logger="appliance.journal")
    journal = Journal()
    heard(journal, None, None)
    assert warnings(caplog) == []
    heard(journal, 6.25, 7.5, 4.5)
    assert warnings(caplog) == [("claude is slow: the first word takes 6.2 s in the median", 6.25)]
    heard(journal, None, None)
    assert warnings(caplog) == [("claude is no longer slow", None)]
    heard(journal, 7.0)
    assert warnings(caplog) == [("claude is slow: the first word takes 7.0 s in the median", 7.0)]


@pytest.mark.parametrize("changes", [{"stream": False}, {"leg": "local"}, {"first_content_s": None}])
def test_only_the_first_word_of_a_clouds_streamed_answer_changes_that(changes, caplog):
    journal = Journal()
    heard(journal, 30.0, **changes)
    assert warnings(caplog) == []
    heard(journal, 30.0)
    assert len(warnings(caplog)) == 1
    heard(journal, None, **changes)
    assert warnings(caplog) == []


def refusal(at=0.0, ending="refused"):
    return Answered(
        at=at,
        request_id=f"r{at}",
        ending=ending,
        served_by="nobody",
        seconds=0.01,
        dialect="openai",
        stream=False,
        model="",
    )


def test_a_request_that_was_turned_away_is_kept_and_counted():
    kept = []
    journal = Journal(keep=kept.append)
    journal.turned_away(refusal())
    journal.turned_away(refusal(1.0, "failed"))
    assert [(one.outcome, one.served_by, one.legs) for one in kept] == [
        ("refused", "nobody", ()),
        ("failed", "nobody", ()),
    ]
    assert journal.counts == Counts(total=2, failed=1)


@pytest.mark.parametrize("ending", ["refused", "failed"])
def test_of_a_flood_only_so_much_is_kept_and_the_rest_is_counted(ending):
    kept = []
    journal = Journal(keep=kept.append)
    for at in range(800):
        journal.turned_away(refusal(at / 8, ending))  # for 100 seconds
    assert [one.at for one in kept] == [*(at / 8 for at in range(60)), *(60 + at / 8 for at in range(60))]
    assert journal.counts == Counts(total=800, failed=800 if ending == "failed" else 0, unrecorded=680)


def test_a_flood_of_the_one_kind_leaves_room_for_the_other():
    kept = []
    journal = Journal(keep=kept.append)
    for at in range(100):
        journal.turned_away(refusal(at / 100))
    journal.turned_away(refusal(1.0, "failed"))
    assert [one.outcome for one in kept] == ["refused"] * 60 + ["failed"]
