"""The failing cloud in Anthropic's wire, seen by Anthropic's own client: what it sees of each fault is what it would
see of it from the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent, ToolUseBlock
from pydantic import TypeAdapter

from appliance.core.sse import SseParser
from appliance.drills.cloud import Call, Exchange, FailingCloud, Script
from appliance.drills.faults import FAULTS, HEALTHY, CloudFault

pytestmark = pytest.mark.live

T = TypeVar("T")
WAIT = 0.15
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Go on."}]}
TOOLS = (Call(name="weather", arguments='{"place": "Zürich", "days": 3}'), Call(name="tide", arguments="{}"))
RICH = Script(thinking="The harbour, then the lamp.", calls=TOOLS, cached=5, cache_written=6)
THOUGHT = len(RICH.thoughts)


class Seen(NamedTuple):
    text: str
    kinds: tuple[str, ...]
    """The types of the events, one after another the same only once."""
    error: BaseException | None


def with_client(
    talk: Callable[[anthropic.AsyncAnthropic, FailingCloud], Awaitable[T]],
    *,
    fault: CloudFault = HEALTHY,
    script: Script | None = None,
) -> tuple[T, FailingCloud]:
    async def play() -> tuple[T, FailingCloud]:
        async with (
            FailingCloud(fault.act, script=script, api="anthropic") as cloud,
            anthropic.AsyncAnthropic(
                api_key="sk-ant-drill", base_url=cloud.base_url, max_retries=0, timeout=WAIT
            ) as client,
        ):
            return await talk(client, cloud), cloud

    return asyncio.run(play())


async def streamed(client: anthropic.AsyncAnthropic, cloud: FailingCloud) -> Seen:
    text, kinds, error = "", list[str](), None
    try:
        async with asyncio.timeout(3 * WAIT):
            async for event in await client.messages.create(stream=True, **ASKED):
                kinds += [event.type] if kinds[-1:] != [event.type] else []
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    text += event.delta.text
    except Exception as caught:
        error = caught
    return Seen(text, tuple(kinds), error)


async def whole(client: anthropic.AsyncAnthropic, cloud: FailingCloud) -> Message | BaseException:
    try:
        async with asyncio.timeout(3 * WAIT):
            return await client.messages.create(**ASKED)
    except Exception as caught:
        return caught


async def final(client: anthropic.AsyncAnthropic, cloud: FailingCloud) -> Any:
    async with client.messages.stream(**ASKED) as stream:
        return await stream.get_final_message()


# --------------------------------------------------------------------------------------------------- when well


def test_a_stream_is_in_the_order_of_the_real_one() -> None:
    seen, cloud = with_client(streamed, script=RICH)
    assert seen.error is None
    block = ("content_block_start", "content_block_delta", "content_block_stop")
    assert seen.kinds == ("message_start", *block, *block, *block, *block, "message_delta", "message_stop")
    assert seen.text == cloud.exchanges[0].text == RICH.text


def test_both_forms_of_an_answer_say_the_same_to_the_client() -> None:
    message, cloud = with_client(final, script=RICH)
    plain, _ = with_client(whole, script=RICH)
    assert isinstance(plain, Message)
    for answer in (message, plain):
        thinking, text, *calls = answer.content
        assert (thinking.thinking, thinking.signature) == (RICH.thinking, RICH.signature)
        assert text.text == RICH.text
        assert [(call.name, call.input) for call in calls] == [
            ("weather", {"place": "Zürich", "days": 3}),
            ("tide", {}),
        ]
        assert all(isinstance(call, ToolUseBlock) for call in calls)
        assert len({call.id for call in calls}) == 2
        assert (answer.stop_reason, answer.stop_sequence) == ("tool_use", None)
        usage = answer.usage
        assert (usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (10, 6, 5)
        assert usage.output_tokens == RICH.tokens
    assert cloud.exchanges[0].thinking == RICH.thinking
    assert cloud.exchanges[0].arguments == {0: TOOLS[0].arguments, 1: TOOLS[1].arguments}


def test_every_event_is_of_the_clients_own_types() -> None:
    _, cloud = with_client(streamed, script=RICH)
    read: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    found = [event for event in SseParser().feed(cloud.exchanges[0].body) if event.data is not None]
    assert len(found) > 60
    for event in found:
        payload = json.loads(event.data or b"")
        assert payload["type"] == event.event
        if event.event != "ping":
            assert read.validate_json(event.data or b"").type == event.event
    assert [event.event for event in found[:3]] == ["message_start", "content_block_start", "ping"]


@pytest.mark.parametrize(
    ("script", "reason", "string"),
    [
        (Script(), "end_turn", None),
        (Script(calls=TOOLS), "tool_use", None),
        (Script(stop_string="###"), "stop_sequence", "###"),
        (Script(stopped="max_tokens"), "max_tokens", None),
        (Script(text="", stopped="refusal"), "refusal", None),
    ],
)
def test_it_stops_for_the_reason_in_the_script(script: Script, reason: str, string: str | None) -> None:
    for talk in (final, whole):
        message, _ = with_client(talk, script=script)
        assert (message.stop_reason, message.stop_sequence) == (reason, string)


ODD = {
    "novelties": Script(novelties=True),
    "crlf": Script(crlf=True),
    "comments": Script(comments=True),
    "multiline": Script(multiline=True),
    "gzip": Script(gzip=True),
    "byte by byte": Script(text="Crème brûlée 🌊", cut=1),
    "all of it": Script(
        text="Crème 🌊", thinking="hm", novelties=True, crlf=True, comments=True, multiline=True, gzip=True, cut=3
    ),
}


@pytest.mark.parametrize("script", ODD.values(), ids=list(ODD))
def test_what_is_odd_and_allowed_does_not_trouble_the_client(script: Script) -> None:
    message, cloud = with_client(final, script=script)
    assert "".join(block.text for block in message.content if block.type == "text") == script.text
    assert cloud.exchanges[0].text == script.text
    plain, _ = with_client(whole, script=script)
    assert isinstance(plain, Message)
    assert plain.stop_reason == message.stop_reason == "end_turn"


def bodies(script: Script) -> Exchange:
    return with_client(streamed, script=script)[1].exchanges[0]


def test_the_odd_ways_are_on_the_wire() -> None:
    types = {json.loads(event.data)["type"] for event in SseParser().feed(bodies(ODD["novelties"]).body) if event.data}
    assert "x_weather" in types
    assert b'"type":"x_card"' in bodies(ODD["novelties"]).body
    assert b'"type":"x_note_delta"' in bodies(ODD["novelties"]).body
    crlf = bodies(ODD["crlf"]).body
    assert crlf.count(b"\n") == crlf.count(b"\r\n") > 100
    assert b"\n: inside\n" in bodies(ODD["comments"]).body
    assert b'data: {\ndata:  "type": "message_start",\n' in bodies(ODD["multiline"]).body
    packed = bodies(ODD["gzip"])
    assert packed.sent.startswith(b"\x1f\x8b")
    assert packed.body.startswith(b"event: message_start\n")
    assert packed.body.endswith(b'data: {"type":"message_stop"}\n\n')


# ------------------------------------------------------------------------------------------------- when unwell

NONE_YET, BROKEN_OFF = (), ("message_start", "content_block_start", "content_block_delta")
OPENED = ("message_start", "content_block_start")
ENDED = (*BROKEN_OFF, "content_block_stop", "message_delta")

STREAMED = {
    "refused": (NONE_YET, "APIConnectionError"),
    "black-hole": (NONE_YET, "APITimeoutError"),
    "reset": (NONE_YET, "APIConnectionError"),
    "stray-close": (NONE_YET, "APIConnectionError"),
    "half-headers": (NONE_YET, "APITimeoutError"),
    "server-error": (NONE_YET, "InternalServerError"),
    "bad-gateway": (NONE_YET, "InternalServerError"),
    "html-503": (NONE_YET, "ServiceUnavailableError"),
    "gateway-timeout": (NONE_YET, "GatewayTimeoutError"),
    "overloaded": (NONE_YET, "OverloadedError"),
    "rate-limit": (NONE_YET, "RateLimitError"),
    "quota": (NONE_YET, "BadRequestError"),
    "payment-required": (NONE_YET, "PaymentRequiredError"),
    "spend-limit": (NONE_YET, "BadRequestError"),
    "spend-cap": (NONE_YET, "EnforcedSpendLimitReachedError"),
    "wrong-key": (NONE_YET, "AuthenticationError"),
    "forbidden": (NONE_YET, "PermissionDeniedError"),
    "unknown-model": (NONE_YET, "NotFoundError"),
    "bad-request": (NONE_YET, "BadRequestError"),
    "content-policy": (NONE_YET, "BadRequestError"),
    "too-large": (NONE_YET, "ContentTooLargeError"),
    "too-long": (NONE_YET, "BadRequestError"),
    "captive-portal": (NONE_YET, None),
    "redirect": (NONE_YET, "APIConnectionError"),
    "wrong-type": (NONE_YET, None),
    "empty": (NONE_YET, None),
    "empty-answer": (("message_start", "message_delta", "message_stop"), None),
    "truncated-json": (NONE_YET, "JSONDecodeError"),
    "pings": (OPENED, "TimeoutError"),
    "cut-headers": (NONE_YET, "ReadError"),
    "role-then-death": (OPENED, "ReadError"),
    "cut-reset": (BROKEN_OFF, "ReadError"),
    "cut-close": (BROKEN_OFF, "RemoteProtocolError"),
    "no-finish": (BROKEN_OFF, None),
    "done-too-early": (BROKEN_OFF, None),
    "stall": (BROKEN_OFF, "ReadTimeout"),
    "late-pings": (BROKEN_OFF, "TimeoutError"),
    "drip": (BROKEN_OFF, "ReadTimeout"),
    "half-event": (BROKEN_OFF, "ReadError"),
    "half-character": (BROKEN_OFF, "ReadError"),
    "garbage": (BROKEN_OFF, "JSONDecodeError"),
    "error-event": (BROKEN_OFF, "APIStatusError"),
    "no-done": (ENDED, None),
    "reset-after-finish": (ENDED, "ReadError"),
}


def test_the_table_has_every_fault() -> None:
    assert list(STREAMED) == list(FAULTS)


@pytest.mark.parametrize("name", STREAMED)
def test_a_streaming_client_sees_of_a_fault_what_it_would_see_of_the_real_one(name: str) -> None:
    seen, cloud = with_client(streamed, fault=FAULTS[name])
    kinds, error = STREAMED[name]
    assert seen.kinds == kinds
    assert (type(seen.error).__name__ if seen.error else None) == error
    said = "".join(exchange.text for exchange in cloud.exchanges)
    assert seen.text == said
    whole_story = kinds == ENDED
    assert said == (Script().text if whole_story else "".join(Script().pieces[: 6 if kinds == BROKEN_OFF else 0]))


STATUSES = {
    "server-error": (500, "api_error", "Internal server error"),
    "bad-gateway": (502, None, None),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "rate-limit": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "quota": (400, "invalid_request_error", "Your credit balance is too low"),
    "payment-required": (402, "billing_error", "no payment method"),
    "spend-limit": (400, "invalid_request_error", "You have reached your specified API usage limits."),
    "spend-cap": (429, "rate_limit_error", "spend limit"),
    "forbidden": (403, "forbidden", "Request not allowed"),
    "too-large": (413, "request_too_large", "Request exceeds the maximum size"),
    "gateway-timeout": (504, "timeout_error", "Request timed out"),
    "html-503": (503, None, None),
    "wrong-key": (401, "authentication_error", "invalid x-api-key"),
    "unknown-model": (404, "not_found_error", "model: "),
    "bad-request": (400, "invalid_request_error", "Field required"),
    "content-policy": (400, "invalid_request_error", "content filtering"),
    "too-long": (400, "invalid_request_error", "prompt is too long: 21 tokens > 16 maximum"),
}


@pytest.mark.parametrize("name", STATUSES)
def test_an_error_has_the_shape_of_the_real_one(name: str) -> None:
    status, type_, phrase = STATUSES[name]
    for error in (with_client(whole, fault=FAULTS[name])[0], with_client(streamed, fault=FAULTS[name])[0].error):
        assert isinstance(error, anthropic.APIStatusError)
        assert (error.status_code, error.type) == (status, type_)
        if phrase is None:
            continue
        assert phrase in (error.api_message or "")
        assert error.request_id == "req_drill"
        assert isinstance(error.body, dict)
        assert (error.body["type"], error.body["request_id"]) == ("error", "req_drill")
        later = name in ("overloaded", "rate-limit")
        assert error.response.headers.get("retry-after") == ("30" if later else None)


def test_an_error_in_mid_answer_is_an_error_with_the_status_200() -> None:
    error = with_client(streamed, fault=FAULTS["error-event"])[0].error
    assert isinstance(error, anthropic.APIStatusError)
    assert (error.status_code, error.type, error.api_message) == (200, "overloaded_error", "Overloaded")


@pytest.mark.parametrize("name", ["black-hole", "cut-reset", "cut-close", "half-event", "half-character", "stall"])
def test_a_whole_answer_that_breaks_off_is_no_answer(name: str) -> None:
    assert isinstance(with_client(whole, fault=FAULTS[name])[0], anthropic.APIConnectionError)


@pytest.mark.parametrize(
    ("after", "thinking", "text", "arguments"),
    [
        (2, "The harbou", "", {}),
        (THOUGHT + 1, RICH.thinking, "The", {}),
        (THOUGHT + 1 + len(RICH.pieces), RICH.thinking, RICH.text, {0: ""}),
        (THOUGHT + 3 + len(RICH.pieces), RICH.thinking, RICH.text, {0: '{"place": "Zür'}),
    ],
)
def test_it_can_break_inside_any_block(after: int, thinking: str, text: str, arguments: dict[int, str]) -> None:
    script = Script(thinking=RICH.thinking, calls=TOOLS, after=after)
    seen, cloud = with_client(streamed, fault=FAULTS["cut-reset"], script=script)
    (exchange,) = cloud.exchanges
    assert isinstance(seen.error, Exception)
    assert (exchange.thinking, exchange.text, exchange.arguments) == (thinking, text, arguments)
    assert exchange.body.count(b"event: content_block_start") == exchange.body.count(b"event: content_block_stop") + 1


@pytest.mark.parametrize("name", ["cut-reset", "no-finish", "error-event", "no-done"])
def test_a_packed_answer_fails_like_another(name: str) -> None:
    seen, cloud = with_client(streamed, fault=FAULTS[name], script=Script(gzip=True))
    assert seen.kinds == STREAMED[name][0]
    assert seen.text == cloud.exchanges[0].text


# ------------------------------------------------------------------------------------------------- small calls


def test_tokens_are_counted_and_models_listed_in_its_own_shape() -> None:
    async def small(client: anthropic.AsyncAnthropic, cloud: FailingCloud) -> tuple[int, list[str]]:
        counted = await client.messages.count_tokens(model="m", messages=ASKED["messages"])
        return counted.input_tokens, [model.id async for model in client.models.list()]

    (tokens, models), cloud = with_client(small)
    assert tokens == len(cloud.exchanges[0].asked.body) // 4 > 0
    assert models == ["failing-cloud-1"]
    assert cloud.chats == []


def test_counting_can_fail_by_itself() -> None:
    async def count(client: anthropic.AsyncAnthropic, cloud: FailingCloud) -> Any:
        cloud.counting = FAULTS["overloaded"].act
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.count_tokens(model="m", messages=ASKED["messages"])
        return caught.value.status_code

    assert with_client(count)[0] == 529


def test_a_request_is_on_record_byte_for_byte() -> None:
    body = b'{"model": "m",\t"max_tokens": 1, "messages": []}'
    head = (
        b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: cloud\r\nAnthropic-Beta:  one, two\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )

    async def play() -> FailingCloud:
        async with FailingCloud(HEALTHY.act, api="anthropic") as cloud:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(cloud.root.rpartition(":")[2]))
            writer.write(head + body)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()
        return cloud

    asked = asyncio.run(play()).exchanges[0].asked
    assert (asked.head, asked.body) == (head, body)
    assert (asked.path, asked.query, asked.api) == ("/v1/messages", "beta=true", "anthropic")
    assert asked.header("anthropic-beta") == "one, two"
