"""What a family's row spells is what its models' own templates write, to the letter."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.engine.job import Call, Job, Tool, Words
from appliance.engine.speech import HERMES, SPEECHES, Speech

from .families import (
    CALL_MARKS,
    CHATML_MARKS,
    GEMMA,
    GEMMA_4_MARKS,
    GEMMA_MARKS,
    GENERATION,
    GRANITE_MARKS,
    HARMONY_MARKS,
    LLAMA_3,
    LLAMA_MARKS,
    MISTRAL_MARKS,
    Family,
    template,
)

QWEN = (*CHATML_MARKS, *CALL_MARKS)
TOOL = Tool(
    name="look_up",
    description="Finds a thing.",
    parameters={"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
)
ARGUMENTS = '{"thing": "a lamp", "where": ["here", "<there>"]}'
WRITES = '<tool_call>\n{"name": "look_up", "arguments": ' + ARGUMENTS + "}\n</tool_call>"


def family(name: str) -> Family:
    source, marks = SOURCES[name]
    return Family(source, marks)


SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "qwen3": (template("Qwen-Qwen3-0.6B"), QWEN),
    "qwen2.5": (template("Qwen-Qwen2.5-7B-Instruct"), QWEN[:4]),
    "granite": (template("ibm-granite-granite-4.0"), GRANITE_MARKS),
    "qwen3.5": (template("Qwen3.5-4B"), QWEN),
    "qwen3-coder": (template("Qwen3-Coder"), QWEN),
    "smollm3": (template("HuggingFaceTB-SmolLM3-3B"), QWEN),
    "gemma": (GEMMA, GEMMA_MARKS),
    "gemma-4": (template("google-gemma-4-31B-it"), GEMMA_4_MARKS),
    "gpt-oss": (template("openai-gpt-oss-120b"), HARMONY_MARKS),
    "ministral": (template("mistralai-Ministral-3-14B-Reasoning-2512"), MISTRAL_MARKS),
    "mistral-small": (template("Mistral-Small-3.2-24B-Instruct-2506"), MISTRAL_MARKS),
    "mistral-nemo": (template("mistralai-Mistral-Nemo-Instruct-2407"), MISTRAL_MARKS[:9]),
    "llama-3": (LLAMA_3, LLAMA_MARKS),
    "generation": (GENERATION, CHATML_MARKS),
    "no template": ("", CHATML_MARKS),
}

# What a template writes of a call, whether it tells of tools itself, and the row that is chosen.
WRITTEN = {
    "qwen3": ("hermes", True, WRITES),
    "qwen2.5": ("hermes", True, WRITES),
    "granite": ("hermes", True, WRITES),
    "qwen3.5": ("qwen-xml", False, WRITES),
    "qwen3-coder": ("qwen-xml", False, WRITES),
    "smollm3": ("smollm3", False, WRITES),
    "gemma": ("gemma", False, WRITES),
    "gemma-4": ("gemma-4", False, WRITES),
    "gpt-oss": (
        "gpt-oss",
        True,
        f"<|start|>assistant to=functions.look_up<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>",
    ),
    "ministral": ("ministral", True, f"[TOOL_CALLS]look_up[ARGS]{ARGUMENTS}"),
    "mistral-small": ("mistral-id", True, f"[TOOL_CALLS]look_up[CALL_ID]call00000[ARGS]{ARGUMENTS}"),
    "mistral-nemo": (
        "mistral-list",
        True,
        '[TOOL_CALLS][{"name": "look_up", "arguments": ' + ARGUMENTS + ', "id": "call00000"}]',
    ),
    "llama-3": ("llama-3", True, '{"name": "look_up", "parameters": ' + ARGUMENTS + "}"),
    "generation": ("generic", False, WRITES),
    "no template": ("generic", False, WRITES),
}
# What the models of two families write differs from what is shown to them later.
ANSWERED = {
    "gpt-oss": f"<|channel|>commentary to=functions.look_up <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
    "mistral-nemo": '[TOOL_CALLS][{"name": "look_up", "arguments": ' + ARGUMENTS + "}]",
}

ASKED: list[dict[str, Any]] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}]
CALLED: list[dict[str, Any]] = [
    *ASKED,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00000", "name": "look_up", "arguments": ARGUMENTS}],
    },
    {"role": "tool", "tool_call_id": "call00000", "name": "look_up", "content": "Under the bed."},
]


@pytest.mark.parametrize("name", SOURCES)
def test_each_family_has_its_row(name: str) -> None:
    row, own, _ = WRITTEN[name]
    one = family(name)
    assert (one.speech.family, one.writer._manner.own) == (row, own)


@pytest.mark.parametrize("name", SOURCES)
def test_a_call_in_the_conversation_is_written_as_the_family_writes_it(name: str) -> None:
    one = family(name)
    rendered = one.prompt(CALLED, tools=(TOOL,))
    assert rendered.count(WRITTEN[name][2]) == 1
    assert rendered.count("Under the bed.") == rendered.count(TOOL.description) == 1
    assert one.prompt(CALLED).count(WRITTEN[name][2]) == 1, "earlier calls are told where there are no tools any more"


@pytest.mark.parametrize("name", SOURCES)
def test_the_row_spells_what_the_template_writes(name: str) -> None:
    speech = family(name).speech
    spelled = speech.call("look_up", ARGUMENTS)
    assert spelled == ANSWERED.get(name, WRITTEN[name][2])
    assert speech.open.startswith(speech.trigger)


@pytest.mark.parametrize("name", SOURCES)
def test_marks_of_the_row_are_tokens_where_the_vocabulary_has_them(name: str) -> None:
    one = family(name)
    spelled = one.speech.call("look_up", ARGUMENTS)
    tokens = one.speech.spell(spelled, one.letters.tokenize)
    assert one.letters.text(tokens) == spelled
    assert tokens == one.letters.tokenize(spelled, template=True)


@pytest.mark.parametrize("name", SOURCES)
def test_the_next_turn_begins_with_the_answer_that_was_written(name: str) -> None:
    one = family(name)
    parts = (Call("look_up", ARGUMENTS),)
    answer = one.answered(ASKED, tools=(TOOL,), parts=parts)
    assert answer.endswith(one.speech.call("look_up", ARGUMENTS)[: -len(one.speech.close) or None]), "its end is drawn"
    if name in ANSWERED or one.speech.thoughts is not None:
        return  # thoughts that were left out are not shown later
    before = one.prompt(ASKED, tools=(TOOL,))
    assert one.prompt(CALLED, tools=(TOOL,)).startswith(before + answer + one.speech.close)


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "granite"])
def test_words_and_several_calls_stand_as_the_template_has_them(name: str) -> None:
    one = family(name)
    second = '{"thing": "a key"}'
    calls = [{"id": "1", "name": "look_up", "arguments": ARGUMENTS}, {"id": "2", "name": "f", "arguments": second}]
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": calls}
    parts = (Words("Let me see."), Call("look_up", ARGUMENTS), Call("f", second))
    written = one.answered(ASKED, parts=parts) + one.speech.close
    written = written.removeprefix("<think>\n\n</think>\n\n")
    assert written in one.prompt([*ASKED, message, {"role": "user", "content": "Go on."}])


@pytest.mark.parametrize("name", SOURCES)
def test_half_a_call_stands_behind_the_prompt_to_the_letter(name: str) -> None:
    one = family(name)
    for size in range(len(ARGUMENTS) + 1):
        parts = (Words("I look."), Call("look_up", ARGUMENTS[:size]))
        answer = one.answered(ASKED, tools=(TOOL,), parts=parts)
        head = one.speech.open + "look_up" + one.speech.between + (one.speech.gap if size else "")
        assert answer.endswith(head + ARGUMENTS[:size])
        assert answer.count("I look.") == 1


@pytest.mark.parametrize("name", SOURCES)
def test_text_behind_a_call_is_told_apart_from_it(name: str) -> None:
    one = family(name)
    answer = one.answered(ASKED, parts=(Call("look_up", ARGUMENTS),), committed="There it is.")
    speech = one.speech
    assert answer.endswith(speech.call("look_up", ARGUMENTS) + speech.after_call + speech.say + "There it is.")


# ------------------------------------------------------------------------------------------------------- thoughts

OFF = {
    "qwen3": "<think>\n\n</think>\n\n",
    "qwen3.5": "<think>\n\n</think>\n\n",
    "smollm3": "<think>\n\n</think>\n",
    "gemma-4": "<|channel>thought\n<channel|>",
}


@pytest.mark.parametrize("name", SOURCES)
def test_who_may_not_think_begins_behind_closed_thoughts(name: str) -> None:
    closed = OFF.get(name, "")
    one = family(name)
    rendered = one.prompt(ASKED, effort="none")
    assert rendered.endswith(closed)
    assert rendered.count(closed) == 1 or not closed
    if one.speech.thoughts is not None:
        assert not one.speech.opened(rendered)


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_committed_is_behind_thoughts(name: str) -> None:
    one = family(name)
    whole = one.prompt(ASKED) + one.answered(ASKED, committed="There.")
    assert whole.endswith(OFF.get(name, "") + one.speech.say + "There.")
    assert whole.count(OFF.get(name, " no")) <= 1


@pytest.mark.parametrize(
    ("name", "effort", "thinking"),
    [
        ("qwen3", None, "free"),
        ("qwen3", "high", "free"),
        ("qwen3", "none", "off"),
        ("qwen3.5", "high", "open"),
        ("gpt-oss", None, "free"),
        ("gpt-oss", "none", "off"),
        ("gemma", None, "off"),
        ("no template", None, "off"),
    ],
)
def test_how_an_answer_begins(name: str, effort: str | None, thinking: str) -> None:
    job = Job(id=1, messages=tuple(ASKED), effort=effort)
    assert family(name).writer.write(job).thinking == thinking


# ---------------------------------------------------------------------------------------------------------- the rows


def test_atoms_are_marks_and_what_is_between_them() -> None:
    row = Speech(family="x", marks={"<a>": 1, "<a><b>": 2})
    assert row.atoms("x<a>y<a><b><b>") == ["x", 1, "y", 2, "<b>"]
    assert row.atoms("") == []
    assert Speech(family="x").atoms("<a>") == ["<a>"]


def test_a_row_that_needs_marks_is_not_for_a_vocabulary_without_them() -> None:
    one = Family(template("mistralai-Ministral-3-14B-Reasoning-2512"), ("<s>", "</s>", "[INST]", "[/INST]"))
    assert (one.speech.family, one.speech.trigger) == ("generic", "<tool_call>")


def test_only_one_row_was_run_with_weights() -> None:
    assert [row.family for row in SPEECHES if row.weights] == ["generic"]
    assert len({row.family for row in SPEECHES}) == len(SPEECHES)


@pytest.mark.parametrize(
    ("tail", "written"),
    [
        ("assistant\n", ""),
        ("assistant\n<think>", "\n\n</think>\n\n"),
        ("assistant\n<think>\n", "\n</think>\n\n"),
        ("assistant\n<think>\n\n</think>\n\n", ""),
        ("assistant\n<think>\n\n</think>", ""),
    ],
)
def test_thoughts_that_the_prompt_opens_are_closed_and_no_more(tail: str, written: str) -> None:
    assert replace(HERMES, switch=False).closing(tail) == written
    switched = written or ("" if "</think>" in tail else "<think>\n\n</think>\n\n")
    assert replace(HERMES, switch=True).closing(tail) == switched
    assert HERMES.opened(tail) is ("<think>" in tail and "</think>" not in tail)


def test_the_page_has_a_row_for_each_family_and_says_which_was_run_with_weights() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| (.+?) \| (.+) \| (.+?) \|$", page, flags=re.MULTILINE)
    assert [(family, said.startswith("yes")) for family, _, _, said in rows] == [
        (row.family, row.weights) for row in SPEECHES
    ]
    for (family, _, call, said), row in zip(rows, SPEECHES, strict=True):
        assert said == "no" or (row.weights and said.startswith("yes: ")), family
        if call in ("as `generic`", "see below"):
            assert (row.open, row.between, row.close) == (HERMES.open, HERMES.between, HERMES.close)
        else:
            written = row.call("NAME", "ARGS").replace("|", "\\|")
            assert call == f"`{written}`"
