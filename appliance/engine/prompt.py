"""What exactly does the model read? A conversation to tokens, with the half-written answer at its end.

Rules:

1. Control tokens come only from the template. Wherever the text of one stands in a message, a private mark takes its
   place before the template sees it, and the text comes back as plain text when the rendered prompt is tokenized.
2. The template is the service's, or the model's own, or ChatML if the model has none or its own does not render.
   It runs in a sandbox and cannot change what it is given.
3. The beginning-of-sequence token stands at the front exactly once if the vocabulary wants it.
4. What is committed of the answer is tokenized by itself, as plain text, and follows the open assistant turn
   (`begun.py`). Tools, calls and results are told as the model's family would have it (`manner.py`).
5. A conversation that does not fit loses its oldest turns, if the request allows that, and long texts lose a part
   (`shortening.py`). A turn is a user's message with everything up to the next one, the steps of its tools included.
   Tools that alone would take more than a third of the context are then told in fewer words (`slimming.py`).
6. What was tokenized is remembered (`pieces.py`): the next turn of a conversation tokenizes only what is new.
7. Where thinking is unwanted for the whole answer, the conversation ends behind closed thoughts. Where it is over
   because something is committed, only what is committed begins with that: so the conversation of a standby is its
   takeover's, to the token.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from appliance.engine.begun import Begun, Said, write
from appliance.engine.guarding import Marks, pattern
from appliance.engine.healing import Cut
from appliance.engine.job import Job, Refusal, Template, Words
from appliance.engine.manner import arranged, declared, mended, readable, settle
from appliance.engine.pieces import Pieces, Tokenizer, cuts
from appliance.engine.shortening import FRAMED, Shears, budgets, fewer
from appliance.engine.slimming import slimmer
from appliance.engine.speech import HERMES, Speech, speech
from appliance.engine.templates import CHATML, Raised, first_that_renders
from appliance.engine.vocabulary import Vocabulary

__all__ = ["CHATML", "Prompt", "Thinking", "Writer"]

Thinking = Literal["off", "free", "open"]

OPENING = 32
"""Tokens. What opens the assistant's turn is not longer."""
EXACT = 1 << 21
"""Letters. No model reads so much, and everybody else would wait for it: the rest of more is estimated."""
COUNTED = 64
"""Letters for each token of room: a longer conversation that cannot fit is not counted to the last token, for which
everybody else would wait."""
ROUNDS = 4
"""Attempts to shorten a last turn: the first guesses what the template adds, the others know it."""
TAIL = 256
"""Letters. What opens thoughts is not longer."""
EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
"""Words for how much to think that no template knows, and those they know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`tokens` is the conversation up to the open assistant turn; `cut` is the committed text behind it.

    What a next turn begins with, whatever the answer will be, are the tokens before `boundary`. Of the `committed`
    tokens `prefill` are not the answer's: the client's own words, and what stands in front of them. `trimmed` messages
    were left out or cut; `tried` are the budgets that led to that.

    For whoever follows the answer's form: `said` is what the tokens that are kept of it say (`begun.Said`): go through
    the parts, the last one is still open, and `cut.owed` comes next. If there are none, nothing of the answer is
    written, and `thinking` says how it begins: "open" inside of thoughts, "free" with thoughts if the model likes to,
    "off" without. Behind something said it is always "off". `speech` has the literals.
    """

    tokens: tuple[int, ...] = field(repr=False)
    cut: Cut = field(repr=False)
    committed: int
    trimmed: int
    boundary: int = 0
    prefill: int = 0
    tried: tuple[int, ...] = ()
    said: tuple[Said, ...] = ()
    thinking: Thinking = "off"
    speech: Speech = HERMES

    @property
    def input(self) -> int:
        """What the client said, in tokens: the conversation, and the words it put into the answer's mouth."""
        return len(self.tokens) + self.prefill

    @property
    def total(self) -> int:
        return len(self.tokens) + self.committed


