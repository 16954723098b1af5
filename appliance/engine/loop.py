"""The engine's work, step by step: take commands, plan, compute, draw, post.

Rules:

1. Only this thread computes. Commands come from a queue; what is said goes into the outbox; neither makes it wait,
   except when there is nothing to do: then it waits for a command.
2. Whatever goes wrong with one request ends that request with an error frame; the others go on. If a whole step
   cannot be computed, the requests in it end, their sequences are cleared, and the engine lives.
3. A request that was given up is forgotten before the next step, wherever it is. What was computed of it stays.
4. Standbys compute only when no request has anything to compute (`standing.py`).
5. A probe is answered after a step that was really computed; if there is nothing to compute, one token is, and it is
   taken back. If even that fails nobody is answered.
"""

from __future__ import annotations

import queue
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from appliance.core.events import Odds
from appliance.core.frames import Frame
from appliance.engine.answer import Answer, Drawn, Reason, Times, answer
from appliance.engine.form import Form
from appliance.engine.job import Job, Refusal
from appliance.engine.keeping import Spelling
from appliance.engine.prefixes import Holder
from appliance.engine.prompt import Prompt
from appliance.engine.sampling import Logits, Sampler
from appliance.engine.scheduler import Scheduler, pace
from appliance.engine.sequences import Computer, Sequences, Task
from appliance.engine.standing import Followed, StandingBy
from appliance.engine.vocabulary import Index


class Post(Protocol):
    def post(self, frames: list[Frame]) -> None: ...


