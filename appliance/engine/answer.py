"""One answer being written: its tokens, its letters, and why it ends. No llama.cpp and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from appliance.engine.healing import Seam
from appliance.engine.job import Job
from appliance.engine.prompt import Prompt
from appliance.engine.sampling import Logits, Sampler
from appliance.engine.text import Stream
from appliance.engine.vocabulary import Index, Vocabulary

Reason = Literal["stop", "length"]


@dataclass(slots=True)
class Times:
    """When things happened to the request, in seconds."""

    began: float = 0.0
    first: float | None = None


@dataclass(slots=True)
class Drawn:
    """What one step did to an answer."""

    text: str = ""
    reason: Reason | None = None
    rolled_back: int | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """The tokens of one request. The first `sure` of `known` are settled; the rest is a draft to be agreed with."""

    job: Job
    prompt: Prompt
    vocabulary: Vocabulary
    sampler: Sampler
    seam: Seam
    stream: Stream
    limit: int
    reused: int = 0
    known: list[int] = field(default_factory=list)
    sure: int = 0
    times: Times = field(default_factory=Times)

    @property
    def wanted(self) -> int:
        """From this position on the logits are needed."""
        return self.sure - 1

    @property
    def cached(self) -> int:
        """So many tokens of the client's words were computed before."""
        return min(self.reused, self.prompt.input)

    @property
    def completion(self) -> int:
        return max(len(self.known) - len(self.prompt.tokens), 0)

    @property
    def full(self) -> bool:
        return self.completion >= self.limit

    def draw(self, logits: Logits) -> Drawn:
        """Draw at each computed place in turn, as long as the draft agrees."""
        drawn = Drawn()
        for row in logits:
            token = self._token(row)
            if token in self.vocabulary.ends:
                # Nothing was owed, so the draft was used up: this is the end of the answer.
                drawn.text += self.stream.close()
                drawn.reason = "stop"
                return drawn
            new = self.seam.take(self.vocabulary.pieces[token])
            agrees = self.sure < len(self.known) and self.known[self.sure] == token
            if not agrees:
                if self.sure < len(self.known):
                    drawn.rolled_back = self.sure
                    del self.known[self.sure :]
                self.known.append(token)
            self.sure += 1
            if new:
                drawn.text += self.stream.feed(new)
                if self.stream.stopped:
                    drawn.reason = "stop"
                    return drawn
            if self.sure == len(self.known) and self.full:
                drawn.text += self.stream.close()
                drawn.reason = "length"
                return drawn
            if not agrees:
                return drawn
        return drawn

    def _token(self, row: Logits) -> int:
        allowed = self.seam.allowed()
        if allowed is not None and not len(allowed):
            # No token of this vocabulary says these letters. The client has them: the model goes on without.
            self.seam.owed = b""
            allowed = None
        return self.sampler.draw(row, allowed)


def answer(
    job: Job,
    prompt: Prompt,
    *,
    vocabulary: Vocabulary,
    index: Index,
    sampler: Sampler,
    context: int,
    drafts: bool = True,
) -> Answer:
    """The answer to `job`, before anything of it is computed.

    Without `drafts` the tokens that were given back are drawn one by one, and nothing computed is ever rolled back.
    """
    draft = prompt.cut.draft if drafts else ()
    known = [*prompt.tokens, *prompt.cut.kept, *draft]
    limit = context - len(prompt.tokens)
    if job.max_tokens is not None:
        limit = min(limit, job.max_tokens + prompt.prefill)
    return Answer(
        job=job,
        prompt=prompt,
        vocabulary=vocabulary,
        sampler=sampler,
        seam=Seam(index, prompt.cut.owed),
        stream=Stream(job.stop, job.committed[job.prefill :]),
        limit=limit,
        known=known,
        sure=len(known) - len(draft),
    )
