"""The whole service as systemd runs it: a real process, a real notify socket, real signals, the real engine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.live

PATIENCE = 60.0
BEAT = 0.2
LONG = {
    "model": "local",
    "stream": True,
    "max_tokens": 120,
    "temperature": 0,
    "logit_bias": {"0": -100, "2": -100},  # it is not to end by itself
    "messages": [{"role": "user", "content": "Tell a long story."}],
}


class Service:
    """`appliance serve` below `home`, and what it says to its supervisor."""

    def __init__(self, home: Path, process: subprocess.Popen[str], ear: socket.socket) -> None:
        self.home, self.process, self._ear = home, process, ear
        assert process.stdout is not None
        first = "".join(process.stdout.readline() for _ in range(3))
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found, first
        self.url = found[0]
        self._rest = threading.Thread(target=process.stdout.read)  # so that the pipe is never full
        self._rest.start()

    def hears(self, word: str, *, begins: bool = False) -> list[str]:
        """What was said up to the datagram with this word in it, or with one that begins so; that one included."""
        lines: list[str] = []
        while not any(line == word or (begins and line.startswith(word)) for line in lines):
            lines = [*lines, *self._ear.recv(4096).decode().splitlines()]
        return lines

    def silent(self, seconds: float) -> bool:
        """Nothing more comes within these seconds, once what had been said is heard."""
        self._ear.settimeout(seconds)
        try:
            for _ in range(10):
                self._ear.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._ear.settimeout(PATIENCE)
        return False

    def write(self, text: str) -> None:
        (self.home / "appliance.toml").write_text(text)

    def engine(self) -> dict[str, object]:
        status = httpx.get(f"{self.url}/appliance/status", timeout=PATIENCE, trust_env=False).json()
        engine: dict[str, object] = status["engine"]
        return engine

    @contextmanager
    def answering(self) -> Iterator[Iterator[str]]:
        """A long answer that has begun; gives its events."""
        with httpx.stream(
            "POST", f"{self.url}/v1/chat/completions", json=LONG, timeout=PATIENCE, trust_env=False
        ) as it:
            events = (line.removeprefix("data: ") for line in it.iter_lines() if line.startswith("data: "))
            next(events)
            yield events


def ended_well(events: Iterator[str]) -> bool:
    *_, last, done = events
    return done == "[DONE]" and json.loads(last)["choices"][0]["finish_reason"] == "length"


@pytest.fixture
def service(isolated: Path, starter_gguf: Path) -> Iterator[Service]:
    (isolated / "models").mkdir()
    (isolated / "models" / starter_gguf.name).symlink_to(starter_gguf)
    (isolated / "appliance.toml").write_text("[local]\ncontext = 512\nslots = 2\n")
    address = str(isolated / "notify")
    environ = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": f"{2 * BEAT * 1e6:.0f}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.settimeout(PATIENCE)
        with subprocess.Popen(
            [sys.executable, "-m", "appliance", "serve", "--port", "0"], env=environ, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Service(isolated, process, ear)
            finally:
                process.kill()


def test_a_life_under_a_supervisor(service: Service, isolated: Path) -> None:
    before = service.hears("READY=1")
    assert before[0] == "WATCHDOG=1" and "EXTEND_TIMEOUT_USEC=60000000" in before
    assert service.hears("WATCHDOG=1") and service.engine()["state"] == "ready"

    # What does not move says nothing, and is alive again as soon as it moves.
    os.kill(service.process.pid, signal.SIGSTOP)
    assert service.silent(5 * BEAT)
    os.kill(service.process.pid, signal.SIGCONT)
    service.hears("WATCHDOG=1")

    # A file that is wrong changes nothing.
    service.write("[local]\ncontxt = 1024\n")
    service.process.send_signal(signal.SIGHUP)
    service.hears("RELOADING=1")
    service.hears("READY=1")
    assert (service.engine()["slots"], service.engine()["context"]) == (2, 512)

    # Another engine is loaded when the running answer is whole.
    with service.answering() as events:
        service.write("[local]\ncontext = 1024\nslots = 1\n")
        service.process.send_signal(signal.SIGHUP)
        service.hears("READY=1")
        assert ended_well(events)
    service.hears("STATUS=Answers come from local; starter on the box: ready.")
    assert (service.engine()["slots"], service.engine()["context"]) == (1, 1024)

    # One that cannot be used is refused, and the one there is goes on.
    (isolated / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    pid = service.engine()["pid"]
    service.write('[local]\nmodel = "broken.gguf"\n')
    service.process.send_signal(signal.SIGHUP)
    service.hears("READY=1")
    refused = "broken was refused: "
    service.hears(f"STATUS=Answers come from local; starter on the box: ready. {refused}", begins=True)
    assert (service.engine()["model"], service.engine()["pid"]) == ("starter", pid)

    # The end: what runs is finished, and it says so while it lasts.
    with service.answering() as events:
        service.process.terminate()
        service.hears("STOPPING=1")
        service.hears("WATCHDOG=1")
        assert ended_well(events)
    assert service.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("trouble", "code", "sentence"),
    [
        ("[local]\ncontxt = 5\n", 64, 'has no key "contxt"'),
        ('[local]\nmodel = "nowhere.gguf"\n', 64, "does not exist"),
        ('[local]\nmodel = "broken.gguf"\n', 64, "is damaged or truncated"),
        ("", 1, "address already in use"),
    ],
    ids=["configuration", "no-model", "broken-model", "port"],
)
def test_the_exit_code_says_whether_to_start_again(
    trouble: str, code: int, sentence: str, isolated: Path, starter_gguf: Path
) -> None:
    (isolated / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    text = trouble or f'[local]\nmodel = "{starter_gguf}"\n'
    (isolated / "appliance.toml").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1] if code == 1 else 0)
        said = subprocess.run(
            [sys.executable, "-m", "appliance", "serve", "--port", port],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
    assert (said.returncode, sentence in said.stderr) == (code, True), said.stderr
