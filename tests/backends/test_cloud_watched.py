"""`watch_whole`: a whole answer that is asked for as a stream, watched while it grows, and handed on whole. Real
sockets."""

import asyncio
import json
from contextlib import aclosing, suppress

import pytest

from appliance.backends import cloud as cloud_backend
from appliance.backends import growing
from appliance.core.events import Degraded, Finish, Opened, Progress, TextDelta, Usage
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import Quirks
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import (
    ANSWER,
    BODY,
    CUT,
    JSON,
    RESET,
    SSE,
    WHOLE,
    Gate,
    chunk,
    read,
    says,
    serving,
    within,
    words,
)

pytestmark = pytest.mark.live

DONE = b"data: [DONE]\n\n"
GOOD = says(200, SSE, chunk("Hi"), chunk(" there", "stop"), DONE)
UNSTREAMED = b'{"error":{"message":"It cannot.","type":"invalid_request_error","param":"stream"}}'
REFUSED_BODY = b'{"error": {"message": "No.",  "type": "invalid_request_error"}}'
REFUSED = says(400, JSON, REFUSED_BODY)
ANTHROPIC_WHOLE = b'{"model":"c","max_tokens":9, "messages":[{"role":"user","content":"Why?"}]}'


def watched(answer, body=WHOLE, *, dialect=OPENAI, request=None, **target):
    """The batches that came, and what the cloud was sent."""

    async def played():
        async with serving(answer, dialect, watch_whole=True, **target) as (made, cloud):
            return await read(made, request=request or dialect.parse(body)), cloud

    return asyncio.run(played())


def failed(answer, **target):
    with pytest.raises(BackendError) as caught:
        watched(answer, **target)
    return caught.value


def asked(sent):
    return json.loads(sent.body)


def event(type, **more):
    return b"event: %b\ndata: %b\n\n" % (type.encode(), json.dumps({"type": type, **more}).encode())


BEGUN = event("message_start", message={"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []})
OPENED = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
SAID = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
OF_TOMORROW = event("content_block_delta", index=0, delta={"type": "smell_delta", "smell": "rose"})
ENDED = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1}) + event("message_stop")


# ------------------------------------------------------------------------------------------------ what comes


def test_it_grows_in_sight_and_is_whole_in_the_end():
    gates = [Gate(), Gate()]
    first = chunk("Hi").replace(b'"created"', b'"service_tier": "flex", "created"')
    answer = says(200, SSE, first, gates[0], b": ping\n\n", chunk(" there", "stop"), gates[1], DONE)

    async def scene(made, _):
        async with aclosing(made.stream(OPENAI.parse(WHOLE), "gpt-4")) as batches:
            got = [await anext(batches), await anext(batches)]
            gates[0].open.set()
            got.append(await anext(batches))
            gates[1].open.set()
            return [*got, *[batch async for batch in batches]]

    opened, *grown, whole = within(scene, answer, watch_whole=True)
    assert opened == [Opened(headers=())]
    assert grown == [[Progress(kind="text", characters=2)], [Progress(kind="text", characters=6)]]
    assert json.loads(whole[0].wire.data) == {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4",
        "service_tier": "flex",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }
    assert words([whole]) == "Hi there"
    assert (
        OPENAI.encode_whole(OPENAI.parse(WHOLE), [*opened, *grown[0], *whole], id="", created=0) == whole[0].wire.data
    )


def test_anthropics_likewise():
    (_, grown, whole), cloud = watched(says(200, SSE, BEGUN + OPENED + SAID, ENDED), ANTHROPIC_WHOLE, dialect=ANTHROPIC)
    assert grown == [Progress(kind="text", characters=2)]
    assert [type(one) for one in whole if isinstance(one, TextDelta | Finish | Usage)] == [TextDelta, Finish, Usage]
    assert cloud.sent[0].body.startswith(b'{"stream":true,"model":"gpt-4","max_tokens":9, "messages"')


def test_the_client_of_another_dialect_is_watched_too_and_told_what_is_lost():
    request = ANTHROPIC.parse(ANTHROPIC_WHOLE[:-1] + b',"service_tier":"auto"}')
    batches, cloud = watched(GOOD, request=request)
    assert batches[0] == [Opened(headers=()), Degraded(what="service_tier")]
    assert asked(cloud.sent[0])["stream_options"] == {"include_usage": True}
    assert words(batches) == "Hi there"


def test_a_streamed_answer_is_streamed():
    batches, cloud = watched(GOOD, BODY)
    assert cloud.sent[0].body == BODY
    assert not any(isinstance(one, Progress) for batch in batches for one in batch)


def test_a_whole_answer_is_left_alone_unless_it_is_to_be_watched():
    async def scene(made, cloud):
        await read(made, WHOLE)
        return cloud.sent[0]

    sent = within(scene, says(200, JSON, ANSWER))
    assert (sent.body, sent.header("accept")) == (WHOLE, "application/json")


