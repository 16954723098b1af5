"""The real engine with the starter model, asked by the official client for several answers, for how likely each token
was, and for what a grammar says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from appliance.config import LocalConfig, TimeoutConfig
from tests.fakes import Stage, real_stage

pytestmark = pytest.mark.live

QUESTION: list[Any] = [{"role": "user", "content": "Name a town by the sea."}]
TIMEOUTS = TimeoutConfig(connect=2.0, first_content=120.0, stall=120.0, total=120.0)
ASKED: dict[str, Any] = {"model": "local", "messages": QUESTION, "max_tokens": 8}
TOWN = 'root ::= ("Brest" | "Lorient" | "caf\u00e9 \U0001f30a") "!"{2,3}'


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Stage]:
    local = LocalConfig(model=str(starter_gguf), context=1024, slots=3, standby="cold")
    with real_stage(tmp_path_factory.mktemp("stage"), starter_gguf, local=local, timeouts=TIMEOUTS) as running:
        yield running


@pytest.fixture
def sdk(box: Stage) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="x", base_url=f"{box.url}/v1", max_retries=0, timeout=100) as client:
        yield client


def test_several_answers_at_once(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(**ASKED, n=3, seed=1, temperature=1.5)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in whole.choices}) > 1
    assert whole.usage is not None
    one = sdk.chat.completions.create(**ASKED, seed=1, temperature=1.5)
    assert one.usage is not None
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens
    assert one.usage.completion_tokens < whole.usage.completion_tokens <= 24
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_several_answers_as_streams(sdk: openai.OpenAI) -> None:
    chunks = list(
        sdk.chat.completions.create(**ASKED, n=2, temperature=0, stream=True, stream_options={"include_usage": True})
    )
    said = {0: "", 1: ""}
    for choice in [choice for chunk in chunks for choice in chunk.choices]:
        said[choice.index] += choice.delta.content or ""
    assert said[0] == said[1] != ""
    ends = [
        (choice.index, choice.finish_reason) for chunk in chunks for choice in chunk.choices if choice.finish_reason
    ]
    assert sorted(index for index, _ in ends) == [0, 1]
    assert chunks[-1].usage is not None
    with pytest.raises(openai.BadRequestError, match="n can be at most 8 on this box") as caught:
        sdk.chat.completions.create(**ASKED, n=9)
    assert caught.value.param == "n"


@pytest.mark.parametrize("stream", [False, True])
def test_how_likely_each_token_was(sdk: openai.OpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {**ASKED, "logprobs": True, "top_logprobs": 3, "temperature": 0}
    if stream:
        choices = [choice for chunk in sdk.chat.completions.create(**asked, stream=True) for choice in chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or []]
        for choice in choices:
            here = "".join(token.token for token in (choice.logprobs and choice.logprobs.content) or [])
            assert here == (choice.delta.content or "")
    else:
        [choice] = sdk.chat.completions.create(**asked).choices
        text = choice.message.content or ""
        tokens = (choice.logprobs and choice.logprobs.content) or []
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode() == text != ""
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob <= 0
        assert token.token == token.top_logprobs[0].token


def test_what_a_grammar_says(sdk: openai.OpenAI) -> None:
    towns = {f"{town}{'!' * count}" for town in ("Brest", "Lorient", "caf\u00e9 \U0001f30a") for count in (2, 3)}
    said = sdk.chat.completions.create(**{**ASKED, "max_tokens": 30}, n=2, extra_body={"grammar": TOWN})
    assert {choice.message.content for choice in said.choices} <= towns
    assert {choice.finish_reason for choice in said.choices} == {"stop"}
    with pytest.raises(openai.BadRequestError, match="grammar is wrong in line 1: there is no rule 'x'") as caught:
        sdk.chat.completions.create(**ASKED, extra_body={"grammar": "root ::= x"})
    assert caught.value.param == "grammar"
