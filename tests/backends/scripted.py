"""A cloud without a network, for the tests of the backend: it answers what it is given."""

import asyncio
import json
from contextlib import aclosing

import httpx
import pytest

from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.core.chat import BackendError, TextDelta
from appliance.dialects.openai_chat import OPENAI

KEY = "sk-very-secret-0123456789"
BODY = b'{"model":"gpt-4","stream":true,  "messages":[{"role":"user","content":"Why?"}],"unheard_of":1}'
WHOLE = BODY.replace(b"true", b"false")
SSE = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}
ANSWER = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    },
    indent=3,
).encode()


def chunk(words=None, reason=None):
    delta = {} if words is None else {"content": words}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    said = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4", "choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


class Body(httpx.AsyncByteStream):
    """A body in pieces; an exception among them is raised, and it knows whether it was closed."""

    def __init__(self, *pieces):
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    async def aclose(self):
        self.closed = True


def backend(answer, **target):
    """A backend whose network is `answer`: a response, an exception, or a function of the request."""

    def network(request):
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    made = CloudBackend(CloudTarget(**{"name": "openai", "base_url": "https://cloud.test/v1", **target}), OPENAI)
    made._client._transport = httpx.MockTransport(network)
    return made


async def read(made, body=BODY, model="gpt-4", headers=()):
    async with aclosing(made.stream(OPENAI.parse(body, headers), model)) as batches:
        return [list(batch) async for batch in batches]


def answered(answer, body=BODY, model="gpt-4", headers=(), **target):
    return asyncio.run(read(backend(answer, **target), body, model, headers))


def failed(answer, body=BODY, headers=(), **target):
    with pytest.raises(BackendError) as caught:
        answered(answer, body, headers=headers, **target)
    return caught.value


def words(batches):
    return "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))


def sent(headers=(), body=BODY, model="gpt-4", **target):
    """The request as the cloud gets it."""
    seen = []

    def network(request):
        seen.append(request)
        if b"true" in body:
            return httpx.Response(200, headers=SSE, content=chunk("Hi", "stop"))
        return httpx.Response(200, headers=JSON, content=ANSWER)

    answered(network, body, model, headers, **target)
    return seen[0]