def test_sound_is_another_one_in_a_stream_so_it_is_asked_for_as_it_was():
    body = WHOLE[:-1] + b',"modalities":["text","audio"],"audio":{"voice":"a","format":"mp3"}}'
    _, cloud = watched(says(200, JSON, ANSWER), body)
    assert cloud.sent[0].body == body


# -------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("body", "quirks", "sent"),
    [
        (WHOLE, {}, b'{"stream_options":{"include_usage":true},%b' % WHOLE.replace(b"false", b"true")[1:]),
        (WHOLE, {"stream_usage": False}, WHOLE.replace(b"false", b"true")),
        (
            WHOLE.replace(b'"stream":false,  ', b""),
            {},
            b'{"stream":true,"stream_options":{"include_usage":true},%b' % WHOLE.replace(b'"stream":false,  ', b"")[1:],
        ),
        (
            WHOLE[:-1] + b', "stream_options" : {"include_obfuscation": false} }',
            {},
            WHOLE.replace(b"false", b"true")[:-1]
            + b', "stream_options" : {"include_obfuscation":false,"include_usage":true} }',
        ),
    ],
)
def test_the_clients_own_bytes_go_up_with_only_that_changed(body, quirks, sent):
    _, cloud = watched(GOOD, body, quirks=Quirks(**quirks))
    assert cloud.sent[0].body == sent
    assert cloud.sent[0].header("accept") == "text/event-stream"


# -------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("pieces", "fault", "sentence"),
    [
        ([chunk("Hi"), CUT], Fault.BROKEN, None),
        ([chunk("Hi"), RESET], Fault.BROKEN, None),
        ([chunk("Hi")], Fault.BROKEN, "The cloud closed the answer before its end."),
        ([chunk("Hi"), b'data: {"ch'], Fault.BROKEN, "The cloud sent half an event and then nothing more."),
        ([], Fault.BROKEN, "The cloud closed the answer before its end."),
        ([chunk("Hi"), DONE], Fault.BROKEN, "The cloud sent the end mark before the end of the answer."),
        ([b"<html>so\xc3ry</html>\n\n"], Fault.BROKEN, "The cloud sent something that is not a stream of events."),
        ([chunk("Hi"), b'data: {"error":{"type":"server_error","message":"x"}}\n\n'], Fault.BROKEN, None),
    ],
)
def test_what_is_no_end_is_none_of_a_whole_answer(pieces, fault, sentence):
    error = failed(says(200, SSE, *pieces))
    assert error.fault is fault
    assert sentence in (None, error.message)


def test_a_limit_holds(monkeypatch):
    monkeypatch.setattr(growing, "STREAM_LIMIT", 1000)
    assert "more than 1000 bytes" in failed(says(200, SSE, *[chunk("Hi")] * 20)).message


@pytest.mark.parametrize("behind", [[RESET], [CUT], [b"data: {half"], [DONE, b'data: {"error":"late"}\n\n']])
def test_what_goes_wrong_behind_the_end_does_not_matter(behind):
    batches, _ = watched(says(200, SSE, chunk("Hi"), chunk("", "stop"), *behind))
    assert words(batches) == "Hi"


@pytest.mark.parametrize(("mark", "patience"), [([], "LINGER"), ([DONE], "LAST")])
def test_who_does_not_hang_up_behind_the_end_is_not_waited_for(mark, patience, monkeypatch):
    other = {"LINGER": "LAST", "LAST": "LINGER"}[patience]
    monkeypatch.setattr(growing, patience, 0.02)
    monkeypatch.setattr(growing, other, 100.0)

    async def scene(made, cloud):
        batches = await read(made, WHOLE)
        await cloud.departed.wait()
        return batches

    batches = within(scene, says(200, SSE, chunk("Hi", "stop"), *mark, Gate()), watch_whole=True)
    assert words(batches) == "Hi"


def test_token_counts_that_come_late_are_waited_for():
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    late = b"data: " + json.dumps({"id": "c1", "choices": [], "usage": counts}).encode() + b"\n\n"
    gate = Gate()

    async def scene(made, _):
        async with aclosing(made.stream(OPENAI.parse(WHOLE), "gpt-4")) as batches:
            got = [await anext(batches), await anext(batches)]
            gate.open.set()
            return [*got, *[batch async for batch in batches]]

    whole = within(scene, says(200, SSE, chunk("Hi", "stop"), gate, late, DONE), watch_whole=True)[-1]
    assert whole[-1].prompt_tokens == 5
    assert json.loads(whole[0].wire.data)["usage"] == counts


def test_a_connection_that_has_said_everything_is_kept(monkeypatch):
    monkeypatch.setattr(growing, "LAST", 5.0)
    gate = Gate()

    async def scene(made, cloud):
        for _ in range(2):
            gate.open.clear()
            async with aclosing(made.stream(OPENAI.parse(WHOLE), "gpt-4")) as batches:
                await anext(batches)
                await anext(batches)
                asyncio.get_running_loop().call_later(0.05, gate.open.set)
                await anext(batches)
        return cloud.made

    assert within(scene, says(200, SSE, chunk("Hi", "stop") + DONE, gate), watch_whole=True) == 1


