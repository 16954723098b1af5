"""A stage whose server has short limits, and clients on bare sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.guard.limits import Limits
from appliance.server.connection import Connection
from appliance.server.crowd import Crowd
from tests import fakes
from tests.fakes import BODY, Stage

QUICK = Limits(
    head=4096,
    fields=20,
    url=1000,
    body=200_000,
    bodies=300_000,
    messages=50,
    values=2000,
    connections=8,
    idle=0.3,
    head_time=0.1,
    body_stall=0.1,
    body_time=0.3,
    drain_time=0.2,
    write_stall=0.2,
)


class BoundedStage:
    """A stage and the crowd at its door."""

    def __init__(self, stage: Stage, crowd: Crowd[Connection]) -> None:
        self.stage = stage
        self.crowd = crowd
        self._clients: list[Client] = []

    @property
    def port(self) -> int:
        return int(self.stage.url.rpartition(":")[2])

    def open(self) -> Client:
        self._clients.append(Client(self.port))
        return self._clients[-1]

    def all_leave(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def say(self, *pieces: bytes) -> Client:
        client = self.open()
        for piece in pieces:
            client.send(piece)
        return client


@contextmanager
def bounded_stage(home: Path, limits: Limits = QUICK, **options: Any) -> Iterator[BoundedStage]:
    with fakes.stage(home, limits=limits, **options) as running:
        yield BoundedStage(running, running.crowd)


class Client:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, wanted: bytes = b"\r\n\r\n") -> bytes:
        heard = b""
        while wanted not in heard:
            data = self.socket.recv(65536)
            assert data, f"the box hung up after {heard[-300:]!r}"
            heard += data
        return heard

    def to_end(self) -> bytes:
        """All that comes until the box closes; a reset is no end."""
        heard = b""
        while data := self.socket.recv(65536):
            heard += data
        return heard

    def close(self) -> None:
        self.socket.close()


def get(path: str = "/healthz", *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: localhost", *fields, "", ""]).encode()


def post(body: bytes | None = None, *fields: str, length: int | None = None, **changes: Any) -> bytes:
    """A chat request; `changes` are fields of its body, `length` what its head says."""
    if body is None:
        body = json.dumps({**BODY, **changes}).encode()
    told = (
        [] if "transfer-encoding: chunked" in fields else [f"content-length: {len(body) if length is None else length}"]
    )
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json", *told, *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(heard: bytes) -> int:
    return int(heard.split(b" ", 2)[1])


def sentence(heard: bytes) -> str:
    """The one sentence of an error in OpenAI's shape."""
    error = json.loads(heard.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    return str(error["message"])
