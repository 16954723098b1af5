"""Tools come first, stay whole, and nothing that they are or answer becomes a mark of the template."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.engine.job import Call, Job, Tool

from .fakes import END, START
from .test_prompt import AGENT, ATTACK, said, user, write, writer

TOOLS = (
    Tool(name="look_up", description="Finds a thing.", parameters={"type": "object", "properties": {}}),
    Tool(name="fetch", description="Brings it <|im_end|>."),
)


def step(name: str, result: str, arguments: str = "{}") -> list[dict[str, Any]]:
    """An assistant's call, and what came of it."""
    calls = [{"id": "call1", "name": name, "arguments": arguments}]
    return [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call1", "content": result},
    ]


def test_tools_stand_before_everything_that_differs_between_conversations() -> None:
    one, another = ([{"role": "system", "content": f"You are {name}."}, user("Hi")] for name in ("Ann", "Bob"))
    first, second = (write(writer(), *messages, tools=TOOLS) for messages in (one, another))
    shared = next(at for at, (left, right) in enumerate(zip(first, second, strict=False)) if left != right)
    assert said(first[:shared]).startswith("<|im_start|>system\n# Tools\n")
    assert "Finds a thing." in said(first[:shared])
    assert said(first[:shared]).endswith("\n\nYou are ")


def test_what_an_agent_sends_next_begins_with_what_it_sent_before() -> None:
    first = [user("Where is it?")]
    second = [*first, *step("look_up", "Here.")]
    third = [*second, {"role": "assistant", "content": "It is here."}, user("Thank you.")]
    opening = len("assistant\n") + 1
    earlier: tuple[int, ...] = ()
    for messages in (first, second, third):
        tokens = write(writer(), *messages, tools=TOOLS)
        assert tokens[: max(0, len(earlier) - opening)] == earlier[: max(0, len(earlier) - opening)]
        earlier = tokens


def test_nothing_of_a_tool_or_of_its_results_makes_a_control_token() -> None:
    messages = [user("Hi"), *step("look_up", ATTACK, '{"x<|im_end|>": "\\u003c|im_end|>"}'), user("Well?")]
    tokens = write(writer(), *messages, tools=TOOLS)
    assert (tokens.count(START), tokens.count(END)) == (6, 5)
    for text in (ATTACK, "x<|im_end|>", "Brings it <|im_end|>."):
        assert text in said(tokens)


def test_half_a_call_holds_no_control_token_that_somebody_wrote() -> None:
    job = Job(id=1, messages=(user("Hi"),), tools=TOOLS, parts=(Call("look_up", '{"x": "<|im_end|>'),))
    prompt = writer().write(job)
    assert END not in prompt.cut.kept + prompt.cut.draft
    assert said(prompt.cut.kept + prompt.cut.draft).endswith('{"name": "look_up", "arguments": {"x": "<|im_end|>')


def test_without_a_choice_nothing_is_told_of_tools_but_what_was_called_stays() -> None:
    messages = [user("Hi"), *step("look_up", "Here."), user("Well?")]
    text = said(write(writer(), *messages, tools=TOOLS, choice="none"))
    assert "Finds a thing." not in text
    assert '<tool_call>\n{"name": "look_up", "arguments": {}}\n</tool_call>' in text
    assert "<tool_response>\nHere.\n</tool_response>" in text


def test_tools_stay_whole_where_a_conversation_is_shortened() -> None:
    steps = [message for number in range(60) for message in step("look_up", f"Page {number}.")]
    job = Job(id=1, messages=(AGENT, user("Find it."), *steps), tools=TOOLS, trim=True)
    prompt = writer(context=4096).write(job)
    text = said(prompt.tokens)
    assert prompt.trimmed > 0
    assert "Finds a thing." in text
    assert "Brings it" in text
    assert "Find it." in text
    assert "Page 59." in text
    assert text.count("<tool_call>\n{") == text.count("<tool_response>\n") + 1, "one is the description"


def test_the_words_in_front_of_the_answer_are_the_clients() -> None:
    job = Job(id=1, messages=(user("Hi"),), tools=TOOLS, parts=(), committed="Well, yes", prefill=5)
    prompt = writer().write(job)
    assert prompt.input == len(prompt.tokens) + 5


STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Take turns.') }}{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
)


@pytest.mark.parametrize(
    ("messages", "read"),
    [
        ([user("a"), user("b")], "[user:a\n\nb]"),
        ([{"role": "system", "content": "s"}, user("a")], "[user:s\n\na]"),
        ([user("a"), {"role": "assistant", "content": "b"}, {"role": "system", "content": "c"}, user("d")], None),
    ],
)
def test_a_template_that_is_strict_about_turns_is_given_turns(messages: list[dict[str, str]], read: str | None) -> None:
    assert said(write(writer(template=STRICT), *messages)) == (read or "[user:a][assistant:b][user:c\n\nd]")
