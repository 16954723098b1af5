"""A cloud on a real socket, for the tests of the backend: it answers what it is given."""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from appliance.backends.cloud import CloudBackend, CloudTarget
from appliance.core.events import TextDelta
from appliance.core.fault import BackendError
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


@dataclass(frozen=True)
class Sent:
    """A request, as the cloud got it: its headers in their very bytes, with lower-case names."""

    method: str
    target: str
    headers: tuple[tuple[str, bytes], ...]
    body: bytes

    def values(self, name):
        return [value.decode("latin-1") for found, value in self.headers if found == name]

    def header(self, name):
        return next(iter(self.values(name)), None)


class Gate:
    """In the place of a piece: what stands behind it is sent once the test opens it."""

    def __init__(self):
        self.open = asyncio.Event()


RESET = "reset"
"""In the place of a piece: the connection is reset there."""
CUT = "cut"
"""In the place of a piece: the connection is closed there, in the middle of the body."""


class Nonsense(bytes):
    """In the place of a piece: no chunk, as it stands."""


@dataclass
class Says:
    """An answer: its body goes out in these pieces, a chunk each, every one for itself."""

    status: int = 200
    headers: dict | list = field(default_factory=dict)
    pieces: tuple = ()

    def head(self):
        items = self.headers.items() if isinstance(self.headers, dict) else self.headers
        lines = [b"%b: %b" % (_bytes(name), _bytes(value)) for name, value in items]
        return b"\r\n".join([b"HTTP/1.1 %d Said" % self.status, *lines, b"transfer-encoding: chunked", b"", b""])


class Silent(Says):
    """No answer, not even a head."""

    def __init__(self):
        super().__init__(pieces=(Gate(),))

    def head(self):
        return b""


def says(status=200, headers=SSE, *pieces):
    return Says(status, headers, pieces)


def _bytes(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")


class Scripted:
    """The server: `answer` is what it says to every request, a `Says`, raw bytes with which it hangs up, or a function
    of the request. It knows what it was sent, and how many connections were made, and how many are open."""

    def __init__(self, answer):
        self._answer = answer
        self.sent = []
        self.made = 0
        self.departed = asyncio.Event()
        """Somebody hung up in the middle of an answer."""
        self._writers = set()

    @property
    def open(self):
        return len(self._writers)

    async def speak(self, reader, writer):
        self.made += 1
        self._writers.add(writer)
        try:
            while True:
                request = await receive(reader)
                self.sent.append(request)
                answer = self._answer(request) if callable(self._answer) else self._answer
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    return
                if not await self._say(answer, reader, writer):
                    return
        finally:
            self._writers.discard(writer)

    async def _say(self, answer, reader, writer):
        """False if the connection is not to be used any more."""
        writer.write(answer.head())
        for piece in answer.pieces:
            if piece is RESET:
                await writer.drain()
                writer.transport.abort()
                return False
            if piece is CUT:
                return False
            if isinstance(piece, Gate):
                if not await self._wait(piece, reader):
                    return False
            elif isinstance(piece, Nonsense):
                writer.write(piece)
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _wait(self, gate, reader):
        gone = asyncio.ensure_future(reader.read(1))
        opened = asyncio.ensure_future(gate.open.wait())
        await asyncio.wait((gone, opened), return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if not gone.done():
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            return True
        with suppress(ConnectionError):
            gone.result()
        self.departed.set()
        return False


async def receive(reader):
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    method, target, _ = first.decode().split(" ")
    headers = tuple((name.decode().lower(), value.strip()) for name, _, value in (x.partition(b":") for x in lines))
    length = int(dict(headers).get("content-length", b"0"))
    return Sent(method, target, headers, await reader.readexactly(length))


@asynccontextmanager
async def listening(speak, **options):
    """A server that talks with `speak`, to the end of the test; gives its port."""
    talking = set()

    async def spoken(reader, writer):
        talking.add(asyncio.current_task())
        try:
            await speak(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever called has hung up, or the test is over
        finally:
            writer.close()
            talking.discard(asyncio.current_task())

    server = await asyncio.start_server(spoken, "127.0.0.1", 0, **options)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            left = tuple(talking)
            for task in left:
                task.cancel()
            await asyncio.gather(*left)
            await asyncio.sleep(0)  # what was closed is told


@asynccontextmanager
async def serving(answer, dialect=OPENAI, **target):
    """A backend, and the cloud it asks."""
    cloud = Scripted(answer)
    async with listening(cloud.speak) as port:
        settings = {"name": "openai", "base_url": f"http://127.0.0.1:{port}/v1", **target}
        made = CloudBackend(CloudTarget(**settings), dialect)
        try:
            yield made, cloud
        finally:
            await made.aclose()


async def read(made, body=BODY, model="gpt-4", headers=(), request=None):
    async with aclosing(made.stream(request or OPENAI.parse(body, headers), model)) as batches:
        return [list(batch) async for batch in batches]


async def heard(made, body=BODY):
    """The words that came, and the error they ended with."""
    got, error = [], None
    try:
        async with aclosing(made.stream(OPENAI.parse(body), "gpt-4")) as batches:
            async for batch in batches:
                got.append(list(batch))
    except BackendError as caught:
        error = caught
    return words(got), error


def within(scene, answer, **target):
    """What `scene(backend, cloud)` gives."""

    async def played():
        async with serving(answer, **target) as (made, cloud):
            return await scene(made, cloud)

    return asyncio.run(played())


def answered(answer, body=BODY, model="gpt-4", headers=(), **target):
    return within(lambda made, _: read(made, body, model, headers), answer, **target)


def failed(answer, body=BODY, headers=(), **target):
    with pytest.raises(BackendError) as caught:
        answered(answer, body, headers=headers, **target)
    return caught.value


def words(batches):
    return "".join(event.text for batch in batches for event in batch if isinstance(event, TextDelta))


def healthy(request):
    if b'"stream":true' in request.body:
        return says(200, SSE, chunk("Hi", "stop"))
    return says(200, JSON, ANSWER)


def sent(headers=(), body=BODY, model="gpt-4", request=None, **target):
    """The request as the cloud gets it."""

    async def scene(made, cloud):
        await read(made, body, model, headers, request)
        return cloud.sent[0]

    return within(scene, healthy, **target)
