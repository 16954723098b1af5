"""Numbers stand beside an answer as OpenAI's own SDK reads them."""

from __future__ import annotations

import json
from dataclasses import replace

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from appliance.core.events import Event, Finish, Odds, TextDelta
from appliance.dialects.openai_chat import OPENAI, encode_whole
from appliance.dialects.openai_chat_figures import logprobs
from tests.dialects.openai_reader import REQUEST, STARTED

HE = Odds(token=b"He", logprob=-0.25, others=((b"He", -0.25), (b"\xf0\x9f", -2.0)))
HALF = Odds(token="\u00e9".encode()[:1], logprob=-9999.0)
EVENTS: list[Event] = [STARTED, TextDelta(text="He", odds=(HE,)), TextDelta(text="y"), TextDelta(text="", odds=(HALF,))]
SAID = [
    {
        "token": "He",
        "logprob": -0.25,
        "bytes": [72, 101],
        "top_logprobs": [
            {"token": "He", "logprob": -0.25, "bytes": [72, 101]},
            {"token": "\\xf0\\x9f", "logprob": -2.0, "bytes": [240, 159]},
        ],
    },
    {"token": "\\xc3", "logprob": -9999.0, "bytes": [195], "top_logprobs": []},
]


def test_in_a_stream_they_stand_in_the_chunk_of_their_text() -> None:
    encoder = OPENAI.encoder(REQUEST, id="x", created=1)
    sent = encoder.encode([*EVENTS, Finish(reason="stop")]).decode().removeprefix("data: ").strip().split("\n\ndata: ")
    chunks = [ChatCompletionChunk.model_validate_json(one) for one in sent]
    told = [chunk.choices[0].logprobs and chunk.choices[0].logprobs.content for chunk in chunks]
    assert [[token.model_dump() for token in one] if one else None for one in told] == [
        None, SAID[:1], None, SAID[1:], None,
    ]  # fmt: skip
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "He", "y", "", None]


def test_in_a_whole_answer_each_choice_has_its_own() -> None:
    other: list[Event] = [replace(event, choice=1) for event in EVENTS[2:] if isinstance(event, TextDelta)]
    ends: list[Event] = [Finish(reason="stop"), Finish(reason="stop", choice=1)]
    body = encode_whole(REQUEST, [*EVENTS, *other, *ends], id="x", created=1)
    assert ChatCompletion.model_validate_json(body).choices[0].logprobs is not None
    first, second = json.loads(body)["choices"]
    assert first["logprobs"] == {"content": SAID, "refusal": None}
    assert second["logprobs"] == {"content": SAID[1:], "refusal": None}
    assert (first["message"]["content"], second["message"]["content"]) == ("Hey", "y")


def test_who_did_not_ask_is_told_nothing() -> None:
    assert logprobs(()) is None
    body = encode_whole(REQUEST, [STARTED, TextDelta(text="Hi"), Finish(reason="stop")], id="x", created=1)
    assert json.loads(body)["choices"][0]["logprobs"] is None
