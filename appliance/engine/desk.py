"""Prompts are written here, beside the decode, so that a long conversation delays nobody else's answer.

Rules:

1. What came through the pipe leaves in the same order; only the words of standbys may wait.
2. They wait for whatever else there is to do, and are then written once, as they are by then: many pieces cost as much
   as one. Writing takes a twentieth of the time at most, and is done at once when the cloud becomes suspicious.
3. A standby that cannot be written ends without a word: nobody waits for it.
4. To count tokens needs no computing: the answer goes out from here, past everything that waits.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.core.frames import Frame
from appliance.core.standby import Mode
from appliance.engine.forms import Forms
from appliance.engine.job import Job, Refusal, parse
from appliance.engine.loop import Command, Ready
from appliance.engine.prompt import Prompt, Writer
from appliance.engine.standing import Followed

PAUSE = 0.01
"""Seconds between two writings of the same standby. What a cloud wrote meanwhile is what a takeover has to compute."""
SHARE = 20


@dataclass(slots=True)
class _Draft:
    job: Job
    prompt: Prompt
    more: list[str]
    due: float


class Desk:
    def __init__(
        self,
        writer: Writer,
        forms: Forms,
        put: Callable[[Command], None],
        clock: Callable[[], float],
        post: Callable[[list[Frame]], None],
    ) -> None:
        """`put` is to the loop, `post` to the service."""
        self._writer = writer
        self._forms = forms
        self._put = put
        self._post = post
        self._clock = clock
        self._drafts: dict[int, _Draft] = {}

    def run(self, inbox: queue.SimpleQueue[Frame]) -> None:
        """For ever."""
        while True:
            try:
                self.take(inbox.get(timeout=self.patience))
            except queue.Empty:
                self.catch_up()

    @property
    def patience(self) -> float | None:
        """Seconds until words that wait are due. None: none wait."""
        dues = [draft.due for draft in self._drafts.values() if draft.more]
        return max(0.0, min(dues) - self._clock()) if dues else None

    def take(self, frame: Frame) -> None:
        """A frame came."""
        op, id = frame.get("op"), frame.get("id", -1)
        if op == "generate":
            self._put(self._ready(frame))
        elif op == "count":
            self._post([self._counted(frame)])
        elif op == "follow":
            self._follow(frame)
        elif op == "fed":
            if id in self._drafts:
                self._drafts[id].more.append(str(frame.get("text", "")))
        else:
            if op == "cancel":
                self._drafts.pop(id, None)
            elif op == "suspect" and id in self._drafts:
                self._write(id)
            self._put(frame)

    def catch_up(self) -> None:
        """Nothing else is to be done: write the words that have waited longest, if they are due."""
        waiting = [(draft.due, id) for id, draft in self._drafts.items() if draft.more]
        if waiting:
            due, id = min(waiting)
            if due <= self._clock():
                self._write(id)

    def _ready(self, frame: Frame) -> Ready:
        try:
            job = parse(frame, vocabulary=self._writer.vocabulary_size)
            prompt = self._writer.write(job)
            return Ready(frame["id"], job, prompt, self._forms.of(job, prompt))
        except Exception as error:
            return Ready(frame["id"], refusal=_refusal(error))

    def _counted(self, frame: Frame) -> Frame:
        id = frame["id"]
        try:
            job = parse(frame, vocabulary=self._writer.vocabulary_size)
            return {"op": "counted", "id": id, "tokens": self._writer.count(job)}
        except Exception as error:
            refusal = _refusal(error)
            return {"op": "error", "id": id, "fault": refusal.fault, "message": refusal.message} | refusal.more

    def _follow(self, frame: Frame) -> None:
        try:
            job = parse(frame, vocabulary=self._writer.vocabulary_size)
            prompt = self._writer.write(job)
        except Refusal:
            return
        except Exception as error:
            _tell(error)
            return
        self._drafts[job.id] = _Draft(job, prompt, [], self._clock() + PAUSE)
        mode: Mode = "hot" if frame.get("mode") == "hot" else "auto"
        self._put(Followed(id=job.id, prompt=prompt, mode=mode, suspicion=float(frame.get("suspicion") or 0.0)))

    def _write(self, id: int) -> None:
        draft = self._drafts[id]
        if not draft.more:
            return
        began = self._clock()
        job = draft.job = replace(draft.job, committed=draft.job.committed + "".join(draft.more))
        draft.more.clear()
        try:
            draft.prompt = self._writer.go_on(job, draft.prompt)
        except Exception as error:
            if not isinstance(error, Refusal):
                _tell(error)
            del self._drafts[id]
            self._put(Followed(id=id, prompt=None))
            return
        now = self._clock()
        draft.due = now + max(PAUSE, SHARE * (now - began))
        self._put(Followed(id=id, prompt=draft.prompt))


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    _tell(error)
    return Refusal("server", "The local model's engine could not read this request.")


def _tell(error: Exception) -> None:
    # Not the message: it could say what somebody wrote.
    print(f"A prompt could not be written: {type(error).__name__}", file=sys.stderr, flush=True)
