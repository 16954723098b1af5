"""The judge of a rehearsal lets nothing pass that an application would mind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from appliance.drills.application import Heard
from appliance.drills.cloud import Asked, Exchange, Script
from appliance.drills.faults import FAULTS, FLAWS, HEALTHY
from appliance.drills.verdict import Standing, judge, judge_refusal, judge_standing, said_by

ID = {"x-appliance-request-id": "r"}
CONTINUED = Heard(
    status=200,
    headers={**ID, "x-appliance-served-by": "cloud"},
    text="The keeper and the box",
    finishes=("stop",),
    ids=("chatcmpl-1",),
    takeovers=("cloud->local after=10 reason=broken",),
    dones=1,
)
BOX = Heard(
    status=200,
    headers={**ID, "x-appliance-served-by": "local", "x-appliance-fallback": "server"},
    text="The box",
    finishes=("stop",),
    ids=("chatcmpl-1",),
    dones=1,
)
CLOUD = replace(BOX, headers={**ID, "x-appliance-served-by": "cloud"}, text="The keeper")
OWN = Heard(status=400, headers=ID, body=b'{"error": {}}', errors=("no",))


def exchange(
    text: str = "The keeper", sent: bytes = b"", *, path: str = "/v1/chat/completions", goes_on: bool = False
) -> Exchange:
    body = b'{"messages":[{"role":"user"},{"role":"assistant"}]}' if goes_on else b'{"messages":[{"role":"user"}]}'
    found = Exchange(
        Asked(method="POST", path=path, headers=(), body=body),
        Script(),
        asyncio.StreamReader.__new__(asyncio.StreamReader),
        asyncio.StreamWriter.__new__(_Nowhere),
    )
    found.text = text
    found.sent += sent
    return found


class _Nowhere(asyncio.StreamWriter):
    """A writer that was never opened, and so has nothing to close."""

    def __init__(self) -> None:
        pass

    def __del__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "heard", "said"),
    [("cut-reset", CONTINUED, "The keeper"), ("server-error", BOX, ""), ("healthy", CLOUD, "The keeper")],
)
def test_what_is_right_is_without_complaint(name: str, heard: Heard, said: str) -> None:
    fault = {**FAULTS, "healthy": HEALTHY}[name]
    assert judge(fault, heard, [exchange(said)], stream=True) == ()


def test_the_callers_own_mistake_is_without_complaint_if_it_is_the_clouds_own_words() -> None:
    assert judge(FAULTS["bad-request"], OWN, [exchange("", b'{"error": {}}')], stream=True) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": 500}, "the status is 500"),
        ({"status": 0}, "there was no answer"),
        ({"errors": ("the connection broke: ReadError",)}, "the connection broke: ReadError"),
        ({"finishes": ()}, "the answer ended 0 times"),
        ({"finishes": ("stop", "stop")}, "the answer ended 2 times"),
        ({"dones": 0}, "[DONE] came 0 times"),
        ({"dones": 2}, "[DONE] came 2 times"),
        ({"ids": ("a", "b")}, "the answer changed its id"),
        ({"headers": {"x-appliance-served-by": "cloud"}}, "the answer has no x-appliance-request-id"),
        (
            {"text": "The keep and the box"},
            "of the cloud's 10 characters only the first 8 arrived as they were",
        ),
        ({"text": "The keep"}, "of the cloud's 10 characters only the first 8 arrived as they were"),
        ({"takeovers": ()}, "the takeover is announced as ''"),
        (
            {"takeovers": ("cloud->local after=9 reason=broken",)},
            "the takeover is announced as 'cloud->local after=9 reason=broken'",
        ),
    ],
)
def test_what_is_wrong_with_a_continued_answer_is_said(change: dict[str, Any], complaint: str) -> None:
    heard = replace(CONTINUED, **change)
    assert complaint in judge(FAULTS["cut-reset"], heard, [exchange()], stream=True)


def test_a_cloud_that_said_nothing_has_not_begun_anything() -> None:
    assert "the cloud had said nothing" in judge(FAULTS["cut-reset"], CONTINUED, [exchange("")], stream=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"headers": {**ID, "x-appliance-served-by": "cloud", "x-appliance-fallback": "server"}}, "served by cloud"),
        ({"headers": {**ID, "x-appliance-served-by": "local"}}, "the reason is None instead of server"),
        ({"text": ""}, "the answer is empty"),
    ],
)
def test_what_is_wrong_with_an_answer_of_the_box_is_said(change: dict[str, Any], complaint: str) -> None:
    assert judge(FAULTS["server-error"], replace(BOX, **change), [exchange("")], stream=True) == (complaint,)


@pytest.mark.parametrize(
    "change", [{"text": "The keeper."}, {"headers": BOX.headers}, {"headers": {**ID, "x-appliance-served-by": "local"}}]
)
def test_what_is_wrong_with_an_answer_of_the_cloud_is_said(change: dict[str, Any]) -> None:
    complaints = judge(HEALTHY, replace(CLOUD, **change), [exchange()], stream=True)
    assert complaints == ("it is not the cloud's answer",)


@pytest.mark.parametrize(
    ("change", "count", "complaint"),
    [
        ({"body": b'{"error":{}}'}, 1, "the cloud's words were changed on the way"),
        ({"status": 500}, 1, "the status is 500"),
        ({"headers": {**ID, "x-appliance-fallback": "server"}}, 1, "somebody else was asked"),
        ({}, 2, "2 clouds were asked instead of one"),
        ({}, 0, "0 clouds were asked instead of one"),
    ],
)
def test_what_is_wrong_with_the_callers_own_mistake_is_said(change: dict[str, Any], count: int, complaint: str) -> None:
    exchanges = [exchange("", b'{"error": {}}') for _ in range(count)]
    assert judge(FAULTS["bad-request"], replace(OWN, **change), exchanges, stream=True) == (complaint,)


def test_a_whole_answer_needs_no_done() -> None:
    assert (
        judge(
            FAULTS["cut-reset"],
            replace(BOX, headers={**BOX.headers, "x-appliance-fallback": "broken"}, dones=0),
            [exchange("")],
            stream=False,
        )
        == ()
    )


def test_in_the_other_wire_the_last_word_has_another_name() -> None:
    heard = replace(CONTINUED, api="anthropic", dones=0)
    assert judge(FAULTS["cut-reset"], heard, [exchange(path="/v1/messages")], stream=True) == (
        "message_stop came 0 times",
    )


def test_a_reason_is_the_one_of_the_wire_in_which_the_cloud_failed() -> None:
    heard = replace(CONTINUED, takeovers=("cloud->local after=10 reason=busy",))
    assert judge(FAULTS["error-event"], heard, [exchange(path="/v1/messages")], stream=True) == ()
    assert judge(FAULTS["error-event"], heard, [exchange()], stream=True) == (
        "the takeover is announced as 'cloud->local after=10 reason=busy'",
    )
    both = [exchange("The "), exchange("keeper", path="/v1/messages", goes_on=True)]
    assert judge(FAULTS["error-event"], heard, both, stream=True) == ()
    whole = replace(BOX, headers={**BOX.headers, "x-appliance-fallback": "server"}, dones=0)
    assert judge(FAULTS["error-event"], whole, [exchange(""), exchange("", path="/v1/messages")], stream=False) == (
        "the reason is server instead of broken or busy",
    )


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (exchange("keeper", goes_on=True), "The keeper"),
        (exchange("The ", goes_on=True), "The The "),  # it was asked to, whatever it made of it
        (exchange("The keeper"), "The keeper"),  # asked from the start, it says the same again and more
        (exchange("The "), "The "),
        (exchange("Th"), "The "),
        (exchange("A keeper"), "The "),
        (exchange(""), "The "),
    ],
)
def test_what_two_clouds_said_together(second: Exchange, said: str) -> None:
    assert said_by([exchange("The "), second]) == said
    assert said_by([exchange(""), exchange("The "), second]) == said


def test_the_callers_own_mistake_is_told_in_the_callers_words_where_the_cloud_has_others() -> None:
    theirs = [exchange("", b"something else", path="/v1/messages")]
    assert judge(FAULTS["bad-request"], OWN, theirs, stream=True) == ()
    silent = replace(OWN, errors=())
    assert judge(FAULTS["bad-request"], silent, theirs, stream=True) == ("the caller was not told what is wrong",)


# ------------------------------------------------------------------------------------------------- the breakers

UNTOUCHED = Standing(cloud="cloud")
COUNTED = Standing(cloud="cloud", failures=1)
OPEN = Standing(cloud="cloud", state="open", reopens_in=899.6)
OFFLINE = Standing(cloud="cloud", state="offline")


def test_what_a_breaker_did_is_one_word() -> None:
    assert [str(one) for one in (UNTOUCHED, COUNTED, OPEN, OFFLINE)] == ["-", "counted", "open 900 s", "offline"]


@pytest.mark.parametrize(
    ("name", "right", "wrong", "complaint"),
    [
        ("bad-request", UNTOUCHED, COUNTED, "the breaker of cloud counted it"),
        ("too-long", UNTOUCHED, COUNTED, "the breaker of cloud counted it"),
        ("no-done", UNTOUCHED, OPEN, "the breaker of cloud counted it"),
        ("repetition", COUNTED, UNTOUCHED, "no breaker counted it"),
        ("cut-reset", COUNTED, UNTOUCHED, "no breaker counted it"),
        ("server-error", OFFLINE, UNTOUCHED, "no breaker counted it"),
        ("rate-limit", OPEN, UNTOUCHED, "no breaker counted it"),
        ("wrong-key", OPEN, UNTOUCHED, "no breaker counted it"),
        ("wrong-key", OPEN, COUNTED, "no breaker opened at once"),
    ],
)
def test_breakers_count_what_they_should_and_nothing_else(
    name: str, right: Standing, wrong: Standing, complaint: str
) -> None:
    fault = {**FAULTS, **FLAWS}[name]
    others = Standing(cloud="nobody asked")
    assert judge_standing(fault, [others, right], stream=True, private=False) == ()
    assert judge_standing(fault, [others, wrong], stream=True, private=False) == (complaint,)


@pytest.mark.parametrize(("name", "holds"), [("quota", True), ("rate-limit", True), ("server-error", False)])
def test_a_callers_own_money_need_not_be_counted(name: str, holds: bool) -> None:
    assert (judge_standing(FAULTS[name], [UNTOUCHED], stream=True, private=True) == ()) is holds


# ------------------------------------------------------------------------------------------------- refusals

BODIES = {
    "openai": b'{"error":{"type":"service_unavailable_error","message":"Later.","param":null,"code":null}}',
    "anthropic": b'{"type":"error","error":{"type":"overloaded_error","message":"Later."}}',
}


@pytest.mark.parametrize(("api", "status"), [("openai", 503), ("openai", 429), ("anthropic", 529), ("anthropic", 503)])
def test_whoever_is_told_when_to_come_back_in_his_own_words_has_no_complaint(api: str, status: int) -> None:
    heard = Heard(status=status, api=api, headers={"retry-after": "1"}, body=BODIES[api], errors=("Later.",))
    assert judge_refusal(heard, api=api) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": 500}, "the status is 500"),
        ({"status": 0, "errors": ("no answer: ReadError",)}, "no answer: ReadError"),
        ({"headers": {}}, "503 without Retry-After"),
        ({"headers": {"retry-after": "soon"}}, "503 without Retry-After"),
        ({"body": b"Service Unavailable"}, "503 not in the words of openai"),
        ({"body": b'{"error": "Later."}'}, "503 not in the words of openai"),
        ({"body": BODIES["anthropic"]}, "503 not in the words of openai"),
    ],
)
def test_what_is_wrong_with_a_refusal_is_said(change: dict[str, Any], complaint: str) -> None:
    heard = Heard(status=503, headers={"retry-after": "1"}, body=BODIES["openai"], errors=("Later.",))
    assert judge_refusal(replace(heard, **change), api="openai") == (complaint,)
