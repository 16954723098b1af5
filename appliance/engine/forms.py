"""Which form must this answer have? None, for plain text of a model that does not think; else a machine that has gone
through what is written of it already.

Schemas are read beside the decode, before a request is admitted; what they allow is found while it is answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

from appliance.core.structure import Grammar, SchemaError, grammar_of
from appliance.engine.form import Form, Shape
from appliance.engine.job import Call, Job, Refusal
from appliance.engine.lexicon import Lexicon
from appliance.engine.masks import Masks
from appliance.engine.prompt import Prompt
from appliance.engine.vocabulary import Index, Vocabulary

ANY = "{}"


class Forms:
    """For one model. `tokenize` is for plain text."""

    def __init__(self, vocabulary: Vocabulary, index: Index, tokenize: Callable[[str], list[int]]) -> None:
        self._vocabulary, self._index, self._tokenize = vocabulary, index, tokenize

    @cached_property
    def masks(self) -> Masks:
        """Takes a while for a large vocabulary, and is wanted only where there are tools or schemas."""
        return Masks(Lexicon(self._vocabulary.pieces, self._vocabulary.ends))

    def of(self, job: Job, prompt: Prompt) -> Form | None:
        """The form of `job`'s answer. Raises `Refusal` if its schemas cannot be followed, or if nobody can go on from
        what is written of it."""
        shape, speech = _shape(job), prompt.speech
        plain = not shape.tools and shape.json is None
        if plain and speech.thoughts is None and not speech.say:
            return None
        if not plain:
            _ = self.masks
        thinking = prompt.thinking == "open"
        form = Form(shape, speech, lambda: self.masks, self._index, self._tokenize, thinking=thinking)
        for place, said in enumerate(prompt.said):
            if said.kind == "text":
                form.goes_on_from(said.letters)
                continue
            if place < len(prompt.said) - 1:
                form.goes_on_behind_call()
            else:
                form.goes_on_in_call(said.name, said.letters)
        return form


def _shape(job: Job) -> Shape:
    tools = {tool.name: _arguments(tool.parameters) for tool in job.shown}
    if job.named:
        tools = {job.named: tools[job.named]}
    for part in job.parts:
        if isinstance(part, Call) and part.name not in tools:
            tools[part.name] = grammar_of(ANY, objects=True)
    document = job.format is not None and job.format.grammar is None
    schema = job.format.schema if job.format is not None else None
    return Shape(
        tools=tools,
        must=job.choice == "required",
        several=job.parallel and not job.named,
        json=_document(schema or {}, objects=schema is None) if document else None,
        any=grammar_of(ANY, objects=bool(tools)),
    )


def _arguments(schema: Any) -> Grammar:
    """A tool whose schema nobody can follow takes any object: the others are still there to be called."""
    try:
        return grammar_of(json.dumps(schema), objects=True)
    except SchemaError:
        return grammar_of(ANY, objects=True)


def _document(schema: Any, *, objects: bool) -> Grammar:
    try:
        return grammar_of(json.dumps(schema), objects=objects)
    except SchemaError as error:
        raise Refusal("request", f"'response_format': {error}", param="response_format") from error