# ------------------------------------------------------------------------------------------ who streams nothing


def test_a_proxy_that_streams_nothing_has_answered_all_the_same():
    (batch,), cloud = watched(says(200, JSON, ANSWER))
    assert batch[1].wire.data == ANSWER
    assert len(cloud.sent) == 1


def test_any_other_type_is_no_answer():
    message = "openai answered with text/html instead of text/event-stream."
    assert failed(says(200, {"content-type": "text/html"}, b"<p>")).message == message


def whole_only(refusal, whole=None):
    return lambda sent: refusal if asked(sent)["stream"] else whole or says(200, JSON, ANSWER)


@pytest.mark.parametrize(
    "words_of_it",
    [
        UNSTREAMED,
        b'{"error":{"message":"No Streaming here.","type":"invalid_request_error"}}',
        b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}',
    ],
)
def test_a_refusal_that_speaks_of_streaming_is_our_doing_so_it_is_asked_again_as_the_caller_asked(words_of_it):
    batches, cloud = watched(whole_only(says(400, JSON, words_of_it)))
    assert words(batches) == "Hi"
    assert cloud.sent[1].body == WHOLE


def test_any_other_refusal_is_the_callers_answer_as_it_is():
    asks = []

    def answer(sent):
        asks.append(sent)
        return REFUSED

    reply = failed(answer).reply
    assert (reply.status, json.loads(reply.body)["error"]["message"], len(asks)) == (400, "No.", 1)


def test_what_is_refused_then_too_is_the_callers_mistake_in_the_words_he_would_have_read():
    assert failed(whole_only(says(400, JSON, UNSTREAMED), REFUSED)).reply.body == REFUSED_BODY


def test_what_is_refused_behind_a_200_is_asked_again_for_it_is_told_in_other_bytes_there():
    late = says(200, SSE, b'data: {"error": {"message": "No.", "type": "invalid_request_error"}}\n\n')
    assert failed(whole_only(late, REFUSED)).reply.body == REFUSED_BODY


def asked_as_streams(answer, *models):
    """Was each of these asked for as a stream?"""

    async def played():
        async with serving(answer, OPENAI, watch_whole=True) as (made, cloud):
            for model in models:
                with suppress(BackendError):
                    await read(made, request=OPENAI.parse(WHOLE), model=model)
            return [asked(sent)["stream"] for sent in cloud.sent]

    return asyncio.run(played())


def test_a_model_that_is_not_streamed_is_not_asked_for_as_a_stream_again():
    answer = whole_only(says(400, JSON, UNSTREAMED))
    assert asked_as_streams(answer, "a", "a", "b", "a", "b") == [True, False, False, True, False, False, False]


def test_that_is_tried_again_some_time_later(monkeypatch):
    monkeypatch.setattr(cloud_backend, "UNSTREAMED_S", 0.0)
    assert asked_as_streams(whole_only(says(400, JSON, UNSTREAMED)), "a", "a") == [True, False, True, False]


def test_only_so_many_models_are_remembered_for_it(monkeypatch):
    monkeypatch.setattr(cloud_backend, "UNSTREAMED", 2)
    answer = whole_only(says(400, JSON, UNSTREAMED))
    assert asked_as_streams(answer, *"abcbca") == [True, False] * 3 + [False, False, True, False]


def test_a_mistake_of_the_callers_tells_nothing_about_streaming():
    answer = whole_only(says(400, JSON, UNSTREAMED), REFUSED)
    assert asked_as_streams(answer, "a", "a") == [True, False, True, False]


@pytest.mark.parametrize(
    ("status", "target"), [(500, {}), (429, {}), (401, {}), (401, {"client_key": True}), (403, {"client_key": True})]
)
def test_every_other_refusal_is_final(status, target):
    asks = []

    def answer(sent):
        asks.append(sent)
        return says(status, JSON, b'{"error":{"message":"No."}}')

    failed(answer, **target)
    assert len(asks) == 1


def test_what_cannot_be_put_together_is_asked_for_whole():
    whole = (
        b'{"type":"message","id":"m","model":"c","content":[{"type":"smell","smell":"rose"}],"stop_reason":"end_turn"}'
    )

    def answer(sent):
        streamed = asked(sent).get("stream")
        return says(200, SSE, BEGUN + OPENED, SAID, OF_TOMORROW, ENDED) if streamed else says(200, JSON, whole)

    batches, cloud = watched(answer, ANTHROPIC_WHOLE, dialect=ANTHROPIC)
    assert batches[-1][1].wire.data == whole
    assert [asked(sent).get("stream") for sent in cloud.sent] == [True, None]


def test_who_leaves_in_the_middle_hangs_up():
    async def scene(made, cloud):
        async with aclosing(made.stream(OPENAI.parse(WHOLE), "gpt-4")) as batches:
            await anext(batches)
            await anext(batches)
        async with asyncio.timeout(5):
            await cloud.departed.wait()

    within(scene, says(200, SSE, chunk("Hi"), Gate()), watch_whole=True)
