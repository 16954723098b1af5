"""Templates of strangers run as their authors meant, and no further."""

from __future__ import annotations

import pytest

from appliance.engine.templates import CHATML, Raised, compile_template, first_that_renders

from .families import CHATML_MARKS, GENERATION, Letters

VOCABULARY = Letters(CHATML_MARKS).vocabulary
HELLO = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def test_what_is_marked_for_training_is_written_like_the_rest() -> None:
    text = compile_template(GENERATION, VOCABULARY).render(HELLO)
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|><|im_start|>assistant\n"


def test_what_is_not_told_is_not_defined() -> None:
    template = compile_template("{{ tools is defined }} {{ enable_thinking is defined }}", VOCABULARY)
    assert template.render(HELLO, tools=None, enable_thinking=False) == "False True"


def test_json_is_written_as_templates_expect_it() -> None:
    template = compile_template("{{ messages | tojson }}{{ messages[0] | tojson(indent=1) }}", VOCABULARY)
    assert template.render([{"role": "ü<&"}]) == '[{"role": "ü<&"}]{\n "role": "ü<&"\n}'


def test_a_refusal_has_the_templates_own_words() -> None:
    with pytest.raises(Raised, match="Not so"):
        compile_template("{{ raise_exception('Not so.') }}", VOCABULARY).render(HELLO)


@pytest.mark.parametrize("source", [None, "", "{% generation %}", "{{ 1 / 0 }}", "silent", "{% endgeneration %}Hello"])
def test_what_does_not_render_is_not_used(source: str | None) -> None:
    assert first_that_renders((source,), VOCABULARY).source == CHATML
