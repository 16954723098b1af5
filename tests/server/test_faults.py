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
