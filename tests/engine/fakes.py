"""A language model made of paper: it knows one text by heart, and notices when its memory is used wrongly."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import numpy as np

from appliance.core.frames import Frame
from appliance.engine.job import Settings, parse
from appliance.engine.loop import Command, Loop, Ready
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

    def __init__(self, text: str, *, slots: int = 2, context: int = 512, rolls_back: bool = True) -> None:
        self.vocabulary = vocabulary()
        self.slots, self.context = slots, context
        self.rolls_back = rolls_back
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

    def forget(self, slot: int, start: int = 0) -> None:
        if start and not self.rolls_back:
            raise DecodeError("no way back")
        del self.memory[slot][start:]

    def chain(self, settings: Settings) -> FirstOfAll:
        return FirstOfAll()


class FirstOfAll:
    def draw(self, ids: Ids, logits: Logits) -> int:
        return int(ids[int(logits.argmax())])


class Bench:
    """An engine loop on a paper model, driven by hand."""

    def __init__(self, model: Paper, *, queue_limit: int = 4) -> None:
        self.model = model
        self.said: list[Frame] = []
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.writer = Writer(model.vocabulary, model, template=None, own=None, context=model.context)
        self.time = 0.0
        self.loop = Loop(
            model,
            self,
            self.commands,
            index=Index(model.vocabulary),
            queue_limit=queue_limit,
            clock=self._clock,
        )

    def _clock(self) -> float:
        self.time += 0.01
        return self.time

    def post(self, frames: list[Frame]) -> None:
        self.said += frames

    def ask(self, id: int, *, content: str = "Hello", **more: Any) -> None:
        frame = {"id": id, "messages": [{"role": "user", "content": content}], "sampling": {"temperature": 0}, **more}
        job = parse(frame, vocabulary=len(self.model.vocabulary))
        self.commands.put(Ready(id, job, self.writer.write(job)))

    def run(self, *, most: int = 2000) -> list[Frame]:
        """Steps until nothing is left to do."""
        for _ in range(most):
            if not self.loop.step():
                return self.said
        raise AssertionError("it never ends")

    def of(self, id: int) -> list[Frame]:
        return [frame for frame in self.said if frame.get("id") == id]

    def text(self, id: int) -> str:
        return "".join(frame["text"] for frame in self.of(id) if frame["op"] == "text")

    def last(self, id: int) -> Frame:
        return self.of(id)[-1]
