"""`watch_whole` over real sockets: every fault of a stream, while a whole answer is wanted."""

from __future__ import annotations

import pytest

from appliance.config import TimeoutConfig
from appliance.core import again
from appliance.drills.faults import FAULTS, FLAWS, HEALTHY, CloudFault
from tests.fakes import PATIENT, Stage

pytestmark = pytest.mark.live

HASTY = TimeoutConfig(connect=2.0, first_content=0.3, stall=0.3, total=0.5)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", [HEALTHY, *FAULTS.values(), *FLAWS.values()], ids=lambda fault: fault.name)
def test_a_watched_answer_is_whole_whatever_becomes_of_the_stream(
    box: Stage, fault: CloudFault, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "BACK_OFF", 0.02)
    box.play(fault.act, api=api, timeouts=HASTY if fault.silent else PATIENT, watch_whole=True)
    heard = box.ask(stream=False, api=api)
    last = box.cloud.chats[-1] if box.cloud.chats else None
    match fault.outcome(stream=True):
        case "caller":
            assert last is not None
            assert (heard.body, box.local.asked) == (bytes(last.sent), [])
            assert len(box.cloud.chats) == 1  # nothing in it speaks of streaming: it is the caller's answer
        case "cloud":
            assert last is not None
            assert (heard.status, heard.text, box.local.asked) == (200, last.text, [])
        case _ if box.local.asked:
            assert (heard.status, heard.text) == (200, box.local.text)
        case _:  # a fault of streams only
            assert last is not None
            assert (heard.status, heard.text, fault.outcome(stream=False)) == (200, last.text, "cloud")
