"""The scripted engine of the campaign: a process that speaks the engine's frames and computes nothing.

    python campaign_child.py FD

It goes on from exactly what it is given: with a mark of it and signed words, or with the rest of a half written call or
document. The load frame's path is a folder, in which it keeps a diary of what it was given and is about to say, and
leaves a file for each of its deaths, so that it dies once.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campaign_words import BOX, DIARY, Astray, Hint, complete, hint, mark, thought, words

from appliance.core.frames import Decoder, Frame, encode

PAUSE = 0.002
AT_ONCE = 3  # frames of an answer between two pauses
SIZES = (1, 4, 9, 2, 17)
READY = {
    "op": "ready", "model": {"name": "scripted"}, "context": 8192, "slots": 8, "threads": 1, "gpu_layers": 0,
    "layers": 1, "gpu_offload": False, "instruction_sets": "none", "load_s": 0.0, "tok_s": 500.0,
}  # fmt: skip


def answer(frame: Frame) -> Iterator[Frame]:
    """All frames behind `begun`."""
    told = hint(str(frame["messages"][-1]["content"])) or Hint(key=0, words=5, calls=0, thinks=False, dies=-1)
    text, calls = begun(frame.get("committed"))
    try:
        for said in _said(frame, told, text, calls):
            yield {"id": frame["id"], **said}
            calls = calls or ([("", "")] if said["op"] == "call" else [])
    except Astray:
        sentence = "The local model cannot go on from what was written of this answer."
        yield {"id": frame["id"], "op": "error", "fault": "server", "message": sentence}
        return
    reason = "tool_calls" if calls else "stop"
    yield {"id": frame["id"], "op": "finish", "reason": reason, **COUNTS, "completion_tokens": told.words}


def begun(committed: Any) -> tuple[str, list[tuple[str, str]]]:
    """The text of a committed answer, and its calls."""
    if committed is None or isinstance(committed, str):
        return committed or "", []
    text = "".join(part["text"] for part in committed if "text" in part)
    return text, [(part["call"]["name"], part["call"]["arguments"]) for part in committed if "call" in part]


def _said(frame: Frame, told: Hint, text: str, calls: list[tuple[str, str]]) -> Iterator[Frame]:
    form, tools, choice = frame.get("format"), frame.get("tools") or [], frame.get("choice", "auto")
    if told.thinks and not text and not calls:
        yield {"op": "reasoning", "text": thought(BOX, told.key, 4)}
    if form is not None:
        yield from _pieces("text", complete(json.dumps(form.get("schema") or {}), text))
        return
    wanted = told.calls if tools and choice != "none" else 0
    must = bool(tools) and choice not in ("auto", "none")
    if must:
        wanted = max(1, wanted)
    if frame.get("parallel") is False:
        wanted = min(1, wanted)
    if not calls and not (must and not text):
        yield from _pieces("text", mark(BOX, text) + words(BOX, told.key, told.words))
    schemas = {tool["name"]: json.dumps(tool["parameters"]) for tool in tools}
    if calls:
        name, arguments = calls[-1]
        rest = complete(schemas.get(name, "{}"), arguments)
        yield from _pieces("arguments", rest, index=len(calls) - 1)
    for index in range(len(calls), wanted):
        name = choice["name"] if isinstance(choice, dict) else chosen(list(schemas), told.key, index)
        yield {"op": "call", "index": index, "name": name}
        yield from _pieces("arguments", complete(schemas[name], ""), index=index)


def chosen(names: list[str], key: int, index: int) -> str:
    return names[zlib.crc32(f"{key} {index}".encode()) % len(names)]


def _pieces(op: str, text: str, **more: Any) -> Iterator[Frame]:
    at = turn = 0
    while at < len(text):
        size = SIZES[turn % len(SIZES)]
        yield {"op": op, "text": text[at : at + size], **more}
        at, turn = at + size, turn + 1


def _arguments(frames: list[Frame]) -> dict[int, str]:
    said: dict[int, str] = {}
    for frame in frames:
        if frame["op"] in ("call", "arguments"):
            said[frame["index"]] = said.get(frame["index"], "") + frame.get("text", "")
    return said


COUNTS = {"prompt_tokens": 21, "cached_tokens": 0}


class Child:
    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._decoder = Decoder()
        self._folder = Path()
        self._diary = -1
        self._answers: dict[int, Iterator[Frame]] = {}
        self._deaths: dict[int, tuple[int, int]] = {}  # by request: its key, and the frames that are left until then

    def run(self) -> None:
        """Until the pipe is closed."""
        while True:
            wait = PAUSE if self._answers else None
            if select.select([self._pipe], [], [], wait)[0]:
                data = self._pipe.recv(1 << 16)
                if not data:
                    return
                for frame in self._decoder.feed(data):
                    self._take(frame)
            self._go_on()

    def _take(self, frame: Frame) -> None:
        match frame["op"]:
            case "load":
                self._folder = Path(frame["path"])
                self._diary = os.open(self._folder / DIARY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._say({"op": "loading", "progress": 1.0}, READY)
            case "generate":
                self._begin(frame)
            case "cancel":
                self._answers.pop(frame["id"], None)
                self._deaths.pop(frame["id"], None)
            case "probe":
                self._say({"op": "alive", "id": frame["id"]})
            case "stats":
                self._say({"op": "stats", "busy": len(self._answers), "waiting": 0, "decoded": 0})
            case "count":
                self._say({"op": "counted", "id": frame["id"], "tokens": 21})

    def _begin(self, frame: Frame) -> None:
        id = frame["id"]
        self._say({"op": "begun", "id": id, **COUNTS, "committed_tokens": 0, "trimmed": 0})
        frames = list(answer(frame))
        self._answers[id] = iter(frames)
        told = hint(str(frame["messages"][-1]["content"]))
        self._write_down(told, frame, frames)
        if told is not None and told.dies >= 0 and not self._grave(told.key).exists():
            self._deaths[id] = told.key, told.dies

    def _write_down(self, told: Hint | None, frame: Frame, frames: list[Frame]) -> None:
        given, calls = begun(frame.get("committed"))
        line = {
            "key": told.key if told is not None else -1,
            "text": [given, "".join(one["text"] for one in frames if one["op"] == "text")],
            "given": [arguments for _, arguments in calls],
            "said": _arguments(frames),
        }
        os.write(self._diary, json.dumps(line).encode() + b"\n")

    def _go_on(self) -> None:
        for id, frames in list(self._answers.items()):
            for _ in range(AT_ONCE):
                if id in self._deaths:
                    key, left = self._deaths[id]
                    if left == 0:
                        self._grave(key).touch()
                        os.kill(os.getpid(), signal.SIGKILL)
                    self._deaths[id] = key, left - 1
                frame = next(frames, None)
                if frame is None:
                    del self._answers[id]
                    self._deaths.pop(id, None)
                    break
                self._say(frame)

    def _grave(self, key: int) -> Path:
        return self._folder / f"died-{key}"

    def _say(self, *frames: Frame) -> None:
        self._pipe.sendall(b"".join(encode(frame) for frame in frames))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Child(socket.socket(fileno=int(sys.argv[1]))).run()
