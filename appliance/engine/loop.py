"""The engine's work, step by step: take commands, plan, compute, draw, post.

Rules:

1. Only this thread computes. Commands come from a queue; what is said goes into the outbox; neither makes it wait,
   except when there is nothing to do: then it waits for a command.
2. Whatever goes wrong with one request ends that request with an error frame; the others go on. If a whole step
   cannot be computed, the requests in it end, their sequences are cleared, and the engine lives.
3. A request that was given up is forgotten before the next step, wherever it is.
"""

from __future__ import annotations

import queue
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.core.frames import Frame
from appliance.engine.answer import Answer, Reason, Times, answer
from appliance.engine.job import Job, Refusal, Settings
from appliance.engine.model import DecodeError, Row
from appliance.engine.prompt import Prompt
from appliance.engine.sampling import Chain, Logits, Sampler
from appliance.engine.scheduler import SMALLEST_PACE, Scheduler, Share, pace
from appliance.engine.vocabulary import Index, Vocabulary


class Computer(Protocol):
    """What the loop needs of a model."""

    vocabulary: Vocabulary
    context: int
    slots: int

    def decode(self, rows: Sequence[Row]) -> Logits: ...

    def forget(self, slot: int, start: int = 0) -> None: ...

    def chain(self, settings: Settings) -> Chain: ...


class Post(Protocol):
    def post(self, frames: list[Frame]) -> None: ...


class Ready:
    """A generate frame whose prompt is written, or refused: what the reader puts into the queue."""

    def __init__(self, id: int, job: Job | None = None, prompt: Prompt | None = None, refusal: Refusal | None = None):
        self.id, self.job, self.prompt, self.refusal = id, job, prompt, refusal


Command = Ready | Frame