class Writer:
    """Writes prompts for one model."""

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: Tokenizer, *, template: str | None, own: str | None, context: int
    ) -> None:
        self.vocabulary_size = len(vocabulary)
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer
        self._context = context
        self._template = first_that_renders((template, own), vocabulary)
        source = self._template.source
        self._manner, self.speech = settle(self._template, speech(source, vocabulary), vocabulary)
        self._tails = {thinks: self._tail(thinks) for thinks in (None, True, False)}
        self._pieces = Pieces(tokenizer, cuts(vocabulary, source))
        self._counted = EXACT
        self._shears = Shears(tokenizer, vocabulary.pieces)
        self._marks = frozenset(vocabulary.controls.values())
        named = {text for text in vocabulary.named if text.strip() and text in source}
        self._guarded = pattern({*vocabulary.controls, *named, *self.speech.marks})

    def write(self, job: Job) -> Prompt:
        """The prompt of `job`. Raises `Refusal` if it does not fit, or if the template refuses the conversation."""
        begun = self._begun(job)
        kept, tokens, tried = self._fitting(job, begun.count)
        mine = set(map(id, job.messages))
        trimmed = len(job.messages) - sum(id(message) in mine for message in kept)
        trimmed = max(trimmed, 1 if tried else 0)  # it may be that only tools lost something
        return self._prompt(job, tuple(tokens), begun, trimmed=trimmed, tried=tried)

    def go_on(self, job: Job, prompt: Prompt) -> Prompt:
        """The prompt of `job`, of whose answer more is written than when `prompt` was. Raises `Refusal`."""
        begun = self._begun(job)
        tried = budgets(self._context, begun.count)[: len(prompt.tried)]
        if tried != prompt.tried or len(prompt.tokens) > self._room(begun.count):
            return self.write(job)
        return self._prompt(job, prompt.tokens, begun, trimmed=prompt.trimmed, tried=tried)

    def count(self, job: Job) -> int:
        """The tokens of all of it, whether it fits or not."""
        tokens = len(self._tokens(job, job.messages, None, sure=True))
        if len(job.committed) <= self._counted:
            return tokens + self._begun(job).count
        before = self._begun(replace(job, committed=""))
        return tokens + before.count + self._count(job.committed)

    def _count(self, text: str) -> int:
        tokens = len(self._tokenizer.tokenize(text[: self._counted]))
        return tokens if len(text) <= self._counted else round(tokens * len(text) / self._counted)

    def _room(self, committed: int) -> int:
        return self._context - committed - 1

    def _begun(self, job: Job) -> Begun:
        lead = "" if job.thinks is False else self.speech.closing(self._tails[job.thinks])
        pieces = self._vocabulary.pieces
        return write(job.begun, self.speech, lead, tokenize=self._said, pieces=pieces, naming=job.naming)

    def _prompt(
        self, job: Job, tokens: tuple[int, ...], begun: Begun, *, trimmed: int, tried: tuple[int, ...]
    ) -> Prompt:
        own = job.begun[0] if job.prefill else None
        prefill = len(self._said(own.text[: job.prefill])) if isinstance(own, Words) else 0
        return Prompt(
            tokens=tokens,
            cut=begun.cut,
            committed=begun.count,
            trimmed=trimmed,
            boundary=self._boundary(tokens),
            prefill=min(begun.before + prefill, begun.count),
            tried=tried,
            said=begun.said,
            thinking="off" if job.begun else self._thinking(job.thinks),
            speech=self.speech,
        )

    def _thinking(self, thinks: bool | None) -> Thinking:
        if thinks is False or self.speech.thoughts is None:
            return "off"
        return "open" if self.speech.opened(self._tails[thinks]) else "free"

    def _boundary(self, tokens: Sequence[int]) -> int:
        # Behind the last mark of the template: text that follows a mark cannot change the tokens before it.
        for at in range(len(tokens) - 1, max(0, len(tokens) - OPENING), -1):
            if tokens[at - 1] in self._marks:
                return at
        return len(tokens) - 1

    def _fitting(self, job: Job, committed: int) -> tuple[Sequence[Template], list[int], tuple[int, ...]]:
        """What is read beside so many tokens of answer, its tokens, and the budgets it was shortened for."""
        room = self._room(committed)
        whole = job.messages
        tokens = self._tokens(job, whole, room, sure=not job.trim)
        if len(tokens) <= room:
            return whole, tokens, ()
        if job.trim:
            tries = budgets(self._context, committed)
            slim = self._slimmed(job)
            for (count, budget), one in itertools.product(enumerate(tries, start=1), slim):
                found = self._shortened(one, whole, budget)
                if found is not None:
                    return *found, tries[:count]
            tokens = self._tokens(slim[-1], [whole, *fewer(whole)][-1], room, sure=True)
        needed = len(tokens) + self._context - room
        raise Refusal(
            "too_long",
            f"The conversation needs at least {needed} tokens and the local model's context holds {self._context}."
            " Send less of it, or raise 'context' in the box's configuration.",
            prompt_tokens=needed,
            context=self._context,
        )

    def _slimmed(self, job: Job) -> list[Job]:
        """The job with its tools told as fully as there is room for, and in fewer and fewer words."""
        if not job.shown:
            return [job]
        room = self._context // 3
        jobs = [replace(job, tools=tools) for tools in slimmer(job.tools)]
        return [one for one in jobs if self._shears.size(_told(one), room) <= room]

    def _shortened(
        self, job: Job, whole: Sequence[Template], budget: int
    ) -> tuple[Sequence[Template], list[int]] | None:
        """As much of a conversation as fits into `budget`, which the whole does not with its tools as they are."""
        found = self._longest(job, [whole, *fewer(whole)], budget)
        shorter = whole
        for share in (budget // 2, budget // 4):
            if found is not None:
                return found
            shorter = self._shears.system(whole, share)
            if shorter is not whole:
                found = self._longest(job, [shorter, *fewer(shorter)], budget)
        return found or self._last_turn(job, [shorter, *fewer(shorter)][-1], budget)

    def _longest(
        self, job: Job, choices: Sequence[Sequence[Template]], budget: int
    ) -> tuple[Sequence[Template], list[int]] | None:
        """The first of these that fits. Fewer turns are fewer tokens: it is found by halving."""
        low, high = 0, len(choices)
        best: tuple[Sequence[Template], list[int]] | None = None
        while low < high:
            middle = (low + high) // 2
            tokens = self._tokens(job, choices[middle], budget, sure=False)
            if len(tokens) <= budget:
                best, high = (choices[middle], tokens), middle
            else:
                low = middle + 1
        return best

    def _last_turn(
        self, job: Job, messages: Sequence[Template], budget: int
    ) -> tuple[Sequence[Template], list[int]] | None:
        """These messages with shorter texts."""
        room = budget - FRAMED * len(messages)
        for _ in range(ROUNDS):
            shorter = self._shears.others(messages, room)
            if shorter is None:
                return None
            tokens = self._tokens(job, shorter, budget, sure=False)
            if len(tokens) <= budget:
                return shorter, tokens
            room -= len(tokens) - budget + len(messages)  # each may have been rounded up
        return None

    def _tokens(self, job: Job, messages: Sequence[Template], room: int | None, *, sure: bool) -> list[int]:
        """The conversation as tokens. Unless they must be counted for `sure`, what cannot fit is not tokenized."""
        read = [readable(message, self._manner) for message in messages]
        shown = [declared(tool) for tool in job.shown]
        marks = Marks(self._guarded, [read, shown])
        rendered = self._render(job, marks.guard(read), marks.guard(shown))
        least = len(rendered) // self._vocabulary.longest
        if room is None:
            if len(rendered) > self._counted:
                return [0] * self._count(rendered)
        elif least > room and (not sure or len(rendered) > COUNTED * room):
            return [0] * least
        tokens: list[int] = []
        for text, plain in marks.split(rendered):
            tokens += self._plain(text) if plain else self._pieces.tokens(text)
        if not (begun := self._with_bos(tokens)):
            raise Refusal("request", "The conversation is empty.", param="messages")
        return begun

    def _said(self, text: str) -> list[int]:
        """Text that somebody said, as tokens: no mark is recognized in it."""
        if self._guarded is None or not self._guarded.search(text):
            return self._tokenizer.tokenize(text)
        tokens: list[int] = []
        at = 0
        for found in self._guarded.finditer(text):
            tokens += self._tokenizer.tokenize(text[at : found.start()]) if found.start() > at else []
            tokens += self._plain(found.group())
            at = found.end()
        return tokens + (self._tokenizer.tokenize(text[at:]) if at < len(text) else [])

    def _plain(self, text: str) -> list[int]:
        """The text of a mark, without the mark: some are found in plain text too, so these are cut in two."""
        tokens = self._tokenizer.tokenize(text)
        if text in self._vocabulary.named:
            tokens = self._tokenizer.tokenize(text[:1]) + self._tokenizer.tokenize(text[1:])
        return tokens

    def _with_bos(self, tokens: list[int]) -> list[int]:
        bos = self._vocabulary.bos
        if bos is None or not self._vocabulary.add_bos:
            return tokens
        at = 0
        while at < len(tokens) and tokens[at] == bos:
            at += 1
        return [bos, *tokens[at:]]

    def _render(self, job: Job, messages: Sequence[Template], tools: Sequence[Template]) -> str:
        try:
            rendered = self._rendered(job, messages, tools)
        except Raised as error:
            raise Refusal("request", f"The local model's chat template says: {error}", param="messages") from error
        except Exception as error:
            # A template is a program somebody else wrote: whatever it raises ends this request only.
            kind = type(error).__name__
            sentence = f"The local model's chat template cannot render this conversation ({kind})."
            raise Refusal("request", sentence, param="messages") from error
        return rendered + self.speech.closing(rendered[-TAIL:]) if job.thinks is False else rendered

    def _rendered(self, job: Job, messages: Sequence[Template], tools: Sequence[Template]) -> str:
        given, shown = arranged(messages, tools, self._manner, self.speech)
        more = _thoughts(job.thinks, job.effort)
        try:
            return self._template.render(given, tools=shown, **more)
        except Raised:
            for other in mended(given):
                # If it refuses that as well, what it says is about a conversation that nobody sent.
                with contextlib.suppress(Raised):
                    return self._template.render(other, tools=shown, **more)
            raise

    def _tail(self, thinks: bool | None) -> str:
        """What the template ends a conversation with."""
        with contextlib.suppress(Exception):
            return self._template.render([{"role": "user", "content": "Hello"}], **_thoughts(thinks, None))[-TAIL:]
        return ""


def _told(job: Job) -> str:
    """What a template is told of the tools."""
    return json.dumps([declared(tool) for tool in job.shown], ensure_ascii=False) if job.shown else ""


def _thoughts(thinks: bool | None, effort: str | None) -> dict[str, bool | str | None]:
    """What a template is told of how much to think. There are two words for the same."""
    level = None if effort is None else EFFORTS.get(effort, effort)
    return {"enable_thinking": thinks, "thinking": thinks, "reasoning_effort": level}
