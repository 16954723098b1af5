"""Every way in which a cloud fails, over real sockets, streamed and whole: nobody in front of the box notices."""

from __future__ import annotations

import pytest

from appliance.drills.faults import FAULTS, HEALTHY, CloudFault
from appliance.drills.verdict import judge
from tests.fakes import PATIENT, QUICK, Stage

pytestmark = pytest.mark.live

STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
EVERY = pytest.mark.parametrize("fault", [HEALTHY, *FAULTS.values()], ids=lambda fault: fault.name)


@STREAMED
@EVERY
def test_a_failing_cloud_goes_unnoticed(box: Stage, fault: CloudFault, stream: bool) -> None:
    box.play(fault.act, timeouts=QUICK if fault.silent else PATIENT)
    heard = box.ask(stream=stream)
    assert judge(fault, heard, box.cloud.exchanges, stream=stream) == ()
    # The verdict's rules are tested elsewhere; these are the same promises in other words.
    cloud = "".join(exchange.text for exchange in box.cloud.exchanges)
    match fault.outcome(stream=stream):
        case "cloud":
            assert heard.text == box.cloud.script.text
            assert box.local.asked == []
        case "box":
            assert heard.text == box.local.text
            assert box.local.asked[-1].committed is None
        case "continued":
            assert len(cloud) > 20
            assert heard.text == cloud + box.local.text
            committed = box.local.asked[-1].committed
            assert committed is not None
            assert committed.text == cloud
        case "caller":
            assert heard.status == 400
            assert heard.body == bytes(box.cloud.exchanges[0].sent)
            assert box.local.asked == []


@STREAMED
@EVERY
def test_when_the_next_cloud_is_well_it_answers_instead_of_the_box_unless_something_was_said(
    box: Stage, fault: CloudFault, stream: bool
) -> None:
    box.play(fault.act, HEALTHY.act, timeouts=QUICK if fault.silent else PATIENT)
    heard = box.ask(stream=stream)
    match fault.outcome(stream=stream):
        case "box":
            assert heard.text == box.clouds[1].script.text
            assert heard.headers["x-appliance-served-by"] == "second"
            assert heard.headers["x-appliance-fallback"] == (fault.reason and fault.reason.value)
            assert heard.finishes == ("stop",)
        case _:
            # A cloud that takes no half-written turn cannot continue one: that is for the box.
            assert box.clouds[1].exchanges == []
    if fault.silent:
        # A cloud that has been given up on is hung up on, too.
        box.until(lambda: box.cloud.left_early == 1)


def test_a_cloud_that_takes_a_half_written_turn_continues_it_under_the_first_ones_name(box: Stage) -> None:
    box.play(FAULTS["cut-reset"].act, HEALTHY.act, prefill=True)
    heard = box.ask(stream_options={"include_usage": True})
    first, second = (cloud.exchanges[0] for cloud in box.clouds)
    assert heard.text == first.text + second.text
    assert second.asked.fields["messages"][-1] == {"role": "assistant", "content": first.text}
    assert heard.takeovers == (f"cloud->second after={len(first.text)} reason=broken",)
    assert (heard.finishes, heard.dones, heard.errors) == (("stop",), 1, ())
    assert heard.ids == (first.id,)
    assert first.id != second.id
    assert heard.body.count(b'"role":') == 1
    assert heard.body.count(b'"prompt_tokens":') == 1
    assert box.local.asked == []


def test_when_the_second_cloud_dies_too_the_box_goes_on_from_the_words_of_both(box: Stage) -> None:
    box.play(FAULTS["cut-reset"].act, FAULTS["no-finish"].act, prefill=True)
    heard = box.ask()
    said = "".join(cloud.exchanges[0].text for cloud in box.clouds)
    assert heard.text == said + box.local.text
    (asked,) = box.local.asked
    assert asked.committed is not None
    assert asked.committed.text == said
    assert [takeover.partition(" ")[0] for takeover in heard.takeovers] == ["cloud->second", "second->local"]
