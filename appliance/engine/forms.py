"""Which form must this answer have? None, for plain text of a model that does not think; else a machine that has gone
through what is written of it already.

Rules:

1. Schemas are read beside the decode, before a request is admitted; what they allow is found while it is answered.
2. A tool whose schema nobody can follow takes any object, and the answer's schema becomes any JSON, where somebody else
   was asked for it (`Job.lenient`). What was asked of the box itself is refused instead, but for a tool that is not
   strict: the other tools are still there to be called. `Form.lost` names what became loose.
3. A strict schema is refused for what nobody here sees to (`Grammar.unheld`) as well, with the place where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

from appliance.core.structure import Grammar, SchemaError, grammar_of
from appliance.engine.form import Form
from appliance.engine.job import Call, Job, Refusal, lost_tool
from appliance.engine.lexicon import Lexicon
from appliance.engine.loosening import looser
from appliance.engine.masks import Masks
from appliance.engine.prompt import Prompt
from appliance.engine.shape import Shape
from appliance.engine.vocabulary import Index, Vocabulary

ANY = "{}"
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
"""What a tool without a schema is called with."""


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
        plain = not shape.tools and shape.json is None and not _called(job)
        if plain and speech.thoughts is None and not speech.say:
            return None
        if not plain:
            _ = self.masks
        thinking = prompt.thinking == "open"
        form = Form(shape, speech, lambda: self.masks, self._index, self._tokenize, thinking=thinking)
        for place, said in enumerate(prompt.said, start=1):
            owed = prompt.cut.owed if place == len(prompt.said) else b""
            if said.kind == "text":
                form.goes_on_from(said.letters, owed)
            elif said.kind == "name":
                form.goes_on_in_name(said.letters, owed)
            elif place < len(prompt.said):
                form.goes_on_behind_call()
            else:
                form.goes_on_in_call(said.name, said.letters, owed)
        return form


def _shape(job: Job) -> Shape:
    lost: list[str] = []
    tools: dict[str, Grammar] = {}
    for place, tool in enumerate(job.shown):
        try:
            tools[tool.name] = _followed(
                tool.parameters or NOTHING, objects=True, strict=tool.strict and not job.lenient
            )
        except SchemaError as error:
            if tool.strict and not job.lenient:
                raise Refusal("request", f"'tools[{place}]': {error}", param=f"tools[{place}]") from error
            tools[tool.name] = grammar_of(ANY, objects=True)
            lost.append(lost_tool(tool.name))
    if job.named:
        tools = {job.named: tools[job.named]}
    document: Grammar | None = None
    if job.format is not None and job.format.grammar is None:
        schema = job.format.schema
        try:
            strict = job.format.strict and not job.lenient
            document = _followed(schema or {}, objects=schema is None, strict=strict)
        except SchemaError as error:
            if not job.lenient:
                raise Refusal("request", f"'response_format': {error}", param="response_format") from error
            document = grammar_of(ANY)
            lost.append("response_format")
    return Shape(
        tools=tools,
        must=job.choice == "required",
        several=job.parallel and not job.named,
        json=document,
        any=grammar_of(ANY, objects=bool(tools) or _called(job)),
        looser=partial(_looser, job),
        lost=tuple(lost),
    )


def _called(job: Job) -> bool:
    """Has somebody called a tool in what is written of the answer? It may be one that we were not told of."""
    return any(isinstance(part, Call) for part in job.parts)


def _looser(job: Job, name: str, written: bytes) -> Iterator[Grammar]:
    """What still can be asked of a tool's arguments, or of the answer."""
    schemas = {tool.name: tool.parameters for tool in job.tools}
    schema = schemas.get(name) if name or job.format is None else job.format.schema
    for less in looser(schema or {}, written):
        with suppress(SchemaError):
            yield grammar_of(json.dumps(less), objects=True)


def _followed(schema: Any, *, objects: bool, strict: bool) -> Grammar:
    """The schema as a grammar. Raises `SchemaError` if it cannot be followed, or, with `strict`, not to the letter."""
    grammar = grammar_of(json.dumps(schema), objects=objects)
    if strict and grammar.unheld:
        raise SchemaError(
            f"The schema is strict, and what it says at {grammar.unheld[0]} is not seen to on this box; leave that out,"
            " or ask without 'strict'."
        )
    return grammar