class Loop:
    def __init__(
        self,
        model: Computer,
        outbox: Post,
        commands: queue.SimpleQueue[Command],
        *,
        index: Index,
        queue_limit: int,
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._outbox = outbox
        self._commands = commands
        self._index = index
        self._clock = clock
        self._scheduler = Scheduler(slots=model.slots, queue=queue_limit)
        self._answers: dict[int, Answer] = {}
        self._frames: list[Frame] = []
        self._prefill_speed: float | None = None
        self._decoded = 0
        self._computed = 0
        self._busy_seconds = 0.0

    def run(self) -> None:
        """For ever: the process ends when the pipe does."""
        while True:
            self.step(wait=True)

    def step(self, *, wait: bool = False) -> bool:
        """One round. False: there was nothing to do."""
        self._take(wait=wait and not self._answers)
        self._begin()
        worked = bool(self._answers) and self._compute()
        if self._frames:
            frames, self._frames = self._frames, []
            self._outbox.post(frames)
        return worked

    # ---------------------------------------------------------------------------------------------- commands

    def _take(self, *, wait: bool) -> None:
        try:
            if wait:
                self._command(self._commands.get())
            while True:
                self._command(self._commands.get_nowait())
        except queue.Empty:
            return

    def _command(self, command: Command) -> None:
        if isinstance(command, Ready):
            self._admit(command)
        elif command["op"] == "cancel":
            self._drop(command["id"])
        elif command["op"] == "stats":
            self._frames.append(self.stats())

    def stats(self) -> Frame:
        return {
            "op": "stats",
            "busy": self._scheduler.busy,
            "waiting": self._scheduler.waiting,
            "decoded": self._decoded,
            "computed": self._computed,
            "prefill_tok_s": self._prefill_speed,
            "busy_s": self._busy_seconds,
        }

    def _admit(self, ready: Ready) -> None:
        if ready.refusal is not None:
            self._refuse(ready.id, ready.refusal)
            return
        job, prompt = ready.job, ready.prompt
        assert job is not None
        assert prompt is not None
        try:
            sampler = Sampler(job.settings, self._model.chain, prompt.cut.kept)
            new = answer(
                job,
                prompt,
                vocabulary=self._model.vocabulary,
                index=self._index,
                sampler=sampler,
                context=self._model.context,
            )
            if not self._scheduler.admit(job.id, len(new.known)):
                raise Refusal("busy", "The local model is answering as many requests as it may; try again soon.")
        except Refusal as refusal:
            self._refuse(ready.id, refusal)
        except Exception:
            self._refuse(ready.id, _unexpected())
        else:
            self._answers[job.id] = new

    def _begin(self) -> None:
        for id, slot in self._scheduler.seat():
            one = self._answers[id]
            one.slot = slot
            one.times = Times(began=self._clock())
            self._frames.append(
                {
                    "op": "begun",
                    "id": id,
                    "prompt_tokens": len(one.prompt.tokens),
                    "cached_tokens": 0,
                    "committed_tokens": one.prompt.committed,
                    "trimmed": one.prompt.trimmed,
                }
            )
            if one.prompt.committed >= one.limit:
                self._finish(one, "length")

    # --------------------------------------------------------------------------------------------- computing

    def _compute(self) -> bool:
        plan = self._scheduler.plan(self._model.slots + pace(self._prefill_speed))
        if not plan:
            return False
        rows = []
        for share in plan:
            one = self._answers[share.id]
            tokens = one.known[share.start : share.start + share.count]
            rows.append(Row(share.slot, share.start, tokens, one.wanted))
        before = self._clock()
        try:
            logits = self._model.decode(rows)
        except DecodeError as error:
            print(f"A step of {sum(share.count for share in plan)} tokens failed: {error}.", file=sys.stderr)
            for share in plan:
                self._refuse(share.id, Refusal("server", "The local model could not compute the next step."))
            return True
        now = self._clock()
        self._measure(plan, now - before)
        at = 0
        for share in plan:
            one = self._answers[share.id]
            end = share.start + share.count
            wanted = max(0, end - max(one.wanted, share.start))
            mine, at = logits[at : at + wanted], at + wanted
            try:
                self._advance(one, share, mine, now)
            except Refusal as refusal:
                self._refuse(share.id, refusal)
            except Exception:
                self._refuse(share.id, _unexpected())
        return True

    def _advance(self, one: Answer, share: Share, logits: Logits, now: float) -> None:
        """The request's share is computed: draw what can be drawn."""
        self._scheduler.computed(share.id, share.count)
        if not len(logits):
            return
        if one.times.first is None:
            one.times.first = now
        before = one.sure
        drawn = one.draw(logits)
        self._decoded += one.sure - before
        if drawn.text:
            self._frames.append({"op": "text", "id": share.id, "text": drawn.text})
        if drawn.reason is not None:
            self._finish(one, drawn.reason)
            return
        if drawn.rolled_back is not None:
            self._roll_back(share, drawn.rolled_back)
        self._scheduler.know(share.id, len(one.known))

    def _roll_back(self, share: Share, position: int) -> None:
        try:
            self._model.forget(share.slot, position)
        except DecodeError:
            # A recurrent model has no past to go back to: its sequence is computed again, from the start.
            self._model.forget(share.slot)
            position = 0
        self._scheduler.know(share.id, position)

    def _measure(self, plan: Sequence[Share], seconds: float) -> None:
        count = sum(share.count for share in plan)
        self._computed += count
        self._busy_seconds += seconds
        # Small steps say nothing about prefill: most of their time is reading the weights once.
        if count >= SMALLEST_PACE and seconds > 0:
            speed = count / seconds
            self._prefill_speed = speed if self._prefill_speed is None else 0.7 * self._prefill_speed + 0.3 * speed

    # ------------------------------------------------------------------------------------------------ endings

    def _finish(self, one: Answer, reason: Reason) -> None:
        now = self._clock()
        times = one.times
        first = now if times.first is None else times.first
        generated = max(one.completion - one.prompt.committed, 0)
        self._frames.append(
            {
                "op": "finish",
                "id": one.job.id,
                "reason": reason,
                "prompt_tokens": len(one.prompt.tokens),
                "completion_tokens": max(one.completion, one.prompt.committed if reason == "length" else 0),
                "cached_tokens": 0,
                "timings": {
                    "prompt_n": len(one.prompt.tokens) + one.prompt.committed,
                    "prompt_ms": round((first - times.began) * 1000, 3),
                    "predicted_n": generated,
                    "predicted_ms": round((now - first) * 1000, 3),
                },
            }
        )
        self._drop(one.job.id)

    def _refuse(self, id: int, refusal: Refusal) -> None:
        error = {"op": "error", "id": id, "fault": refusal.fault, "message": refusal.message}
        self._frames.append(error | refusal.more)
        self._drop(id)

    def _drop(self, id: int) -> None:
        """Forget the request, wherever it is. Its sequence is empty for whoever comes next."""
        self._answers.pop(id, None)
        if id not in self._scheduler:
            return
        slot = self._scheduler.end(id)
        if slot is not None:
            self._model.forget(slot)


def _unexpected() -> Refusal:
    # The stack says where, the message could say what somebody wrote: only the first goes to the log.
    kind, _, trace = sys.exc_info()
    where = traceback.extract_tb(trace)[-1] if trace else None
    name = kind.__name__ if kind else "nothing"
    print(f"A request failed: {name} at {where.filename}:{where.lineno}" if where else name, file=sys.stderr)
    return Refusal("server", "The local model's engine failed on this request; nothing else is affected.")
