"""What exactly does the model read? A conversation to tokens, with the half-written answer at its end.

Rules:

1. Control tokens come only from the template. Wherever the text of one stands in a message, a private mark takes its
   place before the template sees it, and the text comes back as plain text when the rendered prompt is tokenized.
2. The template is the service's, or the model's own, or ChatML if the model has none or its own does not render.
   It runs in a sandbox and cannot change what it is given.
3. The beginning-of-sequence token stands at the front exactly once if the vocabulary wants it.
4. Committed text is tokenized by itself, as plain text, and follows the open assistant turn.
5. A conversation that does not fit loses its oldest turns, if the request allows that, and long texts lose a part
   (`shortening.py`). A turn is a user's message with everything up to the next one, the steps of its tools included.
6. What was tokenized is remembered (`pieces.py`): the next turn of a conversation tokenizes only what is new.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.engine.healing import Cut, cut
from appliance.engine.job import Job, Refusal, Template
from appliance.engine.pieces import Pieces, Tokenizer, cuts
from appliance.engine.shortening import FRAMED, Shears, budgets, fewer
from appliance.engine.vocabulary import Vocabulary

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENING = 32
"""Tokens. What opens the assistant's turn is not longer."""
EXACT = 1 << 21
"""Letters. No model reads so much, and everybody else would wait for it: the rest of more is estimated."""
COUNTED = 64
"""Letters for each token of room: a longer conversation that cannot fit is not counted to the last token, for which
everybody else would wait."""
ROUNDS = 4
"""Attempts to shorten a last turn: the first guesses what the template adds, the others know it."""
OPEN, SHUT = "\ue000", "\ue001"
"""Letters of the private use area: the marks that stand for guarded text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`tokens` is the conversation up to the open assistant turn; `cut` is the committed text behind it.

    What a next turn begins with, whatever the answer will be, are the tokens before `boundary`. Of the `committed`
    tokens `prefill` are the client's own words. `trimmed` messages were left out or cut; `tried` are the budgets that
    led to that.
    """

    tokens: tuple[int, ...] = field(repr=False)
    cut: Cut = field(repr=False)
    committed: int
    trimmed: int
    boundary: int = 0
    prefill: int = 0
    tried: tuple[int, ...] = ()

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
        self._template = _first_that_renders((template, own), vocabulary)
        self._pieces = Pieces(tokenizer, cuts(vocabulary, template or own or CHATML))
        self._counted = EXACT
        self._shears = Shears(tokenizer, vocabulary.pieces)
        self._marks = frozenset(vocabulary.controls.values())
        guarded = set(vocabulary.controls)
        guarded |= {text for text in vocabulary.named if text.strip() and text in (template or own or CHATML)}
        # The longest first: one mark's text may begin another's.
        longest_first = sorted(guarded, key=lambda text: (-len(text), text))
        self._guarded = re.compile("|".join(map(re.escape, longest_first))) if guarded else None

    def write(self, job: Job) -> Prompt:
        """The prompt of `job`. Raises `Refusal` if it does not fit, or if the template refuses the conversation."""
        committed = self._tokenizer.tokenize(job.committed) if job.committed else []
        kept, tokens, tried = self._fitting(job, len(committed))
        mine = set(map(id, job.messages))
        trimmed = len(job.messages) - sum(id(message) in mine for message in kept)
        return self._prompt(job, tuple(tokens), committed, trimmed=trimmed, tried=tried)

    def go_on(self, job: Job, prompt: Prompt) -> Prompt:
        """The prompt of `job`, which has more committed text than when `prompt` was written. Raises `Refusal`."""
        committed = self._tokenizer.tokenize(job.committed)
        tried = budgets(self._context, len(committed))[: len(prompt.tried)]
        if tried != prompt.tried or len(prompt.tokens) > self._room(len(committed)):
            return self.write(job)
        return self._prompt(job, prompt.tokens, committed, trimmed=prompt.trimmed, tried=tried)

    def count(self, job: Job, also: Sequence[str] = ()) -> int:
        """The tokens of all of it, whether it fits or not, and of the texts that would be read `also`."""
        tokens = len(self._tokens(job.messages, None, sure=True))
        return tokens + sum(self._count(text) for text in (job.committed, *also) if text)

    def _count(self, text: str) -> int:
        tokens = len(self._tokenizer.tokenize(text[: self._counted]))
        return tokens if len(text) <= self._counted else round(tokens * len(text) / self._counted)

    def _room(self, committed: int) -> int:
        return self._context - committed - 1

    def _prompt(
        self, job: Job, tokens: tuple[int, ...], committed: Sequence[int], *, trimmed: int, tried: tuple[int, ...]
    ) -> Prompt:
        prefill = self._tokenizer.tokenize(job.committed[: job.prefill]) if job.prefill else []
        return Prompt(
            tokens=tokens,
            cut=cut(committed, self._vocabulary.pieces, job.committed.encode("utf-8", "replace")),
            committed=len(committed),
            trimmed=trimmed,
            boundary=self._boundary(tokens),
            prefill=min(len(prefill), len(committed)),
            tried=tried,
        )

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
        tokens = self._tokens(whole, room, sure=not job.trim)
        if len(tokens) <= room:
            return whole, tokens, ()
        if job.trim:
            tries = budgets(self._context, committed)
            for count, budget in enumerate(tries, start=1):
                found = self._shortened(whole, budget)
                if found is not None:
                    return *found, tries[:count]
            tokens = self._tokens([whole, *fewer(whole)][-1], room, sure=True)
        needed = len(tokens) + self._context - room
        raise Refusal(
            "too_long",
            f"The conversation needs at least {needed} tokens and the local model's context holds {self._context}."
            " Send less of it, or raise 'context' in the box's configuration.",
            prompt_tokens=needed,
            context=self._context,
        )

    def _shortened(self, whole: Sequence[Template], budget: int) -> tuple[Sequence[Template], list[int]] | None:
        """As much of a conversation as fits into `budget`, which the whole does not."""
        found = self._longest(fewer(whole), budget)
        shorter = whole
        for share in (budget // 2, budget // 4):
            if found is not None:
                return found
            shorter = self._shears.system(whole, share)
            if shorter is not whole:
                found = self._longest([shorter, *fewer(shorter)], budget)
        return found or self._last_turn([shorter, *fewer(shorter)][-1], budget)

    def _longest(
        self, choices: Sequence[Sequence[Template]], budget: int
    ) -> tuple[Sequence[Template], list[int]] | None:
        """The first of these that fits. Fewer turns are fewer tokens: it is found by halving."""
        low, high = 0, len(choices)
        best: tuple[Sequence[Template], list[int]] | None = None
        while low < high:
            middle = (low + high) // 2
            tokens = self._tokens(choices[middle], budget, sure=False)
            if len(tokens) <= budget:
                best, high = (choices[middle], tokens), middle
            else:
                low = middle + 1
        return best

    def _last_turn(self, messages: Sequence[Template], budget: int) -> tuple[Sequence[Template], list[int]] | None:
        """These messages with shorter texts."""
        room = budget - FRAMED * len(messages)
        for _ in range(ROUNDS):
            shorter = self._shears.others(messages, room)
            if shorter is None:
                return None
            tokens = self._tokens(shorter, budget, sure=False)
            if len(tokens) <= budget:
                return shorter, tokens
            room -= len(tokens) - budget
        return None

    def _tokens(self, messages: Sequence[Template], room: int | None, *, sure: bool) -> list[int]:
        """The conversation as tokens. Unless they must be counted for `sure`, what cannot fit is not tokenized."""
        marks = _Marks(self._guarded, messages)
        rendered = self._render([marks.guard(message) for message in messages])
        least = len(rendered) // self._vocabulary.longest
        if room is None:
            if len(rendered) > self._counted:
                return [0] * self._count(rendered)
        elif least > room and (not sure or len(rendered) > COUNTED * room):
            return [0] * least
        tokens: list[int] = []
        for text, plain in marks.split(rendered):
            tokens += self._plain(text) if plain else self._pieces.tokens(text)
        if not (begun := self._begun(tokens)):
            raise Refusal("request", "The conversation is empty.", param="messages")
        return begun

    def _plain(self, text: str) -> list[int]:
        """The text of a mark, without the mark: some are found in plain text too, so these are cut in two."""
        tokens = self._tokenizer.tokenize(text)
        if text in self._vocabulary.named:
            tokens = self._tokenizer.tokenize(text[:1]) + self._tokenizer.tokenize(text[1:])
        return tokens

    def _begun(self, tokens: list[int]) -> list[int]:
        bos = self._vocabulary.bos
        if bos is None or not self._vocabulary.add_bos:
            return tokens
        at = 0
        while at < len(tokens) and tokens[at] == bos:
            at += 1
        return [bos, *tokens[at:]]

    def _render(self, messages: Sequence[Template]) -> str:
        try:
            return _render(self._template, messages, self._vocabulary)
        except _Raised as error:
            raise Refusal("request", f"The local model's chat template says: {error}", param="messages") from error
        except Exception as error:
            # A template is a program somebody else wrote: whatever it raises ends this request only.
            kind = type(error).__name__
            sentence = f"The local model's chat template cannot render this conversation ({kind})."
            raise Refusal("request", sentence, param="messages") from error


class _Marks:
    """Guarded text, replaced by marks that occur nowhere in the conversation, and found again."""

    def __init__(self, guarded: re.Pattern[str] | None, messages: Sequence[Template]) -> None:
        self._guarded = guarded
        self._texts: list[str] = []
        # One letter more than the whole conversation has: no leaf, and no two side by side, can look like a mark.
        self._open = OPEN * (1 + sum(leaf.count(OPEN) for leaf in _leaves(messages)))
        self._mark = re.compile(f"{self._open}([0-9]+){SHUT}")

    def guard(self, value: Any) -> Any:
        """The same value, with every guarded text in any of its strings replaced."""
        if isinstance(value, str):
            return self._guarded.sub(self._replace, value) if self._guarded else value
        if isinstance(value, Mapping):
            return {key: self.guard(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.guard(one) for one in value]
        return value

    def _replace(self, match: re.Match[str]) -> str:
        self._texts.append(match.group())
        return f"{self._open}{len(self._texts) - 1}{SHUT}"

    def split(self, rendered: str) -> list[tuple[str, bool]]:
        """(text, plain?) in order."""
        if not self._texts:
            return [(rendered, False)]
        pieces: list[tuple[str, bool]] = []
        for index, part in enumerate(self._mark.split(rendered)):
            if index % 2:
                pieces.append((self._texts[int(part)], True))
            elif part:
                pieces.append((part, False))
        return pieces


def _leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in _leaves(one)]
    return []


# ------------------------------------------------------------------------------------------------- the template


class _Raised(Exception):
    """The template itself refused, with its own sentence."""


def _raise(message: str) -> NoReturn:
    raise _Raised(message)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def compile_template(source: str) -> jinja2.Template:
    """A chat template as the Hugging Face library would run it, but in a sandbox."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _render(template: jinja2.Template, messages: Sequence[Template], vocabulary: Vocabulary) -> str:
    return template.render(
        messages=list(messages),
        add_generation_prompt=True,
        bos_token=vocabulary.bos_text,
        eos_token=vocabulary.eos_text,
    )


def _first_that_renders(sources: Sequence[str | None], vocabulary: Vocabulary) -> jinja2.Template:
    trial = [{"role": "user", "content": "Hello"}]
    for source in filter(None, sources):
        # A template is a program somebody else wrote: whatever is wrong with it, the next one is used.
        with contextlib.suppress(Exception):
            template = compile_template(source)
            if "Hello" in _render(template, trial, vocabulary):
                return template
    return compile_template(CHATML)