class Ready:
    """A generate frame whose prompt is written, or refused: what the desk puts into the queue."""

    def __init__(
        self,
        id: int,
        job: Job | None = None,
        prompt: Prompt | None = None,
        form: Form | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        self.id, self.job, self.prompt, self.form, self.refusal = id, job, prompt, form, refusal


Command = Ready | Followed | Frame


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
        self._spelling = Spelling(model.vocabulary)
        self._clock = clock
        self._sequences = Sequences(model, clock)
        self._prefixes = self._sequences.prefixes
        self._meter = self._sequences.meter
        self._scheduler = Scheduler(slots=model.slots, queue=queue_limit)
        self._standing_by = StandingBy(self._sequences, clock)
        self._answers: dict[int, Answer] = {}
        self._probes: list[int] = []
        self._frames: list[Frame] = []
        self._worked = False

    def run(self) -> None:
        """For ever: the process ends when the pipe does."""
        while True:
            self.step(wait=True)

    def step(self, *, wait: bool = False) -> bool:
        """One round. False: there was nothing to do."""
        self._take(wait=wait and not self._answers and not self._worked)
        self._begin()
        self._send()  # a first word that needed no step does not wait for one
        steps = self._meter.steps
        self._worked = self._compute() or self._standing_by.step(idle=self._scheduler.idle)
        if self._probes and (self._meter.steps > steps or not self._worked):
            if self._meter.steps > steps or self._sequences.probe():
                self._frames += [{"op": "alive", "id": id} for id in self._probes]
            self._probes.clear()
        self._send()
        return self._worked

    def _send(self) -> None:
        if self._frames:
            frames, self._frames = self._frames, []
            self._outbox.post(frames)

    # ---------------------------------------------------------------------------------------------- commands

    def _take(self, *, wait: bool) -> None:
        try:
            if wait:
                self._command(self._commands.get(timeout=self._standing_by.wait))
            while True:
                self._command(self._commands.get_nowait())
        except queue.Empty:
            return

    def _command(self, command: Command) -> None:
        if isinstance(command, Ready):
            self._admit(command)
        elif isinstance(command, Followed):
            self._standing_by.follow(command)
        elif command["op"] == "cancel":
            self._drop(command["id"])
            self._standing_by.end(command["id"])
        elif command["op"] == "suspect":
            self._standing_by.suspect(command["id"], command["level"])
        elif command["op"] == "probe":
            self._probes.append(command["id"])
        elif command["op"] == "stats":
            self._frames.append(self.stats())

    def stats(self) -> Frame:
        return {
            "op": "stats",
            "busy": self._scheduler.busy,
            "waiting": self._scheduler.waiting,
            "standbys": len(self._standing_by),
            "standby_ready": self._standing_by.ready,
            "kept": self._prefixes.kept,
            **self._meter.frame(),
        }

    def _admit(self, ready: Ready) -> None:
        if ready.refusal is not None:
            self._refuse(ready.id, ready.refusal)
            return
        job, prompt = ready.job, ready.prompt
        assert job is not None
        assert prompt is not None
        try:
            sampler = Sampler(job.settings, self._model.chain, prompt.cut.kept[prompt.prefill :])
            new = answer(
                job,
                prompt,
                vocabulary=self._model.vocabulary,
                index=self._index,
                sampler=sampler,
                spelling=self._spelling,
                context=self._model.context,
                form=ready.form,
                drafts=self._model.rewinds,
            )
            boundary = self._sequences.boundary(prompt)
            if not self._scheduler.admit(job.id, len(new.known), boundary=boundary, first=job.first):
                raise Refusal("busy", "The local model is answering as many requests as it may; try again soon.")
        except Refusal as refusal:
            self._refuse(ready.id, refusal)
        except Exception:
            self._refuse(ready.id, _unexpected())
        else:
            self._answers[job.id] = new

    def _begin(self) -> None:
        while (id := self._scheduler.next) is not None:
            one = self._answers[id]
            seat = self._prefixes.seat(one.known, most=one.wanted, holder=Holder.REQUEST)
            if seat is None:
                return
            self._standing_by.push_out(seat.slot)
            one.reused = self._sequences.sit(seat, Holder.REQUEST)
            self._scheduler.seat(id, seat.slot, one.reused)
            one.times = Times(began=self._clock())
            self._meter.reused_tokens += one.reused
            self._frames.append(
                {
                    "op": "begun",
                    "id": id,
                    "prompt_tokens": one.prompt.input,
                    "cached_tokens": one.cached,
                    "committed_tokens": one.prompt.committed - one.prompt.prefill,
                    "trimmed": one.prompt.trimmed,
                    "strayed": one.job.strayed,
                    "lost": [*one.job.lost, *(one.form.lost if one.form is not None else ())],
                }
            )
            self._say(id, one.opening)
            if one.opening.reason is not None:
                self._finish(one, one.opening.reason)
            elif one.prompt.committed >= one.limit:
                self._finish(one, "length")
            elif one.reused == one.sure:
                # A standby was here and left what follows: the first token needs no step.
                self._draw(one, self._sequences.what_follows(seat.slot), one.times.began)

    # --------------------------------------------------------------------------------------------- computing

    def _compute(self) -> bool:
        plan = self._scheduler.plan(self._model.slots + pace(self._meter.prefill_speed))
        if not plan:
            return False
        tasks = []
        prompt = 0
        for share in plan:
            one = self._answers[share.id]
            tokens = one.known[share.start : share.start + share.count]
            tasks.append(Task(share, tokens, one.wanted, self._sequences.boundary(one.prompt)))
            if one.times.first is None:
                prompt += share.count
        logits = self._sequences.compute(tasks, prompt=prompt)
        if logits is None:
            for share in plan:
                self._refuse(share.id, Refusal("server", "The local model could not compute the next step."))
            return True
        now = self._clock()
        at = 0
        for share in plan:
            one = self._answers[share.id]
            end = share.start + share.count
            wanted = max(0, end - max(one.wanted, share.start))
            mine, at = logits[at : at + wanted], at + wanted
            self._scheduler.computed(share.id, share.count)
            if len(mine):
                self._draw(one, mine, now)
        return True

    def _draw(self, one: Answer, logits: Logits, now: float) -> None:
        """Draw what can be drawn. Whatever goes wrong ends this request only."""
        try:
            self._advance(one, logits, now)
        except Refusal as refusal:
            self._refuse(one.job.id, refusal)
        except Exception:
            self._refuse(one.job.id, _unexpected())

    def _advance(self, one: Answer, logits: Logits, now: float) -> None:
        id, slot = one.job.id, self._scheduler.slot(one.job.id)
        if one.times.first is None:
            one.times.first = now
        before = one.sure
        drawn = one.draw(logits)
        self._meter.decoded += one.sure - before
        self._say(id, drawn)
        if drawn.reason is not None:
            self._finish(one, drawn.reason)
            return
        if drawn.rolled_back is not None:
            # Not all of the draft need be computed yet: there may be nothing to take back.
            computed = min(drawn.rolled_back, self._prefixes.length(slot))
            self._scheduler.know(id, self._sequences.rewind(slot, computed))
        self._scheduler.know(id, len(one.known))

    def _say(self, id: int, drawn: Drawn) -> None:
        for one in drawn.said:
            match one.kind:
                case "text" | "reasoning":
                    said: Frame = {"op": one.kind, "id": id, "text": one.text}
                    self._frames.append(said | {"odds": list(map(_told, one.odds))} if one.odds else said)
                case "call":
                    self._frames.append({"op": "call", "id": id, "index": one.call, "name": one.text})
                case "rest":
                    self._frames.append({"op": "name", "id": id, "index": one.call, "name": one.text})
                case "arguments":
                    self._frames.append({"op": "arguments", "id": id, "index": one.call, "text": one.text})

    # ------------------------------------------------------------------------------------------------ endings

    def _finish(self, one: Answer, reason: Reason) -> None:
        now = self._clock()
        times = one.times
        first = now if times.first is None else times.first
        prompt = one.prompt
        generated = max(one.completion - prompt.committed, 0)
        completion = max(one.completion, prompt.committed if reason == "length" else 0)
        self._frames.append(
            {
                "op": "finish",
                "id": one.job.id,
                "reason": reason,
                "stop": one.voice.stop,
                "prompt_tokens": prompt.input,
                "completion_tokens": max(completion - prompt.prefill, 0),
                "cached_tokens": one.cached,
                "timings": {
                    "cache_n": one.reused,
                    "prompt_n": prompt.total - one.reused,
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
        """Forget the request, wherever it is. Its sequence keeps what it holds for whoever comes next."""
        self._answers.pop(id, None)
        if id not in self._scheduler:
            return
        slot = self._scheduler.end(id)
        if slot is not None:
            self._prefixes.leave(slot)


def _told(odds: Odds) -> list[Any]:
    """As JSON: of bytes, each is a character."""
    others = [[token.decode("latin-1"), logprob] for token, logprob in odds.others]
    return [odds.token.decode("latin-1"), odds.logprob, others]


def _unexpected() -> Refusal:
    # The stack says where, the message could say what somebody wrote: only the first goes to the log.
    kind, _, trace = sys.exc_info()
    where = traceback.extract_tb(trace)[-1] if trace else None
    name = kind.__name__ if kind else "nothing"
    print(f"A request failed: {name} at {where.filename}:{where.lineno}" if where else name, file=sys.stderr)
    return Refusal("server", "The local model's engine failed on this request; nothing else is affected.")
