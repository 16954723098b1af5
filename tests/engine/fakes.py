"""A language model made of paper: it knows one text by heart, and notices when its memory is used wrongly."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import numpy as np

from appliance.core.frames import Frame
from appliance.engine.desk import Desk
from appliance.engine.forms import Forms
from appliance.engine.job import Settings
from appliance.engine.loop import Command, Loop
from appliance.engine.model import DecodeError, Row
from appliance.engine.prompt import Writer
from appliance.engine.sampling import Logits
from appliance.engine.vocabulary import Ids, Index, Vocabulary

END, START, NAMED = 0, 1, 2
CONTROLS = {"<|im_end|>": END, "<|im_start|>": START}
WORDS = (
    b"The", b" The", b" weather", b" wea", b"ther", b" in", b" Paris", b" is", b" fine", b".", b"\n", b"\n\n", b"12",
    b"  ", "🎉".encode(), "ü".encode(),
)  # fmt: skip


def vocabulary(*, named: dict[str, int] | None = None, add_bos: bool = False) -> Vocabulary:
    pieces = [b"", b"", b"<mark>", *WORDS, *(bytes([byte]) for byte in range(256))]
    return Vocabulary(
        pieces=tuple(pieces),
        ends=frozenset({END}),
        controls=CONTROLS,
        named={"<mark>": NAMED} if named is None else named,
        bos=START,
        eos=END,
        bos_text="<|im_start|>",
        eos_text="<|im_end|>",
        add_bos=add_bos,
    )


class Paper:
    """Tokenizes greedily, the longest token first, as its own text is tokenized. Off its text it writes `#`."""

    def __init__(self, text: str, *, slots: int = 2, context: int = 512, rewinds: bool = True) -> None:
        self.vocabulary = vocabulary()
        self.slots, self.context = slots, context
        self.rewinds = rewinds
        self.saved: list[dict[int, list[int]]] = [{} for _ in range(slots)]
        self.copies: list[tuple[int, int]] = []
        self.breaks_at: int | None = None
        self.steps: list[list[Row]] = []
        self.memory: list[list[int]] = [[] for _ in range(slots)]
        self._pieces = {piece: token for token, piece in enumerate(self.vocabulary.pieces) if piece and token != NAMED}
        self._path = [*self.tokenize(text), END]

    def tokenize(self, text: str, *, template: bool = False) -> list[int]:
        letters = text.encode()
        marks = {mark.encode(): token for mark, token in CONTROLS.items()} if template else {}
        known = self._pieces | {b"<mark>": NAMED} | marks
        tokens, at = [], 0
        while at < len(letters):
            size = next(size for size in range(16, 0, -1) if letters[at : at + size] in known)
            tokens.append(known[letters[at : at + size]])
            at += size
        return tokens

    def decode(self, rows: Sequence[Row]) -> Logits:
        self.steps.append(list(rows))
        if self.breaks_at == len(self.steps):
            raise DecodeError("it was told to")
        logits = []
        assert [row.slot for row in rows] == sorted({row.slot for row in rows}), "one share per slot, in rising order"
        for row in rows:
            memory = self.memory[row.slot]
            assert row.start == len(memory), "computed twice, or with a hole"
            for position, token in enumerate(row.tokens, start=row.start):
                memory.append(token)
                assert len(memory) <= self.context
                if position >= row.wanted:
                    logits.append(self._logits(memory))
        return np.array(logits, dtype=np.float32).reshape(-1, len(self.vocabulary))

    def _logits(self, memory: list[int]) -> Logits:
        # The answer begins behind "assistant\n".
        opening = self.tokenize("assistant\n")
        begin = max(i for i in range(len(memory) + 1) if memory[max(0, i - len(opening)) : i] == opening)
        said = memory[begin:]
        on_path = said == self._path[: len(said)] and len(said) < len(self._path)
        logits = np.zeros(len(self.vocabulary), dtype=np.float32)
        logits[self._path[len(said)] if on_path else self._pieces[b"#"]] = 9.0
        return logits

    def forget(self, slot: int) -> None:
        self.memory[slot], self.saved[slot] = [], {}

    def rewind(self, slot: int, position: int) -> int:
        memory = self.memory[slot]
        assert 0 <= position <= len(memory), "there is nothing to go back to"
        if not self.rewinds and position < len(memory):
            position = max((at for at in self.saved[slot] if at <= position), default=0)
            assert self.saved[slot].get(position, []) == memory[:position], "the state belongs to other tokens"
        del memory[position:]
        self.saved[slot] = {at: state for at, state in self.saved[slot].items() if at <= position}
        return position

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.copies.append((source, target))
        self.memory[target] = list(self.memory[source])
        self.saved[target] = dict(self.saved[source])

    def save(self, slot: int) -> None:
        assert not self.rewinds, "nothing needs to be saved"
        self.saved[slot][len(self.memory[slot])] = list(self.memory[slot])

    def chain(self, settings: Settings) -> FirstOfAll:
        return FirstOfAll()


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


class FirstOfAll:
    def draw(self, ids: Ids, logits: Logits) -> int:
        return int(ids[int(logits.argmax())])


class Bench:
    """An engine loop on a paper model, or on a real one, driven by hand."""

    def __init__(self, model: Any, *, queue_limit: int = 4) -> None:
        self.model = model
        self.said: list[Frame] = []
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.writer = Writer(model.vocabulary, model, template=None, own=None, context=model.context)
        self.time = 0.0
        index = Index(model.vocabulary)
        forms = Forms(model.vocabulary, index, model.tokenize)
        self.desk = Desk(self.writer, forms, self.commands.put, self._clock, self.post)
        self.loop = Loop(
            model,
            self,
            self.commands,
            index=index,
            queue_limit=queue_limit,
            clock=self._clock,
        )

    def _clock(self) -> float:
        self.time += 0.01
        return self.time

    def post(self, frames: list[Frame]) -> None:
        self.said += frames

    def ask(self, id: int, *, content: str = "Hello", **more: Any) -> None:
        frame = {"op": "generate", "messages": user(content), "sampling": {"temperature": 0}, **more}
        self.tell(frame | {"id": id})

    def follow(self, id: int, *, content: str = "Hello", committed: str = "", mode: str = "hot", **more: Any) -> None:
        self.tell({"op": "follow", "id": id, "messages": user(content), "committed": committed, "mode": mode, **more})

    def feed(self, id: int, text: str) -> None:
        """More words of the cloud, and time for them to be written."""
        self.tell({"op": "fed", "id": id, "text": text})
        self.time += 1
        self.desk.catch_up()

    def tell(self, frame: Frame) -> None:
        self.desk.take(frame)

    def stats(self) -> Frame:
        self.tell({"op": "stats"})
        self.step()
        return next(frame for frame in reversed(self.said) if frame["op"] == "stats")

    def computed(self) -> int:
        """Tokens of all steps so far."""
        return sum(len(row.tokens) for step in self.model.steps for row in step)

    def step(self) -> bool:
        worked = self.loop.step()
        for slot, memory in enumerate(getattr(self.model, "memory", [])):
            assert self.loop._prefixes.tokens(slot) == memory, "what is said to be computed is what is computed"
        return worked

    def run(self, *, most: int = 2000) -> list[Frame]:
        """Steps until nothing is left to do."""
        for _ in range(most):
            if not self.step():
                return self.said
        raise AssertionError("it never ends")

    def of(self, id: int) -> list[Frame]:
        return [frame for frame in self.said if frame.get("id") == id]

    def text(self, id: int) -> str:
        return "".join(frame["text"] for frame in self.of(id) if frame["op"] == "text")

    def last(self, id: int) -> Frame:
        return self.of(id)[-1]
