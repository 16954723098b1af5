"""Whatever is wrong with an answer, the judge of the campaign must see it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from campaign_clouds import Told
from campaign_judge import judge
from campaign_plan import plan
from campaign_words import Entry, mark, words

from appliance.drills.application import Heard
from appliance.drills.script import Call, Script

KEY = 7
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
MADE = replace(
    plan(1, KEY),
    api="openai",
    stream=True,
    kind="words",
    route="o",
    fault="cut-reset",
    second="healthy",
    script=Script(text=words("c", KEY, 9)),
    script_of_second=Script(text=words("c", KEY, 9)),
    schemas={},
    schema=None,
    hint=replace(plan(1, KEY).hint, words=3, calls=1, thinks=False, dies=-1),
    leaves=None,
    astray="",
    choices=1,
)
BEGUN = MADE.script.text[:33]
GOOD = BEGUN + mark("b", BEGUN) + words("b", KEY, 3)
TAKEOVER = b": appliance takeover o->local after=33 reason=broken\n\n"
HEARD = Heard(
    status=200,
    headers={"x-appliance-served-by": "o", "x-appliance-request-id": "x", "content-type": "text/event-stream"},
    body=TAKEOVER,
    text=GOOD,
    finishes=("stop",),
    ids=("x",),
    dones=1,
)
ENTRY = Entry(given=BEGUN, said=GOOD[len(BEGUN) :], calls_given=(), calls_said={})


def exchange(text="", arguments=None, *, body=b"", api="openai", messages=()):
    asked = SimpleNamespace(api=api, fields={"messages": list(messages)}, streams=True)
    return SimpleNamespace(text=text, thinking="", arguments=arguments or {}, asked=asked, body=body)


def told(made=MADE, *exchanges, entries=(ENTRY,)):
    return Told(made, exchanges=list(exchanges or [exchange(BEGUN)]), entries=list(entries))


def sorts(case, heard, **more):
    return {complaint.sort for complaint in judge(case, heard, **more).complaints}


def test_an_answer_in_which_every_character_stands_where_its_author_wrote_it_is_good():
    judgement = judge(told(), HEARD)
    assert (judgement.outcome, judgement.complaints) == ("continued", ())


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        (GOOD[:5] + GOOD[6:], "characters"),
        (GOOD[:5] + GOOD[4:], "characters"),
        (GOOD[:32] + GOOD[33:], "characters"),
        (GOOD[:33] + GOOD[32:], "characters"),
        (GOOD[:-9] + GOOD[-8:], "characters"),
        (GOOD.replace("b7.1", "b7.2"), "characters"),
        (BEGUN + words("b", KEY, 3), "characters"),
        (GOOD[:-1], "false end"),
        (BEGUN, "false end"),
        ("", "characters"),
    ],
)
def test_a_character_that_is_lost_repeated_or_another_is_seen(text, sort):
    assert sort in sorts(told(), replace(HEARD, text=text))


@pytest.mark.parametrize(
    ("changes", "sort"),
    [
        ({"finishes": ()}, "lost"),
        ({"finishes": ("stop", "stop")}, "false end"),
        ({"finishes": ("length",)}, "false end"),
        ({"dones": 0}, "false end"),
        ({"dones": 2}, "false end"),
        ({"ids": ("x", "y")}, "form"),
        ({"thinking": "c~7.0"}, "characters"),
        ({"errors": ("The cloud broke.",)}, "error"),
        ({"status": 0, "errors": ("no answer",)}, "lost"),
        ({"status": 503, "errors": ("busy",)}, "error"),
    ],
)
def test_an_end_too_few_or_too_many_and_an_error_for_nothing_are_seen(changes, sort):
    assert sort in sorts(told(), replace(HEARD, **changes))


def test_what_the_engine_was_given_must_be_what_the_client_had():
    assert "characters" in sorts(told(entries=[replace(ENTRY, given=BEGUN[:-1])]), HEARD)
    assert "false end" in sorts(told(entries=[replace(ENTRY, said=ENTRY.said + "!")]), HEARD)
    assert "characters" in sorts(told(entries=[replace(ENTRY, said=ENTRY.said[:-1])]), HEARD)


def test_nobody_but_the_cloud_answers_where_nothing_was_wrong():
    well = replace(MADE, fault="healthy")
    assert "fallback" in sorts(told(well), HEARD)


# ------------------------------------------------------------------------------------------------------ calls

CALLING = replace(
    MADE,
    kind="calls",
    script=Script(text="", calls=(Call(name="count", arguments='{"n" : 17}'),)),
    schemas={"count": SCHEMA},
)
HALF = '{"n" : 1'
HALF_CALL = Entry(given="", said="", calls_given=(HALF,), calls_said={0: "}"})
CALLED = replace(HEARD, text="", calls=(("count", HALF + "}"),), finishes=("tool_calls",))


def calling(entry=HALF_CALL, made=CALLING):
    return told(made, exchange("", {0: HALF}), entries=[entry])


def test_a_call_that_two_wrote_together_is_good():
    assert sorts(calling(), CALLED) == set()


@pytest.mark.parametrize(
    ("calls", "sort"),
    [
        ((("count", HALF),), "document"),
        ((("count", '{"n" : 1.5}'),), "document"),
        ((("count", '{"n": 1}'),), "characters"),
        ((("count", '{"n" : 11}'),), "characters"),
        ((("other", HALF + "}"),), "document"),
        ((), "lost"),
        ((("count", HALF + "}"), ("count", "{}")), "document"),
        ((("count", HALF + "}"), ("other", '{"n": 1}')), "document"),
    ],
)
def test_arguments_that_do_not_parse_or_fit_or_were_changed_are_seen(calls, sort):
    assert sort in sorts(calling(), replace(CALLED, calls=calls))


def test_calls_that_end_like_words_are_a_false_end():
    assert "false end" in sorts(calling(), replace(CALLED, finishes=("stop",)))


def test_the_real_engine_may_say_what_it_likes_behind_the_clouds_half():
    entry, made = HALF_CALL, CALLING
    assert sorts(calling(entry, made), replace(CALLED, calls=(("count", HALF + "05}"),)), real=True) == {"characters"}
    free = told(made, exchange("", {0: HALF}), entries=[])
    assert sorts(free, replace(CALLED, calls=(("count", HALF + "05}"),)), real=True) == set()
    assert "document" in sorts(free, replace(CALLED, calls=(("count", HALF + "0"),)), real=True)


def test_a_document_has_to_parse_and_to_fit():
    made = replace(MADE, kind="document", schema=SCHEMA)
    entry = Entry(given=HALF, said="}", calls_given=(), calls_said={})
    case = told(made, exchange(HALF), entries=[entry])
    assert sorts(case, replace(HEARD, text=HALF + "}")) == set()
    assert "document" in sorts(case, replace(HEARD, text=HALF))
    assert "document" in sorts(case, replace(HEARD, text=HALF + ".5}"))


# ------------------------------------------------------------------------------------------------------ errors

MISTAKE = b'{"error": {"message": "No.", "type": "invalid_request_error"}}'
MISTAKEN = replace(MADE, fault="bad-request")
REFUSED = Heard(status=400, headers={"x-appliance-served-by": "o"}, body=MISTAKE, errors=("No.",))


def test_the_callers_own_mistake_goes_back_as_it_is():
    case = told(MISTAKEN, exchange(body=MISTAKE), entries=[])
    judgement = judge(case, REFUSED)
    assert (judgement.outcome, judgement.complaints) == ("caller", ())
    assert "fallback" in sorts(case, replace(HEARD, body=b""))
    assert "form" in sorts(case, replace(REFUSED, body=MISTAKE + b" "))
    assert "form" in sorts(case, replace(REFUSED, body=b"No."))
    twice = told(MISTAKEN, exchange(body=MISTAKE), exchange(body=MISTAKE), entries=[])
    assert "fallback" in sorts(twice, REFUSED)


def event(data, name=""):
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


def test_an_error_where_nobody_can_go_on_is_right_in_the_clients_own_dialect():
    several = replace(MADE, choices=2)
    sentence = "o broke off. What was under way cannot be continued by another."
    said = {"error": {"message": sentence, "type": "server_error"}}
    heard = replace(HEARD, text=BEGUN, finishes=(), dones=0, errors=(sentence,), body=event(said))
    assert sorts(told(several, entries=[]), heard) == set()
    assert "error" in sorts(told(MADE, entries=[]), heard)
    assert "false end" in sorts(told(several, entries=[]), replace(heard, dones=1))
    assert "characters" in sorts(told(several, entries=[]), replace(heard, text=BEGUN[:-1]))
    assert "form" in sorts(told(several, entries=[]), replace(heard, body=event({"error": sentence})))
    assert "form" in sorts(told(several, entries=[]), replace(heard, api="anthropic"))


def test_two_deaths_of_the_engine_excuse_a_refusal_and_one_does_not():
    sentence = "The engine died 2 times under this request; it is not tried again."
    body = json.dumps({"error": {"message": sentence, "type": "server_error"}}).encode()
    heard = Heard(status=500, body=body, errors=(sentence,))
    silent = told(MADE, exchange(), entries=[])
    assert sorts(silent, heard, deaths=2) == set()
    assert sorts(silent, heard, deaths=1) == {"error"}
