"""However a cloud writes its answer and wherever the network cuts it, the client gets those bytes, in both wires."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.drills.cloud import Call, Script
from appliance.drills.faults import FAULTS, HEALTHY
from tests.fakes import ANTHROPIC_BODY, BODY, Stage

pytestmark = pytest.mark.live

BODIES = {"openai": BODY, "anthropic": ANTHROPIC_BODY}
CALLS = (Call(name="look", arguments='{"at": "the sea"}'), Call(name="listen", arguments="{}"))
SHAPES = st.builds(
    Script,
    thinking=st.sampled_from(["", "Let me see. 🌊"]),
    calls=st.sampled_from([(), CALLS]),
    novelties=st.booleans(),
    crlf=st.booleans(),
    comments=st.booleans(),
    multiline=st.booleans(),
    gzip=st.booleans(),
    cut=st.sampled_from([0, 1, 2, 3, 7, 64, 1000]),
)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=SHAPES)
def test_an_answer_passes_byte_for_byte(box: Stage, api: str, stream: bool, script: Script) -> None:
    box.play(HEALTHY.act, api=api, script=script)
    heard = box.ask(stream=stream, api=api)
    exchange = box.cloud.chats[0]
    assert heard.body == exchange.body
    assert heard.headers["x-appliance-served-by"] == "cloud"
    assert heard.headers.get("content-encoding") is None
    assert box.local.asked == []


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=SHAPES, after=st.integers(min_value=1, max_value=30))
def test_a_cut_answer_is_what_the_cloud_sent_and_what_the_box_said(
    box: Stage, api: str, script: Script, after: int
) -> None:
    """Whatever else was in it. What nobody goes on with is left out: half a call of a tool and, where answers are not
    made of blocks that can be closed, content of unknown kinds."""
    kept = ("thinking", "crlf", "comments", "multiline", "cut", *(("novelties",) if api == "anthropic" else ()))
    shape = {name: getattr(script, name) for name in kept}
    box.play(FAULTS["cut-reset"].act, api=api, script=Script(after=after, **shape))
    heard = box.ask(api=api)
    exchange = box.cloud.chats[0]
    assert heard.text == exchange.text + box.local.text
    assert not heard.errors
    assert heard.body.startswith(exchange.body[: exchange.body.rfind(b"data:")])
