"""The starter model goes on where a cloud stopped, with what was computed beforehand, as if it had come in cold."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.core.frames import Decoder, Frame, encode
from appliance.engine.load import Load
from appliance.engine.model import Model
from appliance.engine.pieces import Pieces, cuts
from appliance.engine.prompt import CHATML

from .fakes import Bench, user

pytestmark = pytest.mark.live
STORY = "You are a helpful assistant. You answer truthfully, in one short sentence. " * 8
QUESTION = STORY + "\nWhat is the capital of France?"
NEXT = "What is the capital of Italy?"
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def model(starter_gguf: Path) -> Model:
    return Model(Load(path=str(starter_gguf), context=1024, slots=3, threads=1))


@pytest.fixture
def box(model: Model) -> Bench:
    for slot in range(model.slots):
        model.forget(slot)
    return Bench(model)


def answer(box: Bench, id: int, **more: Any) -> str:
    box.ask(id, **{"max_tokens": 20, **more})
    box.run()
    return box.text(id)


def emptied(box: Bench) -> Bench:
    for slot in range(box.model.slots):
        box.model.forget(slot)
    return Bench(box.model)


def test_the_next_turn_computes_only_what_is_new_and_says_the_same(box: Bench) -> None:
    said = answer(box, 1, content=QUESTION)
    turns = [*user(QUESTION), {"role": "assistant", "content": said}, *user(NEXT)]
    second = answer(box, 2, messages=turns)
    first, last = box.last(1), box.last(2)
    assert last["cached_tokens"] >= first["prompt_tokens"] + first["completion_tokens"] - 2
    assert last["timings"]["prompt_n"] < 20
    assert second == answer(emptied(box), 1, messages=turns)


def test_a_shared_system_prompt_is_copied_from_who_is_being_answered(box: Bench) -> None:
    system = {"role": "system", "content": STORY}
    box.ask(1, messages=[system, *user("Tell me a story.")], max_tokens=30)
    while not box.text(1):
        box.step()
    messages = [system, *user("What is the capital of France?")]
    said = answer(box, 2, messages=messages)
    assert box.last(2)["cached_tokens"] > 100
    assert said == answer(emptied(box), 1, messages=messages)


@pytest.mark.parametrize("at", [0, 6, 26])
def test_a_takeover_after_a_standby_says_what_a_cold_one_says(box: Bench, at: int) -> None:
    box.follow(1, content=QUESTION)
    for begin in range(0, at, 4):
        box.feed(1, PARIS[begin : min(begin + 4, at)])
        box.run()
    box.run()
    box.tell({"op": "cancel", "id": 1})
    steps = box.stats()["steps"]
    box.ask(2, content=QUESTION, committed=PARIS[:at], max_tokens=20)
    while box.stats()["steps"] == steps:
        box.step()
    box.run()
    last = box.last(2)
    assert last["cached_tokens"] >= last["prompt_tokens"] - 1
    assert last["timings"]["prompt_n"] <= 8
    assert box.text(2) == answer(emptied(box), 1, content=QUESTION, committed=PARIS[:at])


def test_a_prompt_given_up_frees_its_slot_before_the_next_step(box: Bench) -> None:
    box.ask(1, content=QUESTION)
    box.step()
    box.tell({"op": "cancel", "id": 1})
    stats = box.stats()
    assert (stats["busy"], stats["kept"]) == (0, 1)
    assert stats["computed"] < 400


def test_pieces_of_real_text_are_tokens_of_the_whole(model: Model) -> None:
    turns = "".join(f"<|im_start|>user\n{STORY[at : at + 90]}<|im_end|>\n" for at in range(0, 900, 90))
    allowed = cuts(model.vocabulary, CHATML)
    assert len(allowed) == 2
    assert Pieces(model, allowed).tokens(turns) == model.tokenize(turns, template=True)


# ----------------------------------------------------------------------------------------------- over a real pipe


class Child:
    """The engine's process, spoken to in frames."""

    def __init__(self, path: Path) -> None:
        self.pipe, other = socket.socketpair()
        self.pipe.settimeout(60)
        command = [sys.executable, "-m", "appliance.engine", str(other.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[other.fileno()], stderr=subprocess.DEVNULL, env=os.environ)
        other.close()
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.tell({"op": "load", "path": str(path), "context": 1024, "slots": 2, "queue": 4})

    def tell(self, *frames: Frame) -> None:
        self.pipe.sendall(b"".join(map(encode, frames)))

    def until(self, op: str, **more: Any) -> Frame:
        """The next frame of this kind."""
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame["op"] == op and more.items() <= frame.items():
                    return frame
            self.frames += self.decoder.feed(self.pipe.recv(1 << 16))

    def stats(self) -> Frame:
        self.tell({"op": "stats"})
        return self.until("stats")

    def close(self) -> None:
        self.pipe.close()
        self.process.wait(10)


@pytest.fixture
def child(starter_gguf: Path) -> Iterator[Child]:
    child = Child(starter_gguf)
    child.until("ready")
    yield child
    child.close()


def test_a_cloud_dies_and_the_engine_goes_on(child: Child) -> None:
    messages = user(QUESTION)
    child.tell({"op": "follow", "id": 1, "messages": messages, "committed": "", "mode": "hot", "suspicion": 0.0})
    for piece in ("The cap", "ital of", " France i"):
        child.tell({"op": "fed", "id": 1, "text": piece})
    deadline = time.monotonic() + 60
    while child.stats()["standby_ready"] != 1:
        assert time.monotonic() < deadline
    child.tell({"op": "suspect", "id": 1, "level": 1.5}, {"op": "probe", "id": 2})
    child.until("alive", id=2)
    sampling = {"temperature": 0}
    committed = "The capital of France i"
    generate = {"op": "generate", "id": 3, "messages": messages, "committed": committed, "sampling": sampling}
    child.tell({"op": "cancel", "id": 1}, generate)
    assert child.until("begun", id=3)["cached_tokens"] > 100
    assert child.until("text", id=3)["text"].startswith("s")
    finish = child.until("finish", id=3)
    assert finish["cached_tokens"] == finish["prompt_tokens"]
    stats = child.stats()
    assert (stats["standbys"], stats["busy"], stats["kept"]) == (0, 0, 1)
