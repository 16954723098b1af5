"""An agent goes through three rounds of tools with the official clients, and the cloud dies in each round, everywhere
in it: the application is asked to do exactly what it would have been asked without that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from appliance.core.chat import ToolCall
from appliance.drills.cloud import Act, Exchange, Script
from appliance.drills.faults import FAULTS
from tests.fakes import Stage, stage
from tests.server.agents import (
    CLIENTS,
    FORMAL,
    MADE,
    PARSED,
    SPOKEN,
    WHOLE,
    Cut,
    Desk,
    Knowing,
    anthropic_runner,
    cuts,
    dying,
    runs,
    whole,
)

pytestmark = pytest.mark.live

CLOUDS = ("openai", "anthropic")
PAIRS = pytest.mark.parametrize(("client", "cloud"), list(product(CLIENTS, CLOUDS)))
EVERYWHERE = [("openai create, streamed", "anthropic"), ("anthropic runner, eager", "openai")]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage"), local=Knowing()) as running:
        yield running


def begun(box: Stage) -> tuple[str, list[str]] | None:
    """What the box was told that the client has: the text, and the arguments of each call."""
    (asked,) = box.local.asked
    if asked.committed is None:
        return None
    calls = [part.arguments for part in asked.committed.parts if isinstance(part, ToolCall)]
    return asked.committed.text, calls


def said(client: str, cloud: str, cut: Cut) -> tuple[str, list[str]] | None:
    """What the cloud has said up to the cut, if a client could have seen it."""
    if client in WHOLE or not cut.pieces:
        return None
    of = (FORMAL if client in PARSED else SPOKEN)[cut.round]
    script = Script(text=of.text, calls=of.calls)
    events = [("", piece) for piece in script.pieces]
    for at, call in enumerate(of.calls):
        events += [(str(at), ""), *((str(at), fragment) for fragment in call.fragments)]
    text, calls = "", dict[str, str]()
    for at, piece in events[: cut.pieces]:
        if at:
            calls[at] = calls.get(at, "") + piece
        else:
            text += piece
    return text, list(calls.values())


@PAIRS
def test_undisturbed_the_box_is_not_asked(box: Stage, client: str, cloud: str) -> None:
    runs(box, client, cloud, None)
    assert (len(box.cloud.chats), box.local.asked) == (4, [])


@PAIRS
@pytest.mark.parametrize("round", range(4))
def test_a_cloud_dies_in_a_round_and_the_application_cannot_tell(
    box: Stage, client: str, cloud: str, round: int
) -> None:
    """Before its head, before the first token, in the text, behind a name, in the arguments, between two calls, and
    behind the last of them."""
    for cut in cuts(FORMAL if client in PARSED else SPOKEN):
        if cut.round == round:
            runs(box, client, cloud, cut)
            assert begun(box) == said(client, cloud, cut)


@pytest.mark.parametrize(("client", "cloud"), EVERYWHERE)
def test_at_every_piece_of_every_round(box: Stage, client: str, cloud: str) -> None:
    places = cuts(SPOKEN, every=True)
    assert len(places) > 50
    for cut in places:
        runs(box, client, cloud, cut)


@PAIRS
def test_a_cloud_that_is_out_of_order_all_the_time(box: Stage, client: str, cloud: str) -> None:
    """The box takes all four rounds."""
    local = box.local
    assert isinstance(local, Knowing)
    local.errand = FORMAL if client in PARSED else SPOKEN
    local.asked.clear()
    box.play(FAULTS["refused"].act, api=cloud)
    desk = Desk()
    CLIENTS[client](box.url, desk)
    assert desk.done == [called for each in MADE for called in each]
    assert len(local.asked) == 4
    ids = [part.id for message in local.asked[-1].messages for part in message.parts if isinstance(part, ToolCall)]
    assert len(set(ids)) == 4


# ------------------------------------------------------------------------------------- conversations that a cloud keeps


class Keeping:
    """A cloud that keeps conversations: a turn that goes on with one brings only what is new."""

    def __init__(self, cut: Cut | None = None, *, absent: range = range(0)) -> None:
        self.cut = cut
        self.absent = absent
        """The rounds in which it answers nobody."""
        self.kept: dict[str, int] = {}

    @property
    def act(self) -> Act:
        async def act(exchange: Exchange) -> None:
            asked = exchange.asked.fields
            thread = asked.get("thread", {"type": "create"})
            at = sum(message["role"] == "assistant" for message in asked["messages"])
            if thread["type"] == "continue":
                if thread["previous_message_id"] not in self.kept:
                    body = exchange.voice.error("not_found_error", "Thread not found.", code="thread_not_found")
                    await exchange.reply(404, body, headers=exchange.voice.headers)
                    return
                at = self.kept[thread["previous_message_id"]] + 1
            exchange.script = script = Script(text=SPOKEN[at].text, calls=SPOKEN[at].calls)
            if at in self.absent:
                await exchange.refuse_as("server-error")
            elif self.cut is not None and self.cut.round == at:
                await _dies(exchange, self.cut)
            else:
                self.kept[exchange.id] = at
                await whole(exchange, script)

        return act


async def _dies(exchange: Exchange, cut: Cut) -> None:
    """As `dying` does, which counts rounds by the whole conversation."""
    left = cut.pieces or 0
    await exchange.open()
    for event in exchange.voice.story(exchange.script, exchange.id, usage=False):
        if left == 0 and (event.piece or event.stage in ("end", "done")):
            break
        left -= event.piece
        await exchange.put(event.data)
    await exchange.reset()


def runs_kept(box: Stage, cloud: Keeping, *, api: str = "anthropic", stream: bool = True) -> None:
    box.local.asked.clear()
    assert isinstance(box.local, Knowing)
    box.local.errand = SPOKEN
    box.play(cloud.act, api=api)
    desk = Desk()
    end = anthropic_runner(box.url, desk, threaded=True, stream=stream, max_iterations=6)
    assert end == SPOKEN[-1].text
    assert desk.done == [called for each in MADE for called in each]


def test_a_conversation_that_a_cloud_keeps_passes(box: Stage) -> None:
    runs_kept(box, Keeping())
    kinds = [exchange.asked.fields["thread"]["type"] for exchange in box.cloud.chats]
    assert kinds == ["create", "continue", "continue", "continue"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_what_the_cloud_has_not_kept_is_sent_again(box: Stage, stream: bool) -> None:
    """It died in the answer with which it all began, and does not know it any more."""
    runs_kept(box, Keeping(Cut(0, 3)), stream=stream)
    kinds = [exchange.asked.fields["thread"]["type"] for exchange in box.cloud.chats]
    assert kinds == ["create", "continue", "create", "continue", "continue"]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("round", [1, 2, 3])
def test_a_cloud_that_keeps_a_conversation_is_absent_for_a_round(box: Stage, round: int, stream: bool) -> None:
    runs_kept(box, Keeping(absent=range(round, round + 1)), stream=stream)


def test_a_box_alone_is_sent_the_whole_conversation(box: Stage) -> None:
    assert isinstance(box.local, Knowing)
    box.local.errand = SPOKEN
    box.local.asked.clear()
    box.play()
    desk = Desk()
    assert anthropic_runner(box.url, desk, threaded=True, max_iterations=6) == SPOKEN[-1].text
    assert len(desk.done) == 4


def test_a_cloud_of_the_other_dialect_is_asked_without_a_kept_conversation(box: Stage) -> None:
    box.play(dying(SPOKEN, None), api="openai")
    desk = Desk()
    assert anthropic_runner(box.url, desk, threaded=True) == SPOKEN[-1].text
