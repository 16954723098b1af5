"""Every way in which a cloud fails, over real sockets: streamed and whole, for each dialect of the client and of the
cloud. Nobody in front of the box notices, and every character is accounted for.

Rules of this file:

1. Whatever is in `FAULTS` and `FLAWS` is tried here, so a new row is covered by being there.
2. The verdict's rules are tested elsewhere; here the same promises are made in other words, character by character.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from appliance.config import TimeoutConfig
from appliance.core import again
from appliance.drills.cloud import Exchange
from appliance.drills.faults import FAULTS, FLAWS, HEALTHY, CloudFault
from appliance.drills.verdict import judge
from tests.fakes import PATIENT, Stage

pytestmark = pytest.mark.live

DIALECTS = ("openai", "anthropic")
ENDS = {"openai": "stop", "anthropic": "end_turn"}
HASTY = TimeoutConfig(connect=2.0, first_content=0.3, stall=0.3, total=0.5)
"""For faults that only waiting tells. There are many of them, and nothing here takes a tenth as long."""

STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
EVERY = pytest.mark.parametrize("fault", [HEALTHY, *FAULTS.values(), *FLAWS.values()], ids=lambda fault: fault.name)
PAIRS = pytest.mark.parametrize(("client", "cloud"), list(product(DIALECTS, DIALECTS)))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it waits before it asks the same cloud again is not the question here."""
    monkeypatch.setattr(again, "BACK_OFF", 0.02)


def waits(fault: CloudFault) -> TimeoutConfig:
    return HASTY if fault.silent else PATIENT


@PAIRS
@STREAMED
@EVERY
def test_a_failing_cloud_goes_unnoticed(box: Stage, fault: CloudFault, stream: bool, client: str, cloud: str) -> None:
    box.play(fault.act, api=cloud, timeouts=waits(fault))
    heard = box.ask(stream=stream, api=client)
    assert judge(fault, heard, box.cloud.exchanges, stream=stream) == ()
    outcome = fault.outcome(stream=stream)
    if outcome != "caller":
        assert (heard.status, heard.errors, heard.dones) == (200, (), int(stream))
        assert heard.finishes == (ENDS[client],)
    said = "".join(exchange.text for exchange in box.cloud.exchanges)
    match outcome:
        case "cloud":
            assert said
            assert heard.text == said
            if client == cloud:
                assert heard.body.startswith(bytes(box.cloud.exchanges[0].sent))  # and an end mark that was forgotten
            assert box.local.asked == []
        case "box":
            assert heard.text == box.local.text
            assert box.local.asked[-1].committed is None
        case "continued":
            assert len(said) > 20
            assert heard.text == said + box.local.text
            committed = box.local.asked[-1].committed
            assert committed is not None
            assert committed.text == said
        case "caller":
            assert 400 <= heard.status < 500
            if client == cloud:
                assert heard.body == bytes(box.cloud.exchanges[0].sent)
            assert (len(box.cloud.exchanges), box.local.asked) == (1, [])


# The client's dialect, the first cloud's and the second's.
TRIOS = pytest.mark.parametrize(
    ("client", "first", "second"),
    [("openai", "openai", "openai"), ("anthropic", "anthropic", "openai")],
)


@TRIOS
@STREAMED
@EVERY
def test_when_the_next_cloud_is_well_it_answers_instead_of_the_box(
    box: Stage, fault: CloudFault, stream: bool, client: str, first: str, second: str
) -> None:
    box.play(fault.act, HEALTHY.act, api=(first, second), timeouts=waits(fault))
    heard = box.ask(stream=stream, api=client)
    one, two = box.clouds
    said, story = "".join(exchange.text for exchange in one.exchanges), two.script.text
    match fault.outcome(stream=stream):
        case "cloud" | "caller":
            assert (two.exchanges, box.local.asked) == ([], [])
            return
        case "box":
            reason = fault.reason_in(first)
            assert (heard.text, box.local.asked) == (story, [])
            assert heard.headers["x-appliance-served-by"] == "second"
            assert heard.headers["x-appliance-fallback"] == (reason and reason.value)
        case "continued" if story.startswith(said):
            # One that takes no half-written turn tells the whole story again, and the client hears the rest of it.
            assert (heard.text, box.local.asked) == (story, [])
            assert [takeover.rpartition(" ")[0] for takeover in heard.takeovers] == [f"cloud->second after={len(said)}"]
        case "continued":
            assert heard.text == said + box.local.text
            assert [takeover.rpartition(" ")[0] for takeover in heard.takeovers] == [f"cloud->local after={len(said)}"]
    assert (heard.status, heard.errors, heard.dones) == (200, (), int(stream))
    assert (heard.finishes, len(heard.ids)) == ((ENDS[client],), 1)
    if fault.silent:
        # A cloud that has been given up on is hung up on, too.
        box.until(lambda: box.cloud.left_early == 1)


@PAIRS
def test_a_cloud_that_takes_a_half_written_turn_continues_it_under_the_first_ones_name(
    box: Stage, client: str, cloud: str
) -> None:
    box.play(FAULTS["cut-reset"].act, HEALTHY.act, api=cloud, prefill=True)
    usage: dict[str, Any] = {"stream_options": {"include_usage": True}} if client == "openai" else {}
    heard = box.ask(api=client, **usage)
    first, second = (cloud.exchanges[0] for cloud in box.clouds)
    assert heard.text == first.text + second.text
    last = second.asked.fields["messages"][-1]
    assert last["role"] == "assistant"
    assert last["content"] in (first.text, [{"type": "text", "text": first.text}])
    assert heard.takeovers == (f"cloud->second after={len(first.text)} reason=broken",)
    assert (heard.finishes, heard.dones, heard.errors) == ((ENDS[client],), 1, ())
    assert len(heard.ids) == 1
    if client == cloud:
        assert heard.ids == (first.id,)
        assert first.id != second.id
    if client == "openai":
        assert heard.body.count(b'"role":') == 1
        assert heard.body.count(b'"prompt_tokens":') == 1
    assert box.local.asked == []


@PAIRS
def test_when_the_second_cloud_dies_too_the_box_goes_on_from_the_words_of_both(
    box: Stage, client: str, cloud: str
) -> None:
    box.play(FAULTS["cut-reset"].act, FAULTS["no-finish"].act, api=cloud, prefill=True)
    heard = box.ask(api=client)
    said = "".join(cloud.exchanges[0].text for cloud in box.clouds)
    assert heard.text == said + box.local.text
    (asked,) = box.local.asked
    assert asked.committed is not None
    assert asked.committed.text == said
    assert [takeover.partition(" ")[0] for takeover in heard.takeovers] == ["cloud->second", "second->local"]


@PAIRS
@pytest.mark.parametrize("what", ["garbage", "error-event"])
def test_what_is_wrong_is_noticed_at_once_though_it_came_in_one_piece_with_words(
    box: Stage, client: str, cloud: str, what: str
) -> None:
    async def in_one_breath(exchange: Exchange) -> None:
        await exchange.begin()
        wrong = exchange.voice.nonsense(exchange.script)
        if what == "error-event":
            wrong = exchange.voice.framed(exchange.script, exchange.voice.broke())
        await exchange.put(exchange.piece(" more") + wrong)
        exchange.text += " more"
        await exchange.silence()

    box.play(in_one_breath, api=cloud, timeouts=HASTY)
    heard = box.ask(api=client)
    assert heard.text == box.cloud.exchanges[0].text + box.local.text
    reason = FAULTS[what].reason_in(cloud)
    assert [takeover.rpartition(" ")[2] for takeover in heard.takeovers] == [f"reason={reason and reason.value}"]
