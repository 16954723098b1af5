"""Of a conversation that does not fit, the question and what the tools answered last are given up last."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from appliance.engine.job import Template
from appliance.engine.shortening import fewer

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def chat(written: str) -> list[Template]:
    """Messages in short: "u1 a2" is what a user said first and the assistant second."""
    return [{"role": ROLES[word[0]], "content": word} for word in written.split()]


def kept(choices: Sequence[Sequence[Template]]) -> list[str]:
    return [" ".join(str(message["content"]) for message in choice) for choice in choices]


@pytest.mark.parametrize(
    ("whole", "choices"),
    [
        ("s u1 a1 u2 a2 u3", ["s u2 a2 u3", "s u3"]),
        ("u1 a1 t1 a2 t2 a3 t3", ["u1 a2 t2 a3 t3", "u1 a3 t3"]),
        ("u1 a1 u2 a2 t2 a3 t3", ["u2 a2 t2 a3 t3", "u2 a3 t3"]),
        ("u1", []),
    ],
)
def test_the_oldest_turns_go_first_then_the_oldest_steps(whole: str, choices: list[str]) -> None:
    assert kept(fewer(chat(whole))) == choices


@pytest.mark.parametrize(
    ("whole", "choices"),
    [
        ("s u1 a1 t1 u2", []),
        ("s u1 a1 t1 u2 a2 t2 u3 a3 t3 t4 u4", ["s u1 a2 t2 u3 a3 t3 t4 u4", "s u1 a3 t3 t4 u4"]),
        ("s u1 a1 u2 a2 t2 u3 a3 t3 u4", ["s u2 a2 t2 u3 a3 t3 u4", "s u2 a3 t3 u4"]),
        ("u1 a1 t1 s1 u2 a2 t2 s2 u3", ["u1 s1 a2 t2 s2 u3"]),
        ("u1 a1 t1 u2 a2 u3 a3 t3 u4", ["u3 a3 t3 u4"]),
    ],
)
def test_what_a_user_says_behind_a_tools_answer_is_no_new_question(whole: str, choices: list[str]) -> None:
    assert kept(fewer(chat(whole))) == choices


@pytest.mark.parametrize(
    ("whole", "choices"), [("s a1 t1 u1 a2 t2 u2 a3", ["s a2 t2 u2 a3", "s a3"]), ("a1 t1", []), ("s", []), ("", [])]
)
def test_without_a_question_the_oldest_steps_go(whole: str, choices: list[str]) -> None:
    assert kept(fewer(chat(whole))) == choices
