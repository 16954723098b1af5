"""How do the models of a family call tools, and where do they think?

Rules:

1. A call is `open` NAME `between` ARGUMENTS `close`, and its arguments are JSON: another may have written their first
   half. White space in front of the arguments (`gap`) is nobody's. `trigger`, with which `open` begins, is what a
   model writes by itself; everything else but the name and the arguments is never drawn.
2. An answer is blocks: thoughts, text, calls. `say` opens text, `Thoughts.open` thoughts, `open` a call. What leaves a
   block is `after_text`, `after_call`, `Thoughts.close`, and it is written only when another block follows.
3. Literals hold marks. A mark that the vocabulary knows (`marks`) is that token; all the rest of a literal is plain
   text, tokenized between marks. Where a literal ends and a name or a text begins, tokens end too.
4. The row is chosen by what the model's own chat template contains and which marks its vocabulary has, the first that
   fits. The last row fits every model.
5. `shown`: does the template itself tell the model of tools? "fits": if it writes calls exactly as the row does. "own":
   it does, in words that agree with the row. "never": it teaches calls that are no JSON, so we tell instead of it.
   Whoever is told by us calls as Hermes does.
6. Thoughts are left out by the template's switch where it has one, else by `Thoughts.empty`, of which only that is
   written which the prompt does not end with. A model that thinks only if it likes to is just not let begin.

| family | where from | run with weights |
|---|---|---|
| gpt-oss | openai-gpt-oss-120b.jinja, and OpenAI's description of Harmony | not run with weights |
| gemma-4 | google-gemma-4-31B-it.jinja; its own calls are no JSON | not run with weights |
| gemma | google-gemma-2-2b-it.jinja; knows no tools (2, 3) | not run with weights |
| mistral-id | Mistral-Small-3.2-24B-Instruct-2506.jinja; the id of a call is always the same | not run with weights |
| ministral | mistralai-Ministral-3-14B-Reasoning-2512.jinja | not run with weights |
| mistral-list | mistralai-Mistral-Nemo-Instruct-2407.jinja; one call in a list of its own | not run with weights |
| qwen-xml | Qwen3-Coder.jinja, Qwen3.5-4B.jinja; their own calls are XML | not run with weights |
| smollm3 | HuggingFaceTB-SmolLM3-3B.jinja | not run with weights |
| hermes | Qwen-Qwen3-0.6B.jinja, Qwen2.5, Hermes 2 and 3, and others that write the same | not run with weights |
| llama-3 | meta-llama-Llama-3.2-3B-Instruct.jinja, 3.1 and 3.3 | not run with weights |
| generic | any other template; ChatML | run: the starter, SmolLM2-135M |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from appliance.engine.vocabulary import Ids, Index, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughts:
    """The marks around thoughts, and thoughts without a thought."""

    open: str
    close: str
    empty: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """One row. `first_only`: `trigger` means a call only where an answer begins. `parallel`: one answer can hold
    several calls. `close_ends`: the last call's `close` is itself the end of the answer; elsewhere an end token follows
    it."""

    family: str
    has: tuple[str, ...] = ()
    """What the template contains."""
    needs: tuple[str, ...] = ()
    """Marks that must be tokens of the vocabulary."""
    weights: bool = False
    shown: Literal["fits", "own", "never"] = "fits"
    trigger: str = "<tool_call>"
    open: str = '<tool_call>\n{"name": "'
    between: str = '", "arguments":'
    gap: str = " "
    close: str = "}\n</tool_call>"
    say: str = ""
    after_text: str = "\n"
    after_call: str = "\n"
    parallel: bool = True
    first_only: bool = False
    close_ends: bool = False
    thoughts: Thoughts | None = None
    switch: bool = False
    """The template can be told not to think."""
    marks: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def call(self, name: str, arguments: str) -> str:
        """A whole call, as it stands in a conversation."""
        return f"{self.open}{name}{self.between}{self.gap}{arguments}{self.close}"

    def atoms(self, literal: str) -> list[str | int]:
        """The literal as marks, which are tokens, and the plain text between them."""
        if not self.marks:
            return [literal] if literal else []
        longest_first = sorted(self.marks, key=lambda mark: (-len(mark), mark))
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", literal)
        return [self.marks.get(part, part) for part in parts if part]

    def spell(self, literal: str, tokenize: Callable[[str], list[int]]) -> list[int]:
        """The tokens of a literal."""
        tokens: list[int] = []
        for atom in self.atoms(literal):
            tokens += tokenize(atom) if isinstance(atom, str) else [atom]
        return tokens

    def beginnings(self, literals: Iterable[bytes], index: Index) -> Ids:
        """The tokens that say a beginning of one of them."""
        found: list[Ids] = []
        for literal in literals:
            first = self.atoms(literal.decode(errors="surrogateescape"))[0]
            if isinstance(first, int):
                found.append(np.array([first], dtype=np.int32))
            else:
                found.append(index.beginnings(first.encode(errors="surrogateescape")))
        return np.unique(np.concatenate(found)) if found else np.array([], dtype=np.int32)

    def opened(self, tail: str) -> bool:
        """Does a prompt that ends like this end inside of thoughts?"""
        return self.thoughts is not None and tail.rstrip().endswith(self.thoughts.open.strip())

    def closing(self, tail: str) -> str:
        """What makes the model not think behind a prompt that ends like this."""
        thoughts = self.thoughts
        if thoughts is None or not thoughts.empty or tail.rstrip().endswith(thoughts.close.strip()):
            return ""
        for size in range(len(thoughts.empty), 0, -1):
            if tail.endswith(thoughts.empty[:size]):
                return thoughts.empty[size:]
        return thoughts.empty if self.switch else ""


THINK = Thoughts(open="<think>", close="</think>", empty="<think>\n\n</think>\n\n")
HERMES = Speech(family="generic", weights=True, thoughts=THINK)
SWITCH = "enable_thinking"

SPEECHES = (
    Speech(
        family="gpt-oss",
        has=("<|start|>", "<|channel|>"),
        needs=("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|end|>"),
        shown="own",
        trigger="<|channel|>commentary to=",
        open="<|channel|>commentary to=functions.",
        between=" <|constrain|>json<|message|>",
        gap="",
        close="<|call|>",
        say="<|channel|>final<|message|>",
        after_text="<|end|><|start|>assistant",
        after_call="<|start|>assistant",
        parallel=False,
        close_ends=True,
        thoughts=Thoughts(open="<|channel|>analysis<|message|>", close="<|end|><|start|>assistant", empty=""),
    ),
    replace(
        HERMES,
        family="gemma-4",
        has=("<|turn>", "<|tool_call>"),
        weights=False,
        shown="never",
        thoughts=Thoughts(open="<|channel>thought\n", close="<channel|>", empty="<|channel>thought\n<channel|>"),
    ),
    replace(HERMES, family="gemma", has=("<start_of_turn>",), weights=False, shown="never", thoughts=None),
    Speech(
        family="mistral-id",
        has=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        needs=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
        shown="own",
        trigger="[TOOL_CALLS]",
        open="[TOOL_CALLS]",
        between="[CALL_ID]call00000[ARGS]",
        gap="",
        close="",
        after_text="",
        after_call="",
    ),
    Speech(
        family="ministral",
        has=("[TOOL_CALLS]", "[ARGS]"),
        needs=("[TOOL_CALLS]", "[ARGS]"),
        trigger="[TOOL_CALLS]",
        open="[TOOL_CALLS]",
        between="[ARGS]",
        gap="",
        close="",
        after_text="",
        after_call="",
        thoughts=Thoughts(open="[THINK]", close="[/THINK]", empty="[THINK][/THINK]"),
    ),
    Speech(
        family="mistral-list",
        has=("[TOOL_CALLS]",),
        needs=("[TOOL_CALLS]",),
        shown="own",
        trigger="[TOOL_CALLS]",
        open='[TOOL_CALLS][{"name": "',
        close="}]",
        after_text="",
        after_call="",
        parallel=False,
    ),
    replace(HERMES, family="qwen-xml", has=("<tool_call>", "<function="), weights=False, shown="never"),
    replace(
        HERMES,
        family="smollm3",
        has=("SmolLM", "/no_think"),
        weights=False,
        thoughts=replace(THINK, empty="<think>\n\n</think>\n"),
    ),
    replace(HERMES, family="hermes", has=("<tool_call>", '"arguments": '), weights=False),
    Speech(
        family="llama-3",
        has=("<|start_header_id|>", '"parameters": '),
        trigger='{"name": "',
        open='{"name": "',
        between='", "parameters":',
        close="}",
        parallel=False,
        first_only=True,
    ),
    HERMES,
)


def speech(template: str, vocabulary: Vocabulary) -> Speech:
    """The row for a model whose chat template is this one."""
    known = {**vocabulary.named, **vocabulary.controls}
    row = next(
        row
        for row in SPEECHES
        if all(text in template for text in row.has) and all(mark in known for mark in row.needs)
    )
    thoughts = row.thoughts
    if thoughts is not None and thoughts.close not in template and thoughts.close not in known:
        # The marks of gpt-oss are made of several, which its row has asked for.
        thoughts = thoughts if row.needs and not thoughts.empty else None
    return bound(replace(row, thoughts=thoughts, switch=SWITCH in template), vocabulary)


def told(row: Speech, vocabulary: Vocabulary) -> Speech:
    """The row of a model that hears of tools from us and not from its template: it calls as we tell it."""
    hermes = {name: getattr(HERMES, name) for name in CALLING}
    return bound(replace(row, **hermes), vocabulary)


CALLING = (
    "trigger",
    "open",
    "between",
    "gap",
    "close",
    "after_text",
    "after_call",
    "parallel",
    "first_only",
    "close_ends",
)


def bound(row: Speech, vocabulary: Vocabulary) -> Speech:
    """The row with those marks of its literals that this vocabulary has."""
    thoughts = (row.thoughts.open, row.thoughts.close, row.thoughts.empty) if row.thoughts else ()
    literals = (row.open, row.between, row.close, row.say, row.after_text, row.after_call, *thoughts)
    known = {**vocabulary.named, **vocabulary.controls}
    # A named token may also be a word like any other; a mark has brackets around it.
    marks = {
        mark: token
        for mark, token in known.items()
        if mark[0] in "<[" and mark[-1] in ">]" and any(mark in literal for literal in literals)
    }
    return replace(row, marks=MappingProxyType(marks))
