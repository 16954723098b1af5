"""What of an answer does the client count as one?"""

import dataclasses

import pytest

from appliance.core import events
from appliance.core.events import (
    BlockStart,
    BlockStop,
    Degraded,
    Finish,
    Opaque,
    Opened,
    Progress,
    ReasoningDelta,
    Started,
    Takeover,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Wire,
    carries_content,
)

CONTENT = [
    TextDelta(text="a"),
    ReasoningDelta(text="a"),
    ToolCallStart(index=0, id="c1", name="look"),
    ToolCallDelta(index=0, arguments="{"),
    ToolCallDelta(index=0, arguments=""),
    Opaque(content=True),
    Opaque(content=True, closed=True),
    BlockStart(index=0, kind="other"),
]
LIFECYCLE = [
    Opened(headers=()),
    Started(id="x", model="m", created=1),
    *(BlockStart(index=0, kind=kind) for kind in ("text", "reasoning", "tool_call")),
    BlockStop(index=0),
    TextDelta(text=""),
    ReasoningDelta(text=""),
    Opaque(content=False, wire=Wire("openai", b": ping\n\n")),
    Usage(prompt_tokens=1, completion_tokens=2),
    Finish(reason="stop"),
    Takeover(source="a", target="b", after=3, reason="broken"),
    Degraded(what="context"),
    Progress(kind="text", characters=7),
]


@pytest.mark.parametrize("event", CONTENT, ids=repr)
def test_a_client_counts_this_as_part_of_the_answer(event):
    assert carries_content(event)


@pytest.mark.parametrize("event", LIFECYCLE, ids=repr)
def test_a_client_does_not_count_this_as_part_of_the_answer(event):
    assert not carries_content(event)


def test_every_kind_of_event_is_judged_here():
    assert {type(event) for event in (*CONTENT, *LIFECYCLE)} == set(events.Event.__args__)


def test_every_event_can_say_what_bytes_it_came_from():
    assert all("wire" in {field.name for field in dataclasses.fields(kind)} for kind in events.Event.__args__)
