"""docs/failures.md, "What cannot be continued": each line of that list as it happens, over real sockets.

What cannot be continued ends in an error event: no clean end, and no character lost or doubled. All that can be, is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from appliance.core.sse import SseParser
from appliance.drills.application import Heard
from appliance.drills.cloud import Act, Call, Exchange, Script
from appliance.drills.faults import FAULTS
from tests.fakes import Stage

pytestmark = pytest.mark.live

DIALECTS = ("openai", "anthropic")
PAIRS = pytest.mark.parametrize(("client", "cloud"), list(product(DIALECTS, DIALECTS)))
CUT = FAULTS["cut-reset"].act
assert CUT is not None
LOOK = Call(name="look", arguments='{"where": "out at sea", "how_far": "as far as caf\u00e9s are open"}')
SCHEMA = {"type": "object", "properties": {"where": {"type": "string"}, "how_far": {"type": "string"}}}
TOOLS: dict[str, list[Any]] = {
    "openai": [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}],
    "anthropic": [{"name": "look", "input_schema": SCHEMA}],
}
THOUGHT = "The keeper is old. Perhaps he should not climb the stairs; but it is a story."
ENDS = {"openai": "stop", "anthropic": "end_turn"}


def payloads(body: bytes) -> list[dict[str, Any]]:
    parser = SseParser()
    events = [*parser.feed(body), *parser.close()]
    return [json.loads(event.data) for event in events if event.data is not None and event.data != b"[DONE]"]


def it_ended_in_an_error(box: Stage, heard: Heard) -> None:
    [exchange] = box.cloud.exchanges
    assert (heard.status, heard.finishes, heard.dones) == (200, (), 0)
    assert (heard.text, heard.thinking) == (exchange.text, exchange.thinking)
    [error] = heard.errors
    assert error.endswith("What was under way cannot be continued by another.")
    assert "error" in payloads(heard.body)[-1]
    assert heard.headers["x-appliance-served-by"] == "cloud"
    assert box.local.asked == []


def the_box_went_on(box: Stage, heard: Heard, client: str) -> None:
    [exchange] = box.cloud.exchanges
    assert (heard.status, heard.finishes, heard.dones, heard.errors) == (200, (ENDS[client],), 1, ())
    assert heard.text == exchange.text + box.local.text
    assert heard.thinking == exchange.thinking
    assert len(heard.takeovers) == 1


def the_box_answered(box: Stage, heard: Heard, client: str) -> None:
    assert (heard.status, heard.finishes, heard.errors) == (200, (ENDS[client],), ())
    assert (heard.text, heard.calls) == (box.local.text, ())
    assert heard.headers["x-appliance-served-by"] == "local"


# ---------------------------------------------------------------------------------------------------- the list


@PAIRS
def test_before_the_call_there_are_words_and_the_box_goes_on_from_them(box: Stage, client: str, cloud: str) -> None:
    script = Script(text="I look.", calls=(LOOK,))
    box.play(CUT, api=cloud, script=Script(text="I look.", calls=(LOOK,), after=len(script.pieces)))
    the_box_went_on(box, box.ask(api=client, tools=TOOLS[client]), client)


@PAIRS
def test_a_whole_answer_with_a_tool_call_starts_again(box: Stage, client: str, cloud: str) -> None:
    box.play(CUT, api=cloud, script=Script(calls=(LOOK,)))
    heard = box.ask(api=client, stream=False, tools=TOOLS[client])
    the_box_answered(box, heard, client)
    assert "x-appliance-degraded" not in heard.headers


def choice(index: int, delta: Mapping[str, Any], **more: Any) -> bytes:
    said = {"index": index, "delta": delta, "finish_reason": None, **more}
    envelope = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**envelope, "choices": [said]}, ensure_ascii=False).encode()


def dies_after(*chunks: bytes, text: str = "") -> Act:
    """A cloud that says these, of which the text is `text`, and is gone."""

    async def act(exchange: Exchange) -> None:
        await exchange.open()
        for chunk in chunks:
            await exchange.event(chunk)
        exchange.text = text
        await exchange.reset()

    return act


def test_calls_that_are_told_in_turns(box: Stage) -> None:
    """Two halves at once: nobody could finish the first."""

    def half(index: int) -> bytes:
        function = {"name": "look", "arguments": '{"where'}
        call = {"index": index, "id": f"c{index}", "type": "function", "function": function}
        return choice(0, {"tool_calls": [call]})

    box.play(dies_after(half(0), half(1)))
    it_ended_in_an_error(box, box.ask(tools=TOOLS["openai"]))


def test_several_choices_after_content(box: Stage) -> None:
    box.play(dies_after(choice(0, {"content": "One"}), choice(1, {"content": " and another"}), text="One and another"))
    it_ended_in_an_error(box, box.ask(n=2))


def test_of_several_choices_even_the_first_alone(box: Stage) -> None:
    box.play(dies_after(choice(0, {"content": "One"}), text="One"))
    it_ended_in_an_error(box, box.ask(n=2))


def test_several_choices_before_content_are_restarted(box: Stage) -> None:
    box.play(dies_after(choice(0, {"role": "assistant"}), choice(1, {"role": "assistant"})))
    heard = box.ask(n=2)
    said = {0: "", 1: ""}
    for one in [one for payload in payloads(heard.body) for one in payload["choices"]]:
        said[one["index"]] += one["delta"].get("content", "")
    assert said == {0: box.local.text, 1: box.local.text}
    assert (heard.finishes, heard.dones, heard.headers["x-appliance-served-by"]) == (("stop", "stop"), 1, "local")
    assert "x-appliance-degraded" not in heard.headers


def test_several_choices_as_a_whole_are_restarted(box: Stage) -> None:
    box.play(CUT)
    heard = box.ask(n=2, stream=False)
    said = [(one["index"], one["message"]["content"]) for one in json.loads(heard.body)["choices"]]
    assert said == [(0, box.local.text), (1, box.local.text)]


ANNOTATION = {"type": "url_citation", "url_citation": {"url": "https://sea.example", "title": "The sea"}}


@pytest.mark.parametrize(
    "delta",
    [{"audio": {"id": "a", "data": "AAAA"}}, {"audio": {"transcript": "The sea"}}, {"annotations": [ANNOTATION]}],
    ids=["audio", "a transcript", "annotations"],
)
def test_content_in_a_form_nobody_here_knows(box: Stage, delta: dict[str, Any]) -> None:
    box.play(
        dies_after(choice(0, {"content": "Hear"}), choice(0, delta), choice(0, {"content": " me"}), text="Hear me")
    )
    it_ended_in_an_error(box, box.ask())


def test_fields_that_are_no_content_are_no_obstacle(box: Stage) -> None:
    one, two = choice(0, {"content": "Hear"}, x_new={"a": [1]}), choice(0, {"content": " me", "x_note": None})
    box.play(dies_after(one, two, b'{"object":"x.weather","wind":3}', text="Hear me"))
    the_box_went_on(box, box.ask(), "openai")


def test_half_a_refusal_is_not_answered_by_somebody_else(box: Stage) -> None:
    box.play(dies_after(choice(0, {"role": "assistant"}), choice(0, {"refusal": "I'm sorry, but I"})))
    it_ended_in_an_error(box, box.ask())


@PAIRS
def test_a_refusal_or_filter_is_an_end(box: Stage, client: str, cloud: str) -> None:
    refused = {"openai": "content_filter", "anthropic": "refusal"}
    reset_after_the_end = FAULTS["reset-after-finish"].act
    box.play(reset_after_the_end, api=cloud, script=Script(text="Once upon", stopped=refused[cloud]))
    heard = box.ask(api=client)
    assert (heard.text, heard.finishes, heard.errors) == ("Once upon", (refused[client],), ())
    assert box.local.asked == []


# ---------------------------------------------------------------------------------------- continued with a loss


@PAIRS
def test_reasoning_that_was_sent_is_kept_and_the_text_goes_on(box: Stage, client: str, cloud: str) -> None:
    box.play(CUT, api=cloud, script=Script(thinking=THOUGHT, after=4))
    heard = box.ask(api=client)
    the_box_went_on(box, heard, client)
    assert 0 < len(heard.thinking) < len(THOUGHT)
    assert (b"appliance-unsigned" in heard.body) == (client == "anthropic")
    committed = box.local.asked[-1].committed
    assert committed is not None
    assert committed.text == ""


@PAIRS
def test_after_reasoning_the_text_goes_on_in_mid_sentence(box: Stage, client: str, cloud: str) -> None:
    script = Script(thinking=THOUGHT)
    box.play(CUT, api=cloud, script=Script(thinking=THOUGHT, after=len(script.thoughts) + 5))
    heard = box.ask(api=client)
    the_box_went_on(box, heard, client)
    assert heard.thinking == THOUGHT
    assert len(box.cloud.exchanges[0].text) > 15


def test_logprobs_go_on_with_those_of_the_box(box: Stage) -> None:
    told: dict[str, Any] = {
        "content": [{"token": "Hear", "logprob": -0.1, "bytes": None, "top_logprobs": []}],
        "refusal": None,
    }
    box.play(dies_after(choice(0, {"content": "Hear"}, logprobs=told), text="Hear"))
    heard = box.ask(logprobs=True)
    the_box_went_on(box, heard, "openai")
    likely = [
        token["token"]
        for payload in payloads(heard.body)
        for one in payload["choices"]
        for token in (one["logprobs"] or {"content": []})["content"]
    ]
    assert likely == ["Hear", *box.local.pieces]
    assert b"degraded" not in heard.body


# -------------------------------------------------------------------------------------- Anthropic's other blocks


def events(*said: Mapping[str, Any], text: str = "") -> Act:
    start = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "content": [], "usage": {}}}
    return dies_after(*(json.dumps(one).encode() for one in (start, *said)), text=text)


def block(index: int, **begun: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": begun}


def delta(index: int, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


@pytest.mark.parametrize("client", DIALECTS)
def test_a_block_of_an_unknown_kind_is_closed_and_the_text_goes_on(box: Stage, client: str) -> None:
    said = (block(0, type="text", text=""), delta(0, type="text_delta", text="See: "), stop(0))
    box.play(events(*said, block(1, type="x_card", title=""), text="See: "), api="anthropic")
    the_box_went_on(box, box.ask(api=client), client)


def test_a_citation_is_no_obstacle(box: Stage) -> None:
    citation = {"type": "char_location", "cited_text": "the sea", "document_index": 0}
    said = (block(0, type="text", text=""), delta(0, type="text_delta", text="The sea"))
    box.play(events(*said, delta(0, type="citations_delta", citation=citation), text="The sea"), api="anthropic")
    the_box_went_on(box, box.ask(api="anthropic"), "anthropic")


def test_a_server_tool_without_a_result_gets_one_that_says_so(box: Stage) -> None:
    said = (block(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),)
    box.play(events(*said, delta(0, type="input_json_delta", partial_json='{"query": "the s')), api="anthropic")
    heard = box.ask(api="anthropic")
    assert (heard.finishes, heard.dones, heard.errors) == (("end_turn",), 1, ())
    assert heard.text == box.local.text
    results = [one["content_block"] for one in payloads(heard.body) if one["type"] == "content_block_start"]
    [result] = [one for one in results if one["type"] == "web_search_tool_result"]
    assert (result["tool_use_id"], result["content"]["error_code"]) == ("srvtoolu_1", "unavailable")


# ------------------------------------------------------------------------------------------- what keeps SDKs away


@pytest.mark.parametrize("client", DIALECTS)
def test_a_whole_answer_that_nobody_can_give_says_not_to_ask_again(box: Stage, client: str) -> None:
    box.play(FAULTS["cut-reset"].act)
    heard = box.ask(api=client, stream=False, headers={"x-appliance-route": "cloud"})
    assert (heard.status >= 500, heard.headers["x-should-retry"]) == (True, "false")
