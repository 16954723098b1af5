"""Chat templates are programs of strangers; they run in one sandbox, and cannot change what they are given."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.engine.job import Template
from appliance.engine.vocabulary import Vocabulary

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Raised(Exception):
    """The template itself refused, with its own sentence."""


class _Generation(Extension):
    """Some templates mark what the assistant said, for those who train: it is written like everything else."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A chat template, ready to be used for one vocabulary."""

    source: str
    program: jinja2.Template
    bos: str
    eos: str

    def render(self, messages: Sequence[Template], **more: Any) -> str:
        """The conversation up to the open assistant turn. `more` is what templates may be told besides; what is None
        is not told. Raises whatever the template does."""
        return self.program.render(
            messages=list(messages),
            add_generation_prompt=True,
            bos_token=self.bos,
            eos_token=self.eos,
            **{name: value for name, value in more.items() if value is not None},
        )


def first_that_renders(sources: Sequence[str | None], vocabulary: Vocabulary) -> Compiled:
    """The first of these that works, or ChatML."""
    trial = [{"role": "user", "content": "Hello"}]
    for source in filter(None, sources):
        # A template is a program somebody else wrote: whatever is wrong with it, the next one is used.
        with contextlib.suppress(Exception):
            template = compile_template(source, vocabulary)
            if "Hello" in template.render(trial):
                return template
    return compile_template(CHATML, vocabulary)


def compile_template(source: str, vocabulary: Vocabulary) -> Compiled:
    """A chat template as the Hugging Face library would run it, but in a sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    program = environment.from_string(source)
    return Compiled(source=source, program=program, bos=vocabulary.bos_text, eos=vocabulary.eos_text)


def _raise(message: str) -> NoReturn:
    raise Raised(message)


def _tojson(value: Any, indent: int | None = None, separators: Any = None, sort_keys: bool = False, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)
