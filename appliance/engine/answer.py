"""One answer being written: its tokens, its letters, and why it ends. No llama.cpp and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from appliance.engine.form import Form
from appliance.engine.healing import Seam
from appliance.engine.job import Job
from appliance.engine.keeping import Keeper, Spelling
from appliance.engine.odds import Ledger, odds
from appliance.engine.prompt import Prompt
from appliance.engine.sampling import Logits, Sampler
from appliance.engine.vocabulary import Ids, Index, Vocabulary
from appliance.engine.voice import Piece, Voice

Reason = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class Times:
    """When things happened to the request, in seconds."""

    began: float = 0.0
    first: float | None = None


@dataclass(slots=True)
class Drawn:
    """What one step did to an answer."""

    said: list[Piece] = field(default_factory=list)
    reason: Reason | None = None
    rolled_back: int | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """The tokens of one request. The first `sure` of `known` are settled; the rest is a draft to be agreed with.

    With a `form` not every token may come, and some come without being drawn. What is text keeps to the grammar that
    `keeper` knows, if there is one.
    """

    job: Job
    prompt: Prompt
    vocabulary: Vocabulary
    sampler: Sampler
    seam: Seam
    voice: Voice
    limit: int
    form: Form | None = None
    keeper: Keeper | None = None
    reused: int = 0
    known: list[int] = field(default_factory=list)
    sure: int = 0
    opening: Drawn = field(default_factory=Drawn)
    """What is said before anything is drawn."""
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

    def __post_init__(self) -> None:
        if self.form is not None and self.completion <= self.limit:
            self._give(self.opening)
        elif self.keeper is not None and self.keeper.over and not self.seam.owed:
            self._end(self.opening, "stop")

    def draw(self, logits: Logits) -> Drawn:
        """Draw at each computed place in turn, as long as the draft agrees."""
        drawn = Drawn()
        for row in logits:
            token = self._token(row)
            if token in self.vocabulary.ends:
                # Nothing was owed, so the draft was used up: this is the end of the answer.
                if self.form is not None and self.form.insist():
                    self._give(drawn)
                else:
                    self._end(drawn, "stop")
                return drawn
            new = self.seam.take(self.vocabulary.pieces[token])
            if self.voice.ledger is not None and self.job.logprobs is not None:
                self.voice.ledger.draw(odds(row, token, new, self.job.logprobs, self.vocabulary))
            agrees = self.sure < len(self.known) and self.known[self.sure] == token
            if not agrees:
                if self.sure < len(self.known):
                    drawn.rolled_back = self.sure
                    del self.known[self.sure :]
                self.known.append(token)
            self.sure += 1
            self._say(token, new, drawn)
            if drawn.reason is None and self.sure == len(self.known):
                self._give(drawn)
            if drawn.reason is not None or not agrees:
                return drawn
        return drawn

    def _say(self, token: int, new: bytes, drawn: Drawn) -> None:
        if self.keeper is not None and self._keeps:
            self.keeper.take(new)
        if self.form is None:
            if new:
                drawn.said += self.voice.hear(new)
        else:
            drawn.said += self.voice.tell(self.form.take(token, self.vocabulary.pieces[token], new))
        if self.voice.stop is not None:
            drawn.reason = "stop"

    def _give(self, drawn: Drawn) -> None:
        """What has to come now comes, as far as there is room: it counts as if it had been drawn."""
        form = self.form
        while form is not None and not self.seam.owed and not self.full and (given := form.given):
            for token in given[: self.limit - self.completion]:
                self.known.append(token)
                self.sure += 1
                self._say(token, self.vocabulary.pieces[token], drawn)
        if (form is not None and form.over) or (self.keeper is not None and self.keeper.over and not self.seam.owed):
            self._end(drawn, "stop")
        elif self.full:
            self._end(drawn, "length")

    def _end(self, drawn: Drawn, reason: Reason) -> None:
        if self.form is not None:
            drawn.said += self.voice.tell(self.form.close())
            if reason != "length" or self.form.called:
                reason = self.form.reason
        drawn.said += self.voice.close()
        drawn.reason = reason

    def _token(self, row: Logits) -> int:
        owed = self.seam.allowed()
        if owed is not None and not len(owed := self._legal(owed)):
            # No token of this vocabulary says these letters so that something could follow. The client has them: the
            # model goes on without.
            if self.form is not None:
                self.form.drive(self.seam.owed)
            self.seam.owed = b""
            owed = None
        some = self.form.allowed() if owed is None and self.form is not None else owed
        if self.keeper is None or not self._keeps:
            return self.sampler.draw(row, some)
        return self.sampler.draw(row, some, self.keeper, len(self.seam.owed))

    def _legal(self, owed: Ids) -> Ids:
        """Of the tokens that agree with what the client has, those that the form lets come: as we would spell it, or
        as somebody else may, or at least what says nothing new, since `Form` knows that the rest of it may follow."""
        form = self.form
        if form is None or (formed := form.allowed()) is None:
            return owed
        both = np.intersect1d(owed, formed)
        if not len(both) and (formed := form.allowed(begun=True)) is not None:
            both = np.intersect1d(owed, formed)
        if not len(both):
            length = len(self.seam.owed)
            both = np.array([one for one in owed if len(self.vocabulary.pieces[one]) <= length], dtype=np.int32)
        return both

    @property
    def _keeps(self) -> bool:
        """Is what comes now text, which the grammar is for?"""
        return self.form is None or self.form.speaking


def answer(
    job: Job,
    prompt: Prompt,
    *,
    vocabulary: Vocabulary,
    index: Index,
    sampler: Sampler,
    spelling: Spelling,
    context: int,
    form: Form | None = None,
    drafts: bool = True,
) -> Answer:
    """The answer to `job`, before anything of it is computed. `form` has gone through what is written of it.

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
        voice=Voice(job.stop, job.heard, None if job.logprobs is None else Ledger()),
        limit=limit,
        form=form,
        keeper=None if job.place is None else Keeper(spelling, job.place),
        known=known,
        sure=len(known) - len(draft),
    )
