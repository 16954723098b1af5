"""Chat templates of the families, and a vocabulary for each that has the marks its models have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.engine.job import Job, Template
from appliance.engine.prompt import Writer
from appliance.engine.vocabulary import Vocabulary

HERE = Path(__file__).parent / "templates"
CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
CALL_MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
MISTRAL_MARKS = (
    "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[CALL_ID]", "[TOOL_CONTENT]", "[THINK]",
    "[/THINK]",
)  # fmt: skip
HARMONY_MARKS = (
    "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|return|>",
)  # fmt: skip
LLAMA_MARKS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")
GEMMA_MARKS = ("<bos>", "<start_of_turn>", "<end_of_turn>")
GEMMA_4_MARKS = (
    "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
    "<|tool_response>", "<tool_response|>", "<|think|>", '<|"|>',
)  # fmt: skip
GRANITE_MARKS = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<tool_call>", "</tool_call>")

LLAMA_3 = """
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' + messages[0].content + '<|eot_id|>' }}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('One call at a time, please.') }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", ' }}
{{- '"parameters": ' }}
{{- call.arguments | tojson }}
{{- '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\n\n' }}
{%- if loop.first and tools %}
{%- for tool in tools %}{{ tool | tojson(indent=4) + '\n\n' }}{% endfor %}
{%- endif %}
{{- message.content + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt }}"""

GEMMA = """{{ bos_token }}{% for message in messages %}
{%- if message.role == 'system' %}{{ raise_exception('There is no system.') }}{% endif %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Take turns, please.') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' + message.content | trim }}
{{- '<end_of_turn>\n' }}
{%- endfor %}{{ '<start_of_turn>model\n' if add_generation_prompt }}"""

GENERATION = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% else %}{{ message.content }}<|im_end|>
{% endif %}{% endfor %}{{ "<|im_start|>assistant\n" }}"""


class Letters:
    """Every mark is a token, and every byte. In plain text no mark is recognized."""

    def __init__(self, marks: Sequence[str]) -> None:
        self.marks = {mark: token for token, mark in enumerate(marks)}
        self.pieces = (*(b"" for _ in marks), *(bytes([byte]) for byte in range(256)))
        self.vocabulary = Vocabulary(
            pieces=self.pieces,
            ends=frozenset(),
            controls=self.marks,
            named={},
            bos=None,
            eos=None,
            bos_text=next((mark for mark in marks if mark in ("<s>", "<bos>", "<|begin_of_text|>")), ""),
            eos_text="</s>" if "</s>" in marks else "",
            add_bos=False,
        )

    def tokenize(self, text: str, *, template: bool = False) -> list[int]:
        tokens: list[int] = []
        while text:
            mark = next((mark for mark in self.marks if template and text.startswith(mark)), "")
            tokens += [self.marks[mark]] if mark else [len(self.marks) + byte for byte in text[0].encode()]
            text = text[len(mark) or 1 :]
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """What the tokens say, marks included."""
        names = {token: mark.encode() for mark, token in self.marks.items()}
        return b"".join(names.get(token, self.pieces[token]) for token in tokens).decode()


class Family:
    """A writer for a model whose template is this one, and what it writes."""

    def __init__(self, template: str, marks: Sequence[str], *, context: int = 1 << 20) -> None:
        self.letters = Letters(marks)
        self.writer = Writer(self.letters.vocabulary, self.letters, template=template, own=None, context=context)
        self.speech = self.writer.speech

    def prompt(self, messages: Sequence[Template], **more: Any) -> str:
        return self.letters.text(self.writer.write(Job(id=1, messages=tuple(messages), **more)).tokens)

    def answered(self, messages: Sequence[Template], **more: Any) -> str:
        """What of the answer is written, behind the prompt."""
        cut = self.writer.write(Job(id=1, messages=tuple(messages), **more)).cut
        return self.letters.text((*cut.kept, *cut.draft))


def template(file: str) -> str:
    return (HERE / f"{file}.jinja").read_text()
